//! What a log must hold, given what the program told: every call that had returned, once; of calls under way at most one
//! line; nothing else; and memspy's own reader must say of it what is true.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::path::Path;

use memspy_analysis::log::Log;
use memspy_analysis::summary::Summary;
use serde_json::Value;

use super::target::{Entry, Who};
use crate::oracle::number;
use crate::remains::{Events, assert_contiguous, remains};
use crate::support::address;

/// Reads a log that may still be written, or has been left, and holds it against what was told. Answers its events.
///
/// # Panics
/// When a call that had returned is missing, something is there that was not called, or a reader is wrong.
#[track_caller]
pub(crate) fn judge(log: &Path, told: &[Entry]) -> Events {
    let events = remains(log);
    assert_contiguous(&events);
    compare(told, &times(&events));
    assert_stacks_defined(&events);
    let summary = complete(log);
    let counted: usize = events.values().map(BTreeMap::len).sum();
    assert_eq!(summary.events, counted as u64, "both readers count alike");
    events
}

/// What memspy's own reader says of the log, which must be that it is complete.
#[track_caller]
fn complete(log: &Path) -> Summary {
    let summary =
        Summary::read(&Log::open(log).expect("memspy opens it")).expect("memspy reads it");
    assert!(summary.completeness.complete, "{:?}", summary.completeness);
    summary
}

/// Each number of a stack, of a caller or of a module that a line uses is defined in the log.
#[track_caller]
fn assert_stacks_defined(events: &Events) {
    let lines = || events.values().flat_map(BTreeMap::values);
    let defined = |op: &str| -> HashSet<u64> {
        let defining = lines().filter(|line| line["op"] == op);
        defining.map(|line| number(line, "id")).collect()
    };
    let (stacks, modules) = (defined("stack"), defined("module"));
    let known = |line: &Value, key: &str, set: &HashSet<u64>| {
        let used = line.get(key).and_then(Value::as_u64);
        assert!(
            used.is_none_or(|id| id == 0 || set.contains(&id)),
            "{key} is not defined: {line}"
        );
    };
    for line in lines() {
        known(line, "stack", &stacks);
        if line["op"] == "stack" {
            known(line, "parent", &stacks);
            known(line, "module", &modules);
        }
    }
}

/// The same for a forked child: what its parent's log holds up to the fork is its own past.
#[track_caller]
pub(crate) fn judge_child(log: &Path, parent: &Path, told: &[Entry]) {
    let events = remains(log);
    assert_contiguous(&events);
    let mut both = times(&events);
    let text = fs::read(log).unwrap();
    let start = text.split(|byte| *byte == b'\n').next().unwrap();
    let start: Value = serde_json::from_slice(start).expect("the first line is there");
    let cuts = start["forked_from"]["cut"].as_array().expect("a cut");
    let past = remains(parent);
    let mut before = Events::new();
    for cut in cuts {
        let (thread, n) = (cut[0].as_u64().unwrap(), cut[1].as_u64().unwrap());
        let stream = past.get(&thread).into_iter().flatten();
        let kept = stream.filter(|(number, _)| **number <= n);
        before.insert(thread, kept.map(|(n, line)| (*n, line.clone())).collect());
    }
    both.extend(times(&before));
    assert_stacks_defined(&events);
    compare_childs(told, &both);
    complete(log);
}

/// What a line is about: its op, and its size or address.
type Call = (String, u64);

/// The calls in a log by time, without those that memspy inferred.
fn times(events: &Events) -> Vec<(u64, Call)> {
    let lines = events.values().flat_map(BTreeMap::values);
    let mut calls: Vec<_> = lines
        .filter(|line| line.get("via").is_none())
        .filter_map(|line| {
            let op = line["op"].as_str()?;
            let key = match op {
                "free" => address(&line["ptr"]),
                "munmap" => address(&line["addr"]),
                "malloc" | "realloc" | "calloc" | "posix_memalign" | "mmap" => number(line, "size"),
                _ => return None,
            };
            Some((number(line, "t"), (op.to_string(), key)))
        })
        .collect();
    calls.sort_by_key(|(t, _)| *t);
    calls
}

/// Each call that had returned is there once, one under way at most once, in their order.
#[track_caller]
fn compare(told: &[Entry], logged: &[(u64, Call)]) {
    let parents: Vec<Entry> = told
        .iter()
        .filter(|e| e.who != Who::Child)
        .cloned()
        .collect();
    let mut counts: HashMap<&Call, usize> = HashMap::new();
    for (_, call) in logged {
        *counts.entry(call).or_default() += 1;
    }
    let mut ours: HashMap<Call, (usize, usize)> = HashMap::new();
    for entry in told {
        let (done, begun) = ours.entry((entry.op.to_string(), entry.key)).or_default();
        if entry.who != Who::Child {
            *begun += 1;
            *done += usize::from(entry.done);
        }
    }
    for (call, (done, begun)) in ours {
        let found = counts.get(&call).copied().unwrap_or(0);
        assert!(
            (done..=begun).contains(&found),
            "{call:?} is {found} times in the log: {done} had returned of {begun}"
        );
    }
    in_order(&parents, logged);
}

/// The calls of the child are all there.
#[track_caller]
fn compare_childs(told: &[Entry], logged: &[(u64, Call)]) {
    let childs = told
        .iter()
        .filter(|entry| entry.who == Who::Child && entry.done);
    for entry in childs {
        let call = (entry.op.to_string(), entry.key);
        let found = logged.iter().filter(|(_, logged)| *logged == call).count();
        assert_eq!(found, 1, "{call:?} of the child");
    }
}

/// Each part's calls stand in the order in which they returned.
#[track_caller]
fn in_order(told: &[Entry], logged: &[(u64, Call)]) {
    let mut parts: BTreeMap<Who, Vec<Call>> = BTreeMap::new();
    for entry in told.iter().filter(|entry| entry.done) {
        let call = (entry.op.to_string(), entry.key);
        parts.entry(entry.who).or_default().push(call);
    }
    for (who, calls) in parts {
        let mut logged = logged.iter();
        for call in calls {
            assert!(
                logged.any(|(_, found)| *found == call),
                "{who:?}: {call:?} is not in its place"
            );
        }
    }
}
