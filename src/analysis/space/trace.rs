//! What happened to one address: the blocks that held it, the calls that mapped it.

use crate::event::{Address, StackId, Via, What};
use crate::merge::Step;
use crate::model::{Change, LiveBlock, Memory};
use crate::replay::Visitor;
use memspy_log::Op;
use std::collections::VecDeque;

/// Blocks and calls that are kept, the latest ones; earlier ones are counted.
const MOST: usize = 1000;

/// A block that held the address, from its birth to its end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Life {
    /// The block's address.
    pub address: Address,
    /// The block.
    pub block: LiveBlock,
    /// How it ended; `None` while it lives.
    pub end: Option<End>,
}

/// The end of a block.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct End {
    /// When, nanoseconds since the image started.
    pub t: u64,
    /// The call: free, realloc, or the allocation of a block that was found in its place.
    pub op: Op,
    /// The thread that ended it.
    pub thread: u32,
    /// The call stack, 0 when the log has none.
    pub stack: StackId,
}

/// A kernel call that touched the address.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Touch {
    /// When, nanoseconds since the image started.
    pub t: u64,
    /// The call.
    pub op: Op,
    /// First byte of what it touched.
    pub from: Address,
    /// First byte behind it.
    pub to: Address,
    /// The libc function inside which it was made.
    pub via: Option<Via>,
    /// The call stack.
    pub stack: StackId,
}

/// The history of one address.
#[derive(Debug)]
pub struct Trace {
    address: Address,
    /// The blocks that held it, in the order of time.
    pub lives: VecDeque<Life>,
    /// Blocks that are not among the lives, because there were too many.
    pub left_out: u64,
    /// The kernel calls, in the order of time; the latest.
    pub touches: VecDeque<Touch>,
}

impl Trace {
    /// The history of this address.
    pub fn new(address: Address) -> Trace {
        Trace {
            address,
            lives: VecDeque::new(),
            left_out: 0,
            touches: VecDeque::new(),
        }
    }

    /// The nearest live blocks below and above the address that do not hold it.
    pub fn neighbours(&self, memory: &Memory) -> [Option<(Address, LiveBlock)>; 2] {
        let mut nearest: [Option<(Address, LiveBlock)>; 2] = [None, None];
        for (at, block) in memory.heap.live() {
            if holds(at, block, self.address) {
                continue;
            }
            let below = at < self.address;
            let place = &mut nearest[usize::from(!below)];
            if place.is_none_or(|(other, _)| (at > other) == below) {
                *place = Some((at, *block));
            }
        }
        nearest
    }

    fn touch(&mut self, step: &Step, from: Address, size: u64) {
        let to = from.saturating_add(size);
        if !(from..to).contains(&self.address) {
            return;
        }
        if self.touches.len() == MOST {
            self.touches.pop_front();
        }
        self.touches.push_back(Touch {
            t: step.time,
            op: step.event.op,
            from,
            to,
            via: step.event.via,
            stack: step.event.stack,
        });
    }
}

/// Whether a block holds an address; a block of 0 bytes holds its own.
fn holds(at: Address, block: &LiveBlock, address: Address) -> bool {
    address.wrapping_sub(at) < block.size.max(1)
}

impl Visitor for Trace {
    #[inline]
    fn step(&mut self, step: &Step, change: &Change, _: &Memory) {
        if let Some((at, block)) = &change.died
            && holds(*at, block, self.address)
            && let Some(life) = self.lives.back_mut()
        {
            life.end.get_or_insert(End {
                t: step.time,
                op: step.event.op,
                thread: step.thread,
                stack: step.event.stack,
            });
        }
        if let Some((at, block)) = &change.born
            && holds(*at, block, self.address)
        {
            if self.lives.len() == MOST {
                self.lives.pop_front();
                self.left_out += 1;
            }
            self.lives.push_back(Life {
                address: *at,
                block: *block,
                end: None,
            });
        }
        if step.event.err.is_some() || !step.half.is_last() {
            return;
        }
        match &step.event.what {
            What::Mmap(call) => self.touch(step, call.addr, call.size),
            What::Munmap(range) | What::Mprotect { range, .. } => {
                self.touch(step, range.addr, range.size)
            }
            What::Mremap(call) => self.touch(step, call.addr, call.size),
            What::Brk(call) => {
                let from = call.from.min(call.to);
                self.touch(step, from, call.from.max(call.to) - from);
            }
            What::Arena(arena) => self.touch(step, arena.base, arena.size),
            _ => {}
        }
    }
}
