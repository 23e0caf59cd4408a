//! The live blocks of the heap: which, how many, how large, and how large they once were.
//!
//! How odd cases count (dhat's list):
//! - A realloc that succeeds ends the old block and begins a new one, also in place.
//! - A realloc that fails changes nothing. One that returned NULL without an error freed.
//! - A free or realloc of a block that is not live ends nothing and is counted as an oddity.
//! - An allocation at the address of a live block ends that one first (its free was not seen).
//! - free(NULL) is counted as a call and is no oddity.
//! - A block of size 0 is a block.

use super::Change;
use super::block_table::BlockTable;
use crate::event::{Address, Alloc, Free, Realloc, StackId};
use crate::merge::{Half, Step};
use memspy_log::Op;
use serde::Serialize;

/// Live blocks from which on lookups are made ahead: about what a second-level cache holds.
const WARM_FROM: usize = 1 << 13;
/// Slots of the memory for recently freed addresses.
const RECENT: usize = 1 << 12;

/// A block that has not been freed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LiveBlock {
    /// Bytes asked for.
    pub size: u64,
    /// When its call had returned, nanoseconds since the image started; in a forked child, for an
    /// inherited block, a time of the parent.
    pub t: u64,
    /// The event's number in its thread.
    pub n: u64,
    /// The call stack that asked for it, 0 when the log has none. Of an inherited block a number
    /// of the parent's log.
    pub stack: StackId,
    /// memspy's number of the thread that asked for it.
    pub thread: u32,
    /// The call.
    pub op: Op,
    /// Whether it came with fork from the parent.
    pub inherited: bool,
    /// A number that no other live block has, given out anew when the block has died: the smallest
    /// ones, so that a visitor can keep what it knows of blocks in an array.
    pub number: u32,
}

const _: () = assert!(size_of::<LiveBlock>() <= 40);

impl LiveBlock {
    /// What stands where there is no block.
    pub(super) const NONE: LiveBlock = LiveBlock {
        size: 0,
        t: 0,
        n: 0,
        stack: 0,
        thread: 0,
        op: Op::Malloc,
        inherited: false,
        number: 0,
    };
}

/// Gives out the numbers of live blocks.
#[derive(Debug, Default)]
struct Numbers {
    given: u32,
    free: Vec<u32>,
}

impl Numbers {
    #[inline(always)]
    fn take(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.given += 1;
            self.given - 1
        })
    }
}

/// Blocks and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Level {
    /// Bytes asked for.
    pub bytes: u64,
    /// Blocks.
    pub blocks: u64,
}

impl Level {
    /// Adds a block of so many bytes.
    #[inline]
    pub fn add(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
        self.blocks += 1;
    }

    /// Takes a block of so many bytes away; never below zero.
    #[inline]
    pub fn remove(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_sub(bytes);
        self.blocks = self.blocks.saturating_sub(1);
    }
}

/// The highest moment of the live bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Peak {
    /// What was live then.
    #[serde(flatten)]
    pub level: Level,
    /// When it was first reached, nanoseconds since the image started.
    pub t: u64,
}

/// How often memory was asked for and given back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Blocks given out and their bytes, each successful realloc included.
    pub allocated: Level,
    /// Blocks given back and their bytes, the old block of each successful realloc included.
    pub freed: Level,
    /// Calls that failed.
    pub failures: u64,
    /// free(NULL) calls.
    pub free_null: u64,
}

/// What can't be, had the log seen everything and the program made no mistake.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Oddities {
    /// Blocks that were freed and then freed again, with no allocation in between.
    pub freed_twice: u64,
    /// Frees and reallocs of blocks that the log does not know.
    pub unknown_freed: u64,
    /// Allocations at the address of a live block.
    pub allocated_over_live: u64,
}

impl Oddities {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.freed_twice + self.unknown_freed + self.allocated_over_live
    }
}

/// The live blocks and what was counted on the way.
#[derive(Debug)]
pub struct Heap {
    live: BlockTable,
    numbers: Numbers,
    now: Level,
    peak: Peak,
    counts: Counts,
    oddities: Oddities,
    inherited: Level,
    /// Freed addresses, each in the slot of its hash: tells a double free from an unknown block.
    recent: Box<[Address]>,
}

