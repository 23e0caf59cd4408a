//! A signal at an instruction of a hook, whose handler allocates, jumps away or forks: a fresh run for each instruction.

use super::target::{OPS, Plan, STACKS_ONLY, Target, Who, Word};
use super::tracee::Stop;
use super::witness::{judge, judge_child};
use super::{Choice, Place, Sample, Tally, before_call};

/// What the handler does; the numbers are the program's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// No handler: SIGKILL.
    Kill = 0,
    Allocate = 1,
    Map = 2,
    Jump = 4,
    /// Jumps away after an allocation.
    AllocateAndJump = 5,
    /// The child makes calls of its own and ends.
    Fork = 8,
}

const SIGUSR1: i32 = 10;
const EXIT: i32 = 7;

/// Interrupts a call at each instruction of the sample that is the shim's.
fn interruptions(plan: &Plan, flush: bool, action: Action, sample: Sample) -> Tally {
    let mut tally = Tally::default();
    for instruction in chosen(plan, flush, sample) {
        tally.attempt(|| interrupt(plan, flush, action, instruction));
    }
    tally
}

/// The numbers of the instructions of a call that the sample takes.
fn chosen(plan: &Plan, flush: bool, sample: Sample) -> Vec<usize> {
    let (mut target, breakpoint) = before_call(plan, flush);
    let code = target.code();
    let mut choice = Choice::of(sample);
    let mut chosen = Vec::new();
    let mut instruction = 0;
    loop {
        assert_eq!(target.tracee.step_over(&code), Stop::Trap);
        instruction += 1;
        let address = target.tracee.ip();
        if address == breakpoint {
            return chosen;
        }
        // In libc's own malloc a handler may not allocate, memspy or not.
        if code.contains(&address) && choice.takes(address) {
            chosen.push(instruction);
        }
    }
}

fn interrupt(plan: &Plan, flush: bool, action: Action, instruction: usize) {
    let (mut target, breakpoint) = before_call(plan, flush);
    let code = target.code();
    let mut place = Place {
        what: &format!("{action:?}"),
        plan,
        instruction,
        address: 0,
    };
    for _ in 0..instruction {
        assert_eq!(target.tracee.step_over(&code), Stop::Trap);
        if target.tracee.ip() == breakpoint {
            return; // this run took a shorter way
        }
    }
    let address = target.tracee.ip();
    if !code.contains(&address) {
        return;
    }
    place.address = address - code.start;
    let log = target.log_of(target.tracee.id());
    if action == Action::Kill {
        target.tracee.kill();
        judge(&log, &target.told.entries());
        return;
    }
    let open = target.line_is_open();
    let blocked = target.blocks_signals();
    target.told.set_word(Word::Action, action as u64);
    target.told.set_word(Word::Enough, 40);
    run_on(&mut target, SIGUSR1);
    assert_eq!(target.told.word(Word::Handled), 1, "the handler ran");
    let entries = target.told.entries();
    let events = judge(&log, &entries);
    let mut lines = events.values().flat_map(|events| events.values());
    let end = lines.rfind(|line| line["op"] == "end");
    let end = end.expect("the end was tidy");
    assert_eq!(end["lost"], 0, "{end}");
    let abandoned = end["abandoned"].as_u64().expect("a count");
    match action {
        // The handler ran later than at this instruction, the thread has a larger buffer by then, or the line is not a
        // heap call's.
        Action::Jump | Action::AllocateAndJump if blocked || flush || !plan.has_one_line() => {
            assert!(abandoned <= 1);
        }
        Action::Jump | Action::AllocateAndJump => assert_eq!(abandoned, u64::from(open), "{end}"),
        _ => assert_eq!(abandoned, 0, "{end}"),
    }
    if action == Action::Fork {
        let pid = target.told.word(Word::Forked) as i32;
        let childs = entries.iter().filter(|entry| entry.who == Who::Child);
        assert!(
            childs.filter(|entry| entry.done).count() >= 3,
            "the child went on"
        );
        judge_child(&target.log_of(pid), &log, &entries);
    }
}

