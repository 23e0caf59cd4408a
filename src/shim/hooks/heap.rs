//! The malloc family. Each body calls the function of its own name exactly once and passes the result through.

use crate::glibc::{self, Call};
use crate::real::{REAL, address, is_bootstrap};
use crate::record::event;
use crate::stack::Stack;
use crate::unwind::Caller;
use crate::{bootstrap, clock, leaks, log, settings, thread};
use core::ffi::{c_int, c_void};
use core::mem::transmute;
use memspy_log::{Line, Op, Tag, timed_tag};

type Pointer = *mut c_void;

/// What every call that gives out a block has in common.
struct Allocation {
    tag: &'static Tag,
    name: &'static str,
}

macro_rules! allocation {
    ($op:ident) => {
        const {
            &Allocation {
                tag: &timed_tag(Op::$op),
                name: Op::$op.name(),
            }
        }
    };
}

/// The errno that the real function has just set.
#[cold]
fn errno() -> i32 {
    // SAFETY: libc's answer is valid for the calling thread.
    unsafe { *libc::__errno_location() }
}

/// Appends the block's address, or the error.
#[inline(always)]
fn put_result(line: &mut Line, ptr: usize, errno: i32) {
    if ptr != 0 {
        line.addr(log::PTR, ptr);
    } else if errno != 0 {
        log::put_errno(line, errno);
    }
}

impl Allocation {
    /// Notes the call. `asked`: bytes in all; `put` writes the arguments.
    #[inline(always)]
    fn done(
        &self,
        call: &Call,
        (ptr, asked): (usize, usize),
        failure: i32,
        caller: &Caller,
        put: impl Fn(&mut Line),
    ) {
        let mut stack = Stack::NONE;
        if settings::events() {
            stack = self.write(call, ptr, failure, caller, put);
        }
        if settings::leaks() {
            leaks::allocated(ptr, asked, stack.or_of(caller));
        }
    }

    /// Writes the call and what it did underneath.
    #[inline(always)]
    fn write(
        &self,
        call: &Call,
        ptr: usize,
        failure: i32,
        caller: &Caller,
        put: impl Fn(&mut Line),
    ) -> Stack {
        let t = clock::after();
        call.leave((0, t), self.name, caller);
        let stack = Stack::of(caller);
        // SAFETY: the block was given out just now, nobody else knows it.
        unsafe {
            if let Some(mapping) = glibc::own_mapping(ptr) {
                glibc::mapped(mapping, t, self.name, stack);
            }
            glibc::look_at_arena(ptr, t, self.name);
        }
        event(self.tag, t, t, |line| {
            line.digits(t);
            put(line);
            put_result(line, ptr, failure);
            stack.put(line);
        });
        stack
    }

    /// The same for functions that answer NULL on failure.
    #[inline(always)]
    fn answered(
        &self,
        call: &Call,
        (ptr, asked): (Pointer, usize),
        caller: &Caller,
        put: impl Fn(&mut Line),
    ) {
        let failure = if ptr.is_null() { errno() } else { 0 };
        self.done(call, (ptr as usize, asked), failure, caller, put);
    }
}

/// Defines a body for a function that takes a size, or an alignment and a size.
macro_rules! simple {
    ($name:ident($($arg:ident: $key:ident,)* ; $size:ident), $op:ident) => {
        #[doc = concat!("Body of `", stringify!($name), "`.")]
        ///
        /// # Safety
        /// `sp` must point to the return address.
        pub(super) unsafe extern "C" fn $name(
            $($arg: usize,)*
            $size: usize,
            sp: *const usize,
            bp: usize,
        ) -> Pointer {
            let real = address(&REAL.$name);
            if real == 0 {
                return bootstrap::allocate($size).cast();
            }
            // SAFETY: the entry passes the registers of the caller.
            let caller = unsafe { Caller::at(sp, bp) };
            let call = Call::enter();
            // SAFETY: the address is the real function's, whose type this is.
            let ptr = unsafe {
                let real: unsafe extern "C" fn($(simple!(@usize $arg),)* usize) -> Pointer = transmute(real);
                real($($arg,)* $size)
            };
            allocation!($op).answered(&call, (ptr, $size), &caller, |line| {
                $(line.num(log::$key, $arg as u64);)*
                line.num(log::SIZE, $size as u64);
            });
            ptr
        }
    };
    (@usize $arg:ident) => { usize };
}

