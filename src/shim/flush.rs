//! Brings the lines of a buffer into the log.
//!
//! # The protocol
//! A run of committed lines is written with its block line directly before it, as one range of the buffer:
//! 1. the block line is written over dead bytes before the run (header space, or text that is in the log already);
//! 2. `off` = the log's end, moved on by the range's length, in one atomic step;
//! 3. `flush_from`, `flush_off`, then `flush_len`: from here the range belongs at `off`, whoever writes it;
//! 4. positioned write of the range;
//! 5. if the buffer is done: `flush_len` = VOID, wipe, `top` back; else `first_n` and `flushed` move on;
//! 6. `flush_len` = 0.
//!
//! A process that dies between any two of these loses nothing: `FORMAT.md` (*The tail*) says how a reader takes it up.
//! Signals are blocked by the callers, so that no handler finds its own thread halfway.

use crate::owner::Owner;
use crate::slot::Slot;
use crate::sys::Errno;
use crate::{align, clock, file, image, owner, sys};
use core::sync::atomic::{AtomicU64, Ordering::*};
use memspy_log::tail::{HEADER_SIZE, VOID, control, header};
use memspy_log::{HeapText, Line, Op, key, tag};

/// The longest block line, and so the room that must lie before a run.
pub(crate) const MAX_BLOCK: usize = 384;

const _: () = assert!(MAX_BLOCK + FIELDS <= HEADER_SIZE);

/// What may be written of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Up to the first line that is not committed. The buffer's thread may be making lines meanwhile, so it is not
    /// emptied.
    Committed,
    /// Everything, by the buffer's own thread or after its death; what is not committed was abandoned.
    All,
    /// The same, and the stream ends here.
    Last,
}

/// Numbers of a block line beside its run.
pub(crate) struct Block {
    pub(crate) stream: u64,
    pub(crate) tid: u64,
    pub(crate) n: u64,
    pub(crate) events: u64,
    pub(crate) bytes: u64,
    pub(crate) times: (u64, u64),
    pub(crate) last: bool,
    /// Whether to carry the clock pair and the resident size: three system calls.
    pub(crate) sample: bool,
}

/// Formats a block line at the end of `room`; answers its length.
pub(crate) fn block_line(block: &Block, room: &mut [u8; MAX_BLOCK]) -> usize {
    let mut line = Line::whole(room, const { &tag(Op::Block) });
    line.num(const { &key("thread") }, block.stream);
    line.num(const { &key("tid") }, block.tid);
    line.num(const { &key("n") }, block.n);
    line.num(const { &key("events") }, block.events);
    line.num(const { &key("bytes") }, block.bytes);
    let (t, until) = block.times;
    line.num(const { &key("t") }, if t == u64::MAX { until } else { t });
    line.num(const { &key("until") }, until);
    if block.sample {
        let mono_ns = sys::clock_ns(libc::CLOCK_MONOTONIC);
        line.num(const { &key("mono_ns") }, mono_ns);
        line.num(const { &key("at") }, clock::before());
        if let Some(rss) = due(mono_ns).then(file::resident_bytes).flatten() {
            line.num(const { &key("rss") }, rss);
        }
    }
    if block.last {
        line.flag(const { &key("last") }, true);
    }
    line.finish().unwrap_or(0)
}

/// Whether a millisecond has gone by since the resident size was last read.
fn due(mono_ns: u64) -> bool {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let last = LAST.load(Relaxed);
    mono_ns.wrapping_sub(last) >= 1_000_000
        && LAST
            .compare_exchange(last, mono_ns, Relaxed, Relaxed)
            .is_ok()
}

/// Writes what `reach` allows of the slot's buffer.
///
/// Answers whether nothing is pending in it now. `Ok(false)` also when another thread is flushing it.
pub(crate) fn flush(slot: &Slot, reach: Reach) -> Result<bool, Errno> {
    let flusher = slot.field32(header::FLUSHER);
    owner::in_turn(flusher, own_id(), || write_out(slot, reach)).unwrap_or(Ok(false))
}

