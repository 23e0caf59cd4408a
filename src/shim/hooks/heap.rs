//! The malloc family. Each body calls the function of its own name exactly once and passes the result through.

use crate::glibc::{self, Call, Chunk};
use crate::real::{REAL, address, is_bootstrap};
use crate::record::heap_call;
use crate::stack::Stack;
use crate::unwind::Caller;
use crate::{bootstrap, clock, leaks, log, settings, thread};
use core::ffi::{c_int, c_void};
use core::mem::transmute;
use memspy_log::{Acquire, Key, Op, Outcome, Release, Tag, timed_tag};

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

/// What a call asked for.
#[derive(Clone, Copy)]
struct Asked {
    /// `count` or `align`, where the function has one.
    extra: Option<(&'static Key, u64)>,
    /// Bytes; of one element with `count`.
    size: usize,
    /// Bytes in all.
    bytes: usize,
}

impl Asked {
    #[inline(always)]
    fn size(size: usize) -> Asked {
        Asked {
            extra: None,
            size,
            bytes: size,
        }
    }

    #[inline(always)]
    fn aligned(align: usize, size: usize) -> Asked {
        Asked {
            extra: Some((log::ALIGN, align as u64)),
            size,
            bytes: size,
        }
    }

    #[inline(always)]
    fn elements(count: usize, size: usize) -> Asked {
        Asked {
            extra: Some((log::COUNT, count as u64)),
            size,
            bytes: count.saturating_mul(size),
        }
    }
}

/// A call's end as its line tells it. `failure`: the errno, 0 if NULL is as it should be.
#[inline(always)]
fn outcome(ptr: usize, failure: i32) -> Outcome {
    match (ptr, failure) {
        (0, 0) => Outcome::Nothing,
        (0, errno) => Outcome::Failed(errno),
        (ptr, _) => Outcome::Block(ptr),
    }
}

impl Allocation {
    /// Notes the call.
    #[inline(always)]
    fn done(&self, call: &Call, ptr: usize, failure: i32, asked: Asked, caller: &Caller) {
        let mut stack = Stack::NONE;
        if settings::events() {
            stack = self.write(call, ptr, failure, asked, caller);
        }
        if settings::leaks() {
            leaks::allocated(ptr, asked.bytes, stack.or_of(caller));
        }
    }

    /// Writes the call and what it did underneath.
    #[inline(always)]
    fn write(&self, call: &Call, ptr: usize, failure: i32, asked: Asked, caller: &Caller) -> Stack {
        let slot = thread::ready();
        let t = slot.map_or_else(clock::after, |_| clock::running());
        call.leave((0, t), self.name, caller);
        let stack = Stack::of(caller);
        // SAFETY: the block was given out just now, nobody else knows it.
        unsafe {
            let chunk = Chunk::of(ptr);
            if !chunk.is_plain() {
                if let Some(mapping) = chunk.own_mapping() {
                    glibc::mapped(mapping, t, self.name, stack);
                }
                chunk.look_at_arena(t, self.name);
            }
        }
        heap_call(slot, || Acquire {
            opening: self.tag,
            t,
            moved: None,
            extra: asked.extra,
            size: asked.size as u64,
            outcome: outcome(ptr, failure),
            stack: stack.number(),
        });
        stack
    }

    /// The same for functions that answer NULL on failure.
    #[inline(always)]
    fn answered(&self, call: &Call, ptr: Pointer, asked: Asked, caller: &Caller) {
        let failure = if ptr.is_null() { errno() } else { 0 };
        self.done(call, ptr as usize, failure, asked, caller);
    }
}

/// Defines a body for a function that takes a size, or an alignment and a size.
macro_rules! simple {
    ($name:ident($($arg:ident,)* ; $size:ident), $op:ident, $asked:ident) => {
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
            allocation!($op).answered(&call, ptr, Asked::$asked($($arg,)* $size), &caller);
            ptr
        }
    };
    (@usize $arg:ident) => { usize };
}

simple!(malloc(; size), Malloc, size);
simple!(valloc(; size), Valloc, size);
simple!(pvalloc(; size), Pvalloc, size);
simple!(aligned_alloc(align, ; size), AlignedAlloc, aligned);
simple!(memalign(align, ; size), Memalign, aligned);

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
    allocation!(Calloc).answered(&call, ptr, Asked::elements(count, size), &caller);
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
    allocation!(PosixMemalign).done(&call, ptr, answer, Asked::aligned(align, size), &caller);
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
            reallocation.mapping = unsafe { Chunk::of(old).own_mapping() };
        }
        reallocation
    }

    /// Notes the call.
    #[inline(always)]
    fn done(self, allocation: &Allocation, ptr: usize, asked: Asked, caller: &Caller) {
        // A realloc to nothing frees: its NULL is no failure.
        let failure = if ptr == 0 && asked.bytes != 0 {
            errno()
        } else {
            0
        };
        let mut stack = Stack::NONE;
        if settings::events() {
            stack = self.write(allocation, ptr, failure, asked, caller);
        }
        if settings::leaks() {
            if failure == 0 {
                leaks::reallocated(self.moving, ptr, asked.bytes, stack.or_of(caller));
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
        asked: Asked,
        caller: &Caller,
    ) -> Stack {
        let slot = thread::ready();
        let until = slot.map_or_else(clock::after, |_| clock::running());
        let t = self.began;
        self.call.leave((t, until), allocation.name, caller);
        let stack = Stack::of(caller);
        // SAFETY: the block was given out just now, nobody else knows it.
        unsafe {
            let chunk = Chunk::of(ptr);
            if !chunk.is_plain() || self.mapping.is_some() {
                let now = chunk.own_mapping();
                if (self.mapping, now) != (None, None) {
                    self.moved_mapping(allocation, now, failure, until, stack);
                }
                chunk.look_at_arena(until, allocation.name);
            }
        }
        heap_call(slot, || Acquire {
            opening: allocation.tag,
            t,
            moved: Some((until - t, self.old)),
            extra: asked.extra,
            size: asked.size as u64,
            outcome: outcome(ptr, failure),
            stack: stack.number(),
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
    reallocation.done(
        allocation!(Realloc),
        ptr as usize,
        Asked::size(size),
        &caller,
    );
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
    reallocation.done(
        allocation!(Reallocarray),
        ptr as usize,
        Asked::elements(count, size),
        &caller,
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
    ($name:ident($($arg:ident),*), $op:ident, $align:expr, $size:expr) => {
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
            Chunk::fetch(ptr as usize);
            // SAFETY: the entry passes the registers of the caller.
            let caller = unsafe { Caller::at(sp, bp) };
            let mut t = 0;
            if settings::events() {
                let stack = Stack::of_release(&caller);
                let slot = thread::ready();
                t = slot.map_or_else(clock::before, |_| clock::running());
                heap_call(slot, || Release {
                    opening: const { &timed_tag(Op::$op) },
                    t,
                    ptr: ptr as usize,
                    align: $align,
                    size: $size,
                    stack: stack.number(),
                });
                // SAFETY: the block is the caller's until the call below.
                unsafe {
                    let chunk = Chunk::of(ptr as usize);
                    if !chunk.is_plain() {
                        if let Some(mapping) = chunk.own_mapping() {
                            glibc::unmapped(mapping, t, Op::$op.name(), stack);
                        }
                        chunk.look_at_arena(t, Op::$op.name());
                    }
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

release!(free(), Free, None, None);
release!(free_sized(size), FreeSized, None, Some(size as u64));
release!(
    free_aligned_sized(align, size),
    FreeAlignedSized,
    Some(align as u64),
    Some(size as u64)
);

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
