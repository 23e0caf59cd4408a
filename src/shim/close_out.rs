//! The end of an image: every buffer goes to the log, the log gets its last word, the tail goes.
//!
//! Called by the destructor and by the hooks of the calls that end an image. The log is complete without it: what is
//! not written here stays in the tail.

use crate::flush::{self, Reach};
use crate::leaks::{self, Caller};
use crate::scratch::Scratch;
use crate::slot::{DIRECT, Slot};
use crate::{
    clock, image, log, memory, pool, record, reserve, settings, snapshot, stacks, sys, tail, unwind,
};
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering::*};
use memspy_log::tail::{control, header, state};
use memspy_log::{Op, key, tag};

static CLOSING: AtomicU32 = AtomicU32::new(0);
/// The thread that has called exec; 0: none.
static EXEC_TID: AtomicI32 = AtomicI32::new(0);
static TAIL_IS_GONE: AtomicBool = AtomicBool::new(false);

/// membarrier(2) commands.
const REGISTER_PRIVATE_EXPEDITED: i32 = 1 << 4;
const PRIVATE_EXPEDITED: i32 = 1 << 3;

/// Prepares for the end at the start.
pub(crate) fn prepare() {
    CLOSING.store(0, Relaxed);
    EXEC_TID.store(0, Relaxed);
    TAIL_IS_GONE.store(false, Relaxed);
    let _ = sys::membarrier(REGISTER_PRIVATE_EXPEDITED);
}

/// The image ends by `how`, a call of `caller`.
pub(crate) fn close_out(how: &str, caller: Caller) {
    close(how, false, settings::get().maps, caller);
}

/// The image ends if the exec that follows works. `began`: that call began it, too, so that the picture of its start is one
/// of its end.
pub(crate) fn close_out_for_exec(how: &str, caller: Caller, began: bool) {
    close(how, true, settings::get().maps && !began, caller);
}

fn close(how: &str, exec: bool, picture: bool, caller: Caller) {
    let open = matches!(image::state(), state::BUFFERED | state::STOPPED);
    if !open || image::generation() == 0 || image::sandboxed() || image::is_borrowed() {
        return;
    }
    if CLOSING.compare_exchange(0, 1, AcqRel, Relaxed).is_err() {
        return;
    }
    let mask = sys::block_signals();
    leaks::finish();
    if settings::leaks() {
        leaks::write(if exec { "exec" } else { "exit" }, caller);
    }
    let mut scratch = match picture {
        true => snapshot::scratch().ok(),
        false => None,
    };
    if let Some(scratch) = &mut scratch {
        snapshot::add(scratch, "exit");
        let _ = scratch.write_out();
    }
    EXEC_TID.store(if exec { sys::gettid() } else { 0 }, Relaxed);
    image::set_state(state::DIRECT);
    for slot in pool::slots() {
        slot.notify(DIRECT);
    }
    let _ = sys::membarrier(PRIVATE_EXPEDITED);
    let me = sys::gettid() as u32;
    let mut all = true;
    for slot in pool::owned() {
        all &= take_out(slot, me);
    }
    let ended = scratch
        .map_or_else(|| Scratch::new(64 << 10), Ok)
        .and_then(|scratch| write_end(how, scratch))
        .is_ok();
    reserve::give_back();
    if ended && all && sys::unlink(image::tail_path()).is_ok() {
        TAIL_IS_GONE.store(true, Relaxed);
    } else if image::word32(control::STOP_ERRNO).load(Relaxed) != 0 {
        // The events go on as those of an image that ends; what the tail says is why it is still there.
        image::word32(control::STATE).store(state::STOPPED, Relaxed);
    }
    sys::restore_signals(mask);
}

/// Writes a buffer out; answers whether nothing is left in it. `me`: the calling thread's id.
fn take_out(slot: &Slot, me: u32) -> bool {
    for _ in 0..10_000 {
        let owner = slot.owner.read();
        // A dead thread's buffer can be written whole; a live one may be in the middle of a line.
        let written = if owner.tid() == me {
            flush::flush(slot, Reach::All)
        } else if pool::is_dead(owner) {
            flush::flush_dead(slot, owner)
        } else {
            flush::flush(slot, Reach::Committed)
        };
        match written {
            Ok(true) => return true,
            Ok(false) if slot.field32(header::FLUSHER).load(Relaxed) != 0 => sys::sched_yield(),
            Ok(false) if slot.owner.read() != owner => {}
            // Its thread is in the middle of a line and will write it out itself.
            Ok(false) => return is_taken_out(slot),
            Err(errno) => {
                image::word32(control::STOP_ERRNO).store(errno.0 as u32, Relaxed);
                return false;
            }
        }
    }
    false
}

fn is_taken_out(slot: &Slot) -> bool {
    for _ in 0..100 {
        if slot.field(header::TOP).load(Acquire) == slot.field(header::FLUSHED).load(Acquire) {
            return true;
        }
        sys::sched_yield();
    }
    false
}

fn write_end(how: &str, mut scratch: Scratch) -> sys::Result<()> {
    let now = clock::before();
    scratch.line(const { &tag(Op::End) }, |line| {
        line.num(const { &key("t") }, now);
        line.name(const { &key("how") }, how);
        line.num(
            const { &key("streams") },
            image::word(control::STREAMS).load(Relaxed),
        );
        line.open(const { &key("open") });
        // This line is the last event of stream 0.
        put_stream(line, b"[", (0, record::aside_n() + 1));
        for slot in pool::owned() {
            put_stream(line, b",", (slot.stream(), slot.n()));
        }
        line.raw(b"]");
        line.num(
            const { &key("lost") },
            image::word(control::LOST).load(Relaxed),
        );
        line.num(
            const { &key("abandoned") },
            image::word(control::ABANDONED).load(Relaxed),
        );
        line.num(const { &key("mapped") }, memory::mapped_bytes() as u64);
        line.num(const { &key("stack_nodes") }, stacks::count().into());
        line.num(const { &key("no_stack") }, stacks::refused());
        let (checked, mistaken) = unwind::checks();
        if checked != 0 {
            line.num(const { &key("checked") }, checked);
            line.num(const { &key("mistaken") }, mistaken);
        }
    });
    scratch.write()
}

/// Appends `[stream,n]` with what goes before it.
pub(crate) fn put_stream(line: &mut memspy_log::Line, before: &[u8], (stream, n): (u64, u64)) {
    line.raw(before);
    line.raw(b"[");
    line.digits(stream);
    line.raw(b",");
    line.digits(n);
    line.raw(b"]");
}

/// An event after the end: if this thread's exec has come back, recording goes on. Answers whether it does.
pub(crate) fn exec_failed() -> bool {
    let tid = EXEC_TID.load(Relaxed);
    if tid == 0 || image::state() != state::DIRECT || sys::gettid() != tid {
        return false;
    }
    let mask = sys::block_signals();
    let open = !TAIL_IS_GONE.load(Relaxed) || tail::reopen().is_ok();
    if open {
        EXEC_TID.store(0, Relaxed);
        TAIL_IS_GONE.store(false, Relaxed);
        image::set_state(state::BUFFERED);
        for slot in pool::slots() {
            slot.calm(DIRECT);
        }
        CLOSING.store(0, Release);
    }
    sys::restore_signals(mask);
    if open {
        let now = clock::before();
        record::event(log::RESUMED, now, now, |line| {
            line.num(log::T, now);
            line.name(log::WHY, "exec failed");
            line.num(log::LOST, 0);
        });
    }
    open
}
