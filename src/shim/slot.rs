//! A slot: the private half of an event buffer. Its thread formats lines straight into the buffer, without a lock and
//! without a system call.
//!
//! # The protocol of a line
//! Only the owning thread writes, so it is enough to be safe against signal handlers on that thread, `siglongjmp` out
//! of them, and death at any instruction:
//! 1. `at` = `top`; `top` += room for the longest line, in one instruction;
//! 2. the line is formatted from `at` + 1 on; `n` += 1;
//! 3. the `{` stored at `at` commits it;
//! 4. if `top` is still where step 1 put it, it moves back to the line's end, in one instruction. If not, a nested
//!    event stands behind: the rest of the room is blanked and the newline moves to its end.
//!
//! Between finding its buffer and step 1 a handler may have moved the thread to another: then the room is given back.
//! A room that was never committed holds a NUL: see `thread` for what becomes of the buffer then.

use crate::owner::OwnerWord;
use crate::x86_64::{self, LocalPair, add_local, increment_local, replace_local, stack_pointer};
use crate::{image, thread};
use core::ptr::null_mut;
use core::sync::atomic::{
    AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering::*, compiler_fence, fence,
};
use memspy_log::tail::{HEADER_SIZE, control, header, state};
use memspy_log::{Digits, HeapCall, HeapText, Line, Portable, Tag};

/// The image is ending: what was committed goes to the log at once.
pub(crate) const DIRECT: u32 = 1;
/// The thread has moved to another buffer; an interrupted line may still be finished here.
pub(crate) const RETIRED: u32 = 2;

/// What a line's formatting ended with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Committed {
    /// In the buffer.
    Yes,
    /// In the buffer, and somebody waits for it: see [`Slot::attention`].
    Noticed,
    /// No room.
    Full,
    /// The thread has another buffer meanwhile.
    Moved,
}

/// Room for a line, between steps 1 and 4.
struct Room {
    /// Its first byte.
    first: *mut u8,
    /// The buffer's end of text, which stands at `end` unless a nested event has come behind.
    top: *mut u64,
    end: u64,
    /// The stack pointer of the line that this one interrupted.
    outer: usize,
}

/// The private half of an event buffer; the other half, the header and the text, lies in the tail.
#[repr(C, align(64))]
pub(crate) struct Slot {
    /// The buffer's start in the tail.
    buffer: AtomicPtr<u8>,
    /// The buffer's size.
    size: AtomicU64,
    /// Events that the stream has had, lost ones included. Private, so that a forked child knows it.
    n: AtomicU64,
    /// Smallest and largest time in the buffer.
    t_min: AtomicU64,
    t_max: AtomicU64,
    /// Stack pointer of the line under way; 0: none. Stale when a handler jumped away from it.
    active: AtomicUsize,
    /// [`DIRECT`], [`RETIRED`] or 0.
    attention: AtomicU32,
    /// Depth of allocator calls that the thread is in; above 0 for ever if a handler jumped out of one.
    in_call: AtomicU32,
    /// A time whose last eight digits are zeros, and its other digits: see [`Digits::split`].
    time_digits: LocalPair,
    /// The reallocarray call under way: its pointer, its size in bytes, and 1 while there is one.
    folded: [AtomicUsize; 3],
    /// Whose the slot is.
    pub(crate) owner: OwnerWord,
    /// The stream: the thread's number in the log.
    pub(crate) stream: AtomicU64,
    /// Events lost since the last flush.
    pub(crate) lost: AtomicU64,
}

impl Slot {
    /// A slot without a buffer.
    pub(crate) const fn new() -> Slot {
        Slot {
            buffer: AtomicPtr::new(null_mut()),
            size: AtomicU64::new(0),
            n: AtomicU64::new(0),
            t_min: AtomicU64::new(u64::MAX),
            t_max: AtomicU64::new(0),
            active: AtomicUsize::new(0),
            attention: AtomicU32::new(0),
            in_call: AtomicU32::new(0),
            time_digits: LocalPair::new(),
            folded: [const { AtomicUsize::new(0) }; 3],
            owner: OwnerWord::free(),
            stream: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        }
    }

