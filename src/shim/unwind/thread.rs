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
    AtomicPtr, AtomicU32,
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

/// A walk's number, and its place among the walks of its thread.
#[derive(Clone, Copy)]
pub(super) struct Turn {
    pub(super) id: u32,
    pub(super) place: usize,
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
    /// The walk that last noted something for all threads.
    taught: AtomicU32,
}

/// So many numbers of walks and entries pass before a walk again notes what it has learnt where all threads see it.
const TEACHING: u32 = 256;

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
                taught: AtomicU32::new(0u32.wrapping_sub(TEACHING)),
            });
        }
        // A signal handler may have been quicker.
        let _ = THREADS
            .get(slot)?
            .compare_exchange(null_mut(), place.as_ptr(), AcqRel, Acquire);
        Thread::at(slot)
    }

    /// Begins a walk: its place among the writers of the memo, and a room.
    #[inline(always)]
    pub(super) fn begin(&self, depth: usize) -> Option<(Turn, Lent<'_>)> {
        let id = self.memo.next_serial();
        let writers = &self.memo.writers;
        let free = writers.iter().position(|writer| writer.load(Relaxed) == 0);
        // Numbers grow: the smallest is the oldest.
        let oldest = || (0..WALKS).min_by_key(|place| writers[*place].load(Relaxed));
        let place = free.or_else(oldest)?;
        let (writer, room) = (writers.get(place)?, self.rooms.get(place)?);
        writer.store(id, Relaxed);
        let there = room.load(Relaxed);
        let there = match NonNull::new(there) {
            Some(there) => there,
            None => {
                let made = Room::new(depth)?;
                room.store(made.as_ptr(), Relaxed);
                made
            }
        };
        // SAFETY: the place is this walk's: it was free, or its walk was abandoned, or checks before each number.
        Some((Turn { id, place }, unsafe { Room::lend(there) }))
    }

    /// Whether it is this walk's turn to note what it has learnt.
    pub(super) fn may_teach(&self, turn: Turn) -> bool {
        let may = turn.id.wrapping_sub(self.taught.load(Relaxed)) >= TEACHING;
        if may {
            self.taught.store(turn.id, Relaxed);
        }
        may
    }

    /// Ends a walk.
    #[inline(always)]
    pub(super) fn end(&self, turn: Turn) {
        if self.memo.is_writer(turn)
            && let Some(writer) = self.memo.writers.get(turn.place)
        {
            writer.store(0, Relaxed);
        }
    }
}
