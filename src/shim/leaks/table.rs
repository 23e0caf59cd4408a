//! The table of live blocks: address to size, stack and generation. Lock-free and signal-safe.
//!
//! Memory is cut into granules of 128 bytes; each has a node of 16 bytes in a table that three levels of the address
//! lead to and of which only touched pages exist. Where more than one block begins in a granule, further nodes hang on
//! the first. A node stays with its granule: when its block is freed the next block of the granule takes it. So nothing
//! is ever moved, there is no growing that writers could collide with, most blocks cost one cache line to find, and
//! 10 million blocks of 107 bytes take 18.5 bytes each.
//!
//! No pointer to a block stands here, only its place inside its granule: other leak checkers can't take the table for
//! a reference. An address belongs to one thread at a time, so only the taking of an empty node is a
//! compare-exchange; giving it back is a store.

use crate::{alone, memory, x86_64};
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering::*};

/// Bits of an address that the table knows: the user half without 5-level paging.
const ADDRESS_BITS: u32 = 47;
/// Granules of a leaf: it covers 32 MiB of blocks' addresses, in the finest table.
const LEAF: usize = 1 << 18;
const MIDDLE: usize = 1 << 11;
const TOP: usize = 1 << 11;
/// Places inside a granule.
const PLACE_BITS: u32 = 5;

const SIZE_BITS: u32 = 47;
const SIZE_MASK: u64 = (1 << SIZE_BITS) - 1;
const PLACE_SHIFT: u32 = SIZE_BITS;
const PLACE_MASK: u64 = (1 << PLACE_BITS) - 1;
const GENERATION_SHIFT: u32 = PLACE_SHIFT + PLACE_BITS;
/// The last generation; more than 1023 marks and forks share it.
pub(crate) const LAST_GENERATION: u32 = (1 << 10) - 1;
const BUSY: u64 = 1 << 62;
const LIVE: u64 = 2 << 62;
const STATE_MASK: u64 = 3 << 62;

/// One block. `word` 0: empty; else state, generation, place in the granule and size, in this order from the top.
struct Node {
    next: AtomicU32,
    stack: AtomicU32,
    word: AtomicU64,
}

type Leaf = [Node; LEAF];
type Middle = [AtomicPtr<Leaf>; MIDDLE];

/// What the table knows of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Bytes asked for.
    pub(crate) size: usize,
    /// Number of the call stack, 0 without one.
    pub(crate) stack: u32,
    /// The generation in which it was allocated: moved on by each mark and each fork.
    pub(crate) generation: u32,
}

/// A block whose realloc is under way: neither gone nor certain. Given back to [`Table::moved`] or [`Table::kept`].
#[must_use]
#[derive(Default)]
pub(crate) struct Moving(Option<Busy>);

/// Node and address of a block that moves, and the node's word meanwhile.
struct Busy {
    node: &'static Node,
    address: usize,
    word: u64,
}

/// A table of things that have an address, a size and a stack.
///
/// `SHIFT` is the logarithm of the granule: 7 for heap blocks (places of 4 bytes), 17 for mappings (places of a page).
pub(crate) struct Table<const SHIFT: u32> {
    top: [AtomicPtr<Middle>; TOP],
    pool: Pool,
    lost: AtomicU64,
}

/// Nodes by number, in chunks. Number 0 is no node.
struct Pool {
    chunks: [AtomicPtr<Node>; CHUNKS],
    /// How many numbers belong to cursors; the first of all is [`RUN`].
    taken: AtomicU32,
    /// Next free number of each stripe of 64 MiB of addresses, so that threads with arenas of their own share no
    /// cache line.
    cursors: [AtomicU32; STRIPES],
}

const STRIPES: usize = 64;
/// Nodes that a cursor takes at once: a page.
const RUN: u32 = 256;
/// Nodes of a chunk: 8 MiB, of which only touched pages exist.
const CHUNK: usize = 1 << 19;
const CHUNKS: usize = (1 << 32) / CHUNK;

impl Pool {
    const fn new() -> Pool {
        Pool {
            chunks: [const { AtomicPtr::new(null_mut()) }; CHUNKS],
            taken: AtomicU32::new(0),
            cursors: [const { AtomicU32::new(0) }; STRIPES],
        }
    }

