//! Counts what happens at each site while a log is replayed.

use crate::event::{Address, StackId};
use crate::merge::Step;
use crate::model::{Change, Memory};
use crate::replay::Visitor;
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

/// A site while it is counted.
struct Tallied {
    key: Key,
    figures: Figures,
    /// The peak that `figures` knows of.
    peak: u64,
}

impl Tallied {
    /// To be called before a change of the live blocks: what was live since the last change was
    /// live at the last peak, too.
    fn before_change(&mut self, peak: u64) {
        if self.peak < peak {
            self.peak = peak;
            self.figures.peak_blocks = self.figures.live_blocks;
            self.figures.peak_bytes = self.figures.live_bytes;
        }
    }
}

/// A live block.
struct Born {
    site: usize,
    /// Allocations that its thread had made, this one included.
    allocations: u64,
    thread: u32,
    size: u64,
}

/// The tally of one log.
pub struct Tally {
    short: u64,
    sites: Vec<Tallied>,
    by_stack: FxHashMap<StackId, usize>,
    by_call: FxHashMap<Call, usize>,
    live: FxHashMap<Address, Born>,
    /// Allocations that succeeded, by thread.
    allocations: FxHashMap<u32, u64>,
    /// The heap's largest size so far, and how many times that changed.
    peak_bytes: u64,
    peak: u64,
}

impl Tally {
    /// Starts at nothing; for `short` see [`crate::site::Sites::new`].
    pub fn new(short: u64) -> Tally {
        Tally {
            short,
            sites: Vec::new(),
            by_stack: FxHashMap::default(),
            by_call: FxHashMap::default(),
            live: FxHashMap::default(),
            allocations: FxHashMap::default(),
            peak_bytes: 0,
            peak: 0,
        }
    }

    /// The sites and their figures.
    pub fn finish(mut self) -> impl Iterator<Item = (Key, Figures)> {
        for site in &mut self.sites {
            site.before_change(self.peak);
        }
        self.sites.into_iter().map(|site| (site.key, site.figures))
    }

    fn site(&mut self, stack: StackId, call: Call) -> usize {
        let (key, known) = match stack {
            0 => (
                Key::Call(call),
                self.by_call.entry(call).or_insert(usize::MAX),
            ),
            _ => (
                Key::Stack(stack, call),
                self.by_stack.entry(stack).or_insert(usize::MAX),
            ),
        };
        if *known == usize::MAX {
            *known = self.sites.len();
            self.sites.push(Tallied {
                key,
                figures: Figures::default(),
                peak: self.peak,
            });
        }
        *known
    }

    fn born(&mut self, step: &Step, address: Address, size: u64) {
        let at = self.site(
            step.event.stack,
            Call {
                op: step.event.op,
                size,
            },
        );
        let site = &mut self.sites[at];
        site.before_change(self.peak);
        site.figures.add(&Figures {
            blocks: 1,
            bytes: size,
            live_blocks: 1,
            live_bytes: size,
            ..Figures::default()
        });
        let allocations = self.allocations.entry(step.thread).or_default();
        *allocations += 1;
        let born = Born {
            site: at,
            allocations: *allocations,
            thread: step.thread,
            size,
        };
        self.live.insert(address, born);
    }

    fn died(&mut self, address: Address) {
        // A block that came with fork is no allocation of this log.
        let Some(born) = self.live.remove(&address) else {
            return;
        };
        let site = &mut self.sites[born.site];
        site.before_change(self.peak);
        site.figures.live_blocks -= 1;
        site.figures.live_bytes = site.figures.live_bytes.saturating_sub(born.size);
        let further = self
            .allocations
            .get(&born.thread)
            .map_or(0, |now| now - born.allocations);
        site.figures.short_lived += u64::from(further < self.short);
    }
}

impl Visitor for Tally {
    fn begin(&mut self, _: &crate::log::Log, memory: &Memory) {
        self.peak_bytes = memory.heap.peak().level.bytes;
    }

