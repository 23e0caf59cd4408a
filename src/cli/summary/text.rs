//! The summary of one log, for people: one screen, words and units.

use std::fmt::Write as _;

use memspy_analysis::complete::Ending;
use memspy_analysis::damage::Damage;
use memspy_analysis::event::Start;
use memspy_analysis::histogram::Histogram;
use memspy_analysis::printable;
use memspy_analysis::replay::Inheritance;
use memspy_analysis::summary::{Calls, Summary, ThreadAnswer, Totals};
use memspy_log::Op;

use super::kernel;
use crate::amount::{bytes, count};
use crate::colour::Colour;

/// How many size classes and threads are shown.
const MOST_CLASSES: usize = 20;
const MOST_THREADS: usize = 5;
/// The longest bar of the histogram.
const BAR: u64 = 24;
/// The longest command line that is shown, in characters.
const MOST_COMMAND: usize = 70;

/// The report on one log.
pub(super) fn one(summary: &Summary, colour: Colour) -> String {
    let mut out = String::new();
    let title = summary.process.as_ref().map_or_else(
        || format!("{} (its first line is missing)", path(summary)),
        |start| format!("{}  (pid {})", command(start), start.pid),
    );
    line(&mut out, &colour.bold(&title));
    line(
        &mut out,
        &format!("{}, {}", time(summary.duration_ns), state(summary, colour)),
    );
    remarks(&mut out, summary, colour);
    heading(&mut out, colour, "Calls", &["count", "bytes", "failed"]);
    calls(&mut out, &summary.totals, summary.heap.counts.free_null);
    blocks(&mut out, summary, colour);
    let inferred = summary.process.as_ref().is_none_or(|start| start.inference);
    came_from(&mut out, &summary.totals, inferred, colour);
    sizes(&mut out, &summary.totals.sizes, colour);
    threads(&mut out, &summary.threads, colour);
    out
}

fn line(out: &mut String, text: &str) {
    out.push_str(text.trim_end());
    out.push('\n');
}

/// A heading over a table whose columns are as [`row`] makes them.
fn heading(out: &mut String, colour: Colour, name: &str, columns: &[&str]) {
    let mut text = format!("{name:<22}");
    for column in columns {
        write!(text, "{column:>13}").expect("a String takes all");
    }
    out.push('\n');
    line(out, &colour.bold(text.trim_end()));
}

fn row(out: &mut String, name: &str, cells: &[String]) {
    let mut text = format!("  {name:<20}");
    for cell in cells {
        write!(text, "{cell:>13}").expect("a String takes all");
    }
    line(out, &text);
}

/// The program and its arguments, cut to a line.
pub(super) fn command(start: &Start) -> String {
    let words: Vec<_> = start.argv.iter().map(|word| printable(word)).collect();
    let text = match words.as_slice() {
        [] => printable(&start.exe),
        words => words.join(" "),
    };
    cut(text, MOST_COMMAND)
}

/// A text of at most `most` characters, with a sign where it goes on.
pub(super) fn cut(text: String, most: usize) -> String {
    if text.chars().count() <= most {
        return text;
    }
    text.chars().take(most - 1).chain(['…']).collect()
}

pub(super) fn path(summary: &Summary) -> String {
    printable(summary.log.as_os_str().as_encoded_bytes())
}

/// `1.234 s`: nanoseconds in the unit that leaves one to three digits before the point.
pub(super) fn time(ns: u64) -> String {
    let amount = ns as f64;
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => format!("{:.1} µs", amount / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} ms", amount / 1e6),
        _ => format!("{:.2} s", amount / 1e9),
    }
}

/// Whether the log is complete and how the image ended, in words.
pub(super) fn state(summary: &Summary, colour: Colour) -> String {
    let completeness = &summary.completeness;
    let ending = match &completeness.ending {
        Ending::Said(how) if how.starts_with("exec") || how == "fexecve" => {
            ", replaced by another program (exec)".into()
        }
        Ending::Said(how) if how == "recovered" => {
            ", recovered after the program was killed".into()
        }
        Ending::Said(how) => format!(", ended by {}", printable(how.as_bytes())),
        Ending::Killed => ", killed".into(),
        Ending::Running => ", still running".into(),
        Ending::Unknown => String::new(),
    };
    let events = format!("{} events", count(summary.events));
    if completeness.complete {
        return format!("{events}, {}{ending}", colour.green("complete"));
    }
    let why: Vec<_> = completeness
        .reasons
        .iter()
        .map(ToString::to_string)
        .collect();
    let word = colour.yellow("INCOMPLETE");
    format!("{events}, {word} ({}){ending}", why.join("; "))
}