    /// Gives the slot its buffer.
    pub(crate) fn attach(&self, buffer: *mut u8, size: usize) {
        self.buffer.store(buffer, Relaxed);
        self.size.store(size as u64, Relaxed);
    }

    /// The buffer's start.
    #[inline(always)]
    pub(crate) fn buffer(&self) -> *mut u8 {
        self.buffer.load(Relaxed)
    }

    /// The buffer's size in bytes.
    #[inline(always)]
    pub(crate) fn size(&self) -> u64 {
        self.size.load(Relaxed)
    }

    /// A 64-bit field of the buffer's header.
    #[inline(always)]
    pub(crate) fn field(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: an attached buffer is mapped for ever; the offsets of `header` are aligned and inside its header.
        unsafe { AtomicU64::from_ptr(self.buffer().add(offset).cast()) }
    }

    /// A 32-bit field of the buffer's header.
    pub(crate) fn field32(&self, offset: usize) -> &AtomicU32 {
        // SAFETY: as in `field`.
        unsafe { AtomicU32::from_ptr(self.buffer().add(offset).cast()) }
    }

    /// Whether no line is in the buffer.
    pub(crate) fn is_empty(&self) -> bool {
        self.field(header::TOP).load(Relaxed) == HEADER_SIZE as u64
    }

    /// Events that the stream has had.
    pub(crate) fn n(&self) -> u64 {
        self.n.load(Relaxed)
    }

    /// Corrects the number of events that the stream has had.
    pub(crate) fn count(&self, n: u64) {
        self.n.store(n, Relaxed);
    }

    /// Begins a stream at event number `n` + 1 in an empty buffer.
    pub(crate) fn begin(&self, stream: u64, tid: u32, n: u64) {
        self.stream.store(stream, Relaxed);
        self.n.store(n, Relaxed);
        self.lost.store(0, Relaxed);
        self.attention.store(0, Relaxed);
        self.in_call.store(0, Relaxed);
        self.end_fold();
        self.active.store(0, Relaxed);
        self.reset_times();
        self.field32(header::TID).store(tid, Relaxed);
        self.field(header::FIRST_N).store(n + 1, Relaxed);
        self.field(header::TOP).store(HEADER_SIZE as u64, Relaxed);
        self.field(header::FLUSHED)
            .store(HEADER_SIZE as u64, Relaxed);
        self.field(header::FLUSH_LEN).store(0, Relaxed);
        self.field(header::THREAD).store(stream, Release);
        // The end sets the state, then asks every slot: if that was undone above, the state is seen here.
        fence(SeqCst);
        if image::state() == state::DIRECT {
            self.notify(DIRECT);
            if image::state() != state::DIRECT {
                // An exec has failed, and its thread may have calmed the slots before.
                self.calm(DIRECT);
            }
        }
    }

    /// Smallest and largest time since the last reset.
    pub(crate) fn times(&self) -> (u64, u64) {
        (self.t_min.load(Relaxed), self.t_max.load(Relaxed))
    }

    /// Forgets the times: the buffer is empty.
    pub(crate) fn reset_times(&self) {
        self.t_min.store(u64::MAX, Relaxed);
        self.t_max.store(0, Relaxed);
    }

    #[inline(always)]
    fn note_times(&self, t: u64, until: u64) {
        if t < self.t_min.load(Relaxed) {
            self.t_min.store(t, Relaxed);
        }
        if until > self.t_max.load(Relaxed) {
            self.t_max.store(until, Relaxed);
        }
    }

    /// What the thread must see to before its next line and after its last.
    #[inline(always)]
    pub(crate) fn attention(&self) -> u32 {
        self.attention.load(Relaxed)
    }

    /// Asks the owner to see to something.
    pub(crate) fn notify(&self, what: u32) {
        self.attention.fetch_or(what, SeqCst);
    }

