//! Which events of its parent's log a forked child inherits.

use crate::event::Parent;
use std::collections::HashMap;

/// Which events to take of each thread: those that a forked child inherits.
#[derive(Clone, Debug, Default)]
pub struct Cut {
    named: HashMap<u32, u64>,
    streams: u64,
}

impl Cut {
    /// What a child inherits of its parent's log.
    pub fn of(parent: &Parent) -> Cut {
        Cut {
            named: parent.cut.iter().copied().collect(),
            streams: parent.streams,
        }
    }

    /// The number of the last event to take of a thread; 0 for none, 2^64-1 for all.
    pub fn last(&self, thread: u32) -> u64 {
        let ended = u64::from(thread) <= self.streams;
        let other = if ended { u64::MAX } else { 0 };
        self.named.get(&thread).copied().unwrap_or(other)
    }
}
