//! The memo: stacks that were walked before, each with the words of memory that prove that it is still the same.
//!
//! A walk from a frame on depends on the frame's instruction, stack and frame pointer, on the modules, and on the words
//! that it reads. So when the registers are the same and the words, read again in the same order, are the same, the
//! walk would end the same: its result is known without walking. Each address read here is one that the walk itself
//! would read next, and must lie in the stack's bounds as it had to then.
//!
//! An entry covers some frames and leads to the entry of the frame behind them, so that stacks share what their outer
//! frames have in common: every [`STRIDE`]th frame, counted from the outermost, has an entry of its own.
//!
//! One thread writes, and its signal handlers, which may begin at any instruction and never return. An entry is void
//! (`serial` 0) while it is written, has a new serial afterwards, and is left alone by whoever finds that an
//! interrupted walk is writing it.

use super::bounds::{self, OwnStack};
use super::cfi::SavedBp;
use super::walk::{End, Frame, Walk, Word};
use crate::{memory, stacks};
use core::sync::atomic::{
    AtomicPtr, AtomicU32, AtomicUsize,
    Ordering::{Relaxed, SeqCst},
    compiler_fence,
};

/// Every so many frames, from the outermost, an entry ends.
const STRIDE: u32 = 8;
/// Words that an entry can hold.
const WORDS: usize = 16;
/// Entries in which a frame may be, a power of two.
const WAYS: u32 = 4;
/// Entries of a thread's first table, and of its last.
const SMALLEST: usize = 256;
const LARGEST: usize = 4096;

/// Set in `flags`: the frames depend on the first one's frame pointer.
const NEEDS_BP: u32 = 1;
/// The stack lies in bounds that last as long as the thread.
const LASTING: u32 = 2;
/// The stack goes on behind its outermost known frame, which is there because of the limit of depth.
const CUT_BY_DEPTH: u32 = 4;
/// The entry is one that others lead to.
const SHARED: u32 = 8;
/// The first frame was interrupted by a signal.
const INTERRUPTED: u32 = 16;

/// What the memo knows about a frame and its callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Suffix {
    /// Number of the stack that ends with this frame.
    pub(super) node: u32,
    /// Its frames, this one included.
    pub(super) frames: usize,
    pub(super) cut_by_depth: bool,
    link: Link,
    bp: usize,
    needs_bp: bool,
}

/// Leads to an entry; `serial` 0: to none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Link {
    index: u32,
    serial: u32,
}

const NO_LINK: Link = Link {
    index: 0,
    serial: 0,
};

#[repr(C, align(64))]
struct Entry {
    serial: AtomicU32,
    /// The walk that is writing the entry, 0: none.
    writer: AtomicU32,
    ip: AtomicUsize,
    sp: AtomicUsize,
    bp: AtomicUsize,
    generation: AtomicU32,
    flags: AtomicU32,
    /// The mappings' generation, for a stack whose bounds do not last.
    mappings: AtomicU32,
    node: AtomicU32,
    frames: AtomicU32,
    next_index: AtomicU32,
    next_serial: AtomicU32,
    count: AtomicU32,
    /// Where the words were, in bytes from `sp`.
    offsets: [AtomicU32; WORDS],
    words: [AtomicUsize; WORDS],
}

const _: () = assert!(size_of::<Entry>() == 256);

impl Entry {
    /// The entry for the frame behind this one's.
    #[inline(always)]
    fn next(&self) -> Link {
        Link {
            index: self.next_index.load(Relaxed),
            serial: self.next_serial.load(Relaxed),
        }
    }
}

/// A thread's memo.
pub(super) struct Memo {
    table: AtomicPtr<Table>,
    serial: AtomicU32,
    /// Entries that gave way to others since the table last grew.
    displaced: AtomicUsize,
    /// The walks under way, innermost last; abandoned ones among them.
    pub(super) writers: [AtomicU32; super::WALKS],
}

/// 2^bits entries, and behind them as many marks: a few bits of the place that each was written for, 0 for none. A
/// walk asks for every frame; the marks say no without touching the entries.
#[repr(C)]
struct Table {
    bits: u32,
    entries: [Entry; 0],
}

/// Where a frame's entries may be: the first of [`WAYS`], and their mark.
#[derive(Clone, Copy)]
struct Place {
    index: u32,
    mark: u32,
}

impl Place {
    /// The entries that may hold it. Several hold the same frame when its callers differ from time to time.
    fn ways(self) -> impl Iterator<Item = u32> {
        (0..WAYS).map(move |way| self.index ^ way)
    }
}

