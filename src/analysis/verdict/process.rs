//! A process of the checked tree, as its log shows it.

use super::{Leak, Measures};

/// How a process image ended, as far as its log knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// By return from main, exit, `_exit`, `quick_exit`: the word of the log's `end` line.
    Exit(String),
    /// It became another program: blocks that were live then are gone with it.
    Exec,
    /// The log has no end.
    Unknown,
}

/// One process image and what its log says about leaks.
#[derive(Clone, Debug)]
pub struct Process {
    /// The process.
    pub pid: u32,
    /// Its parent's.
    pub parent: Option<u32>,
    /// Last component of the executable's path.
    pub program: String,
    /// Path of its log.
    pub log: String,
    /// How it ended.
    pub ending: Ending,
    /// The user asked for it to be left out of the verdict (`--skip`).
    pub skipped: bool,
    /// Why it could not be judged, in words; empty when it was.
    pub doubts: Vec<String>,
    /// What its last leak check found.
    pub leaks: Vec<Leak>,
    /// What its log counted, for the budgets.
    pub measures: Measures,
}

impl Process {
    /// Whether the process counts as judged.
    pub fn judged(&self) -> bool {
        self.doubts.is_empty() && !self.skipped
    }
}
