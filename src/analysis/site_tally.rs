//! Counts what happens at each site while a log is replayed.

use crate::event::{Event, What};
use crate::merge::Step;
use crate::model::{Change, Level, LiveBlock, Memory};
use crate::replay::Visitor;
use crate::site::{Figures, Kind, Taken};
use crate::site_ledger::{Key, Ledger};
use memspy_log::Op;
use rustc_hash::FxHashMap;

/// What is kept of a live block.
#[derive(Clone, Copy)]
struct Block {
    site: usize,
    /// Allocations that its thread had made, this one included.
    calls: u64,
}

/// What a mapping call of the program still holds.
struct Mapped {
    site: usize,
    /// Calls of this kind that its thread had made, this one included.
    calls: u64,
    thread: u32,
    /// Bytes of it that are live.
    size: u64,
}

/// Which call: memspy's number of its thread, its number there.
type CallId = (u32, u64);

/// The tally of one log.
pub struct Tally {
    kind: Kind,
    short: u64,
    heap: Ledger,
    mappings: Ledger,
    /// By the blocks' numbers, see [`LiveBlock::number`].
    blocks: Vec<Block>,
    mapped: FxHashMap<CallId, Mapped>,
    /// Calls that succeeded: of the malloc family, and that map.
    allocations: CallCounts,
    mappings_made: CallCounts,
    /// What the program's own calls mapped, whether that is counted by site or not.
    program_mapped: Level,
    /// The largest size so far of what is counted, and how many times that changed.
    peak_bytes: u64,
    peak: u64,
}

impl Tally {
    /// Starts at nothing; for `short` see [`crate::site::Sites::new`].
    pub fn new(kind: Kind, short: u64) -> Tally {
        Tally {
            kind,
            short,
            heap: Ledger::default(),
            mappings: Ledger::default(),
            blocks: Vec::new(),
            mapped: FxHashMap::default(),
            allocations: CallCounts::default(),
            mappings_made: CallCounts::default(),
            program_mapped: Level::default(),
            peak_bytes: 0,
            peak: 0,
        }
    }

    /// What the program's own calls mapped; counted for every kind.
    pub fn program_mapped(&self) -> Level {
        self.program_mapped
    }

    /// The sites and their figures.
    pub fn finish(self) -> impl Iterator<Item = (Taken, Key, Figures)> {
        let heap = self.heap.finish(self.peak);
        let mappings = self.mappings.finish(self.peak);
        let heap = heap.map(|(key, figures)| (Taken::Heap, key, figures));
        heap.chain(mappings.map(|(key, figures)| (Taken::Mapping, key, figures)))
    }

    #[inline]
    fn born(&mut self, event: &Event, block: &LiveBlock) {
        let site = self.heap.site(event, block.size, self.peak);
        self.heap.change(site, self.peak).one_more(block.size);
        let calls = self.allocations.one_more(block.thread);
        let born = Block { site, calls };
        let number = block.number as usize;
        if self.blocks.len() <= number {
            self.blocks.resize(number + 1, born);
        }
        self.blocks[number] = born;
    }

    #[inline]
    fn died(&mut self, block: &LiveBlock) {
        // A block that came with fork is no allocation of this log.
        if block.inherited {
            return;
        }
        let Some(born) = self.blocks.get(block.number as usize) else {
            return;
        };
        let further = self.allocations.of(block.thread) - born.calls;
        let figures = self.heap.change(born.site, self.peak);
        figures.live_blocks -= 1;
        figures.live_bytes = figures.live_bytes.saturating_sub(block.size);
        figures.short_lived += u64::from(further < self.short);
    }

    /// Takes what a step did to what the program's own calls hold.
    fn shifted(&mut self, step: &Step, memory: &Memory) {
        let this = (step.thread, step.n);
        let shifts = memory.mappings.shifts();
        for shift in shifts {
            // What came with fork is no mapping of this log.
            let by = (shift.thread, shift.n);
            if shift.inherited {
                continue;
            }
            if by == this {
                self.program_mapped.add(shift.bytes);
                if self.kind.has_mappings() {
                    self.mapped_now(step, shift.bytes);
                }
            } else if let Some(born) = self.mapped.get_mut(&by) {
                let figures = self.mappings.change(born.site, self.peak);
                for bytes in [&mut born.size, &mut figures.live_bytes] {
                    *bytes = match shift.gained {
                        true => bytes.saturating_add(shift.bytes),
                        false => bytes.saturating_sub(shift.bytes),
                    };
                }
            }
        }
        for shift in shifts {
            let by = (shift.thread, shift.n);
            if self.mapped.get(&by).is_some_and(|born| born.size == 0)
                && let Some(born) = self.mapped.remove(&by)
            {
                let figures = self.mappings.change(born.site, self.peak);
                figures.live_blocks -= 1;
                let further = self.mappings_made.of(born.thread) - born.calls;
                figures.short_lived += u64::from(further < self.short);
            }
        }
    }

