//! The malloc family. Each body calls the function of its own name exactly once and passes the result through.
//!
//! A call is noted by one of two ways. The short one is for a call that becomes a line without a stack, of a thread that
//! has its buffer, with nothing to be told of the kernel: nearly every call when stacks are off. It writes nothing
//! unless it writes the line. The other one is for whatever else there may be, and a function of its own, so that the
//! short one finds the registers free.

use crate::glibc::{self, Call, Chunk};
use crate::real::{REAL, address, is_bootstrap};
use crate::record::{heap_call, heap_call_at_once};
use crate::slot::Slot;
use crate::stack::Stack;
use crate::unwind::Caller;
use crate::{bootstrap, clock, leaks, log, settings, start, thread};
use core::ffi::{c_int, c_void};
use core::mem::transmute;
use memspy_log::{Acquire, Key, Op, Outcome, Release, Tag, timed_tag};

type Pointer = *mut c_void;

/// What every call of a function has in common.
struct Function {
    tag: &'static Tag,
    name: &'static str,
}

macro_rules! function {
    ($op:ident) => {
        const {
            &Function {
                tag: &timed_tag(Op::$op),
                name: Op::$op.name(),
            }
        }
    };
}

/// The stack pointer and the frame pointer at a hook's first instruction, from which [`Caller`] is made where it is needed.
#[derive(Clone, Copy)]
struct Entry {
    sp: *const usize,
    bp: usize,
}

impl Entry {
    /// # Safety
    /// The hook must not have returned yet.
    unsafe fn caller(self) -> Caller {
        // SAFETY: at a hook's first instruction the stack pointer points to the return address, which stays there until
        // the hook returns.
        unsafe { Caller::at(self.sp, self.bp) }
    }
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

/// Where, and with what time, a call that gave out a block becomes a line; `None` if there may be more to tell.
///
/// # Safety
/// `ptr` must be a block that nobody else knows yet, or 0.
#[inline(always)]
unsafe fn line_alone(ptr: usize) -> Option<(&'static Slot, u64)> {
    if ptr == 0 || !settings::lines_only() || glibc::break_has_moved() {
        return None;
    }
    let slot = thread::ready()?;
    let t = clock::running();
    // SAFETY: the caller vouches for the block.
    let has_news = unsafe { Chunk::of(ptr).has_news() };
    (!has_news).then_some((slot, t))
}

impl Function {
    /// Notes a call that gave out a block.
    ///
    /// # Safety
    /// `ptr` must be a block that nobody else knows yet, or 0; the hook must not have returned yet.
    #[inline(always)]
    unsafe fn gave(
        &'static self,
        call: Call,
        ptr: usize,
        failure: impl FnOnce() -> i32,
        asked: Asked,
        entry: Entry,
    ) {
        call.leave();
        // SAFETY: the caller vouches for block and hook.
        unsafe {
            if settings::blocks_only() {
                leaks::allocated(ptr, asked.bytes, Stack::of(&entry.caller()));
            } else if !self.gave_at_once(ptr, asked) {
                self.gave_fully(call, ptr, failure(), asked, entry);
            }
        }
    }

    /// The short way; answers whether it was one.
    ///
    /// # Safety
    /// As for [`Function::gave`].
    #[inline(always)]
    unsafe fn gave_at_once(&'static self, ptr: usize, asked: Asked) -> bool {
        // SAFETY: the caller vouches for the block.
        let Some((slot, t)) = (unsafe { line_alone(ptr) }) else {
            return false;
        };
        let line = Acquire {
            opening: self.tag,
            t,
            moved: None,
            extra: asked.extra,
            size: asked.size as u64,
            outcome: Outcome::Block(ptr),
            stack: 0,
        };
        heap_call_at_once(slot, line)
    }

