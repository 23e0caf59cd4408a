//! Mappings that were made while recording, the program break, and heaps of thread arenas.
//!
//! What the loader and libc map for themselves is not here: the log's snapshots have it.

use crate::event::{Address, Arena, ArenaChange, Brk, Mmap, Mremap, Range, StackId, Via};
use crate::merge::Step;
use serde::Serialize;
use std::collections::BTreeMap;

/// A range of pages that an mmap call gave and that is still there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mapping {
    /// First byte behind it.
    pub end: Address,
    /// Protection, the number of the last call that set it.
    pub prot: u32,
    /// Flags of the mmap call.
    pub flags: u32,
    /// The file, -1 for none.
    pub fd: i32,
    /// Offset in the file, of the first byte.
    pub offset: u64,
    /// The libc function inside which it was made; `None` when the program made it.
    pub via: Option<Via>,
    /// The call stack that made it.
    pub stack: StackId,
    /// When it was made, nanoseconds since the image started.
    pub t: u64,
    /// memspy's number of the thread that made it.
    pub thread: u32,
    /// The event's number in its thread.
    pub n: u64,
    /// Whether it came with fork from the parent.
    pub inherited: bool,
}

/// Bytes of mappings, now and at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Mapped {
    /// Bytes that are mapped.
    pub bytes: u64,
    /// The most bytes that were mapped at one time.
    pub peak: u64,
}

impl Mapped {
    fn add(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
        self.peak = self.peak.max(self.bytes);
    }

    fn remove(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

/// The program break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Break {
    /// Where it was before the first event that moved it.
    pub first: Address,
    /// Where it is.
    pub now: Address,
    /// The highest place where it was.
    pub highest: Address,
}

/// A change of what one call of the program itself holds: of the pages that it mapped, or of the
/// bytes by which it moved the break up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shift {
    /// memspy's number of the thread that made the call.
    pub thread: u32,
    /// The call's number in its thread.
    pub n: u64,
    /// Whether the call was the parent's, before a fork.
    pub inherited: bool,
    /// Bytes that it holds from now on; otherwise bytes that it holds no more.
    pub gained: bool,
    /// How many.
    pub bytes: u64,
}

/// A part of the heap segment that the program got by moving the break itself.
#[derive(Clone, Copy, Debug)]
struct Growth {
    from: Address,
    to: Address,
    thread: u32,
    n: u64,
    inherited: bool,
}

impl Growth {
    fn shift(&self, gained: bool, bytes: u64) -> Shift {
        Shift {
            thread: self.thread,
            n: self.n,
            inherited: self.inherited,
            gained,
            bytes,
        }
    }
}

/// The mappings, without overlaps, by their first byte.
#[derive(Debug)]
pub struct Mappings {
    page: u64,
    ranges: BTreeMap<Address, Mapping>,
    /// Pieces that an mremap took away and will put down again, by the old address.
    lifted: Vec<(Address, Mapping)>,
    by_program: Mapped,
    by_malloc: Mapped,
    brk: Option<Break>,
    /// What the program's own moves of the break have given it, from the lowest address up.
    growths: Vec<Growth>,
    growth_bytes: u64,
    arenas: BTreeMap<Address, Arena>,
    shifts: Vec<Shift>,
}

impl Default for Mappings {
    fn default() -> Self {
        Mappings::new(4096)
    }
}

impl Mappings {
    pub(super) fn new(page: u64) -> Mappings {
        Mappings {
            page: if page.is_power_of_two() { page } else { 4096 },
            ranges: BTreeMap::new(),
            lifted: Vec::new(),
            by_program: Mapped::default(),
            by_malloc: Mapped::default(),
            brk: None,
            growths: Vec::new(),
            growth_bytes: 0,
            arenas: BTreeMap::new(),
            shifts: Vec::new(),
        }
    }

    /// Bytes of a page.
    pub fn page(&self) -> u64 {
        self.page
    }

    /// All mappings by their first byte.
    pub fn iter(&self) -> impl Iterator<Item = (Address, &Mapping)> {
        self.ranges.iter().map(|(start, mapping)| (*start, mapping))
    }

    /// The mapping that contains an address, with its first byte.
    pub fn at(&self, address: Address) -> Option<(Address, &Mapping)> {
        let (start, mapping) = self.ranges.range(..=address).next_back()?;
        (address < mapping.end).then_some((*start, mapping))
    }

    /// Bytes of the mappings that the program made by itself.
    pub fn by_program(&self) -> Mapped {
        self.by_program
    }

