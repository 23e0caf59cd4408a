//! `memspy check`: the gate. Runs a program with leak checks, or reads logs of one that ran, and
//! ends with a code that says what was found.
//!
//! The contract, which the rest of this directory only fills in:
//!
//! | code | meaning |
//! |---|---|
//! | the program's | the program itself failed |
//! | 23 | the program did well, the verdict is bad (`--leak-exit-code`) |
//! | 125 | memspy could not judge |
//! | 126, 127 | the program can't be executed, is not there |
//! | 0 | judged, and nothing was found |

mod default_suppressions;
mod names;
mod options;
mod output;
mod report;
mod trial;

use std::time::{SystemTime, UNIX_EPOCH};

use memspy_analysis::verdict::suppression::{Date, generate};
use memspy_analysis::verdict::{Baseline, Outcome, Policy, Verdict, judge, lost_children};

pub(crate) use names::frames;
pub(crate) use options::Args;
use output::write_file;
use report::{Report, Sources};
use trial::{Status, Trial};

use crate::exit;
use crate::terminal::say;
use crate::untraced;

/// Judges and reports.
///
/// # Errors
/// When a file of the user's can't be read or written, or the program can't be started.
pub(crate) fn run(args: Args) -> anyhow::Result<u8> {
    // Bad files are told before the program has run for an hour.
    let mut policy = args.policy(today())?;
    let sources = Sources::new(args.source_root()?);
    let trial = Trial::hold(&args)?;
    let Trial {
        evidence,
        status,
        mut doubts,
        mut notes,
    } = trial;

    notes.extend(args.window.left_out(&evidence)?);
    policy.budgets_only = args.asks_only_for_budgets(&evidence);
    let mut processes = evidence;
    names::fill_in(&mut processes, &args.names, &mut notes);
    default_suppressions::apply(&processes, &mut policy, &mut notes);
    for one in &mut processes {
        let skipped = args.skips(&one.process.program) || args.skips(&one.called);
        one.process.skipped = skipped || one.lacks.is_some();
        if one.events_only && !policy.budgets_only {
            one.process.doubts.push(
                "it was recorded without leak checks (MEMSPY_MODE=events): memspy leaks lists \
                 its blocks, nothing tells their kinds"
                    .into(),
            );
        }
    }
    if let Some(Status::Killed(signal)) = status {
        doubts.push(format!("the program was killed by signal {signal}"));
    }
    let tree = trial::tree_measures(&processes);
    // Of logs that were made elsewhere the files here say nothing.
    let reason = |path: &[u8]| status.and_then(|_| untraced::reason(path));
    let mut lost = lost_children(&processes, reason);
    for process in &mut lost {
        process.skipped = args.skips(&process.program);
    }
    let known = processes.into_iter().map(|one| one.process);
    let processes = known.chain(lost).collect();
    let verdict = judge(&policy, processes, tree, status.map(Status::code), doubts);
    let code = exit_code(&verdict, status, args.leak_exit_code);

    write_baseline(&args, &verdict, &mut notes)?;
    let report = Report {
        verdict: &verdict,
        suppressions: &policy.suppressions,
        show: args.shown_kinds(),
        against_baseline: policy.baseline.is_some(),
        sources: &sources,
        notes: &notes,
        exit_code: code,
    };
    output::deliver(&report, &args)?;
    write_suppressions(&args, &verdict)?;
    Ok(code)
}

/// The code to end with.
fn exit_code(verdict: &Verdict, status: Option<Status>, leak_exit_code: u8) -> u8 {
    match (status, verdict.outcome) {
        (Some(Status::Exited(code)), _) if code != 0 => code,
        (_, Outcome::Clean) => exit::OK,
        (_, Outcome::Leaks | Outcome::Failed) => leak_exit_code,
        (_, Outcome::Inconclusive) => exit::NOT_JUDGED,
    }
}

/// A baseline that holds half the truth would make the other half look new: only what was judged
/// as a whole is written.
fn write_baseline(args: &Args, verdict: &Verdict, notes: &mut Vec<String>) -> anyhow::Result<()> {
    let Some(path) = &args.write_baseline else {
        return Ok(());
    };
    let whole = verdict
        .processes
        .iter()
        .all(|process| process.judged() || process.skipped);
    if !whole || verdict.outcome == Outcome::Inconclusive {
        notes.push("no baseline was written: not everything could be judged".into());
        return Ok(());
    }
    write_file(path, &Baseline::of(&verdict.findings).to_text())
}

/// Writes an entry for each failing leak, each call path once.
fn write_suppressions(args: &Args, verdict: &Verdict) -> anyhow::Result<()> {
    let Some(destination) = &args.gen_suppressions else {
        return Ok(());
    };
    let syntax = args.suppression_syntax.into();
    let mut entries: Vec<String> = verdict
        .failures()
        .filter_map(|finding| generate(finding, syntax))
        .collect();
    entries.sort();
    entries.dedup();
    if entries.is_empty() && verdict.failures().next().is_some() {
        say("no suppression can be made: the leaks have no call stacks");
    }
    write_file(destination, &entries.concat())
}

fn today() -> Date {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    Date::from_unix_seconds(since.map_or(0, |since| since.as_secs()))
}

impl Args {
    /// The policy that the options state, with every file that they name read.
    fn policy(&self, today: Date) -> anyhow::Result<Policy> {
        Ok(Policy {
            fail_on: self.fail_on,
            suppressions: self.read_suppressions()?,
            fail_on_unused: self.fail_on_unused,
            baseline: self.read_baseline()?,
            budgets: self.budgets(),
            budgets_only: false,
            today,
        })
    }
}
