//! The system calls that only a leak check needs.

use crate::sys::{Result, syscall};
use core::ffi::CStr;

/// A copy of this process over its own, copied memory; both return, the copy with 0.
///
/// It is no child as waitpid(-1) sees it (exit signal 0), and no tracer follows it.
///
/// # Safety
/// The copy must not return into the host's code: it ends by [`exit_group`]. All signals must be blocked.
pub(super) unsafe fn copy_process() -> Result<i32> {
    let flags = libc::CLONE_UNTRACED as usize;
    // SAFETY: without a stack of its own the copy goes on with a copy of this one; the caller vouches for the rest.
    unsafe { syscall(libc::SYS_clone, [flags, 0, 0, 0, 0, 0]) }.map(|pid| pid as i32)
}

/// Whether to wait for the end of a copy, or only to see whether it has come.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    Long,
    Not,
}

/// Reaps a copy of this process; answers whether it is gone. Also when somebody else has reaped it.
pub(super) fn reap(pid: i32, wait: Wait) -> bool {
    let mut options = libc::__WALL;
    if wait == Wait::Not {
        options |= libc::WNOHANG;
    }
    loop {
        let args = [pid as usize, 0, options as usize, 0, 0, 0];
        // SAFETY: nothing is written without a pointer.
        match unsafe { syscall(libc::SYS_wait4, args) } {
            Err(errno) if errno.0 == libc::EINTR => {}
            answer => return answer != Ok(0),
        }
    }
}

/// Sends a thread of this process a signal that carries `value`. Its code is SI_QUEUE: glibc's own handlers take no
/// notice of such.
pub(super) fn queue_signal(pid: i32, tid: i32, signal: i32, value: usize) -> Result<()> {
    /// `siginfo_t` of a queued signal, as the kernel reads it on x86-64.
    #[repr(C)]
    struct Queued {
        signal: i32,
        errno: i32,
        code: i32,
        _pad: i32,
        pid: i32,
        uid: u32,
        value: usize,
        _rest: [u64; 12],
    }
    const _: () = assert!(size_of::<Queued>() == size_of::<libc::siginfo_t>());
    let queued = Queued {
        signal,
        errno: 0,
        code: libc::SI_QUEUE,
        _pad: 0,
        pid,
        uid: 0,
        value,
        _rest: [0; 12],
    };
    let [pid, tid, signal] = [pid, tid, signal].map(|number| number as usize);
    let args = [pid, tid, signal, &raw const queued as usize, 0, 0];
    // SAFETY: the kernel reads one `siginfo_t`.
    unsafe { syscall(libc::SYS_rt_tgsigqueueinfo, args) }.map(|_| ())
}

/// Ends the process at once.
pub(super) fn exit_group(status: i32) -> ! {
    loop {
        // SAFETY: takes no pointers and does not return.
        let _ = unsafe { syscall(libc::SYS_exit_group, [status as usize, 0, 0, 0, 0, 0]) };
    }
}

/// What the copy does before anything else: it lets go of all descriptors and leaves no core file. One that is
/// `waited_for` dies with the thread that waits.
pub(super) fn become_a_copy(waited_for: bool) {
    let none = [0u64; 2];
    // SAFETY: close_range and prctl take no pointers here, prlimit reads two words.
    unsafe {
        let _ = syscall(libc::SYS_close_range, [0, u32::MAX as usize, 0, 0, 0, 0]);
        let args = [
            0,
            libc::RLIMIT_CORE as usize,
            none.as_ptr() as usize,
            0,
            0,
            0,
        ];
        let _ = syscall(libc::SYS_prlimit64, args);
        let signal = if waited_for { libc::SIGKILL } else { 0 };
        let args = [libc::PR_SET_PDEATHSIG as usize, signal as usize, 0, 0, 0, 0];
        let _ = syscall(libc::SYS_prctl, args);
    }
}

/// Sleeps until `word` is woken or no longer `value`, at most `milliseconds`.
pub(super) fn futex_wait(
    word: &core::sync::atomic::AtomicU32,
    value: u32,
    milliseconds: Option<u32>,
) {
    let limit = libc::timespec {
        tv_sec: 0,
        tv_nsec: i64::from(milliseconds.unwrap_or(0).min(999)) * 1_000_000,
    };
    let limit = milliseconds.map_or(0, |_| &raw const limit as usize);
    let operation = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
    let args = [
        word.as_ptr() as usize,
        operation as usize,
        value as usize,
        limit,
        0,
        0,
    ];
    // SAFETY: `word` and the time limit live across the call.
    let _ = unsafe { syscall(libc::SYS_futex, args) };
}

/// Wakes all who sleep on `word`.
pub(super) fn futex_wake(word: &core::sync::atomic::AtomicU32) {
    let operation = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
    let args = [
        word.as_ptr() as usize,
        operation as usize,
        i32::MAX as usize,
        0,
        0,
        0,
    ];
    // SAFETY: the kernel only looks the address up.
    let _ = unsafe { syscall(libc::SYS_futex, args) };
}

/// Reads directory entries.
pub(super) fn getdents(fd: i32, buf: &mut [u8]) -> Result<usize> {
    let args = [fd as usize, buf.as_mut_ptr() as usize, buf.len(), 0, 0, 0];
    // SAFETY: the kernel writes at most `buf.len()` bytes.
    unsafe { syscall(libc::SYS_getdents64, args) }
}

/// Opens a directory or file for reading.
pub(super) fn open(path: &CStr) -> Result<i32> {
    crate::sys::open(path, libc::O_RDONLY | libc::O_CLOEXEC, 0)
}

/// Reads words at a position.
pub(super) fn pread(fd: i32, buf: &mut [u64], offset: u64) -> Result<usize> {
    let len = size_of_val(buf);
    let args = [
        fd as usize,
        buf.as_mut_ptr() as usize,
        len,
        offset as usize,
        0,
        0,
    ];
    // SAFETY: the kernel writes at most `len` bytes.
    unsafe { syscall(libc::SYS_pread64, args) }
}

/// Copies own memory that may not be there; answers how many bytes were.
pub(super) fn copy_own(pid: i32, from: usize, into: &mut [u64]) -> Result<usize> {
    let len = size_of_val(into);
    let local = [into.as_mut_ptr() as usize, len];
    let remote = [from, len];
    let args = [
        pid as usize,
        local.as_ptr() as usize,
        1,
        remote.as_ptr() as usize,
        1,
        0,
    ];
    // SAFETY: the kernel writes at most `len` bytes into `into` and checks `from` itself.
    unsafe { syscall(libc::SYS_process_vm_readv, args) }
}
