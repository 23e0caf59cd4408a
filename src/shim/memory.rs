//! The shim's own memory: a bump over pages that it mapped itself, never freed.
//!
//! Nothing here touches the host's heap. Used at start, for a new thread, a new module, a new stack; never for an
//! event. Lock-free: a chunk is claimed by one compare-exchange, so signals, threads and forks can't get stuck.

use crate::{image, sys};
use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::ptr::{NonNull, null_mut};
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering::*};

const CHUNK: usize = 256 * 1024;
/// Length of the first chunk, which most processes do not use up: it is part of the library, not a mapping more that is
/// made, copied by each fork and listed in each snapshot.
const FIRST: usize = 64 * 1024;

/// Flags for mmap(2): private zeroed memory that costs nothing until it is used.
pub(crate) const ZEROED: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;

/// Flag for mmap(2): no huge pages (Linux 6.7; before that, it means nothing).
pub(crate) const NO_HUGE_PAGES: i32 = libc::MAP_STACK;

/// A chunk: where it is, its length, and what is used of it.
struct Chunk {
    used: AtomicUsize,
    start: *mut u8,
    len: usize,
}

// SAFETY: all but the counter stays as it is, and the counter gives every byte to one caller.
unsafe impl Sync for Chunk {}

struct Room(UnsafeCell<[u8; FIRST]>);

// SAFETY: the chunk's counter gives every byte to one caller.
unsafe impl Sync for Room {}

static ROOM: Room = Room(UnsafeCell::new([0; FIRST]));
static FIRST_CHUNK: Chunk = Chunk {
    used: AtomicUsize::new(0),
    start: ROOM.0.get().cast(),
    len: FIRST,
};
static CURRENT: AtomicPtr<Chunk> = AtomicPtr::new((&raw const FIRST_CHUNK).cast_mut());
static MAPPED: AtomicUsize = AtomicUsize::new(0);

/// Ranges that the shim has mapped for itself, as start and end, without a gap; start and end 1: given back. What finds
/// no room is not known as own.
static OWN: [[AtomicUsize; 2]; MAX_OWN] = [const { [const { AtomicUsize::new(0) }; 2] }; MAX_OWN];

/// How many ranges [`own_ranges`] names at most.
pub(crate) const MAX_OWN: usize = 4096;

/// Bytes of mappings that are being made or given back: there already or still, and not in [`OWN`].
static MAKING: AtomicUsize = AtomicUsize::new(0);

/// Where mappings that stay go next, and where that place ends: above the loader and below where the stack may grow to,
/// where the kernel puts nothing by itself. 0: wherever the kernel likes.
static PLACE: AtomicUsize = AtomicUsize::new(0);
static PLACE_END: AtomicUsize = AtomicUsize::new(0);

/// Room above the loader's first byte for its own pages and the kernel's beside it.
const ABOVE_LOADER: usize = 16 << 20;
/// Bytes that are left to the stack even where its limit is lower: programs raise it for themselves.
const STACK_ROOM: usize = 64 << 20;
/// Bytes between the place and where the stack may end.
const STACK_GAP: usize = 32 << 20;

/// Chooses the place for mappings that stay, from the address of the loader, the one at which the stack began, and
/// RLIMIT_STACK.
///
/// The kernel fills the address space from the loader downward, so that a mapping of ours could come to lie in a hole
/// that the program left between its own mappings; and a program may give back all of such a range by one munmap. With
/// an unlimited stack the kernel fills it upward, and there is no such place.
pub(crate) fn choose_place(loader: usize, stack: usize, stack_limit: u64) {
    let room = usize::try_from(stack_limit)
        .ok()
        .map(|limit| limit.max(STACK_ROOM));
    let end = room.and_then(|room| stack.checked_sub(room)?.checked_sub(STACK_GAP));
    if loader != 0
        && let Some(end) = end
    {
        PLACE_END.store(end & !4095, Relaxed);
        PLACE.store((loader + ABOVE_LOADER) & !4095, Release);
    }
}

/// Maps `len` zeroed bytes, or bytes of a file, that stay, and notes them as the shim's.
pub(crate) fn map_to_stay(len: usize, flags: i32, fd: i32, offset: u64) -> sys::Result<*mut u8> {
    let place = match PLACE.load(Acquire) {
        0 => 0,
        _ => PLACE.fetch_add(len.next_multiple_of(4096), AcqRel),
    };
    let fits = place.saturating_add(len) <= PLACE_END.load(Relaxed);
    map_near(if fits { place } else { 0 }, len, flags, fd, offset)
}

