//! The memo: stacks that were walked before, each with the words of memory that prove that it is still the same.
//!
//! A walk from a frame on depends on the frame's instruction, stack and frame pointer, on the modules, and on the words
//! that it reads. So when the registers are the same and the words, read again in the same order, are the same, the
//! walk would end the same: its result is known without walking. Each address read here is one that the walk itself
//! would read next, and must lie in the stack's bounds as it had to then.
//!
//! An entry covers some frames and leads to the entry of the frame behind them, so that stacks share what their outer
//! frames have in common: about every eighth frame has an entry of its own, and a walk can tell which from the frame
//! alone (see [`is_landmark`]).
//!
//! For walks that find no entry the memo also knows the numbers of frames: see [`Probe::number`].
//!
//! One thread writes, and its signal handlers, which may begin at any instruction and never return. An entry is void
//! (`serial` 0) while it is written, has a new serial afterwards, and is left alone by whoever finds that an
//! interrupted walk is writing it.

use super::bounds::{self, OwnStack};
use super::cfi::SavedBp;
use super::rule;
use super::thread::Turn;
use super::walk::{End, Frame, Walk};
use crate::{memory, stacks};
use core::sync::atomic::{
    AtomicPtr, AtomicU32, AtomicU64, AtomicUsize,
    Ordering::{Relaxed, SeqCst},
    compiler_fence,
};

/// Frames that an entry has at least, if nothing else ends it.
const FEWEST: usize = 6;
/// Words that an entry can hold.
const WORDS: usize = 16;
/// Entries in which a frame may be.
const WAYS: u32 = 4;
/// Numbers of frames beside them.
const NUMBERS: usize = 3;
/// Entries of a thread's first table, and of its last.
const SMALLEST: usize = 256;
const LARGEST: usize = 4096;

/// Whether a frame with this stack pointer is one to which entries lead. Frames are multiples of 16 bytes; whatever
/// their size is, some of these bits count them.
#[inline(always)]
pub(super) fn is_landmark(sp: usize) -> bool {
    (sp ^ sp >> 3 ^ sp >> 7) & 0x70 == 0
}

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
    /// Entries and numbers that gave way to others since the table last grew.
    displaced: AtomicUsize,
    /// The walks under way, innermost last; abandoned ones among them.
    pub(super) writers: [AtomicU32; super::WALKS],
}

/// 2^bits entries, behind them as many buckets as there are groups of [`WAYS`] entries, and behind these as many words
/// as entries: numbers of stacks that were seen once.
#[repr(C)]
struct Table {
    bits: u32,
    /// The era of the rules (see `rule::era`) that the numbers are of.
    era: AtomicU32,
    entries: [Entry; 0],
}

/// What is known without a look at the entries: one cache line, which a walk looks at for every frame.
#[repr(C, align(64))]
struct Bucket {
    /// Sixteen bits for each entry of the group: some of the place that it was written for, 0 for none.
    marks: AtomicU64,
    /// Which entry's turn it is to give way (two bits), and from bit 2 on which ones are to be spared once.
    turn: AtomicU64,
    numbers: [Number; NUMBERS],
}

const _: () = assert!(size_of::<Bucket>() == 64);

/// The number of a frame with a certain parent. It proves itself: see [`Number::seal`].
struct Number {
    sealed: AtomicU64,
    /// The parent in the upper half, the frame in the lower.
    pair: AtomicU64,
}

