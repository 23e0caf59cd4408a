//! Calls after which this image may be gone, or may no longer make system calls.
//!
//! Each looks at the call and answers the real function's address; the entry then jumps there with all arguments as
//! they came. In a vfork child they change nothing: it works in its parent's memory.

use crate::close_out::{close_out, close_out_for_exec, sandbox};
use crate::leaks::{Caller, Registers};
use crate::real::{REAL, address};
use crate::{modules, stack};
use core::ffi::{c_int, c_void};
use core::mem::transmute;

macro_rules! before {
    ($($name:ident $real:ident $end:ident($how:literal);)*) => {
        $(
            #[doc = concat!("What comes before the real `", stringify!($real), "`; answers its address.")]
            pub(super) extern "C" fn $name(registers: &Registers) -> usize {
                $end($how, Caller::Hook(*registers));
                present(address(&REAL.$real))
            }
        )*
    };
}

before! {
    before_exit _exit close_out("_exit");
    before_exit_c99 _Exit close_out("_Exit");
    before_quick_exit quick_exit close_out("quick_exit");
    before_execve execve close_out_for_exec("execve");
    before_execv execv close_out_for_exec("execv");
    before_execvp execvp close_out_for_exec("execvp");
    before_execvpe execvpe close_out_for_exec("execvpe");
    before_execl execl close_out_for_exec("execl");
    before_execlp execlp close_out_for_exec("execlp");
    before_execle execle close_out_for_exec("execle");
    before_fexecve fexecve close_out_for_exec("fexecve");
    before_execveat execveat close_out_for_exec("execveat");
}

/// What comes before the real `prctl`; answers its address.
pub(super) extern "C" fn before_prctl(option: c_int, mode: usize, filter: usize) -> usize {
    if option == libc::PR_SET_SECCOMP {
        before_seccomp(mode == libc::SECCOMP_MODE_STRICT as usize, filter);
    }
    address(&REAL.prctl)
}

/// What comes before the real `syscall`; answers its address.
pub(super) extern "C" fn before_syscall(
    number: i64,
    first: usize,
    second: usize,
    third: usize,
) -> usize {
    const STRICT: usize = libc::SECCOMP_SET_MODE_STRICT as usize;
    const FILTER: usize = libc::SECCOMP_SET_MODE_FILTER as usize;
    match (number, first) {
        (libc::SYS_seccomp, STRICT) => before_seccomp(true, 0),
        (libc::SYS_seccomp, FILTER) => before_seccomp(false, third),
        (libc::SYS_prctl, option) if option as c_int == libc::PR_SET_SECCOMP => {
            before_seccomp(second == libc::SECCOMP_MODE_STRICT as usize, third);
        }
        _ => {}
    }
    address(&REAL.syscall)
}

/// A call without a filter installs none: libseccomp makes it to see what the kernel can do.
fn before_seccomp(strict: bool, filter: usize) {
    if strict || filter != 0 {
        sandbox(strict);
    }
}

/// The address, or that of a function which fails as one that the kernel lacks.
fn present(address: usize) -> usize {
    if address == 0 {
        absent as *const () as usize
    } else {
        address
    }
}

extern "C" fn absent() -> c_int {
    // SAFETY: libc's answer is valid for the calling thread.
    unsafe { *libc::__errno_location() = libc::ENOSYS };
    -1
}

/// Body of `dlclose`, which is no such call: libraries may go, and others come in their place.
///
/// # Safety
/// `handle` must be what dlclose takes.
pub(super) unsafe extern "C" fn dlclose(handle: *mut c_void, _: *const usize, _: usize) -> c_int {
    modules::dlclosing();
    // SAFETY: the address is the real function's, or that of one which takes anything; the argument is the caller's.
    let answer = unsafe {
        let real: unsafe extern "C" fn(*mut c_void) -> c_int =
            transmute(present(address(&REAL.dlclose)));
        real(handle)
    };
    stack::note_unloaded();
    answer
}
