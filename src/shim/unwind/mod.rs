//! Backtraces: the number of the call stack of whoever called a hook.
//!
//! # How a stack is found
//! 1. `memo`: was it seen before, and are the words of memory that prove it unchanged? A few loads.
//! 2. `walk`: else frame by frame, by the rules of `rule` (one word for each return address, worked out by `cfi` from
//!    the module's unwind data), inside `bounds`, until a frame is reached whose callers the memo knows.
//! 3. `memo` again: the numbers of the frames, outermost first, if they were asked for lately at the same places.
//! 4. `stacks`: else each frame gets its number in the table of all threads; new numbers are defined in the log.
//!
//! Nothing is patched in the host, no lock is taken, no memory is asked of the host, no system call is made but those
//! that `bounds` describes. Everything here is hook-safe.
//!
//! # Why gimli and our own steps
//! libunwind and libgcc's unwinder may take the loader's lock, inside malloc. framehop does neither, but (0.16, read in
//! its source) it knows three registers and no memory in expressions, so that signal frames, realigned stacks and
//! glibc's lazy binding end a walk or lead it astray; it keeps 33 KB of rules for each thread, and reads each saved
//! frame pointer, needed or not, which would make each proof twice as long. gimli, which is also underneath framehop,
//! reads the unwind data here.

mod bounds;
mod caller;
mod cfi;
#[cfg(any(test, fuzzing))]
pub(crate) mod hostile;
mod memo;
mod row;
mod rule;
mod thread;
mod walk;

#[cfg(test)]
mod bench;
#[cfg(test)]
mod tests;

pub(crate) use bounds::NO_SYSTEM_CALLS;
pub(crate) use caller::Caller;
pub(crate) use cfi::unwind_data_of;
pub(crate) use rule::forget as forget_rules;

use crate::modules::{self, Module};
use crate::stacks;
use core::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU64, AtomicUsize,
    Ordering::{Relaxed, Release},
};
use memo::Suffix;
use thread::{Thread, Turn, WALKS};
use walk::{End, Walk};

/// Why a stack ends before its outermost frame. The codes fit two bits and are never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// The limit of depth.
    Depth = 1,
    /// Memory that is not known to be mapped.
    Bounds = 2,
    /// No unwind data, and no frame pointer.
    Unwind = 3,
}

impl Cut {
    /// The word in the log.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Cut::Depth => "depth",
            Cut::Bounds => "bounds",
            Cut::Unwind => "unwind",
        }
    }

    /// The cut of a code, 0: none.
    pub(crate) fn from_code(code: u32) -> Option<Cut> {
        match code {
            1 => Some(Cut::Depth),
            2 => Some(Cut::Bounds),
            3 => Some(Cut::Unwind),
            _ => None,
        }
    }
}

/// Where definitions go: each makes its line in the log and answers whether it was kept. A number is used only after
/// its line was.
pub(crate) trait Definitions {
    /// `{"op":"module",…}`
    fn module(&mut self, module: &Module) -> bool;
    /// `{"op":"unload",…}`
    fn unload(&mut self, id: u32) -> bool;
    /// `{"op":"stack",…}`
    fn stack(&mut self, id: u32, frame: &stacks::Frame) -> bool;
}

/// How stacks are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Not at all.
    Off = 0,
    /// By frame pointers alone, for hosts built with them.
    FramePointers = 1,
    /// By unwind data.
    Full = 2,
}

/// Frames of a stack that are kept when nobody says otherwise.
pub(crate) const DEFAULT_DEPTH: usize = 256;
/// Frames that may be asked for.
pub(crate) const MAX_DEPTH: usize = 4096;

static MODE: AtomicU8 = AtomicU8::new(0);
static DEPTH: AtomicUsize = AtomicUsize::new(DEFAULT_DEPTH);
static CHECKING: AtomicBool = AtomicBool::new(false);
static CHECKED: AtomicU64 = AtomicU64::new(0);
static MISTAKEN: AtomicU64 = AtomicU64::new(0);

