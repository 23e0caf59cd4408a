//! From processes and a policy to the verdict.
//!
//! ```text
//!   a leak in a process that was judged fails the policy ──> leaks
//!   else a process could not be judged                  ──> inconclusive
//!   else a budget is exceeded, a suppression unused,
//!        or the program itself failed                   ──> failed
//!   else                                                ──> clean
//! ```
//! A leak that was proved stays proved whatever else is unknown; a leak in a process whose check
//! was incomplete proves nothing, because the pointer to it may lie where nobody could look.

use std::fmt;

use super::pool::pool_of;
use super::suppression::{Date, Suppression};
use super::{
    Baseline, BaselineEntry, Budget, Budgets, Finding, Fingerprint, Kind, KindSet, Leak, Measures,
    Process, Standing, leaked,
};
use crate::text::{count, some};

/// What the user wants to be judged, and how.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Kinds that fail the check.
    pub fail_on: KindSet,
    /// Leaks that are accepted, by stack.
    pub suppressions: Vec<Suppression>,
    /// A suppression that matched nothing fails the check.
    pub fail_on_unused: bool,
    /// Leaks that are known.
    pub baseline: Option<Baseline>,
    /// Limits.
    pub budgets: Budgets,
    /// Without leak kinds (a plain event log) only the budgets are judged.
    pub budgets_only: bool,
    /// The day on which suppressions expire or not.
    pub today: Date,
}

/// The verdict in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything was judged and nothing was found.
    Clean,
    /// Leaks fail the check.
    Leaks,
    /// Something could not be judged, and what could be is well.
    Inconclusive,
    /// No leak fails the check, something else does.
    Failed,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Outcome::Clean => "clean",
            Outcome::Leaks => "leaks",
            Outcome::Inconclusive => "inconclusive",
            Outcome::Failed => "failed",
        })
    }
}

/// Bytes and blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Bytes, as asked for.
    pub bytes: u64,
    /// Blocks (or mappings).
    pub blocks: u64,
}

impl Totals {
    /// Adds a leak. Saturates.
    pub fn add(&mut self, leak: &Leak) {
        self.bytes = self.bytes.saturating_add(leak.bytes);
        self.blocks = self.blocks.saturating_add(leak.blocks);
    }
}

/// How much one suppression was used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// What it matched.
    pub matched: Totals,
    /// Its last day has passed: it matches nothing any more.
    pub expired: bool,
}

/// A limit that was exceeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exceeded {
    /// Which.
    pub budget: Budget,
    /// What it is.
    pub value: u64,
    /// What it may be.
    pub limit: u64,
    /// Index of the process; `None` when the whole tree is meant.
    pub process: Option<usize>,
}

/// Everything that a report needs to say.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// In one word.
    pub outcome: Outcome,
    /// Reasons for an outcome that is not clean, each a short clause.
    pub why: Vec<String>,
    /// The program's own exit status, 128 + the signal that ended it; `None` when only logs
    /// were judged.
    pub program_status: Option<u8>,
    /// Every leak, worst kind first, then most bytes first.
    pub findings: Vec<Finding>,
    /// The processes, in the order in which they were given.
    pub processes: Vec<Process>,
    /// One for each suppression of the policy.
    pub usage: Vec<Usage>,
    /// Baseline entries whose leak is gone or has shrunk.
    pub stale: Vec<(Fingerprint, BaselineEntry)>,
    /// Limits that were exceeded.
    pub exceeded: Vec<Exceeded>,
}

impl Verdict {
    /// What was found of one kind, without suppressed and inherited blocks.
    pub fn total(&self, kind: Kind) -> Totals {
        self.sum(|finding| finding.leak.kind == kind && counts(finding))
    }

    /// What suppressions matched.
    pub fn suppressed(&self) -> Totals {
        self.sum(|finding| matches!(finding.standing, Standing::Suppressed(_)))
    }

    /// What children inherited from their parents.
    pub fn inherited(&self) -> Totals {
        self.sum(|finding| finding.standing == Standing::Inherited)
    }

