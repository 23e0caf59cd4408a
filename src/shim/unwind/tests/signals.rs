//! Stacks that pass through signal handlers, on the interrupted stack and on one of their own.

use super::super::capture;
use super::{Log, a_slot, assert_equal, black_box, witness};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

static SLOT: AtomicUsize = AtomicUsize::new(0);
static SEEN: Mutex<Vec<(u32, Vec<usize>)>> = Mutex::new(Vec::new());
/// The handler and what it finds are the process's: one test at a time.
static TURN: Mutex<()> = Mutex::new(());

extern "C" fn handler(_: i32) {
    let id = capture(&here!(), SLOT.load(Relaxed), &mut Log::default());
    SEEN.lock().expect("no panic").push((id, witness()));
}

#[inline(never)]
fn deep(depth: usize) -> usize {
    if depth == 0 {
        // SAFETY: the handler is installed and bears being called here.
        unsafe { libc::raise(libc::SIGUSR1) };
        return 0;
    }
    black_box(deep(depth - 1) + 1)
}

/// Raises the signal twice at each of some depths; answers the stacks that the handler saw, and the witness's.
fn strike(flags: i32) -> Vec<(u32, Vec<usize>)> {
    SLOT.store(a_slot(), Relaxed);
    // SAFETY: zero is a valid sigaction; the handler has the type that it must have.
    unsafe {
        let mut action: libc::sigaction = core::mem::zeroed();
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = flags;
        assert_eq!(
            libc::sigaction(libc::SIGUSR1, &action, core::ptr::null_mut()),
            0
        );
    }
    for depth in [0, 1, 5, 9, 30, 5] {
        deep(depth);
        deep(depth);
    }
    core::mem::take(&mut SEEN.lock().expect("no panic"))
}

#[test]
fn a_handlers_stack_goes_on_in_what_it_interrupted() {
    let _turn = TURN.lock().expect("no panic");
    let seen = strike(0);
    assert_eq!(seen.len(), 12);
    for (id, theirs) in seen {
        assert_equal(&Log::default().addresses(id), &theirs);
        assert!(
            Log::default()
                .frames(id)
                .iter()
                .all(|frame| frame.cut.is_none())
        );
    }
}

#[test]
fn a_handlers_stack_goes_on_also_from_a_stack_of_its_own() {
    let _turn = TURN.lock().expect("no panic");
    let mut room = vec![0u8; 256 << 10];
    let seen = std::thread::scope(|scope| {
        let striker = scope.spawn(|| {
            // SAFETY: the room outlives the thread; zero-initialised fields are valid.
            unsafe {
                let mut stack: libc::stack_t = core::mem::zeroed();
                stack.ss_sp = room.as_mut_ptr().cast();
                stack.ss_size = room.len();
                assert_eq!(libc::sigaltstack(&stack, core::ptr::null_mut()), 0);
            }
            let seen = strike(libc::SA_ONSTACK);
            // SAFETY: as above.
            unsafe {
                let mut stack: libc::stack_t = core::mem::zeroed();
                stack.ss_flags = libc::SS_DISABLE;
                assert_eq!(libc::sigaltstack(&stack, core::ptr::null_mut()), 0);
            }
            seen
        });
        striker.join().expect("no panic")
    });
    assert_eq!(seen.len(), 12);
    for (id, theirs) in seen {
        assert_equal(&Log::default().addresses(id), &theirs);
        assert!(
            Log::default()
                .frames(id)
                .iter()
                .all(|frame| frame.cut.is_none())
        );
    }
}