/// Writes all of a buffer whose owner is dead, and ends the stream. `Ok(false)` also when another thread is flushing the
/// buffer, or has taken it over since `dead` was read.
pub(crate) fn flush_dead(slot: &Slot, dead: Owner) -> Result<bool, Errno> {
    let flusher = slot.field32(header::FLUSHER);
    let write = || write_out(slot, Reach::Last);
    owner::in_turn_of(&slot.owner, dead, flusher, own_id(), write).unwrap_or(Ok(false))
}

/// The calling thread's id, or some number where no system call may be made.
fn own_id() -> u32 {
    if image::sandboxed() {
        1
    } else {
        sys::gettid() as u32
    }
}

fn write_out(slot: &Slot, reach: Reach) -> Result<bool, Errno> {
    let top = slot.field(header::TOP).load(Acquire).min(slot.size());
    if slot.field(header::FLUSH_LEN).load(Relaxed) != 0 {
        finish_write(slot)?;
    }
    // The lines of a thread that goes on are counted: its number may be ahead of `top` as it was read.
    let whole = reach != Reach::Committed && !has_gap(slot, top);
    let mut ended = false;
    loop {
        let from = slot.field(header::FLUSHED).load(Relaxed);
        let Some(run) = next_run(slot, from, top, whole, reach) else {
            break;
        };
        let last = reach == Reach::Last && run.end == top;
        ended |= last;
        write_run(slot, &run, last)?;
    }
    if reach == Reach::Last && !ended {
        let end = slot.field(header::FLUSHED).load(Relaxed);
        write_run(
            slot,
            &Run {
                start: end,
                end,
                events: 0,
            },
            true,
        )?;
    }
    if reach == Reach::Committed {
        return Ok(
            slot.field(header::FLUSHED).load(Relaxed) == slot.field(header::TOP).load(Acquire)
        );
    }
    if !whole {
        // A line that was abandoned just before its commit had taken a number: the next one gets it.
        slot.count(slot.field(header::FIRST_N).load(Relaxed) - 1 + slot.lost.load(Relaxed));
    }
    empty(slot, top);
    Ok(true)
}

/// A stretch of committed lines.
struct Run {
    start: u64,
    end: u64,
    events: u64,
}

/// Whether a line before `top` is not committed (a committed line holds no NUL, an open room does). The buffer must be the
/// calling thread's, or a dead one's.
pub(crate) fn has_gap(slot: &Slot, top: u64) -> bool {
    if !slot.may_have_gap() {
        return false;
    }
    let from = slot.field(header::FLUSHED).load(Relaxed);
    let bytes = text(slot, from, top);
    // SAFETY: reads the slice only; libc's is four times as fast as core's, and it is no cancellation point.
    !unsafe { libc::memchr(bytes.as_ptr().cast(), 0, bytes.len()) }.is_null()
}

fn text(slot: &Slot, from: u64, to: u64) -> &[u8] {
    let len = to.saturating_sub(from) as usize;
    // SAFETY: callers pass offsets inside the buffer, which is mapped for ever; only committed bytes are relied upon.
    unsafe { core::slice::from_raw_parts(slot.buffer().add(from as usize), len) }
}

fn next_run(slot: &Slot, from: u64, top: u64, whole: bool, reach: Reach) -> Option<Run> {
    if from >= top {
        return None;
    }
    if whole {
        let pending = slot.field(header::FIRST_N).load(Relaxed);
        let events = (slot.n() + 1).saturating_sub(pending + slot.lost.load(Relaxed));
        return Some(Run {
            start: from,
            end: top,
            events,
        });
    }
    let bytes = text(slot, from, top);
    let mut at = 0;
    let next = loop {
        match starts_line(bytes, at) {
            Some(false) => at += 1,
            answer => break answer,
        }
    };
    if at > 0 && reach == Reach::Committed {
        return None;
    }
    image::word(control::ABANDONED).fetch_add(rooms(bytes.get(..at).unwrap_or(bytes)), Relaxed);
    next?;
    let start = at;
    let mut events = 0;
    while starts_line(bytes, at) == Some(true) {
        let Some(len) = bytes.get(at..)?.iter().position(|byte| *byte == b'\n') else {
            break;
        };
        at += len + 1;
        events += 1;
    }
    (at > start).then(|| Run {
        start: from + start as u64,
        end: from + at as u64,
        events,
    })
}

