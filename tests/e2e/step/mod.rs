//! Hooks in single steps: at each instruction the program dies, or a signal's handler allocates, jumps away or forks, and
//! the log is held against what the program told of itself.
//!
//! The tests here take a sample of the instructions; the `every_…` ones, which `scripts/torture` runs, take all.

mod death;
mod interrupt;
mod refusal;
mod refuser;
mod target;
mod tracee;
mod witness;

use std::collections::HashMap;

use target::{Plan, Target};

/// Which instructions of a call are tried.
#[derive(Clone, Copy)]
pub(crate) struct Sample {
    /// Of a loop's instruction the first so many rounds, and then every 997th.
    rounds: usize,
    /// Of those every so many-th, from the middle of the first so many on.
    every: usize,
}

impl Sample {
    /// What `scripts/torture` tries: all, or every TORTURE_EVERY-th.
    fn all() -> Self {
        Self {
            rounds: 16,
            every: Self::thinned(),
        }
    }

    /// The variable TORTURE_EVERY, for a quick look at a long sweep; 1 without it.
    fn thinned() -> usize {
        let every = std::env::var("TORTURE_EVERY").ok();
        every.and_then(|every| every.parse().ok()).unwrap_or(1)
    }

    /// Few enough for the tests of every day.
    const fn every(every: usize) -> Self {
        Self { rounds: 3, every }
    }
}

/// The instructions of one call, as they come.
struct Choice {
    sample: Sample,
    visits: HashMap<u64, usize>,
    candidates: usize,
}

impl Choice {
    fn of(sample: Sample) -> Self {
        Self {
            sample,
            visits: HashMap::new(),
            candidates: 0,
        }
    }

    /// Whether the instruction at `address`, executed now, is one to try.
    fn takes(&mut self, address: u64) -> bool {
        let visits = self.visits.entry(address).or_default();
        *visits += 1;
        if *visits > self.sample.rounds && !visits.is_multiple_of(997) {
            return false;
        }
        self.candidates += 1;
        self.candidates % self.sample.every == self.sample.every / 2
    }
}

/// Counts what was tried and what failed.
#[derive(Default)]
struct Tally {
    tried: usize,
    failed: usize,
    /// Losses that docs/torture.md knows, with their reason.
    known: usize,
}

impl Tally {
    /// Tries something that panics when it fails. Gives up after ten failures.
    fn attempt(&mut self, attempt: impl FnOnce()) {
        self.tried += 1;
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(attempt)).is_err() {
            self.failed += 1;
            assert!(self.failed < 10, "ten failures of {}", self.tried);
        }
    }

    fn add(&mut self, other: Tally) {
        self.tried += other.tried;
        self.failed += other.failed;
        self.known += other.known;
    }

    /// Asserts that something was tried and nothing failed.
    #[track_caller]
    fn all_well(self) {
        assert!(self.tried > 0, "nothing was tried");
        assert_eq!(self.failed, 0, "of {}", self.tried);
    }

    /// Prints a line of the torture suite's table (`scripts/torture.d/README.md`), and asserts that nothing failed.
    #[track_caller]
    fn row(self, what: &str) {
        let mut remarks = Vec::new();
        if self.known > 0 {
            remarks.push(format!("and {} of the known kind", self.known));
        }
        if Sample::thinned() > 1 {
            remarks.push(format!("only every {}th", Sample::thinned()));
        }
        let remarks = remarks.join("; ");
        println!("\nrow\t{what}\t{}\t{}\t{remarks}", self.tried, self.failed);
        self.all_well();
    }
}

/// Says, when a test fails, at which instruction it did.
struct Place<'a> {
    what: &'a str,
    plan: &'a Plan,
    instruction: usize,
    address: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "{} at instruction {} (libmemspy.so's code + {:#x}) of {} {} {:?}{}",
                self.what,
                self.instruction,
                self.address,
                self.plan.scenario,
                self.plan.op,
                self.plan.settings,
                if self.plan.tmpfs { " on tmpfs" } else { "" }
            );
        }
    }
}

/// Brings a fresh target before a call to be stepped through: the first, or (`flush`) the first that finds the buffer full.
/// Answers the breakpoint's address, where the call ends too.
fn before_call(plan: &Plan, flush: bool) -> (Target, u64) {
    let mut target = Target::start(plan);
    loop {
        let breakpoint = target.run_to_breakpoint();
        if !flush || target.is_nearly_full() {
            return (target, breakpoint);
        }
        target.run_to_breakpoint();
    }
}
