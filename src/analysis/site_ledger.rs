//! The sites of one log and of one kind of memory, while they are counted.

use crate::event::{Event, StackId};
use crate::site::Figures;
use memspy_log::Op;
use rustc_hash::FxHashMap;

/// A call and the bytes that it asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Call {
    /// The function.
    pub op: Op,
    /// Bytes.
    pub size: u64,
}

/// What tells one site of a log from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// A stack of the log, and the first call made there, for a log that does not define it.
    Stack(StackId, Call),
    /// A call without a stack.
    Call(Call),
}

struct Entry {
    key: Key,
    figures: Figures,
    /// The peak that `figures` knows of.
    peak: u64,
}

impl Entry {
    /// To be called before a change of what is live: what was live since the last change was live
    /// at the last peak, too.
    fn before_change(&mut self, peak: u64) {
        if self.peak < peak {
            self.peak = peak;
            self.figures.peak_blocks = self.figures.live_blocks;
            self.figures.peak_bytes = self.figures.live_bytes;
        }
    }
}

/// The sites. `peak` in its functions is how many new peaks of the whole there have been so far.
#[derive(Default)]
pub(crate) struct Ledger {
    entries: Vec<Entry>,
    by_stack: FxHashMap<StackId, usize>,
    by_call: FxHashMap<Call, usize>,
}

impl Ledger {
    /// The index of the site of a call that asked for `size` bytes.
    pub(crate) fn site(&mut self, event: &Event, size: u64, peak: u64) -> usize {
        let call = Call { op: event.op, size };
        let (key, known) = match event.stack {
            0 => (
                Key::Call(call),
                self.by_call.entry(call).or_insert(usize::MAX),
            ),
            stack => (
                Key::Stack(stack, call),
                self.by_stack.entry(stack).or_insert(usize::MAX),
            ),
        };
        if *known == usize::MAX {
            *known = self.entries.len();
            self.entries.push(Entry {
                key,
                figures: Figures::default(),
                peak,
            });
        }
        *known
    }

    /// The figures of a site, to change what is live there.
    pub(crate) fn change(&mut self, site: usize, peak: u64) -> &mut Figures {
        let entry = &mut self.entries[site];
        entry.before_change(peak);
        &mut entry.figures
    }

    /// The figures of a site, to count what changes nothing that is live.
    pub(crate) fn count(&mut self, site: usize) -> &mut Figures {
        &mut self.entries[site].figures
    }

    /// The sites and their figures.
    pub(crate) fn finish(mut self, peak: u64) -> impl Iterator<Item = (Key, Figures)> {
        for entry in &mut self.entries {
            entry.before_change(peak);
        }
        let entries = self.entries.into_iter();
        entries.map(|entry| (entry.key, entry.figures))
    }
}
