//! What this process was started with and the Rust runtime changes before `main`: it ignores SIGPIPE and opens
//! /dev/null in place of closed standard descriptors. A recorded program must find what memspy found, so a constructor
//! looks first.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicBool, Ordering};

use crate::signal::{is_ignored, set_disposition};

/// Whether SIGPIPE was ignored when the process started.
static SIGPIPE_IGNORED: AtomicBool = AtomicBool::new(false);
/// Whether standard input, output, error were closed when the process started.
static CLOSED: [AtomicBool; 3] = [const { AtomicBool::new(false) }; 3];

/// Runs before the Rust runtime does.
#[used]
#[unsafe(link_section = ".init_array")]
static REMEMBER: extern "C" fn() = {
    extern "C" fn remember() {
        SIGPIPE_IGNORED.store(is_ignored(libc::SIGPIPE), Ordering::Relaxed);
        for (descriptor, closed) in (0..).zip(&CLOSED) {
            // SAFETY: F_GETFD takes no pointer; it only fails for a closed descriptor.
            let flags = unsafe { libc::fcntl(descriptor, libc::F_GETFD) };
            closed.store(flags < 0, Ordering::Relaxed);
        }
    }
    remember
};

/// Puts both back, in a forked child that is about to execute a program. Async-signal-safe.
pub(crate) fn restore() {
    if SIGPIPE_IGNORED.load(Ordering::Relaxed) {
        set_disposition(libc::SIGPIPE, libc::SIG_IGN);
    }
    for (descriptor, closed) in (0..).zip(&CLOSED) {
        if closed.load(Ordering::Relaxed) {
            // SAFETY: nobody in this child uses the runtime's /dev/null any more.
            unsafe { libc::close(descriptor) };
        }
    }
}
