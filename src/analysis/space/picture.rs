//! The annotated map: the address space at one moment, each range with what it is.

use super::account::Space;
use super::fragments::Fragments;
use super::kind::{Kind, Surroundings};
use super::layout::{Maker, Resident};
use super::perms::Perms;
use crate::event::{Address, StackId, Via};
use crate::model::{Change, LiveBlock, Memory};
use crate::replay::Outcome;
use std::collections::BTreeMap;
use std::sync::Arc;

/// One range.
#[derive(Clone, Debug)]
pub struct Row {
    /// First byte.
    pub from: Address,
    /// First byte behind it.
    pub to: Address,
    /// What may be done with it.
    pub perms: Perms,
    /// What it is.
    pub kind: Kind,
    /// The file, of bss that of its object, or the kernel's word; bytes from outside, empty for
    /// other anonymous memory.
    pub path: Arc<[u8]>,
    /// Offset of the first byte in the file.
    pub offset: u64,
    /// The file's inode, 0 for none.
    pub inode: u64,
    /// The thread whose stack it is; 0: unknown.
    pub thread: Option<u32>,
    /// What was in memory at the last snapshot before, where known.
    pub resident: Option<Resident>,
    /// The live blocks in it.
    pub handed_out: Held,
    /// The call that made it, where the log has it.
    pub call: Option<Call>,
}

/// The call that made a range.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Call {
    /// The libc function inside which it was made.
    pub via: Option<Via>,
    /// When, nanoseconds since the image started.
    pub t: u64,
    /// The call stack.
    pub stack: StackId,
    /// memspy's number of the thread.
    pub thread: u32,
}

/// Live blocks and their bytes as the program asked for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// How many.
    pub blocks: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Held {
    fn add(&mut self, bytes: u64) {
        self.blocks += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

/// All ranges of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Total {
    /// How many.
    pub ranges: u64,
    /// Bytes.
    pub size: u64,
    /// Bytes in memory at the last snapshot, of the ranges of which that is known.
    pub resident: u64,
    /// Ranges of which it is not known.
    pub resident_unknown: u64,
    /// The live blocks in them.
    pub handed_out: Held,
}

/// The address space at one moment.
#[derive(Clone, Debug)]
pub struct Picture {
    /// The moment, nanoseconds since the image started.
    pub t: u64,
    /// The snapshot that the sizes in memory are from: its `when` and time.
    pub snapshot: Option<(Box<str>, u64)>,
    /// RLIMIT_STACK at that snapshot.
    pub stack_limit: Option<u64>,
    /// The ranges by address.
    pub rows: Vec<Row>,
    /// The heap segment.
    pub heap: Fragments,
    /// Live blocks in no range: none, unless the log is incomplete.
    pub lost: Held,
}

impl Picture {
    /// The picture at the end of a log that was read to its end.
    pub fn at_end(space: &Space, outcome: &Outcome) -> Picture {
        Picture::take(space, &outcome.memory, outcome.last_t, Change::default())
    }

    /// Takes the picture of `space` at `t`. `undo` is what a step that `memory` has taken already
    /// did to the blocks, though it comes after the moment.
    pub(super) fn take(space: &Space, memory: &Memory, t: u64, undo: Change) -> Picture {
        let surroundings = Surroundings {
            layout: &space.layout,
            modules: &memory.modules,
            stacks: &space.stacks,
        };
        let mut rows: Vec<Row> = Vec::new();
        for (from, piece) in space.layout.iter() {
            let (kind, thread) = surroundings.kind(from, piece);
            let row = Row {
                from,
                to: piece.end,
                perms: piece.perms,
                kind,
                path: match memory.modules.at(from) {
                    Some(module) if kind == Kind::Bss => Arc::from(&module.path[..]),
                    _ => Arc::clone(&piece.path),
                },
                offset: piece.offset,
                inode: piece.inode,
                thread,
                resident: piece.resident,
                handed_out: Held::default(),
                call: match piece.maker {
                    Maker::Call {
                        via,
                        t,
                        stack,
                        thread,
                        ..
                    } => Some(Call {
                        via,
                        t,
                        stack,
                        thread,
                    }),
                    _ => None,
                },
            };
            match rows.last_mut() {
                Some(last) if continues(last, &row) => {
                    last.to = row.to;
                    last.resident = None;
                }
                _ => rows.push(row),
            }
        }
        let mut picture = Picture {
            t,
            snapshot: space
                .accounts
                .last()
                .map(|account| (account.when.clone(), account.t)),
            stack_limit: space
                .accounts
                .last()
                .and_then(|account| account.stack_limit),
            heap: heap(&rows),
            rows,
            lost: Held::default(),
        };
        picture.count(memory, undo);
        picture
    }

    fn count(&mut self, memory: &Memory, undo: Change) {
        let born = undo.born.map(|(address, _)| address);
        for (address, block) in memory.heap.live() {
            if Some(address) != born {
                self.add(address, block);
            }
        }
        if let Some((address, block)) = undo.died {
            self.add(address, &block);
        }
    }

    fn add(&mut self, address: Address, block: &LiveBlock) {
        self.heap.add(address, block);
        let at = self.rows.partition_point(|row| row.to <= address);
        match self.rows.get_mut(at).filter(|row| row.from <= address) {
            Some(row) => row.handed_out.add(block.size),
            None => self.lost.add(block.size),
        }
    }

    /// The range that contains an address.
    pub fn at(&self, address: Address) -> Option<&Row> {
        let at = self.rows.partition_point(|row| row.to <= address);
        self.rows.get(at).filter(|row| row.from <= address)
    }

    /// The sums for each kind that occurs, in the order of [`Kind`].
    pub fn totals(&self) -> BTreeMap<Kind, Total> {
        let mut totals: BTreeMap<Kind, Total> = BTreeMap::new();
        for row in &self.rows {
            totals.entry(row.kind).or_default().add(row);
        }
        totals
    }

    /// The sum of all ranges.
    pub fn total(&self) -> Total {
        let mut total = Total::default();
        for row in &self.rows {
            total.add(row);
        }
        total
    }
}

impl Total {
    fn add(&mut self, row: &Row) {
        self.ranges += 1;
        self.size = self.size.saturating_add(row.to.saturating_sub(row.from));
        let resident = row.resident.map_or(0, |resident| resident.all);
        self.resident = self.resident.saturating_add(resident);
        self.resident_unknown += u64::from(row.resident.is_none());
        self.handed_out.blocks += row.handed_out.blocks;
        let bytes = row.handed_out.bytes;
        self.handed_out.bytes = self.handed_out.bytes.saturating_add(bytes);
    }
}

/// Whether a row is more of the one before it: a heap that grew several times.
fn continues(last: &Row, row: &Row) -> bool {
    last.to == row.from
        && last.kind == row.kind
        && last.perms == row.perms
        && matches!(row.kind, Kind::Heap | Kind::Arena)
        && last.path == row.path
}

fn heap(rows: &[Row]) -> Fragments {
    let mut heap = rows.iter().filter(|row| row.kind == Kind::Heap);
    let Some(first) = heap.next() else {
        return Fragments::default();
    };
    Fragments {
        from: first.from,
        to: heap.next_back().map_or(first.to, |last| last.to),
        ..Fragments::default()
    }
}
