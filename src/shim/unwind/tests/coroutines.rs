//! Stacks that are no thread's: made by makecontext, unmapped, and mapped again smaller.

use super::super::{capture, mapping_changed};
use super::{Log, a_slot, black_box, stacks, witness};
use core::ptr::{null_mut, without_provenance_mut};
use std::cell::RefCell;

thread_local! {
    static RUNNING: RefCell<Option<Running>> = const { RefCell::new(None) };
}

struct Running {
    slot: usize,
    depth: usize,
    home: Box<libc::ucontext_t>,
    here: Box<libc::ucontext_t>,
    seen: Vec<(u32, Vec<usize>)>,
}

unsafe extern "C" {
    fn makecontext(context: *mut libc::ucontext_t, run: extern "C" fn(), count: i32, ...);
    fn swapcontext(from: *mut libc::ucontext_t, to: *const libc::ucontext_t) -> i32;
    fn getcontext(context: *mut libc::ucontext_t) -> i32;
}

#[inline(never)]
fn recurse(depth: usize, slot: usize, seen: &mut Vec<(u32, Vec<usize>)>) -> usize {
    if depth == 0 {
        for _ in 0..2 {
            let id = capture(&here!(), slot, &mut Log::default());
            seen.push((id, witness()));
        }
        return 0;
    }
    black_box(recurse(depth - 1, slot, seen) + 1)
}

extern "C" fn body() {
    RUNNING.with(|running| {
        let mut running = running.borrow_mut();
        let running = running.as_mut().expect("set before the switch");
        recurse(running.depth, running.slot, &mut running.seen);
    });
}

const PAGE: usize = 4096;

/// Maps a stack of so many pages between two pages that can't be read.
fn map_stack(at: *mut libc::c_void, pages: usize) -> *mut libc::c_void {
    let fixed = if at.is_null() {
        0
    } else {
        libc::MAP_FIXED_NOREPLACE
    };
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | fixed;
    let len = (pages + 2) * PAGE;
    // SAFETY: nothing existing is replaced; the second range is inside the first.
    unsafe {
        let map = libc::mmap(at, len, libc::PROT_NONE, flags, -1, 0);
        assert_ne!(map, libc::MAP_FAILED);
        let rw = libc::PROT_READ | libc::PROT_WRITE;
        assert_eq!(libc::mprotect(map.byte_add(PAGE), pages * PAGE, rw), 0);
        map
    }
}

/// Runs a coroutine on a stack and answers what it saw.
fn run(slot: usize, depth: usize, map: *mut libc::c_void, pages: usize) -> Vec<(u32, Vec<usize>)> {
    // SAFETY: zero is a valid context for getcontext to fill; the contexts stay where they are, in their boxes.
    let (home, here) = unsafe {
        let mut here: Box<libc::ucontext_t> = Box::new(core::mem::zeroed());
        let mut home: Box<libc::ucontext_t> = Box::new(core::mem::zeroed());
        assert_eq!(getcontext(&raw mut *here), 0);
        here.uc_stack.ss_sp = map.byte_add(PAGE);
        here.uc_stack.ss_size = pages * PAGE;
        here.uc_link = &raw mut *home;
        makecontext(&raw mut *here, body, 0);
        (home, here)
    };
    let running = Running {
        slot,
        depth,
        home,
        here,
        seen: Vec::new(),
    };
    let (home, here) = RUNNING.with(|cell| {
        let running = cell.borrow_mut().insert(running) as *mut Running;
        // SAFETY: the state stays in its cell until it is taken below.
        unsafe { (&raw mut *(*running).home, &raw mut *(*running).here) }
    });
    // SAFETY: both contexts are set up; the coroutine comes back by its link.
    assert_eq!(unsafe { swapcontext(home, here) }, 0);
    RUNNING.with(|running| running.borrow_mut().take().expect("still there").seen)
}

fn check(seen: &[(u32, Vec<usize>)]) {
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[0].0 == 0, seen[1].0 == 0);
    for (id, theirs) in seen {
        let ours = Log::default().frames(*id);
        let ours: Vec<usize> = ours.iter().map(|frame: &stacks::Frame| frame.ip).collect();
        // libgcc goes on behind the coroutine's first function or not, as glibc's unwind data let it.
        let common = ours.len().min(theirs.len());
        assert!(common > 3, "{ours:x?} {theirs:x?}");
        let at = theirs
            .iter()
            .position(|ip| *ip == ours[1])
            .expect("common frames");
        let tail = &theirs[at..];
        assert_eq!(tail[..ours.len() - 1], ours[1..], "{ours:x?} {theirs:x?}");
    }
}

#[test]
fn a_coroutines_stack_is_read_up_to_its_end_and_no_further() {
    let slot = a_slot();
    let map = map_stack(null_mut(), 16);
    for depth in [0, 10, 3, 10] {
        check(&run(slot, depth, map, 16));
    }
    // SAFETY: nobody uses the stack any more.
    assert_eq!(unsafe { libc::munmap(map, 18 * PAGE) }, 0);
    mapping_changed();
}

#[test]
fn a_smaller_stack_in_the_place_of_a_larger_is_not_read_beyond_its_end() {
    let slot = a_slot();
    let place = map_stack(null_mut(), 64);
    // SAFETY: nobody uses the stack.
    assert_eq!(unsafe { libc::munmap(place, 66 * PAGE) }, 0);
    for pages in [64, 16, 32, 16] {
        let map = map_stack(without_provenance_mut(place as usize), pages);
        check(&run(slot, 5, map, pages));
        check(&run(slot, 5, map, pages));
        // SAFETY: nobody uses the stack any more.
        assert_eq!(unsafe { libc::munmap(map, (pages + 2) * PAGE) }, 0);
        mapping_changed();
    }
}
