//! The calling thread's buffer: found in two loads, or taken from the pool.

use crate::flush::{self, Reach};
use crate::slot::{DIRECT, RETIRED, Slot};
use crate::{clock, close_out, image, log, pool, settings, snapshot, start, sys, x86_64};
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering::*};
use memspy_log::key;
use memspy_log::tail::{header, state};

/// The thread's 64 bytes, zero when it starts.
#[repr(C)]
struct Place {
    slot: AtomicPtr<Slot>,
    /// The image in which `slot` is the thread's.
    generation: AtomicU64,
    /// The same if its calls become lines and that is all, else [`NO_IMAGE`].
    lines_only: AtomicU64,
    /// Events to go without asking the pool again, after it had nothing.
    patience: AtomicU32,
}

/// The generation of no image, and of no forked child either.
const NO_IMAGE: u64 = u64::MAX;

const _: () = assert!(size_of::<Place>() <= x86_64::THREAD_SLOT_SIZE);

#[inline(always)]
fn place() -> &'static Place {
    // SAFETY: the slot is 64-byte aligned, lives as long as the thread, and any bytes are a valid `Place`; the
    // reference does not leave the thread.
    unsafe { &*x86_64::thread_slot().cast::<Place>() }
}

/// The thread's buffer, if it has one in this image: no system call, nothing is taken.
#[inline(always)]
pub(crate) fn peek() -> Option<&'static Slot> {
    let slot = latest()?;
    (place().generation.load(Relaxed) == image::generation()).then_some(slot)
}

/// A thread's buffer, when there was nothing to see to first.
#[derive(Clone, Copy)]
pub(crate) struct Ready {
    slot: &'static Slot,
    generation: u64,
}

impl Ready {
    /// The buffer.
    #[inline(always)]
    pub(crate) fn slot(self) -> &'static Slot {
        self.slot
    }

    /// Whether it is still so: no handler has moved the thread to another buffer, or come back from a fork as a child.
    #[inline(always)]
    pub(crate) fn is_still(self) -> bool {
        self.slot.attention() == 0 && image::generation() == self.generation
    }
}

/// The same where calls become lines without stacks, and that is all.
#[inline(always)]
pub(crate) fn ready_for_lines() -> Option<Ready> {
    ready_in(&place().lines_only)
}

/// The thread's buffer, if it has one and there is nothing to see to first.
#[inline(always)]
pub(crate) fn ready() -> Option<Ready> {
    ready_in(&place().generation)
}

#[inline(always)]
fn ready_in(generation: &AtomicU64) -> Option<Ready> {
    let slot = latest()?;
    let generation = generation.load(Relaxed);
    let ready = Ready { slot, generation };
    ready.is_still().then_some(ready)
}

/// The thread's buffer in this image, or in the one of which a fork that has not been noticed yet made this one.
#[inline(always)]
pub(crate) fn latest() -> Option<&'static Slot> {
    // SAFETY: null or one of the pool's static slots.
    unsafe { place().slot.load(Relaxed).as_ref() }
}

/// Whether `slot` is still the thread's: no handler has moved it to another, or come back from a fork as a child.
#[inline(always)]
pub(crate) fn is_current(slot: &Slot) -> bool {
    peek().is_some_and(|current| core::ptr::eq(current, slot))
}

/// The thread's buffer when lines may go into it; takes one from the pool if need be. `None`: see `record::aside`.
#[inline(always)]
pub(crate) fn slot() -> Option<&'static Slot> {
    match ready() {
        Some(ready) => Some(ready.slot),
        None => find(peek()),
    }
}

