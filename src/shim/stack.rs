//! The stack number of an event, taken before its line is begun: a new stack's definition is a line of its own.

use crate::modules::Module;
use crate::record::event_kept;
use crate::scratch::Scratch;
use crate::unwind::{self, Caller, Definitions};
use crate::{clock, log, pool, settings, stacks, thread};
use memspy_log::{Key, Line, Op, Tag, key, tag};

const STACK: &Key = &key("stack");
const MODULE: &Tag = &tag(Op::Module);
const UNLOAD: &Tag = &tag(Op::Unload);
const NODE: &Tag = &tag(Op::Stack);

/// Number of a call stack in the log; 0: none.
#[derive(Clone, Copy)]
pub(crate) struct Stack(u32);

impl Stack {
    /// No stack.
    pub(crate) const NONE: Stack = Stack(0);

    /// The stack of a call that acquires memory.
    #[inline(always)]
    pub(crate) fn of(caller: &Caller) -> Stack {
        if !settings::stacks() {
            return Stack::NONE;
        }
        match thread::slot() {
            Some(slot) => Stack(unwind::capture(caller, pool::index(slot), &mut Lines)),
            None => Stack::NONE,
        }
    }

    /// The stack of a call that releases memory, if those are wanted.
    #[inline(always)]
    pub(crate) fn of_release(caller: &Caller) -> Stack {
        if settings::free_stacks() {
            Stack::of(caller)
        } else {
            Stack::NONE
        }
    }

    /// This stack, or the caller's if it is none: of an event that was not written.
    #[inline(always)]
    pub(crate) fn or_of(self, caller: &Caller) -> Stack {
        if self.0 == 0 { Stack::of(caller) } else { self }
    }

    /// The number; 0: none.
    #[inline(always)]
    pub(crate) fn number(self) -> u32 {
        self.0
    }

    /// Appends the number, if there is one.
    #[inline(always)]
    pub(crate) fn put(self, line: &mut Line) {
        if self.0 != 0 {
            line.num(STACK, u64::from(self.0));
        }
    }
}

/// Definitions as lines of the thread that needs them.
struct Lines;

/// Longest line about a module: its path may be all escapes.
const MAX_MODULE: usize = 8 << 10;

impl Definitions for Lines {
    fn module(&mut self, module: &Module) -> bool {
        let now = clock::before();
        event_kept::<MAX_MODULE>(MODULE, (now, now), &|line| put_module(line, now, module))
    }

    fn unload(&mut self, id: u32) -> bool {
        let now = clock::before();
        event_kept::<{ memspy_log::MAX_EVENT }>(UNLOAD, (now, now), &|line| {
            line.num(log::T, now);
            line.num(const { &key("module") }, id.into());
        })
    }

    fn stack(&mut self, id: u32, frame: &stacks::Frame) -> bool {
        let now = clock::before();
        event_kept::<{ memspy_log::MAX_EVENT }>(NODE, (now, now), &|line| {
            put_node(line, now, id, frame);
        })
    }
}

/// Definitions as lines of a scratch, before there are buffers.
pub(crate) struct ScratchLines<'a>(pub(crate) &'a mut Scratch);

impl Definitions for ScratchLines<'_> {
    fn module(&mut self, module: &Module) -> bool {
        let now = clock::running();
        self.0.line(MODULE, |line| put_module(line, now, module))
    }

    fn unload(&mut self, _: u32) -> bool {
        false
    }

    fn stack(&mut self, id: u32, frame: &stacks::Frame) -> bool {
        let now = clock::running();
        self.0.line(NODE, |line| put_node(line, now, id, frame))
    }
}

fn put_module(line: &mut Line, now: u64, module: &Module) {
    line.num(log::T, now);
    line.num(const { &key("id") }, module.id.into());
    line.addr(log::BASE, module.span.at);
    line.num(log::SIZE, module.span.len as u64);
    line.addr(const { &key("bias") }, module.bias);
    line.text(
        const { &key("path") },
        module.path.get(..1024).unwrap_or(module.path),
    );
    let build_id = module.build_id();
    if !build_id.is_empty() {
        line.open(const { &key("build_id") });
        line.raw(b"\"");
        for byte in build_id {
            line.raw(&hex(*byte));
        }
        line.raw(b"\"");
    }
}

fn hex(byte: u8) -> [u8; 2] {
    let digit = |nibble: u8| {
        if nibble < 10 {
            b'0' + nibble
        } else {
            b'a' + (nibble - 10)
        }
    };
    [digit(byte >> 4), digit(byte & 15)]
}

fn put_node(line: &mut Line, now: u64, id: u32, frame: &stacks::Frame) {
    line.num(log::T, now);
    line.num(const { &key("id") }, id.into());
    line.num(const { &key("parent") }, frame.parent.into());
    if frame.module != 0 {
        line.num(const { &key("module") }, frame.module.into());
    }
    line.addr(const { &key("ip") }, frame.ip);
    if let Some(cut) = frame.cut {
        line.name(const { &key("cut") }, cut.word());
    }
}

/// A dlclose is over: modules that it took away get their line.
pub(crate) fn note_unloaded() {
    crate::modules::dlclosed(&mut Lines);
}
