//! Stacks held against libgcc's own unwinder, in the test's process.

macro_rules! here {
    () => {{
        let mut caller = crate::unwind::Caller {
            ip: 0,
            sp: 0,
            bp: 0,
        };
        crate::unwind::tests::registers(&raw mut caller);
        caller
    }};
}

mod coroutines;
mod hostile;
mod libraries;
mod signals;

use super::thread::Thread;
use super::{
    Caller, Cut, DEFAULT_DEPTH, Definitions, Mode, Suffix, capture, checks, modules, start,
};
use crate::modules::Module;
use crate::stacks;
use core::arch::naked_asm;
use core::ffi::{c_int, c_void};
use core::hint::black_box;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{LazyLock, Mutex, Once};

/// The registers of whoever calls this, as a hook's entry stub would find them.
#[unsafe(naked)]
pub(super) extern "C" fn registers(caller: *mut Caller) {
    naked_asm!(
        "mov rax, [rsp]",
        "mov [rdi], rax",
        "lea rax, [rsp + 8]",
        "mov [rdi + 8], rax",
        "mov [rdi + 16], rbp",
        "ret",
    )
}

/// The lines that one test caused. Numbers are the process's, so what they mean is kept for all tests together.
#[derive(Default)]
pub(super) struct Log {
    lines: usize,
}

#[derive(Default)]
struct Defined {
    modules: HashMap<u32, Vec<u8>>,
    stacks: HashMap<u32, stacks::Frame>,
}

static DEFINED: LazyLock<Mutex<Defined>> = LazyLock::new(Mutex::default);

impl Definitions for Log {
    fn module(&mut self, module: &Module) -> bool {
        self.lines += 1;
        let mut defined = DEFINED.lock().expect("no panic");
        defined.modules.insert(module.id, module.path.to_vec());
        true
    }

    fn unload(&mut self, _: u32) -> bool {
        self.lines += 1;
        true
    }

    fn stack(&mut self, id: u32, frame: &stacks::Frame) -> bool {
        self.lines += 1;
        let mut defined = DEFINED.lock().expect("no panic");
        let parent = frame.parent;
        let known = (parent == 0 || defined.stacks.contains_key(&parent))
            && (frame.module == 0 || defined.modules.contains_key(&frame.module));
        defined.stacks.insert(id, *frame);
        known
    }
}

impl Log {
    /// The frames of a stack, innermost first.
    pub(super) fn frames(&self, mut id: u32) -> Vec<stacks::Frame> {
        let defined = DEFINED.lock().expect("no panic");
        let mut frames = Vec::new();
        while id != 0 {
            frames.push(defined.stacks[&id]);
            id = defined.stacks[&id].parent;
        }
        frames
    }

    fn addresses(&self, id: u32) -> Vec<usize> {
        self.frames(id).iter().map(|frame| frame.ip).collect()
    }

    /// Every frame that any test has defined.
    fn frames_of_all(&self) -> Vec<stacks::Frame> {
        DEFINED
            .lock()
            .expect("no panic")
            .stacks
            .values()
            .copied()
            .collect()
    }

    /// The path of the module of a frame.
    fn path(&self, frame: &stacks::Frame) -> String {
        let defined = DEFINED.lock().expect("no panic");
        let path = defined
            .modules
            .get(&frame.module)
            .cloned()
            .unwrap_or_default();
        String::from_utf8_lossy(&path).into_owned()
    }
}

/// A slot that no other test uses, with everything started. Epochs are the process's: no test may fork one.
fn a_slot() -> usize {
    static STARTED: Once = Once::new();
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    STARTED.call_once(|| {
        modules::start(b"");
        start(Mode::Full, DEFAULT_DEPTH, true);
    });
    NEXT.fetch_add(1, Relaxed)
}

unsafe extern "C" {
    fn _Unwind_Backtrace(
        step: unsafe extern "C" fn(*mut c_void, *mut c_void) -> c_int,
        argument: *mut c_void,
    ) -> c_int;
    fn _Unwind_GetIPInfo(context: *mut c_void, before: *mut c_int) -> usize;
}

/// The addresses that libgcc finds, innermost first, in the log's form.
#[inline(never)]
pub(super) fn witness() -> Vec<usize> {
    unsafe extern "C" fn step(context: *mut c_void, found: *mut c_void) -> c_int {
        let mut before = 0;
        // SAFETY: libgcc hands its context, and `found` is the vector below.
        unsafe {
            let ip = _Unwind_GetIPInfo(context, &raw mut before);
            (*found.cast::<Vec<usize>>()).push(ip + usize::from(before != 0));
        }
        0
    }
    let mut found: Vec<usize> = Vec::new();
    // SAFETY: the callback gets the vector that it expects.
    unsafe { _Unwind_Backtrace(step, (&raw mut found).cast()) };
    found.retain(|ip| *ip > 1);
    found
}