    #[inline(always)]
    fn node(&self, number: u32) -> Option<&'static Node> {
        let number = number as usize;
        let chunk = self.chunks.get(number / CHUNK)?.load(Acquire);
        if chunk.is_null() {
            return None;
        }
        // SAFETY: a chunk has memory for `CHUNK` nodes, it is never unmapped, and zeroed memory is a valid node.
        Some(unsafe { &*chunk.add(number % CHUNK) })
    }

    /// A number nobody has, with its node.
    #[cold]
    fn fresh(&self, address: usize) -> Option<(u32, &'static Node)> {
        let cursor = self.cursors.get((address >> 26) % STRIPES)?;
        let mut now = cursor.load(Relaxed);
        loop {
            let (number, after) = if now % RUN == 0 {
                let more = |taken: u32| taken.checked_add(2 * RUN).map(|_| taken + RUN);
                let run = RUN + self.taken.fetch_update(Relaxed, Relaxed, more).ok()?;
                (run, run + 1)
            } else {
                (now, now + 1)
            };
            match cursor.compare_exchange(now, after, Relaxed, Relaxed) {
                Ok(_) => return Some((number, self.node(number).or_else(|| self.grow(number))?)),
                Err(other) => now = other,
            }
        }
    }

    fn grow(&self, number: u32) -> Option<&'static Node> {
        let chunk = number as usize / CHUNK;
        let slot = self.chunks.get(chunk)?;
        install(slot, CHUNK * size_of::<Node>(), chunk > 0)?;
        self.node(number)
    }
}

/// How far ahead of a walk over the table memory is fetched, in bytes.
const AHEAD: usize = 2048;

/// Maps zeroed pages for an empty slot; a quicker thread's pages win. `huge`: they are sure to be filled, so huge pages
/// mean fewer faults, and less to copy at a fork.
#[cold]
fn install<T>(slot: &AtomicPtr<T>, bytes: usize, huge: bool) -> Option<&'static T> {
    let pages = memory::map_pages(bytes.next_multiple_of(4096))?.cast::<T>();
    if huge {
        // SAFETY: the range was mapped just now; without huge pages it works as well.
        let _ = unsafe { crate::sys::madvise(pages.as_ptr().cast(), bytes, libc::MADV_HUGEPAGE) };
    }
    let won = match slot.compare_exchange(null_mut(), pages.as_ptr(), AcqRel, Acquire) {
        Ok(_) => pages.as_ptr(),
        Err(quicker) => {
            memory::unmap_pages(pages.cast(), bytes.next_multiple_of(4096));
            quicker
        }
    };
    // SAFETY: published pages hold at least one zeroed `T` of atomics and are never unmapped.
    Some(unsafe { &*won })
}

/// Replaces a word by `new` if it is `old`; answers whether it did.
#[inline(always)]
fn replace(word: &AtomicU64, old: u64, new: u64) -> bool {
    if alone::is_alone() {
        // SAFETY: the word is valid, and there is no other thread.
        return unsafe { x86_64::replace_local(word.as_ptr(), old, new) };
    }
    word.compare_exchange(old, new, AcqRel, Relaxed).is_ok()
}

impl<const SHIFT: u32> Table<SHIFT> {
    /// An empty table; it maps its first pages with the first block.
    pub(crate) const fn new() -> Self {
        Table {
            top: [const { AtomicPtr::new(null_mut()) }; TOP],
            pool: Pool::new(),
            lost: AtomicU64::new(0),
        }
    }

    /// Blocks that could not be noted, for want of memory: a verdict without them is none.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }

    /// Logarithm of the bytes that a leaf covers.
    pub(super) const LEAF_SHIFT: u32 = SHIFT + LEAF.ilog2();
    const TOP_SHIFT: u32 = Self::LEAF_SHIFT + MIDDLE.ilog2();

    #[inline(always)]
    fn place(address: usize) -> u64 {
        (address >> (SHIFT - PLACE_BITS)) as u64 & PLACE_MASK
    }

    /// A node's word for a block, without its state.
    #[inline(always)]
    fn word(address: usize, entry: Entry) -> u64 {
        Self::place(address) << PLACE_SHIFT
            | (entry.size as u64).min(SIZE_MASK)
            | u64::from(entry.generation.min(LAST_GENERATION)) << GENERATION_SHIFT
    }