    fn step(&mut self, step: &Step, change: &Change, memory: &Memory) {
        if let Some((address, _)) = change.died {
            self.died(address);
        }
        if let Some((address, block)) = change.born {
            self.born(step, address, block.size);
            let peak_bytes = memory.heap.peak().level.bytes;
            if peak_bytes > self.peak_bytes {
                self.peak_bytes = peak_bytes;
                self.peak += 1;
            }
        }
        if step.event.err.is_some()
            && step.half.is_last()
            && step.event.op.allocates()
            && let Some(size) = step.event.asked()
        {
            let at = self.site(
                step.event.stack,
                Call {
                    op: step.event.op,
                    size,
                },
            );
            self.sites[at].figures.failures += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Log;
    use crate::site::Sites;
    use crate::testlog::TestLog;

    /// The sites of one thread's lines, by the size of the first allocation there.
    fn sites(short: u64, lines: &[&str]) -> Vec<(u64, Figures)> {
        let mut log = TestLog::new("");
        log.block(1, lines);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("memspy.cat.4711.jsonl");
        log.write(&path);
        let mut sites = Sites::new(short);
        let outcome = sites.read(&Log::open(&path).unwrap()).unwrap();
        let total = sites.total();
        assert_eq!(total.bytes, outcome.memory.heap.counts().allocated.bytes);
        assert_eq!(total.live_bytes, outcome.memory.heap.now().bytes);
        assert_eq!(total.peak_bytes, outcome.memory.heap.peak().level.bytes);
        assert_eq!(total.failures, outcome.memory.heap.counts().failures);
        let list = sites.list().iter();
        list.map(|site| (site.call.map_or(0, |call| call.size), site.figures))
            .collect()
    }

    #[test]
    fn the_share_of_the_peak_is_what_was_live_at_that_moment() {
        let sites = sites(
            1,
            &[
                r#"{"op":"malloc","t":1,"size":100,"ptr":"0x10"}"#,
                r#"{"op":"malloc","t":2,"size":30,"ptr":"0x20"}"#,
                r#"{"op":"free","t":3,"ptr":"0x10"}"#,
                r#"{"op":"malloc","t":4,"size":50,"ptr":"0x30"}"#,
                r#"{"op":"malloc","t":5,"size":30,"ptr":"0x40"}"#,
            ],
        );
        let peaks: Vec<_> = sites
            .iter()
            .map(|(size, it)| (*size, it.peak_bytes))
            .collect();
        assert_eq!(peaks, [(100, 100), (30, 30), (50, 0)]);
        assert_eq!((sites[1].1.live_bytes, sites[1].1.blocks), (60, 2));
    }

    #[test]
    fn a_block_is_short_lived_when_freed_before_that_many_further_allocations() {
        let lines = [
            r#"{"op":"malloc","t":1,"size":1,"ptr":"0x10"}"#,
            r#"{"op":"free","t":2,"ptr":"0x10"}"#,
            r#"{"op":"malloc","t":3,"size":2,"ptr":"0x20"}"#,
            r#"{"op":"malloc","t":4,"size":3,"ptr":"0x30"}"#,
            r#"{"op":"free","t":5,"ptr":"0x20"}"#,
        ];
        let short = |short| -> Vec<u64> {
            sites(short, &lines)
                .into_iter()
                .map(|(_, it)| it.short_lived)
                .collect()
        };
        assert_eq!(short(0), [0, 0, 0]);
        assert_eq!(short(1), [1, 0, 0]);
        assert_eq!(short(2), [1, 1, 0]);
    }

    #[test]
    fn a_realloc_ends_a_block_at_its_site_and_begins_one_at_its_own() {
        let sites = sites(
            1,
            &[
                r#"{"op":"malloc","t":1,"size":10,"ptr":"0x10"}"#,
                r#"{"op":"realloc","t":2,"dt":1,"old":"0x10","size":40,"ptr":"0x50"}"#,
                r#"{"op":"realloc","t":4,"dt":1,"old":"0x50","size":99,"err":"ENOMEM"}"#,
            ],
        );
        let live: Vec<_> = sites
            .iter()
            .map(|(size, it)| (*size, it.live_bytes))
            .collect();
        assert_eq!(live, [(10, 0), (40, 40), (99, 0)]);
        assert_eq!((sites[2].1.failures, sites[2].1.blocks), (1, 0));
    }

    #[test]
    fn a_stack_is_one_site_whatever_was_asked_for_there() {
        let sites = sites(
            1,
            &[
                r#"{"op":"stack","t":1,"id":1,"parent":0,"ip":"0x7f01"}"#,
                r#"{"op":"malloc","t":2,"size":10,"ptr":"0x10","stack":1}"#,
                r#"{"op":"calloc","t":3,"count":2,"size":30,"ptr":"0x20","stack":1}"#,
                r#"{"op":"malloc","t":4,"size":7,"ptr":"0x30"}"#,
            ],
        );
        let bytes: Vec<_> = sites.iter().map(|(call, it)| (*call, it.bytes)).collect();
        assert_eq!(bytes, [(0, 70), (7, 7)]);
    }
}
