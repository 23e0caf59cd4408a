//! How much of what malloc holds is in use, and what keeps it from giving the rest back.

use super::glibc::{HEADER, chunk};
use crate::event::Address;
use crate::model::LiveBlock;

/// The live block at the highest address of the heap segment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Highest {
    /// Its address.
    pub address: Address,
    /// The block.
    pub block: LiveBlock,
}

/// What lies in one run of malloc's memory.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Fragments {
    /// First byte of the heap segment, 0 when there is none.
    pub from: Address,
    /// The break.
    pub to: Address,
    /// Live blocks.
    pub blocks: u64,
    /// Bytes that the program asked for.
    pub asked: u64,
    /// Bytes of their chunks: with headers and rounding.
    pub chunks: u64,
    /// The block that keeps the top where it is.
    pub highest: Option<Highest>,
}

impl Fragments {
    /// Bytes that malloc holds.
    pub fn held(&self) -> u64 {
        self.to.saturating_sub(self.from)
    }

    /// Bytes between the highest live block and the break: what free could give back.
    pub fn top(&self) -> u64 {
        match self.highest {
            Some(highest) => {
                let rest = chunk(highest.block.size) - HEADER;
                let end = highest.address.saturating_add(rest);
                self.to.saturating_sub(end)
            }
            None => self.held(),
        }
    }

    /// Free bytes below the highest live block: what no call can give back before it is freed.
    pub fn holes(&self) -> u64 {
        self.held()
            .saturating_sub(self.top())
            .saturating_sub(self.chunks)
    }

    /// Counts a live block, if it lies inside.
    pub(super) fn add(&mut self, address: Address, block: &LiveBlock) {
        if !(self.from..self.to).contains(&address) {
            return;
        }
        self.blocks += 1;
        self.asked = self.asked.saturating_add(block.size);
        self.chunks = self.chunks.saturating_add(chunk(block.size));
        if self.highest.is_none_or(|highest| highest.address < address) {
            self.highest = Some(Highest {
                address,
                block: *block,
            });
        }
    }
}