impl Table {
    fn new(entries: usize) -> Option<*mut Table> {
        let marks = entries * size_of::<AtomicU32>();
        let size = size_of::<Table>() + entries * size_of::<Entry>() + marks;
        let size = size.next_multiple_of(4096);
        let table = stacks::may_take(size)
            .then(|| memory::map_pages(size))
            .flatten()?;
        let table = table.cast::<Table>().as_ptr();
        // SAFETY: zeroed memory is a table of void entries; it is ours alone until it is published.
        unsafe { (*table).bits = entries.trailing_zeros() };
        Some(table)
    }

    #[inline(always)]
    fn mark(&self, index: u32) -> &AtomicU32 {
        let index = index as usize & ((1 << self.bits) - 1);
        // SAFETY: as many marks as entries follow them.
        unsafe {
            &*self
                .entries
                .as_ptr()
                .add(1 << self.bits)
                .cast::<AtomicU32>()
                .add(index)
        }
    }

    #[inline(always)]
    fn entry(&self, index: u32) -> &Entry {
        let index = index as usize & ((1 << self.bits) - 1);
        // SAFETY: the table was made with 2^bits entries.
        unsafe { &*self.entries.as_ptr().add(index) }
    }

    #[inline(always)]
    fn place(&self, ip: usize, sp: usize) -> Place {
        let mixed = (ip ^ sp.rotate_left(23)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Place {
            index: (mixed >> (64 - self.bits)) as u32,
            mark: (mixed >> 16) as u32 | 1,
        }
    }
}

impl Memo {
    pub(super) fn new() -> Option<Memo> {
        Some(Memo {
            table: AtomicPtr::new(Table::new(SMALLEST)?),
            serial: AtomicU32::new(0),
            displaced: AtomicUsize::new(0),
            writers: [const { AtomicU32::new(0) }; super::WALKS],
        })
    }

    /// A number that no entry and no walk of this memo has had.
    pub(super) fn next_serial(&self) -> u32 {
        loop {
            let serial = self.serial.load(Relaxed).wrapping_add(1);
            self.serial.store(serial, Relaxed);
            if serial != 0 {
                return serial;
            }
        }
    }

    #[inline(always)]
    fn table(&self) -> &Table {
        // SAFETY: the table was made before the memo was, and tables are never freed.
        unsafe { &*self.table.load(Relaxed) }
    }

    /// What is known about a frame and its callers, if it still holds. `bp` answers the frame's frame pointer.
    #[inline(always)]
    pub(super) fn find(
        &self,
        ip: usize,
        interrupted: bool,
        sp: usize,
        mut bp: impl FnMut() -> Option<usize>,
        generation: u32,
        own: &OwnStack,
    ) -> Option<Suffix> {
        let table = self.table();
        let place = table.place(ip, sp);
        for index in place.ways() {
            if table.mark(index).load(Relaxed) != place.mark {
                continue;
            }
            let entry = table.entry(index);
            if entry.ip.load(Relaxed) != ip || entry.sp.load(Relaxed) != sp {
                continue;
            }
            let serial = entry.serial.load(Relaxed);
            let flags = entry.flags.load(Relaxed);
            if serial == 0 || (flags & INTERRUPTED != 0) != interrupted {
                continue;
            }
            let needs_bp = flags & NEEDS_BP != 0;
            let expected = entry.bp.load(Relaxed);
            if needs_bp && bp()? != expected {
                continue;
            }
            compiler_fence(SeqCst);
            let suffix = Suffix {
                node: entry.node.load(Relaxed),
                frames: entry.frames.load(Relaxed) as usize,
                cut_by_depth: flags & CUT_BY_DEPTH != 0,
                link: Link { index, serial },
                bp: expected,
                needs_bp,
            };
            if holds(table, suffix.link, generation, own) {
                return Some(suffix);
            }
        }
        None
    }

    /// Notes a walk whose frames have the stack numbers `nodes` (innermost first, as the frames). `walk_id` is the
    /// number under which it stands among the writers.
    #[inline(never)]
    pub(super) fn note(&self, walk: &Walk, end: End, nodes: &[u32], walk_id: u32, generation: u32) {
        let known = match end {
            End::Known(suffix) => Some(suffix),
            _ => None,
        };
        let below = known.map_or(0, |suffix| suffix.frames);
        let cut_by_depth = known.map_or(end == End::Cut(super::Cut::Depth), |it| it.cut_by_depth);
        let mut outer = Outer {
            first: walk.frames().len(),
            link: known.map_or(NO_LINK, |suffix| suffix.link),
            bp: known
                .filter(|suffix| suffix.needs_bp)
                .map(|suffix| suffix.bp),
        };
        let mut forced = false;
        for (index, frame) in walk.frames().iter().enumerate().rev() {
            let Some(node) = nodes.get(index) else { return };
            let frames = (walk.frames().len() - index + below) as u32;
            // The frame behind an interrupted one may lie on another stack: the entries part there.
            let parts = frame.interrupted || frames.is_multiple_of(STRIDE) || forced;
            if index > 0 && !parts && !is_full(walk, index - 1, outer.first) {
                continue;
            }
            let Some(draft) = Draft::new(walk, index, &outer) else {
                // It depends on more than an entry can say. Frames inside of it may be self-contained, but only
                // together with it.
                if index == 0 || is_full(walk, index - 1, outer.first) {
                    return;
                }
                forced = true;
                continue;
            };
            forced = false;
            let flags =
                if cut_by_depth { CUT_BY_DEPTH } else { 0 } | if index > 0 { SHARED } else { 0 };
            let about = About {
                node: *node,
                frames,
                flags,
                generation,
                mappings: walk.mappings,
            };
            let Some(link) = self.write(frame, &draft, &outer, about, walk_id) else {
                return;
            };
            outer = Outer {
                first: index,
                link,
                bp: draft.needs_bp,
            };
        }
    }