/// The same for what is given back soon.
pub(crate) fn map_own(len: usize, flags: i32, fd: i32, offset: u64) -> sys::Result<*mut u8> {
    map_near(0, len, flags, fd, offset)
}

fn map_near(place: usize, len: usize, flags: i32, fd: i32, offset: u64) -> sys::Result<*mut u8> {
    MAKING.fetch_add(len, SeqCst);
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: an address without MAP_FIXED is a wish: nothing existing is touched.
    let at = unsafe { sys::mmap(place, len, prot, flags, fd, offset) };
    if let Ok(at) = at {
        note_own(at as usize, len);
    }
    MAKING.fetch_sub(len, SeqCst);
    at
}

/// Gives back what [`map_own`] or [`map_to_stay`] mapped. Nothing may borrow it any more.
pub(crate) fn unmap_own(at: *mut u8, len: usize) {
    MAKING.fetch_add(len, SeqCst);
    // Before it is unmapped: the next mapping there may be the host's.
    forget_own(at as usize);
    // SAFETY: the caller's to give back.
    unsafe { sys::munmap(at, len) };
    MAKING.fetch_sub(len, SeqCst);
}

/// Bytes of the shim's mappings that [`own_ranges`] may not name: another thread is making them or gives them back.
pub(crate) fn in_the_making() -> usize {
    MAKING.load(SeqCst)
}

/// A forked child has none of the threads that were making something.
pub(crate) fn forget_the_making() {
    MAKING.store(0, SeqCst);
}

/// Notes a range that the shim mapped and keeps.
fn note_own(at: usize, len: usize) {
    for [start, end] in &OWN {
        for free in [0, 1] {
            if start.load(Relaxed) == free
                && start.compare_exchange(free, at, AcqRel, Relaxed).is_ok()
            {
                end.store(at + len, Release);
                return;
            }
        }
    }
}

fn forget_own(at: usize) {
    for [start, end] in &OWN {
        if start.load(Acquire) == at {
            end.store(1, Release);
            start.store(1, Release);
            return;
        }
    }
}

/// Every range that the shim mapped and keeps.
pub(crate) fn own_ranges() -> impl Iterator<Item = (usize, usize)> {
    OWN.iter()
        .map(|[start, end]| (start.load(Acquire), end.load(Acquire)))
        .take_while(|(start, _)| *start != 0)
        .filter(|(start, end)| start < end)
}

/// Bytes that the shim has mapped for itself, buffers included.
pub(crate) fn mapped_bytes() -> usize {
    MAPPED.load(Relaxed)
}

/// Notes bytes that another part of the shim mapped.
pub(crate) fn count_mapped(bytes: usize) {
    MAPPED.fetch_add(bytes, Relaxed);
}

/// Maps `len` zeroed bytes of private memory that a core dump leaves out; `None` in a sandbox, and without memory.
pub(crate) fn map_pages(len: usize) -> Option<NonNull<u8>> {
    if image::sandboxed() {
        return None;
    }
    let at = map_to_stay(len, ZEROED, -1, 0).ok()?;
    // SAFETY: the range was mapped just now and nothing else knows it.
    let _ = unsafe { sys::madvise(at, len, libc::MADV_DONTDUMP) };
    count_mapped(len);
    NonNull::new(at)
}

/// Gives back what [`map_pages`] mapped and nobody has seen.
pub(crate) fn unmap_pages(pages: NonNull<u8>, len: usize) {
    MAPPED.fetch_sub(len, Relaxed);
    unmap_own(pages.as_ptr(), len);
}

fn current() -> &'static Chunk {
    // SAFETY: a published chunk is initialised and never unmapped.
    unsafe { &*CURRENT.load(Acquire) }
}

