//! Commands that have ended, and the limit that keeps a hanging one from hanging the tests.

use std::io::{Read, Write as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// How long any command of a test may take, even under valgrind on a busy machine.
const LIMIT: Duration = Duration::from_secs(300);

/// A command that has ended: its status and what it printed.
#[derive(Debug)]
pub(crate) struct Finished {
    /// How it ended.
    pub(crate) status: ExitStatus,
    /// What it wrote to standard output.
    pub(crate) stdout_bytes: Vec<u8>,
    /// What it wrote to standard error.
    pub(crate) stderr_bytes: Vec<u8>,
    command: String,
}

/// Runs a command to its end, without input, and collects its output.
///
/// The command gets a process group of its own, which is killed with it when the limit is over.
pub(crate) fn finish(command: &mut Command) -> Finished {
    finish_with_input(command, b"")
}

/// The same, with `input` on standard input.
pub(crate) fn finish_with_input(command: &mut Command, input: &[u8]) -> Finished {
    let shown = format!("{command:?}");
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    let mut child = command
        .spawn()
        .unwrap_or_else(|error| panic!("can't start {shown}: {error}"));
    let mut stdin = child.stdin.take().expect("standard input is a pipe");
    let stdout = drain(child.stdout.take().expect("standard output is a pipe"));
    let stderr = drain(child.stderr.take().expect("standard error is a pipe"));
    let input = input.to_vec();
    // A command need not read what it is given.
    thread::spawn(move || stdin.write_all(&input));
    let status = wait(child, &shown);
    Finished {
        status,
        stdout_bytes: stdout.join().expect("the reader of stdout does not panic"),
        stderr_bytes: stderr.join().expect("the reader of stderr does not panic"),
        command: shown,
    }
}

fn drain(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).expect("a pipe can be read");
        bytes
    })
}

/// Waits for the child; kills its process group when it takes too long.
fn wait(mut child: Child, shown: &str) -> ExitStatus {
    let group = format!("-{}", child.id());
    let (ended, limit) = mpsc::channel::<()>();
    let watch = thread::spawn(move || {
        let hangs = limit.recv_timeout(LIMIT) == Err(mpsc::RecvTimeoutError::Timeout);
        if hangs {
            let killed = Command::new("kill").args(["-KILL", "--", &group]).status();
            killed.expect("kill can be started");
        }
        hangs
    });
    let status = child.wait().expect("the child can be waited for");
    drop(ended);
    let hung = watch.join().expect("the watch does not panic");
    assert!(!hung, "still running after {LIMIT:?}, killed: {shown}");
    status
}

impl Finished {
    /// Asserts that it ended with this status code.
    #[track_caller]
    pub(crate) fn code(self, code: i32) -> Self {
        assert_eq!(self.status.code(), Some(code), "{self}");
        self
    }

    /// Asserts that it ended with status 0.
    #[track_caller]
    pub(crate) fn success(self) -> Self {
        self.code(0)
    }

    /// Asserts that this signal killed it.
    #[track_caller]
    pub(crate) fn killed_by(self, signal: i32) -> Self {
        assert_eq!(self.status.signal(), Some(signal), "{self}");
        self
    }

    /// Standard output as text.
    #[track_caller]
    pub(crate) fn stdout(&self) -> &str {
        std::str::from_utf8(&self.stdout_bytes).expect("standard output is UTF-8")
    }

    /// Standard error as text.
    #[track_caller]
    pub(crate) fn stderr(&self) -> &str {
        std::str::from_utf8(&self.stderr_bytes).expect("standard error is UTF-8")
    }

    /// Standard output as one JSON document.
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.stdout_bytes).unwrap_or_else(|error| panic!("{error}: {self}"))
    }
}

impl std::fmt::Display for Finished {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        write!(
            f,
            "{}\n{}\n--- stdout\n{}\n--- stderr\n{}",
            self.command,
            self.status,
            text(&self.stdout_bytes),
            text(&self.stderr_bytes)
        )
    }
}
