//! The malloc family. Each body calls the function of its own name exactly once and passes the result through.
//!
//! A call is noted by one of two ways. The [short one](Short) is for a call that becomes a line without a stack, of a thread
//! that has its buffer, with nothing to be told of the kernel: nearly every call when stacks are off. The other one is for
//! whatever else there may be, and made of functions of their own, so that the short one finds the registers free.

use crate::glibc::{self, Call, Chunk};
use crate::hooks::short::Short;
use crate::real::{REAL, address, is_bootstrap};
use crate::record::heap_call;
use crate::stack::Stack;
use crate::thread::Ready;
use crate::unwind::Caller;
use crate::{arena, bootstrap, clock, leaks, log, settings, start, thread};
use core::ffi::{c_int, c_void};
use core::mem::transmute;
use memspy_log::{Acquire, Key, Op, Outcome, Release, Tag, timed_tag};

type Pointer = *mut c_void;

/// What every call of a function has in common.
pub(super) struct Function {
    pub(super) tag: &'static Tag,
    pub(super) name: &'static str,
    /// `count` or `align`, where the function is told one beside the size.
    pub(super) extra: Option<&'static Key>,
}

macro_rules! function {
    ($op:ident) => {
        function!($op, None)
    };
    ($op:ident, $extra:expr) => {
        const {
            &Function {
                tag: &timed_tag(Op::$op),
                name: Op::$op.name(),
                extra: $extra,
            }
        }
    };
}

/// The stack pointer and the frame pointer at a hook's first instruction, from which [`Caller`] is made where it is needed.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    sp: *const usize,
    bp: usize,
}

impl Entry {
    /// Of a call on the short way: there are no stacks, and nobody asks who called.
    pub(super) const UNKNOWN: Entry = Entry {
        sp: core::ptr::null(),
        bp: 0,
    };

    /// # Safety
    /// The hook must not have returned yet.
    unsafe fn caller(self) -> Caller {
        if self.sp.is_null() {
            return Caller::UNKNOWN;
        }
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

/// The errno of a call that has answered with a block, or with NULL where it failed; 0: it did not.
#[inline(always)]
pub(super) fn failure(ptr: usize) -> i32 {
    if ptr == 0 { errno() } else { 0 }
}

/// What a call asked for.
#[derive(Clone, Copy)]
pub(super) struct Asked {
    /// The count or the alignment; 0 where the function is told none.
    pub(super) extra: usize,
    /// Bytes; of one element with a count.
    pub(super) size: usize,
}

impl Asked {
    #[inline(always)]
    fn size(size: usize) -> Asked {
        Asked { extra: 0, size }
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

/// Now, for an event of a block. `ready`: what [`thread::ready`] has just answered.
#[inline(always)]
fn time_of(ready: Option<Ready>, chunk: Chunk) -> u64 {
    match ready {
        Some(ready) => clock::of_block(|| chunk.is_of_one(ready.slot().stream())),
        None => {
            chunk.is_of_one(arena::NOBODY);
            clock::before()
        }
    }
}

impl Function {
    /// Bytes that a call asked for in all.
    #[inline(always)]
    fn bytes(&self, asked: Asked) -> usize {
        match self.extra {
            Some(key) if core::ptr::eq(key, log::COUNT) => asked.extra.saturating_mul(asked.size),
            _ => asked.size,
        }
    }

    /// `count` or `align`, as the line has it.
    #[inline(always)]
    pub(super) fn extra(&self, asked: Asked) -> Option<(&'static Key, u64)> {
        self.extra.map(|key| (key, asked.extra as u64))
    }

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
                leaks::allocated(ptr, self.bytes(asked), Stack::of(&entry.caller()));
            } else {
                self.gave_fully(call, ptr, failure(), asked, entry);
            }
        }
    }

    /// Writes a call that gave out a block, whatever there is to be told of it.
    ///
    /// # Safety
    /// As for [`Function::gave`].
    #[inline(never)]
    pub(super) unsafe fn gave_fully(
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
            leaks::allocated(ptr, self.bytes(asked), stack.or_of(caller));
        }
    }