simple!(malloc(; size), Malloc);
simple!(valloc(; size), Valloc);
simple!(pvalloc(; size), Pvalloc);
simple!(aligned_alloc(align: ALIGN, ; size), AlignedAlloc);
simple!(memalign(align: ALIGN, ; size), Memalign);

/// Body of `calloc`.
///
/// # Safety
/// `sp` must point to the return address.
pub(super) unsafe extern "C" fn calloc(
    count: usize,
    size: usize,
    sp: *const usize,
    bp: usize,
) -> Pointer {
    let real = address(&REAL.calloc);
    if real == 0 {
        return count
            .checked_mul(size)
            .map_or(core::ptr::null_mut(), bootstrap::allocate)
            .cast();
    }
    // SAFETY: the entry passes the registers of the caller.
    let caller = unsafe { Caller::at(sp, bp) };
    let call = Call::enter();
    // SAFETY: the address is the real function's, whose type this is.
    let ptr = unsafe {
        let real: unsafe extern "C" fn(usize, usize) -> Pointer = transmute(real);
        real(count, size)
    };
    let asked = count.wrapping_mul(size);
    allocation!(Calloc).answered(&call, (ptr, asked), &caller, |line| {
        line.num(log::COUNT, count as u64);
        line.num(log::SIZE, size as u64);
    });
    ptr
}

/// Body of `posix_memalign`.
///
/// # Safety
/// `place` must be what posix_memalign may write to; `sp` must point to the return address.
pub(super) unsafe extern "C" fn posix_memalign(
    place: *mut Pointer,
    align: usize,
    size: usize,
    sp: *const usize,
    bp: usize,
) -> c_int {
    let real = address(&REAL.posix_memalign);
    if real == 0 {
        return libc::ENOMEM;
    }
    // SAFETY: the entry passes the registers of the caller.
    let caller = unsafe { Caller::at(sp, bp) };
    let call = Call::enter();
    // SAFETY: the address is the real function's, whose type this is.
    let answer = unsafe {
        let real: unsafe extern "C" fn(*mut Pointer, usize, usize) -> c_int = transmute(real);
        real(place, align, size)
    };
    let ptr = if answer == 0 {
        // SAFETY: on success the real function has written there.
        unsafe { *place as usize }
    } else {
        0
    };
    allocation!(PosixMemalign).done(&call, (ptr, size), answer, &caller, |line| {
        line.num(log::ALIGN, align as u64);
        line.num(log::SIZE, size as u64);
    });
    answer
}

/// A reallocation under way: what was known of the old block.
struct Reallocation {
    call: Call,
    old: usize,
    mapping: Option<(usize, usize)>,
    began: u64,
    moving: leaks::Moving,
}

impl Reallocation {
    /// # Safety
    /// `old` must be the caller's block, or 0.
    #[inline(always)]
    unsafe fn begin(old: usize) -> Reallocation {
        let mut reallocation = Reallocation {
            call: Call::enter(),
            old,
            mapping: None,
            began: 0,
            moving: leaks::moving(old),
        };
        if settings::events() {
            reallocation.began = clock::before();
            // SAFETY: the caller vouches for the block.
            reallocation.mapping = unsafe { glibc::own_mapping(old) };
        }
        reallocation
    }

    /// Notes the call. `asked`: bytes in all, 0 on a request that frees; `put` writes the arguments.
    #[inline(always)]
    fn done(
        self,
        allocation: &Allocation,
        ptr: usize,
        asked: usize,
        caller: &Caller,
        put: impl Fn(&mut Line),
    ) {
        let failure = if ptr == 0 && asked != 0 { errno() } else { 0 };
        let mut stack = Stack::NONE;
        if settings::events() {
            stack = self.write(allocation, ptr, failure, caller, put);
        }
        if settings::leaks() {
            if failure == 0 {
                leaks::reallocated(self.moving, ptr, asked, stack.or_of(caller));
            } else {
                leaks::kept(self.moving);
            }
        }
    }

