//! Markdown for a job summary or a comment: a table of the failing leaks, stacks folded away.
//!
//! Names are written as HTML character references wherever a character could mean something in
//! Markdown or HTML, so that no name can open a link, an image, a mention or a tag.

use memspy_analysis::verdict::Finding;

use super::Report;
use super::amount::Amount;
use crate::terminal::clean;

/// Rows of the table. GitHub cuts a summary at 1 MiB.
const MOST_ROWS: usize = 50;

pub(super) fn write(report: &Report) -> String {
    let verdict = report.verdict;
    let mut out = format!("### memspy check: {}\n\n", verdict.outcome);
    out.push_str(&format!("{}\n\n", plain(&report.verdict_line())));
    let failing: Vec<&Finding> = verdict.failures().collect();
    if !failing.is_empty() {
        out.push_str("| kind | amount | allocated by | process |\n|---|---|---|---|\n");
    }
    for finding in failing.iter().take(MOST_ROWS) {
        let (leak, process) = (&finding.leak, report.process(finding));
        let amount = Amount::of(leak.bytes, leak.blocks, leak.kind);
        let (origin, program) = (code(&report.origin(finding)), code(&process.program));
        out.push_str(&format!(
            "| {} | {amount} | {origin} | {program} |\n",
            leak.kind
        ));
    }
    if failing.len() > MOST_ROWS {
        out.push_str(&format!("\n… and {} more.\n", failing.len() - MOST_ROWS));
    }
    for finding in failing.iter().take(MOST_ROWS) {
        out.push_str(&folded_stack(report, finding));
    }
    let reasons = verdict.why.iter().chain(report.notes);
    let reasons: Vec<String> = reasons.map(|why| format!("- {}\n", plain(why))).collect();
    if !reasons.is_empty() {
        out.push_str(&format!("\n{}", reasons.concat()));
    }
    out
}

fn folded_stack(report: &Report, finding: &Finding) -> String {
    let summary = format!("{}, {}", report.headline(finding), report.origin(finding));
    let stack = report
        .stack_lines(finding)
        .iter()
        .map(|line| plain(line))
        .collect::<Vec<_>>();
    format!(
        "\n<details><summary>{}</summary>\n\n<pre>{}</pre>\n\n</details>\n",
        plain(&summary),
        stack.join("<br>")
    )
}

fn code(text: &str) -> String {
    format!("<code>{}</code>", plain(text))
}

/// Text without any meaning to Markdown or HTML.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in clean(text).chars() {
        match c {
            c if !c.is_ascii() || c.is_ascii_alphanumeric() || " ,;()?'/.".contains(c) => {
                out.push(c)
            }
            c => out.push_str(&format!("&#{};", u32::from(c))),
        }
    }
    out
}
