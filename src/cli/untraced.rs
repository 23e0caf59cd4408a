//! Programs that ran inside a recorded tree and left no log of their own.
//!
//! What can be known after the end: whether the launched process has a log at all, and which images ended with an
//! exec that no later image of the same process follows (a static or setuid program, say). A child that was spawned
//! with vfork straight into such a program leaves no trace in any log.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::terminal::show;

/// The longest `start` line that is looked at, in bytes: arguments take 4096, each byte at most six.
const START_MAX: u64 = 64 * 1024;
/// How much of a log's end is searched for its `end` line, in bytes. Events may follow it.
const END_MAX: u64 = 64 * 1024;

/// What a `start` line says about who the image is.
#[derive(Deserialize)]
struct Start {
    pid: u32,
    #[serde(default)]
    start_ticks: u64,
    #[serde(default)]
    mono_ns: u64,
    #[serde(default)]
    exe: String,
}

/// An `end` or `resumed` line.
#[derive(Deserialize)]
struct Closing {
    op: String,
    #[serde(default)]
    how: String,
}

/// Says, one sentence each, which programs of the tree were not recorded. `root` is the launched process.
pub(crate) fn untraced(logs: &[PathBuf], root: u32) -> Vec<String> {
    let mut sentences = Vec::new();
    // The images of each process, by time: an exec keeps the process and starts an image.
    let mut processes: BTreeMap<(u32, u64), Vec<(Start, &Path)>> = BTreeMap::new();
    for path in logs {
        if let Some(start) = read_start(path) {
            processes
                .entry((start.pid, start.start_ticks))
                .or_default()
                .push((start, path));
        }
    }
    if !processes.keys().any(|(pid, _)| *pid == root) {
        sentences.push(format!(
            "the program itself (pid {root}) left no log: libmemspy.so was not loaded into it; \
             memspy doctor may say why"
        ));
    }
    for images in processes.values() {
        let Some((last, path)) = images.iter().max_by_key(|(start, _)| start.mono_ns) else {
            continue;
        };
        if went_on(path).unwrap_or(false) {
            sentences.push(format!(
                "process {} went on from {} to a program that left no log (static, setuid, another libc or user?)",
                last.pid,
                show(&last.exe)
            ));
        }
    }
    sentences
}

fn read_start(path: &Path) -> Option<Start> {
    let file = File::open(path).ok()?;
    let mut line = Vec::new();
    BufReader::new(file.take(START_MAX))
        .read_until(b'\n', &mut line)
        .ok()?;
    serde_json::from_slice(&line).ok()
}

/// Whether the image ended with an exec: its last `end` line says so, and no `resumed` line (the exec failed) follows.
fn went_on(path: &Path) -> io::Result<bool> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(END_MAX)))?;
    let mut bytes = Vec::new();
    file.take(END_MAX).read_to_end(&mut bytes)?;
    let lines = bytes.split(|byte| *byte == b'\n').rev();
    let mut lines = lines.filter_map(|line| serde_json::from_slice::<Closing>(line).ok());
    let last = lines.find(|line| line.op == "end" || line.op == "resumed");
    Ok(last.is_some_and(|line| line.op == "end" && line.how.contains("exec")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A directory that is removed again.
    struct Logs(PathBuf);

    impl Logs {
        fn new(name: &str, logs: &[&str]) -> (Self, Vec<PathBuf>) {
            let directory =
                std::env::temp_dir().join(format!("memspy-{name}-{}", std::process::id()));
            fs::create_dir_all(&directory).expect("a temporary directory can be made");
            let write = |(number, text): (usize, &&str)| {
                let path = directory.join(format!("{number}.jsonl"));
                fs::write(&path, text).expect("a log can be written");
                path
            };
            let paths = logs.iter().enumerate().map(write).collect();
            (Self(directory), paths)
        }
    }

    impl Drop for Logs {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    const SHELL: &str = r#"{"op":"start","v":1,"pid":7,"start_ticks":5,"mono_ns":10,"exe":"/bin/sh"}
{"op":"end","t":9,"how":"execve"}
"#;

    #[test]
    fn an_exec_without_a_later_image_is_reported() {
        let (_directory, paths) = Logs::new("lonely-exec", &[SHELL]);
        let sentences = untraced(&paths, 7);
        assert!(
            sentences.len() == 1 && sentences[0].contains("process 7 went on from /bin/sh"),
            "{sentences:?}"
        );
    }

    #[test]
    fn an_exec_with_a_later_image_is_not_reported() {
        let cat = r#"{"op":"start","v":1,"pid":7,"start_ticks":5,"mono_ns":20,"exe":"/bin/cat"}"#;
        let (_directory, paths) = Logs::new("followed-exec", &[SHELL, cat]);
        assert_eq!(untraced(&paths, 7), [""; 0]);
    }

    #[test]
    fn an_exec_that_failed_is_not_reported() {
        let resumed = format!("{SHELL}{}\n", r#"{"op":"resumed","t":10,"why":"execve"}"#);
        let (_directory, paths) = Logs::new("failed-exec", &[&resumed]);
        assert_eq!(untraced(&paths, 7), [""; 0]);
    }

    #[test]
    fn a_root_without_a_log_is_reported() {
        let (_directory, paths) = Logs::new(
            "no-root",
            &["", "\0{", SHELL.lines().next().unwrap_or_default()],
        );
        let sentences = untraced(&paths, 6);
        assert!(
            sentences.len() == 1 && sentences[0].contains("pid 6"),
            "{sentences:?}"
        );
    }
}
