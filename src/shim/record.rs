//! An event's way into the log: straight into the thread's buffer, or aside when there is none.

use crate::flush::{Block, MAX_BLOCK, block_line};
use crate::slot::Committed;
use crate::thread::Ready;
use crate::{file, image, settings, sys, thread};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::*};
use memspy_log::tail::{control, state};
use memspy_log::{HeapCall, Line, MAX_EVENT, Tag};

/// Writes an event whose smallest time is `t` and whose largest is `until`.
///
/// Hook-safe: no system call but for the flush of a full buffer.
#[inline(always)]
pub(crate) fn event(tag: &Tag, t: u64, until: u64, build: impl Fn(&mut Line)) {
    if !settings::events() {
        return;
    }
    let slot = thread::slot();
    if !settings::events() {
        // This call began the image, and only now is it known what is wanted.
        return;
    }
    if let Some(slot) = slot {
        match slot.line::<MAX_EVENT>(tag, (t, until), &build) {
            Committed::Yes => return,
            Committed::Noticed => return thread::noticed(slot),
            Committed::Full | Committed::Moved => {}
        }
    }
    event_kept::<MAX_EVENT>(tag, (t, until), &build);
}

/// Writes a heap call. `ready`: what [`thread::ready`] answered when its time was taken.
///
/// Hook-safe: no system call but for the flush of a full buffer.
#[inline(always)]
pub(crate) fn heap_call<C: HeapCall>(ready: Option<Ready>, call: impl Fn() -> C) {
    if let Some(ready) = ready
        && heap_call_at_once(ready, call())
    {
        return;
    }
    // Made anew, so that it lies in registers above.
    heap_call_kept(call());
}

/// Writes a heap call if its line is a usual one and nothing stands in the way; answers whether it did.
///
/// Hook-safe: no system call.
#[inline(always)]
pub(crate) fn heap_call_at_once(ready: Ready, call: impl HeapCall) -> bool {
    match ready.slot().heap_call(ready, call) {
        Committed::Yes => true,
        Committed::Noticed => {
            thread::noticed(ready.slot());
            true
        }
        Committed::Full | Committed::Moved => false,
    }
}

#[cold]
#[inline(never)]
fn heap_call_kept(call: impl HeapCall) {
    // The call may be the one that begins the image; only then is it known what is wanted.
    let _ = thread::slot();
    if settings::events() {
        event_kept::<MAX_EVENT>(call.opening(), call.times(), &|line| call.put(line));
    }
}

/// Writes a line of at most `MAX` bytes, in whatever mode; answers whether it was kept.
#[cold]
#[inline(never)]
pub(crate) fn event_kept<const MAX: usize>(
    tag: &Tag,
    times: (u64, u64),
    build: &dyn Fn(&mut Line),
) -> bool {
    // Each round either ends here or meets a buffer that somebody has just emptied.
    for _ in 0..4 {
        let Some(slot) = thread::slot() else { break };
        match slot.line::<MAX>(tag, times, build) {
            Committed::Yes => return true,
            Committed::Noticed => {
                thread::noticed(slot);
                return true;
            }
            Committed::Moved => {}
            Committed::Full if thread::make_room(slot, MAX) => {}
            Committed::Full => break,
        }
    }
    match image::state() {
        state::BUFFERED | state::DIRECT => aside(tag, times, build),
        state::STOPPED => {
            lose();
            false
        }
        _ => false,
    }
}

/// Events of stream 0: of threads without a buffer, and of everybody while the image ends.
static ASIDE: AtomicU64 = AtomicU64::new(0);

/// Number of the last event that was written aside.
pub(crate) fn aside_n() -> u64 {
    ASIDE.load(Relaxed)
}

/// Takes `count` numbers of stream 0; answers the first.
pub(crate) fn aside_numbers(count: u64) -> u64 {
    ASIDE.fetch_add(count, Relaxed) + 1
}

/// Begins stream 0 anew (a new image).
pub(crate) fn forget_aside() {
    ASIDE.store(0, Relaxed);
    WRITING.store(false, Relaxed);
}