    /// Nothing to see to any more.
    pub(crate) fn calm(&self, what: u32) {
        self.attention.fetch_and(!what, SeqCst);
    }

    /// The thread enters an allocator call.
    #[inline(always)]
    pub(crate) fn enter(&self) {
        self.in_call
            .store(self.in_call.load(Relaxed).wrapping_add(1), Relaxed);
    }

    /// The thread is back from an allocator call.
    #[inline(always)]
    pub(crate) fn leave(&self) {
        self.in_call
            .store(self.in_call.load(Relaxed).wrapping_sub(1), Relaxed);
    }

    /// Whether the thread is in an allocator call.
    pub(crate) fn is_inside(&self) -> bool {
        self.in_call.load(Relaxed) != 0
    }

    /// Notes a reallocarray, whose libc function will call realloc with these arguments.
    pub(crate) fn fold(&self, old: usize, size: usize) {
        let [of, to, under_way] = &self.folded;
        of.store(old, Relaxed);
        to.store(size, Relaxed);
        under_way.store(1, Relaxed);
    }

    /// Whether a realloc has the arguments of the reallocarray under way. Once.
    pub(crate) fn unfold(&self, old: usize, size: usize) -> bool {
        let [of, to, under_way] = &self.folded;
        let same = of.load(Relaxed) == old && to.load(Relaxed) == size;
        same && under_way.swap(0, Relaxed) != 0
    }

    /// The reallocarray is over.
    pub(crate) fn end_fold(&self) {
        self.folded[2].store(0, Relaxed);
    }

    /// Whether the caller, a hook without a line under way, may have interrupted one that will still be finished.
    ///
    /// A signal handler runs at least a kilobyte below what it interrupted (the kernel saves the registers there), or
    /// on another stack. A hook at about the same place can only be called when that frame is gone.
    pub(crate) fn is_nested(&self) -> bool {
        let active = self.active.load(Relaxed);
        let gone = active.wrapping_sub(1024)..active.wrapping_add(4096);
        active != 0 && !gone.contains(&stack_pointer())
    }

    /// Formats and commits a line of at most `MAX` bytes. `t` and `until` are its smallest and largest time.
    #[inline(always)]
    pub(crate) fn line<const MAX: usize>(
        &self,
        tag: &Tag,
        times: (u64, u64),
        build: impl FnOnce(&mut Line),
    ) -> Committed {
        let room = match self.take_room(MAX) {
            Ok(room) => room,
            Err(why) => return why,
        };
        // SAFETY: the room's bytes are this line's alone.
        let text = unsafe { core::slice::from_raw_parts_mut(room.first, MAX) };
        let mut line = Line::new(text, tag);
        build(&mut line);
        match line.finish() {
            Some(len) => self.commit(&room, MAX, len, times),
            None => self.give_up(&room, MAX),
        }
    }

    /// Formats and commits the line of a heap call.
    #[inline(always)]
    pub(crate) fn heap_call(&self, call: impl HeapCall) -> Committed {
        const MAX: usize = size_of::<HeapText>();
        let room = match self.take_room(MAX) {
            Ok(room) => room,
            Err(why) => return why,
        };
        // SAFETY: the room's bytes are this line's alone.
        let text = unsafe { &mut *room.first.cast::<HeapText>() };
        let len = call.write(text, self);
        self.commit(&room, MAX, len, call.times())
    }

    /// Works out and keeps the digits for [`Digits::split`].
    #[cold]
    #[inline(never)]
    fn split_anew(&self, time: u64) -> (u64, u32) {
        let (high, low) = Portable.split(time);
        if time < 100_000_000 || high != 0 {
            self.time_digits.store([time - u64::from(low), high]);
        }
        (high, low)
    }