/// Zeroed memory for the life of the process; `None` when the kernel has none.
///
/// `align` must be a power of two up to a page.
pub(crate) fn bump(len: usize, align: usize) -> Option<NonNull<u8>> {
    if len > CHUNK / 4 {
        return map_pages(len.checked_next_multiple_of(4096)?);
    }
    loop {
        let chunk = current();
        if let Some(place) = chunk.claim(len, align) {
            return Some(place);
        }
        let fresh = map_pages(CHUNK)?.cast::<Chunk>();
        // SAFETY: the pages are ours alone until the compare-exchange publishes them.
        unsafe {
            fresh.write(Chunk {
                used: AtomicUsize::new(size_of::<Chunk>()),
                start: fresh.as_ptr().cast(),
                len: CHUNK,
            });
        }
        let full = core::ptr::from_ref(chunk).cast_mut();
        if CURRENT
            .compare_exchange(full, fresh.as_ptr(), AcqRel, Acquire)
            .is_err()
        {
            unmap_pages(fresh.cast(), CHUNK);
        }
    }
}

impl Chunk {
    fn claim(&self, len: usize, align: usize) -> Option<NonNull<u8>> {
        let start = self.start as usize;
        let mut used = self.used.load(Relaxed);
        loop {
            let from = (start + used).checked_next_multiple_of(align)? - start;
            let to = from.checked_add(len)?;
            if to > self.len {
                return None;
            }
            match self.used.compare_exchange_weak(used, to, AcqRel, Relaxed) {
                // SAFETY: `from`..`to` lies inside the chunk and the compare-exchange made it ours.
                Ok(_) => return NonNull::new(unsafe { self.start.add(from) }),
                Err(now) => used = now,
            }
        }
    }

    /// Takes back all but the first `keep` of `len` bytes, if they are the last that were claimed.
    fn take_back(&self, place: NonNull<u8>, len: usize, keep: usize) {
        let at = (place.as_ptr() as usize).wrapping_sub(self.start as usize);
        if let Some(end) = at.checked_add(len) {
            let _ = self.used.compare_exchange(end, at + keep, AcqRel, Relaxed);
        }
    }
}

/// Gives back all but the first `keep` of the `len` bytes at `place`, if [`bump`] has given out nothing since. The bytes
/// behind `touched` are zero still.
///
/// # Safety
/// `place` and `len` must be a call of `bump`; nobody uses the bytes behind `keep` any more.
pub(crate) unsafe fn give_back(place: NonNull<u8>, len: usize, keep: usize, touched: usize) {
    // SAFETY: the bytes are inside the place, which is the caller's.
    unsafe { place.add(keep).write_bytes(0, touched.saturating_sub(keep)) };
    current().take_back(place, len, keep);
}

/// The allocator of all Rust code in the shim: the bump above.
pub(crate) struct OwnMemory;

// SAFETY: `bump` answers memory that is zeroed, aligned as asked, and never given out twice; what is freed is never used again.
unsafe impl GlobalAlloc for OwnMemory {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        bump(layout.size(), layout.align()).map_or(null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
}

#[cfg(test)]
mod tests {
    use super::{AtomicUsize, Chunk, bump};

    #[test]
    fn what_is_given_back_is_given_out_again_unless_something_was_given_out_since() {
        let mut room = [0u8; 1000];
        let chunk = Chunk {
            used: AtomicUsize::new(0),
            start: room.as_mut_ptr(),
            len: room.len(),
        };
        let at = |len, align| {
            chunk
                .claim(len, align)
                .map(|at| at.as_ptr().addr() - chunk.start.addr())
        };
        let first = chunk.claim(100, 1).expect("room");
        chunk.take_back(first, 100, 10);
        assert_eq!(at(200, 1), Some(10));
        chunk.take_back(first, 10, 0);
        assert_eq!(at(790, 1), Some(210));
        assert_eq!(at(1, 1), None);
    }

    #[test]
    fn memory_is_zeroed_aligned_and_given_out_once() {
        let mut ends = Vec::new();
        for i in 1..2000usize {
            let align = 1 << (i % 8);
            let at = bump(i % 300 + 1, align).expect("memory").as_ptr();
            assert_eq!(at as usize % align, 0);
            // SAFETY: `bump` gave out this many bytes.
            let bytes = unsafe { core::slice::from_raw_parts_mut(at, i % 300 + 1) };
            assert!(bytes.iter().all(|byte| *byte == 0));
            bytes.fill(1);
            ends.push((at as usize, at as usize + bytes.len()));
        }
        ends.sort_unstable();
        assert!(ends.windows(2).all(|pair| pair[0].1 <= pair[1].0));
    }
}