#[cold]
fn find(slot: Option<&'static Slot>) -> Option<&'static Slot> {
    if image::generation() == 0 && !start::start() {
        return None;
    }
    if slot.is_some() && !close_out::exec_failed() {
        return None;
    }
    if slot.is_some() {
        return slot;
    }
    if !matches!(image::state(), state::BUFFERED | state::STOPPED) || image::sandboxed() {
        return None;
    }
    let patience = &place().patience;
    if patience.load(Relaxed) > 0 {
        patience.store(patience.load(Relaxed) - 1, Relaxed);
        return None;
    }
    let mask = sys::block_signals();
    let slot = pool::take_first(sys::gettid() as u32);
    match slot {
        Some(slot) => settle(slot),
        None => patience.store(64, Relaxed),
    }
    sys::restore_signals(mask);
    if let Some(slot) = slot {
        introduce(slot);
    }
    slot
}

/// Makes `slot` the thread's.
pub(crate) fn settle(slot: &'static Slot) {
    let place = place();
    let generation = image::generation();
    place.generation.store(generation, Relaxed);
    let lines_only = if settings::lines_only() {
        generation
    } else {
        NO_IMAGE
    };
    place.lines_only.store(lines_only, Relaxed);
    place
        .slot
        .store(core::ptr::from_ref(slot).cast_mut(), Relaxed);
}

/// The thread has no buffer (a new image begins).
pub(crate) fn forget() {
    place().slot.store(null_mut(), Relaxed);
}

/// The first line of a stream.
fn introduce(slot: &Slot) {
    let mut name = [0; 16];
    let name = sys::thread_name(&mut name);
    let on_stack = (&raw const name).addr();
    let now = clock::before();
    slot.line::<{ memspy_log::MAX_EVENT }>(log::THREAD, (now, now), |line| {
        line.num(log::T, now);
        line.num(log::THREAD_KEY, slot.stream());
        line.text(log::NAME, name);
        line.addr(const { &key("sp") }, on_stack);
    });
    if slot.stream() > 1 && settings::get().maps {
        snapshot::write_once("thread");
    }
}

/// The buffer has no room for a line of `len` bytes. Makes some, or answers false.
#[cold]
pub(crate) fn make_room(slot: &'static Slot, len: usize) -> bool {
    if image::sandboxed() || image::must_wait(clock::before()) {
        return false;
    }
    let nested = slot.is_nested();
    let mask = sys::block_signals();
    let made = make_room_undisturbed(slot, len, nested);
    sys::restore_signals(mask);
    if let Some(fresh) = made.fresh {
        introduce(fresh);
    }
    made.room
}

struct Made {
    room: bool,
    /// The new buffer of a new stream, to be introduced.
    fresh: Option<&'static Slot>,
}

fn make_room_undisturbed(slot: &'static Slot, len: usize, nested: bool) -> Made {
    let top = slot.field(header::TOP).load(Relaxed);
    if top + len as u64 <= slot.limit() {
        // A handler came between and made room.
        return Made {
            room: true,
            fresh: None,
        };
    }
    if !is_current(slot) {
        // A handler came between and moved the thread.
        return Made {
            room: true,
            fresh: None,
        };
    }
    if nested && flush::has_gap(slot, top.min(slot.size())) {
        return retire(slot);
    }
    match flush::flush(slot, Reach::All) {
        Ok(true) => {
            let larger = pool::enlarge(slot);
            if let Some(larger) = larger {
                settle(larger);
            }
            log::note_resumed(larger.unwrap_or(slot));
            Made {
                room: true,
                fresh: None,
            }
        }
        Ok(false) => Made {
            room: false,
            fresh: None,
        },
        Err(errno) => {
            image::stop(errno, clock::before());
            Made {
                room: false,
                fresh: None,
            }
        }
    }
}

/// A line in the buffer is not committed, and this event is nested in it. The thread goes on in another buffer; the
/// interrupted line is finished where it is. The old buffer stays the thread's until it ends: an interrupted frame may
/// hold on to it.
fn retire(slot: &'static Slot) -> Made {
    let Some(fresh) = pool::take_another(sys::gettid() as u32) else {
        return Made {
            room: false,
            fresh: None,
        };
    };
    slot.notify(RETIRED);
    settle(fresh);
    Made {
        room: true,
        fresh: Some(fresh),
    }
}

/// A line was committed in a buffer that somebody waits for.
#[cold]
pub(crate) fn noticed(slot: &'static Slot) {
    if image::sandboxed() {
        return;
    }
    let mask = sys::block_signals();
    let attention = slot.attention();
    if attention & DIRECT != 0 {
        // Whoever is flushing it takes microseconds, and is not waiting for this thread.
        for _ in 0..10_000 {
            match flush::flush(slot, Reach::Committed) {
                Ok(false) => sys::sched_yield(),
                _ => break,
            }
        }
    } else if attention & RETIRED != 0
        && !flush::has_gap(slot, slot.field(header::TOP).load(Relaxed).min(slot.size()))
    {
        let _ = flush::flush(slot, Reach::Last);
    }
    sys::restore_signals(mask);
}
