//! The summary of several logs, for people: the tree of processes and what they did together.

use memspy_analysis::summary::{Summary, Totals};
use memspy_analysis::tree::{Origin, Tree};

use super::text;
use crate::amount::{bytes, count};
use crate::colour::Colour;

/// How many images are shown.
const MOST_IMAGES: usize = 40;
/// The width of the column with the programs.
const COMMAND: usize = 44;

/// The report on several logs.
pub(super) fn several(summaries: &[Summary], colour: Colour) -> String {
    let starts: Vec<_> = summaries
        .iter()
        .map(|summary| summary.process.as_ref())
        .collect();
    let tree = Tree::of(&starts);
    let execs = tree
        .origins
        .iter()
        .filter(|origin| matches!(origin, Origin::Exec(_)))
        .count();
    let processes = summaries.len() - execs;
    let mut out = String::new();
    let title = match execs {
        0 => format!("{} processes", count(processes as u64)),
        _ => format!(
            "{} processes, {} programs (exec starts another in the same process)",
            count(processes as u64),
            count(summaries.len() as u64)
        ),
    };
    out.push_str(&colour.bold(&title));
    out.push('\n');
    incomplete(&mut out, summaries, colour);
    out.push('\n');
    let columns = format!(
        "{:>8} {:<COMMAND$} {:>9} {:>10} {:>10} {:>10}",
        "pid", "program", "time", "events", "peak", "at end"
    );
    out.push_str(&colour.bold(&columns));
    out.push('\n');
    for (image, depth) in tree.order.iter().take(MOST_IMAGES) {
        out.push_str(&image_line(
            &summaries[*image],
            *depth,
            tree.origins[*image],
        ));
    }
    let rest = summaries.len().saturating_sub(MOST_IMAGES);
    if rest > 0 {
        out.push_str(&format!("         and {} more\n", count(rest as u64)));
    }
    let mut totals = Totals::default();
    for summary in summaries {
        totals.merge(&summary.totals);
    }
    out.push_str(&format!(
        "\n{}\n",
        colour.bold(&format!(
            "{:<22}{:>13}{:>13}{:>13}",
            "Calls of all", "count", "bytes", "failed"
        ))
    ));
    let null = summaries.iter().map(|one| one.heap.counts.free_null);
    text::calls(&mut out, &totals, null.sum());
    let inferred = starts.iter().flatten().all(|start| start.inference);
    text::came_from(&mut out, &totals, inferred, colour);
    text::sizes(&mut out, &totals.sizes, colour);
    out
}

/// Which logs are not complete, before any number.
fn incomplete(out: &mut String, summaries: &[Summary], colour: Colour) {
    let bad: Vec<_> = summaries
        .iter()
        .filter(|summary| !summary.completeness.complete)
        .collect();
    if bad.is_empty() {
        out.push_str(&format!("all logs are {}\n", colour.green("complete")));
        return;
    }
    for summary in bad.iter().take(5) {
        let pid = summary.process.as_ref().map_or(0, |start| start.pid);
        let state = text::state(summary, colour);
        out.push_str(&format!("  {} (pid {pid}): {state}\n", text::path(summary)));
    }
    if bad.len() > 5 {
        out.push_str(&format!(
            "  and {} more incomplete logs\n",
            count(bad.len() as u64 - 5)
        ));
    }
}

fn image_line(summary: &Summary, depth: usize, origin: Origin) -> String {
    let start = summary.process.as_ref();
    let pid = start.map_or_else(|| "?".into(), |start| start.pid.to_string());
    let name = start.map_or_else(|| text::path(summary), text::command);
    let indent = "  ".repeat(depth.min(10));
    let arrow = match origin {
        Origin::Exec(_) => "= ",
        _ => "",
    };
    let name = text::cut(format!("{indent}{arrow}{name}"), COMMAND);
    format!(
        "{pid:>8} {name:<COMMAND$} {:>9} {:>10} {:>10} {:>10}\n",
        text::time(summary.duration_ns),
        count(summary.events),
        bytes(summary.heap.peak.level.bytes),
        bytes(summary.heap.end.bytes)
    )
}