    /// Writes the call and what it did underneath.
    #[inline(always)]
    fn write(
        &self,
        allocation: &Allocation,
        ptr: usize,
        failure: i32,
        caller: &Caller,
        put: impl Fn(&mut Line),
    ) -> Stack {
        let (t, until) = (self.began, clock::after());
        self.call.leave((t, until), allocation.name, caller);
        let stack = Stack::of(caller);
        // SAFETY: the block was given out just now, nobody else knows it.
        let now = unsafe { glibc::own_mapping(ptr) };
        if (self.mapping, now) != (None, None) {
            self.moved_mapping(allocation, now, failure, until, stack);
        }
        // SAFETY: as above.
        unsafe { glibc::look_at_arena(ptr, until, allocation.name) };
        event(allocation.tag, t, until, |line| {
            line.digits(t);
            line.num(log::DT, until - t);
            line.addr(log::OLD, self.old);
            put(line);
            put_result(line, ptr, failure);
            stack.put(line);
        });
        stack
    }

    #[cold]
    fn moved_mapping(
        &self,
        allocation: &Allocation,
        now: Option<(usize, usize)>,
        failure: i32,
        until: u64,
        stack: Stack,
    ) {
        let name = allocation.name;
        match (self.mapping, now) {
            (Some(old), Some(new)) if old != new => {
                glibc::remapped(old, new, (self.began, until), name, stack);
            }
            (None, Some(new)) => glibc::mapped(new, until, name, stack),
            (Some(old), None) if failure == 0 => glibc::unmapped(old, self.began, name, stack),
            _ => {}
        }
    }
}

/// Body of `realloc`.
///
/// # Safety
/// `old` must be the caller's block, or NULL; `sp` must point to the return address.
pub(super) unsafe extern "C" fn realloc(
    old: Pointer,
    size: usize,
    sp: *const usize,
    bp: usize,
) -> Pointer {
    let real = address(&REAL.realloc);
    if real == 0 || is_bootstrap(old as usize) {
        // SAFETY: the caller's block, one of the arena's or NULL.
        return unsafe { leave_bootstrap(old, size) };
    }
    // SAFETY: the entry passes the registers of the caller.
    let caller = unsafe { Caller::at(sp, bp) };
    // SAFETY: the address is the real function's, whose type this is.
    let real: unsafe extern "C" fn(Pointer, usize) -> Pointer = unsafe { transmute(real) };
    let folded = thread::peek().is_some_and(|slot| slot.unfold(old as usize, size));
    // glibc's reallocarray jumps to realloc: the return address is then the one of our own call of it, and nothing else
    // of ours leads here. That holds for threads without a slot, too.
    if crate::start::is_own_code(caller.ip) || folded && crate::start::is_libc_code(caller.ip) {
        // SAFETY: the caller's arguments; the event is reallocarray's.
        return unsafe { real(old, size) };
    }
    // SAFETY: the caller's block.
    let reallocation = unsafe { Reallocation::begin(old as usize) };
    // SAFETY: the caller's arguments.
    let ptr = unsafe { real(old, size) };
    reallocation.done(allocation!(Realloc), ptr as usize, size, &caller, |line| {
        line.num(log::SIZE, size as u64);
    });
    ptr
}

/// Body of `reallocarray`.
///
/// # Safety
/// `old` must be the caller's block, or NULL; `sp` must point to the return address.
pub(super) unsafe extern "C" fn reallocarray(
    old: Pointer,
    count: usize,
    size: usize,
    sp: *const usize,
    bp: usize,
) -> Pointer {
    let real = address(&REAL.reallocarray);
    let asked = count.checked_mul(size);
    if real == 0 || is_bootstrap(old as usize) {
        let Some(asked) = asked else {
            // SAFETY: libc's answer is valid for the calling thread; the function fails with this error.
            unsafe { *libc::__errno_location() = libc::ENOMEM };
            return core::ptr::null_mut();
        };
        // SAFETY: the caller's arguments; a libc without the function has realloc.
        return unsafe { realloc(old, asked, sp, bp) };
    }
    // SAFETY: the entry passes the registers of the caller.
    let caller = unsafe { Caller::at(sp, bp) };
    // SAFETY: the caller's block.
    let reallocation = unsafe { Reallocation::begin(old as usize) };
    // Not `peek`: this may be the thread's first call.
    if let (Some(slot), Some(asked)) = (thread::slot(), asked) {
        slot.fold(old as usize, asked);
    }
    // SAFETY: the address is the real function's, whose type this is, with the caller's arguments.
    let ptr = unsafe {
        let real: unsafe extern "C" fn(Pointer, usize, usize) -> Pointer = transmute(real);
        real(old, count, size)
    };
    if let Some(slot) = thread::peek() {
        slot.end_fold();
    }
    let asked = asked.unwrap_or(usize::MAX);
    reallocation.done(
        allocation!(Reallocarray),
        ptr as usize,
        asked,
        &caller,
        |line| {
            line.num(log::COUNT, count as u64);
            line.num(log::SIZE, size as u64);
        },
    );
    ptr
}

