//! The short way of a heap call: for one that becomes a line without a stack, of a thread that has its buffer, while
//! nothing else waits to be seen to. It writes nothing unless it writes the line; where it ends, the other way goes on.

use super::heap::{Asked, Block, Entry, Function, Reallocation, failure};
use crate::glibc::{self, Call, Chunk};
use crate::leaks::Moving;
use crate::real::address;
use crate::record::heap_call_at_once;
use crate::stack::Stack;
use crate::thread::{self, Ready};
use crate::{clock, request};
use core::sync::atomic::AtomicUsize;
use memspy_log::{Acquire, Outcome};

/// A call that goes the short way.
#[derive(Clone, Copy)]
pub(super) struct Short {
    ready: Ready,
    real: usize,
}

impl Short {
    /// Where a call may go it. `real`: the real function's place.
    #[inline(always)]
    pub(super) fn way(real: &AtomicUsize) -> Option<Short> {
        let ready = thread::ready_for_lines()?;
        let real = address(real);
        (real != 0 && !request::waits()).then_some(Short { ready, real })
    }

    /// The real function's address.
    #[inline(always)]
    pub(super) fn real(self) -> usize {
        self.real
    }

    /// The real call begins.
    #[inline(always)]
    pub(super) fn enter(self) -> Call {
        Call::of(self.ready.slot())
    }

    /// Whether a reallocarray is under way: a realloc may be its own.
    #[inline(always)]
    pub(super) fn is_folded(self) -> bool {
        self.ready.slot().is_folded()
    }

    /// Now, for an event of a block.
    #[inline(always)]
    fn time(self, chunk: Chunk) -> u64 {
        clock::of_block(|| chunk.is_of_one(self.ready.slot().stream()))
    }

    /// The time of a call that has given out a block, if its line is all that there is to be told.
    ///
    /// # Safety
    /// `ptr` must be a block that nobody else knows yet, or 0.
    #[inline(always)]
    unsafe fn line_alone(self, ptr: usize) -> Option<u64> {
        if ptr == 0 || glibc::break_has_moved() {
            return None;
        }
        // SAFETY: the caller vouches for the block.
        let chunk = unsafe { Chunk::of(ptr) };
        let t = self.time(chunk);
        // SAFETY: as above.
        let has_news = unsafe { chunk.has_news() };
        (!has_news).then_some(t)
    }

    /// Writes the line of a call that gave out a block, if that is all that there is to be told; answers whether it was.
    /// `began`: of a call that took one back too, when that was, and which.
    ///
    /// # Safety
    /// `ptr` must be a block that nobody else knows yet, or 0.
    #[inline(always)]
    unsafe fn tell(
        self,
        function: &'static Function,
        began: Option<(u64, usize)>,
        ptr: usize,
        asked: Asked,
    ) -> bool {
        // SAFETY: the caller vouches for the block.
        let Some(now) = (unsafe { self.line_alone(ptr) }) else {
            return false;
        };
        let line = Acquire {
            opening: function.tag,
            t: began.map_or(now, |(began, _)| began),
            moved: began.map(|(began, old)| (now - began, old)),
            extra: function.extra(asked),
            size: asked.size as u64,
            outcome: Outcome::Block(ptr),
            stack: 0,
        };
        heap_call_at_once(self.ready, line)
    }

    /// Notes a call that gave out a block.
    ///
    /// # Safety
    /// `ptr` must be a block that nobody else knows yet, or 0.
    #[inline(always)]
    pub(super) unsafe fn gave(
        self,
        function: &'static Function,
        call: Call,
        ptr: usize,
        asked: Asked,
    ) {
        call.leave();
        // SAFETY: the caller vouches for the block.
        unsafe {
            if !self.tell(function, None, ptr, asked) {
                function.gave_fully(call, ptr, failure(ptr), asked, Entry::UNKNOWN);
            }
        }
    }

    /// Notes a call that is about to take a block back; answers its time. `None`: it was not noted.
    ///
    /// # Safety
    /// `block` must be the caller's.
    #[inline(always)]
    pub(super) unsafe fn takes(self, function: &'static Function, block: Block) -> Option<u64> {
        // SAFETY: the block is the caller's until the real call.
        let chunk = unsafe { Chunk::of(block.ptr) };
        let t = self.time(chunk);
        if !heap_call_at_once(self.ready, block.release(function.tag, t, Stack::NONE)) {
            return None;
        }
        // SAFETY: the block is the caller's until the real call.
        unsafe {
            if chunk.has_news() {
                function.tell_taken(block.ptr, t, Stack::NONE);
            }
        }
        Some(t)
    }

    /// Begins a call that moves a block. `None`: there is more to be told of the block.
    ///
    /// # Safety
    /// `old` must be the caller's block, or 0.
    #[inline(always)]
    pub(super) unsafe fn moves(self, old: usize) -> Option<Reallocation> {
        // SAFETY: the caller vouches for the block.
        let chunk = unsafe { Chunk::of(old) };
        // SAFETY: as above.
        if unsafe { chunk.own_mapping() }.is_some() {
            return None;
        }
        Some(Reallocation {
            call: self.enter(),
            old,
            mapping: None,
            began: self.time(chunk),
            moving: Moving::default(),
        })
    }

    /// Notes that it is over.
    ///
    /// # Safety
    /// `ptr` must be a block that nobody else knows yet, or 0.
    #[inline(always)]
    pub(super) unsafe fn moved(
        self,
        function: &'static Function,
        moves: Reallocation,
        ptr: usize,
        asked: Asked,
    ) {
        moves.call.leave();
        let began = Some((moves.began, moves.old));
        // SAFETY: the caller vouches for the block.
        unsafe {
            if !self.tell(function, began, ptr, asked) {
                moves.done_fully(function, ptr, asked, Entry::UNKNOWN);
            }
        }
    }
}
