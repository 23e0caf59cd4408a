//! What somebody outside asks of the process: a mark, or a check of the memory as it is now. `memspy snapshot` and
//! `memspy mark` write a word into the tail's control page; the next hook finds it with one load.
//!
//! A process that makes no calls is not asked: a signal that the user names (MEMSPY_SIGNAL) makes it look. Without that
//! variable no handler is ever installed.

use crate::leaks::{self, Caller, Registers};
use crate::scratch::Scratch;
use crate::signal::{Action, sigaction};
use crate::{clock, image, log, settings, snapshot, sys};
use core::sync::atomic::{AtomicU32, Ordering::*};
use memspy_log::tail::{MAX_NAME, answer, control, request, state};
use memspy_log::{Op, tag};

/// Requests without a name so far, for their names.
static NAMELESS: AtomicU32 = AtomicU32::new(0);

/// A new image: gives it its handler, if the user named a signal and the program does nothing of its own with it.
pub(crate) fn start() {
    NAMELESS.store(0, Relaxed);
    let signal = settings::get().signal;
    if signal == 0 {
        return;
    }
    let ours = Action::handled_by(asked);
    // SAFETY: the handler blocks all signals, touches no libc, and keeps errno.
    let set = unsafe {
        match sigaction(signal, None) {
            Ok(now) if now.handler == libc::SIG_DFL => sigaction(signal, Some(&ours)).is_ok(),
            // A forked child has its parent's.
            Ok(now) => now.handler == ours.handler,
            Err(_) => false,
        }
    };
    image::word32(control::SIGNAL).store(if set { signal as u32 } else { 0 }, Relaxed);
}

/// Serves what is asked, if anything is. At the entry of a hook, before the real function.
#[inline(always)]
pub(crate) fn look() {
    if waits() {
        serve();
    }
}

/// Whether something is asked, or a copy waits to be reaped.
#[inline(always)]
pub(crate) fn waits() -> bool {
    // Both words at once.
    image::word(control::REQUEST).load(Relaxed) != 0
}

#[cold]
#[inline(never)]
fn serve() {
    let asked = image::word32(control::REQUEST).load(Acquire);
    if image::generation() == 0 {
        // A forked child before its first line: the word is its parent's.
        return;
    }
    if image::sandboxed() {
        return refuse(answer::SANDBOXED);
    }
    if asked == request::TAKEN && image::word32(control::COPY_ENDED).load(Relaxed) == 0
        || image::is_borrowed()
    {
        return;
    }
    let mask = sys::block_signals();
    take(|| Caller::Hook(Registers::here()));
    sys::restore_signals(mask);
}

/// The handler of the user's signal.
extern "C" fn asked(_: i32, info: *mut libc::siginfo_t, context: *mut libc::ucontext_t) {
    if image::generation() == 0 || image::sandboxed() || image::is_borrowed() {
        return;
    }
    // SAFETY: the kernel hands the handler a valid context.
    let registers = unsafe { &(*context).uc_mcontext.gregs };
    let mut words = [0u64; 16];
    for (to, from) in words.iter_mut().zip(registers) {
        *to = *from as u64;
    }
    // SAFETY: the kernel hands the handler valid information.
    let by_memspy = unsafe { (*info).si_code } == libc::SI_QUEUE;
    let taken = take(|| Caller::Signal(words));
    if !taken && !by_memspy {
        let serial = image::word32(control::DONE).load(Relaxed);
        let mut room = [0u8; MAX_NAME];
        answer_snapshot(numbered(&mut room), Caller::Signal(words), serial);
    }
}