    /// # Safety
    /// As for [`Function::gave`].
    #[inline(never)]
    unsafe fn gave_fully(
        &'static self,
        call: Call,
        ptr: usize,
        failure: i32,
        asked: Asked,
        entry: Entry,
    ) {
        // SAFETY: the caller vouches for the hook.
        let caller = &unsafe { entry.caller() };
        let mut stack = Stack::NONE;
        if settings::events() {
            stack = self.write(&call, ptr, failure, asked, caller);
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
        if glibc::break_has_moved() {
            call.break_moved((0, t), self.name, caller);
        }
        let stack = Stack::of(caller);
        // SAFETY: the block was given out just now, nobody else knows it.
        unsafe {
            let chunk = Chunk::of(ptr);
            if let Some(mapping) = chunk.own_mapping() {
                glibc::mapped(mapping, t, self.name, stack);
            }
            chunk.look_at_arena(t, self.name);
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

    /// Notes a call that answered with a block, or with NULL where it failed.
    ///
    /// # Safety
    /// As for [`Function::gave`].
    #[inline(always)]
    unsafe fn answered(&'static self, call: Call, ptr: Pointer, asked: Asked, entry: Entry) {
        let failure = || if ptr.is_null() { errno() } else { 0 };
        // SAFETY: the caller vouches for block and hook.
        unsafe { self.gave(call, ptr as usize, failure, asked, entry) };
    }

    /// Notes a call that is about to take a block back; answers its time, 0 if events are not wanted.
    ///
    /// # Safety
    /// `block` must be the caller's; the hook must not have returned yet.
    #[inline(always)]
    unsafe fn takes(&'static self, block: Block, entry: Entry) -> u64 {
        if settings::blocks_only() {
            leaks::freed(block.ptr);
            return 0;
        }
        // SAFETY: the caller vouches for block and hook.
        unsafe {
            match self.takes_at_once(block) {
                Some(t) => t,
                None => self.takes_fully(block, entry),
            }
        }
    }

    /// The short way; answers the time if it was one.
    ///
    /// # Safety
    /// As for [`Function::takes`].
    #[inline(always)]
    unsafe fn takes_at_once(&'static self, block: Block) -> Option<u64> {
        if !settings::lines_only() {
            return None;
        }
        let slot = thread::ready()?;
        let t = clock::running();
        if !heap_call_at_once(slot, block.release(self.tag, t, Stack::NONE)) {
            return None;
        }
        // SAFETY: the block is the caller's until the real call.
        unsafe {
            if Chunk::of(block.ptr).has_news() {
                self.tell_taken(block.ptr, t, Stack::NONE);
            }
        }
        Some(t)
    }

    /// # Safety
    /// As for [`Function::takes`].
    #[inline(never)]
    unsafe fn takes_fully(&'static self, block: Block, entry: Entry) -> u64 {
        let mut t = 0;
        if settings::events() {
            // SAFETY: the caller vouches for the hook.
            let caller = unsafe { entry.caller() };
            let stack = Stack::of_release(&caller);
            let slot = thread::ready();
            t = slot.map_or_else(clock::before, |_| clock::running());
            heap_call(slot, || block.release(self.tag, t, stack));
            // SAFETY: the block is the caller's until the real call.
            unsafe { self.tell_taken(block.ptr, t, stack) };
        }
        if settings::leaks() {
            leaks::freed(block.ptr);
        }
        t
    }

    /// Writes what taking a block back does underneath.
    ///
    /// # Safety
    /// `ptr` must be the caller's block, or 0.
    unsafe fn tell_taken(&'static self, ptr: usize, t: u64, stack: Stack) {
        // SAFETY: the caller vouches for the block.
        unsafe {
            let chunk = Chunk::of(ptr);
            if let Some(mapping) = chunk.own_mapping() {
                glibc::unmapped(mapping, t, self.name, stack);
            }
            chunk.look_at_arena(t, self.name);
        }
    }

    /// A call that took a block back is over.
    ///
    /// # Safety
    /// The hook must not have returned yet.
    #[inline(always)]
    unsafe fn took(&'static self, call: Call, t: u64, entry: Entry) {
        call.leave();
        if glibc::break_has_moved() && settings::events() {
            // SAFETY: the caller vouches for the hook.
            let caller = unsafe { entry.caller() };
            call.break_moved((t, 0), self.name, &caller);
        }
    }
}

/// A block that is given back, and what the function is told of it.
#[derive(Clone, Copy)]
struct Block {
    ptr: usize,
    align: Option<u64>,
    size: Option<u64>,
}

impl Block {
    #[inline(always)]
    fn release(self, opening: &'static Tag, t: u64, stack: Stack) -> Release {
        Release {
            opening,
            t,
            ptr: self.ptr,
            align: self.align,
            size: self.size,
            stack: stack.number(),
        }
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
            let call = Call::enter();
            // SAFETY: the address is the real function's, whose type this is; its block is nobody else's.
            unsafe {
                let real: unsafe extern "C" fn($(simple!(@usize $arg),)* usize) -> Pointer = transmute(real);
                let ptr = real($($arg,)* $size);
                let asked = Asked::$asked($($arg,)* $size);
                function!($op).answered(call, ptr, asked, Entry { sp, bp });
                ptr
            }
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
    let call = Call::enter();
    // SAFETY: the address is the real function's, whose type this is; its block is nobody else's.
    unsafe {
        let real: unsafe extern "C" fn(usize, usize) -> Pointer = transmute(real);
        let ptr = real(count, size);
        let asked = Asked::elements(count, size);
        function!(Calloc).answered(call, ptr, asked, Entry { sp, bp });
        ptr
    }
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
    let asked = Asked::aligned(align, size);
    // SAFETY: the block is nobody else's.
    unsafe { function!(PosixMemalign).gave(call, ptr, || answer, asked, Entry { sp, bp }) };
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
    ///
    /// # Safety
    /// `ptr` must be a block that nobody else knows yet, or 0; the hook must not have returned yet.
    #[inline(always)]
    unsafe fn done(self, function: &'static Function, ptr: usize, asked: Asked, entry: Entry) {
        self.call.leave();
        // SAFETY: the caller vouches for block and hook.
        unsafe {
            if settings::blocks_only() && ptr != 0 {
                let stack = Stack::of(&entry.caller());
                leaks::reallocated(self.moving, ptr, asked.bytes, stack);
            } else if !self.done_at_once(function, ptr, asked) {
                self.done_fully(function, ptr, asked, entry);
            }
        }
    }

    /// The short way; answers whether it was one.
    ///
    /// # Safety
    /// As for [`Reallocation::done`].
    #[inline(always)]
    unsafe fn done_at_once(&self, function: &'static Function, ptr: usize, asked: Asked) -> bool {
        if self.mapping.is_some() {
            return false;
        }
        // SAFETY: the caller vouches for the block.
        let Some((slot, until)) = (unsafe { line_alone(ptr) }) else {
            return false;
        };
        let line = Acquire {
            opening: function.tag,
            t: self.began,
            moved: Some((until - self.began, self.old)),
            extra: asked.extra,
            size: asked.size as u64,
            outcome: Outcome::Block(ptr),
            stack: 0,
        };
        heap_call_at_once(slot, line)
    }

    /// # Safety
    /// As for [`Reallocation::done`].
    #[inline(never)]
    unsafe fn done_fully(
        self,
        function: &'static Function,
        ptr: usize,
        asked: Asked,
        entry: Entry,
    ) {
        // SAFETY: the caller vouches for the hook.
        let caller = &unsafe { entry.caller() };
        // A realloc to nothing frees: its NULL is no failure.
        let failure = if ptr == 0 && asked.bytes != 0 {
            errno()
        } else {
            0
        };
        let mut stack = Stack::NONE;
        if settings::events() {
            stack = self.write(function, ptr, failure, asked, caller);
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
        function: &'static Function,
        ptr: usize,
        failure: i32,
        asked: Asked,
        caller: &Caller,
    ) -> Stack {
        let slot = thread::ready();
        let until = slot.map_or_else(clock::after, |_| clock::running());
        let t = self.began;
        if glibc::break_has_moved() {
            self.call.break_moved((t, until), function.name, caller);
        }
        let stack = Stack::of(caller);
        // SAFETY: the block was given out just now, nobody else knows it.
        unsafe {
            let chunk = Chunk::of(ptr);
            let now = chunk.own_mapping();
            if (self.mapping, now) != (None, None) {
                self.moved_mapping(function, now, failure, until, stack);
            }
            chunk.look_at_arena(until, function.name);
        }
        heap_call(slot, || Acquire {
            opening: function.tag,
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
        function: &'static Function,
        now: Option<(usize, usize)>,
        failure: i32,
        until: u64,
        stack: Stack,
    ) {
        let name = function.name;
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
    // SAFETY: the address is the real function's, whose type this is.
    let real: unsafe extern "C" fn(Pointer, usize) -> Pointer = unsafe { transmute(real) };
    // SAFETY: at a hook's first instruction the stack pointer points to the return address.
    let return_address = unsafe { *sp };
    let folded = thread::peek().is_some_and(|slot| slot.unfold(old as usize, size));
    // glibc's reallocarray jumps to realloc: the return address is then the one of our own call of it, and nothing else
    // of ours leads here. That holds for threads without a slot, too.
    if start::is_own_code(return_address) || folded && start::is_libc_code(return_address) {
        // SAFETY: the caller's arguments; the event is reallocarray's.
        return unsafe { real(old, size) };
    }
    // SAFETY: the caller's block and arguments; the new block is nobody else's.
    unsafe {
        let reallocation = Reallocation::begin(old as usize);
        let ptr = real(old, size);
        let asked = Asked::size(size);
        reallocation.done(function!(Realloc), ptr as usize, asked, Entry { sp, bp });
        ptr
    }
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
    let asked = Asked::elements(count, size);
    // SAFETY: the new block is nobody else's.
    unsafe {
        reallocation.done(
            function!(Reallocarray),
            ptr as usize,
            asked,
            Entry { sp, bp },
        )
    };
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
            let function = function!($op);
            let entry = Entry { sp, bp };
            let block = Block {
                ptr: ptr as usize,
                align: $align,
                size: $size,
            };
            // SAFETY: the block is the caller's until the real call; the address is the real function's, whose type this is.
            unsafe {
                let t = function.takes(block, entry);
                let call = Call::enter();
                let real: unsafe extern "C" fn(Pointer $(, release!(@usize $arg))*) = transmute(real);
                real(ptr $(, $arg)*);
                function.took(call, t, entry);
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
