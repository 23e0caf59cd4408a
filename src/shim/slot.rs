//! A slot: the private half of an event buffer. Its thread formats lines straight into the buffer, without a lock and
//! without a system call.
//!
//! # The protocol of a line
//! Only the owning thread writes, so it is enough to be safe against signal handlers on that thread, `siglongjmp` out
//! of them, and death at any instruction:
//! 1. `at` = `top`; `top` += the line's room, in one instruction;
//! 2. the line is formatted from `at` + 1 on; `n` += 1;
//! 3. the `{` stored at `at` commits it.
//!
//! A usual heap call's line is measured before, so its room has its length. Any other line takes room for the longest and
//! gives back what it did not need before the commit: if `top` is still where step 1 put it, it moves back to the line's
//! end, in one instruction. If not, a nested event stands behind: the rest of the room is blanked and the newline moves to
//! its end.
//!
//! Between finding its buffer and step 1 a handler may have moved the thread to another: then the room is given back.
//! A room that was never committed holds a NUL: see `thread` for what becomes of the buffer then.

use crate::owner::OwnerWord;
use crate::thread::Ready;
use crate::x86_64::{self, add_local, increment_local, replace_local, stack_pointer};
use crate::{image, thread};
use core::ptr::null_mut;
use core::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering::*, compiler_fence, fence,
};
use memspy_log::tail::{HEADER_SIZE, control, header, state};
use memspy_log::{Digits, HeapCall, HeapText, LAST_FOUR, Line, Portable, Tag, Time};

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

/// Room for a line.
struct Room {
    /// Its first byte.
    first: *mut u8,
    /// The buffer's end of text, which stands at `end` unless a nested event has come behind.
    top: *mut u64,
    end: u64,
}

/// The last time's digits but for the last four. Changed only by a line that has interrupted no other: an interrupted one
/// finds them as they were.
struct TimeDigits {
    /// A time whose last four digits are zeros.
    from: AtomicU64,
    high: [AtomicU64; 2],
    len: AtomicUsize,
}

/// A time that no time comes after: it is 292 years.
const NEVER: u64 = 1 << 63;

/// The private half of an event buffer; the other half, the header and the text, lies in the tail.
#[repr(C, align(64))]
pub(crate) struct Slot {
    /// The buffer's start in the tail.
    buffer: AtomicPtr<u8>,
    /// The buffer's size.
    size: AtomicU64,
    /// Where it counts as full.
    limit: AtomicU64,
    /// Events that the stream has had, lost ones included. Private, so that a forked child knows it.
    n: AtomicU64,
    /// Smallest and largest time in the buffer.
    t_min: AtomicU64,
    t_max: AtomicU64,
    /// Stack pointer of the line under way; 0: none. Stale when a handler jumped away from it.
    active: AtomicUsize,
    /// [`DIRECT`], [`RETIRED`] or 0.
    attention: AtomicU32,
    /// Whether a room that was not needed could not be given back. Until the buffer is emptied.
    left_room: AtomicBool,
    /// Depth of allocator calls that the thread is in; above 0 for ever if a handler jumped out of one.
    in_call: AtomicU32,
    time_digits: TimeDigits,
    /// The reallocarray call under way: its pointer, its size in bytes, and 1 while there is one.
    folded: [AtomicUsize; 3],
    /// Whose the slot is.
    pub(crate) owner: OwnerWord,
    /// See [`Slot::stream`].
    stream: AtomicU64,
    /// Events lost since the last flush.
    pub(crate) lost: AtomicU64,
}

