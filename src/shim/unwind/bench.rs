//! What a capture costs, beside one clock_gettime and beside other unwinders, in one run:
//! `cargo test --release -p memspy-shim -- --ignored --nocapture capture_costs`

use super::tests::{Log, registers, witness};
use super::thread::Thread;
use super::walk::Walk;
use super::{Caller, DEFAULT_DEPTH, Mode, capture, modules, start};
use core::ffi::{c_int, c_void};
use core::hint::black_box;
use std::time::Instant;

/// Short enough to fit between two interruptions.
const ROUNDS: u32 = 2_000;
const RUNS: usize = 300;

/// Nanoseconds of one call, in the best of many short runs: a busy machine slows most of them.
fn cost(mut call: impl FnMut()) -> f64 {
    let run = |call: &mut dyn FnMut()| {
        let start = Instant::now();
        for _ in 0..ROUNDS {
            call();
        }
        start.elapsed().as_nanos() as f64 / f64::from(ROUNDS)
    };
    (0..RUNS)
        .map(|_| run(&mut call))
        .fold(f64::INFINITY, f64::min)
}

fn clock() {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel writes one `struct timespec`.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    black_box(now);
}

/// libunwind's quickest way, when it is installed.
fn libunwind() -> Option<unsafe extern "C" fn(*mut *mut c_void, c_int) -> c_int> {
    // SAFETY: opening a library runs its constructors; libunwind has none that matter. The symbol is of this type.
    unsafe {
        let library = libc::dlopen(c"libunwind.so.8".as_ptr(), libc::RTLD_NOW);
        let symbol = libc::dlsym(library, c"unw_backtrace".as_ptr());
        (!library.is_null() && !symbol.is_null()).then(|| core::mem::transmute(symbol))
    }
}

#[inline(never)]
fn at_depth(depth: usize) -> usize {
    if depth > 0 {
        return black_box(at_depth(depth - 1) + 1);
    }
    let mut log = Log::default();
    let clock = cost(clock);
    println!("{:<36}{clock:8.1} ns", "clock_gettime");
    let show = |what: &str, ns: f64| println!("{what:<36}{ns:8.1} ns{:8.2} clocks", ns / clock);

    let mut caller = Caller {
        ip: 0,
        sp: 0,
        bp: 0,
    };
    registers(&raw mut caller);
    let id = capture(&caller, 0, &mut log);
    let frames = log.frames(id).len();
    show(
        &format!("hit, {frames} frames"),
        cost(|| {
            black_box(capture(&caller, 0, &mut log));
        }),
    );
    let thread = Thread::at(0).expect("made by the capture");
    show(
        &format!("walk without memo, {frames} frames"),
        cost(|| {
            let (id, lent) = thread.begin(DEFAULT_DEPTH).expect("room");
            let rooms = (lent.frames, lent.words);
            let mut walk = Walk::new(&caller, modules::generation(), &thread.own, rooms, false);
            black_box(walk.run(DEFAULT_DEPTH, None));
            assert_eq!(walk.frames().len(), frames);
            thread.end(id);
        }),
    );
    show(
        &format!("miss, {frames} frames"),
        cost(|| {
            modules::void_memos();
            black_box(capture(&caller, 0, &mut log));
        }),
    );
    let theirs = libunwind().map(|unwind| {
        let mut addresses = [core::ptr::null_mut(); 64];
        cost(|| {
            // SAFETY: the room is as long as it says.
            black_box(unsafe { unwind(addresses.as_mut_ptr(), 64) });
        })
    });
    match theirs {
        Some(ns) => show("libunwind unw_backtrace", ns),
        None => println!("libunwind.so.8 is not installed"),
    }
    let start = Instant::now();
    for _ in 0..1000 {
        black_box(witness());
    }
    show(
        "libgcc _Unwind_Backtrace",
        start.elapsed().as_nanos() as f64 / 1000.0,
    );
    black_box(1)
}

#[test]
#[ignore = "measures; for a quiet machine"]
fn capture_costs() {
    modules::start();
    start(Mode::Full, DEFAULT_DEPTH, false);
    std::thread::Builder::new()
        .spawn(|| {
            at_depth(3);
            at_depth(15);
            at_depth(60);
        })
        .expect("a thread")
        .join()
        .expect("no panic");
}
