//! The exit codes of memspy, in one place; `--help` and the README state the same list.
//!
//! Three things never share a code: the program's own status, the leak verdict, a failure of memspy itself.

use std::fmt;

/// Everything went well.
pub(crate) const OK: u8 = 0;
/// A command that reads logs could not do what was asked.
pub(crate) const ERROR: u8 = 1;
/// The command line makes no sense (for `run` and `check`: [`NOT_JUDGED`], their other codes are the program's).
pub(crate) const USAGE: u8 = 2;
/// A running process did not answer in time, as timeout(1) says it.
pub(crate) const TIMED_OUT: u8 = 124;
/// memspy could not record or judge the program.
pub(crate) const NOT_JUDGED: u8 = 125;
/// The program exists and can't be executed.
pub(crate) const NOT_EXECUTABLE: u8 = 126;
/// There is no such program.
pub(crate) const NOT_FOUND: u8 = 127;
/// Added to a signal's number, as shells do, where memspy can't die of the same signal.
pub(crate) const SIGNAL_BASE: u8 = 128;

/// The list for `--help`.
pub(crate) const HELP: &str = "\
Exit codes:
  run         the program's own; a program that died of a signal: memspy dies of the same signal
  check       the program's own if it failed; 23 when it did well and the verdict is bad
  run, check, doctor
              125 memspy can't record or judge, 126 the program can't be executed,
              127 there is no such program
  snapshot, mark
              0 done, 1 the process can't be asked, 124 it did not answer in time
  the others  0 done, 1 could not be done, 2 the command line makes no sense";

/// An error that chose its exit code. Any other error gets the subcommand's default.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The code to end with.
    pub(crate) code: u8,
    message: String,
}

impl Failure {
    /// An error with this code and this one-line message.
    pub(crate) fn new(code: u8, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}