    fn mapped_now(&mut self, step: &Step, size: u64) {
        let site = self.mappings.site(step.event, size, self.peak);
        self.mappings.change(site, self.peak).one_more(size);
        let born = Mapped {
            site,
            calls: self.mappings_made.one_more(step.thread),
            thread: step.thread,
            size,
        };
        self.mapped.insert((step.thread, step.n), born);
    }

    /// Notes whether more is live than ever.
    fn raise_peak(&mut self, memory: &Memory) {
        let bytes = level(self.kind, memory);
        if bytes > self.peak_bytes {
            self.peak_bytes = bytes;
            self.peak += 1;
        }
    }

    fn failed(&mut self, event: &Event) {
        let Some((taken, size)) = asked_for(event) else {
            return;
        };
        let ledger = match taken {
            Taken::Heap if self.kind.has_heap() => &mut self.heap,
            Taken::Mapping if self.kind.has_mappings() => &mut self.mappings,
            _ => return,
        };
        let site = ledger.site(event, size, self.peak);
        ledger.count(site).failures += 1;
    }
}

/// Bytes that are live of what is counted.
fn level(kind: Kind, memory: &Memory) -> u64 {
    match kind {
        Kind::Heap => memory.heap.now().bytes,
        Kind::Mappings => memory.mappings.held_by_program(),
        Kind::All => {
            let mapped = memory.mappings.held_by_program();
            memory.heap.now().bytes.saturating_add(mapped)
        }
    }
}

/// What a call that allocates or maps is for, and the bytes that it asked for; `None` for other
/// calls, and for kernel calls that libc made.
fn asked_for(event: &Event) -> Option<(Taken, u64)> {
    if event.op.allocates() {
        return Some((Taken::Heap, event.asked()?));
    }
    let size = match &event.what {
        _ if event.via.is_some() => return None,
        What::Mmap(call) => call.size,
        What::Mremap(call) => call.size,
        What::Brk(call) if event.op == Op::Sbrk => call.delta.max(0) as u64,
        What::Brk(call) => call.hint.saturating_sub(call.from),
        _ => return None,
    };
    Some((Taken::Mapping, size))
}

/// How many calls of a kind each thread has made.
#[derive(Default)]
struct CallCounts {
    /// The thread that made the last one and its count: most are followed by one of the same.
    present: (u32, u64),
    /// The counts of the others.
    others: FxHashMap<u32, u64>,
}

impl CallCounts {
    /// Counts a call of a thread and answers how many there were.
    #[inline]
    fn one_more(&mut self, thread: u32) -> u64 {
        if self.present.0 != thread {
            let (before, count) = self.present;
            self.others.insert(before, count);
            self.present = (thread, self.others.remove(&thread).unwrap_or(0));
        }
        self.present.1 += 1;
        self.present.1
    }

    /// How many calls a thread has made.
    #[inline]
    fn of(&self, thread: u32) -> u64 {
        match self.present {
            (present, count) if present == thread => count,
            _ => self.others.get(&thread).copied().unwrap_or(0),
        }
    }
}

impl Visitor for Tally {
    fn begin(&mut self, _: &crate::log::Log, memory: &Memory) {
        self.peak_bytes = level(self.kind, memory);
    }

