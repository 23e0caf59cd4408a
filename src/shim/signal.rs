//! Handlers of the shim's own: set and put back by raw system calls, so that no libc hook sees them. Hook-safe.

use crate::sys::{Result, syscall};
use core::arch::global_asm;

/// A handler of the kernel's three arguments.
pub(crate) type Handler = extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::ucontext_t);

/// The kernel's `struct sigaction`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Action {
    /// A function's address, or 0 (default) or 1 (ignored).
    pub(crate) handler: usize,
    flags: u64,
    restorer: usize,
    mask: u64,
}

impl Action {
    /// Runs `handler` with all signals blocked, on the alternate stack if there is one; interrupted calls go on where
    /// the kernel lets them.
    pub(crate) fn handled_by(handler: Handler) -> Action {
        const SA_RESTORER: u64 = 0x0400_0000;
        let flags = libc::SA_SIGINFO | libc::SA_RESTART | libc::SA_ONSTACK;
        Action {
            handler: handler as *const () as usize,
            flags: flags as u32 as u64 | SA_RESTORER,
            restorer: memspy_signal_return as *const () as usize,
            mask: u64::MAX,
        }
    }
}

global_asm!(
    ".hidden memspy_signal_return",
    ".globl memspy_signal_return",
    ".type memspy_signal_return, @function",
    "memspy_signal_return:",
    "mov eax, 15",
    "syscall",
    ".size memspy_signal_return, . - memspy_signal_return",
);

unsafe extern "C" {
    fn memspy_signal_return();
}

/// What a signal does; with `action`, from now on something else.
///
/// # Safety
/// The handler of `action` must be sound at any point of any thread.
pub(crate) unsafe fn sigaction(signal: i32, action: Option<&Action>) -> Result<Action> {
    let mut old = Action {
        handler: 0,
        flags: 0,
        restorer: 0,
        mask: 0,
    };
    let args = [
        signal as usize,
        action.map_or(0, |action| core::ptr::from_ref(action) as usize),
        &raw mut old as usize,
        8,
        0,
        0,
    ];
    // SAFETY: both pointers are to the kernel's layout, or null; the caller vouches for the handler.
    unsafe { syscall(libc::SYS_rt_sigaction, args) }.map(|_| old)
}
