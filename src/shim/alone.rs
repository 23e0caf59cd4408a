//! Whether the process has one thread only: then what must be atomic against other threads need only be so against
//! signals, which is twenty times as cheap.
//!
//! libc tells, in a variable that it clears before it starts a second thread (glibc 2.32). Its own malloc goes by the
//! same knowledge, so a thread that libc did not start can't call it anyway.

use crate::elf;
use core::sync::atomic::{AtomicPtr, AtomicU8, Ordering::Relaxed};

static UNKNOWN: AtomicU8 = AtomicU8::new(0);
/// libc's variable, or a 0 where it has none.
static SINGLE_THREADED: AtomicPtr<AtomicU8> = AtomicPtr::new((&raw const UNKNOWN).cast_mut());

/// Finds libc's variable: the definition that the whole process uses, which may be the program's copy.
pub(crate) fn start() {
    if let Some(address) = elf::first_symbol(c"__libc_single_threaded") {
        SINGLE_THREADED.store(address as *mut AtomicU8, Relaxed);
    }
}

/// Whether there is certainly no other thread. Hook-safe.
#[inline(always)]
pub(crate) fn is_alone() -> bool {
    // SAFETY: points to a static or to libc's variable, a `char` that is never unmapped.
    unsafe { &*SINGLE_THREADED.load(Relaxed) }.load(Relaxed) != 0
}

#[cfg(test)]
mod tests {
    #[test]
    #[cfg_attr(miri, ignore)]
    fn a_process_with_two_threads_is_not_alone() {
        super::start();
        let other = std::thread::spawn(super::is_alone);
        assert!(!super::is_alone());
        assert!(!other.join().expect("no panic"));
    }
}
