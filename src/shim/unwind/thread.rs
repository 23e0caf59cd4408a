//! What unwinding keeps for each thread: its memo, its stack, and the memory that a walk works in.
//!
//! The state belongs to a buffer's slot and passes to the next thread with it; all of it proves itself before it is
//! believed. A signal handler may begin a walk inside a walk, and may jump out of its own: each takes a free place, or
//! that of the oldest. The oldest is one that was abandoned, unless handlers are nested [`WALKS`] deep inside walks;
//! then it finds out before it makes a number, and gives up.

use super::bounds::OwnStack;
use super::memo::Memo;
use super::walk::{Frame, Word};
use crate::{memory, stacks};
use core::ptr::{NonNull, null_mut};
use core::sync::atomic::{
    AtomicPtr,
    Ordering::{AcqRel, Acquire, Relaxed},
};

/// Walks that a thread can have under way, one inside the other.
pub(super) const WALKS: usize = 4;
/// Slots for threads that record at the same time.
pub(super) const SLOTS: usize = 256;

/// The memory that a walk works in.
pub(super) struct Room {
    frames: NonNull<Frame>,
    words: NonNull<Word>,
    nodes: NonNull<u32>,
    depth: usize,
}

/// A room, lent for one walk.
pub(super) struct Lent<'a> {
    pub(super) frames: &'a mut [Frame],
    pub(super) words: &'a mut [Word],
    pub(super) nodes: &'a mut [u32],
}

impl Room {
    /// Words for each frame: a return address, a frame pointer, and a few for frames that need more.
    fn words_len(depth: usize) -> usize {
        2 * depth + 64
    }

    fn new(depth: usize) -> Option<NonNull<Room>> {
        let frames = array::<Frame>(depth + 1)?;
        let words = array::<Word>(Room::words_len(depth))?;
        let nodes = array::<u32>(depth + 1)?;
        let room = array::<Room>(1)?;
        // SAFETY: the memory is of this size and alignment and nobody else's.
        unsafe {
            room.write(Room {
                frames,
                words,
                nodes,
                depth,
            })
        };
        Some(room)
    }

    /// # Safety
    /// Nobody else may be using the room, but for a walk that will find out that it was robbed.
    unsafe fn lend<'a>(room: NonNull<Room>) -> Lent<'a> {
        // SAFETY: rooms are complete and never freed; the arrays have these lengths, and zeroed memory is a frame, a
        // word and a number.
        unsafe {
            let room = &mut *room.as_ptr();
            let words = Room::words_len(room.depth);
            Lent {
                frames: core::slice::from_raw_parts_mut(room.frames.as_ptr(), room.depth + 1),
                words: core::slice::from_raw_parts_mut(room.words.as_ptr(), words),
                nodes: core::slice::from_raw_parts_mut(room.nodes.as_ptr(), room.depth + 1),
            }
        }
    }
}

fn array<T>(len: usize) -> Option<NonNull<T>> {
    let bytes = len.checked_mul(size_of::<T>())?;
    stacks::may_take(bytes)
        .then(|| memory::bump(bytes, align_of::<T>()))
        .flatten()
        .map(NonNull::cast)
}

/// A thread's state.
pub(super) struct Thread {
    pub(super) memo: Memo,
    pub(super) own: OwnStack,
    rooms: [AtomicPtr<Room>; WALKS],
}

static THREADS: [AtomicPtr<Thread>; SLOTS] = [const { AtomicPtr::new(null_mut()) }; SLOTS];

impl Thread {
    /// The state of a slot, if it was made already.
    #[inline(always)]
    pub(super) fn at(slot: usize) -> Option<&'static Thread> {
        // SAFETY: a published state is complete and never freed.
        unsafe { THREADS.get(slot)?.load(Acquire).as_ref() }
    }

    /// The state of a slot.
    pub(super) fn make(slot: usize) -> Option<&'static Thread> {
        if let Some(thread) = Thread::at(slot) {
            return Some(thread);
        }
        let place = array::<Thread>(1)?;
        // SAFETY: the memory is of this size and alignment, and ours alone until it is published.
        unsafe {
            place.write(Thread {
                memo: Memo::new()?,
                own: OwnStack::unknown(),
                rooms: [const { AtomicPtr::new(null_mut()) }; WALKS],
            });
        }
        // A signal handler may have been quicker.
        let _ = THREADS
            .get(slot)?
            .compare_exchange(null_mut(), place.as_ptr(), AcqRel, Acquire);
        Thread::at(slot)
    }

    /// Begins a walk: its number among the writers of the memo, and a room.
    pub(super) fn begin(&self, depth: usize) -> Option<(u32, Lent<'_>)> {
        let id = self.memo.next_serial();
        let places = self.memo.writers.iter().zip(&self.rooms);
        // A free place is 0 and so the smallest; numbers grow.
        let (writer, room) = places.min_by_key(|(writer, _)| writer.load(Relaxed))?;
        writer.store(id, Relaxed);
        let mut there = room.load(Relaxed);
        if there.is_null() {
            there = Room::new(depth)?.as_ptr();
            room.store(there, Relaxed);
        }
        // SAFETY: the place is this walk's: it was free, or its walk was abandoned, or checks before each number.
        Some((id, unsafe { Room::lend(NonNull::new(there)?) }))
    }

    /// Ends a walk.
    pub(super) fn end(&self, id: u32) {
        if let Some(writer) = self
            .memo
            .writers
            .iter()
            .find(|writer| writer.load(Relaxed) == id)
        {
            writer.store(0, Relaxed);
        }
    }
}
