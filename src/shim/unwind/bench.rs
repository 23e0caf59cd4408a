//! What a capture costs, beside one clock_gettime and beside other unwinders, in one run:
//! `cargo test --release -p memspy-shim -- --ignored --nocapture capture_costs`

use super::tests::{Log, registers, witness};
use super::thread::Thread;
use super::{Caller, DEFAULT_DEPTH, Mode, capture, modules, start};
use core::ffi::{CStr, c_int, c_void};
use core::hint::black_box;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// Short enough to fit between two interruptions.
const ROUNDS: u32 = 300;
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

type Backtrace = unsafe extern "C" fn(*mut *mut c_void, c_int) -> c_int;
type Flush = unsafe extern "C" fn(*mut c_void, usize, usize);

/// libunwind, when it is installed: its quickest way, and what makes it forget what it has learnt for all threads.
/// What it has learnt for one goes with the thread.
struct Libunwind {
    backtrace: Backtrace,
    flush: Flush,
    space: *mut c_void,
}

impl Libunwind {
    fn open() -> Option<Libunwind> {
        // SAFETY: opening a library runs its constructors; libunwind has none that matter.
        let library = unsafe { libc::dlopen(c"libunwind.so.8".as_ptr(), libc::RTLD_NOW) };
        let find = |name: &CStr| {
            // SAFETY: the library is never closed.
            let symbol = unsafe { libc::dlsym(library, name.as_ptr()) };
            (!library.is_null() && !symbol.is_null()).then_some(symbol)
        };
        let (backtrace, flush) = (find(c"unw_backtrace")?, find(c"_Ux86_64_flush_cache")?);
        // SAFETY: the symbols are of these types (`<libunwind.h>`); the space is a pointer variable.
        unsafe {
            Some(Libunwind {
                backtrace: core::mem::transmute::<*mut c_void, Backtrace>(backtrace),
                flush: core::mem::transmute::<*mut c_void, Flush>(flush),
                space: *find(c"_ULx86_64_local_addr_space")?.cast(),
            })
        }
    }

    fn unwind(&self, addresses: &mut [*mut c_void; 128]) {
        // SAFETY: the room is as long as it says.
        black_box(unsafe { (self.backtrace)(addresses.as_mut_ptr(), 128) });
    }

    fn forget(&self) {
        // SAFETY: the library's own space; an empty range stands for everything.
        unsafe { (self.flush)(self.space, 0, 0) };
    }
}

/// Functions that call each other, so that no frame has the code of another.
macro_rules! links {
    ($name:ident $next:ident $($rest:ident)*) => {
        #[inline(never)]
        fn $name(depth: usize) -> usize {
            if depth > 0 {
                return black_box($next(depth - 1) + 1);
            }
            measure()
        }
        links! { $next $($rest)* }
    };
    ($name:ident) => {
        #[inline(never)]
        fn $name(depth: usize) -> usize {
            if depth > 0 {
                return black_box(link(depth - 1) + 1);
            }
            measure()
        }
    };
}

links! { link l1 l2 l3 l4 l5 l6 l7 l8 l9 l10 l11 l12 l13 l14 l15 l16 l17 l18 l19 }

/// What to measure at the end of the chain: nanoseconds of one call, ours or libunwind's, in code that is new to it.
static COLD: AtomicBool = AtomicBool::new(false);
static OURS: AtomicU64 = AtomicU64::new(u64::MAX);
static THEIRS: AtomicU64 = AtomicU64::new(u64::MAX);

fn measure() -> usize {
    let mut caller = Caller {
        ip: 0,
        sp: 0,
        bp: 0,
    };
    registers(&raw mut caller);
    let mut log = Log::default();
    if COLD.load(Relaxed) {
        measure_cold(&caller, &mut log);
    } else {
        measure_warm(&caller, &mut log);
    }
    black_box(1)
}

fn measure_cold(caller: &Caller, log: &mut Log) {
    modules::next_generation();
    let start = Instant::now();
    black_box(capture(caller, 0, log));
    OURS.fetch_min(start.elapsed().as_nanos() as u64, Relaxed);
    if let Some(libunwind) = Libunwind::open() {
        let mut addresses = [null_mut(); 128];
        libunwind.forget();
        let start = Instant::now();
        libunwind.unwind(&mut addresses);
        THEIRS.fetch_min(start.elapsed().as_nanos() as u64, Relaxed);
    }
}

fn show(what: &str, ns: f64, clock: f64) {
    println!("{what:<44}{ns:8.1} ns{:8.2} clocks", ns / clock);
}

fn measure_warm(caller: &Caller, log: &mut Log) {
    let clock = cost(clock);
    let id = capture(caller, 0, log);
    let frames = log.frames(id).len();
    println!("{frames} frames; one clock_gettime takes {clock:.1} ns");
    let hit = cost(|| {
        black_box(capture(caller, 0, log));
    });
    show("hit", hit, clock);
    let thread = Thread::at(0).expect("made by the capture");
    let miss = cost(|| {
        modules::void_memos();
        thread.memo.forget_seen(id);
        black_box(capture(caller, 0, log));
    });
    show("miss", miss, clock);
    let kept = cost(|| {
        modules::void_memos();
        black_box(capture(caller, 0, log));
    });
    show("miss that the memo keeps", kept, clock);
    if let Some(libunwind) = Libunwind::open() {
        let mut addresses = [null_mut(); 128];
        let theirs = cost(|| libunwind.unwind(&mut addresses));
        show("libunwind's unw_backtrace", theirs, clock);
        println!("{:<44}{:8.2}", "miss / libunwind's", miss / theirs);
    } else {
        println!("libunwind.so.8 is not installed");
    }
    let libgcc = cost(|| {
        black_box(witness());
    });
    show("libgcc's _Unwind_Backtrace", libgcc, clock);
}

/// As often as it takes to meet a quiet moment, each time in a thread to which the chain's code is new.
fn cold(depth: usize) {
    OURS.store(u64::MAX, Relaxed);
    THEIRS.store(u64::MAX, Relaxed);
    COLD.store(true, Relaxed);
    for _ in 0..RUNS {
        let thread = std::thread::spawn(move || {
            // What every thread needs once, whatever it unwinds.
            if let Some(libunwind) = Libunwind::open() {
                libunwind.unwind(&mut [null_mut(); 128]);
            }
            link(depth);
        });
        thread.join().expect("no panic");
    }
    COLD.store(false, Relaxed);
    let (ours, theirs) = (OURS.load(Relaxed) as f64, THEIRS.load(Relaxed) as f64);
    println!("{:<44}{ours:8.1} ns", "miss, all code new");
    if theirs < 1e9 {
        println!(
            "{:<44}{theirs:8.1} ns",
            "libunwind's unw_backtrace, code new"
        );
        println!(
            "{:<44}{:8.2}",
            "miss / libunwind's, code new",
            ours / theirs
        );
    }
}

#[test]
#[ignore = "measures; for a quiet machine"]
fn capture_costs() {
    modules::start();
    start(Mode::Full, DEFAULT_DEPTH, false);
    for depth in [3, 9, 15, 60] {
        let warm = std::thread::spawn(move || link(depth));
        warm.join().expect("no panic");
        cold(depth);
    }
}
