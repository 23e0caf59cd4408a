//! The report for people: each leak with its stack, what else matters, the verdict in one line.

use std::collections::{BTreeMap, HashMap};

use memspy_analysis::verdict::{Ending, Finding, Kind, Outcome, Standing, Totals};

use super::Report;
use super::amount::{Amount, count};
use crate::terminal::clean;

/// Leaks that are listed one by one; the others only count. A CI log with ten thousand stacks is
/// read by nobody, and `--format json` has them all.
const MOST_LEAKS: usize = 100;
/// Entries of the shorter lists.
const MOST_LINES: usize = 20;

pub(super) fn write(report: &Report) -> String {
    let mut out = String::new();
    let listed = alike(report);
    for leaks in listed.iter().take(MOST_LEAKS) {
        out.push_str(&leak(report, leaks));
    }
    if listed.len() > MOST_LEAKS {
        let more = listed.len() - MOST_LEAKS;
        out.push_str(&format!(
            "… and {more} more; --format json lists them all\n\n"
        ));
    }
    section(&mut out, "reasons", &reasons(report));
    section(&mut out, "left out by --skip", &left_out(report));
    section(
        &mut out,
        "live when the process became another program",
        &lost_at_exec(report),
    );
    section(&mut out, "runtime pools (not leaks)", &pools(report));
    section(&mut out, "suppressions not used", &report.unused());
    section(&mut out, "baseline entries that are stale", &report.stale());
    section(
        &mut out,
        "notes",
        &report
            .notes
            .iter()
            .map(|note| clean(note))
            .collect::<Vec<_>>(),
    );
    out.push_str(&totals(report));
    out.push_str(&verdict_line(report));
    out.push('\n');
    out
}

/// The leaks to list; those that differ in nothing but their process stand together, as the ones
/// of a program that ran many times.
fn alike<'a>(report: &'a Report) -> Vec<Vec<&'a Finding>> {
    let mut groups: Vec<Vec<&Finding>> = Vec::new();
    let mut places = HashMap::new();
    for finding in report
        .verdict
        .findings
        .iter()
        .filter(|finding| is_listed(report, finding))
    {
        let process = report.process(finding);
        let exec = process.ending == Ending::Exec;
        let leak = &finding.leak;
        let standing = report.standing(finding);
        let key = (
            finding.fingerprint,
            leak.blocks,
            leak.bytes,
            exec,
            &process.program,
            standing,
        );
        let place = *places.entry(key).or_insert(groups.len());
        match groups.get_mut(place) {
            Some(group) if group[0].leak.frames == leak.frames => group.push(finding),
            _ => groups.push(vec![finding]),
        }
    }
    groups
}

/// Failing leaks always; the others by their kind, as far as `--show` asks for it.
fn is_listed(report: &Report, finding: &Finding) -> bool {
    match finding.standing {
        Standing::Fails => true,
        Standing::Pool | Standing::Suppressed(_) | Standing::Inherited => false,
        Standing::Allowed | Standing::Known | Standing::Budgeted => {
            report.show.contains(finding.leak.kind)
        }
    }
}

/// One leak and its stack; `leaks` are the same in several processes, at least one.
fn leak(report: &Report, leaks: &[&Finding]) -> String {
    let finding = leaks[0];
    let process = report.process(finding);
    let program = clean(&process.program);
    let mut out = report.headline(finding);
    match leaks.len() {
        1 => out.push_str(&format!(", process {} ({program})", process.pid)),
        many => out.push_str(&format!(", in each of {many} processes ({program})")),
    }
    if process.ending == Ending::Exec {
        out.push_str(", live at exec");
    }
    if let Some(standing) = report.standing(finding) {
        out.push_str(&format!(" [{standing}]"));
    }
    out.push('\n');
    for line in report.stack_lines(finding) {
        out.push_str(&format!("    {line}\n"));
    }
    out.push('\n');
    out
}

