//! Which memory of a stack may be read.
//!
//! Nothing is read that is not known to be mapped. Three kinds of stack:
//! - the main thread's: from as low as it may grow, up to where the kernel put its end;
//! - a thread's own: glibc keeps the thread pointer at its top, so whatever lies between the stack pointer and the
//!   thread pointer without a hole belongs to it, for as long as the thread lives;
//! - any other (coroutine, signal stack): page by page, asked of the kernel while it is unwound, and believed until
//!   the next unmapping.
//!
//! The kernel is asked by a system call that reads from an address and then does nothing
//! (`rt_sigprocmask` with an impossible request answers EFAULT or EINVAL). Hook-safe.

use crate::sys;
use core::sync::atomic::{
    AtomicBool, AtomicU32, AtomicU64, AtomicUsize,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};

const PAGE: usize = 4096;
/// How far below the thread pointer a stack pointer may be when the thread is first seen.
const FIRST_REACH: usize = 16 << 20;
/// How far below the known part of its own stack a thread is looked for later.
const NEXT_REACH: usize = 64 << 10;

/// Stack that a walk takes in the worst case, in bytes. Measured: 2700 for code that is new, 3900 when a signal frame
/// has to be worked out; most walks take a third of that.
const WALK_STACK: usize = 4608;

static MAIN_FROM: AtomicUsize = AtomicUsize::new(0);
static MAIN_TO: AtomicUsize = AtomicUsize::new(0);
static MAPPINGS: AtomicU32 = AtomicU32::new(1);

/// True when the process must not make system calls any more: then only what is known already is read.
pub(crate) static NO_SYSTEM_CALLS: AtomicBool = AtomicBool::new(false);

unsafe extern "C" {
    /// Where the kernel put the main thread's stack (ld.so, since glibc 2.2.5).
    static __libc_stack_end: *const usize;
}

/// Notes where the main thread's stack is.
pub(super) fn start() {
    // SAFETY: the loader sets the word before anything else runs.
    let end = unsafe { __libc_stack_end } as usize;
    // Below the stack the kernel leaves a gap of its limit, at least 128 MiB, in which it puts nothing else.
    let gap = match sys::rlimit(libc::RLIMIT_STACK) {
        limit @ 0..0x4000_0000 => limit as usize,
        _ => 128 << 20,
    };
    MAIN_FROM.store(end.saturating_sub(gap), Relaxed);
    MAIN_TO.store((end | (PAGE - 1)) + 1, Release);
}

/// Tells that a range was unmapped, replaced or cut short.
pub(super) fn mapping_changed() {
    MAPPINGS.fetch_add(1, AcqRel);
}

/// Changes when memory has been unmapped.
#[inline(always)]
pub(super) fn mappings() -> u32 {
    MAPPINGS.load(Acquire)
}

/// Memory from `from` up to `to` that may be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    pub(super) from: usize,
    pub(super) to: usize,
    /// True when the memory stays as long as the thread does; else until [`mappings`] changes.
    pub(super) lasting: bool,
}

impl Bounds {
    /// The word at `address`, if it may be read.
    #[inline(always)]
    pub(super) fn read(&mut self, address: usize) -> Option<usize> {
        if !address.is_multiple_of(8) || !self.reach(address, address.checked_add(8)?) {
            return None;
        }
        // SAFETY: the bounds hold the word, and what they hold is mapped.
        Some(unsafe { (address as *const usize).read_volatile() })
    }

    /// Whether everything between `from` and `to` may be read, after growing if need be.
    #[inline(always)]
    pub(super) fn reach(&mut self, from: usize, to: usize) -> bool {
        from >= self.from && (to <= self.to || self.grow(to))
    }

    #[cold]
    fn grow(&mut self, to: usize) -> bool {
        // A frame larger than this is an address gone wrong.
        if self.lasting || to - self.to > FIRST_REACH {
            return false;
        }
        while self.to < to {
            if !is_readable(self.to) {
                return false;
            }
            self.to = (self.to | (PAGE - 1)) + 1;
        }
        true
    }
}

