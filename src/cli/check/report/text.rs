//! The report for people: each leak with its stack, what else matters, the verdict in one line.

use memspy_analysis::verdict::{Ending, Finding, Kind, Outcome, Standing};

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
    let listed: Vec<&Finding> = report
        .verdict
        .findings
        .iter()
        .filter(|finding| is_listed(report, finding))
        .collect();
    for finding in listed.iter().take(MOST_LEAKS) {
        out.push_str(&leak(report, finding));
    }
    if listed.len() > MOST_LEAKS {
        let more = listed.len() - MOST_LEAKS;
        out.push_str(&format!(
            "… and {more} more; --format json lists them all\n\n"
        ));
    }
    section(&mut out, "not judged", &not_judged(report));
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

fn leak(report: &Report, finding: &Finding) -> String {
    let process = report.process(finding);
    let (pid, program) = (process.pid, clean(&process.program));
    let mut out = format!("{}, process {pid} ({program})", report.headline(finding));
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

fn not_judged(report: &Report) -> Vec<String> {
    let verdict = report.verdict;
    let processes = verdict.processes.iter().filter(|process| !process.judged());
    let lines = processes.map(|process| {
        let why = if process.skipped {
            "left out by --skip".into()
        } else {
            clean(&process.doubts.join("; "))
        };
        format!(
            "process {} ({}): {why}",
            process.pid,
            clean(&process.program)
        )
    });
    lines.collect()
}

fn lost_at_exec(report: &Report) -> Vec<String> {
    let processes = report.verdict.processes.iter().enumerate();
    let lines = processes
        .filter(|(_, process)| process.ending == Ending::Exec)
        .filter_map(|(index, process)| {
            let mut totals = memspy_analysis::verdict::Totals::default();
            for finding in report
                .verdict
                .findings
                .iter()
                .filter(|f| f.process == index)
            {
                if finding.leak.kind != Kind::Mapping {
                    totals.bytes = totals.bytes.saturating_add(finding.leak.bytes);
                    totals.blocks = totals.blocks.saturating_add(finding.leak.blocks);
                }
            }
            let name = format!("process {} ({})", process.pid, clean(&process.program));
            (totals.blocks > 0).then(|| format!("{name}: {}", Amount::blocks(totals)))
        });
    lines.collect()
}

fn pools(report: &Report) -> Vec<String> {
    let pools = report.verdict.findings.iter().filter_map(|finding| {
        let (pool, leak) = (finding.pool?, &finding.leak);
        let amount = Amount::of(leak.bytes, leak.blocks, leak.kind);
        let process = report.process(finding);
        Some(format!(
            "{pool}: {amount}, process {} ({})",
            process.pid,
            clean(&process.program)
        ))
    });
    pools.collect()
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
