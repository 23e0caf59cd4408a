//! Leak mode: which blocks does the program still hold, and can it still find them?
//!
//! [`table`] notes the live blocks, one insert and one remove for each pair of malloc and free. [`check`] makes a
//! copy-on-write copy of the process and lets it judge ([`copy`]): the host stands still for as long as a fork takes,
//! and nothing that the judge does can harm it. The kinds are Valgrind's: definite, indirect, possible, reachable.
//!
//! # Limits
//! - There is no knowledge of which words are defined: an old pointer in a live block, in a frame that was not
//!   overwritten, or in a register can hide a leak. It never invents one.
//! - A block whose address was reused for another one can be held by a pointer that meant its predecessor.
//! - Memory marked MADV_DONTFORK or MADV_WIPEONFORK is not in the copy: references from there are not seen, and
//!   neither are encoded ones (XOR lists, tagged high bits) and those that only another process, a device or the
//!   kernel holds (epoll data, io_uring, aio).
//! - Allocators of the program's own are one block or mapping each to it, as to Valgrind without mempool requests.
//! - When the brk heap could not grow, glibc takes plain mappings for its main arena; free chunks there are taken for
//!   references. So is all memory of an allocator that is not glibc's.
//! - A thread must have room on its stack for a signal frame (up to 11 KiB with AMX), as for glibc's own signal 33.
//! - A check on request is made while the program is in the middle of something: what only a register of the processor's
//!   vector unit holds is not seen, and interrupted system calls that the kernel does not restart answer EINTR.
//! - exec is judged before it is known to work.
//! - Threads that could not be stopped, or that moved a block by realloc at that moment, make a check incomplete.

mod arrays;
mod blocks;
mod copy;
mod glibc;
mod group;
mod heuristics;
mod kernel;
mod mappings;
mod maps;
mod mark;
mod on_demand;
mod ranges;
mod registers;
mod report;
mod roots;

mod stacks;
mod table;
mod threads;

pub(crate) use on_demand::{begin, finish, reap};
pub(crate) use registers::{Caller, Registers};
pub(crate) use report::write;
pub(crate) use table::Moving;

use crate::stack::Stack;
use crate::{memory, settings, sys, thread};
use copy::{Findings, Gap, Task};
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering::*};
use group::Group;
use mappings::Mappings;
use table::{Entry, LAST_GENERATION, Table};

/// The live heap blocks: granules of 128 bytes.
static BLOCKS: Table<7> = Table::new();
/// The program's own mappings.
static MAPPINGS: Mappings = Mappings::new();
/// What the program took from the break itself: memory of its own in the middle of the heap.
static BREAKS: Mappings = Mappings::new();
/// Moved on by each mark and each fork.
static GENERATION: AtomicU32 = AtomicU32::new(0);
/// The first generation of this process; older blocks came with the fork.
static OWN_FROM: AtomicU32 = AtomicU32::new(0);
static CHECKING: AtomicBool = AtomicBool::new(false);

/// How often a check is made again when a realloc was under way in another thread.
const TRIES: usize = 4;

fn entry(size: usize, stack: u32) -> Entry {
    Entry {
        size,
        stack,
        generation: GENERATION.load(Relaxed),
    }
}

/// A forked child that has not begun its image yet begins it.
#[inline(always)]
fn notice_fork() {
    let _ = thread::slot();
}

/// Notes a block that an allocating call answered, after that call. NULL is nothing.
#[inline]
pub(crate) fn allocated(block: usize, size: usize, stack: Stack) {
    notice_fork();
    BLOCKS.insert(block, entry(size, stack.number()));
}

/// Forgets a block, before the call that frees it.
#[inline]
pub(crate) fn freed(block: usize) {
    notice_fork();
    BLOCKS.remove(block);
}

/// Says that a block is about to go through realloc. Followed by [`reallocated`] or [`kept`]. Without leak mode
/// nothing is said.
#[inline]
pub(crate) fn moving(block: usize) -> Moving {
    if !settings::leaks() {
        return Moving::default();
    }
    notice_fork();
    BLOCKS.moving(block)
}

/// The realloc went well and answered `block`; NULL when it only freed.
#[inline]
pub(crate) fn reallocated(moving: Moving, block: usize, size: usize, stack: Stack) {
    BLOCKS.moved(moving, block, entry(size, stack.number()));
}

/// The realloc failed: the block is what it was.
#[inline]
pub(crate) fn kept(moving: Moving) {
    BLOCKS.kept(moving);
}

/// Notes a mapping that the program made, after the call. `fixed`: it chose the place (MAP_FIXED, MREMAP_FIXED).
pub(crate) fn mapped(from: usize, len: usize, fixed: bool, stack: Stack) {
    notice_fork();
    mappings::insert(&MAPPINGS, from, len, fixed, entry(len, stack.number()));
}

/// Forgets a range that the program is about to unmap (or, for mremap, has moved away from). A call that will fail is
/// none.
pub(crate) fn unmapped(from: usize, len: usize) {
    if len == 0 || !from.is_multiple_of(4096) {
        return;
    }
    notice_fork();
    mappings::remove(&MAPPINGS, from, len);
}