    /// Writes the call and what it did underneath.
    #[inline(always)]
    fn write(&self, call: &Call, ptr: usize, failure: i32, asked: Asked, caller: &Caller) -> Stack {
        let ready = thread::ready();
        // SAFETY: the block was given out just now, nobody else knows it.
        let t = time_of(ready, unsafe { Chunk::of(ptr) });
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
        heap_call(ready, || Acquire {
            opening: self.tag,
            t,
            moved: None,
            extra: self.extra(asked),
            size: asked.size as u64,
            outcome: outcome(ptr, failure),
            stack: stack.number(),
        });
        stack
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
        unsafe { self.takes_fully(block, entry) }
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
            let ready = thread::ready();
            // SAFETY: the block is the caller's until the real call.
            t = time_of(ready, unsafe { Chunk::of(block.ptr) });
            heap_call(ready, || block.release(self.tag, t, stack));
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
    #[cold]
    pub(super) unsafe fn tell_taken(&'static self, ptr: usize, t: u64, stack: Stack) {
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
    pub(super) unsafe fn took(&'static self, call: Call, t: u64, entry: Entry) {
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
pub(super) struct Block {
    pub(super) ptr: usize,
    align: Option<u64>,
    size: Option<u64>,
}

impl Block {
    #[inline(always)]
    pub(super) fn release(self, opening: &'static Tag, t: u64, stack: Stack) -> Release {
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

/// Defines a body for a function that takes a size, or a count or an alignment and a size.
macro_rules! acquire {
    ($name:ident($($extra:ident,)? ; $size:ident), $op:ident, $key:expr, $bytes:expr) => {
        #[doc = concat!("Body of `", stringify!($name), "`.")]
        ///
        /// # Safety
        /// `sp` must point to the return address.
        pub(super) unsafe extern "C" fn $name(
            $($extra: usize,)?
            $size: usize,
            sp: *const usize,
            bp: usize,
        ) -> Pointer {
            type Real = unsafe extern "C" fn($(acquire!(@usize $extra),)? usize) -> Pointer;

            #[inline(never)]
            unsafe extern "C" fn fully(
                $($extra: usize,)?
                $size: usize,
                sp: *const usize,
                bp: usize,
            ) -> Pointer {
                let real = address(&REAL.$name);
                if real == 0 {
                    let bytes: Option<usize> = $bytes;
                    return bytes.map_or(core::ptr::null_mut(), bootstrap::allocate).cast();
                }
                let call = Call::enter();
                let asked = acquire!(@asked $($extra,)? $size);
                // SAFETY: the address is the real function's, whose type this is; its block is nobody else's.
                unsafe {
                    let ptr = transmute::<usize, Real>(real)($($extra,)? $size);
                    let failure = || failure(ptr as usize);
                    let entry = Entry { sp, bp };
                    function!($op, $key).gave(call, ptr as usize, failure, asked, entry);
                    ptr
                }
            }

            let Some(way) = Short::way(&REAL.$name) else {
                // SAFETY: the same arguments.
                return unsafe { fully($($extra,)? $size, sp, bp) };
            };
            let call = way.enter();
            let asked = acquire!(@asked $($extra,)? $size);
            // SAFETY: the address is the real function's, whose type this is; its block is nobody else's.
            unsafe {
                let ptr = transmute::<usize, Real>(way.real())($($extra,)? $size);
                way.gave(function!($op, $key), call, ptr as usize, asked);
                ptr
            }
        }
    };
    (@usize $extra:ident) => { usize };
    (@asked $size:ident) => { Asked::size($size) };
    (@asked $extra:ident, $size:ident) => { Asked { extra: $extra, size: $size } };
}

acquire!(malloc(; size), Malloc, None, Some(size));
acquire!(calloc(count, ; size), Calloc, Some(log::COUNT), count.checked_mul(size));
acquire!(valloc(; size), Valloc, None, Some(size));
acquire!(pvalloc(; size), Pvalloc, None, Some(size));
acquire!(aligned_alloc(align, ; size), AlignedAlloc, Some(log::ALIGN), Some(size));
acquire!(memalign(align, ; size), Memalign, Some(log::ALIGN), Some(size));

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
    let asked = Asked { extra: align, size };
    let function = function!(PosixMemalign, Some(log::ALIGN));
    // SAFETY: the block is nobody else's.
    unsafe { function.gave(call, ptr, || answer, asked, Entry { sp, bp }) };
    answer
}

/// A reallocation under way: what was known of the old block.
pub(super) struct Reallocation {
    pub(super) call: Call,
    pub(super) old: usize,
    pub(super) mapping: Option<(usize, usize)>,
    pub(super) began: u64,
    pub(super) moving: leaks::Moving,
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
            // SAFETY: the caller vouches for the block.
            let chunk = unsafe { Chunk::of(old) };
            reallocation.began = time_of(thread::ready(), chunk);
            // SAFETY: as above.
            reallocation.mapping = unsafe { chunk.own_mapping() };
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
                leaks::reallocated(self.moving, ptr, function.bytes(asked), stack);
            } else {
                self.done_fully(function, ptr, asked, entry);
            }
        }
    }

    /// # Safety
    /// As for [`Reallocation::done`].
    #[inline(never)]
    pub(super) unsafe fn done_fully(
        self,
        function: &'static Function,
        ptr: usize,
        asked: Asked,
        entry: Entry,
    ) {
        // SAFETY: the caller vouches for the hook.
        let caller = &unsafe { entry.caller() };
        // A realloc to nothing frees: its NULL is no failure.
        let failure = if ptr == 0 && function.bytes(asked) != 0 {
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
                let bytes = function.bytes(asked);
                leaks::reallocated(self.moving, ptr, bytes, stack.or_of(caller));
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
        let ready = thread::ready();
        // SAFETY: the block was given out just now, nobody else knows it.
        let until = time_of(ready, unsafe { Chunk::of(ptr) });
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
        let line = Acquire {
            opening: function.tag,
            t,
            moved: Some((until - t, self.old)),
            extra: function.extra(asked),
            size: asked.size as u64,
            outcome: outcome(ptr, failure),
            stack: stack.number(),
        };
        write_moved(ready, &line);
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

/// Writes the line of a reallocation; apart, so that it and the lines of the mapping that has moved do not need the program's
/// stack at once.
#[inline(never)]
fn write_moved(ready: Option<Ready>, line: &Acquire) {
    heap_call(ready, || *line);
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
    type Real = unsafe extern "C" fn(Pointer, usize) -> Pointer;

    #[inline(never)]
    unsafe extern "C" fn fully(old: Pointer, size: usize, sp: *const usize, bp: usize) -> Pointer {
        let real = address(&REAL.realloc);
        if real == 0 || is_bootstrap(old as usize) {
            // SAFETY: the caller's block, one of the arena's or NULL.
            return unsafe { leave_bootstrap(old, size) };
        }
        // SAFETY: the address is the real function's, whose type this is.
        let real = unsafe { transmute::<usize, Real>(real) };
        // SAFETY: at a hook's first instruction the stack pointer points to the return address.
        let return_address = unsafe { *sp };
        let folded = thread::peek().is_some_and(|slot| slot.unfold(old as usize, size));
        // glibc's reallocarray jumps to realloc: the return address is then the one of our own call of it, and nothing
        // else of ours leads here. That holds for threads without a slot, too.
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

    let way =
        Short::way(&REAL.realloc).filter(|way| !way.is_folded() && !is_bootstrap(old as usize));
    // SAFETY: the caller's block.
    let Some((way, reallocation)) =
        way.and_then(|way| Some((way, unsafe { way.moves(old as usize) }?)))
    else {
        // SAFETY: the same arguments.
        return unsafe { fully(old, size, sp, bp) };
    };
    // SAFETY: the address is the real function's, whose type this is; the new block is nobody else's.
    unsafe {
        let ptr = transmute::<usize, Real>(way.real())(old, size);
        way.moved(
            function!(Realloc),
            reallocation,
            ptr as usize,
            Asked::size(size),
        );
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
    let asked = Asked { extra: count, size };
    let function = function!(Reallocarray, Some(log::COUNT));
    // SAFETY: the new block is nobody else's.
    unsafe { reallocation.done(function, ptr as usize, asked, Entry { sp, bp }) };
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
            type Real = unsafe extern "C" fn(Pointer $(, release!(@usize $arg))*);

            #[inline(never)]
            unsafe extern "C" fn fully(
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
                    transmute::<usize, Real>(real)(ptr $(, $arg)*);
                    function.took(call, t, entry);
                }
            }

            let block = Block {
                ptr: ptr as usize,
                align: $align,
                size: $size,
            };
            let way = Short::way(&REAL.$name).filter(|_| !is_bootstrap(block.ptr));
            let function = function!($op);
            // SAFETY: the block is the caller's until the real call.
            let Some((way, t)) = way.and_then(|way| Some((way, unsafe { way.takes(function, block) }?))) else {
                // SAFETY: the same arguments.
                return unsafe { fully(ptr, $($arg,)* sp, bp) };
            };
            // SAFETY: the address is the real function's, whose type this is.
            unsafe {
                let call = way.enter();
                transmute::<usize, Real>(way.real())(ptr $(, $arg)*);
                function.took(call, t, Entry::UNKNOWN);
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
