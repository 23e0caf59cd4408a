//! Allocation sites: which code asked for memory, how much, and what became of it.
//!
//! A site is a distinct call stack. A log without stacks has a site for each call and size
//! (`malloc(64)`), which is less but not nothing. What the program takes from the kernel by its
//! own mmap, mremap, brk and sbrk has sites of its own; kernel calls that malloc made have none,
//! for the blocks that they were made for are counted already.

use crate::call_tree::{CallTree, NodeId, Translation};
use crate::error::Error;
use crate::log::Log;
use crate::model::{Level, Memory};
use crate::replay::{Outcome, replay};
pub use crate::site_ledger::Call;
use crate::site_ledger::Key;
pub use crate::site_tally::Tally;
use rustc_hash::FxHashMap;
use serde::Serialize;

/// Which memory is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Blocks of the malloc family.
    #[default]
    Heap,
    /// What the program took from the kernel by its own calls.
    Mappings,
    /// Both.
    All,
}

impl Kind {
    /// Whether blocks of the heap are counted.
    pub fn has_heap(self) -> bool {
        self != Kind::Mappings
    }

    /// Whether the program's own mappings are counted.
    pub fn has_mappings(self) -> bool {
        self != Kind::Heap
    }
}

/// How the memory of one site was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Taken {
    /// By the malloc family.
    Heap,
    /// By mmap, mremap, brk or sbrk, called by the program itself.
    Mapping,
}

/// What was counted at a site, or at several.
///
/// Of a mapping site a block is what one call mapped, in whole pages, as long as a page of it is
/// left; an mremap ends what it moves or resizes and maps anew, as realloc does with blocks. Of brk
/// and sbrk it is the bytes by which the break went up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Figures {
    /// Allocations that succeeded; a realloc that succeeded is one.
    pub blocks: u64,
    /// Bytes that they asked for.
    pub bytes: u64,
    /// Blocks of them that were not freed.
    pub live_blocks: u64,
    /// Bytes that were not freed.
    pub live_bytes: u64,
    /// Blocks live when what is counted (the heap, the mappings, or both) was largest.
    pub peak_blocks: u64,
    /// Bytes live when what is counted was largest. Over several logs: at each process's own
    /// moment.
    pub peak_bytes: u64,
    /// Blocks freed before their thread had made that many further allocations that the caller
    /// named.
    pub short_lived: u64,
    /// Calls that failed.
    pub failures: u64,
}

impl Figures {
    /// Adds an allocation of so many bytes, which is live. Saturates.
    #[inline]
    pub(crate) fn one_more(&mut self, bytes: u64) {
        self.blocks += 1;
        self.live_blocks += 1;
        self.bytes = self.bytes.saturating_add(bytes);
        self.live_bytes = self.live_bytes.saturating_add(bytes);
    }

    /// Adds another site's figures. Saturates.
    pub fn add(&mut self, other: &Figures) {
        for (sum, more) in [
            (&mut self.blocks, other.blocks),
            (&mut self.bytes, other.bytes),
            (&mut self.live_blocks, other.live_blocks),
            (&mut self.live_bytes, other.live_bytes),
            (&mut self.peak_blocks, other.peak_blocks),
            (&mut self.peak_bytes, other.peak_bytes),
            (&mut self.short_lived, other.short_lived),
            (&mut self.failures, other.failures),
        ] {
            *sum = sum.saturating_add(more);
        }
    }
}

/// A site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Site {
    /// How its memory was taken.
    pub taken: Taken,
    /// Its call stack in [`Sites::tree`]; none where the log has none.
    pub stack: NodeId,
    /// Without a stack: the call.
    pub call: Option<Call>,
    /// What was counted there.
    pub figures: Figures,
}

/// The sites of one log or several.
#[derive(Default)]
pub struct Sites {
    /// The call stacks.
    pub tree: CallTree,
    list: Vec<Site>,
    known: FxHashMap<(Taken, NodeId, Option<Call>), usize>,
    kind: Kind,
    short: u64,
    program_mapped: Level,
}

impl Sites {
    /// No sites yet. A block is short-lived when it is freed before its thread has made `short`
    /// further allocations, a mapping when it is unmapped before that many further mappings.
    pub fn new(kind: Kind, short: u64) -> Sites {
        Sites {
            kind,
            short,
            ..Sites::default()
        }
    }

    /// Reads a log to its end and adds its sites.
    ///
    /// # Errors
    /// When the log can't be read any more.
    pub fn read(&mut self, log: &Log) -> Result<Outcome, Error> {
        let mut tally = self.tally();
        let outcome = replay(log, &mut tally)?;
        self.take(tally, &outcome.memory);
        Ok(outcome)
    }

    /// A tally for one log, to be given to [`Sites::take`] when the log was replayed with it.
    pub fn tally(&self) -> Tally {
        Tally::new(self.kind, self.short)
    }

    /// Adds what was tallied while a log was replayed to its end with this memory.
    pub fn take(&mut self, tally: Tally, memory: &Memory) {
        let mut done = Translation::default();
        if let Some(program) = memory.modules.get(1) {
            // First, because readers of profiles take the first module for the program.
            self.tree.module(program);
        }
        let mapped = tally.program_mapped();
        self.program_mapped.blocks += mapped.blocks;
        self.program_mapped.bytes = self.program_mapped.bytes.saturating_add(mapped.bytes);
        for (taken, key, figures) in tally.finish() {
            let (stack, call) = match key {
                Key::Stack(id, call) => match self.tree.add(memory, &mut done, id) {
                    NodeId::NONE => (NodeId::NONE, Some(call)),
                    stack => (stack, None),
                },
                Key::Call(call) => (NodeId::NONE, Some(call)),
            };
            let at = *self.known.entry((taken, stack, call)).or_insert_with(|| {
                self.list.push(Site {
                    taken,
                    stack,
                    call,
                    figures: Figures::default(),
                });
                self.list.len() - 1
            });
            self.list[at].figures.add(&figures);
        }
    }

    /// All sites, in no order.
    pub fn list(&self) -> &[Site] {
        &self.list
    }

    /// What was counted.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What the programs' own calls mapped, also where [`Sites::kind`] does not count it.
    pub fn program_mapped(&self) -> Level {
        self.program_mapped
    }

    /// The sum over all sites.
    pub fn total(&self) -> Figures {
        let mut total = Figures::default();
        for site in &self.list {
            total.add(&site.figures);
        }
        total
    }

    /// Whether any site has a call stack.
    pub fn have_stacks(&self) -> bool {
        self.list.iter().any(|site| site.stack.is_some())
    }
}