    /// Step 1: takes room for a line of at most `max` bytes.
    #[inline(always)]
    fn take_room(&self, max: usize) -> Result<Room, Committed> {
        let top = self.field(header::TOP).as_ptr();
        let outer = self.active.load(Relaxed);
        self.active.store(stack_pointer(), Relaxed);
        // SAFETY: `top` is the header's field, and only the owner writes it while it makes lines.
        let at = unsafe { add_local(top, max as u64) };
        let end = at + max as u64;
        let current = thread::is_current(self);
        if end > self.size() || !current {
            // SAFETY: as above.
            unsafe { replace_local(top, end, at) };
            self.active.store(outer, Relaxed);
            return Err(if current {
                Committed::Full
            } else {
                Committed::Moved
            });
        }
        Ok(Room {
            // SAFETY: `at`..`end` lies inside the buffer.
            first: unsafe { self.buffer().add(at as usize) },
            top,
            end,
            outer,
        })
    }

    /// Steps 2 to 4, behind the formatting: counts, commits and gives back what is left of the room.
    #[inline(always)]
    fn commit(&self, room: &Room, max: usize, len: usize, (t, until): (u64, u64)) -> Committed {
        self.note_times(t, until);
        // SAFETY: `n` is written by the owner alone.
        unsafe { increment_local(self.n.as_ptr()) };
        compiler_fence(SeqCst);
        // SAFETY: the room is this line's alone; volatile, so that the commit stays behind the body.
        unsafe { room.first.write_volatile(b'{') };
        compiler_fence(SeqCst);
        let line_end = room.end - (max - len) as u64;
        // SAFETY: as for the first step.
        if !unsafe { replace_local(room.top, room.end, line_end) } {
            stretch(room.first, len, max);
        }
        self.active.store(room.outer, Relaxed);
        if self.attention() == 0 {
            Committed::Yes
        } else {
            Committed::Noticed
        }
    }

    /// A line that does not fit its room becomes blanks and a lost event.
    #[cold]
    fn give_up(&self, room: &Room, max: usize) -> Committed {
        // SAFETY: the room of `max` bytes is this line's alone.
        unsafe {
            room.first.write_bytes(b' ', max - 1);
            room.first.add(max - 1).write_volatile(b'\n');
        }
        self.active.store(room.outer, Relaxed);
        self.lose();
        Committed::Yes
    }

    /// Counts an event that could not be kept. Its number is taken, so that the gap proves the loss.
    pub(crate) fn lose(&self) {
        self.n.fetch_add(1, Relaxed);
        self.lost.fetch_add(1, Relaxed);
        image::word(control::LOST).fetch_add(1, Relaxed);
    }
}

/// Of a time all but the last eight digits are those of the event before, nearly always.
impl Digits for Slot {
    #[inline(always)]
    fn split(&self, time: u64) -> (u64, u32) {
        let [from, high] = self.time_digits.load();
        let low = time.wrapping_sub(from);
        if low < 100_000_000 {
            (high, low as u32)
        } else {
            self.split_anew(time)
        }
    }

    #[inline(always)]
    fn hex(&self, address: usize) -> ([u8; 16], usize) {
        let zeros = (address | 1).leading_zeros() / 4;
        (
            x86_64::hex((address as u64) << (4 * zeros)),
            16 - zeros as usize,
        )
    }
}

/// Fills a committed line of `len` bytes up to `max` and moves its newline to the end, death-proof at each step.
#[cold]
fn stretch(first: *mut u8, len: usize, max: usize) {
    // SAFETY: the room of `max` bytes at `first` is this line's alone.
    unsafe {
        first.add(len).write_bytes(b' ', max - 1 - len);
        first.add(max - 1).write_volatile(b'\n');
        compiler_fence(SeqCst);
        first.add(len - 1).write_volatile(b' ');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_formats_as_arithmetic_does() {
        let slot = Slot::new();
        let mut value = 1u64;
        for step in 0..200_000u64 {
            // Times that grow slowly, with a leap now and then, also back.
            let t = (step % 7) * 10u64.pow((step % 19) as u32) + step * 1_000_003;
            for _ in 0..2 {
                assert_eq!(slot.split(t), Portable.split(t), "{t}");
            }
            value = value
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let address = (value >> (step % 64)) as usize;
            assert_eq!(slot.hex(address), Portable.hex(address), "{address:#x}");
        }
    }
}
