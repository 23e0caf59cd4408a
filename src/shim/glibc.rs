//! The kernel calls that glibc makes inside malloc. They do not pass the PLT, so no interposer sees them; they are
//! inferred from what they leave behind.
//!
//! - `__curbrk` is an exported variable: each change of it is one `brk` event.
//! - The word before a block holds its chunk's size and, in the low bits, whether the chunk is its own mmap (2) and
//!   whether it lies in a thread arena (4). It is read only while the block is ours: after malloc, before free.
//! - A thread arena's heap is 64 MiB aligned and begins with its arena's address, the heap before it, and its size.
//!
//! Layouts: glibc's malloc/malloc.c (struct malloc_chunk) and malloc/arena.c (struct _heap_info), the same from 2.10 on.

use crate::record::event;
use crate::slot::Slot;
use crate::stack::Stack;
use crate::unwind::Caller;
use crate::{arena, clock, elf, log, pool, request, sys, thread, x86_64};
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering::*};
use memspy_log::Line;

/// The bits of a chunk's size that mean something: [`OWN_MMAP`] when the allocator is glibc's own, [`THREAD_ARENA`] when
/// its arenas have their usual layout. 0: no header is read.
static BITS: AtomicUsize = AtomicUsize::new(0);

static NO_BREAK: AtomicUsize = AtomicUsize::new(0);
/// libc's variable.
static CURRENT: AtomicPtr<AtomicUsize> = AtomicPtr::new((&raw const NO_BREAK).cast_mut());
/// The break that the log knows of. Changed by compare-exchange only, so each move is one event.
static KNOWN: AtomicUsize = AtomicUsize::new(0);

/// The break before libc's first brk, when its variable is still 0.
static FIRST: AtomicUsize = AtomicUsize::new(0);

const OWN_MMAP: usize = 2;
const THREAD_ARENA: usize = 4;

/// Begins inference, if the real allocator is glibc's own. `arenas`: whether thread arenas have their usual layout.
pub(crate) fn start(is_glibc: bool, arenas: bool) {
    if let Some(address) = elf::next_symbol(c"__curbrk") {
        CURRENT.store(address as *mut AtomicUsize, Relaxed);
        KNOWN.store(current_break(), Relaxed);
        FIRST.store(sys::program_break(), Relaxed);
    }
    let bits = match (is_glibc, arenas) {
        (false, _) => 0,
        (true, false) => OWN_MMAP,
        (true, true) => OWN_MMAP | THREAD_ARENA,
    };
    BITS.store(bits, Relaxed);
}

/// Whether kernel calls inside malloc are inferred.
pub(crate) fn enabled() -> bool {
    BITS.load(Relaxed) != 0
}

/// The program break as libc knows it; 0 when libc does not tell.
#[inline(always)]
pub(crate) fn current_break() -> usize {
    // SAFETY: points to a static or to libc's variable, which libc writes as one aligned word.
    unsafe { &*CURRENT.load(Relaxed) }.load(Relaxed)
}

/// Where libc keeps the break: a place in its writable data, or in ours when libc does not tell.
pub(crate) fn break_variable() -> usize {
    CURRENT.load(Relaxed) as usize
}

/// The break as it was before libc first moved it, if it has not moved it yet.
pub(crate) fn break_before_first_move() -> usize {
    FIRST.load(Relaxed)
}

/// An allocator call under way.
pub(crate) struct Call {
    break_before: usize,
    slot: Option<&'static Slot>,
}

impl Call {
    /// The call begins.
    #[inline(always)]
    pub(crate) fn enter() -> Call {
        request::look();
        let slot = thread::latest();
        match slot {
            Some(slot) => slot.enter(),
            // What the call that begins the image makes the kernel do is seen like all that follows.
            None if crate::image::generation() == 0 => {
                crate::start::start();
            }
            None => {}
        }
        Call {
            break_before: current_break(),
            slot,
        }
    }

    /// The call of a thread that has its buffer begins, and nobody asks for anything.
    #[inline(always)]
    pub(crate) fn of(slot: &'static Slot) -> Call {
        slot.enter();
        Call {
            break_before: current_break(),
            slot: Some(slot),
        }
    }

    /// The call is over.
    #[inline(always)]
    pub(crate) fn leave(&self) {
        if let Some(slot) = self.slot {
            slot.leave();
        }
    }

