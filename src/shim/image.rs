//! What there is once for a process image: its state, its log, its tail.
//!
//! ```text
//!            start            close_out             exec failed
//!  STARTING ───────> BUFFERED ─────────> DIRECT ─────────────────> BUFFERED
//!      │                 │  ^
//!      └──> OFF          v  │ a later write worked
//!                      STOPPED
//! ```
//! A forked child has none of this: the kernel wipes the generation word, and the next hook starts a new image.

use crate::sys::{self, Errno};
use core::ffi::CStr;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU32, AtomicU64, Ordering::*};
use memspy_log::tail::{CONTROL_SIZE, control, state};

/// Recording is off for good; not a state that a tail can have.
pub(crate) const OFF: u32 = 100;

static STATE: AtomicU32 = AtomicU32::new(state::STARTING);

/// The state of the image.
#[inline(always)]
pub(crate) fn state() -> u32 {
    STATE.load(Relaxed)
}

/// Changes the state, in the tail too.
pub(crate) fn set_state(state: u32) {
    STATE.store(state, SeqCst);
    word32(control::STATE).store(state, Relaxed);
}

static NO_GENERATION: AtomicU64 = AtomicU64::new(0);
/// A word in a page that the kernel zeroes in every child that is not a thread.
static GENERATION: AtomicPtr<AtomicU64> = AtomicPtr::new((&raw const NO_GENERATION).cast_mut());
static IMAGES: AtomicU64 = AtomicU64::new(0);

/// Which image this is; 0 before the start and in a child that has not noticed yet.
#[inline(always)]
pub(crate) fn generation() -> u64 {
    // SAFETY: points to a static or to a page that is never unmapped.
    unsafe { &*GENERATION.load(Relaxed) }.load(Relaxed)
}

/// Begins a new generation. Answers `None` when the kernel has no page, or can't wipe one on fork (before 4.14).
pub(crate) fn new_generation() -> Option<()> {
    if IMAGES.load(Relaxed) == 0 {
        let page = crate::memory::map_pages(4096)?;
        // SAFETY: the page is ours, and its being zeroed in a child is what it is for.
        unsafe { sys::madvise(page.as_ptr(), 4096, libc::MADV_WIPEONFORK) }.ok()?;
        GENERATION.store(page.as_ptr().cast(), Relaxed);
    }
    let number = IMAGES.fetch_add(1, Relaxed) + 1;
    // SAFETY: as in `generation`.
    unsafe { &*GENERATION.load(Relaxed) }.store(number, SeqCst);
    Some(())
}

/// In a copy of the process that speaks for it: the image goes on, though the kernel has wiped the page.
pub(crate) fn speak_for_original() {
    // SAFETY: as in `generation`.
    unsafe { &*GENERATION.load(Relaxed) }.store(IMAGES.load(Relaxed), Relaxed);
}

/// Set when a seccomp filter is about to be installed: from then on no system call is made.
static SANDBOXED: AtomicBool = AtomicBool::new(false);

/// Whether system calls are out of bounds.
#[inline]
pub(crate) fn sandboxed() -> bool {
    SANDBOXED.load(Relaxed)
}

/// No system call from here on.
pub(crate) fn set_sandboxed() {
    word32(control::SANDBOXED).store(1, Relaxed);
    SANDBOXED.store(true, SeqCst);
}

static PID: AtomicI32 = AtomicI32::new(0);

/// The image's process id, as it was when the image began.
#[inline(always)]
pub(crate) fn pid() -> i32 {
    PID.load(Relaxed)
}

/// Notes the process id.
pub(crate) fn set_pid(pid: i32) {
    PID.store(pid, Relaxed);
}

/// Whether the caller is a vfork child, which works in its parent's memory (or a forked child before its start).
pub(crate) fn is_borrowed() -> bool {
    sys::getpid() != pid()
}

/// Whether the caller is a vfork child of a process that is recorded.
pub(crate) fn is_vfork_child() -> bool {
    generation() != 0 && !sandboxed() && is_borrowed()
}