    #[inline(always)]
    fn step(&mut self, step: &Step, change: &Change, memory: &Memory) {
        if self.kind.has_heap() {
            if let Some((_, block)) = &change.died {
                self.died(block);
            }
            if let Some((_, block)) = &change.born {
                self.born(step.event, block);
                self.raise_peak(memory);
            }
        }
        if step.event.err.is_some() {
            if step.half.is_last() {
                self.failed(step.event);
            }
        } else if matches!(
            step.event.what,
            What::Mmap(_)
                | What::Munmap(_)
                | What::Mremap(_)
                | What::Mprotect { .. }
                | What::Brk(_)
        ) {
            self.shifted(step, memory);
            self.raise_peak(memory);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Log;
    use crate::replay::Outcome;
    use crate::site::Sites;
    use crate::testlog::TestLog;

    /// The sites of the heap in one thread's lines, by the size of the first allocation there.
    fn sites(short: u64, lines: &[&str]) -> Vec<(u64, Figures)> {
        let (sites, outcome) = read(Kind::Heap, short, lines);
        let total = sites.total();
        assert_eq!(total.bytes, outcome.memory.heap.counts().allocated.bytes);
        assert_eq!(total.live_bytes, outcome.memory.heap.now().bytes);
        assert_eq!(total.peak_bytes, outcome.memory.heap.peak().level.bytes);
        assert_eq!(total.failures, outcome.memory.heap.counts().failures);
        by_size(&sites)
    }

    /// The sites of the program's own mappings, likewise.
    fn mappings(lines: &[&str]) -> Vec<(u64, Figures)> {
        let (sites, outcome) = read(Kind::Mappings, 1, lines);
        let total = sites.total();
        assert_eq!(total.live_bytes, outcome.memory.mappings.held_by_program());
        assert_eq!(total.bytes, sites.program_mapped().bytes);
        assert_eq!(total.blocks, sites.program_mapped().blocks);
        by_size(&sites)
    }

    fn by_size(sites: &Sites) -> Vec<(u64, Figures)> {
        let list = sites.list().iter();
        list.map(|site| (site.call.map_or(0, |call| call.size), site.figures))
            .collect()
    }

    fn read(kind: Kind, short: u64, lines: &[&str]) -> (Sites, Outcome) {
        let mut log = TestLog::new("");
        log.block(1, lines);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("memspy.cat.4711.jsonl");
        log.write(&path);
        let mut sites = Sites::new(kind, short);
        let outcome = sites.read(&Log::open(&path).unwrap()).unwrap();
        (sites, outcome)
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

    #[test]
    fn a_mapping_is_live_at_its_site_page_by_page() {
        let sites = mappings(&[
            r#"{"op":"mmap","t":1,"addr":"0x10000","size":16000,"prot":3,"flags":34,"fd":-1,"offset":0}"#,
            r#"{"op":"mprotect","t":2,"addr":"0x11000","size":4096,"prot":0}"#,
            r#"{"op":"munmap","t":3,"addr":"0x12000","size":1}"#,
            r#"{"op":"mmap","t":4,"addr":"0x50000","size":9,"prot":3,"flags":34,"fd":-1,"offset":0}"#,
            r#"{"op":"munmap","t":5,"addr":"0x50000","size":4096}"#,
            r#"{"op":"mmap","t":6,"size":9,"prot":3,"flags":34,"fd":-1,"offset":0,"err":"ENOMEM"}"#,
        ]);
        let (size, area) = sites[0];
        assert_eq!((size, area.blocks, area.bytes), (0x4000, 1, 0x4000));
        assert_eq!((area.live_blocks, area.live_bytes), (1, 0x3000));
        assert_eq!((area.peak_bytes, area.short_lived), (0x4000, 0));
        let (_, short) = sites[1];
        assert_eq!((short.live_blocks, short.live_bytes), (0, 0));
        assert_eq!((short.blocks, short.short_lived), (1, 1));
        assert_eq!((sites[2].0, sites[2].1.failures), (9, 1));
    }

    #[test]
    fn an_mremap_ends_a_mapping_at_its_site_and_begins_one_at_its_own() {
        let sites = mappings(&[
            r#"{"op":"mmap","t":1,"addr":"0x10000","size":8192,"prot":3,"flags":34,"fd":-1,"offset":0}"#,
            r#"{"op":"mremap","t":2,"dt":1,"old":"0x10000","old_size":8192,"size":40960,"flags":1,"addr":"0x50000"}"#,
        ]);
        let live: Vec<_> = sites
            .iter()
            .map(|(size, it)| (*size, it.bytes, it.live_bytes, it.peak_bytes))
            .collect();
        assert_eq!(live, [(8192, 8192, 0, 0), (40960, 40960, 40960, 40960)]);
    }

    #[test]
    fn kernel_calls_that_malloc_made_are_no_sites() {
        let lines = [
            r#"{"op":"brk","t":1,"from":"0x1000","to":"0x22000","via":"malloc"}"#,
            r#"{"op":"mmap","t":1,"addr":"0x90000","size":139264,"prot":3,"flags":34,"fd":-1,"offset":0,"via":"malloc"}"#,
            r#"{"op":"malloc","t":1,"size":131072,"ptr":"0x90010"}"#,
            r#"{"op":"sbrk","t":2,"delta":8192,"from":"0x22000","to":"0x24000"}"#,
            r#"{"op":"sbrk","t":3,"dt":1,"delta":-4096,"from":"0x24000","to":"0x23000"}"#,
            r#"{"op":"sbrk","t":4,"delta":0,"from":"0x23000","to":"0x23000"}"#,
            r#"{"op":"brk","t":5,"from":"0x23000","to":"0x23000","hint":"0x80000000","err":"ENOMEM"}"#,
        ];
        let sites = mappings(&lines);
        let moved: Vec<_> = sites
            .iter()
            .map(|(size, it)| (*size, it.blocks, it.live_bytes, it.failures))
            .collect();
        assert_eq!(moved, [(8192, 1, 4096, 0), (0x7ffd_d000, 0, 0, 1)]);
        let (all, _) = read(Kind::All, 1, &lines);
        assert_eq!(all.total().peak_bytes, 131_072 + 8192);
        assert_eq!(all.total().blocks, 2);
    }
}