    /// Writes how the break has moved in the call, for which [`break_has_moved`]. `times`: one before it and one after
    /// it; 0 for a time that was not taken.
    #[cold]
    pub(crate) fn break_moved(
        &self,
        (began, ended): (u64, u64),
        via: &'static str,
        caller: &Caller,
    ) {
        let known = KNOWN.load(Relaxed);
        let now = current_break();
        if known == now || KNOWN.compare_exchange(known, now, AcqRel, Relaxed).is_err() {
            return;
        }
        let alone = !pool::slots()
            .iter()
            .any(|slot| slot.is_inside() && !self.slot.is_some_and(|own| core::ptr::eq(own, slot)));
        let via = if alone && self.break_before != now {
            via
        } else {
            "?"
        };
        let ended = if ended == 0 { clock::after() } else { ended };
        let shrinks = now < known;
        let t = if shrinks && began != 0 { began } else { ended };
        let stack = if shrinks {
            Stack::of_release(caller)
        } else {
            Stack::of(caller)
        };
        event(log::BRK, t, ended, |line| {
            line.num(log::T, t);
            if shrinks {
                line.num(log::DT, ended - t);
            }
            line.addr(
                log::FROM,
                if known == 0 {
                    FIRST.load(Relaxed)
                } else {
                    known
                },
            );
            line.addr(log::TO, now);
            line.name(log::VIA, via);
            stack.put(line);
        });
    }
}

/// The break is where it is (a new image).
pub(crate) fn forget_break() {
    KNOWN.store(current_break(), Relaxed);
}

/// Whether the break is elsewhere than the log has it.
#[inline(always)]
pub(crate) fn break_has_moved() -> bool {
    current_break() != KNOWN.load(Relaxed)
}

/// The program moved the break itself; the log has it.
pub(crate) fn break_is_known(from: usize, to: usize) {
    let _ = KNOWN.compare_exchange(from, to, AcqRel, Relaxed);
}

/// A block's chunk, as far as its header tells.
#[derive(Clone, Copy)]
pub(crate) struct Chunk {
    block: usize,
    size: usize,
    bits: usize,
}

impl Chunk {
    /// Reads the header before a block. A chunk without it, of NULL or of a foreign allocator, is nothing special.
    ///
    /// # Safety
    /// `block` must be a live block of the real allocator that the caller owns, or 0.
    #[inline(always)]
    pub(crate) unsafe fn of(block: usize) -> Chunk {
        let bits = BITS.load(Relaxed);
        let size = if bits == 0 || block == 0 {
            0
        } else {
            // SAFETY: every block of glibc has its chunk's header before it.
            unsafe { *((block - 8) as *const usize) }
        };
        Chunk {
            block,
            size,
            bits: size & bits,
        }
    }

    /// Has the processor fetch the header of a block that will be looked at soon: of a block that was not used for long it
    /// takes as long as writing the line.
    #[inline(always)]
    pub(crate) fn fetch(block: usize) {
        x86_64::fetch(block.wrapping_sub(8));
    }

    /// Whether there is anything to be told: it is a mapping of its own, or the log does not know the heap of a thread's
    /// arena, in which it lies, as it is now.
    ///
    /// # Safety
    /// The block must still be the caller's.
    #[inline(always)]
    pub(crate) unsafe fn has_news(self) -> bool {
        // SAFETY: the caller vouches for the block.
        self.bits & OWN_MMAP != 0 || self.bits != 0 && unsafe { self.changed_heap() }.is_some()
    }

    /// The mapping that is the block's own, as address and length.
    ///
    /// # Safety
    /// The block must still be the caller's.
    #[inline(always)]
    pub(crate) unsafe fn own_mapping(self) -> Option<(usize, usize)> {
        if self.bits & OWN_MMAP == 0 {
            return None;
        }
        let chunk = self.block - 16;
        // SAFETY: such a chunk has, before its size, the slack between the mapping's start and itself.
        let slack = unsafe { *(chunk as *const usize) };
        Some((chunk - slack, slack + (self.size & !7)))
    }

