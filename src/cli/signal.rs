//! Signals around a launched program: memspy waits with all that matter blocked, the program gets what memspy got.
//!
//! The rule: a program under `memspy run` must see the signal dispositions and the mask that it would see without.
//! `std::process` resets mask and SIGPIPE in the child, so both are put back after the fork.
#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use libc::{c_int, pid_t, sigset_t};

use crate::inherited;

/// Signals that memspy passes on when somebody sends them to memspy alone.
pub(crate) const FORWARDED: [c_int; 6] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTERM,
    libc::SIGUSR1,
    libc::SIGUSR2,
];

/// Signals by which a terminal stops a job.
pub(crate) const JOB_STOPS: [c_int; 3] = [libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU];

/// Undoes the runtime's ignoring of SIGPIPE: `memspy events LOG | head` ends quietly, like any other filter.
pub(crate) fn default_sigpipe() {
    set_disposition(libc::SIGPIPE, libc::SIG_DFL);
}

/// Runs `work` with SIGPIPE ignored, so that a helper process that dies is an error and not the end of memspy.
pub(crate) fn ignoring_sigpipe<T>(work: impl FnOnce() -> T) -> T {
    set_disposition(libc::SIGPIPE, libc::SIG_IGN);
    let result = work();
    default_sigpipe();
    result
}

/// Makes a closed pipe an error of the write: for reports, which then end well.
pub(crate) fn ignore_sigpipe() {
    set_disposition(libc::SIGPIPE, libc::SIG_IGN);
}

/// The signal state that a launched program must find.
pub(crate) struct State {
    mask: sigset_t,
    sigchld_ignored: bool,
}

/// Blocks the signals that [`wait`] handles, and returns the state from before.
pub(crate) fn block() -> State {
    let set = awaited();
    let mut mask = empty_set();
    // SAFETY: both sets are initialised and live.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, &raw mut mask) };
    let sigchld_ignored = is_ignored(libc::SIGCHLD);
    // An ignored SIGCHLD lets the kernel throw the child's status away.
    set_disposition(libc::SIGCHLD, libc::SIG_DFL);
    State {
        mask,
        sigchld_ignored,
    }
}

impl State {
    /// Puts memspy's own mask back. What the terminal sent to the job that is over now is not held against memspy.
    pub(crate) fn restore(&self) {
        let awaited = awaited();
        let at_once = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: set and time are initialised and live; without room for it no information is written.
        while unsafe {
            libc::sigtimedwait(&raw const awaited, std::ptr::null_mut(), &raw const at_once)
        } > 0
        {}
        // SAFETY: the mask is an initialised set.
        unsafe {
            libc::pthread_sigmask(
                libc::SIG_SETMASK,
                &raw const self.mask,
                std::ptr::null_mut(),
            )
        };
    }
}

/// Makes `command` start its program with the state that memspy itself was started with.
pub(crate) fn restore_in(command: &mut Command, state: &State) {
    let mask = state.mask;
    let sigchld_ignored = state.sigchld_ignored;
    let restore = move || {
        if sigchld_ignored {
            set_disposition(libc::SIGCHLD, libc::SIG_IGN);
        }
        inherited::restore();
        // SAFETY: `mask` is an initialised set; the call is async-signal-safe.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const mask, std::ptr::null_mut()) };
        Ok(())
    };
    // SAFETY: the closure only makes async-signal-safe calls and allocates nothing.
    unsafe { command.pre_exec(restore) };
}

