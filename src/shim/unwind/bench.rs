//! What a capture costs, beside one clock_gettime and beside libunwind, in one run, as a table (`scripts/bench` has it
//! in its result): `cargo test --release -p memspy-shim -- --ignored --nocapture capture_costs`

use super::tests::{Log, registers};
use super::thread::Thread;
use super::{Caller, DEFAULT_DEPTH, Mode, capture, modules, start};
use core::ffi::{CStr, c_int, c_void};
use core::hint::black_box;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::Mutex;
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

/// What to measure at the end of the chain: one call in code that is new, or many in code that is known.
static COLD: AtomicBool = AtomicBool::new(false);
static COSTS: Mutex<Costs> = Mutex::new(Costs::NONE);

/// Nanoseconds; those of libunwind are not finite when it is not installed.
#[derive(Clone, Copy)]
struct Costs {
    frames: usize,
    clock: f64,
    hit: f64,
    /// Of a stack that was not seen lately, all of whose code is known.
    miss: f64,
    /// The same the second time: the memo keeps it.
    kept: f64,
    unw_backtrace: f64,
    /// No code of the stack is known.
    cold: f64,
    unw_backtrace_cold: f64,
}

impl Costs {
    const NONE: Costs = Costs {
        frames: 0,
        clock: f64::INFINITY,
        hit: f64::INFINITY,
        miss: f64::INFINITY,
        kept: f64::INFINITY,
        unw_backtrace: f64::INFINITY,
        cold: f64::INFINITY,
        unw_backtrace_cold: f64::INFINITY,
    };
}

fn measure() -> usize {
    let mut caller = Caller {
        ip: 0,
        sp: 0,
        bp: 0,
    };
    registers(&raw mut caller);
    let mut log = Log::default();
    let mut costs = COSTS.lock().expect("no panic");
    if COLD.load(Relaxed) {
        measure_cold(&caller, &mut log, &mut costs);
    } else {
        measure_warm(&caller, &mut log, &mut costs);
    }
    black_box(1)
}

fn measure_cold(caller: &Caller, log: &mut Log, costs: &mut Costs) {
    let once = |call: &mut dyn FnMut()| {
        let start = Instant::now();
        call();
        start.elapsed().as_nanos() as f64
    };
    modules::next_generation();
    let ours = once(&mut || {
        black_box(capture(caller, 0, log));
    });
    costs.cold = costs.cold.min(ours);
    if let Some(libunwind) = Libunwind::open() {
        let mut addresses = [null_mut(); 128];
        libunwind.forget();
        let theirs = once(&mut || libunwind.unwind(&mut addresses));
        costs.unw_backtrace_cold = costs.unw_backtrace_cold.min(theirs);
    }
}

fn measure_warm(caller: &Caller, log: &mut Log, costs: &mut Costs) {
    let id = capture(caller, 0, log);
    let thread = Thread::at(0).expect("made by the capture");
    costs.frames = log.frames(id).len();
    costs.clock = cost(clock);
    costs.hit = cost(|| {
        black_box(capture(caller, 0, log));
    });
    // What is not kept is a miss the next time too.
    thread.memo.forget();
    costs.miss = cost(|| {
        thread.memo.forget_seen(id);
        black_box(capture(caller, 0, log));
    });
    costs.kept = cost(|| {
        modules::void_memos();
        black_box(capture(caller, 0, log));
    });
    if let Some(libunwind) = Libunwind::open() {
        let mut addresses = [null_mut(); 128];
        costs.unw_backtrace = cost(|| libunwind.unwind(&mut addresses));
    }
}

/// The costs at a depth of the chain. Those in new code: the best of many threads, to each of which it is new.
fn at_depth(depth: usize) -> Costs {
    *COSTS.lock().expect("no panic") = Costs::NONE;
    COLD.store(false, Relaxed);
    let warm = std::thread::spawn(move || link(depth));
    warm.join().expect("no panic");
    COLD.store(true, Relaxed);
    for _ in 0..RUNS {
        let thread = std::thread::spawn(move || {
            // What libunwind needs once in every thread, whatever it unwinds.
            if let Some(libunwind) = Libunwind::open() {
                libunwind.unwind(&mut [null_mut(); 128]);
            }
            link(depth);
        });
        thread.join().expect("no panic");
    }
    *COSTS.lock().expect("no panic")
}

#[test]
#[ignore = "measures; for a quiet machine"]
fn capture_costs() {
    modules::start(b"");
    start(Mode::Full, DEFAULT_DEPTH, false);
    println!(
        "| frames | clock_gettime | hit | miss | miss, kept | unw_backtrace | new code | unw_backtrace, new code \
         | hit / clock | miss / clock | miss / unw_backtrace | kept / unw_backtrace | both in new code |"
    );
    println!("|{}", "---|".repeat(13));
    for depth in [3, 9, 15, 60] {
        let it = at_depth(depth);
        let ns = |ns: f64| format!("{ns:.0}");
        let ratio = |part: f64, whole: f64| format!("{:.2}", part / whole);
        let cells = [
            it.frames.to_string(),
            ns(it.clock),
            ns(it.hit),
            ns(it.miss),
            ns(it.kept),
            ns(it.unw_backtrace),
            ns(it.cold),
            ns(it.unw_backtrace_cold),
            ratio(it.hit, it.clock),
            ratio(it.miss, it.clock),
            ratio(it.miss, it.unw_backtrace),
            ratio(it.kept, it.unw_backtrace),
            ratio(it.cold, it.unw_backtrace_cold),
        ];
        println!("| {} |", cells.join(" | "));
    }
}
