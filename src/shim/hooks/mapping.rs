//! The calls by which the program itself asks the kernel for address space.

use crate::real::{REAL, address};
use crate::record::event;
use crate::stack::Stack;
use crate::unwind::Caller;
use crate::{clock, glibc, leaks, log, request, settings, unwind};
use core::ffi::{c_int, c_void};
use core::mem::transmute;
use core::sync::atomic::AtomicUsize;
use memspy_log::{Line, Op, Tag, tag};

type Pointer = *mut c_void;

const FAILED: usize = usize::MAX;

/// The errno of a call that failed, 0 of one that did not.
#[inline(always)]
fn errno_if(failed: bool) -> i32 {
    if !failed {
        return 0;
    }
    // SAFETY: libc's answer is valid for the calling thread.
    unsafe { *libc::__errno_location() }
}

/// The arguments of an mmap.
struct Mmap {
    hint: Pointer,
    size: usize,
    prot: c_int,
    flags: c_int,
    fd: c_int,
    offset: i64,
}

/// Calls the real function in `place` and writes the call.
///
/// # Safety
/// The arguments are the caller's.
#[inline(always)]
unsafe fn map(place: &AtomicUsize, call: &Mmap, caller: &Caller) -> Pointer {
    request::look();
    let fixed = call.flags & (libc::MAP_FIXED | libc::MAP_FIXED_NOREPLACE) != 0;
    let began = if fixed { clock::before() } else { 0 };
    // SAFETY: the address is that of mmap or mmap64, whose type this is.
    let addr = unsafe {
        let real: unsafe extern "C" fn(Pointer, usize, c_int, c_int, c_int, i64) -> Pointer =
            transmute(address(place));
        real(
            call.hint,
            call.size,
            call.prot,
            call.flags,
            call.fd,
            call.offset,
        )
    };
    let errno = errno_if(addr as usize == FAILED);
    let until = clock::after();
    let t = if fixed { began } else { until };
    if fixed {
        unwind::mapping_changed();
    }
    let stack = Stack::of(caller);
    event(log::MMAP, t, until, |line| {
        line.num(log::T, t);
        if fixed {
            line.num(log::DT, until - t);
        }
        if errno == 0 {
            line.addr(log::ADDR, addr as usize);
        }
        if !call.hint.is_null() {
            line.addr(log::HINT, call.hint as usize);
        }
        line.num(log::SIZE, call.size as u64);
        line.num(log::PROT, call.prot as u32 as u64);
        line.num(log::FLAGS, call.flags as u32 as u64);
        line.signed(log::FD, call.fd.into());
        line.num(log::OFFSET, call.offset as u64);
        if errno != 0 {
            line.errno(errno);
        }
        stack.put(line);
    });
    if settings::leaks() && errno == 0 {
        leaks::mapped(addr as usize, call.size, fixed, stack);
    }
    addr
}

macro_rules! mmap {
    ($name:ident) => {
        #[doc = concat!("Body of `", stringify!($name), "`.")]
        ///
        /// # Safety
        /// The arguments are the caller's; `sp` must point to the return address.
        #[allow(
            clippy::too_many_arguments,
            reason = "the six of mmap and the caller's registers"
        )]
        pub(super) unsafe extern "C" fn $name(
            hint: Pointer,
            size: usize,
            prot: c_int,
            flags: c_int,
            fd: c_int,
            offset: i64,
            sp: *const usize,
            bp: usize,
        ) -> Pointer {
            // SAFETY: the entry passes the registers of the caller; the arguments are the caller's.
            unsafe {
                let caller = Caller::at(sp, bp);
                map(
                    &REAL.$name,
                    &Mmap {
                        hint,
                        size,
                        prot,
                        flags,
                        fd,
                        offset,
                    },
                    &caller,
                )
            }
        }
    };
}

mmap!(mmap);
mmap!(mmap64);

/// Body of `munmap`.
///
/// # Safety
/// The arguments are the caller's; `sp` must point to the return address.
pub(super) unsafe extern "C" fn munmap(
    addr: Pointer,
    size: usize,
    sp: *const usize,
    bp: usize,
) -> c_int {
    // SAFETY: the entry passes the registers of the caller.
    let caller = unsafe { Caller::at(sp, bp) };
    request::look();
    let t = clock::before();
    if settings::leaks() {
        leaks::unmapped(addr as usize, size);
    }
    // SAFETY: the address is the real function's, whose type this is.
    let answer = unsafe {
        let real: unsafe extern "C" fn(Pointer, usize) -> c_int = transmute(address(&REAL.munmap));
        real(addr, size)
    };
    let errno = errno_if(answer != 0);
    unwind::mapping_changed();
    let stack = Stack::of_release(&caller);
    event(log::MUNMAP, t, t, |line| {
        line.num(log::T, t);
        line.addr(log::ADDR, addr as usize);
        line.num(log::SIZE, size as u64);
        if errno != 0 {
            line.errno(errno);
        }
        stack.put(line);
    });
    answer
}