    /// What fails the check.
    pub fn failing(&self) -> Totals {
        self.sum(|finding| finding.standing == Standing::Fails)
    }

    /// The findings that fail the check.
    pub fn failures(&self) -> impl Iterator<Item = &Finding> {
        self.findings
            .iter()
            .filter(|finding| finding.standing == Standing::Fails)
    }

    fn sum(&self, wanted: impl Fn(&Finding) -> bool) -> Totals {
        let mut totals = Totals::default();
        self.findings
            .iter()
            .filter(|finding| wanted(finding))
            .for_each(|f| totals.add(&f.leak));
        totals
    }
}

fn counts(finding: &Finding) -> bool {
    !matches!(
        finding.standing,
        Standing::Suppressed(_) | Standing::Inherited
    )
}

/// Judges the processes of one run.
///
/// `tree` is what the whole tree counted, for budgets that hold for the tree. `doubts` are reasons
/// why the run as a whole could not be judged, such as a root process without a log.
pub fn judge(
    policy: &Policy,
    processes: Vec<Process>,
    tree: Measures,
    program_status: Option<u8>,
    doubts: Vec<String>,
) -> Verdict {
    let mut usage: Vec<Usage> = policy
        .suppressions
        .iter()
        .map(|entry| Usage {
            matched: Totals::default(),
            expired: entry.expired(policy.today),
        })
        .collect();
    let mut findings = sorted_findings(policy, &processes, &mut usage);
    let stale = match &policy.baseline {
        Some(baseline) => baseline.apply(&mut findings),
        None => Vec::new(),
    };
    let mut exceeded = spend_leak_budget(&policy.budgets, processes.len(), &mut findings);
    let mut doubts = doubts;
    exceeded.extend(check_measures(
        &policy.budgets,
        &processes,
        tree,
        &mut doubts,
    ));
    doubts.extend(
        processes
            .iter()
            .filter(|process| !process.skipped)
            .flat_map(|process| {
                let name = format!("process {} ({})", process.pid, process.program);
                process
                    .doubts
                    .iter()
                    .map(move |doubt| format!("{name}: {doubt}"))
            }),
    );

    if doubts.is_empty() && !processes.iter().any(Process::judged) {
        doubts.push("no process was judged".into());
    }

    let proved = findings
        .iter()
        .any(|finding| finding.standing == Standing::Fails && processes[finding.process].judged());
    let mut why = doubts;
    let outcome = match (proved, why.is_empty()) {
        (true, _) => Outcome::Leaks,
        (false, false) => Outcome::Inconclusive,
        (false, true) => {
            let failures = other_failures(policy, &usage, program_status);
            why.extend(
                exceeded
                    .iter()
                    .map(|over| over.words(&processes))
                    .chain(failures),
            );
            if why.is_empty() {
                Outcome::Clean
            } else {
                Outcome::Failed
            }
        }
    };
    let mut verdict = Verdict {
        outcome,
        why,
        program_status,
        findings,
        processes,
        usage,
        stale,
        exceeded,
    };
    if outcome == Outcome::Leaks {
        let Totals { bytes, blocks } = verdict.failing();
        verdict.why.insert(
            0,
            format!(
                "{} in {} fail the check",
                some(bytes, "byte"),
                some(blocks, "block")
            ),
        );
        let over = verdict
            .exceeded
            .iter()
            .map(|over| over.words(&verdict.processes));
        verdict.why.extend(over.collect::<Vec<_>>());
    }
    verdict
}

/// What fails a check beside leaks and budgets.
fn other_failures(policy: &Policy, usage: &[Usage], program_status: Option<u8>) -> Vec<String> {
    let unused = usage
        .iter()
        .filter(|usage| usage.matched.blocks == 0)
        .count();
    let unused = (policy.fail_on_unused && unused > 0)
        .then(|| format!("suppressions that matched nothing: {unused}"));
    let failed = program_status
        .filter(|status| *status != 0)
        .map(|status| format!("the program failed with status {status}"));
    unused.into_iter().chain(failed).collect()
}