/// Starts. `depth`: frames of a stack that are kept, innermost first, at most [`MAX_DEPTH`]. `check`: prove each hit of
/// the memo by a walk (slow, see [`checks`]). After `modules::start`.
pub(crate) fn start(mode: Mode, depth: usize, check: bool) {
    if mode != Mode::Off {
        bounds::start();
        rule::start();
    }
    DEPTH.store(depth.clamp(1, MAX_DEPTH), Relaxed);
    CHECKING.store(check, Relaxed);
    MODE.store(mode as u8, Release);
}

/// Hits of the memo that were checked by a walk, and how many of them were wrong.
pub(crate) fn checks() -> (u64, u64) {
    (CHECKED.load(Relaxed), MISTAKEN.load(Relaxed))
}

/// Makes what a slot needs for its walks: later there may be no memory to be had.
pub(crate) fn prepare(slot: usize) {
    if MODE.load(Relaxed) == Mode::Off as u8 {
        return;
    }
    if let Some(thread) = Thread::make(slot)
        && let Some((id, _)) = thread.begin(DEPTH.load(Relaxed))
    {
        thread.end(id);
    }
}

/// Tells that memory was unmapped, moved, or mapped over. Cheap.
pub(crate) fn mapping_changed() {
    bounds::mapping_changed();
}

/// The number of the caller's stack, 0: none (off, no memory, or a definition could not be kept).
///
/// `slot` is the index of the thread's buffer; nobody else uses it until the thread is gone, but for handlers of its
/// own signals, which may call this at any moment and never return.
#[inline]
pub(crate) fn capture(caller: &Caller, slot: usize, definitions: &mut dyn Definitions) -> u32 {
    if MODE.load(Relaxed) == Mode::Off as u8 {
        return 0;
    }
    if let Some(thread) = Thread::at(slot)
        && let Some(known) = known(thread, caller)
    {
        if !CHECKING.load(Relaxed) {
            return known.node;
        }
        check(thread, caller, known);
    }
    find_out(caller, slot, definitions)
}

#[inline(always)]
fn known(thread: &Thread, caller: &Caller) -> Option<Suffix> {
    let bp = || Some(caller.bp);
    let generation = modules::generation();
    let known = thread
        .memo
        .find(caller.ip, false, caller.sp, bp, generation, &thread.own)?;
    (!known.cut_by_depth || known.frames == DEPTH.load(Relaxed)).then_some(known)
}

#[inline(always)]
fn walk_of<'a>(
    thread: &'a Thread,
    caller: &Caller,
    generation: u32,
    room: (&'a mut [walk::Frame], &'a mut [walk::Word]),
) -> Walk<'a> {
    let by_frame_pointer = MODE.load(Relaxed) == Mode::FramePointers as u8;
    Walk::new(caller, generation, &thread.own, room, by_frame_pointer)
}

/// Walks if there is room for it. A function of its own because it takes little room itself.
#[inline(never)]
fn find_out(caller: &Caller, slot: usize, definitions: &mut dyn Definitions) -> u32 {
    match Thread::make(slot) {
        Some(thread) if thread.own.has_room(caller.sp) => walk(caller, thread, definitions),
        Some(_) => alone(caller, definitions),
        None => refuse(),
    }
}

#[inline(never)]
fn walk(caller: &Caller, thread: &Thread, definitions: &mut dyn Definitions) -> u32 {
    let depth = DEPTH.load(Relaxed);
    let Some((turn, lent)) = thread.begin(depth) else {
        return refuse();
    };
    thread.memo.keep_up();
    let generation = modules::generation();
    let nodes = lent.nodes;
    let mut walk = walk_of(thread, caller, generation, (lent.frames, lent.words));
    let end = walk.run(depth, Some(&thread.memo));
    let node = number(thread, &walk, end, nodes, turn, generation, definitions);
    if node == 0 {
        stacks::refuse();
    } else {
        if thread.memo.was_seen(node) {
            thread.memo.note(&walk, end, nodes, turn, generation);
        }
        thread.memo.grow_if_crowded();
        if walk.was_surprised() && thread.may_teach(turn) {
            walk.teach();
        }
        if CHECKING.load(Relaxed) && thread.memo.is_writer(turn) {
            MISTAKEN.fetch_add(u64::from(!is_stack(&walk, end, node)), Relaxed);
        }
    }
    thread.end(turn);
    node
}

