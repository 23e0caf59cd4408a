//! The pool of event buffers. Nobody tells us that a thread has ended; the pool finds out.
//!
//! A thread without a buffer takes, by one compare-exchange on the owner word: one whose thread pointer or id is its
//! own (two threads can't share either, so that owner is dead); a free one; one whose owner the kernel no longer
//! knows; a new one. The dead owner's lines are flushed first. Callers have signals blocked.

use crate::flush::{self, Reach};
use crate::owner::Owner;
use crate::slot::{RETIRED, Slot};
use crate::{clock, image, sys, tail, x86_64};
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering::*};
use memspy_log::tail::{CONTROL_SIZE, HEADER_SIZE, control, header};

/// Most buffers that an image can have.
pub(crate) const MAX_SLOTS: usize = 256;

static SLOTS: [Slot; MAX_SLOTS] = [const { Slot::new() }; MAX_SLOTS];
/// Slots with a buffer are the first ones of the array.
static ATTACHED: AtomicUsize = AtomicUsize::new(0);
static EXTENTS: AtomicUsize = AtomicUsize::new(0);
static TAIL_LENGTH: AtomicU64 = AtomicU64::new(0);
static LIMIT: AtomicUsize = AtomicUsize::new(16 << 20);
/// A compare-exchange away from growing; a loser does without a buffer for one event.
static GROWING: AtomicU64 = AtomicU64::new(0);

/// Every slot with a buffer.
pub(crate) fn slots() -> &'static [Slot] {
    SLOTS.get(..ATTACHED.load(Acquire)).unwrap_or_default()
}

/// Every slot that somebody owns, or owned.
pub(crate) fn owned() -> impl Iterator<Item = &'static Slot> {
    slots().iter().filter(|slot| slot.owner.read().tid() != 0)
}

/// The number of a slot, below [`MAX_SLOTS`].
#[inline(always)]
pub(crate) fn index(slot: &Slot) -> usize {
    (core::ptr::from_ref(slot) as usize).wrapping_sub((&raw const SLOTS) as usize)
        / size_of::<Slot>()
}

/// Begins with the buffers of the first extent, all free. `limit`: most bytes of all buffers together.
pub(crate) fn start(first: *mut u8, limit: usize) {
    LIMIT.store(limit, Relaxed);
    STREAMS.store(0, Relaxed);
    // In a forked child some are the parent's, the next one too if a thread of its was about to add that. Those behind
    // them were never touched, and cost no memory as long as they are not.
    let touched = (ATTACHED.load(Relaxed) + 1).max(tail::FIRST_COUNT);
    for (i, slot) in SLOTS.iter().take(touched).enumerate() {
        slot.owner.disown();
        if i < tail::FIRST_COUNT {
            // SAFETY: the first extent has FIRST_COUNT buffers of FIRST_SIZE bytes.
            slot.attach(unsafe { first.add(i * tail::FIRST_SIZE) }, tail::FIRST_SIZE);
        }
    }
    EXTENTS.store(1, Relaxed);
    TAIL_LENGTH.store(
        (CONTROL_SIZE + tail::FIRST_COUNT * tail::FIRST_SIZE) as u64,
        Relaxed,
    );
    GROWING.store(0, Relaxed);
    ATTACHED.store(tail::FIRST_COUNT, Release);
}

/// Thread numbers given out. Private memory, so that a forked child has it exactly; the control page has a copy.
static STREAMS: AtomicU64 = AtomicU64::new(0);

/// Thread numbers given out.
pub(crate) fn streams() -> u64 {
    STREAMS.load(Relaxed)
}

/// A new thread number, also for what is written like a thread's lines.
pub(crate) fn next_stream() -> u64 {
    let stream = STREAMS.fetch_add(1, Relaxed) + 1;
    if stream == 2 {
        clock::share();
    }
    stream
}

/// Finds a buffer for a thread that has none and begins a stream in it.
pub(crate) fn take_first(tid: u32) -> Option<&'static Slot> {
    begin(claim(tid, true)?, tid)
}

/// Finds another buffer for a thread that has one with an unfinished line, and begins a stream in it.
pub(crate) fn take_another(tid: u32) -> Option<&'static Slot> {
    let drained = slots().iter().find(|slot| {
        slot.owner.read().tid() == tid
            && slot.attention() == RETIRED
            && slot.field(header::TOP).load(Relaxed) == HEADER_SIZE as u64
    });
    match drained {
        Some(slot) => begin(slot, tid),
        None => begin(claim(tid, false)?, tid),
    }
}