/// Takes the request that is there and answers it. All signals are blocked.
#[inline(always)]
fn take(caller: impl Fn() -> Caller) -> bool {
    leaks::reap();
    let word = image::word32(control::REQUEST);
    let what = word.load(Acquire);
    let there = matches!(what, request::SNAPSHOT | request::MARK);
    if !there
        || word
            .compare_exchange(what, request::TAKEN, AcqRel, Relaxed)
            .is_err()
    {
        return false;
    }
    let mut room = [0u8; MAX_NAME];
    let name = name(&mut room);
    let serial = image::word32(control::SERIAL).load(Relaxed);
    if !matches!(image::state(), state::BUFFERED | state::STOPPED) {
        refuse(answer::ENDING);
        return true;
    }
    if what == request::SNAPSHOT {
        let mut room = [0u8; MAX_NAME];
        let name = match name {
            b"" => tell_name(numbered(&mut room)),
            name => name,
        };
        answer_snapshot(name, caller(), serial);
    } else {
        let begun = begin_mark(name);
        done(begun.and_then(Scratch::write), serial);
    }
    word.store(request::NONE, Release);
    true
}

/// The name in the control page.
fn name(room: &mut [u8; MAX_NAME]) -> &[u8] {
    let len = image::word32(control::NAME_LEN).load(Relaxed) as usize;
    let len = len.min(MAX_NAME);
    // SAFETY: the name lies inside the control page; what another process writes there meanwhile is its own affair.
    unsafe {
        let from = image::control_page().add(control::NAME);
        core::ptr::copy_nonoverlapping(from, room.as_mut_ptr(), len);
    }
    room.get(..len).unwrap_or_default()
}

/// Tells the asker which name it was given.
fn tell_name(name: &[u8]) -> &[u8] {
    // SAFETY: a name has at most MAX_NAME bytes, which lie inside the control page.
    unsafe {
        let to = image::control_page().add(control::NAME);
        core::ptr::copy_nonoverlapping(name.as_ptr(), to, name.len().min(MAX_NAME));
    }
    image::word32(control::NAME_LEN).store(name.len() as u32, Relaxed);
    name
}

/// A mark, a picture of the address space, and the beginning of a leak check in leak mode.
fn answer_snapshot(name: &[u8], caller: Caller, serial: u32) {
    let written = begin_mark(name).and_then(|mut scratch| {
        if settings::get().maps {
            snapshot::add_at(&mut scratch, "request", name);
        }
        scratch.write()
    });
    image::word(control::CHECK_LEN).store(0, Relaxed);
    if written.is_err() || !settings::leaks() {
        done(written, serial);
    } else if !leaks::begin(caller, name, serial) {
        refuse(answer::BUSY);
    }
}

/// `snapshot-3`
fn numbered(room: &mut [u8; MAX_NAME]) -> &[u8] {
    let prefix = b"snapshot-";
    let mut number = NAMELESS.fetch_add(1, Relaxed) + 1;
    let mut digits = [0u8; 10];
    let mut first = digits.len();
    while number > 0 {
        first -= 1;
        if let Some(digit) = digits.get_mut(first) {
            *digit = b'0' + (number % 10) as u8;
        }
        number /= 10;
    }
    let digits = digits.get(first..).unwrap_or_default();
    for (to, from) in room.iter_mut().zip(prefix.iter().chain(digits)) {
        *to = *from;
    }
    room.get(..prefix.len() + digits.len()).unwrap_or_default()
}

/// Lines that begin with a mark; a new generation of blocks begins with it.
fn begin_mark(name: &[u8]) -> sys::Result<Scratch> {
    let mut scratch = snapshot::scratch()?;
    let generation = leaks::mark();
    let now = clock::before();
    scratch.line(const { &tag(Op::Mark) }, |line| {
        line.num(log::T, now);
        line.text(log::NAME, name);
        line.num(log::GENERATION, generation.into());
    });
    Ok(scratch)
}

fn done(written: sys::Result<()>, serial: u32) {
    let answer = if written.is_ok() {
        answer::DONE
    } else {
        answer::NOT_WRITTEN
    };
    image::word32(control::ANSWER).store(answer, Relaxed);
    image::word32(control::DONE).store(serial, Release);
}

/// Answers without having done anything. No system call.
fn refuse(why: u32) {
    let serial = image::word32(control::SERIAL).load(Relaxed);
    image::word32(control::ANSWER).store(why, Relaxed);
    image::word32(control::DONE).store(serial, Release);
    image::word32(control::REQUEST).store(request::NONE, Release);
}