/// The thread's own stack as far as it is known: which thread (by thread pointer), and from where up to that pointer.
pub(super) struct OwnStack {
    thread: AtomicUsize,
    from: AtomicUsize,
    /// The thread for which nothing was found at first.
    missed: AtomicU64,
    /// The lowest address down to which a walk had room.
    roomy: AtomicUsize,
}

impl OwnStack {
    /// Nothing is known yet.
    pub(super) fn unknown() -> OwnStack {
        OwnStack {
            thread: AtomicUsize::new(0),
            from: AtomicUsize::new(usize::MAX),
            missed: AtomicU64::new(0),
            roomy: AtomicUsize::new(usize::MAX),
        }
    }

    /// The stack around `sp` if it is the main thread's or this thread's own, and known.
    #[inline(always)]
    pub(super) fn known(&self, sp: usize) -> Option<Bounds> {
        let main = Bounds {
            from: MAIN_FROM.load(Relaxed),
            to: MAIN_TO.load(Relaxed),
            lasting: true,
        };
        let own = Bounds {
            from: self.from.load(Relaxed),
            to: self.thread.load(Relaxed),
            lasting: true,
        };
        if sp >= main.from && sp < main.to {
            Some(main)
        } else if sp >= own.from && sp < own.to && own.to == thread_pointer() {
            Some(own)
        } else {
            None
        }
    }

    /// The stack around `sp`, whatever it is; `None` when not even the word at `sp` may be read.
    pub(super) fn find(&self, sp: usize) -> Option<Bounds> {
        if let Some(bounds) = self.known(sp) {
            return Some(bounds);
        }
        let page = sp & !(PAGE - 1);
        if !is_readable(page) {
            return None;
        }
        self.look_for_own(page);
        self.known(sp).or(Some(Bounds {
            from: sp & !7,
            to: page + PAGE,
            lasting: false,
        }))
    }

    /// Whether there is room for a walk below `sp`. Hosts allocate on the last page before a guard page, and on signal
    /// stacks that are just large enough for the kernel.
    pub(super) fn has_room(&self, sp: usize) -> bool {
        let low = sp.saturating_sub(WALK_STACK);
        let known = self.known(sp).is_some();
        if known && low >= self.roomy.load(Relaxed) {
            return true;
        }
        let pages = (low & !(PAGE - 1)..sp).step_by(PAGE);
        let has_room = match known {
            true => pages.rev().all(is_readable),
            false => match signal_stack() {
                Some(stack) if stack.contains(&sp) => low >= stack.start,
                Some(_) => pages.rev().all(is_readable),
                None => false,
            },
        };
        if known && has_room {
            self.roomy.store(low, Relaxed);
        }
        has_room
    }

    /// Finds out whether the pages from `page` up to the thread pointer, or to what is known, are there.
    fn look_for_own(&self, page: usize) {
        let thread = thread_pointer();
        let known = self.thread.load(Relaxed) == thread;
        let (top, reach) = match known {
            true => (self.from.load(Relaxed), NEXT_REACH),
            false if self.missed.load(Relaxed) == thread as u64 => (thread, NEXT_REACH),
            false => (thread, FIRST_REACH),
        };
        if page >= top || top - page > reach {
            return;
        }
        if (page..top).step_by(PAGE).all(is_readable) {
            if !known {
                self.roomy.store(usize::MAX, Relaxed);
            }
            // In this order a signal handler in between sees either no stack or a right one.
            self.thread.store(0, Relaxed);
            core::sync::atomic::compiler_fence(AcqRel);
            self.from.store(page, Relaxed);
            core::sync::atomic::compiler_fence(AcqRel);
            self.thread.store(thread, Relaxed);
        } else if !known {
            self.missed.store(thread as u64, Relaxed);
        }
    }
}

/// The thread pointer, which the ABI keeps at fs:0.
#[inline(always)]
fn thread_pointer() -> usize {
    let pointer: usize;
    // SAFETY: every thread has the word.
    unsafe {
        core::arch::asm!("mov {}, qword ptr fs:[0]", out(reg) pointer, options(pure, readonly, nostack));
    }
    pointer
}