impl Slot {
    /// A slot without a buffer.
    pub(crate) const fn new() -> Slot {
        Slot {
            buffer: AtomicPtr::new(null_mut()),
            size: AtomicU64::new(0),
            limit: AtomicU64::new(0),
            n: AtomicU64::new(0),
            t_min: AtomicU64::new(u64::MAX),
            t_max: AtomicU64::new(0),
            active: AtomicUsize::new(0),
            attention: AtomicU32::new(0),
            left_room: AtomicBool::new(false),
            in_call: AtomicU32::new(0),
            time_digits: TimeDigits {
                from: AtomicU64::new(NEVER),
                high: [const { AtomicU64::new(0) }; 2],
                len: AtomicUsize::new(0),
            },
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
        self.fill_to(size as u64);
    }

    /// The buffer counts as full where a line would reach beyond `limit`, which lies inside it.
    pub(crate) fn fill_to(&self, limit: u64) {
        self.limit.store(limit, Relaxed);
    }

    /// Where the buffer counts as full.
    #[inline(always)]
    pub(crate) fn limit(&self) -> u64 {
        self.limit.load(Relaxed)
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

    /// The thread's number in the log.
    #[inline(always)]
    pub(crate) fn stream(&self) -> u64 {
        self.stream.load(Relaxed)
    }

    /// Events that the stream has had.
    pub(crate) fn n(&self) -> u64 {
        self.n.load(Relaxed)
    }

    /// Corrects the number of events that the stream has had.
    pub(crate) fn count(&self, n: u64) {
        self.n.store(n, Relaxed);
    }

    /// A thread takes the slot over: no line of its own is under way in it.
    pub(crate) fn take_over(&self) {
        self.active.store(0, Relaxed);
    }

    /// Begins a stream at event number `n` + 1 in an empty buffer.
    pub(crate) fn begin(&self, stream: u64, tid: u32, n: u64) {
        self.stream.store(stream, Relaxed);
        self.n.store(n, Relaxed);
        self.lost.store(0, Relaxed);
        self.attention.store(0, Relaxed);
        self.in_call.store(0, Relaxed);
        self.end_fold();
        self.forget_lines();
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

    /// Forgets what was in the buffer: it is empty.
    pub(crate) fn forget_lines(&self) {
        self.reset_times();
        self.left_room.store(false, Relaxed);
    }

    fn reset_times(&self) {
        self.t_min.store(u64::MAX, Relaxed);
        self.t_max.store(0, Relaxed);
    }

    /// Whether a room in the buffer may not be committed. The buffer must be the calling thread's, or a dead one's.
    ///
    /// A line that somebody jumped away from leaves its mark in `active`, and every later line puts it back there.
    pub(crate) fn may_have_gap(&self) -> bool {
        self.active.load(Relaxed) != 0 || self.left_room.load(Relaxed)
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

    /// Whether a reallocarray is under way.
    #[inline(always)]
    pub(crate) fn is_folded(&self) -> bool {
        self.folded[2].load(Relaxed) != 0
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
        is_inside(self.active.load(Relaxed))
    }

    /// Formats and commits a line of at most `MAX` bytes. `t` and `until` are its smallest and largest time.
    #[inline(always)]
    pub(crate) fn line<const MAX: usize>(
        &self,
        tag: &Tag,
        times: (u64, u64),
        build: impl FnOnce(&mut Line),
    ) -> Committed {
        let outer = self.begin_line();
        let taken = match self.take_room(MAX, MAX, || thread::is_current(self)) {
            Ok(taken) => taken,
            Err(why) => return self.end_line(outer, why),
        };
        // SAFETY: the room's bytes are this line's alone.
        let room = unsafe { core::slice::from_raw_parts_mut(taken.first, MAX) };
        let mut line = Line::new(room, tag);
        build(&mut line);
        let Some(len) = line.finish() else {
            self.give_up(room);
            return self.end_line(outer, Committed::Yes);
        };
        // An open room must begin with a NUL, the next one too.
        if let Some(behind) = room.get_mut(len..) {
            let behind = behind.iter_mut().take(Line::SLACK);
            behind.for_each(|byte| *byte = 0);
        }
        // SAFETY: as in `take_room`.
        if !unsafe { replace_local(taken.top, taken.end, taken.end - (MAX - len) as u64) } {
            stretch(room, len);
        }
        self.commit(taken.first, times);
        self.end_line(outer, self.committed())
    }

    /// Formats and commits the line of a heap call, if it is a usual one (`Full` if not: only [`Slot::line`] has the room).
    #[inline(always)]
    pub(crate) fn heap_call<C: HeapCall>(&self, ready: Ready, call: C) -> Committed {
        const REACH: usize = size_of::<HeapText>();
        let outer = self.begin_line();
        let digits = &Pen { slot: self, outer };
        let Some(line) = call.measure(digits) else {
            return self.end_line(outer, Committed::Full);
        };
        let first = match self.take_room(line.len(), REACH, || ready.is_still()) {
            Ok(taken) => taken.first,
            Err(why) => return self.end_line(outer, why),
        };
        // SAFETY: the buffer has so much text from there on; of it, only the line's own bytes are written.
        let text = unsafe { &mut *first.cast::<HeapText>() };
        call.write(&line, text, digits);
        self.commit(first, call.times());
        self.end_line(outer, self.committed())
    }

    /// A line is under way from here on. Answers the stack pointer of the line that it has interrupted.
    #[inline(always)]
    fn begin_line(&self) -> usize {
        let outer = self.active.load(Relaxed);
        self.active.store(stack_pointer(), Relaxed);
        outer
    }

    /// It is over.
    #[inline(always)]
    fn end_line(&self, outer: usize, committed: Committed) -> Committed {
        self.active.store(outer, Relaxed);
        committed
    }

    /// Step 1: takes `len` bytes of room, if there are `reach` bytes left and the buffer is still the one.
    #[inline(always)]
    fn take_room(
        &self,
        len: usize,
        reach: usize,
        is_still: impl FnOnce() -> bool,
    ) -> Result<Room, Committed> {
        let buffer = self.buffer();
        // SAFETY: an attached buffer begins with its header.
        let top = unsafe { buffer.add(header::TOP) }.cast();
        // SAFETY: only the owner writes the field while it makes lines.
        let at = unsafe { add_local(top, len as u64) };
        let end = at + len as u64;
        let is_still = is_still();
        if is_still && at + reach as u64 <= self.limit() {
            return Ok(Room {
                // SAFETY: the limit lies inside the buffer.
                first: unsafe { buffer.add(at as usize) },
                top,
                end,
            });
        }
        // SAFETY: as above.
        if !unsafe { replace_local(top, end, at) } {
            self.left_room.store(true, Relaxed);
        }
        Err(if is_still {
            Committed::Full
        } else {
            Committed::Moved
        })
    }

    /// The end of step 2, and step 3, of the line that begins at `first`.
    #[inline(always)]
    fn commit(&self, first: *mut u8, (t, until): (u64, u64)) {
        self.note_times(t, until);
        // SAFETY: `n` is written by the owner alone.
        unsafe { increment_local(self.n.as_ptr()) };
        compiler_fence(SeqCst);
        // SAFETY: the room is this line's alone; volatile, so that the commit stays behind the body.
        unsafe { first.write_volatile(b'{') };
        compiler_fence(SeqCst);
    }

    /// What a commit ends with.
    #[inline(always)]
    fn committed(&self) -> Committed {
        if self.attention() == 0 {
            Committed::Yes
        } else {
            Committed::Noticed
        }
    }

    /// A line that does not fit its room becomes blanks and a lost event.
    #[cold]
    fn give_up(&self, room: &mut [u8]) {
        if let Some((newline, blanks)) = room.split_last_mut() {
            blanks.fill(b' ');
            *newline = b'\n';
        }
        self.lose();
    }

    /// Counts an event that could not be kept. Its number is taken, so that the gap proves the loss.
    pub(crate) fn lose(&self) {
        self.n.fetch_add(1, Relaxed);
        self.lost.fetch_add(1, Relaxed);
        image::word(control::LOST).fetch_add(1, Relaxed);
    }
}

/// Whether a line that began at stack pointer `active` (0: none) may still be finished, seen from a function that it may
/// have been interrupted for.
///
/// A signal handler runs at least a kilobyte below what it interrupted (the kernel saves the registers there), or
/// on another stack. A hook at about the same place can only be called when that frame is gone.
#[inline(always)]
fn is_inside(active: usize) -> bool {
    let gone = active.wrapping_sub(1024)..active.wrapping_add(4096);
    active != 0 && !gone.contains(&stack_pointer())
}

/// Formats the numbers of one line.
struct Pen<'a> {
    slot: &'a Slot,
    /// The stack pointer of the line that this one has interrupted.
    outer: usize,
}

impl Pen<'_> {
    /// Works a time's digits out and keeps them, unless an interrupted line may be about to use those that are there.
    /// Answers whether they are kept.
    #[cold]
    #[inline(never)]
    fn keep_digits(&self, t: u64) -> bool {
        let Some(time) = Portable.time(t).filter(|_| !is_inside(self.outer)) else {
            return false;
        };
        let kept = &self.slot.time_digits;
        // A handler that comes between finds none.
        kept.from.store(NEVER, Relaxed);
        compiler_fence(SeqCst);
        for (word, digits) in kept.high.iter().zip(Portable.high(t)) {
            word.store(digits, Relaxed);
        }
        kept.len.store(time.len, Relaxed);
        compiler_fence(SeqCst);
        kept.from.store(t - u64::from(time.low), Relaxed);
        true
    }
}

/// Of a time all but the last four digits are those of the event before, nearly always.
impl Digits for Pen<'_> {
    #[inline(always)]
    fn time(&self, t: u64) -> Option<Time> {
        let kept = &self.slot.time_digits;
        let mut low = t.wrapping_sub(kept.from.load(Relaxed));
        if low >= LAST_FOUR {
            if !self.keep_digits(t) {
                return None;
            }
            low = t.wrapping_sub(kept.from.load(Relaxed));
        }
        Some(Time {
            len: kept.len.load(Relaxed),
            low: low as u32,
        })
    }

    #[inline(always)]
    fn high(&self, _t: u64) -> [u64; 2] {
        [0, 1].map(|i| self.slot.time_digits.high[i].load(Relaxed))
    }

    #[inline(always)]
    fn hex(&self, value: u64, zero: [u8; 16]) -> [u8; 16] {
        x86_64::hex(value, zero)
    }
}

/// Fills the room of a line of `len` bytes with blanks and moves its newline to the end.
#[cold]
fn stretch(room: &mut [u8], len: usize) {
    if let Some((newline, text)) = room.split_last_mut()
        && let Some(rest) = text.get_mut(len - 1..)
    {
        rest.fill(b' ');
        *newline = b'\n';
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_formats_as_arithmetic_does() {
        let slot = Slot::new();
        let pen = Pen {
            slot: &slot,
            outer: 0,
        };
        let mut value = 1u64;
        for step in 0..200_000u64 {
            // Times that grow slowly, with a leap now and then, also back.
            let t = (step % 7) * 10u64.pow((step % 19) as u32) + step * 1_003;
            for _ in 0..2 {
                assert_eq!(pen.time(t), Portable.time(t), "{t}");
                if pen.time(t).is_some() {
                    assert_eq!(pen.high(t), Portable.high(t), "{t}");
                }
            }
            value = value
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            for zero in [[b'0'; 16], *b"0000000000000\"}\n"] {
                let address = value >> (step % 64) & !0xfff;
                assert_eq!(
                    pen.hex(address, zero),
                    Portable.hex(address, zero),
                    "{address:#x}"
                );
            }
        }
    }

    #[test]
    fn a_line_that_interrupts_another_leaves_it_the_digits_that_it_has() {
        let slot = Slot::new();
        let [outer, inner] =
            [0, stack_pointer() + (1 << 20)].map(|outer| Pen { slot: &slot, outer });
        outer.time(123_456_789);
        let high = outer.high(123_456_789);
        assert_eq!(inner.time(987_654_321), None);
        assert_eq!(inner.time(123_456_790).map(|time| time.low), Some(6790));
        assert_eq!(outer.high(123_456_789), high);
    }
}