/// Stands in for the control page until there is one.
static NO_CONTROL: [AtomicU64; CONTROL_SIZE / 8] = [const { AtomicU64::new(0) }; CONTROL_SIZE / 8];
static CONTROL: AtomicPtr<u8> = AtomicPtr::new((&raw const NO_CONTROL).cast_mut().cast());

/// Publishes the control page.
pub(crate) fn set_control(page: *mut u8) {
    CONTROL.store(page, Release);
}

/// Lets go of the control page: in a forked child it is the parent's.
pub(crate) fn detach() {
    set_control((&raw const NO_CONTROL).cast_mut().cast());
}

/// The control page.
pub(crate) fn control_page() -> *mut u8 {
    CONTROL.load(Acquire)
}

/// A 64-bit word of the control page.
pub(crate) fn word(offset: usize) -> &'static AtomicU64 {
    debug_assert!(offset + 8 <= CONTROL_SIZE && offset.is_multiple_of(8));
    // SAFETY: the page is mapped for ever, `offset` is aligned and inside it.
    unsafe { AtomicU64::from_ptr(control_page().add(offset).cast()) }
}

/// A 32-bit word of the control page.
pub(crate) fn word32(offset: usize) -> &'static AtomicU32 {
    debug_assert!(offset + 4 <= CONTROL_SIZE && offset.is_multiple_of(4));
    // SAFETY: the page is mapped for ever, `offset` is aligned and inside it.
    unsafe { AtomicU32::from_ptr(control_page().add(offset).cast()) }
}

static LOG: AtomicPtr<core::ffi::c_char> = AtomicPtr::new(null_mut());
static TAIL: AtomicPtr<core::ffi::c_char> = AtomicPtr::new(null_mut());

/// The log's absolute path; empty before the start.
pub(crate) fn log_path() -> &'static CStr {
    path(&LOG)
}

/// The tail's absolute path; empty before the start.
pub(crate) fn tail_path() -> &'static CStr {
    path(&TAIL)
}

fn path(place: &AtomicPtr<core::ffi::c_char>) -> &'static CStr {
    let path = place.load(Acquire);
    if path.is_null() {
        return c"";
    }
    // SAFETY: `set_paths` stored strings that live for ever.
    unsafe { CStr::from_ptr(path) }
}

/// Publishes the paths.
pub(crate) fn set_paths(log: &'static CStr, tail: &'static CStr) {
    LOG.store(log.as_ptr().cast_mut(), Release);
    TAIL.store(tail.as_ptr().cast_mut(), Release);
}

/// When a failed write may be tried again, in the image's time; `u64::MAX`: never.
static NEXT_TRY: AtomicU64 = AtomicU64::new(0);
static STOPPED_AT: AtomicU64 = AtomicU64::new(0);

/// Whether writing is not to be tried at the moment.
#[inline]
pub(crate) fn must_wait(now: u64) -> bool {
    state() == state::STOPPED && now < NEXT_TRY.load(Relaxed)
}

/// Writing failed. Decides when to try again.
pub(crate) fn stop(errno: Errno, now: u64) {
    let pause = match errno.0 {
        libc::ENOSPC | libc::EDQUOT => 1_000_000_000,
        // What a moment ago had no descriptor or no memory may have some now: each event tries.
        libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::EINTR | libc::EAGAIN => 0,
        _ => u64::MAX,
    };
    NEXT_TRY.store(now.saturating_add(pause), Relaxed);
    word32(control::STOP_ERRNO).store(errno.0 as u32, Relaxed);
    if state() == state::BUFFERED {
        STOPPED_AT.store(now, Relaxed);
        set_state(state::STOPPED);
    }
}

/// When the stop began.
pub(crate) fn stopped_at() -> u64 {
    STOPPED_AT.load(Relaxed)
}

/// Forgets a stop (a new image, or a write that worked).
pub(crate) fn clear_stop() {
    NEXT_TRY.store(0, Relaxed);
    word32(control::STOP_ERRNO).store(0, Relaxed);
}
