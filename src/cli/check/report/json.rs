//! The JSON document. Its keys are a contract: they are added to, never renamed.

use memspy_analysis::verdict::{Ending, Finding, Frame, Kind, Process, Standing, Totals};
use serde_json::{Value, json};

use super::Report;
use crate::terminal::visible;

/// The version of the document's shape.
const SCHEMA: u32 = 1;

pub(super) fn write(report: &Report) -> String {
    let verdict = report.verdict;
    let kinds = [
        Kind::Definite,
        Kind::Indirect,
        Kind::Possible,
        Kind::Reachable,
    ];
    let by_kind = kinds.map(|kind| (kind.name().to_owned(), amount(verdict.total(kind))));
    let document = json!({
        "schema": SCHEMA,
        "verdict": verdict.outcome.to_string(),
        "why": verdict.why,
        "program_status": verdict.program_status,
        "exit_code": report.exit_code,
        "kinds": Value::Object(by_kind.into_iter().collect()),
        "mappings": amount(verdict.total(Kind::Mapping)),
        "suppressed": suppressed(report),
        "inherited": amount(verdict.inherited()),
        "leaks": verdict.findings.iter().map(|finding| leak(report, finding)).collect::<Vec<_>>(),
        "processes": verdict
            .processes
            .iter()
            .enumerate()
            .map(|(index, one)| process(report, index, one))
            .collect::<Vec<_>>(),
        "baseline": {"stale": stale(report)},
        "budgets_exceeded": exceeded(report),
        "notes": report.notes,
    });
    visible(&document.to_string()) + "\n"
}

fn amount(totals: Totals) -> Value {
    json!({"bytes": totals.bytes, "blocks": totals.blocks})
}

fn suppressed(report: &Report) -> Value {
    let totals = report.verdict.suppressed();
    let entries = report
        .suppressions
        .iter()
        .zip(&report.verdict.usage)
        .map(|(entry, usage)| {
            json!({
                "name": entry.name,
                "file": entry.file,
                "line": entry.line,
                "bytes": usage.matched.bytes,
                "blocks": usage.matched.blocks,
                "expires": entry.expires.map(|day| day.to_string()),
                "expired": usage.expired,
                "used": usage.matched.blocks > 0,
            })
        });
    json!({
        "bytes": totals.bytes,
        "blocks": totals.blocks,
        "entries": entries.collect::<Vec<_>>(),
    })
}

fn leak(report: &Report, finding: &Finding) -> Value {
    let (leak, process) = (&finding.leak, report.process(finding));
    let mut value = json!({
        "kind": leak.kind.name(),
        "bytes": leak.bytes,
        "blocks": leak.blocks,
        "pid": process.pid,
        "program": process.program,
        "standing": standing(finding.standing),
        "fingerprint": finding.fingerprint.to_string(),
        "inherited": leak.inherited,
        "live_at_exec": process.ending == Ending::Exec,
        "stack": leak.frames.iter().map(|one| frame(report, one)).collect::<Vec<_>>(),
        "stack_cut": leak.cut,
    });
    if let Some(pool) = finding.pool {
        value["pool"] = json!(pool);
    }
    if let Some((blocks, bytes)) = finding.grown_from {
        value["grown_from"] = json!({"bytes": bytes, "blocks": blocks});
    }
    if let Standing::Suppressed(index) = finding.standing {
        value["suppressed_by"] = json!(report.suppressions.get(index).map(|entry| &entry.name));
    }
    value
}

fn standing(standing: Standing) -> &'static str {
    match standing {
        Standing::Fails => "fails",
        Standing::Allowed => "allowed",
        Standing::Pool => "pool",
        Standing::Suppressed(_) => "suppressed",
        Standing::Known => "known",
        Standing::Budgeted => "budgeted",
        Standing::Inherited => "inherited",
    }
}

/// Only the keys that are known: a frame without a name has no `function`.
fn frame(report: &Report, frame: &Frame) -> Value {
    let file = frame.file.as_deref();
    let known = [
        ("function", frame.function.as_ref().map(|name| json!(name))),
        ("symbol", frame.symbol.as_ref().map(|name| json!(name))),
        ("module", frame.module.as_ref().map(|path| json!(path))),
        ("file", file.map(|path| json!(report.sources.shorten(path)))),
        ("line", frame.line.map(|line| json!(line))),
        ("inlined", frame.inlined.then_some(Value::Bool(true))),
        ("address", Some(json!(format!("{:#x}", frame.address)))),
    ];
    let keys = known
        .into_iter()
        .filter_map(|(key, value)| Some((key.to_owned(), value?)));
    Value::Object(keys.collect())
}

fn process(report: &Report, index: usize, process: &Process) -> Value {
    let own = report
        .verdict
        .findings
        .iter()
        .filter(|finding| finding.process == index);
    let failing = own
        .filter(|finding| finding.standing == Standing::Fails)
        .count();
    json!({
        "pid": process.pid,
        "ppid": process.parent,
        "program": process.program,
        "log": process.log,
        "judged": process.judged(),
        "skipped": process.skipped,
        "why": process.doubts,
        "end": match &process.ending {
            Ending::Exit(how) => Some(how.as_str()),
            Ending::Exec => Some("exec"),
            Ending::Unknown => None,
        },
        "failing_leaks": failing,
        "peak_bytes": process.measures.peak_bytes,
        "allocs": process.measures.allocs,
        "mmaps": process.measures.mmaps,
    })
}

fn stale(report: &Report) -> Vec<Value> {
    let stale = report.verdict.stale.iter().map(|(fingerprint, entry)| {
        json!({
            "fingerprint": fingerprint.to_string(),
            "kind": entry.kind.name(),
            "bytes": entry.bytes,
            "blocks": entry.blocks,
            "stack": entry.stack,
        })
    });
    stale.collect()
}

fn exceeded(report: &Report) -> Vec<Value> {
    let exceeded = report.verdict.exceeded.iter().map(|over| {
        let process = over
            .process
            .and_then(|index| report.verdict.processes.get(index));
        json!({
            "budget": over.budget.name(),
            "value": over.value,
            "limit": over.limit,
            "pid": process.map(|process| process.pid),
        })
    });
    exceeded.collect()
}
