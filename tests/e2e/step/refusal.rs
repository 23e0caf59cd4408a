//! The shim's system calls fail, one at a time or from one on: the host does not notice, and the log holds every call or
//! says that it does not.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use memspy_analysis::log::Log;
use memspy_analysis::summary::Summary;

use super::refuser::{Refusal, Run, errors, run_refusing};
use super::{Sample, Tally};
use crate::oracle::calls;
use crate::remains::remains;
use crate::support::{TestDir, compile, preloaded, repository};

const SHIM: &str = "/libmemspy.so";

const NOTHING: Refusal = Refusal {
    first: 0,
    persistent: false,
    error: 0,
};

/// A program under the shim, and how to run it.
#[derive(Clone, Copy, Debug)]
enum Host {
    /// cat of a file, everything on.
    Cat,
    /// Some threads and a child, many flushes.
    Threads,
    /// Leaks looked for at exit.
    Leaks,
    /// Its exec fails.
    Exec,
}

impl Host {
    fn command(self, logs: &TestDir) -> Command {
        let program = |name: &str| preloaded(compile(name), logs);
        match self {
            Self::Cat => {
                let mut cat = preloaded("cat", logs);
                cat.arg(repository().join("README.md"));
                cat
            }
            Self::Threads => {
                let mut threads = program("refused.c");
                threads.arg("3").env("MEMSPY_BUFFER", "64K");
                threads
            }
            Self::Leaks => {
                let mut leaks = program("leak_list.c");
                leaks.env("MEMSPY_MODE", "full");
                leaks
            }
            Self::Exec => {
                let mut exec = program("process_kinds.c");
                exec.arg("exec_fails");
                exec
            }
        }
    }
}

/// How often each call is in each log that says it is complete, by the log's program and place in the tree.
fn counted(directory: &Path) -> Vec<(bool, BTreeMap<String, usize>)> {
    let mut paths: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "jsonl"))
        .collect();
    paths.sort();
    let mut logs = Vec::new();
    for path in paths {
        let Ok(log) = Log::open(&path) else { continue };
        let summary = Summary::read(&log).expect("memspy reads what it opened");
        if log.start().is_none() {
            assert!(!summary.completeness.complete, "{}", path.display());
            continue;
        }
        let events = remains(&path);
        let lines: Vec<_> = events
            .into_values()
            .flat_map(BTreeMap::into_values)
            .collect();
        let mut counts = BTreeMap::new();
        for call in calls(&lines) {
            let size = call.get("size").map_or(String::new(), ToString::to_string);
            let key = format!("{} {size}", call["op"].as_str().unwrap());
            *counts.entry(key).or_default() += 1;
        }
        logs.push((summary.completeness.complete, counts));
    }
    logs
}

/// A run in which nothing fails: what the others are held against.
struct Baseline {
    run: Run,
    counts: Vec<BTreeMap<String, usize>>,
}

fn baseline(host: Host) -> Baseline {
    let logs = TestDir::new();
    let run = run_refusing(&mut host.command(&logs), SHIM, NOTHING);
    assert!(
        !run.calls.is_empty(),
        "{host:?} makes no system call of the shim's"
    );
    let counts = counted(logs.path());
    assert!(counts.iter().all(|(complete, _)| *complete), "{host:?}");
    let counts = counts.into_iter().map(|(_, counts)| counts).collect();
    Baseline { run, counts }
}

/// What the shim itself may say on standard error, taken away.
fn without_words_of_memspy(stderr: &[u8]) -> Vec<u8> {
    let lines = stderr.split_inclusive(|byte| *byte == b'\n');
    lines
        .filter(|line| !line.starts_with(b"memspy: "))
        .flatten()
        .copied()
        .collect()
}

/// The one known way in which a log hides a loss (docs/torture.md): it is closed before an exec, as one that works leaves
/// no other chance; the exec fails; and from then on each call of the shim's fails, too, so that nothing can take the
/// end back. Such a log holds the calls before the exec, and nothing else.
fn ends_as_if_exec_had_worked(
    host: Host,
    counts: &BTreeMap<String, usize>,
    refusal: Refusal,
) -> bool {
    let before: BTreeMap<_, _> = [("free ", 100), ("malloc 20001", 100)].into();
    let counts = counts.iter().map(|(call, count)| (&call[..], *count));
    matches!(host, Host::Exec) && refusal.persistent && counts.eq(before)
}

/// Answers whether the loss was the known one.
fn refuse(host: Host, baseline: &Baseline, refusal: Refusal) -> bool {
    let logs = TestDir::new();
    let run = run_refusing(&mut host.command(&logs), SHIM, refusal);
    let plain = &baseline.run;
    let told = format!("{host:?} {refusal:?}: {:?}", run.refused);
    assert!(!run.hung, "{told}: it hung");
    assert_eq!(run.status, plain.status, "{told}");
    assert!(
        run.stdout == plain.stdout,
        "{told}: standard output differs"
    );
    assert_eq!(
        String::from_utf8_lossy(&without_words_of_memspy(&run.stderr)),
        String::from_utf8_lossy(&plain.stderr),
        "{told}"
    );
    let mut known = false;
    for (complete, counts) in counted(logs.path()) {
        if complete && ends_as_if_exec_had_worked(host, &counts, refusal) {
            known = true;
            continue;
        }
        assert!(
            !complete || baseline.counts.contains(&counts),
            "{told}: called complete: {counts:?}\nnot one of {:?}",
            baseline.counts
        );
    }
    known
}

/// Refuses every `every`-th of all that can be refused.
fn refusals(host: Host, every: usize) -> Tally {
    let baseline = baseline(host);
    let mut tally = Tally::default();
    let mut number = 0;
    for (at, call) in baseline.run.calls.iter().enumerate() {
        for error in 0..errors(*call).len() {
            for persistent in [false, true] {
                number += 1;
                if number % every == every / 2 {
                    let refusal = Refusal {
                        first: at + 1,
                        persistent,
                        error,
                    };
                    let mut known = false;
                    tally.attempt(|| known = refuse(host, &baseline, refusal));
                    tally.known += usize::from(known);
                }
            }
        }
    }
    tally
}

#[test]
fn a_system_call_that_fails_changes_no_host() {
    for host in [Host::Cat, Host::Threads, Host::Leaks, Host::Exec] {
        refusals(host, 389).all_well();
    }
}

#[test]
#[ignore = "minutes: scripts/torture syscalls"]
fn every_system_call_refused() {
    let mut tally = Tally::default();
    for host in [Host::Cat, Host::Threads, Host::Leaks, Host::Exec] {
        tally.add(refusals(host, Sample::thinned()));
    }
    tally.row("system calls failed: hosts changed, or logs that hide a loss");
}