/// The program moved the break itself.
pub(crate) fn broke(from: usize, to: usize) {
    notice_fork();
    // malloc moves the break by whole pages, so a page that the program has a part of is its own.
    let page = |at: usize| at & !4095;
    if to > from {
        mappings::insert(&BREAKS, page(from), to - page(from), true, entry(0, 0));
    } else {
        let to = to.next_multiple_of(4096);
        mappings::remove(&BREAKS, to, from.saturating_sub(to));
    }
}

/// Begins a new generation of blocks and answers its number; [`Group`] tells the generation of its blocks. All that
/// come after the 1023rd share one.
pub(crate) fn mark() -> u32 {
    let next = |now: u32| Some((now + 1).min(LAST_GENERATION));
    let before = GENERATION.fetch_update(Relaxed, Relaxed, next);
    before.unwrap_or(0).saturating_add(1).min(LAST_GENERATION)
}

/// In a forked child: all blocks so far are the parent's.
pub(crate) fn forked() {
    OWN_FROM.store(mark(), Relaxed);
    CHECKING.store(false, Relaxed);
    on_demand::forget();
    report::restart();
}

/// Has the image judged and closed after all other handlers of exit and quick_exit: glibc calls them from the last to the first, and the
/// destructors of all libraries by one that it registers after the preloaded libraries' constructors.
#[cfg(not(test))]
pub(crate) fn register_at_exit() {
    stacks::start();
    unsafe extern "C" {
        fn on_exit(
            handler: unsafe extern "C" fn(core::ffi::c_int, *mut core::ffi::c_void),
            argument: *mut core::ffi::c_void,
        ) -> core::ffi::c_int;
        /// What at_quick_exit calls; that one is in no shared library.
        fn __cxa_at_quick_exit(
            handler: unsafe extern "C" fn(*mut core::ffi::c_void),
            library: *mut core::ffi::c_void,
        ) -> core::ffi::c_int;
    }
    // SAFETY: the handlers are functions of these types, of a library that is never unloaded.
    unsafe {
        on_exit(at_exit, core::ptr::null_mut());
        let quick = __cxa_at_quick_exit(at_quick_exit, core::ptr::null_mut());
        KNOWS_QUICK_EXIT.store(quick == 0, Relaxed);
    }
}

/// Whether [`at_quick_exit`] will be called.
static KNOWS_QUICK_EXIT: AtomicBool = AtomicBool::new(false);

/// Whether quick_exit has the image judged after its own handlers.
#[cfg(not(test))]
pub(crate) fn knows_quick_exit() -> bool {
    KNOWS_QUICK_EXIT.load(Relaxed)
}