    fn write(
        &self,
        frame: &Frame,
        draft: &Draft,
        outer: &Outer,
        about: About,
        walk_id: u32,
    ) -> Option<Link> {
        let table = self.table();
        let place = table.place(frame.ip, frame.sp);
        let index = self.victim(table, place, &about, outer.link);
        let entry = table.entry(index);
        let busy = entry.writer.load(Relaxed);
        let others = self
            .writers
            .iter()
            .any(|writer| writer.load(Relaxed) == busy);
        if busy != 0 && busy != walk_id && others {
            return None;
        }
        let serial = self.next_serial();
        entry.writer.store(walk_id, Relaxed);
        compiler_fence(SeqCst);
        entry.serial.store(0, Relaxed);
        compiler_fence(SeqCst);
        let flags = about.flags
            | if draft.needs_bp.is_some() {
                NEEDS_BP
            } else {
                0
            }
            | if frame.lasting { LASTING } else { 0 }
            | if frame.interrupted { INTERRUPTED } else { 0 };
        entry.ip.store(frame.ip, Relaxed);
        entry.sp.store(frame.sp, Relaxed);
        entry.bp.store(draft.needs_bp.unwrap_or(0), Relaxed);
        entry.generation.store(about.generation, Relaxed);
        entry.flags.store(flags, Relaxed);
        entry.mappings.store(about.mappings, Relaxed);
        entry.node.store(about.node, Relaxed);
        entry.frames.store(about.frames, Relaxed);
        entry.next_index.store(outer.link.index, Relaxed);
        entry.next_serial.store(outer.link.serial, Relaxed);
        entry.count.store(draft.count as u32, Relaxed);
        for ((offset, word), to) in draft
            .words()
            .iter()
            .zip(entry.offsets.iter().zip(&entry.words))
        {
            to.0.store(*offset, Relaxed);
            to.1.store(*word, Relaxed);
        }
        compiler_fence(SeqCst);
        // Whoever was robbed of its place (see `Thread::begin`) must not vouch for what it wrote.
        if entry.writer.load(Relaxed) != walk_id || !self.is_writer(walk_id) {
            return None;
        }
        table.mark(index).store(place.mark, Relaxed);
        entry.serial.store(serial, Relaxed);
        compiler_fence(SeqCst);
        entry.writer.store(0, Relaxed);
        Some(Link { index, serial })
    }

    /// Whether a walk still stands among the writers.
    pub(super) fn is_writer(&self, walk_id: u32) -> bool {
        self.writers
            .iter()
            .any(|writer| writer.load(Relaxed) == walk_id)
    }

    /// The entry to give up for a new one: a void one or one that can't be right any more, one that nobody leads to,
    /// the oldest. Not the one that the new one is to lead to.
    fn victim(&self, table: &Table, place: Place, about: &About, outer: Link) -> u32 {
        let now = self.serial.load(Relaxed);
        let worth = |index: &u32| {
            let entry = table.entry(*index);
            let serial = entry.serial.load(Relaxed);
            let next = entry.next();
            let can_hold = serial != 0
                && entry.generation.load(Relaxed) == about.generation
                && (next == NO_LINK || table.entry(next.index).serial.load(Relaxed) == next.serial);
            let shared = entry.flags.load(Relaxed) & SHARED;
            (
                can_hold,
                shared,
                core::cmp::Reverse(now.wrapping_sub(serial)),
            )
        };
        let candidates = place
            .ways()
            .filter(|index| outer == NO_LINK || *index != outer.index);
        let index = candidates.min_by_key(worth).unwrap_or(place.index);
        if worth(&index).0 && about.flags & SHARED == 0 {
            self.displaced.fetch_add(1, Relaxed);
        }
        index
    }