/// Body of `mremap`, whose fifth argument counts only with MREMAP_FIXED.
///
/// # Safety
/// The arguments are the caller's; `sp` must point to the return address.
#[allow(
    clippy::too_many_arguments,
    reason = "the five of mremap, a free register, the caller's"
)]
pub(super) unsafe extern "C" fn mremap(
    old: Pointer,
    old_size: usize,
    size: usize,
    flags: c_int,
    hint: Pointer,
    _: usize,
    sp: *const usize,
    bp: usize,
) -> Pointer {
    // SAFETY: the entry passes the registers of the caller.
    let caller = unsafe { Caller::at(sp, bp) };
    request::look();
    let t = clock::before();
    // SAFETY: the address is the real function's; its optional argument is passed as it came.
    let addr = unsafe {
        let real: unsafe extern "C" fn(Pointer, usize, usize, c_int, Pointer) -> Pointer =
            transmute(address(&REAL.mremap));
        real(old, old_size, size, flags, hint)
    };
    let errno = errno_if(addr as usize == FAILED);
    let until = clock::after();
    unwind::mapping_changed();
    let stack = Stack::of(&caller);
    event(log::MREMAP, t, until, |line| {
        line.num(log::T, t);
        line.num(log::DT, until - t);
        line.addr(log::OLD, old as usize);
        line.num(log::OLD_SIZE, old_size as u64);
        line.num(log::SIZE, size as u64);
        line.num(log::FLAGS, flags as u32 as u64);
        if flags & libc::MREMAP_FIXED != 0 {
            line.addr(log::HINT, hint as usize);
        }
        if errno == 0 {
            line.addr(log::ADDR, addr as usize);
        } else {
            line.errno(errno);
        }
        stack.put(line);
    });
    if settings::leaks() && errno == 0 {
        leaks::unmapped(old as usize, old_size);
        let fixed = flags & libc::MREMAP_FIXED != 0;
        leaks::mapped(addr as usize, size, fixed, stack);
    }
    addr
}

/// Body of `mprotect`.
///
/// # Safety
/// The arguments are the caller's; `sp` must point to the return address.
pub(super) unsafe extern "C" fn mprotect(
    addr: Pointer,
    size: usize,
    prot: c_int,
    sp: *const usize,
    bp: usize,
) -> c_int {
    // SAFETY: the entry passes the registers of the caller.
    let caller = unsafe { Caller::at(sp, bp) };
    // SAFETY: the address is the real function's, whose type this is.
    let answer = unsafe {
        let real: unsafe extern "C" fn(Pointer, usize, c_int) -> c_int =
            transmute(address(&REAL.mprotect));
        real(addr, size, prot)
    };
    let errno = errno_if(answer != 0);
    let t = clock::after();
    unwind::mapping_changed();
    let stack = Stack::of(&caller);
    event(const { &tag(Op::Mprotect) }, t, t, |line| {
        line.num(log::T, t);
        line.addr(log::ADDR, addr as usize);
        line.num(log::SIZE, size as u64);
        line.num(log::PROT, prot as u32 as u64);
        if errno != 0 {
            line.errno(errno);
        }
        stack.put(line);
    });
    answer
}

/// Moves the break by `call`, the program's own, and writes it with what `put` adds to a call that failed or not.
#[inline(always)]
fn move_break<A: Copy>(
    tag: &'static Tag,
    caller: &Caller,
    call: impl FnOnce() -> A,
    failed: impl FnOnce(A) -> bool,
    put: impl Fn(&mut Line, bool),
) -> A {
    let from = glibc::current_break();
    let began = clock::before();
    let answer = call();
    let errno = errno_if(failed(answer));
    let to = glibc::current_break();
    glibc::break_is_known(from, to);
    let until = clock::after();
    let shrinks = to < from;
    let t = if shrinks { began } else { until };
    let stack = if shrinks {
        Stack::of_release(caller)
    } else {
        Stack::of(caller)
    };
    event(tag, t, until, |line| {
        line.num(log::T, t);
        if shrinks {
            line.num(log::DT, until - t);
        }
        put(line, errno != 0);
        if errno == 0 {
            let first = glibc::break_before_first_move();
            line.addr(log::FROM, if from == 0 { first } else { from });
            line.addr(log::TO, to);
        } else {
            line.errno(errno);
        }
        stack.put(line);
    });
    if settings::leaks() && errno == 0 && from != 0 {
        leaks::broke(from, to);
    }
    answer
}

/// Body of `brk`.
///
/// # Safety
/// The arguments are the caller's; `sp` must point to the return address.
pub(super) unsafe extern "C" fn brk(addr: Pointer, sp: *const usize, bp: usize) -> c_int {
    // SAFETY: the entry passes the registers of the caller.
    let caller = unsafe { Caller::at(sp, bp) };
    // SAFETY: the address is the real function's, whose type this is.
    let real: unsafe extern "C" fn(Pointer) -> c_int = unsafe { transmute(address(&REAL.brk)) };
    move_break(
        const { &tag(Op::Brk) },
        &caller,
        // SAFETY: the argument is the caller's.
        || unsafe { real(addr) },
        |answer| answer != 0,
        |line, failed| {
            if failed {
                line.addr(log::HINT, addr as usize);
            }
        },
    )
}

/// Body of `sbrk`.
///
/// # Safety
/// The arguments are the caller's; `sp` must point to the return address.
pub(super) unsafe extern "C" fn sbrk(delta: isize, sp: *const usize, bp: usize) -> Pointer {
    // SAFETY: the entry passes the registers of the caller.
    let caller = unsafe { Caller::at(sp, bp) };
    // SAFETY: the address is the real function's, whose type this is.
    let real: unsafe extern "C" fn(isize) -> Pointer = unsafe { transmute(address(&REAL.sbrk)) };
    move_break(
        const { &tag(Op::Sbrk) },
        &caller,
        // SAFETY: the argument is the caller's.
        || unsafe { real(delta) },
        |answer| answer as usize == FAILED,
        |line, _| line.signed(log::DELTA, delta as i64),
    )
}