macro_rules! exit_handler {
    ($(#[$doc:meta])* $name:ident($($argument:ty),*) $end:ident $how:literal) => {
        $(#[$doc])*
        ///
        /// Only notes where the stack stands.
        #[cfg(not(test))]
        #[unsafe(naked)]
        unsafe extern "C" fn $name($(_: $argument),*) {
            core::arch::naked_asm!(
                ".cfi_startproc",
                "mov rdi, rsp",
                "jmp {}",
                ".cfi_endproc",
                sym $end
            )
        }

        #[cfg(not(test))]
        extern "C" fn $end(sp: u64) {
            crate::close_out::close_out($how, Caller::ExitHandler(sp));
        }
    };
}

exit_handler! {
    /// The handler of exit.
    at_exit(core::ffi::c_int, *mut core::ffi::c_void) end "exit"
}

exit_handler! {
    /// The handler of quick_exit.
    at_quick_exit(*mut core::ffi::c_void) end_quickly "quick_exit"
}

/// The result of a check as a whole.
#[derive(Clone, Copy, Debug)]
struct Check {
    groups: usize,
    live_blocks: u64,
    /// Bytes asked for.
    live_bytes: u64,
    /// [`Gap::None`]: the verdict is the whole truth, but for the limits above.
    gap: Gap,
    /// How long the threads stood still, in nanoseconds.
    pause_ns: u64,
}

/// Who takes the result of a check.
trait Report {
    /// First the whole.
    fn check(&mut self, check: &Check);
    /// Then each group.
    fn group(&mut self, group: &Group, inherited: bool);
}

/// Judges all live blocks and reports them; answers false when another thread's check is under way.
///
/// The other threads stand still while the copy is made, the caller until the result is there. No allocation, no
/// libc; all signals of the calling thread are blocked meanwhile.
fn check(caller: Caller, answer: &mut dyn Report) -> bool {
    if CHECKING.swap(true, Acquire) {
        return false;
    }
    let signals = sys::block_signals();
    match Shared::new() {
        None => answer.check(&report::none(Gap::Memory, 0)),
        Some(mut shared) => {
            let mut pause_ns = 0;
            let mut gap = Gap::None;
            for _ in 0..TRIES {
                (gap, pause_ns) = judge(&caller, shared.findings());
                if gap != Gap::Moving {
                    break;
                }
                shared = match Shared::new() {
                    Some(fresh) => fresh,
                    None => break,
                };
            }
            hand_over(shared.findings(), gap, pause_ns, answer);
        }
    }
    sys::restore_signals(signals);
    CHECKING.store(false, Release);
    true
}

/// Makes a copy, waits for it, and answers what speaks against its verdict, and the pause.
fn judge(caller: &Caller, findings: &Findings) -> (Gap, u64) {
    let begin = sys::clock_ns(libc::CLOCK_MONOTONIC);
    let stopped = threads::stop(sys::getpid(), sys::gettid());
    let task = Task {
        caller: *caller,
        stopped: &stopped,
        blocks: &BLOCKS,
        mappings: &MAPPINGS,
        breaks: &BREAKS,
        findings,
        then: None,
    };
    // SAFETY: the copy ends inside `live`, and the caller has all signals blocked.
    let copied = unsafe { kernel::copy_process() };
    if copied == Ok(0) {
        copy::live(&task);
    }
    drop(stopped);
    let pause_ns = sys::clock_ns(libc::CLOCK_MONOTONIC).saturating_sub(begin);
    match copied {
        Ok(pid) => {
            // Someone else may have reaped it: the findings tell how it ended.
            kernel::reap(pid, kernel::Wait::Long);
            (findings.gap(), pause_ns)
        }
        Err(_) => (Gap::Copy, pause_ns),
    }
}

fn hand_over(findings: &Findings, gap: Gap, pause_ns: u64, report: &mut dyn Report) {
    let (live_blocks, live_bytes) = findings.live();
    let groups = findings.groups();
    report.check(&Check {
        groups: groups.len(),
        live_blocks,
        live_bytes,
        gap,
        pause_ns,
    });
    let own_from = OWN_FROM.load(Relaxed);
    for group in groups {
        report.group(&group, group.key.generation < own_from);
    }
}

/// The mapping in which a copy leaves its findings.
struct Shared(*mut Findings);

impl Shared {
    fn new() -> Option<Shared> {
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let at = memory::map_own(size_of::<Findings>(), flags, -1, 0).ok()?;
        Some(Shared(at.cast()))
    }

    /// Takes back what [`Shared::into_raw`] gave.
    fn from_raw(at: *mut Findings) -> Shared {
        Shared(at)
    }

    /// Keeps the mapping until [`Shared::from_raw`].
    fn into_raw(self) -> *mut Findings {
        core::mem::ManuallyDrop::new(self).0
    }

    fn findings(&self) -> &Findings {
        // SAFETY: the mapping lives as long as self, and zeroed memory is a valid `Findings` of atomics.
        unsafe { &*self.0 }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        memory::unmap_own(self.0.cast(), size_of::<Findings>());
    }
}

#[cfg(test)]
mod tests {
    use super::group::Kind;
    use super::{Check, Gap, Group, Report};

    #[derive(Default)]
    struct Seen {
        check: Option<Check>,
        groups: Vec<(Group, bool)>,
    }

    impl Report for Seen {
        fn check(&mut self, check: &Check) {
            self.check = Some(*check);
        }
        fn group(&mut self, group: &Group, inherited: bool) {
            self.groups.push((*group, inherited));
        }
    }

    #[test]
    #[cfg_attr(miri, ignore)]
    fn a_check_of_this_process_tells_what_is_held_from_what_is_not() {
        use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
        static HELD: AtomicUsize = AtomicUsize::new(0);
        let held = Box::leak(Box::new([7u64; 20]));
        HELD.store(held.as_ptr() as usize, SeqCst);
        super::BLOCKS.insert(held.as_ptr() as usize, super::entry(160, 101));
        // An address at which nothing is, and which is nowhere written down in memory.
        super::BLOCKS.insert(hidden(), super::entry(64, 102));
        let mapping = super::entry(8192, 103);
        super::mappings::insert(&super::MAPPINGS, 0x1234_5000, 8192, false, mapping);

        let mut seen = Seen::default();
        let sp = &raw const seen as u64 & !7;
        // Another test may be stopping all threads.
        while !super::check(super::Caller::ExitHandler(sp), &mut seen) {
            std::thread::yield_now();
        }
        let check = seen.check.expect("a verdict");
        assert_eq!((check.groups, check.gap), (seen.groups.len(), Gap::None));
        let found = |stack| {
            let group = seen
                .groups
                .iter()
                .find(|(group, _)| group.key.stack == stack);
            group.map(|(group, inherited)| (group.key.kind, group.blocks, group.bytes, *inherited))
        };
        assert_eq!(found(101), Some((Kind::Reachable, 1, 160, false)));
        assert_eq!(found(102), Some((Kind::Definite, 1, 64, false)));
        assert_eq!(found(103), Some((Kind::Mapping, 1, 8192, false)));
        assert_eq!((check.live_blocks, check.live_bytes), (2, 224));
    }

    #[inline(never)]
    fn hidden() -> usize {
        std::hint::black_box(0x3450_1234 ^ 0x77_0000_0000) & !15
    }
}