fn section(out: &mut String, title: &str, lines: &[String]) {
    if lines.is_empty() {
        return;
    }
    out.push_str(&format!("{title}:\n"));
    for line in lines.iter().take(MOST_LINES) {
        out.push_str(&format!("    {line}\n"));
    }
    if lines.len() > MOST_LINES {
        out.push_str(&format!("    … and {} more\n", lines.len() - MOST_LINES));
    }
    out.push('\n');
}

/// All reasons, when the verdict line can't hold them.
fn reasons(report: &Report) -> Vec<String> {
    let why = &report.verdict.why;
    if why.len() > 1 {
        why.iter().map(|why| clean(why)).collect()
    } else {
        Vec::new()
    }
}

fn left_out(report: &Report) -> Vec<String> {
    let skipped = report
        .verdict
        .processes
        .iter()
        .filter(|process| process.skipped);
    let names =
        skipped.map(|process| format!("process {} ({})", process.pid, clean(&process.program)));
    names.collect()
}

/// What a process still had when it became another program, without what its parent gave it.
fn lost_at_exec(report: &Report) -> Vec<String> {
    let verdict = report.verdict;
    let mut lines = Vec::new();
    for (index, process) in verdict.processes.iter().enumerate() {
        let own = |finding: &&Finding| {
            finding.process == index
                && finding.standing != Standing::Inherited
                && finding.leak.kind != Kind::Mapping
        };
        let mut totals = Totals::default();
        verdict
            .findings
            .iter()
            .filter(own)
            .for_each(|finding| totals.add(&finding.leak));
        if process.ending == Ending::Exec && totals.blocks > 0 {
            let name = format!("process {} ({})", process.pid, clean(&process.program));
            lines.push(format!("{name}: {}", Amount::blocks(totals)));
        }
    }
    lines
}

/// One line for each pool, over all processes.
fn pools(report: &Report) -> Vec<String> {
    let mut pools = BTreeMap::<&str, Totals>::new();
    for finding in &report.verdict.findings {
        if let Some(pool) = finding.pool {
            pools.entry(pool).or_default().add(&finding.leak);
        }
    }
    let lines = pools
        .into_iter()
        .map(|(pool, totals)| format!("{pool}: {}", Amount::blocks(totals)));
    lines.collect()
}

/// One line for each kind that was found.
fn totals(report: &Report) -> String {
    let verdict = report.verdict;
    let mut out = String::new();
    for kind in Kind::ALL {
        let totals = verdict.total(kind);
        if totals.blocks > 0 {
            let amount = Amount::of(totals.bytes, totals.blocks, kind);
            out.push_str(&format!("{:>10}: {amount}\n", kind.name()));
        }
    }
    for (name, totals) in [
        ("suppressed", verdict.suppressed()),
        ("inherited", verdict.inherited()),
    ] {
        if totals.blocks > 0 {
            out.push_str(&format!("{name:>10}: {}\n", Amount::blocks(totals)));
        }
    }
    out
}

/// `memspy check: leaks: 96 bytes in 3 blocks fail the check; 2 of 3 processes judged (exit 23)`
pub(super) fn verdict_line(report: &Report) -> String {
    let verdict = report.verdict;
    let outcome = match (verdict.outcome, verdict.why.as_slice()) {
        (Outcome::Clean, _) => "clean: nothing was found that fails the check".into(),
        (outcome, [first]) => format!("{outcome}: {}", clean(first)),
        (outcome, [first, rest @ ..]) => {
            format!(
                "{outcome}: {}, and {} more",
                clean(first),
                count(rest.len() as u64, "reason")
            )
        }
        (outcome, []) => outcome.to_string(),
    };
    let judged = verdict
        .processes
        .iter()
        .filter(|process| process.judged())
        .count();
    let of = verdict.processes.len() as u64;
    let judged = if judged as u64 == of {
        format!("{} judged", count(of, "process"))
    } else {
        format!("{judged} of {} judged", count(of, "process"))
    };
    format!(
        "memspy check: {outcome}; {judged} (exit {})",
        report.exit_code
    )
}