    /// Takes a larger table when the present one is too small for what the thread does. The old one stays: a walk
    /// that a signal interrupted may be reading it.
    pub(super) fn grow_if_crowded(&self) {
        let bits = self.table().bits;
        if self.displaced.load(Relaxed) >> bits >= 2 && (1 << bits) < LARGEST {
            self.displaced.store(0, Relaxed);
            if let Some(table) = Table::new(4 << bits) {
                self.table.store(table, Relaxed);
            }
        }
    }
}

/// Whether the words of an entry and of all that it leads to are what they were.
#[inline(always)]
fn holds(table: &Table, first: Link, generation: u32, own: &OwnStack) -> bool {
    let mut link = first;
    loop {
        let entry = table.entry(link.index);
        if entry.serial.load(Relaxed) != link.serial || entry.generation.load(Relaxed) != generation
        {
            return false;
        }
        let sp = entry.sp.load(Relaxed);
        let count = (entry.count.load(Relaxed) as usize).min(WORDS);
        let to = if entry.flags.load(Relaxed) & LASTING != 0 {
            match own.known(sp) {
                Some(stack) => stack.to,
                None => return false,
            }
        } else if entry.mappings.load(Relaxed) == bounds::mappings() {
            usize::MAX
        } else {
            return false;
        };
        for (offset, word) in entry.offsets.iter().zip(&entry.words).take(count) {
            let at = sp.wrapping_add(offset.load(Relaxed) as usize);
            // SAFETY: the word lies above the stack pointer on the same stack and below the end of the bounds; or in
            // memory that was readable and of which nothing has been unmapped since.
            if at >= to || unsafe { (at as *const usize).read_volatile() } != word.load(Relaxed) {
                return false;
            }
        }
        let next = entry.next();
        compiler_fence(SeqCst);
        if entry.serial.load(Relaxed) != link.serial {
            return false;
        }
        if next == NO_LINK {
            return true;
        }
        link = next;
    }
}

/// Whether an entry from frame `index` on could say too much for its room before frame `to`.
fn is_full(walk: &Walk, index: usize, to: usize) -> bool {
    let from = walk.frames().get(index).map_or(0, |frame| frame.words);
    let to = walk
        .reached(to)
        .map_or(walk.words().len(), |frame| frame.words);
    to.saturating_sub(from) + 1 > WORDS
}

/// What an entry says besides its words.
#[derive(Clone, Copy)]
struct About {
    node: u32,
    frames: u32,
    flags: u32,
    generation: u32,
    mappings: u32,
}

/// The entry that the one being made leads to.
struct Outer {
    /// Its first frame.
    first: usize,
    link: Link,
    /// The frame pointer that it needs there.
    bp: Option<usize>,
}

/// The words of an entry that begins at some frame and ends before another.
struct Draft {
    words: [(u32, usize); WORDS],
    count: usize,
    /// The frame pointer that the entry's first frame must have.
    needs_bp: Option<usize>,
}

impl Draft {
    /// `None` when the frames depend on anything that is neither above the first one's stack pointer nor its frame
    /// pointer, or on too much.
    fn new(walk: &Walk, first: usize, outer: &Outer) -> Option<Draft> {
        let start = walk.frame(first)?;
        let end = walk.reached(outer.first);
        let to = end.map_or(walk.words().len(), |frame| frame.words);
        let mut draft = Draft {
            words: [(0, 0); WORDS],
            count: 0,
            needs_bp: None,
        };
        for word in walk.words().get(start.words..to)? {
            draft.add(start, *word)?;
        }
        for frame in walk.frames().get(first..outer.first)? {
            if frame.used_bp && frame.bp == start.bp {
                draft.need_bp(walk, start)?;
            }
        }
        if let (Some(bp), Some(end)) = (outer.bp, end) {
            match end.bp {
                inherited if inherited == start.bp => draft.needs_bp = Some(bp),
                SavedBp::At(address) => draft.add(start, (address, bp))?,
                // A signal's saved registers: their words are among those of the entry already.
                SavedBp::Is(_) => {}
            }
        }
        Some(draft)
    }

    fn words(&self) -> &[(u32, usize)] {
        self.words.get(..self.count).unwrap_or_default()
    }

    fn add(&mut self, start: &Frame, (address, value): Word) -> Option<()> {
        if start.bp == SavedBp::At(address) {
            self.needs_bp = Some(value);
            return Some(());
        }
        let offset = u32::try_from(address.checked_sub(start.sp)?).ok()?;
        *self.words.get_mut(self.count)? = (offset, value);
        self.count += 1;
        Some(())
    }

    fn need_bp(&mut self, walk: &Walk, start: &Frame) -> Option<()> {
        self.needs_bp = match start.bp {
            SavedBp::Is(value) => Some(value),
            SavedBp::At(address) => {
                let read = walk.words().iter().find(|(at, _)| *at == address)?;
                Some(read.1)
            }
        };
        Some(())
    }
}

const _: () = assert!(LARGEST.is_power_of_two() && SMALLEST.is_power_of_two());