/// Asserts that all frames but the innermost are libgcc's, and that there are as many.
#[track_caller]
fn assert_equal(ours: &[usize], theirs: &[usize]) {
    let tail = &ours[1..];
    assert!(tail.len() > 2, "{ours:x?} {theirs:x?}");
    let at = theirs.len().checked_sub(tail.len());
    assert_eq!(
        at.map(|at| &theirs[at..]),
        Some(tail),
        "{ours:x?} {theirs:x?}"
    );
}

fn hit(slot: usize, caller: &Caller) -> Option<Suffix> {
    super::known(Thread::at(slot)?, caller)
}

#[test]
fn a_stack_is_what_libgcc_says() {
    let slot = a_slot();
    let mut log = Log::default();
    let id = capture(&here!(), slot, &mut log);
    let theirs = witness();
    assert_ne!(id, 0);
    assert_equal(&log.addresses(id), &theirs);
    assert!(log.frames(id).iter().all(|frame| frame.cut.is_none()));
}

#[test]
fn a_stack_that_came_twice_is_a_hit_and_only_its_first_capture_defines_it() {
    let slot = a_slot();
    let mut log = Log::default();
    let mut seen = Vec::new();
    for _ in 0..4 {
        let caller = here!();
        let is_hit = hit(slot, &caller).is_some();
        let lines = log.lines;
        let id = capture(&caller, slot, &mut log);
        seen.push((id, is_hit, log.lines > lines));
    }
    let id = seen[0].0;
    let expected = [(false, true), (false, false), (true, false), (true, false)];
    assert_eq!(
        seen,
        expected.map(|(is_hit, defines)| (id, is_hit, defines))
    );
}

#[inline(never)]
fn recurse(depth: usize, slot: usize, log: &mut Log, ids: &mut Vec<(u32, Vec<usize>)>) -> usize {
    if depth == 0 {
        let id = capture(&here!(), slot, log);
        ids.push((id, witness()));
        return 1;
    }
    black_box(recurse(depth - 1, slot, log, ids) + 1)
}

#[test]
fn stacks_of_every_depth_are_libgccs() {
    let slot = a_slot();
    let mut log = Log::default();
    let mut ids = Vec::new();
    for depth in (0..100).chain([3, 99, 50, 0, 7]) {
        recurse(depth, slot, &mut log, &mut ids);
    }
    for (id, theirs) in ids {
        assert_equal(&log.addresses(id), &theirs);
    }
}

#[test]
fn a_stack_beyond_the_limit_is_cut_at_the_limit() {
    let slot = a_slot();
    let mut log = Log::default();
    let mut ids = Vec::new();
    for depth in [400, 1000, 400, 401, 250, 240, 260] {
        recurse(depth, slot, &mut log, &mut ids);
    }
    for (id, theirs) in ids {
        let frames = log.frames(id);
        let ours = log.addresses(id);
        let cut = frames.last().and_then(|frame| frame.cut);
        if frames.len() < DEFAULT_DEPTH {
            assert_equal(&ours, &theirs);
            assert_eq!(cut, None);
        } else {
            assert_eq!(frames.len(), DEFAULT_DEPTH);
            assert_eq!(cut, Some(Cut::Depth));
            let from = theirs
                .iter()
                .position(|ip| *ip == ours[1])
                .expect("common frames");
            assert_eq!(theirs[from..][..DEFAULT_DEPTH - 1], ours[1..]);
        }
    }
}

/// A tree of calls of functions with frames of several kinds, by a pseudo-random number.
mod jungle {
    use super::{Log, black_box, capture};

    pub(super) struct Walker {
        pub(super) slot: usize,
        pub(super) log: Log,
        pub(super) seed: u64,
        pub(super) budget: usize,
    }

    impl Walker {
        fn next(&mut self) -> u64 {
            self.seed ^= self.seed << 13;
            self.seed ^= self.seed >> 7;
            self.seed ^= self.seed << 17;
            self.seed
        }
    }