/// Whether the page at `address` may be read.
fn is_readable(address: usize) -> bool {
    if NO_SYSTEM_CALLS.load(Relaxed) || address >= 1 << 47 {
        return false;
    }
    let no_request = usize::MAX;
    // SAFETY: the kernel reads eight bytes, or refuses to, and then rejects the request.
    let answer = unsafe {
        sys::syscall(
            libc::SYS_rt_sigprocmask,
            [no_request, address & !7, 0, 8, 0, 0],
        )
    };
    answer == Err(sys::Errno(libc::EINVAL))
}

/// The thread's signal stack, empty when it has none; `None` when the kernel must not be asked.
fn signal_stack() -> Option<core::ops::Range<usize>> {
    if NO_SYSTEM_CALLS.load(Relaxed) {
        return None;
    }
    // `stack_t`: start, flags, size.
    let mut stack = [0usize; 3];
    // SAFETY: the kernel writes one `stack_t`, three words on x86-64.
    let _ = unsafe {
        sys::syscall(
            libc::SYS_sigaltstack,
            [0, (&raw mut stack) as usize, 0, 0, 0, 0],
        )
    };
    let [start, _, size] = stack;
    Some(start..start.saturating_add(size))
}

#[cfg(test)]
mod tests {
    use super::{Bounds, OwnStack, is_readable, start, thread_pointer};

    fn map(pages: usize) -> usize {
        crate::memory::map_pages(pages * 4096)
            .expect("memory")
            .as_ptr() as usize
    }

    fn protect(at: usize) {
        // SAFETY: the page is one of `map`'s, which nobody else uses.
        let answer = unsafe { libc::mprotect(at as *mut libc::c_void, 4096, libc::PROT_NONE) };
        assert_eq!(answer, 0);
    }

    #[test]
    fn readable_is_what_the_kernel_can_read() {
        let at = map(2);
        assert!(is_readable(at));
        assert!(is_readable(at + 4095));
        protect(at + 4096);
        assert!(!is_readable(at + 4096));
        assert!(!is_readable(0));
        assert!(!is_readable(1 << 47));
        assert!(!is_readable(usize::MAX));
    }

    #[test]
    fn bounds_grow_up_to_a_hole_and_not_beyond() {
        let at = map(4);
        protect(at + 3 * 4096);
        let mut bounds = Bounds {
            from: at,
            to: at + 8,
            lasting: false,
        };
        assert_eq!(bounds.read(at + 2 * 4096 + 4088), Some(0));
        assert_eq!(bounds.to, at + 3 * 4096);
        assert_eq!(bounds.read(at + 3 * 4096), None);
        assert_eq!(bounds.read(at - 8), None);
        assert_eq!(bounds.read(at + 1), None);
        assert_eq!(bounds.read(usize::MAX - 7), None);
    }

    #[test]
    fn a_thread_knows_its_own_stack_up_to_its_thread_pointer() {
        start();
        std::thread::spawn(|| {
            let here = 0usize;
            let sp = &raw const here as usize;
            let own = OwnStack::unknown();
            assert_eq!(own.known(sp), None);
            let bounds = own.find(sp).expect("mapped");
            assert!(bounds.lasting);
            assert_eq!(bounds.to, thread_pointer());
            assert_eq!(own.known(sp), Some(bounds));
        })
        .join()
        .expect("no panic");
    }

    #[test]
    fn a_stack_of_somebody_elses_does_not_last() {
        start();
        let at = map(2);
        let bounds = OwnStack::unknown().find(at + 100).expect("mapped");
        assert_eq!(
            bounds,
            Bounds {
                from: at + 96,
                to: at + 4096,
                lasting: false
            }
        );
        protect(at);
        assert_eq!(OwnStack::unknown().find(at + 100), None);
    }

    #[test]
    fn a_walk_needs_room_above_a_page_that_cannot_be_used() {
        start();
        let at = map(4);
        protect(at);
        let own = OwnStack::unknown();
        assert!(own.has_room(at + 3 * 4096));
        assert!(!own.has_room(at + 4096 + 1000));
    }
}