/// Moves a block of the bootstrap arena to the real heap, or makes one while the real functions are looked up.
///
/// # Safety
/// `old` must be a block of the arena, or NULL.
#[cold]
unsafe fn leave_bootstrap(old: Pointer, size: usize) -> Pointer {
    let real = REAL.malloc.load(core::sync::atomic::Ordering::Acquire);
    let new: Pointer = if real == 0 {
        bootstrap::allocate(size).cast()
    } else {
        // SAFETY: the address is the real malloc's.
        unsafe { transmute::<usize, unsafe extern "C" fn(usize) -> Pointer>(real)(size) }
    };
    if !new.is_null() && is_bootstrap(old as usize) {
        // SAFETY: `old` has that many bytes, `new` has `size`.
        unsafe {
            let len = bootstrap::size_of_block(old.cast()).min(size);
            new.cast::<u8>().copy_from_nonoverlapping(old.cast(), len);
        }
    }
    new
}

/// Defines a body for a function that gives a block back.
macro_rules! release {
    ($name:ident($($arg:ident: $key:ident),*), $op:ident) => {
        #[doc = concat!("Body of `", stringify!($name), "`.")]
        ///
        /// # Safety
        /// `ptr` must be the caller's block, or NULL; `sp` must point to the return address.
        pub(super) unsafe extern "C" fn $name(
            ptr: Pointer,
            $($arg: usize,)*
            sp: *const usize,
            bp: usize,
        ) {
            let real = address(&REAL.$name);
            if real == 0 || is_bootstrap(ptr as usize) {
                // SAFETY: as for this function.
                return unsafe { free_without(ptr, sp, bp) };
            }
            // SAFETY: the entry passes the registers of the caller.
            let caller = unsafe { Caller::at(sp, bp) };
            let mut t = 0;
            if settings::events() {
                let stack = Stack::of_release(&caller);
                t = clock::before();
                event(const { &timed_tag(Op::$op) }, t, t, |line| {
                    line.digits(t);
                    line.addr(log::PTR, ptr as usize);
                    $(line.num(log::$key, $arg as u64);)*
                    stack.put(line);
                });
                // SAFETY: the block is the caller's until the call below.
                unsafe {
                    if let Some(mapping) = glibc::own_mapping(ptr as usize) {
                        glibc::unmapped(mapping, t, Op::$op.name(), stack);
                    }
                    glibc::look_at_arena(ptr as usize, t, Op::$op.name());
                }
            }
            if settings::leaks() {
                leaks::freed(ptr as usize);
            }
            let call = Call::enter();
            // SAFETY: the address is the real function's, whose type this is.
            unsafe {
                let real: unsafe extern "C" fn(Pointer $(, release!(@usize $arg))*) = transmute(real);
                real(ptr $(, $arg)*);
            }
            if settings::events() {
                call.leave((t, 0), Op::$op.name(), &caller);
            }
        }
    };
    (@usize $arg:ident) => { usize };
}

release!(free(), Free);
release!(free_sized(size: SIZE), FreeSized);
release!(free_aligned_sized(align: ALIGN, size: SIZE), FreeAlignedSized);

/// A block of the bootstrap arena is never reused; a libc without the sized functions has free.
///
/// # Safety
/// As for `free`.
#[cold]
unsafe fn free_without(ptr: Pointer, sp: *const usize, bp: usize) {
    if !is_bootstrap(ptr as usize) && address(&REAL.free) != 0 {
        // SAFETY: as for this function.
        unsafe { free(ptr, sp, bp) };
    }
}