    /// The first node of an address's granule.
    #[inline(always)]
    fn first(&self, address: usize) -> Option<&'static Node> {
        let middle = self.top.get(address >> Self::TOP_SHIFT)?.load(Acquire);
        if middle.is_null() {
            return None;
        }
        // SAFETY: published levels are zeroed memory of atomics and never unmapped.
        let middle = unsafe { &*middle };
        let leaf = middle
            .get((address >> Self::LEAF_SHIFT) % MIDDLE)?
            .load(Acquire);
        if leaf.is_null() {
            return None;
        }
        // SAFETY: as above.
        unsafe { &*leaf }.get((address >> SHIFT) % LEAF)
    }

    #[cold]
    fn make_first(&self, address: usize) -> Option<&'static Node> {
        if address >> ADDRESS_BITS > 0 {
            return None;
        }
        let slot = self.top.get(address >> Self::TOP_SHIFT)?;
        if slot.load(Acquire).is_null() {
            install(slot, size_of::<Middle>(), false)?;
        }
        // SAFETY: published levels are zeroed memory of atomics and never unmapped.
        let middle = unsafe { &*slot.load(Acquire) };
        let slot = middle.get((address >> Self::LEAF_SHIFT) % MIDDLE)?;
        if slot.load(Acquire).is_null() {
            install(slot, size_of::<Leaf>(), false)?;
        }
        self.first(address)
    }

    /// Notes a block that the caller was given just now.
    ///
    /// An older entry of the same address (its free was never seen) is overwritten.
    #[inline]
    pub(crate) fn insert(&self, address: usize, entry: Entry) {
        if address == 0 {
            return;
        }
        let first = self.first(address).or_else(|| self.make_first(address));
        let noted = first.and_then(|first| self.insert_behind(first, address, entry));
        if noted.is_none() {
            self.lost.fetch_add(1, Relaxed);
        }
    }

    #[inline(always)]
    fn insert_behind(&self, first: &'static Node, address: usize, entry: Entry) -> Option<()> {
        let place = Self::place(address) << PLACE_SHIFT;
        let full = Self::word(address, entry);
        loop {
            let mut node = first;
            let mut empty = None;
            let mut stale = None;
            loop {
                let word = node.word.load(Relaxed);
                if word == 0 {
                    empty = empty.or(Some(node));
                } else if word & (STATE_MASK | PLACE_MASK << PLACE_SHIFT) == LIVE | place {
                    stale = Some(node);
                }
                match node.next.load(Acquire) {
                    0 => break,
                    number => node = self.pool.node(number)?,
                }
            }
            if let Some(node) = stale {
                node.stack.store(entry.stack, Relaxed);
                node.word.store(full | LIVE, Release);
                return Some(());
            }
            let Some(node) = empty else {
                return self.hang_on(first, address, entry.stack, full | LIVE);
            };
            if replace(&node.word, 0, full | BUSY) {
                node.stack.store(entry.stack, Relaxed);
                node.word.store(full | LIVE, Release);
                return Some(());
            }
        }
    }

    #[cold]
    fn hang_on(&self, first: &Node, address: usize, stack: u32, word: u64) -> Option<()> {
        let (number, node) = self.pool.fresh(address)?;
        node.stack.store(stack, Relaxed);
        node.word.store(word, Relaxed);
        let mut next = first.next.load(Acquire);
        loop {
            node.next.store(next, Relaxed);
            match first.next.compare_exchange(next, number, AcqRel, Acquire) {
                Ok(_) => return Some(()),
                Err(other) => next = other,
            }
        }
    }

    /// The live node of an address; else one that was begun and never finished.
    #[inline(always)]
    fn find(&self, address: usize) -> Option<(&'static Node, u64)> {
        let place = Self::place(address) << PLACE_SHIFT;
        let mut node = self.first(address)?;
        let mut abandoned = None;
        loop {
            let word = node.word.load(Relaxed);
            if word & PLACE_MASK << PLACE_SHIFT == place {
                match word & STATE_MASK {
                    LIVE => return Some((node, word)),
                    BUSY => abandoned = Some((node, word)),
                    _ => {}
                }
            }
            match node.next.load(Acquire) {
                0 => return abandoned,
                number => node = self.pool.node(number)?,
            }
        }
    }

    /// Strikes a block off, before it is freed. `None`: it was never noted.
    #[inline]
    pub(crate) fn remove(&self, address: usize) -> Option<Entry> {
        let (node, word) = self.find(address)?;
        let entry = entry(node, word);
        node.word.store(0, Release);
        Some(entry)
    }

    /// Marks a block as being moved, before its realloc.
    #[inline]
    pub(crate) fn moving(&self, address: usize) -> Moving {
        Moving(self.find(address).map(|(node, word)| {
            let word = word & !STATE_MASK | BUSY;
            node.word.store(word, Relaxed);
            Busy {
                node,
                address,
                word,
            }
        }))
    }

    /// The realloc failed: the block stays what it was.
    #[inline]
    pub(crate) fn kept(&self, moving: Moving) {
        if let Some(busy) = moving.0 {
            let live = busy.word & !STATE_MASK | LIVE;
            replace(&busy.node.word, busy.word, live);
        }
    }

    /// The realloc answered `address` (0: it only freed).
    #[inline]
    pub(crate) fn moved(&self, moving: Moving, address: usize, entry: Entry) {
        let Some(Busy {
            node,
            address: old,
            word,
        }) = moving.0
        else {
            return self.insert(address, entry);
        };
        // A realloc inside this one (a reallocarray's) may have settled it already.
        if address == old && node.word.load(Relaxed) == word {
            node.stack.store(entry.stack, Relaxed);
            if replace(&node.word, word, Self::word(address, entry) | LIVE) {
                return;
            }
        }
        self.insert(address, entry);
        replace(&node.word, word, 0);
    }

    /// Calls `visit` with each block in ascending order of addresses. Blocks of calls under way are counted in the
    /// answer and not visited.
    ///
    /// `touched` says whether any of the page at an address can be other than zero; untouched ones are skipped. For a
    /// table at rest: of a table in use it shows each block that stays, and some of the others.
    pub(crate) fn each(
        &self,
        mut touched: impl FnMut(usize) -> bool,
        mut visit: impl FnMut(usize, Entry),
    ) -> usize {
        const PER_PAGE: usize = 4096 / size_of::<Node>();
        let mut under_way = 0;
        for (top, middle) in self.top.iter().enumerate() {
            let middle = middle.load(Acquire);
            if middle.is_null() {
                continue;
            }
            // SAFETY: published levels are zeroed memory of atomics and never unmapped.
            for (at, leaf) in unsafe { &*middle }.iter().enumerate() {
                let leaf = leaf.load(Acquire);
                if leaf.is_null() {
                    continue;
                }
                let base = (top << Self::TOP_SHIFT) + (at << Self::LEAF_SHIFT);
                // SAFETY: as above.
                let pages = unsafe { &*leaf }.chunks(PER_PAGE).enumerate();
                for (page, nodes) in pages {
                    if !touched(nodes.as_ptr() as usize) {
                        continue;
                    }
                    for (i, node) in nodes.iter().enumerate() {
                        let granule = base + ((page * PER_PAGE + i) << SHIFT);
                        x86_64::fetch(core::ptr::from_ref(node).addr() + AHEAD);
                        under_way += self.each_of(granule, node, &mut visit);
                    }
                }
            }
        }
        under_way
    }

    /// Calls `visit` with each block of a granule in ascending order.
    #[inline(always)]
    fn each_of(&self, granule: usize, first: &Node, visit: &mut impl FnMut(usize, Entry)) -> usize {
        let Some(second) = self.behind(first) else {
            return self.visit(granule, first, visit);
        };
        let place = |node: &Node| node.word.load(Relaxed) >> PLACE_SHIFT & PLACE_MASK;
        if second.next.load(Acquire) != 0 || place(first) == place(second) {
            return self.each_of_several(granule, first, visit);
        }
        let (lower, upper) = if place(first) < place(second) {
            (first, second)
        } else {
            (second, first)
        };
        self.visit(granule, lower, visit) + self.visit(granule, upper, visit)
    }

    /// Calls `visit` with a node's block, if it is live; answers how many calls are under way with it.
    #[inline(always)]
    fn visit(&self, granule: usize, node: &Node, visit: &mut impl FnMut(usize, Entry)) -> usize {
        let word = node.word.load(Acquire);
        if word & STATE_MASK == LIVE {
            let place = (word >> PLACE_SHIFT & PLACE_MASK) as usize;
            visit(granule + (place << (SHIFT - PLACE_BITS)), entry(node, word));
        }
        usize::from(word & STATE_MASK == BUSY)
    }

    /// The node that hangs on another.
    #[inline(always)]
    fn behind(&self, node: &Node) -> Option<&'static Node> {
        match node.next.load(Acquire) {
            0 => None,
            number => self.pool.node(number),
        }
    }

    fn each_of_several<'a>(
        &self,
        granule: usize,
        first: &'a Node,
        visit: &mut impl FnMut(usize, Entry),
    ) -> usize {
        let mut nodes: [Option<&'a Node>; 1 << PLACE_BITS] = [None; 1 << PLACE_BITS];
        let mut places = 0u32;
        let mut under_way = 0;
        let mut next = Some(first);
        while let Some(node) = next {
            let word = node.word.load(Acquire);
            match word & STATE_MASK {
                LIVE => {
                    let place = (word >> PLACE_SHIFT & PLACE_MASK) as usize;
                    if let Some(slot) = nodes.get_mut(place) {
                        *slot = Some(node);
                    }
                    places |= 1 << place;
                }
                BUSY => under_way += 1,
                _ => {}
            }
            next = self.behind(node);
        }
        while places != 0 {
            let place = places.trailing_zeros() as usize;
            places &= places - 1;
            if let Some(node) = nodes.get(place).copied().flatten() {
                let word = node.word.load(Relaxed);
                let at = granule + (place << (SHIFT - PLACE_BITS));
                visit(at, entry(node, word));
            }
        }
        under_way
    }

    /// The entry with the greatest address below `address` and not below `floor`.
    ///
    /// For the table of mappings: with many empty granules in between it takes long.
    pub(super) fn below(&self, address: usize, floor: usize) -> Option<(usize, Entry)> {
        let granules = 1usize << (Self::LEAF_SHIFT - SHIFT);
        let mut granule = address.checked_sub(1)? >> SHIFT;
        while granule >= floor >> SHIFT {
            match self.first(granule << SHIFT) {
                Some(first) => {
                    let mut last = None;
                    self.each_of(granule << SHIFT, first, &mut |at, entry| {
                        if at >= floor && at < address {
                            last = Some((at, entry));
                        }
                    });
                    if last.is_some() {
                        return last;
                    }
                    granule = granule.checked_sub(1)?;
                }
                // No leaf: go on at the end of the one before.
                None => granule = (granule & !(granules - 1)).checked_sub(1)?,
            }
        }
        None
    }

    /// An upper bound of the number of blocks.
    pub(super) fn bound(&self) -> usize {
        self.pool.taken.load(Relaxed) as usize + self.leaves() * LEAF
    }

    /// How many stretches of 2^[`Self::LEAF_SHIFT`] bytes blocks have begun in.
    pub(super) fn leaves(&self) -> usize {
        let middles = self.top.iter().map(|middle| middle.load(Acquire));
        middles
            .filter(|middle| !middle.is_null())
            .map(|middle| {
                // SAFETY: published levels are zeroed memory of atomics and never unmapped.
                let leaves = unsafe { &*middle }.iter();
                leaves.filter(|leaf| !leaf.load(Acquire).is_null()).count()
            })
            .sum()
    }
}

