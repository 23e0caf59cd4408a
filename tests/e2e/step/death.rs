//! Death at an instruction. SIGKILL leaves log and tail as they are at that moment, so the log of a stopped process is the
//! log of one that died there: one run is enough to look at all its instructions. Some are killed to see that it is so.

use std::fs;
use std::path::{Path, PathBuf};

use super::target::{Entry, FULL, OPS, Plan, Target, Who};
use super::tracee::{Stop, Tracee};
use super::witness::{judge, judge_child};
use super::{Choice, Place, Sample, Tally, before_call};

/// Calls that each thread of steps.c makes.
const CALLS_OF_A_THREAD: usize = 4;

/// A stretch of instructions, at each of which the process may die.
struct Stretch<'a> {
    plan: &'a Plan,
    choice: Choice,
    /// Log and tail as they were when last looked at.
    before: Vec<u8>,
    tally: Tally,
}

impl<'a> Stretch<'a> {
    fn of(plan: &'a Plan, sample: Sample) -> Self {
        Self {
            plan,
            choice: Choice::of(sample),
            before: Vec::new(),
            tally: Tally::default(),
        }
    }

    /// Steps until another kind of stop, or until the instruction at `end` is reached; without one, until a breakpoint is.
    /// At each instruction of the sample at which log and tail are not what they were, `look` judges them.
    fn step(&mut self, tracee: &mut Tracee, end: Option<u64>, log: &Path, look: &dyn Fn()) -> Stop {
        let mut place = Place {
            what: "death",
            plan: self.plan,
            instruction: 0,
            address: 0,
        };
        loop {
            let stop = tracee.step(0);
            if stop != Stop::Trap {
                return stop;
            }
            place.instruction += 1;
            place.address = tracee.ip();
            if end.map_or_else(|| tracee.is_at_breakpoint(), |end| place.address == end) {
                return stop;
            }
            if self.choice.takes(place.address) {
                let now = contents(log);
                if now != self.before {
                    self.before = now;
                    self.tally.attempt(look);
                }
            }
        }
    }
}

fn contents(log: &Path) -> Vec<u8> {
    let mut bytes = fs::read(log).unwrap_or_default();
    bytes.extend(fs::read(tail_of(log)).unwrap_or_default());
    bytes
}

fn tail_of(log: &Path) -> PathBuf {
    let mut tail = log.as_os_str().to_owned();
    tail.push(".tail");
    tail.into()
}

/// Deaths in a call of the first thread.
fn in_call(plan: &Plan, flush: bool, sample: Sample) -> Tally {
    let (mut target, breakpoint) = before_call(plan, flush);
    let log = target.log_of(target.tracee.id());
    let mut stretch = Stretch::of(plan, sample);
    let Target { tracee, told, .. } = &mut target;
    let look = || drop(judge(&log, &told.entries()));
    assert_eq!(
        stretch.step(tracee, Some(breakpoint), &log, &look),
        Stop::Trap
    );
    tracee.kill();
    look();
    stretch.tally
}

/// Deaths between the last call of the program and the end of its image.
fn at_end(plan: &Plan, sample: Sample) -> Tally {
    let (mut target, breakpoint) = before_call(plan, false);
    let log = target.log_of(target.tracee.id());
    let mut stretch = Stretch::of(plan, sample);
    let Target { tracee, told, .. } = &mut target;
    let look = || drop(judge(&log, &told.entries()));
    let stop = stretch.step(tracee, Some(breakpoint), &log, &look);
    match plan.scenario {
        "failing_execve" => {
            assert_eq!(stop, Stop::Trap);
            assert_eq!(tracee.resume(0), Stop::Exited(7));
        }
        "execve" => assert_eq!(stop, Stop::Exec),
        _ => assert_eq!(stop, Stop::Exited(7)),
    }
    assert!(!tail_of(&log).exists(), "the end was tidy");
    look();
    stretch.tally
}

/// Deaths in the first calls of threads: one that finds a free buffer, one that needs a new one, and two that take over
/// a dead thread's. All other threads stand still meanwhile, as the two readers look one after the other.
fn in_threads(plan: &Plan, sample: Sample) -> Tally {
    let mut target = Target::start(plan);
    let log = target.log_of(target.tracee.id());
    let mut stretch = Stretch::of(plan, sample);
    let Target { tracee, told, .. } = &mut target;
    let look = || drop(judge(&log, &told.entries()));
    let mut waiting = Vec::new();
    for number in 0..4 {
        tracee.release();
        let Stop::Made(id) = tracee.wait() else {
            panic!("no further thread");
        };
        let mut thread = Tracee::made(id);
        assert_eq!(thread.resume(0), Stop::Trap, "the call comes");
        let breakpoint = thread.ip();
        assert_eq!(
            stretch.step(&mut thread, Some(breakpoint), &log, &look),
            Stop::Trap
        );
        if number == 0 {
            thread.release();
            let its_own = |entry: &&Entry| entry.done && entry.who == Who::Thread(0);
            while told.entries().iter().filter(its_own).count() < CALLS_OF_A_THREAD {
                std::thread::yield_now();
            }
            waiting.push(thread);
        } else {
            assert_eq!(thread.resume(0), Stop::Exited(0));
        }
    }
    tracee.release();
    assert_eq!(waiting[0].wait(), Stop::Exited(0));
    assert_eq!(tracee.wait(), Stop::Trap);
    assert_eq!(tracee.resume(0), Stop::Exited(7));
    look();
    stretch.tally
}