    /// If the block lies in a heap of a thread's arena, writes what has become of that heap since.
    ///
    /// # Safety
    /// The block must still be the caller's.
    #[inline(always)]
    pub(crate) unsafe fn look_at_arena(self, t: u64, via: &'static str) {
        // SAFETY: the caller vouches for the block, which lies in the heap.
        unsafe {
            if let Some(heap) = self.changed_heap() {
                look_at_heap(heap, t, via);
            }
        }
    }

    /// The heap of a thread's arena in which the block lies, as address and size, unless the log knows it so.
    ///
    /// # Safety
    /// The block must still be the caller's.
    #[inline(always)]
    unsafe fn changed_heap(self) -> Option<(usize, usize)> {
        if self.bits != THREAD_ARENA {
            return None;
        }
        let base = arena::heap_of(self.block);
        // SAFETY: a block of a thread arena lies in a heap, whose head is at its aligned start while a block lives in
        // it.
        let size = unsafe { *((base + 16) as *const usize) };
        (!arena::is_known(base, size)).then_some((base, size))
    }

    /// Whether none but thread `stream` has had an event of a block in this one's heap. If another has, everybody knows
    /// from here on.
    #[inline(always)]
    pub(crate) fn is_of_one(self, stream: u64) -> bool {
        match self.bits {
            0 if self.size != 0 => arena::is_main_of_one(stream),
            THREAD_ARENA => arena::is_of_one(arena::heap_of(self.block), stream),
            _ => self.block == 0,
        }
    }
}

/// Writes the mmap that a call made for its block.
#[cold]
#[inline(never)]
pub(crate) fn mapped((addr, len): (usize, usize), t: u64, via: &'static str, stack: Stack) {
    event(log::MMAP, t, t, |line| {
        line.num(log::T, t);
        line.addr(log::ADDR, addr);
        line.num(log::SIZE, len as u64);
        line.num(log::PROT, (libc::PROT_READ | libc::PROT_WRITE) as u64);
        line.num(log::FLAGS, (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64);
        line.signed(log::FD, -1);
        line.num(log::OFFSET, 0);
        line.name(log::VIA, via);
        stack.put(line);
    });
}

/// Writes the munmap by which a call gives its block's mapping back.
#[cold]
#[inline(never)]
pub(crate) fn unmapped((addr, len): (usize, usize), t: u64, via: &'static str, stack: Stack) {
    event(log::MUNMAP, t, t, |line| {
        line.num(log::T, t);
        line.addr(log::ADDR, addr);
        line.num(log::SIZE, len as u64);
        line.name(log::VIA, via);
        stack.put(line);
    });
}

/// Writes the mremap that a realloc made.
#[cold]
#[inline(never)]
pub(crate) fn remapped(
    (old, old_len): (usize, usize),
    (addr, len): (usize, usize),
    (t, until): (u64, u64),
    via: &'static str,
    stack: Stack,
) {
    event(log::MREMAP, t, until, |line| {
        line.num(log::T, t);
        line.num(log::DT, until - t);
        line.addr(log::OLD, old);
        line.num(log::OLD_SIZE, old_len as u64);
        line.num(log::SIZE, len as u64);
        line.num(log::FLAGS, libc::MREMAP_MAYMOVE as u64);
        line.addr(log::ADDR, addr);
        line.name(log::VIA, via);
        stack.put(line);
    });
}

/// Writes what has become of a heap since it was last looked at.
///
/// # Safety
/// A block in the heap must be the caller's.
#[cold]
#[inline(never)]
unsafe fn look_at_heap((base, size): (usize, usize), t: u64, via: &'static str) {
    let stream = thread::slot().map_or(arena::NOBODY, Slot::stream);
    if let Some(before) = arena::note(base, size, stream) {
        // SAFETY: the head of a heap that a block lives in.
        let arena = unsafe { *(base as *const usize) };
        arena_changed((base, before, size), arena, t, via);
    }
}

#[cold]
#[inline(never)]
fn arena_changed(
    (base, before, size): (usize, usize, usize),
    arena: usize,
    t: u64,
    via: &'static str,
) {
    let change = match before {
        0 => "made",
        _ if before < size => "grown",
        _ => "shrunk",
    };
    event(log::ARENA, t, t, |line: &mut Line| {
        line.num(log::T, t);
        line.addr(log::BASE, base);
        line.num(log::SIZE, size as u64);
        line.name(log::CHANGE, change);
        line.addr(log::ARENA_KEY, arena);
        line.name(log::VIA, via);
    });
}