/// What a reader must know before the numbers.
fn remarks(out: &mut String, summary: &Summary, colour: Colour) {
    let mut remarks = Vec::new();
    if summary.file_order {
        remarks.push("lines come in the order of the file, not of time".into());
    }
    if summary.events_from_tail > 0 {
        let how = match summary.completeness.ending {
            Ending::Running => "the process has not written them to the log yet",
            _ => "`memspy recover` puts them into the log",
        };
        remarks.push(format!(
            "{} of the events are in the tail file; {how}",
            count(summary.events_from_tail)
        ));
    }
    if let Some(start) = &summary.process
        && !start.inference
    {
        remarks.push(format!(
            "malloc is not glibc's ({}): kernel calls inside it are not known",
            printable(&start.allocator)
        ));
    }
    if let Inheritance::Missing { why, .. } = &summary.inheritance {
        remarks.push(format!("blocks from before the fork are not known: {why}"));
    }
    if let Inheritance::Read {
        complete: false, ..
    } = summary.inheritance
    {
        remarks.push(
            "the parent's log is incomplete: not all blocks from before the fork are known".into(),
        );
    }
    let odd = summary.heap.oddities;
    for (number, what) in [
        (odd.freed_twice, "blocks freed twice"),
        (
            odd.unknown_freed,
            "frees of blocks that the log does not know",
        ),
        (
            odd.allocated_over_live,
            "blocks at the address of a live one (its free was not seen)",
        ),
    ] {
        if number > 0 {
            remarks.push(format!("{} {what}", count(number)));
        }
    }
    remarks.extend(damage(&summary.damage));
    for remark in remarks {
        line(out, &colour.yellow(&format!("  note: {remark}")));
    }
}

fn damage(damage: &Damage) -> Vec<String> {
    let mut said = Vec::new();
    if damage.unknown_ops > 0 {
        let names: Vec<_> = damage.unknown_op_names.keys().map(String::as_str).collect();
        said.push(format!(
            "{} lines of kinds that this memspy does not know ({})",
            count(damage.unknown_ops),
            names.join(", ")
        ));
    }
    if damage.double_blocks > 0 {
        said.push(format!(
            "{} blocks stand twice and count once",
            count(damage.double_blocks)
        ));
    }
    if damage.stray_lines > 0 {
        said.push(format!(
            "{} lines outside any block",
            count(damage.stray_lines)
        ));
    }
    let broken = damage.bad_blocks + damage.bad_lines + damage.long_lines + damage.disorder;
    if let Some(first) = damage.examples.first().filter(|_| broken > 0) {
        said.push(format!("first damage: {first}"));
    }
    said
}

/// Calls by function.
/// A line for each function that was called; `null`: how often free got NULL.
pub(super) fn calls(out: &mut String, totals: &Totals, null: u64) {
    for (op, calls) in &totals.calls {
        let Calls {
            count: number,
            bytes: size,
            failures,
        } = *calls;
        let failed = if failures == 0 {
            String::new()
        } else {
            count(failures)
        };
        let size = match op {
            Op::Brk | Op::Sbrk => String::new(),
            _ => bytes(size),
        };
        row(out, op.name(), &[count(number), size, failed]);
        if *op == Op::Free && null > 0 {
            row(out, "  of them free(NULL)", &[count(null)]);
        }
    }
    if totals.calls.is_empty() {
        line(out, "  none");
    }
}

fn blocks(out: &mut String, summary: &Summary, colour: Colour) {
    let heap = &summary.heap;
    heading(out, colour, "Heap", &["blocks", "bytes"]);
    if heap.inherited.blocks > 0 {
        let level = heap.inherited;
        row(
            out,
            "from the parent",
            &[count(level.blocks), bytes(level.bytes)],
        );
    }
    let peak = heap.peak.level;
    let when = format!("  after {}", time(heap.peak.t));
    row(
        out,
        "in use at the peak",
        &[count(peak.blocks), bytes(peak.bytes), when],
    );
    row(
        out,
        "in use at the end",
        &[count(heap.end.blocks), bytes(heap.end.bytes)],
    );
    let (given, freed) = (heap.counts.allocated, heap.counts.freed);
    row(
        out,
        "given out in all",
        &[count(given.blocks), bytes(given.bytes)],
    );
    row(
        out,
        "given back in all",
        &[count(freed.blocks), bytes(freed.bytes)],
    );
}