    /// Bytes of the mappings that were made inside a libc function, malloc or another.
    pub fn by_malloc(&self) -> Mapped {
        self.by_malloc
    }

    /// The program break; `None` before the first event about it.
    pub fn brk(&self) -> Option<Break> {
        self.brk
    }

    /// Bytes that the program's own calls hold: of its mappings, and of its moves of the break.
    pub fn held_by_program(&self) -> u64 {
        self.by_program.bytes.saturating_add(self.growth_bytes)
    }

    /// What the last step about mappings or the break did to what the program's own calls hold, in
    /// order. A call may lose a range and get parts of it back at once.
    pub fn shifts(&self) -> &[Shift] {
        &self.shifts
    }

    /// To be called before each step about mappings or the break.
    pub(super) fn forget_shifts(&mut self) {
        self.shifts.clear();
    }

    /// The heaps of thread arenas by their first byte.
    pub fn arenas(&self) -> impl Iterator<Item = &Arena> {
        self.arenas.values()
    }

    /// The end of a range, on a page border.
    fn end(&self, start: Address, size: u64) -> Address {
        start.saturating_add(size.checked_next_multiple_of(self.page).unwrap_or(u64::MAX))
    }

    pub(super) fn mmap(&mut self, step: &Step, call: &Mmap) {
        self.remove(call.addr, call.size);
        let mapping = Mapping {
            end: self.end(call.addr, call.size),
            prot: call.prot,
            flags: call.flags,
            fd: call.fd,
            offset: call.offset,
            via: step.event.via,
            stack: step.event.stack,
            t: step.time,
            thread: step.thread,
            n: step.n,
            inherited: false,
        };
        if mapping.end > call.addr {
            self.put(call.addr, mapping);
        }
    }

    fn put(&mut self, start: Address, mapping: Mapping) {
        self.share(&mapping).add(mapping.end - start);
        self.shift(start, &mapping, true);
        self.ranges.insert(start, mapping);
    }

    fn take(&mut self, start: Address) -> Option<Mapping> {
        let mapping = self.ranges.remove(&start)?;
        self.share(&mapping).remove(mapping.end - start);
        self.shift(start, &mapping, false);
        Some(mapping)
    }

    fn shift(&mut self, start: Address, mapping: &Mapping, gained: bool) {
        if mapping.via.is_none() {
            self.shifts.push(Shift {
                thread: mapping.thread,
                n: mapping.n,
                inherited: mapping.inherited,
                gained,
                bytes: mapping.end - start,
            });
        }
    }

    fn share(&mut self, mapping: &Mapping) -> &mut Mapped {
        match mapping.via {
            Some(_) => &mut self.by_malloc,
            None => &mut self.by_program,
        }
    }

    /// Takes a range out; mappings that reach beyond it keep the rest.
    pub(super) fn remove(&mut self, start: Address, size: u64) {
        self.split(start, self.end(start, size), |_, _| None);
    }

    pub(super) fn protect(&mut self, range: Range, prot: u32) {
        let end = self.end(range.addr, range.size);
        self.split(range.addr, end, |_, mapping| {
            Some(Mapping { prot, ..mapping })
        });
    }

    /// The first half of an mremap: the old range goes.
    pub(super) fn lift(&mut self, call: &Mremap) {
        if let Some((start, mapping)) = self.at(call.old) {
            let mut mapping = *mapping;
            mapping.offset = mapping.offset.saturating_add(call.old - start);
            self.lifted.push((call.old, mapping));
        }
        // An old size of 0 makes a second mapping of the same pages and leaves the first.
        self.remove(call.old, call.old_size);
    }

    /// The second half of an mremap: the new range is there, and this call is who made it.
    pub(super) fn mremap(&mut self, step: &Step, call: &Mremap) {
        let lifted = self.lifted.iter().position(|(old, _)| *old == call.old);
        let before = lifted.map(|at| self.lifted.swap_remove(at).1);
        self.remove(call.addr, call.size);
        let end = self.end(call.addr, call.size);
        if end <= call.addr {
            return;
        }
        let (prot, flags, fd, offset) = before.map_or((0, 0, -1, 0), |mapping| {
            (mapping.prot, mapping.flags, mapping.fd, mapping.offset)
        });
        let mapping = Mapping {
            end,
            prot,
            flags,
            fd,
            offset,
            via: step.event.via,
            stack: step.event.stack,
            t: step.time,
            thread: step.thread,
            n: step.n,
            inherited: false,
        };
        self.put(call.addr, mapping);
    }