/// How many lines were begun in a stretch without a committed line and never finished. Each has its opening; if none has,
/// the stretch is one room.
fn rooms(gap: &[u8]) -> u64 {
    let opening = br#""op":""#;
    let openings = gap.windows(opening.len()).filter(|text| text == opening);
    match openings.count() {
        0 => u64::from(!gap.is_empty()),
        openings => openings as u64,
    }
}

/// Whether a committed line starts at `at`; `None` at the end.
fn starts_line(bytes: &[u8], at: usize) -> Option<bool> {
    let byte = *bytes.get(at)?;
    let before = at.checked_sub(1).and_then(|at| bytes.get(at));
    Some(byte == b'{' && matches!(before, None | Some(0 | b'\n')))
}

fn write_run(slot: &Slot, run: &Run, last: bool) -> Result<(), Errno> {
    let n = slot.field(header::FIRST_N).load(Relaxed);
    let mut room = [0u8; MAX_BLOCK];
    let block = Block {
        stream: slot.stream(),
        tid: u64::from(slot.field32(header::TID).load(Relaxed)),
        n,
        events: run.events,
        bytes: run.end - run.start,
        times: slot.times(),
        last,
        sample: true,
    };
    let head = block_line(&block, &mut room);
    let bytes = head as u64 + run.end - run.start;
    let blanks = if bytes < align::WORTH {
        0
    } else {
        align::blanks(bytes, (HEADER_SIZE - FIELDS - head) as u64)
    };
    let from = run.start - head as u64 - blanks;
    // SAFETY: the bytes before a run are header space or text that is in the log already.
    unsafe {
        let place = slot.buffer().add(from as usize);
        core::ptr::copy_nonoverlapping(room.as_ptr(), place, head);
        if blanks > 0 {
            place.add(head - 1).write_bytes(b' ', blanks as usize);
            place.add(head - 1 + blanks as usize).write(b'\n');
        }
    }
    let len = blanks + bytes;
    let off = image::word(control::LOG_END).fetch_add(len, AcqRel);
    slot.field(header::FLUSH_FROM).store(from, Relaxed);
    slot.field(header::FLUSH_OFF).store(off, Release);
    slot.field(header::FLUSH_LEN).store(len, Release);
    // The block's numbers, kept for `finish_write` if the write fails now and works later.
    slot.field(PENDING_N).store(n + run.events, Relaxed);
    finish_write(slot)
}

/// `first_n` after the write under way; private to this module, no reader needs it.
const PENDING_N: usize = 64;
/// Bytes of a buffer's header that are in use.
const FIELDS: usize = PENDING_N + 8;

/// Writes the range that step 3 has settled.
fn finish_write(slot: &Slot) -> Result<(), Errno> {
    let from = slot.field(header::FLUSH_FROM).load(Relaxed);
    let off = slot.field(header::FLUSH_OFF).load(Relaxed);
    let len = slot.field(header::FLUSH_LEN).load(Relaxed);
    // SAFETY: the range lies in the buffer.
    unsafe { file::write_log(slot.buffer().add(from as usize), len as usize, off)? };
    slot.field(header::FIRST_N)
        .store(slot.field(PENDING_N).load(Relaxed), Release);
    slot.field(header::FLUSHED).store(from + len, Release);
    slot.field(header::FLUSH_LEN).store(0, Release);
    Ok(())
}

/// Makes the buffer as new: all of it is in the log.
fn empty(slot: &Slot, top: u64) {
    slot.field(header::FLUSH_LEN).store(VOID, Release);
    slot.lost.store(0, Relaxed);
    slot.field(header::FIRST_N).store(slot.n() + 1, Release);
    // SAFETY: the text up to `top` lies in the buffer and is in the log.
    unsafe {
        let text = slot.buffer().add(HEADER_SIZE);
        text.write_bytes(0, (top as usize).saturating_sub(HEADER_SIZE));
    }
    slot.forget_lines();
    slot.field(header::TOP).store(HEADER_SIZE as u64, Release);
    slot.field(header::FLUSHED)
        .store(HEADER_SIZE as u64, Release);
    slot.field(header::FLUSH_LEN).store(0, Release);
    if slot.size() >= align::WORTH {
        slot.fill_to(align::limit(slot.size(), size_of::<HeapText>() as u64));
    }
}
