//! Debug files by build id over the network, through elfutils' own client.
//!
//! The client reads DEBUGINFOD_URLS, keeps its cache, and is somebody else's to secure.

use std::ffi::OsString;
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long one file may take. The client's own limit is 90 seconds without progress.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
/// How often the client is looked after.
const TICK: Duration = Duration::from_millis(20);

/// The path of the debug file for `build_id` (hex), `None` when there is no client, no server has
/// it, or it takes too long.
pub(crate) fn debug_file(build_id: &str) -> Option<PathBuf> {
    fetch(
        Command::new("debuginfod-find").args(["debuginfo", build_id]),
        PATIENCE,
    )
}

/// Runs `client`, which prints a path, for at most `patience`.
fn fetch(client: &mut Command, patience: Duration) -> Option<PathBuf> {
    let mut child = client
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let started = Instant::now();
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if started.elapsed() < patience => thread::sleep(TICK),
            _ => {
                // Both fail only for a child that is gone already.
                let _ = child.kill();
                let _ = child.wait();
                return None;
            }
        }
    };
    let mut printed = Vec::new();
    child
        .stdout
        .take()?
        .take(64 * 1024)
        .read_to_end(&mut printed)
        .ok()?;
    let end = printed
        .iter()
        .position(|&byte| byte == b'\n')
        .unwrap_or(printed.len());
    printed.truncate(end);
    let path = PathBuf::from(OsString::from_vec(printed));
    (status.success() && path.is_absolute()).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn the_first_line_of_a_successful_client_is_the_path() {
        let found = fetch(&mut shell("echo /var/cache/x.debug; echo more"), PATIENCE);
        assert_eq!(found, Some(PathBuf::from("/var/cache/x.debug")));
    }

    #[test]
    fn a_client_that_fails_says_nothing_or_is_missing_gives_no_file() {
        assert_eq!(
            fetch(&mut shell("echo /var/cache/x.debug; exit 1"), PATIENCE),
            None
        );
        assert_eq!(fetch(&mut shell("true"), PATIENCE), None);
        assert_eq!(
            fetch(&mut Command::new("/nonexistent/client"), PATIENCE),
            None
        );
    }

    #[test]
    fn a_client_that_hangs_is_stopped() {
        assert_eq!(
            fetch(&mut shell("exec sleep 1000"), Duration::from_millis(50)),
            None
        );
    }
}