/// One finding for each leak, with its standing before baseline and budgets.
fn sorted_findings(policy: &Policy, processes: &[Process], usage: &mut [Usage]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, process) in processes
        .iter()
        .enumerate()
        .filter(|(_, process)| !process.skipped)
    {
        for leak in &process.leaks {
            let pool = pool_of(leak);
            let standing = first_standing(policy, leak, pool, usage);
            findings.push(Finding {
                fingerprint: Fingerprint::new(leak.kind, &leak.frames),
                leak: leak.clone(),
                process: index,
                pool,
                standing,
                grown_from: None,
            });
        }
    }
    findings.sort_by(|a, b| {
        (a.leak.kind, b.leak.bytes, a.process).cmp(&(b.leak.kind, a.leak.bytes, b.process))
    });
    findings
}

fn first_standing(
    policy: &Policy,
    leak: &Leak,
    pool: Option<&str>,
    usage: &mut [Usage],
) -> Standing {
    if leak.inherited {
        return Standing::Inherited;
    }
    let entries = policy.suppressions.iter().zip(usage).enumerate();
    let mut live = entries.filter(|(_, (_, usage))| !usage.expired);
    if let Some((index, (_, usage))) = live.find(|(_, (entry, _))| entry.matches(leak)) {
        usage.matched.add(leak);
        return Standing::Suppressed(index);
    }
    if !policy.fail_on.contains(leak.kind) || policy.budgets_only {
        return Standing::Allowed;
    }
    if pool.is_some() {
        return Standing::Pool;
    }
    Standing::Fails
}

/// Lets failing leaks pass that fit in the leak budget of their scope, the tree or their process.
fn spend_leak_budget(
    budgets: &Budgets,
    processes: usize,
    findings: &mut [Finding],
) -> Vec<Exceeded> {
    if !budgets.limit_leaks() {
        return Vec::new();
    }
    let scopes: Vec<Option<usize>> = if budgets.per_process {
        (0..processes).map(Some).collect()
    } else {
        vec![None]
    };
    let mut exceeded = Vec::new();
    for scope in scopes {
        let inside = |finding: &Finding| scope.is_none_or(|process| finding.process == process);
        let (bytes, blocks) = leaked(findings.iter().filter(|finding| inside(finding)));
        let over = budgets.leaks_over(bytes, blocks);
        if over.is_empty() {
            findings
                .iter_mut()
                .filter(|finding| inside(finding) && finding.standing == Standing::Fails)
                .for_each(|finding| finding.standing = Standing::Budgeted);
        }
        exceeded.extend(over.into_iter().map(|(budget, value, limit)| Exceeded {
            budget,
            value,
            limit,
            process: scope,
        }));
    }
    exceeded
}

/// Holds what was counted against its limits; what a log did not count becomes a doubt.
fn check_measures(
    budgets: &Budgets,
    processes: &[Process],
    tree: Measures,
    doubts: &mut Vec<String>,
) -> Vec<Exceeded> {
    let mut exceeded = Vec::new();
    for (budget, limit) in budgets.measured() {
        let scopes: Vec<(Option<usize>, Measures)> = if budgets.per_process {
            let judged = processes
                .iter()
                .enumerate()
                .filter(|(_, process)| !process.skipped);
            judged
                .map(|(index, process)| (Some(index), process.measures))
                .collect()
        } else {
            vec![(None, tree)]
        };
        for (process, measures) in scopes {
            match budget.of(&measures) {
                Some(value) if value > limit => {
                    exceeded.push(Exceeded {
                        budget,
                        value,
                        limit,
                        process,
                    });
                }
                Some(_) => {}
                None => doubts.push(format!(
                    "the budget of {} can't be judged: a log holds no events (record with \
                     MEMSPY_MODE=full)",
                    budget.name()
                )),
            }
        }
    }
    exceeded
}