    pub(super) fn set_break(&mut self, step: &Step, call: &Brk) {
        while let Some(growth) = self.growths.last_mut()
            && growth.to > call.to
        {
            let bytes = growth.to - growth.from.max(call.to);
            self.shifts.push(growth.shift(false, bytes));
            self.growth_bytes -= bytes;
            growth.to -= bytes;
            if growth.to == growth.from {
                self.growths.pop();
            }
        }
        let lowest = self.growths.last().map_or(0, |growth| growth.to);
        let from = call.from.max(lowest);
        if step.event.via.is_none() && call.to > from {
            let growth = Growth {
                from,
                to: call.to,
                thread: step.thread,
                n: step.n,
                inherited: false,
            };
            self.shifts.push(growth.shift(true, call.to - from));
            self.growth_bytes += call.to - from;
            self.growths.push(growth);
        }
        let brk = self.brk.get_or_insert(Break {
            first: call.from,
            now: call.from,
            highest: call.from,
        });
        brk.now = call.to;
        brk.highest = brk.highest.max(call.to);
    }

    pub(super) fn arena(&mut self, arena: &Arena) {
        if arena.change == ArenaChange::Shrunk && arena.size == 0 {
            self.arenas.remove(&arena.base);
        } else {
            self.arenas.insert(arena.base, *arena);
        }
    }

    pub(super) fn inherit(&mut self) {
        for mapping in self.ranges.values_mut() {
            mapping.inherited = true;
        }
        for growth in &mut self.growths {
            growth.inherited = true;
        }
        self.by_program.peak = self.by_program.bytes;
        self.by_malloc.peak = self.by_malloc.bytes;
    }