/// Waits for the program `pid` to end and returns its wait status; meanwhile signals sent to memspy go to it.
///
/// A signal that the terminal sent has reached the program already, both are in its foreground group, and is not
/// sent twice. When the program is stopped by job control, memspy stops too, so that the shell sees the job stop.
///
/// # Errors
/// When `pid` is not a child of this process.
pub(crate) fn wait(pid: pid_t) -> io::Result<c_int> {
    let awaited = awaited();
    loop {
        let mut status = 0;
        let flags = libc::WNOHANG | libc::WUNTRACED;
        // SAFETY: `status` is live and writable.
        let changed = unsafe { libc::waitpid(pid, &raw mut status, flags) };
        if changed < 0 {
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        } else if changed == pid && libc::WIFSTOPPED(status) {
            if JOB_STOPS.contains(&libc::WSTOPSIG(status)) {
                stop_with(pid);
            }
        } else if changed == pid {
            return Ok(status);
        } else {
            forward_next(&awaited, pid);
        }
    }
}

/// Waits for one signal and passes it on if the program has not got it by itself.
fn forward_next(awaited: &sigset_t, pid: pid_t) {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    // SAFETY: the set is initialised and `info` has room for the answer.
    let signal = unsafe { libc::sigwaitinfo(awaited, info.as_mut_ptr()) };
    if signal < 0 {
        return;
    }
    // SAFETY: all-zero bytes are a valid siginfo_t, and the kernel filled it.
    let info = unsafe { info.assume_init() };
    let from_a_process = info.si_code <= 0;
    if from_a_process && signal != libc::SIGCHLD {
        send(pid, signal);
    }
}

/// Stops memspy as its program was stopped, and lets both go on together.
fn stop_with(pid: pid_t) {
    // SAFETY: sends a signal to this process, which needs no memory.
    unsafe { libc::raise(libc::SIGSTOP) };
    send(pid, libc::SIGCONT);
}

/// Sends a signal. The program may be gone: then there is nobody to tell.
fn send(pid: pid_t, signal: c_int) {
    // SAFETY: kill takes two numbers and touches no memory of ours.
    unsafe { libc::kill(pid, signal) };
}

/// Ends memspy by the signal that ended the program, without a core dump of its own. Returns if that is impossible.
pub(crate) fn die_of(signal: c_int) {
    let no_core = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    set_disposition(signal, libc::SIG_DFL);
    let mut set = empty_set();
    // SAFETY: the limit and the set are initialised and live; `signal` came from a wait status.
    unsafe {
        libc::setrlimit(libc::RLIMIT_CORE, &raw const no_core);
        libc::sigaddset(&raw mut set, signal);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut());
        libc::raise(signal);
    }
}

/// Whether a signal is ignored.
pub(crate) fn is_ignored(signal: c_int) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: `action` has room for the answer, and all-zero bytes are a valid one if the call fails.
    unsafe {
        libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr());
        action.assume_init().sa_sigaction == libc::SIG_IGN
    }
}

/// Sets a disposition, which must be SIG_DFL or SIG_IGN.
pub(crate) fn set_disposition(signal: c_int, disposition: libc::sighandler_t) {
    debug_assert!(disposition == libc::SIG_DFL || disposition == libc::SIG_IGN);
    // SAFETY: the disposition is SIG_DFL or SIG_IGN: no code of ours will run.
    unsafe { libc::signal(signal, disposition) };
}

/// The signals that [`wait`] handles.
fn awaited() -> sigset_t {
    let mut set = empty_set();
    for signal in FORWARDED
        .into_iter()
        .chain(JOB_STOPS)
        .chain([libc::SIGCHLD])
    {
        // SAFETY: `set` is an initialised set and `signal` a valid number.
        unsafe { libc::sigaddset(&raw mut set, signal) };
    }
    set
}

fn empty_set() -> sigset_t {
    let mut set = MaybeUninit::<sigset_t>::zeroed();
    // SAFETY: sigemptyset initialises the set that it is given.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        set.assume_init()
    }
}

/// Sends a process a signal that says it is memspy's.
///
/// # Errors
/// When the kernel refuses: no such process, another user's.
pub(crate) fn queue(pid: u32, signal: c_int) -> io::Result<()> {
    let value = libc::sigval {
        sival_ptr: std::ptr::null_mut(),
    };
    // SAFETY: no memory is touched.
    match unsafe { libc::sigqueue(pid as pid_t, signal, value) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