/// Deaths of a forked child in its first call, which begins its image.
fn in_child(plan: &Plan, sample: Sample) -> Tally {
    let (mut target, _) = before_call(plan, false);
    target.tracee.follow_forks();
    let Stop::Made(pid) = target.tracee.resume(0) else {
        panic!("no child");
    };
    let mut child = Tracee::made(pid);
    let (log, parents) = (target.log_of(pid), target.log_of(target.tracee.id()));
    assert_eq!(child.resume(0), Stop::Trap);
    let breakpoint = child.ip();
    let mut stretch = Stretch::of(plan, sample);
    let Target { tracee, told, .. } = &mut target;
    let look = || {
        judge_begun(&log, &told.entries(), &|entries| {
            judge_child(&log, &parents, entries);
        });
        judge(&parents, &told.entries());
    };
    assert_eq!(
        stretch.step(&mut child, Some(breakpoint), &log, &look),
        Stop::Trap
    );
    assert_eq!(child.resume(0), Stop::Exited(0));
    while tracee.resume(0) != Stop::Exited(7) {}
    look();
    stretch.tally
}

/// A log that is about to begin may have no first line yet. Then no call has returned, and memspy says so.
fn judge_begun(log: &Path, told: &[Entry], judge: &dyn Fn(&[Entry])) {
    let text = fs::read(log).unwrap_or_default();
    if text.contains(&b'\n') {
        judge(told);
    } else if let Ok(logs) = memspy_analysis::log::Log::open(log) {
        let summary = memspy_analysis::summary::Summary::read(&logs).unwrap();
        assert!(!summary.completeness.complete);
    }
}

/// Deaths in the start: from the shim's first system call up to the program's first call.
fn at_start(plan: &Plan, sample: Sample) -> Tally {
    let mut target = Target::start(plan);
    let log = target.log_of(target.tracee.id());
    let mut code = None;
    loop {
        assert_eq!(target.tracee.resume_to_syscall(0), Stop::Syscall);
        let ip = target.tracee.ip();
        code = code.or_else(|| super::target::shim_code(target.tracee.id()));
        if code.as_ref().is_some_and(|code| code.contains(&ip)) {
            break;
        }
    }
    let mut stretch = Stretch::of(plan, sample);
    let Target { tracee, told, .. } = &mut target;
    let look = || {
        let entries = told.entries();
        judge_begun(&log, &entries, &|entries| drop(judge(&log, entries)));
    };
    assert_eq!(stretch.step(tracee, None, &log, &look), Stop::Trap);
    stretch.tally
}

/// The first call that finds the buffer full.
const FLUSH: Plan = Plan {
    quiet: 100,
    ..Plan::calls("malloc")
};

const THREADS: Plan = Plan::scenario("threads", "malloc");
const ENDS: [&str; 5] = ["return", "_exit", "quick_exit", "execve", "failing_execve"];
const FORKS: [&str; 3] = ["fork", "_fork", "clone"];

const fn full(plan: Plan) -> Plan {
    Plan {
        settings: FULL,
        ..plan
    }
}

const fn on_tmpfs(plan: Plan) -> Plan {
    Plan {
        tmpfs: true,
        ..plan
    }
}

#[test]
fn death_in_a_hook_loses_no_returned_call() {
    for op in ["malloc", "free", "realloc", "mmap", "munmap"] {
        in_call(&Plan::calls(op), false, Sample::every(1)).all_well();
    }
    in_call(&full(Plan::calls("malloc")), false, Sample::every(7)).all_well();
}

#[test]
fn death_in_a_flush_loses_no_returned_call() {
    for plan in [FLUSH, on_tmpfs(FLUSH)] {
        in_call(&plan, true, Sample::every(7)).all_well();
    }
}

#[test]
fn death_in_a_threads_first_call_loses_no_returned_call() {
    for plan in [THREADS, on_tmpfs(THREADS)] {
        in_threads(&plan, Sample::every(17)).all_well();
    }
}

#[test]
fn death_at_the_end_loses_no_returned_call() {
    for scenario in ENDS {
        at_end(&Plan::scenario(scenario, "malloc"), Sample::every(7)).all_well();
    }
}

#[test]
fn death_of_a_new_child_loses_no_returned_call() {
    in_child(&Plan::scenario("clone", "malloc"), Sample::every(17)).all_well();
}

#[test]
fn death_at_the_start_loses_no_returned_call() {
    at_start(&Plan::calls("malloc"), Sample::every(97)).all_well();
}

#[test]
#[ignore = "minutes: scripts/torture kills"]
fn every_death() {
    let mut tally = Tally::default();
    for place in [|plan| plan, on_tmpfs as fn(Plan) -> Plan] {
        for op in OPS {
            tally.add(in_call(&place(Plan::calls(op)), false, Sample::all()));
            tally.add(in_call(&place(full(Plan::calls(op))), false, Sample::all()));
        }
        for plan in [FLUSH, full(FLUSH)] {
            tally.add(in_call(&place(plan), true, Sample::all()));
        }
        for plan in [THREADS, full(THREADS)] {
            tally.add(in_threads(&place(plan), Sample::all()));
        }
        for scenario in ENDS {
            let plan = place(Plan::scenario(scenario, "malloc"));
            tally.add(at_end(&plan, Sample::all()));
            tally.add(at_end(&full(plan), Sample::all()));
        }
        for scenario in FORKS {
            tally.add(in_child(
                &place(Plan::scenario(scenario, "malloc")),
                Sample::all(),
            ));
        }
        let start = place(Plan::calls("malloc"));
        tally.add(at_start(&start, Sample::all()));
        tally.add(at_start(&full(start), Sample::all()));
    }
    tally.row("states of log and tail between two instructions: events lost");
}
