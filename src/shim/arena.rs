//! The heaps of glibc's arenas: which of them the log knows, and whose blocks lie in them. Hook-safe.
//!
//! # Whose blocks
//! The order of two threads' events is that of their times. A processor may read its counter ahead of a load that comes
//! before it, and so a thread that has just been handed a block could give its release a time before the block's own
//! malloc. A fence prevents it and costs as much as the rest of the event (lfence: 17 ns). It is not needed as long as every
//! event of a heap's blocks was the same thread's: that one is in order with itself.
//!
//! So each heap has the number of the thread that had its first event, until another has one: it marks the heap, for good,
//! before it hands the block on or frees it. Whoever gets that block afterwards reads the mark after the block's address
//! (x86 keeps the order of loads, and of stores), and from then on everybody takes the fence.

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering::*};

/// Size and alignment of a thread arena's heap.
const HEAP_SIZE: usize = 64 << 20;

/// No thread in particular: the number of one that has none, and the user of a heap whose blocks several have had.
pub(crate) const NOBODY: u64 = u64::MAX;

/// A heap of a thread's arena.
struct Heap {
    /// Its address; 0: the entry is free.
    base: AtomicUsize,
    /// Its size, as the log has it.
    size: AtomicUsize,
    /// The thread whose blocks alone lie in it; 0 until that is known; [`NOBODY`].
    user: AtomicU64,
}

/// Heaps that the log knows of. A heap that finds no entry is not reported, and counts as several threads'.
static HEAPS: [Heap; 1024] = [const {
    Heap {
        base: AtomicUsize::new(0),
        size: AtomicUsize::new(0),
        user: AtomicU64::new(0),
    }
}; 1024];

/// The user of the main arena: the image's first thread, which may have had blocks of it before anybody asked.
static MAIN_USER: AtomicU64 = AtomicU64::new(1);

/// Forgets every heap (a new image).
pub(crate) fn forget() {
    for heap in &HEAPS {
        heap.base.store(0, Relaxed);
        heap.size.store(0, Relaxed);
        heap.user.store(0, Relaxed);
    }
    MAIN_USER.store(1, Relaxed);
}

/// The heap of a thread's arena in which a block lies.
#[inline(always)]
pub(crate) fn heap_of(block: usize) -> usize {
    block & !(HEAP_SIZE - 1)
}

/// Where a heap's entry is, unless another heap's has that place.
#[inline(always)]
fn first_place(base: usize) -> &'static Heap {
    &HEAPS[place(base)]
}

#[inline(always)]
fn place(base: usize) -> usize {
    (base / HEAP_SIZE).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54
}

/// Whether the log has a heap with that size.
#[inline(always)]
pub(crate) fn is_known(base: usize, size: usize) -> bool {
    let heap = first_place(base);
    heap.base.load(Relaxed) == base && heap.size.load(Relaxed) == size
}

/// Whether none but thread `stream` has had blocks of a heap. If it is another one's, it is several threads' from here on.
/// Of [`NOBODY`] the answer means nothing.
#[inline(always)]
pub(crate) fn is_of_one(base: usize, stream: u64) -> bool {
    let heap = first_place(base);
    heap.base.load(Relaxed) == base && is_user(&heap.user, stream)
}

/// The same of the main arena.
#[inline(always)]
pub(crate) fn is_main_of_one(stream: u64) -> bool {
    is_user(&MAIN_USER, stream)
}

#[inline(always)]
fn is_user(user: &AtomicU64, stream: u64) -> bool {
    let known = user.load(Relaxed);
    if known == stream {
        return true;
    }
    if known != NOBODY {
        user.store(NOBODY, Relaxed);
    }
    false
}

/// Notes a heap's size, met by thread `stream`. Answers the size that the log had, 0 for a new one; `None` if that is the
/// size, or another thread has noted it, or there is no entry to be had.
pub(crate) fn note(base: usize, size: usize, stream: u64) -> Option<usize> {
    let heap = entry(base)?;
    let _ = heap.user.compare_exchange(0, stream, Relaxed, Relaxed);
    is_user(&heap.user, stream);
    let before = heap.size.load(Relaxed);
    let is_new = before != size;
    let noted = || heap.size.compare_exchange(before, size, Relaxed, Relaxed);
    (is_new && noted().is_ok()).then_some(before)
}

fn entry(base: usize) -> Option<&'static Heap> {
    for step in 0..16 {
        let heap = HEAPS.get((place(base) + step) % HEAPS.len())?;
        match heap.base.load(Relaxed) {
            found if found == base => return Some(heap),
            0 => match heap.base.compare_exchange(0, base, Relaxed, Relaxed) {
                Ok(_) => return Some(heap),
                Err(found) if found == base => return Some(heap),
                Err(_) => {}
            },
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heap_is_of_one_until_another_thread_has_a_block_of_it_and_never_again() {
        let base = 0x7654 * HEAP_SIZE;
        assert!(!is_of_one(base, 3), "nobody knows it");
        assert_eq!(note(base, 4096, 3), Some(0));
        assert!(is_known(base, 4096) && !is_known(base, 8192));
        assert!(is_of_one(base, 3) && is_of_one(base, 3));
        assert_eq!(note(base, 8192, 3), Some(4096), "grown");
        assert_eq!(note(base, 8192, 3), None, "known");
        assert!(is_of_one(base, 3));
        assert!(!is_of_one(base, 4), "another thread");
        assert!(!is_of_one(base, 3) && !is_of_one(base, 4));
    }

    #[test]
    fn a_heap_that_a_second_thread_notes_is_of_several() {
        let base = 0x7655 * HEAP_SIZE;
        assert_eq!(note(base, 4096, 5), Some(0));
        assert_eq!(note(base, 8192, 6), Some(4096));
        assert!(!is_of_one(base, 5) && !is_of_one(base, 6));
    }

    #[test]
    fn a_heap_that_a_thread_without_a_number_met_is_of_nobody_that_has_one() {
        let base = 0x7656 * HEAP_SIZE;
        assert_eq!(note(base, 4096, NOBODY), Some(0));
        assert!(!is_of_one(base, 7));
    }
}