/// Kernel calls, and why the largest mapping by malloc was made.
pub(super) fn came_from(out: &mut String, totals: &Totals, inferred: bool, colour: Colour) {
    out.push('\n');
    line(out, &colour.bold("Where the memory came from"));
    for kernel::Row {
        what,
        bytes,
        calls,
        by,
    } in kernel::rows(totals, inferred)
    {
        line(out, &format!("  {what:<20}{bytes:>13}   {calls:<14} {by}"));
    }
    if let Some(story) = kernel::story(totals).filter(|_| inferred) {
        for part in wrapped(&story, 92) {
            line(out, &colour.dim(&format!("    {part}")));
        }
    }
}

/// A text in lines of at most `width` characters, as far as its words allow.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let last = lines.last_mut().filter(|line| {
            line.is_empty() || line.chars().count() + 1 + word.chars().count() <= width
        });
        match last {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) => {
                line.push(' ');
                line.push_str(word);
            }
            None => lines.push(word.into()),
        }
    }
    lines
}

/// Blocks by size.
pub(super) fn sizes(out: &mut String, sizes: &Histogram, colour: Colour) {
    let classes: Vec<_> = sizes.classes().collect();
    if classes.is_empty() {
        return;
    }
    heading(out, colour, "Sizes", &["blocks", "bytes"]);
    // The classes with the most blocks, by size.
    let mut kept = classes.clone();
    kept.sort_by_key(|class| std::cmp::Reverse(class.blocks));
    kept.truncate(MOST_CLASSES);
    kept.sort_by_key(|class| class.from);
    let most = kept.iter().map(|class| class.blocks).max().unwrap_or(1);
    for class in &kept {
        let name = if class.to < 1024 {
            match class.from {
                from if from == class.to => format!("{from} B"),
                from => format!("{from} to {} B", class.to),
            }
        } else {
            format!(
                "{} to <{}",
                short(class.from),
                short(class.to.saturating_add(1))
            )
        };
        let bar = "#"
            .repeat((class.blocks as u128 * u128::from(BAR)).div_ceil(u128::from(most)) as usize);
        let cells = [
            count(class.blocks),
            bytes(class.bytes),
            format!("   {bar:<24}"),
        ];
        row(out, &name, &cells);
    }
    let (left, rest) = classes
        .iter()
        .filter(|class| !kept.contains(class))
        .fold((0, 0u64), |(blocks, size), class| {
            (blocks + class.blocks, size.saturating_add(class.bytes))
        });
    if left > 0 {
        row(out, "other sizes", &[count(left), bytes(rest)]);
    }
}

/// A power of two without a point: `64 KiB`.
fn short(size: u64) -> String {
    bytes(size).replace(".0 ", " ")
}

fn threads(out: &mut String, threads: &[ThreadAnswer], colour: Colour) {
    // What threads share is memspy's own, unless there were too many threads for its buffers.
    let threads: Vec<_> = threads
        .iter()
        .filter(|thread| thread.thread > 0 || thread.allocated.blocks > 0)
        .collect();
    if threads.len() < 2 {
        return;
    }
    heading(
        out,
        colour,
        &format!("{} threads", count(threads.len() as u64)),
        &["events", "blocks", "bytes"],
    );
    let mut most = threads.clone();
    most.sort_by_key(|thread| std::cmp::Reverse(thread.events));
    for thread in most.iter().take(MOST_THREADS) {
        let name = match (thread.thread, thread.name.as_str()) {
            (0, _) => "without a buffer".into(),
            (_, "") => format!("tid {}", thread.tid),
            (_, name) => format!("{name} ({})", thread.tid),
        };
        let given = thread.allocated;
        row(
            out,
            &name,
            &[
                count(thread.events),
                count(given.blocks),
                bytes(given.bytes),
            ],
        );
    }
    let rest = threads.len().saturating_sub(MOST_THREADS);
    if rest > 0 {
        line(out, &format!("  and {} more", count(rest as u64)));
    }
}