/// Runs to the program's end, past breakpoints.
fn run_on(target: &mut Target, signal: i32) {
    let mut stop = target.tracee.resume(signal);
    loop {
        stop = match stop {
            Stop::Trap => target.tracee.resume(0),
            // It was blocked when it was sent.
            Stop::Signal(SIGUSR1) => target.tracee.resume(SIGUSR1),
            Stop::Signal(libc::SIGCHLD) => target.tracee.resume(0),
            stop => {
                assert_eq!(stop, Stop::Exited(EXIT));
                return;
            }
        }
    }
}

/// The first call that finds the buffer full.
const FLUSH: Plan = Plan {
    quiet: 100,
    ..Plan::calls("malloc")
};

/// A call whose stack is walked and written.
const STACKS: Plan = Plan {
    settings: STACKS_ONLY,
    ..Plan::calls("malloc")
};

const fn on_tmpfs(plan: Plan) -> Plan {
    Plan {
        tmpfs: true,
        ..plan
    }
}

#[test]
fn a_handler_that_allocates_at_any_instruction_loses_nothing() {
    for op in ["malloc", "free", "realloc", "munmap"] {
        interruptions(&Plan::calls(op), false, Action::Allocate, Sample::every(19)).all_well();
    }
    interruptions(&Plan::calls("mmap"), false, Action::Map, Sample::every(19)).all_well();
    interruptions(&STACKS, false, Action::Allocate, Sample::every(701)).all_well();
}

#[test]
fn a_jump_out_at_any_instruction_costs_at_most_that_call() {
    for action in [Action::Jump, Action::AllocateAndJump] {
        interruptions(&Plan::calls("malloc"), false, action, Sample::every(11)).all_well();
    }
    interruptions(&STACKS, false, Action::Jump, Sample::every(701)).all_well();
}

#[test]
fn a_fork_at_any_instruction_leaves_two_complete_logs() {
    interruptions(
        &Plan::calls("malloc"),
        false,
        Action::Fork,
        Sample::every(19),
    )
    .all_well();
}

#[test]
fn an_interrupted_flush_loses_nothing() {
    for (action, plan) in [
        (Action::Kill, on_tmpfs(FLUSH)),
        (Action::Allocate, FLUSH),
        (Action::Jump, on_tmpfs(FLUSH)),
        (Action::Fork, FLUSH),
    ] {
        interruptions(&plan, true, action, Sample::every(149)).all_well();
    }
}

/// Every instruction of calls of every kind, of one with its stack, and of one that flushes, on a disk and on tmpfs.
fn every_instruction(action: Action) -> Tally {
    let mut tally = Tally::default();
    for op in OPS {
        tally.add(interruptions(
            &Plan::calls(op),
            false,
            action,
            Sample::all(),
        ));
    }
    // The first walk of a stack is a long way, and each run begins at its start.
    tally.add(interruptions(
        &STACKS,
        false,
        action,
        Sample::every(97 * Sample::thinned()),
    ));
    tally.add(interruptions(&FLUSH, true, action, Sample::all()));
    tally.add(interruptions(&on_tmpfs(FLUSH), true, action, Sample::all()));
    tally
}

#[test]
#[ignore = "half an hour: scripts/torture kills"]
fn every_instruction_killed() {
    every_instruction(Action::Kill).row("instructions at which it was killed: events lost");
}

#[test]
#[ignore = "half an hour: scripts/torture kills"]
fn every_instruction_interrupted_by_an_allocating_handler() {
    every_instruction(Action::Allocate)
        .row("instructions interrupted by a handler that allocates: events lost");
}

#[test]
#[ignore = "half an hour: scripts/torture kills"]
fn every_instruction_jumped_out_of() {
    let mut tally = every_instruction(Action::Jump);
    tally.add(every_instruction(Action::AllocateAndJump));
    tally.row("instructions left by siglongjmp: other events lost");
}

#[test]
#[ignore = "half an hour: scripts/torture kills"]
fn every_instruction_forked_at() {
    every_instruction(Action::Fork)
        .row("instructions at which a handler forked: events lost, of parent or child");
}