impl Number {
    /// The address and 16 bits of the generation (for the others see `rule::forget`), bound to the numbers so that a
    /// word of one frame and a word of another make nothing that is found.
    #[inline(always)]
    fn seal(ip: usize, generation: u32, pair: u64) -> u64 {
        ip as u64 ^ u64::from(generation) << 48 ^ pair.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

/// A mark in each of the four lanes of a word.
const LANES: u64 = 0x0001_0001_0001_0001;

/// Where a frame's entries may be: the number of the group, and their mark.
#[derive(Clone, Copy)]
struct Place {
    group: usize,
    mark: u64,
}

impl Table {
    fn new(entries: usize) -> Option<*mut Table> {
        let buckets = entries / WAYS as usize * size_of::<Bucket>();
        let seen = entries * size_of::<AtomicU32>();
        let size = size_of::<Table>() + entries * size_of::<Entry>() + buckets + seen;
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
    fn buckets(&self) -> *const Bucket {
        self.entries.as_ptr().wrapping_add(1 << self.bits).cast()
    }

    #[inline(always)]
    fn bucket(&self, place: Place) -> &Bucket {
        // SAFETY: a bucket for each group follows the entries, and places are made with this table's bits.
        unsafe { &*self.buckets().add(place.group) }
    }

    #[inline(always)]
    fn seen(&self, node: u32) -> &AtomicU32 {
        let mixed = node.wrapping_mul(0x9e37_79b9);
        // SAFETY: behind the buckets, one for four entries, are as many words as entries.
        unsafe {
            let behind = self.buckets().add(1 << self.bits >> WAYS.trailing_zeros());
            &*behind
                .cast::<AtomicU32>()
                .add((mixed >> (32 - self.bits)) as usize)
        }
    }

    #[inline(always)]
    fn entry(&self, index: u32) -> &Entry {
        let index = index as usize & ((1 << self.bits) - 1);
        // SAFETY: the table was made with 2^bits entries.
        unsafe { &*self.entries.as_ptr().add(index) }
    }

    #[inline(always)]
    fn shift(&self) -> u32 {
        64 + WAYS.trailing_zeros() - self.bits
    }

    #[inline(always)]
    fn place(&self, ip: usize, sp: usize) -> Place {
        Place::new(ip, sp, self.shift())
    }
}

/// The buckets of a table.
#[derive(Clone, Copy)]
pub(super) struct Probe {
    first: *const Bucket,
    shift: u32,
}

impl Probe {
    /// A look at a memo that knows nothing.
    pub(super) fn of_nothing() -> Probe {
        static NOTHING: [Bucket; 2] = [const { Bucket::new() }; 2];
        Probe {
            first: NOTHING.as_ptr(),
            shift: usize::BITS - 1,
        }
    }

    /// Whether the memo may know about a frame: seldom without reason.
    #[inline(always)]
    pub(super) fn may_know(self, ip: usize, sp: usize) -> bool {
        let place = Place::new(ip, sp, self.shift);
        self.bucket(place).lanes(place.mark) != 0
    }

    #[inline(always)]
    fn bucket(self, place: Place) -> &'static Bucket {
        // SAFETY: a place made with this shift lies in the table, and tables are never freed.
        unsafe { &*self.first.add(place.group) }
    }

    /// The number of a frame that has this parent, if it was asked for lately on this place of the stack.
    #[inline(always)]
    pub(super) fn number(self, frame: &Frame, parent: u32, generation: u32) -> Option<u32> {
        let ip = frame.logged_ip();
        let bucket = self.bucket(Place::new(ip, frame.sp, self.shift));
        bucket.numbers.iter().find_map(|number| {
            let pair = number.pair.load(Relaxed);
            let sealed = number.sealed.load(Relaxed);
            ((pair >> 32) as u32 == parent && sealed == Number::seal(ip, generation, pair))
                .then_some(pair as u32)
        })
    }
}

impl Place {
    #[inline(always)]
    fn new(ip: usize, sp: usize, shift: u32) -> Place {
        let mixed = (ip ^ sp.rotate_left(23)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Place {
            group: mixed >> shift,
            mark: u64::from((mixed >> 32) as u16 | 1),
        }
    }

    fn index(self, lane: u32) -> u32 {
        self.group as u32 * WAYS + lane
    }
}

impl Bucket {
    const fn new() -> Bucket {
        Bucket {
            marks: AtomicU64::new(0),
            turn: AtomicU64::new(0),
            numbers: [const {
                Number {
                    sealed: AtomicU64::new(0),
                    pair: AtomicU64::new(0),
                }
            }; NUMBERS],
        }
    }

    /// A bit in each lane whose mark is this one, and rarely in one whose mark is not.
    #[inline(always)]
    fn lanes(&self, mark: u64) -> u64 {
        let differing = self.marks.load(Relaxed) ^ (mark * LANES);
        differing.wrapping_sub(LANES) & !differing & LANES << 15
    }

    fn set_mark(&self, lane: u32, mark: u64) {
        let others = self.marks.load(Relaxed) & !(0xffff << (16 * lane));
        self.marks.store(others | mark << (16 * lane), Relaxed);
    }

    /// The entry to give up for a new one: a void one, or by turns, but one that others lead to only the second time.
    /// Not `spared`.
    #[inline(always)]
    fn victim(&self, spared: Option<u32>) -> u32 {
        let void = self.lanes(0).trailing_zeros() / 16;
        if void < WAYS && Some(void) != spared {
            return void;
        }
        let mut turn = self.turn.load(Relaxed);
        // Whichever it is after having spared all of them.
        let mut lane = 0;
        for _ in 0..=2 * WAYS {
            lane = turn as u32 % WAYS;
            turn = turn & !3 | u64::from((lane + 1) % WAYS);
            let shared = 1 << (2 + lane);
            if Some(lane) == spared {
                continue;
            }
            if turn & shared == 0 {
                break;
            }
            turn &= !shared;
        }
        self.turn.store(turn, Relaxed);
        lane
    }

    fn set_shared(&self, lane: u32, shared: bool) {
        let turn = self.turn.load(Relaxed) & !(1 << (2 + lane));
        self.turn
            .store(turn | u64::from(shared) << (2 + lane), Relaxed);
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

    /// A look at the memo for many frames.
    #[inline(always)]
    pub(super) fn probe(&self) -> Probe {
        let table = self.table();
        Probe {
            first: table.buckets(),
            shift: table.shift(),
        }
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
        let mut lanes = table.bucket(place).lanes(place.mark);
        while lanes != 0 {
            let index = place.index(lanes.trailing_zeros() / 16);
            lanes &= lanes - 1;
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

    /// Whether a stack was walked before, lately. What is seen but once is not worth an entry, which would be another
    /// stack's that comes again.
    #[inline(always)]
    pub(super) fn was_seen(&self, node: u32) -> bool {
        let seen = self.table().seen(node);
        let was = seen.load(Relaxed) == node;
        seen.store(node, Relaxed);
        was
    }

    /// Makes all stacks unknown, but for the numbers of their frames.
    #[cfg(test)]
    pub(super) fn forget(&self) {
        let table = self.table();
        for group in 0..1 << (table.bits - WAYS.trailing_zeros()) {
            let bucket = table.bucket(Place { group, mark: 0 });
            bucket.marks.store(0, Relaxed);
        }
    }

    /// Makes a stack one that was not seen.
    #[cfg(test)]
    pub(super) fn forget_seen(&self, node: u32) {
        self.table().seen(node).store(0, Relaxed);
    }

    /// Notes a walk whose frames have the stack numbers `nodes` (innermost first, as the frames).
    #[inline(never)]
    pub(super) fn note(&self, walk: &Walk, end: End, nodes: &[u32], turn: Turn, generation: u32) {
        let known = match end {
            End::Known(suffix) => Some(suffix),
            _ => None,
        };
        let below = known.map_or(0, |suffix| suffix.frames);
        let cut_by_depth = known.map_or(end == End::Cut(super::Cut::Depth), |it| it.cut_by_depth);
        let frames = walk.frames();
        let mut outer = Outer {
            first: frames.len(),
            link: known.map_or(NO_LINK, |suffix| suffix.link),
            bp: known
                .filter(|suffix| suffix.needs_bp)
                .map(|suffix| suffix.bp),
        };
        let mut forced = false;
        let mut fewest_words = outer.fewest_words(walk);
        for (index, (frame, node)) in frames.iter().zip(nodes).enumerate().rev() {
            // The frame behind an interrupted one may lie on another stack: the entries part there.
            let parts = frame.interrupted()
                || (is_landmark(frame.sp) && outer.first - index >= FEWEST)
                || forced;
            let next = index.checked_sub(1).and_then(|next| frames.get(next));
            let next_fits = next.is_some_and(|next| next.words() >= fewest_words);
            if next_fits && !parts {
                continue;
            }
            let depth = (frames.len() - index + below) as u32;
            let about = About {
                node: *node,
                frames: depth,
                flags: if cut_by_depth { CUT_BY_DEPTH } else { 0 }
                    | if index > 0 { SHARED } else { 0 },
                generation,
            };
            match self.write(walk, index, &outer, &about, turn) {
                Written::Yes(now) => {
                    outer = now;
                    fewest_words = outer.fewest_words(walk);
                    forced = false;
                }
                // Frames inside of it may be self-contained, but only together with it.
                Written::Unfit if next_fits => forced = true,
                Written::Unfit | Written::Lost => return,
            }
        }
    }

    #[inline(always)]
    fn write(
        &self,
        walk: &Walk,
        index: usize,
        outer: &Outer,
        about: &About,
        turn: Turn,
    ) -> Written {
        let Some(frame) = walk.frame(index) else {
            return Written::Lost;
        };
        let table = self.table();
        let place = table.place(frame.ip, frame.sp);
        let bucket = table.bucket(place);
        // The entry that this one is to lead to must stay.
        let is_near = outer.link != NO_LINK && (outer.link.index / WAYS) as usize == place.group;
        let lane = bucket.victim(is_near.then_some(outer.link.index % WAYS));
        let entry = table.entry(place.index(lane));
        let busy = entry.writer.load(Relaxed);
        if busy != 0 && busy != turn.id && self.is_writing(busy) {
            return Written::Lost;
        }
        if about.flags & SHARED == 0 && entry.generation.load(Relaxed) == about.generation {
            self.note_displaced();
        }
        let serial = self.next_serial();
        entry.writer.store(turn.id, Relaxed);
        compiler_fence(SeqCst);
        entry.serial.store(0, Relaxed);
        compiler_fence(SeqCst);
        let Some(needs_bp) = entry.write_words(walk, index, outer) else {
            entry.writer.store(0, Relaxed);
            return Written::Unfit;
        };
        let flags = about.flags
            | if needs_bp.is_some() { NEEDS_BP } else { 0 }
            | if frame.lasting() { LASTING } else { 0 }
            | if frame.interrupted() { INTERRUPTED } else { 0 };
        entry.ip.store(frame.ip, Relaxed);
        entry.sp.store(frame.sp, Relaxed);
        entry.bp.store(needs_bp.unwrap_or(0), Relaxed);
        entry.generation.store(about.generation, Relaxed);
        entry.flags.store(flags, Relaxed);
        entry.mappings.store(walk.mappings, Relaxed);
        entry.node.store(about.node, Relaxed);
        entry.frames.store(about.frames, Relaxed);
        entry.next_index.store(outer.link.index, Relaxed);
        entry.next_serial.store(outer.link.serial, Relaxed);
        compiler_fence(SeqCst);
        // Whoever was robbed of its place (see `Thread::begin`) must not vouch for what it wrote.
        if entry.writer.load(Relaxed) != turn.id || !self.is_writer(turn) {
            return Written::Lost;
        }
        bucket.set_mark(lane, place.mark);
        bucket.set_shared(lane, about.flags & SHARED != 0);
        entry.serial.store(serial, Relaxed);
        compiler_fence(SeqCst);
        entry.writer.store(0, Relaxed);
        Written::Yes(Outer {
            first: index,
            link: Link {
                index: place.index(lane),
                serial,
            },
            bp: needs_bp,
        })
    }

    /// Whether a walk still stands among the writers.
    #[inline(always)]
    pub(super) fn is_writer(&self, turn: Turn) -> bool {
        self.writers
            .get(turn.place)
            .is_some_and(|writer| writer.load(Relaxed) == turn.id)
    }

    fn is_writing(&self, walk: u32) -> bool {
        self.writers
            .iter()
            .any(|writer| writer.load(Relaxed) == walk)
    }

    /// Keeps the number of a frame whose parent this is.
    pub(super) fn keep_number(&self, frame: &Frame, parent: u32, node: u32, generation: u32) {
        let table = self.table();
        let ip = frame.logged_ip();
        let numbers = &table.bucket(table.place(ip, frame.sp)).numbers;
        let free = numbers.iter().find(|place| place.pair.load(Relaxed) == 0);
        if free.is_none() {
            self.note_displaced();
        }
        if let Some(place) = free.or_else(|| numbers.get(node as usize % NUMBERS)) {
            let pair = u64::from(parent) << 32 | u64::from(node);
            place.pair.store(pair, Relaxed);
            place
                .sealed
                .store(Number::seal(ip, generation, pair), Relaxed);
        }
    }

    /// Forgets the numbers of another era.
    #[inline(always)]
    pub(super) fn keep_up(&self) {
        if self.table().era.load(Relaxed) != rule::era() {
            self.forget_numbers();
        }
    }

    #[cold]
    fn forget_numbers(&self) {
        let (table, era) = (self.table(), rule::era());
        for group in 0..1 << (table.bits - WAYS.trailing_zeros()) {
            for number in &table.bucket(Place { group, mark: 0 }).numbers {
                number.sealed.store(0, Relaxed);
                number.pair.store(0, Relaxed);
            }
        }
        table.era.store(era, Relaxed);
    }

    fn note_displaced(&self) {
        self.displaced
            .store(self.displaced.load(Relaxed).wrapping_add(1), Relaxed);
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

/// What an entry says besides its words.
struct About {
    node: u32,
    frames: u32,
    flags: u32,
    generation: u32,
}

/// The entry that the one being made leads to.
struct Outer {
    /// Its first frame.
    first: usize,
    link: Link,
    /// The frame pointer that it needs there.
    bp: Option<usize>,
}

impl Outer {
    /// How many words must have been read before a frame is reached if the entry from there on is to have room for the
    /// others, and for one more.
    fn fewest_words(&self, walk: &Walk) -> usize {
        let to = walk.reached(self.first);
        let to = to.map_or(walk.words().len(), Frame::words);
        (to + 1).saturating_sub(WORDS)
    }
}

/// What became of an entry.
enum Written {
    /// It is there, and the next one leads to it.
    Yes(Outer),
    /// The frames depend on more than an entry can say.
    Unfit,
    /// Somebody else writes it.
    Lost,
}

/// The words of an entry that is being written.
struct Draft<'a> {
    entry: &'a Entry,
    sp: usize,
    /// Where the first frame's frame pointer lies; 0: in no memory.
    inherited: usize,
    needs_bp: Option<usize>,
    count: usize,
}

impl Draft<'_> {
    #[inline(always)]
    fn add(&mut self, (address, value): (usize, usize)) -> Option<()> {
        if address == self.inherited {
            self.needs_bp = Some(value);
            return Some(());
        }
        let offset = u32::try_from(address.checked_sub(self.sp)?).ok()?;
        self.entry.offsets.get(self.count)?.store(offset, Relaxed);
        self.entry.words.get(self.count)?.store(value, Relaxed);
        self.count += 1;
        Some(())
    }
}

impl Entry {
    /// Writes the words on which the frames from `first` up to the outer entry's depend. Answers the frame pointer that
    /// the first one must have, if it matters. `None` when they depend on anything that is neither above the first
    /// one's stack pointer nor its frame pointer, or on too much.
    #[inline(always)]
    fn write_words(&self, walk: &Walk, first: usize, outer: &Outer) -> Option<Option<usize>> {
        let start = walk.frame(first)?;
        let start_bp = start.bp();
        let end = walk.reached(outer.first);
        let to = end.map_or(walk.words().len(), Frame::words);
        let mut draft = Draft {
            entry: self,
            sp: start.sp,
            inherited: match start_bp {
                SavedBp::At(address) => address,
                SavedBp::Is(_) => 0,
            },
            needs_bp: None,
            count: 0,
        };
        for word in walk.words().get(start.words()..to)? {
            draft.add(*word)?;
        }
        if let (Some(bp), Some(end)) = (outer.bp, end) {
            match end.bp() {
                same if same == start_bp => draft.needs_bp = Some(bp),
                SavedBp::At(address) => draft.add((address, bp))?,
                // A signal's saved registers: their words are among those of the entry already.
                SavedBp::Is(_) => {}
            }
        }
        // One in memory was noted when it was used.
        if let SavedBp::Is(value) = start_bp
            && let frames = walk.frames().get(first..outer.first)?
            && frames
                .iter()
                .any(|frame| frame.used_bp() && frame.bp() == start_bp)
        {
            draft.needs_bp = Some(value);
        }
        self.count.store(draft.count as u32, Relaxed);
        Some(draft.needs_bp)
    }
}

const _: () = assert!(LARGEST.is_power_of_two() && SMALLEST.is_power_of_two());

#[cfg(test)]
mod tests {
    use super::{Bucket, LANES, WAYS};

    #[test]
    fn a_mark_is_found_in_each_lane_and_nowhere_else() {
        for lane in 0..WAYS {
            let bucket = Bucket::new();
            bucket.set_mark(lane, 0x1235);
            assert_eq!(bucket.lanes(0x1235).trailing_zeros() / 16, lane);
            assert_eq!(bucket.lanes(0x1237), 0);
            assert_eq!(bucket.lanes(0x8001), 0);
        }
        assert_eq!(Bucket::new().lanes(1), 0);
    }

    #[test]
    fn void_entries_give_way_first_and_shared_ones_last() {
        let bucket = Bucket::new();
        for lane in 0..WAYS {
            assert_eq!(bucket.victim(None), lane);
            bucket.set_mark(lane, 0x77);
            bucket.set_shared(lane, lane < 2);
        }
        assert_eq!(bucket.marks.load(super::Relaxed), 0x77 * LANES);
        assert_eq!(bucket.victim(None), 2);
        assert_eq!(bucket.victim(None), 3);
        // Spared once, and only once.
        assert_eq!(bucket.victim(None), 0);
        assert_eq!(bucket.victim(Some(1)), 2);
        for lane in 0..WAYS {
            assert_ne!(bucket.victim(Some(lane)), lane);
        }
    }
}