impl Default for Heap {
    fn default() -> Self {
        Heap {
            live: BlockTable::default(),
            numbers: Numbers::default(),
            now: Level::default(),
            peak: Peak::default(),
            counts: Counts::default(),
            oddities: Oddities::default(),
            inherited: Level::default(),
            recent: vec![0; RECENT].into(),
        }
    }
}

impl Heap {
    /// The block at an address.
    pub fn block(&self, address: Address) -> Option<&LiveBlock> {
        self.live.get(address)
    }

    /// All live blocks with their addresses, in no order.
    pub fn live(&self) -> impl Iterator<Item = (Address, &LiveBlock)> {
        self.live.iter()
    }

    /// What is live now.
    pub fn now(&self) -> Level {
        self.now
    }

    /// The highest moment so far.
    pub fn peak(&self) -> Peak {
        self.peak
    }

    /// What was counted so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// What was odd so far.
    pub fn oddities(&self) -> Oddities {
        self.oddities
    }

    /// What came with fork from the parent.
    pub fn inherited(&self) -> Level {
        self.inherited
    }

    /// Touches the blocks at these addresses, one right after the other, so that their
    /// cache misses overlap. A heap that fits into the cache does not need it.
    #[inline]
    pub(crate) fn warm(&self, coming: impl Iterator<Item = Address>) {
        if self.live.len() < WARM_FROM {
            return;
        }
        let touched = coming.fold(0, |seen, address| seen ^ self.live.touch(address));
        std::hint::black_box(touched);
    }

    #[inline(always)]
    pub(super) fn alloc(&mut self, step: &Step, call: &Alloc) -> Change {
        if call.ptr == 0 {
            self.counts.failures += u64::from(step.event.err.is_some());
            return Change::default();
        }
        self.begin(step, call.ptr, call.bytes())
    }

    #[inline(always)]
    pub(super) fn free(&mut self, _step: &Step, call: &Free) -> Change {
        if call.ptr == 0 {
            self.counts.free_null += 1;
            return Change::default();
        }
        Change {
            died: self.end(call.ptr),
            born: None,
        }
    }

    pub(super) fn realloc(&mut self, step: &Step, call: &Realloc) -> Change {
        let mut change = Change::default();
        if step.event.err.is_some() {
            self.counts.failures += 1;
            return change;
        }
        if step.half != Half::Acquire && call.old != 0 {
            change.died = self.end(call.old);
        }
        if step.half != Half::Release && call.ptr != 0 {
            change = self.begin(step, call.ptr, call.bytes());
        }
        change
    }

    #[inline(always)]
    fn begin(&mut self, step: &Step, address: Address, size: u64) -> Change {
        let block = LiveBlock {
            size,
            t: step.time,
            n: step.n,
            stack: step.event.stack,
            thread: step.thread,
            op: step.event.op,
            inherited: false,
            number: self.numbers.take(),
        };
        self.counts.allocated.add(size);
        let over = self.live.insert(address, block);
        if let Some(over) = over {
            self.numbers.free.push(over.number);
            self.oddities.allocated_over_live += 1;
            self.now.remove(over.size);
        }
        self.now.add(size);
        if self.now.bytes > self.peak.level.bytes {
            self.peak = Peak {
                level: self.now,
                t: step.time,
            };
        }
        Change {
            died: over.map(|over| (address, over)),
            born: Some((address, block)),
        }
    }

    #[inline(always)]
    fn end(&mut self, address: Address) -> Option<(Address, LiveBlock)> {
        // Blocks lie 16 bytes apart.
        let slot = (address >> 4) as usize % RECENT;
        match self.live.remove(address) {
            Some(block) => {
                self.recent[slot] = address;
                self.numbers.free.push(block.number);
                self.now.remove(block.size);
                self.counts.freed.add(block.size);
                Some((address, block))
            }
            None => {
                if self.recent[slot] == address {
                    self.oddities.freed_twice += 1;
                } else {
                    self.oddities.unknown_freed += 1;
                }
                None
            }
        }
    }

    /// What is live came from the parent; nothing was counted yet.
    pub(super) fn inherit(&mut self) {
        for block in self.live.blocks_mut() {
            block.inherited = true;
        }
        self.inherited = self.now;
        self.peak = Peak {
            level: self.now,
            t: 0,
        };
        self.counts = Counts::default();
        self.oddities = Oddities::default();
    }
}
