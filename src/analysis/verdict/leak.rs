//! A leak as the log reports it, and the same leak after it was judged.

use super::{Fingerprint, Frame, Kind};

/// Live blocks of one kind that one stack allocated in one process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leak {
    /// Found how.
    pub kind: Kind,
    /// Number of blocks (or mappings).
    pub blocks: u64,
    /// Their bytes, as asked for.
    pub bytes: u64,
    /// Who allocated them, innermost frame first. Empty when stacks were off.
    pub frames: Vec<Frame>,
    /// The stack goes on beyond its outermost frame.
    pub cut: bool,
    /// The blocks came with fork from the parent: never this process's leak.
    pub inherited: bool,
}

/// What the policy makes of a leak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It fails the check.
    Fails,
    /// Its kind is not one of those that fail the check.
    Allowed,
    /// A one-time pool of the C or C++ runtime: counted and named, never a failure.
    Pool,
    /// A suppression (its index in the list) matched it.
    Suppressed(usize),
    /// The baseline holds it and it has not grown.
    Known,
    /// It fits in the leak budget.
    Budgeted,
    /// It is the parent's.
    Inherited,
}

/// A judged leak.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The leak itself.
    pub leak: Leak,
    /// Index of its process in the verdict's list.
    pub process: usize,
    /// Names this leak across builds and machines.
    pub fingerprint: Fingerprint,
    /// The runtime pool that it is, if it is one.
    pub pool: Option<&'static str>,
    /// What the policy makes of it.
    pub standing: Standing,
    /// Blocks and bytes that the baseline knows of, when it knows this leak and it has grown.
    pub grown_from: Option<(u64, u64)>,
}

impl Finding {
    /// The frame that a reader should look at first: the innermost one outside of the C and C++
    /// runtime, preferring one with a source line.
    pub fn culprit(&self) -> Option<&Frame> {
        let own = |frame: &&Frame| !frame.module_name().is_some_and(super::frame::is_runtime);
        let frames = &self.leak.frames;
        let sourced = frames.iter().filter(own).find(|frame| frame.line.is_some());
        sourced
            .or_else(|| frames.iter().find(own))
            .or_else(|| frames.first())
    }
}
