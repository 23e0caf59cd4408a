//! Calls after which this image may be gone, or may no longer reach its log.
//!
//! Each looks at the call and answers the real function's address; the entry then jumps there with all arguments as
//! they came. In a vfork child they change nothing: it works in its parent's memory.

use crate::close_out::{close_out, close_out_for_exec};
use crate::confine;
use crate::leaks::{self, Caller, Registers};
use crate::real::{REAL, address};
use crate::{image, modules, spawn, stack, thread};
use core::ffi::{c_char, c_int, c_void};
use core::mem::transmute;

/// What the entry of a call that may be the last saved, from its lowest word on.
#[repr(C)]
pub(super) struct Entered {
    registers: Registers,
    /// rax, r9, r8, rcx, rdx: of no use here.
    between: [usize; 5],
    second: usize,
    first: usize,
}

/// An image ends, unless the caller is a vfork child: it ends alone.
fn exiting(how: &str, entered: &Entered) {
    if image::is_vfork_child() {
        return spawn::failed();
    }
    close_out(how, Caller::Hook(entered.registers));
}

/// quick_exit calls handlers first, ours last.
fn exiting_quickly(how: &str, entered: &Entered) {
    if !leaks::knows_quick_exit() || image::is_vfork_child() {
        exiting(how, entered);
    }
}

/// Another program follows. `path`: its name as the caller gave it, 0 where there is none.
fn becoming(how: &str, path: usize, entered: &Entered) {
    if image::is_vfork_child() {
        return spawn::trying(path as *const c_char);
    }
    // A forked child that made no memory call yet has no log: without one nobody would miss what comes after it.
    let begins_here = image::generation() == 0;
    let _ = thread::slot();
    close_out_for_exec(how, Caller::Hook(entered.registers), begins_here);
}

macro_rules! before {
    ($($name:ident $real:ident $end:ident($how:literal $(, $path:ident)?);)*) => {
        $(
            #[doc = concat!("What comes before the real `", stringify!($real), "`; answers its address.")]
            pub(super) extern "C" fn $name(entered: &Entered) -> usize {
                $end($how, $(before!(@path entered $path),)? entered);
                present(address(&REAL.$real))
            }
        )*
    };
    (@path $entered:ident none) => { 0 };
    (@path $entered:ident $path:ident) => { $entered.$path };
}

before! {
    before_exit _exit exiting("_exit");
    before_exit_c99 _Exit exiting("_Exit");
    before_quick_exit quick_exit exiting_quickly("quick_exit");
    before_execve execve becoming("execve", first);
    before_execv execv becoming("execv", first);
    before_execvp execvp becoming("execvp", first);
    before_execvpe execvpe becoming("execvpe", first);
    before_execl execl becoming("execl", first);
    before_execlp execlp becoming("execlp", first);
    before_execle execle becoming("execle", first);
    before_fexecve fexecve becoming("fexecve", none);
    before_execveat execveat becoming("execveat", second);
}

macro_rules! spawn {
    ($name:ident) => {
        #[doc = concat!("Body of `", stringify!($name), "`.")]
        ///
        /// # Safety
        /// The arguments are the caller's.
        #[allow(
            clippy::too_many_arguments,
            reason = "the six of posix_spawn and the caller's registers"
        )]
        pub(super) unsafe extern "C" fn $name(
            pid: *mut c_int,
            path: *const c_char,
            actions: *const c_void,
            attributes: *const c_void,
            argv: *const *mut c_char,
            environment: *const *mut c_char,
            _: *const usize,
            _: usize,
        ) -> c_int {
            let mut own = 0;
            let place = if pid.is_null() { &raw mut own } else { pid };
            // SAFETY: the address is the real function's, whose type this is, with the caller's arguments; without a
            // place for the pid it is told only here.
            unsafe {
                let real: unsafe extern "C" fn(
                    *mut c_int,
                    *const c_char,
                    *const c_void,
                    *const c_void,
                    *const *mut c_char,
                    *const *mut c_char,
                ) -> c_int = transmute(address(&REAL.$name));
                let answer = real(place, path, actions, attributes, argv, environment);
                if answer == 0 {
                    spawn::spawned(*place, path);
                }
                answer
            }
        }
    };
}

spawn!(posix_spawn);
spawn!(posix_spawnp);

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
        (libc::SYS_chroot | libc::SYS_pivot_root, _) => confine::root(),
        _ => {}
    }
    address(&REAL.syscall)
}

/// What comes before the real `chroot`; answers its address.
pub(super) extern "C" fn before_chroot() -> usize {
    confine::root();
    address(&REAL.chroot)
}

/// What comes before the real `mount`; answers its address.
pub(super) extern "C" fn before_mount() -> usize {
    confine::root();
    address(&REAL.mount)
}

/// What comes before the real `setuid`; answers its address.
pub(super) extern "C" fn before_setuid(user: u32) -> usize {
    confine::user(user);
    address(&REAL.setuid)
}

/// What comes before the real `seteuid`; answers its address.
pub(super) extern "C" fn before_seteuid(effective: u32) -> usize {
    confine::user(effective);
    address(&REAL.seteuid)
}

/// What comes before the real `setreuid`; answers its address.
pub(super) extern "C" fn before_setreuid(_real: u32, effective: u32) -> usize {
    confine::user(effective);
    address(&REAL.setreuid)
}

/// What comes before the real `setresuid`; answers its address.
pub(super) extern "C" fn before_setresuid(_real: u32, effective: u32) -> usize {
    confine::user(effective);
    address(&REAL.setresuid)
}

/// A call without a filter installs none: libseccomp makes it to see what the kernel can do.
fn before_seccomp(strict: bool, filter: usize) {
    if strict || filter != 0 {
        confine::sandbox(strict);
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