    macro_rules! plant {
        ($name:ident, $size:expr, $width:expr) => {
            #[inline(never)]
            pub(super) fn $name(walker: &mut Walker, depth: usize) -> usize {
                let room = [depth as u8; $size];
                let mut sum = 0;
                for _ in 0..walker.next() % $width + 1 {
                    if walker.budget == 0 {
                        break;
                    }
                    walker.budget -= 1;
                    sum += match walker.next() % 7 {
                        0 if depth > 0 => oak(walker, depth - 1),
                        1 if depth > 0 => fern(walker, depth - 1),
                        2 if depth > 0 => moss(walker, depth - 1),
                        3 if depth > 0 => (0..2).map(|_| oak(walker, depth - 1)).sum(),
                        4 => capture(&here!(), walker.slot, &mut walker.log) as usize,
                        _ => capture(&here!(), walker.slot, &mut walker.log) as usize,
                    };
                }
                black_box(sum + black_box(&room).len())
            }
        };
    }

    plant!(oak, 8, 4);
    plant!(fern, 200, 3);
    plant!(moss, 5000, 6);
}

#[test]
fn no_hit_of_the_memo_is_wrong_in_a_jungle_of_calls() {
    let slot = a_slot();
    let before = checks();
    let mut walker = jungle::Walker {
        slot,
        log: Log::default(),
        seed: 42,
        budget: 0,
    };
    for _ in 0..100 {
        walker.budget = 1000;
        jungle::oak(&mut walker, 40);
    }
    let after = checks();
    assert!(after.0 - before.0 > 10_000, "{before:?} {after:?}");
    assert_eq!(after.1, before.1);
}

#[test]
fn a_walk_begun_inside_a_walk_spoils_neither() {
    struct Nested<'a> {
        slot: usize,
        log: Log,
        depth: usize,
        ids: &'a mut Vec<(u32, Vec<usize>)>,
    }
    impl Definitions for Nested<'_> {
        fn module(&mut self, module: &Module) -> bool {
            self.log.module(module)
        }
        fn unload(&mut self, id: u32) -> bool {
            self.log.unload(id)
        }
        // As a signal handler would that strikes while the line is written.
        fn stack(&mut self, id: u32, frame: &stacks::Frame) -> bool {
            if self.depth < 3 {
                self.depth += 1;
                let nested = capture(&here!(), self.slot, self);
                self.ids.push((nested, witness()));
                self.depth -= 1;
            }
            self.log.stack(id, frame)
        }
    }
    let slot = a_slot();
    let mut ids = Vec::new();
    let mut log = Nested {
        slot,
        log: Log::default(),
        depth: 0,
        ids: &mut ids,
    };
    let id = capture(&here!(), slot, &mut log);
    let theirs = witness();
    assert_equal(&log.log.addresses(id), &theirs);
    assert!(!ids.is_empty());
    for (id, theirs) in ids {
        assert_ne!(id, 0);
        assert_equal(&Log::default().addresses(id), &theirs);
    }
}

#[test]
fn abandoned_walks_stop_neither_recording_nor_the_memo() {
    let slot = a_slot();
    let mut log = Log::default();
    for _ in 0..10 {
        let thread = Thread::make(slot).expect("memory");
        // As a handler that jumps out of its walk: it never ends.
        for _ in 0..5 {
            assert!(thread.begin(DEFAULT_DEPTH).is_some());
        }
        let mut seen = Vec::new();
        for _ in 0..3 {
            let caller = here!();
            seen.push((
                capture(&caller, slot, &mut log),
                hit(slot, &caller).is_some(),
            ));
        }
        assert_ne!(seen[0].0, 0);
        assert_eq!(seen[1..], [(seen[0].0, true); 2]);
    }
}

#[test]
fn a_thread_that_takes_over_a_slot_gets_its_own_stacks() {
    let slot = a_slot();
    for _ in 0..20 {
        let (ours, theirs) = std::thread::spawn(move || {
            let mut log = Log::default();
            let mut found = Vec::new();
            recurse(20, slot, &mut log, &mut found);
            recurse(20, slot, &mut log, &mut found);
            let (id, theirs) = found.remove(1);
            (log.addresses(id), theirs)
        })
        .join()
        .expect("no panic");
        assert_equal(&ours, &theirs);
    }
}

#[test]
fn a_line_that_is_lost_makes_no_number() {
    struct Full;
    impl Definitions for Full {
        fn module(&mut self, module: &Module) -> bool {
            Log::default().module(module)
        }
        fn unload(&mut self, _: u32) -> bool {
            true
        }
        fn stack(&mut self, _: u32, _: &stacks::Frame) -> bool {
            false
        }
    }
    let slot = a_slot();
    let mut log = Log::default();
    let mut seen = Vec::new();
    for full in [true, false] {
        let caller = here!();
        seen.push(match full {
            true => capture(&caller, slot, &mut Full),
            false => capture(&caller, slot, &mut log),
        });
    }
    assert_eq!(seen[0], 0);
    assert_ne!(seen[1], 0);
}
