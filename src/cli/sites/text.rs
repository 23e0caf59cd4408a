//! The answer of `memspy sites` for people.

use std::fmt::Write as _;

use memspy_analysis::site::{Figures, Kind};

use super::report::{Entry, Line, Report};
use crate::amount::{bytes, count, percent};
use crate::site_kind::Words;

/// The whole report.
pub(crate) fn text(report: &Report) -> String {
    let mut out = String::new();
    head(&mut out, report);
    for (rank, entry) in report.sites.iter().enumerate() {
        site(&mut out, report, rank + 1, entry);
    }
    if report.left_out > 0 {
        line(
            &mut out,
            format_args!(
                "\n{} more not shown; --top 0 shows all",
                count(report.left_out as u64)
            ),
        );
    }
    if !report.notes.is_empty() {
        line(&mut out, format_args!("\nNames are missing or poor:"));
        for note in &report.notes {
            line(&mut out, format_args!("  {note}"));
        }
    }
    out
}

/// A line of the report.
fn line(out: &mut String, text: std::fmt::Arguments) {
    // Writing to a String can't fail.
    let _ = writeln!(out, "{text}");
}

fn head(out: &mut String, report: &Report) {
    let total = &report.total;
    let words = Words::of(report.kind);
    let state = if report.complete { "" } else { ", INCOMPLETE" };
    line(out, format_args!("{}{state}", report.programs));
    line(
        out,
        format_args!(
            "{} in {}, {} at the peak, {} in {} {}",
            bytes(total.bytes),
            words.calls(total.blocks),
            bytes(total.peak_bytes),
            bytes(total.live_bytes),
            words.pieces(total.live_blocks),
            words.live,
        ),
    );
    let mapped = report.program_mapped;
    if report.kind == Kind::Heap && mapped.blocks > 0 {
        let calls = Words::of(Kind::Mappings).calls(mapped.blocks);
        line(
            out,
            format_args!(
                "The program also mapped {} itself, in {calls}: see --kind mappings",
                bytes(mapped.bytes)
            ),
        );
    }
    if !report.stacks && !report.sites.is_empty() {
        line(
            out,
            format_args!(
                "There are no call stacks in the log: by call and size (record with MEMSPY_STACKS=full to see code)"
            ),
        );
    }
    if report.sites.is_empty() {
        line(
            out,
            format_args!("No site has any of what --sort asks for."),
        );
    }
}

fn site(out: &mut String, report: &Report, rank: usize, entry: &Entry) {
    let it = &entry.figures;
    let title = match (&entry.name, &entry.call) {
        (Some(name), _) => format!("  {name}"),
        (None, Some(call)) => format!("  {}({})", call.op, call.size),
        (None, None) => String::new(),
    };
    line(
        out,
        format_args!(
            "\n#{rank:<3} {:>10} {:>6}  in {}{title}",
            bytes(it.bytes),
            percent(it.bytes, report.total.bytes),
            Words::of_taken(entry.taken).calls(it.blocks),
        ),
    );
    line(out, format_args!("     {}", details(report, entry)));
    for frame in entry.stack.iter().flatten() {
        function(out, frame);
    }
    if entry.deeper > 0 {
        line(
            out,
            format_args!(
                "       … {} more; --depth 0 shows all",
                count(entry.deeper as u64)
            ),
        );
    }
    if let Some(why) = entry.cut.map(cut) {
        line(out, format_args!("       (the stack goes on: {why})"));
    }
}

fn details(report: &Report, entry: &Entry) -> String {
    let it: &Figures = &entry.figures;
    let words = Words::of_taken(entry.taken);
    let mut details = vec![format!(
        "at the peak {} ({})",
        bytes(it.peak_bytes),
        percent(it.peak_bytes, report.total.peak_bytes)
    )];
    if it.live_blocks > 0 {
        details.push(format!(
            "{} {} in {}",
            words.live,
            bytes(it.live_bytes),
            words.pieces(it.live_blocks)
        ));
    }
    if it.short_lived > 0 {
        details.push(format!(
            "short-lived {}",
            percent(it.short_lived, it.blocks)
        ));
    }
    if it.failures > 0 {
        details.push(format!("{} failed", count(it.failures)));
    }
    if let Some(sites) = entry.sites {
        details.push(format!(
            "{} {}",
            count(sites),
            if sites == 1 { "site" } else { "sites" }
        ));
    }
    details.join(", ")
}

fn function(out: &mut String, frame: &Line) {
    let name = frame.function.as_deref().unwrap_or(&frame.address);
    let file = frame.file.as_deref().map(|file| match frame.line {
        Some(number) => format!("{file}:{number}"),
        None => file.to_string(),
    });
    let module = frame
        .module
        .as_deref()
        .filter(|_| frame.function.is_some())
        .map(|module| format!("[{module}]"));
    let place = file
        .or(module)
        .map(|place| format!("  {place}"))
        .unwrap_or_default();
    let inlined = if frame.inlined { " (inlined)" } else { "" };
    line(out, format_args!("       {name}{inlined}{place}"));
    if let Some(source) = &frame.source {
        line(out, format_args!("           | {source}"));
    }
}

fn cut(why: &str) -> &'static str {
    match why {
        "depth" => "it is deeper than MEMSPY_STACK_DEPTH",
        "bounds" => "it left the thread's stack",
        "unwind" => "there is no unwind data",
        _ => "its callers are not in the log",
    }
}
