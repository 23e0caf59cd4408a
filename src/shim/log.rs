//! The tags and keys of the lines that the shim writes, and the lines about the log itself.

use crate::image;
use crate::slot::Slot;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use memspy_log::tail::{control, state};
use memspy_log::{Key, Line, MAX_EVENT, Op, Tag, errno_name, key, tag};

macro_rules! tags {
    ($($name:ident = $op:ident,)*) => {
        $(
            #[doc = concat!("Opens a line of this op.")]
            pub(crate) const $name: &Tag = &tag(Op::$op);
        )*
    };
}

tags! {
    THREAD = Thread,
    STOPPED = Stopped,
    RESUMED = Resumed,
    MMAP = Mmap,
    MUNMAP = Munmap,
    MREMAP = Mremap,
    BRK = Brk,
    ARENA = Arena,
}

macro_rules! keys {
    ($($name:ident = $text:literal,)*) => {
        $(
            #[doc = concat!("`", $text, "`")]
            pub(crate) const $name: &Key = &key($text);
        )*
    };
}

keys! {
    T = "t",
    DT = "dt",
    SIZE = "size",
    COUNT = "count",
    ALIGN = "align",
    OLD = "old",
    ADDR = "addr",
    HINT = "hint",
    PROT = "prot",
    FLAGS = "flags",
    FD = "fd",
    OFFSET = "offset",
    OLD_SIZE = "old_size",
    FROM = "from",
    TO = "to",
    DELTA = "delta",
    VIA = "via",
    NAME = "name",
    WHY = "why",
    LOST = "lost",
    BASE = "base",
    CHANGE = "change",
    ARENA_KEY = "arena",
    THREAD_KEY = "thread",
    MARK = "mark",
    GENERATION = "generation",
}

/// Events lost when recording last stopped or resumed.
static LOST_BEFORE: AtomicU64 = AtomicU64::new(0);

/// Forgets what was lost (a new image).
pub(crate) fn forget_lost() {
    LOST_BEFORE.store(0, Relaxed);
}

/// A write worked. If recording had stopped, says since when and what is missing, and goes on.
pub(crate) fn note_resumed(slot: &Slot) {
    if image::state() != state::STOPPED {
        return;
    }
    let lost = image::word(control::LOST).load(Relaxed);
    let missing = lost.wrapping_sub(LOST_BEFORE.swap(lost, Relaxed));
    let errno = image::word32(control::STOP_ERRNO).load(Relaxed) as i32;
    image::clear_stop();
    image::set_state(state::BUFFERED);
    let (stopped, now) = (image::stopped_at(), crate::clock::before());
    let why = |line: &mut Line| match errno_name(errno) {
        Some(name) => line.name(WHY, name),
        None => line.name(WHY, "unknown"),
    };
    slot.line::<MAX_EVENT>(STOPPED, (stopped, stopped), |line| {
        line.num(T, stopped);
        why(line);
        line.num(LOST, 0);
    });
    slot.line::<MAX_EVENT>(RESUMED, (now, now), |line| {
        line.num(T, now);
        why(line);
        line.num(LOST, missing);
    });
}
