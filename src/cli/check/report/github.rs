//! GitHub Actions workflow commands: an annotation on the source line of each failing leak.
//!
//! GitHub shows at most ten error annotations of a step, so the largest leaks get nine and the
//! tenth says how many more there are. A name must never end the line or begin a command of its
//! own: `%`, CR and LF are encoded everywhere, `:` and `,` in properties too.

use memspy_analysis::verdict::{Finding, Outcome};

use super::Report;
use super::amount::count;
use crate::terminal::clean;

/// Error annotations that GitHub shows for one step.
const MOST_ERRORS: usize = 10;

pub(super) fn write(report: &Report) -> String {
    let verdict = report.verdict;
    let mut failing: Vec<&Finding> = verdict.failures().collect();
    failing.sort_by(|a, b| (a.leak.kind, b.leak.bytes).cmp(&(b.leak.kind, a.leak.bytes)));
    // The verdict itself is one error where no leak speaks for it.
    let others = match verdict.outcome {
        Outcome::Clean | Outcome::Leaks => 0,
        Outcome::Inconclusive | Outcome::Failed => 1,
    };
    let room = MOST_ERRORS - others;
    let shown = if failing.len() > room {
        room - 1
    } else {
        failing.len()
    };
    let mut out = String::new();
    for finding in failing.iter().take(shown) {
        out.push_str(&annotation(report, finding));
    }
    if failing.len() > shown {
        let more = count((failing.len() - shown) as u64, "more leak");
        let line = report.verdict_line();
        out.push_str(&command("error", &[("title", &more)], &line));
    }
    match verdict.outcome {
        Outcome::Clean => out.push_str(&command(
            "notice",
            &[("title", "memspy")],
            &report.verdict_line(),
        )),
        Outcome::Leaks => {}
        Outcome::Inconclusive | Outcome::Failed => {
            let text = format!("{}\n{}", report.verdict_line(), verdict.why.join("\n"));
            out.push_str(&command("error", &[("title", "memspy")], &text));
        }
    }
    out
}

fn annotation(report: &Report, finding: &Finding) -> String {
    let title = report.headline(finding);
    let process = report.process(finding);
    let stack = report.stack_lines(finding).join("\n");
    let origin = report.origin(finding);
    let text = format!(
        "allocated by {origin} in process {} ({})\n{stack}",
        process.pid, process.program
    );
    // Only a file of the repository can carry an annotation: GitHub drops the others.
    let place = finding.culprit().and_then(|frame| {
        let file = report.sources.relative(frame.file.as_deref()?)?;
        Some((file, frame.line?.to_string()))
    });
    match &place {
        Some((file, line)) => command(
            "error",
            &[("file", file), ("line", line), ("title", &title)],
            &text,
        ),
        None => command("error", &[("title", &title)], &text),
    }
}

/// `::error file=a.c,line=3::text`
fn command(name: &str, properties: &[(&str, &str)], text: &str) -> String {
    let properties = properties
        .iter()
        .map(|(key, value)| format!("{key}={}", property(value)));
    let properties = properties.collect::<Vec<_>>().join(",");
    format!("::{name} {properties}::{}\n", data(text))
}

/// The text after the last `::`. Line breaks of our own are kept, as `%0A`.
fn data(text: &str) -> String {
    let lines = text.split('\n').map(clean).collect::<Vec<_>>().join("\n");
    lines
        .replace('%', "%25")
        .replace('\r', "%0D")
        .replace('\n', "%0A")
}

fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}