/// The stack of a caller that has no room for a walk: itself, cut.
#[cold]
#[inline(never)]
fn alone(caller: &Caller, definitions: &mut dyn Definitions) -> u32 {
    let module = modules::find(caller.ip.wrapping_sub(1)).map_or(0, |module| module.id);
    let cut = Some(Cut::Bounds);
    define(
        &stacks::Frame {
            parent: 0,
            module,
            ip: caller.ip,
            cut,
        },
        definitions,
    )
}

/// The number of a frame, whose line and whose module's line are made if they are not there.
fn define(frame: &stacks::Frame, definitions: &mut dyn Definitions) -> u32 {
    let module = frame.module;
    stacks::intern(frame, |id| {
        (module == 0 || modules::define(module, stacks::epoch(), definitions))
            && definitions.stack(id, frame)
    })
}

fn refuse() -> u32 {
    stacks::refuse();
    0
}

/// Numbers the frames of a walk, outermost first, and answers the innermost's.
#[inline(always)]
fn number(
    thread: &Thread,
    walk: &Walk,
    end: End,
    nodes: &mut [u32],
    turn: Turn,
    generation: u32,
    definitions: &mut dyn Definitions,
) -> u32 {
    let (mut parent, mut cut) = match end {
        End::Known(suffix) => (suffix.node, None),
        End::Cut(cut) => (0, Some(cut)),
        End::Root => (0, None),
    };
    let probe = thread.memo.probe();
    for (frame, node) in walk.frames().iter().zip(nodes).rev() {
        let cut = cut.take();
        parent = match probe.number(frame, parent, generation) {
            Some(known) if cut.is_none() => known,
            _ => number_anew(thread, frame, parent, cut, turn, generation, definitions),
        };
        if parent == 0 {
            return 0;
        }
        *node = parent;
    }
    parent
}

#[cold]
#[inline(never)]
fn number_anew(
    thread: &Thread,
    frame: &walk::Frame,
    parent: u32,
    cut: Option<Cut>,
    turn: Turn,
    generation: u32,
    definitions: &mut dyn Definitions,
) -> u32 {
    if !thread.memo.is_writer(turn) {
        return 0;
    }
    let (module, ip) = (frame.module, frame.logged_ip());
    let node = define(
        &stacks::Frame {
            parent,
            module,
            ip,
            cut,
        },
        definitions,
    );
    if node != 0 && cut.is_none() {
        thread.memo.keep_number(frame, parent, node, generation);
    }
    node
}

/// Walks where the memo had an answer, and counts whether it was right.
#[cold]
fn check(thread: &Thread, caller: &Caller, known: Suffix) {
    let depth = DEPTH.load(Relaxed);
    let Some((turn, lent)) = thread.begin(depth) else {
        return;
    };
    let generation = modules::generation();
    let mut walk = walk_of(thread, caller, generation, (lent.frames, lent.words));
    let end = walk.run(depth, None);
    let right = walk.frames().len() == known.frames && is_stack(&walk, end, known.node);
    if thread.memo.is_writer(turn) {
        CHECKED.fetch_add(1, Relaxed);
        MISTAKEN.fetch_add(u64::from(!right), Relaxed);
    }
    thread.end(turn);
}

/// Whether a number stands for the frames of a walk, and for how it ended.
fn is_stack(walk: &Walk, end: End, mut node: u32) -> bool {
    let mut cut = None;
    for reached in walk.frames() {
        let Some(frame) = stacks::frame(node) else {
            return false;
        };
        if frame.ip != reached.logged_ip() || frame.module != reached.module {
            return false;
        }
        (node, cut) = (frame.parent, frame.cut);
    }
    match end {
        End::Known(suffix) => node == suffix.node,
        End::Root => node == 0 && cut.is_none(),
        End::Cut(expected) => node == 0 && cut == Some(expected),
    }
}