    /// Cuts mappings at both ends of a range and replaces what lies inside.
    fn split(
        &mut self,
        start: Address,
        end: Address,
        change: impl Fn(Address, Mapping) -> Option<Mapping>,
    ) {
        let first = self.at(start).map_or(start, |(from, _)| from);
        let hit: Vec<Address> = self
            .ranges
            .range(first..end)
            .map(|(from, _)| *from)
            .collect();
        for from in hit {
            let Some(mapping) = self.take(from) else {
                continue;
            };
            if from < start {
                let before = Mapping {
                    end: start,
                    ..mapping
                };
                self.put(from, before);
            }
            let inside = from.max(start);
            let part = Mapping {
                end: mapping.end.min(end),
                offset: mapping.offset.saturating_add(inside - from),
                ..mapping
            };
            if let Some(part) = change(inside, part) {
                self.put(inside, part);
            }
            if mapping.end > end {
                let after = Mapping {
                    offset: mapping.offset.saturating_add(end - from),
                    ..mapping
                };
                self.put(end, after);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Event, What};
    use crate::merge::Half;
    use memspy_log::Op;

    fn event(via: Option<Via>) -> Event {
        Event {
            t: 1,
            dt: 0,
            tid: 1,
            stack: 0,
            op: Op::Mmap,
            via,
            err: None,
            what: What::Unload { module: 0 },
        }
    }

    fn step(event: &Event, half: Half) -> Step<'_> {
        Step {
            time: 1,
            half,
            event,
            thread: 1,
            n: 1,
            rest: b"",
        }
    }

    fn map(mappings: &mut Mappings, addr: Address, size: u64, via: Option<Via>) {
        let event = event(via);
        let step = step(&event, Half::Whole);
        let call = Mmap {
            addr,
            hint: 0,
            size,
            prot: 3,
            flags: 34,
            fd: -1,
            offset: 0,
        };
        mappings.mmap(&step, &call);
    }

    fn ranges(mappings: &Mappings) -> Vec<(Address, Address, u32)> {
        let ranges = mappings.iter();
        ranges
            .map(|(start, mapping)| (start, mapping.end, mapping.prot))
            .collect()
    }

    #[test]
    fn a_partial_munmap_leaves_both_ends() {
        let mut mappings = Mappings::new(4096);
        map(&mut mappings, 0x10000, 0x4fff, None);
        mappings.remove(0x11000, 0x1001);
        assert_eq!(
            ranges(&mappings),
            [(0x10000, 0x11000, 3), (0x13000, 0x15000, 3)]
        );
        assert_eq!(
            mappings.by_program(),
            Mapped {
                bytes: 0x3000,
                peak: 0x5000
            }
        );
        assert_eq!(
            mappings.at(0x13000).map(|(_, mapping)| mapping.offset),
            Some(0x3000)
        );
        assert_eq!(mappings.at(0x12fff), None);
    }

    #[test]
    fn a_mapping_over_another_takes_its_place() {
        let mut mappings = Mappings::new(4096);
        map(&mut mappings, 0x10000, 0x4000, None);
        map(&mut mappings, 0x12000, 0x4000, Some(Via::Call(Op::Malloc)));
        assert_eq!(
            ranges(&mappings),
            [(0x10000, 0x12000, 3), (0x12000, 0x16000, 3)]
        );
        assert_eq!(mappings.by_program().bytes, 0x2000);
        assert_eq!(mappings.by_malloc().bytes, 0x4000);
    }

    #[test]
    fn protection_changes_in_the_middle_only() {
        let mut mappings = Mappings::new(4096);
        map(&mut mappings, 0x10000, 0x3000, None);
        let range = Range {
            addr: 0x11000,
            size: 1,
        };
        mappings.protect(range, 0);
        assert_eq!(
            ranges(&mappings),
            [
                (0x10000, 0x11000, 3),
                (0x11000, 0x12000, 0),
                (0x12000, 0x13000, 3)
            ]
        );
        assert_eq!(mappings.by_program().bytes, 0x3000);
    }

    #[test]
    fn a_mapping_that_moves_was_made_by_the_call_that_moved_it() {
        let mut mappings = Mappings::new(4096);
        map(&mut mappings, 0x10000, 0x2000, Some(Via::Call(Op::Malloc)));
        let call = Mremap {
            old: 0x10000,
            old_size: 0x2000,
            size: 0x8000,
            flags: 1,
            hint: 0,
            addr: 0x50000,
        };
        let event = event(Some(Via::Call(Op::Realloc)));
        let step = step(&event, Half::Acquire);
        mappings.lift(&call);
        assert_eq!(ranges(&mappings), []);
        mappings.mremap(&step, &call);
        assert_eq!(ranges(&mappings), [(0x50000, 0x58000, 3)]);
        let via = mappings.at(0x50000).and_then(|(_, mapping)| mapping.via);
        assert_eq!(via, Some(Via::Call(Op::Realloc)));
    }

    #[test]
    fn a_call_of_the_program_loses_what_is_unmapped_and_gains_the_rest_back() {
        let mut mappings = Mappings::new(4096);
        map(&mut mappings, 0x10000, 0x4000, None);
        map(&mut mappings, 0x20000, 0x4000, Some(Via::Call(Op::Malloc)));
        let shift = |mappings: &mut Mappings| {
            let net = mappings.shifts().iter().map(|it| {
                let bytes = it.bytes as i64;
                if it.gained { bytes } else { -bytes }
            });
            let net = net.sum::<i64>();
            mappings.forget_shifts();
            net
        };
        assert_eq!(shift(&mut mappings), 0x4000);
        mappings.remove(0x11000, 0x1000);
        assert_eq!(shift(&mut mappings), -0x1000);
        mappings.remove(0x20000, 0x4000);
        assert_eq!(shift(&mut mappings), 0);
    }

    #[test]
    fn the_programs_part_of_the_heap_segment_is_what_its_own_moves_left_there() {
        let mut mappings = Mappings::new(4096);
        let mut brk = |from: Address, to: Address, via: Option<Via>| {
            let event = event(via);
            let step = step(&event, Half::Whole);
            let (hint, delta) = (0, 0);
            mappings.set_break(
                &step,
                &Brk {
                    from,
                    to,
                    hint,
                    delta,
                },
            );
            mappings.held_by_program()
        };
        assert_eq!(brk(0x1000, 0x5000, Some(Via::Call(Op::Malloc))), 0);
        assert_eq!(brk(0x5000, 0x7000, None), 0x2000);
        assert_eq!(brk(0x7000, 0x9000, None), 0x4000);
        assert_eq!(brk(0x9000, 0xa000, Some(Via::Call(Op::Malloc))), 0x4000);
        assert_eq!(brk(0xa000, 0x6800, None), 0x1800);
        assert_eq!(brk(0x6800, 0x2000, Some(Via::Call(Op::Free))), 0);
    }

    #[test]
    fn ranges_at_the_end_of_the_address_space_do_not_wrap() {
        let mut mappings = Mappings::new(4096);
        map(&mut mappings, u64::MAX - 10, u64::MAX, None);
        map(&mut mappings, 0, 0, None);
        mappings.remove(u64::MAX, u64::MAX);
        mappings.remove(0, u64::MAX);
        assert_eq!(ranges(&mappings), []);
    }
}