fn begin(slot: &'static Slot, tid: u32) -> Option<&'static Slot> {
    let stream = next_stream();
    slot.begin(stream, tid, 0);
    // Only now does a buffer vouch for the number: a reader misses one that nobody vouches for.
    image::word(control::STREAMS).fetch_max(stream, Release);
    Some(slot)
}

/// Moves the stream of `from`, whose buffer is empty, to a larger buffer, if there is one to be had. The old buffer
/// stays the thread's: an interrupted frame may be about to make its line in it, and will find that it has moved.
pub(crate) fn enlarge(from: &Slot) -> Option<&'static Slot> {
    let larger = match from.size() as usize {
        tail::BUSY_SIZE.. => return None,
        tail::LATER_SIZE.. => tail::BUSY_SIZE,
        _ => tail::LATER_SIZE,
    };
    let tid = from.owner.read().tid();
    let pointer = x86_64::thread_pointer();
    let slot = slots()
        .iter()
        .find(|slot| slot.size() as usize >= larger && slot.owner.claim_free(tid, pointer))
        .or_else(|| grow(tid, larger, 1))?;
    Some(move_stream(from, slot, tid))
}

/// The same with a new buffer of half the memory that the limit leaves: what comes may have to stay in it. Other threads
/// may still need some.
pub(crate) fn widen(from: &Slot) -> Option<&'static Slot> {
    let tid = from.owner.read().tid();
    let left = LIMIT
        .load(Relaxed)
        .saturating_sub(TAIL_LENGTH.load(Relaxed) as usize);
    let mut size = left / 2;
    while size > (from.size() as usize).max(tail::LATER_SIZE) {
        if let Some(slot) = grow(tid, size & !4095, 1) {
            return Some(move_stream(from, slot, tid));
        }
        // The disk or the address space may have less.
        size /= 2;
    }
    None
}

fn move_stream(from: &Slot, slot: &'static Slot, tid: u32) -> &'static Slot {
    slot.take_over();
    slot.begin(from.stream(), tid, from.n());
    from.field(header::THREAD).store(0, Release);
    from.notify(RETIRED);
    slot
}

/// `first`: the thread has no buffer yet, so one that seems to be its own is a dead thread's.
fn claim(tid: u32, first: bool) -> Option<&'static Slot> {
    let pointer = x86_64::thread_pointer();
    let dead = if first { own_dead(tid, pointer) } else { None };
    dead.or_else(|| {
        slots()
            .iter()
            .find(|slot| slot.owner.claim_free(tid, pointer))
    })
    .or_else(|| other_dead(tid, pointer))
    .or_else(|| grow(tid, tail::LATER_SIZE, later_count()))
    .inspect(|slot| slot.take_over())
}

/// A buffer that an earlier thread with our id or our thread pointer left.
fn own_dead(tid: u32, pointer: usize) -> Option<&'static Slot> {
    slots().iter().find(|slot| {
        let owner = slot.owner.read();
        slot.owner.was_of(owner, tid, pointer) && inherit(slot, owner, tid, pointer)
    })
}

/// A buffer whose owner the kernel no longer knows.
fn other_dead(tid: u32, pointer: usize) -> Option<&'static Slot> {
    slots().iter().find(|slot| {
        let owner = slot.owner.read();
        is_dead(owner) && inherit(slot, owner, tid, pointer)
    })
}

/// Whether the kernel no longer knows the owner.
pub(crate) fn is_dead(owner: Owner) -> bool {
    owner.tid() != 0
        && sys::tgkill(image::pid(), owner.tid() as i32, 0) == Err(sys::Errno(libc::ESRCH))
}

/// Takes a dead thread's buffer over, after its lines are in the log.
fn inherit(slot: &Slot, dead: Owner, tid: u32, pointer: usize) -> bool {
    let drain = || flush::flush(slot, Reach::Last) == Ok(true);
    slot.owner.inherit(dead, tid, pointer, drain)
}

/// How many buffers to add for threads: as many as there are, at most 64.
fn later_count() -> usize {
    ATTACHED
        .load(Relaxed)
        .saturating_sub(tail::FIRST_COUNT)
        .clamp(1, 64)
}

/// Adds up to `count` buffers of `size` bytes, one for the caller, as far as the limit allows.
fn grow(tid: u32, size: usize, count: usize) -> Option<&'static Slot> {
    if GROWING.compare_exchange(0, 1, AcqRel, Relaxed).is_err() {
        return None;
    }
    let grown = attach(tid, size, count);
    GROWING.store(0, Release);
    grown
}

fn attach(tid: u32, size: usize, count: usize) -> Option<&'static Slot> {
    let attached = ATTACHED.load(Acquire);
    let extent = EXTENTS.load(Relaxed);
    let offset = TAIL_LENGTH.load(Relaxed);
    let room = LIMIT.load(Relaxed).saturating_sub(offset as usize) / size;
    let count = count.min(room).min(MAX_SLOTS - attached);
    if count == 0 {
        return None;
    }
    let at = tail::grow(extent, offset, size, count).ok()?;
    let fresh = SLOTS.get(attached..attached + count)?;
    for (i, slot) in fresh.iter().enumerate() {
        // SAFETY: the extent has `count` buffers of `size` bytes.
        slot.attach(unsafe { at.add(i * size) }, size);
    }
    let first = fresh.first()?;
    first.owner.claim_free(tid, x86_64::thread_pointer());
    EXTENTS.store(extent + 1, Relaxed);
    TAIL_LENGTH.store(offset + (count * size) as u64, Relaxed);
    ATTACHED.store(attached + count, Release);
    Some(first)
}