/// Whether somebody writes a block of stream 0.
static WRITING: AtomicBool = AtomicBool::new(false);

/// How often a writer lets others run before it writes out of its turn: whoever has the turn may never come back (a
/// sandbox may kill a thread in the middle of a system call), and the host must not hang.
const TURNS: u32 = 10_000;

/// One writer of stream 0 after the other, from the taking of a number to its last byte. Were two at it when the process
/// is killed, the later number could be in the log and the earlier one not: a gap that looks like a loss, although its
/// call had not returned. Signals are blocked: a handler that jumped away would leave such a gap, too.
fn in_turn<T>(write: impl FnOnce() -> T) -> T {
    let mask = sys::block_signals();
    let mut mine = false;
    for _ in 0..TURNS {
        mine = !WRITING.swap(true, Acquire);
        if mine {
            break;
        }
        sys::sched_yield();
    }
    let answer = write();
    if mine {
        WRITING.store(false, Release);
    }
    sys::restore_signals(mask);
    answer
}

fn lose() {
    match thread::peek() {
        Some(slot) => slot.lose(),
        None => {
            aside_numbers(1);
            image::word(control::LOST).fetch_add(1, Relaxed);
        }
    }
}

/// Writes one line as a block of its own, before the hook returns. Answers whether it was kept.
#[inline(never)]
fn aside(tag: &Tag, times: (u64, u64), build: &dyn Fn(&mut Line)) -> bool {
    if image::sandboxed() {
        lose();
        return false;
    }
    let mut text = [0u8; MAX_BLOCK + MAX_EVENT];
    let Some(room) = text.get_mut(MAX_BLOCK..) else {
        return false;
    };
    let mut line = Line::whole(room, tag);
    build(&mut line);
    let Some(len) = line.finish() else {
        lose();
        return false;
    };
    let run = Run {
        tid: sys::gettid() as u64,
        events: 1,
        times,
    };
    // SAFETY: `text` has MAX_BLOCK bytes before the line.
    let written = unsafe { write_aside(text.as_mut_ptr().add(MAX_BLOCK), len, &run) }.is_ok();
    if !written {
        image::word(control::LOST).fetch_add(1, Relaxed);
    }
    written
}

/// What a block of stream 0 is about.
pub(crate) struct Run {
    pub(crate) tid: u64,
    pub(crate) events: u64,
    pub(crate) times: (u64, u64),
}

/// Writes `len` bytes of lines as a block of stream 0, its block line before them.
///
/// # Safety
/// As for [`write_block`].
pub(crate) unsafe fn write_aside(lines: *mut u8, len: usize, run: &Run) -> sys::Result<()> {
    in_turn(|| {
        let block = Block {
            stream: 0,
            tid: run.tid,
            n: aside_numbers(run.events),
            events: run.events,
            bytes: len as u64,
            times: run.times,
            last: false,
            sample: false,
        };
        // SAFETY: the caller vouches for the lines.
        unsafe { write_block(lines, &block) }.map(|_| ())
    })
}

/// Writes lines with their block line before them at the end of the log. Answers where that is, and its bytes.
///
/// # Safety
/// `lines` must point to `block.bytes` bytes, and MAX_BLOCK bytes before it must be writable.
pub(crate) unsafe fn write_block(lines: *mut u8, block: &Block) -> sys::Result<(u64, u64)> {
    let mut room = [0u8; MAX_BLOCK];
    let head = block_line(block, &mut room);
    // SAFETY: the caller vouches for MAX_BLOCK bytes before the lines, and a block line is no longer.
    let from = unsafe {
        let from = lines.sub(head);
        from.copy_from_nonoverlapping(room.as_ptr(), head);
        from
    };
    let len = head as u64 + block.bytes;
    let off = image::word(control::LOG_END).fetch_add(len, AcqRel);
    // SAFETY: block line and lines are one range.
    unsafe { file::write_log(from, len as usize, off)? };
    Ok((off, len))
}