impl Exceeded {
    /// The clause for a report: what is over which limit, where.
    pub fn words(&self, processes: &[Process]) -> String {
        let Exceeded {
            budget,
            value,
            limit,
            process,
        } = self;
        let place = match process.and_then(|index| processes.get(index)) {
            Some(process) => format!(" in process {} ({})", process.pid, process.program),
            None => String::new(),
        };
        format!(
            "over budget{place}: {} {}, allowed {}",
            count(*value),
            budget.name(),
            count(*limit)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::suppression::parse;
    use super::super::{Ending, Frame};
    use super::*;

    fn leak(kind: Kind, function: &str, bytes: u64) -> Leak {
        let frames = vec![Frame {
            function: Some(function.into()),
            module: Some("/opt/app".into()),
            ..Frame::default()
        }];
        Leak {
            kind,
            blocks: 1,
            bytes,
            frames,
            cut: false,
            inherited: false,
        }
    }

    fn process(leaks: Vec<Leak>) -> Process {
        Process {
            pid: 7,
            parent: None,
            program: "app".into(),
            log: "memspy.app.7.jsonl".into(),
            ending: Ending::Exit("exit".into()),
            skipped: false,
            doubts: Vec::new(),
            leaks,
            measures: Measures::default(),
        }
    }

    fn policy() -> Policy {
        Policy {
            fail_on: KindSet::LOST,
            suppressions: Vec::new(),
            fail_on_unused: false,
            baseline: None,
            budgets: Budgets::default(),
            budgets_only: false,
            today: Date::from_unix_seconds(1_798_761_600),
        }
    }

    fn verdict(policy: &Policy, processes: Vec<Process>) -> Verdict {
        judge(policy, processes, Measures::default(), Some(0), Vec::new())
    }

    #[test]
    fn reachable_blocks_are_listed_and_do_not_fail() {
        let found = verdict(
            &policy(),
            vec![process(vec![leak(Kind::Reachable, "f", 8)])],
        );
        assert_eq!(found.outcome, Outcome::Clean);
        assert_eq!(
            found.total(Kind::Reachable),
            Totals {
                bytes: 8,
                blocks: 1
            }
        );
        let mut strict = policy();
        strict.fail_on = KindSet::ALL;
        let found = verdict(&strict, found.processes);
        assert_eq!(found.outcome, Outcome::Leaks);
    }

    #[test]
    fn a_proved_leak_outranks_an_unjudged_process_and_a_doubtful_one_does_not() {
        let mut doubtful = process(vec![leak(Kind::Definite, "f", 8)]);
        doubtful.doubts.push("killed".into());
        assert_eq!(
            verdict(&policy(), vec![doubtful.clone()]).outcome,
            Outcome::Inconclusive
        );
        let proved = process(vec![leak(Kind::Definite, "g", 8)]);
        let found = verdict(&policy(), vec![doubtful, proved]);
        assert_eq!(found.outcome, Outcome::Leaks);
        assert!(
            found.why.iter().any(|why| why.contains("killed")),
            "{:?}",
            found.why
        );
    }

    #[test]
    fn inherited_blocks_never_fail_and_are_counted_apart() {
        let mut theirs = leak(Kind::Definite, "f", 8);
        theirs.inherited = true;
        let found = verdict(&policy(), vec![process(vec![theirs])]);
        assert_eq!(found.outcome, Outcome::Clean);
        assert_eq!(found.total(Kind::Definite), Totals::default());
        assert_eq!(
            found.inherited(),
            Totals {
                bytes: 8,
                blocks: 1
            }
        );
    }

    #[test]
    fn a_skipped_process_neither_fails_nor_raises_doubt_but_alone_it_proves_nothing() {
        let mut skipped = process(vec![leak(Kind::Definite, "f", 8)]);
        skipped.skipped = true;
        skipped.doubts.push("killed".into());
        let found = verdict(&policy(), vec![process(Vec::new()), skipped.clone()]);
        assert_eq!((found.outcome, found.findings.len()), (Outcome::Clean, 0));
        assert_eq!(
            verdict(&policy(), vec![skipped]).outcome,
            Outcome::Inconclusive
        );
    }

    #[test]
    fn suppressed_blocks_leave_the_counts_of_their_kind() {
        let mut policy = policy();
        policy.suppressions = parse("s", "leak:^f$\nleak:nothing\n").unwrap();
        let leaks = vec![leak(Kind::Definite, "f", 8), leak(Kind::Definite, "g", 16)];
        let found = verdict(&policy, vec![process(leaks)]);
        assert_eq!(
            found.total(Kind::Definite),
            Totals {
                bytes: 16,
                blocks: 1
            }
        );
        assert_eq!(
            found.suppressed(),
            Totals {
                bytes: 8,
                blocks: 1
            }
        );
        assert_eq!(found.usage[0].matched.blocks, 1);
        assert_eq!(found.usage[1].matched.blocks, 0);
    }

    #[test]
    fn an_unused_suppression_fails_only_when_asked_and_an_expired_one_matches_nothing() {
        let mut policy = policy();
        policy.suppressions = parse("s", "# expires: 2026-12-31\nleak:^f$\n").unwrap();
        let processes = vec![process(vec![leak(Kind::Definite, "f", 8)])];
        let found = verdict(&policy, processes);
        assert_eq!(found.outcome, Outcome::Leaks);
        assert!(found.usage[0].expired);
        assert_eq!(
            verdict(&policy, vec![process(Vec::new())]).outcome,
            Outcome::Clean
        );
        policy.fail_on_unused = true;
        assert_eq!(
            verdict(&policy, vec![process(Vec::new())]).outcome,
            Outcome::Failed
        );
    }

    #[test]
    fn the_programs_own_failure_is_no_leak_and_not_clean() {
        let found = judge(
            &policy(),
            vec![process(Vec::new())],
            Measures::default(),
            Some(3),
            Vec::new(),
        );
        assert_eq!(found.outcome, Outcome::Failed);
        assert_eq!(found.why, ["the program failed with status 3"]);
    }

    #[test]
    fn leaks_within_the_budget_pass_for_the_tree_or_for_each_process() {
        let two = || {
            vec![
                process(vec![leak(Kind::Definite, "f", 60)]),
                process(vec![leak(Kind::Definite, "f", 60)]),
            ]
        };
        let mut policy = policy();
        policy.budgets.leaked_bytes = Some(100);
        let found = verdict(&policy, two());
        assert_eq!(found.outcome, Outcome::Leaks);
        assert_eq!(found.exceeded[0].value, 120);
        policy.budgets.per_process = true;
        assert_eq!(verdict(&policy, two()).outcome, Outcome::Clean);
        policy.budgets.leaked_blocks = Some(0);
        assert_eq!(verdict(&policy, two()).outcome, Outcome::Leaks);
    }

    #[test]
    fn a_measured_budget_fails_over_its_limit_and_is_in_doubt_without_events() {
        let mut policy = policy();
        policy.budgets.peak_bytes = Some(100);
        let tree = |peak| Measures {
            peak_bytes: peak,
            ..Measures::default()
        };
        let outcome = |peak| {
            judge(
                &policy,
                vec![process(Vec::new())],
                tree(peak),
                Some(0),
                Vec::new(),
            )
            .outcome
        };
        assert_eq!(outcome(Some(100)), Outcome::Clean);
        assert_eq!(outcome(Some(101)), Outcome::Failed);
        assert_eq!(outcome(None), Outcome::Inconclusive);
    }

    #[test]
    fn findings_stand_worst_kind_first_then_most_bytes() {
        let leaks = vec![
            leak(Kind::Possible, "a", 900),
            leak(Kind::Definite, "b", 1),
            leak(Kind::Definite, "c", 5),
        ];
        let found = verdict(&policy(), vec![process(leaks)]);
        let order: Vec<u64> = found.findings.iter().map(|f| f.leak.bytes).collect();
        assert_eq!(order, [5, 1, 900]);
    }
}
