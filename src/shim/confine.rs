//! Calls after which the log may be out of reach: a seccomp filter, another root directory or mount, another user.
//!
//! What can be done is done before the call: what is pending goes to the log, the thread gets a buffer with much
//! room (the tail is mapped, so its pages can be written whatever becomes of paths and rights), and the
//! files are given to the user who is going to write them.

use crate::flush::{self, Reach};
use crate::{clock, file, image, pool, sys, tail, thread, unwind};
use core::sync::atomic::Ordering::SeqCst;

/// A user id that stands for "as it is".
const UNCHANGED: u32 = u32::MAX;

/// A seccomp filter is about to be installed: from here on no system call is made.
///
/// `strict`: the mode that takes the clocks away too.
pub(crate) fn sandbox(strict: bool) {
    if !has_image() {
        return;
    }
    gather();
    image::set_sandboxed();
    if strict {
        clock::freeze();
    }
    unwind::NO_SYSTEM_CALLS.store(true, SeqCst);
}

/// Another root directory is about to be set, or something mounted: the log's path may mean something else.
pub(crate) fn root() {
    if has_image() {
        gather();
    }
}

/// The process is about to act as `user`: root gives it the log and the tail, so that they can be opened again.
pub(crate) fn user(user: u32) {
    if user == UNCHANGED || user == 0 || !has_image() || sys::geteuid() != 0 {
        return;
    }
    let mask = sys::block_signals();
    // Where that can't be done the log ends here, and says so.
    let give = |fd, _: &sys::Stat| sys::fchown(fd, user);
    let _ = file::with_ours(image::log_path(), file::is_log, give);
    let _ = file::with_ours(image::tail_path(), tail::is_tail, give);
    sys::restore_signals(mask);
}

fn has_image() -> bool {
    image::generation() != 0 && !image::sandboxed() && !image::is_borrowed()
}

/// Writes out what is pending, and moves the calling thread to a large buffer.
fn gather() {
    // An event may be the thread's first only after the call, when there is no buffer to be had any more.
    let mine = thread::slot();
    let mask = sys::block_signals();
    let me = sys::gettid() as u32;
    for slot in pool::owned() {
        let own = slot.owner.read().tid() == me;
        let _ = flush::flush(slot, if own { Reach::All } else { Reach::Committed });
    }
    if let Some(larger) = mine.filter(|slot| is_idle(slot)).and_then(pool::widen) {
        unwind::prepare(pool::index(larger));
        thread::settle(larger);
    }
    sys::restore_signals(mask);
}

/// Whether the buffer is empty and no interrupted line is about to be made in it.
fn is_idle(slot: &crate::slot::Slot) -> bool {
    slot.is_empty() && thread::is_current(slot) && !slot.is_nested()
}