#[inline(always)]
fn entry(node: &Node, word: u64) -> Entry {
    Entry {
        size: (word & SIZE_MASK) as usize,
        stack: node.stack.load(Relaxed),
        generation: (word >> GENERATION_SHIFT) as u32 & LAST_GENERATION,
    }
}

#[cfg(test)]
mod tests {
    use super::{Entry, LEAF, Node, Table};
    use std::collections::BTreeMap;

    fn block(size: usize, stack: u32) -> Entry {
        Entry {
            size,
            stack,
            generation: 0,
        }
    }

    fn contents<const SHIFT: u32>(table: &Table<SHIFT>) -> Vec<(usize, Entry)> {
        let mut all = Vec::new();
        table.each(|_| true, |at, entry| all.push((at, entry)));
        all
    }

    #[test]
    fn a_random_history_leaves_what_a_map_holds_in_ascending_order() {
        static TABLE: Table<7> = Table::new();
        let mut truth = BTreeMap::new();
        let mut seed = 1u64;
        for i in 0..200_000u32 {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1);
            let at = 0x5500_0000_0000 + (seed >> 33) as usize % 20_000 * 16;
            let entry = Entry {
                size: (seed >> 20) as usize % 1000,
                stack: i,
                generation: i % 1024,
            };
            if let std::collections::btree_map::Entry::Vacant(e) = truth.entry(at) {
                TABLE.insert(at, entry);
                e.insert(entry);
            } else {
                assert_eq!(TABLE.remove(at), truth.remove(&at));
            }
        }
        assert_eq!(contents(&TABLE), truth.into_iter().collect::<Vec<_>>());
        assert_eq!(TABLE.lost(), 0);
    }

    #[test]
    fn a_block_costs_at_most_48_bytes_even_at_the_smallest_size() {
        static TABLE: Table<7> = Table::new();
        for i in 0..100_000 {
            TABLE.insert(0x10_0000 + i * 32, block(24, 1));
        }
        for i in 0..100_000 {
            TABLE.remove(0x10_0000 + i * 32);
            TABLE.insert(0x10_0000 + i * 32, block(24, 1));
        }
        let first = 100_000 * 32 / 128;
        let further = TABLE.bound() - TABLE.leaves() * LEAF;
        assert!((first + further) * size_of::<Node>() < 100_000 * 20);
    }

    #[test]
    fn an_address_whose_free_was_not_seen_is_overwritten() {
        static TABLE: Table<7> = Table::new();
        TABLE.insert(0x1000, block(10, 1));
        TABLE.insert(0x1000, block(20, 2));
        assert_eq!(contents(&TABLE), [(0x1000, block(20, 2))]);
        assert_eq!(TABLE.remove(0x1000), Some(block(20, 2)));
        assert_eq!(TABLE.remove(0x1000), None);
    }

    #[test]
    fn while_a_block_moves_its_old_address_can_be_anothers() {
        static TABLE: Table<7> = Table::new();
        TABLE.insert(0x1000, block(10, 1));
        let moving = TABLE.moving(0x1000);
        TABLE.insert(0x1000, block(11, 2));
        assert_eq!(TABLE.remove(0x1000), Some(block(11, 2)));
        TABLE.insert(0x1000, block(12, 3));
        assert_eq!(TABLE.each(|_| true, |_, _| ()), 1, "one call is under way");
        TABLE.moved(moving, 0x2000, block(20, 4));
        let both = [(0x1000, block(12, 3)), (0x2000, block(20, 4))];
        assert_eq!(contents(&TABLE), both);
    }

    #[test]
    fn a_realloc_that_stays_where_it_was_changes_the_block() {
        static TABLE: Table<7> = Table::new();
        TABLE.insert(0x1000, block(10, 1));
        TABLE.insert(0x1010, block(11, 2));
        let moving = TABLE.moving(0x1000);
        TABLE.moved(moving, 0x1000, block(12, 3));
        let both = [(0x1000, block(12, 3)), (0x1010, block(11, 2))];
        assert_eq!(contents(&TABLE), both);
        assert_eq!(TABLE.each(|_| true, |_, _| ()), 0);
    }

    #[test]
    fn a_failed_realloc_leaves_the_block() {
        static TABLE: Table<7> = Table::new();
        TABLE.insert(0x1000, block(10, 1));
        let moving = TABLE.moving(0x1000);
        TABLE.kept(moving);
        assert_eq!(contents(&TABLE), [(0x1000, block(10, 1))]);
    }

    #[test]
    fn addresses_beyond_47_bits_are_counted_as_lost() {
        static TABLE: Table<7> = Table::new();
        TABLE.insert(1 << 50, block(1, 1));
        assert_eq!(TABLE.lost(), 1);
        assert_eq!(TABLE.remove(1 << 50), None);
    }

    #[test]
    fn threads_that_hand_addresses_round_never_lose_one() {
        static TABLE: Table<7> = Table::new();
        std::thread::scope(|scope| {
            for thread in 0..4usize {
                scope.spawn(move || {
                    for round in 0..20_000usize {
                        let at = 0x4000_0000 + (round % 64 * 4 + thread) * 16;
                        TABLE.insert(at, block(round, thread as u32));
                        assert_eq!(TABLE.remove(at), Some(block(round, thread as u32)));
                    }
                    TABLE.insert(0x4000_0000 + thread * 16, block(thread, 9));
                });
            }
        });
        let want: Vec<_> = (0..4)
            .map(|thread| (0x4000_0000 + thread * 16, block(thread, 9)))
            .collect();
        assert_eq!(contents(&TABLE), want);
    }
}
