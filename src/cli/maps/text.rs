//! The annotated map for people.

use std::fmt::Write as _;

use memspy_analysis::printable;
use memspy_analysis::space::{Account, Fragments, Kind, Perms, Picture, Row, View};

use super::{Args, in_memory, moment_words};
use crate::amount::{bytes, count, ranges};
use crate::callers::Callers;
use crate::one_log::time;

/// Functions of a stack that one line shows.
const DEPTH: usize = 4;
/// Smaller gaps between ranges are not worth a line.
const GAP: u64 = 1 << 30;

/// The report.
pub(super) fn text(title: &str, args: &Args, view: &View, callers: &Callers) -> String {
    let picture = &view.picture;
    let mut out = String::new();
    let moment = moment_words(args.at, picture.t);
    line(
        &mut out,
        format_args!("{title}: the address space {moment}"),
    );
    head(&mut out, picture);
    rows(&mut out, picture, callers);
    totals(&mut out, picture);
    if args.explain {
        explain(&mut out, picture);
    }
    heap(&mut out, &picture.heap, callers);
    accounts(&mut out, &view.space.accounts);
    out
}

fn line(out: &mut String, text: std::fmt::Arguments) {
    let text = text.to_string();
    out.push_str(text.trim_end());
    out.push('\n');
}

fn head(out: &mut String, picture: &Picture) {
    let total = picture.total();
    let snapshot = match &picture.snapshot {
        Some((when, t)) => {
            let when = printable(when.as_bytes());
            format!(
                "{} in memory (snapshot `{when}`, {})",
                in_memory(&total),
                time(*t)
            )
        }
        None => "no snapshot before it".to_string(),
    };
    line(
        out,
        format_args!(
            "{}, {} of address space, {snapshot}",
            ranges(total.ranges),
            bytes(total.size)
        ),
    );
    line(
        out,
        format_args!(
            "Private (copy-on-write: a write stays in this process) unless it says shared.\n"
        ),
    );
}

fn rows(out: &mut String, picture: &Picture, callers: &Callers) {
    let widths = picture.rows.iter().map(|row| addresses(row).len());
    let width = widths.max().unwrap_or(0).max("addresses".len());
    line(
        out,
        format_args!(
            "{:<width$} {:>10} {:>10} {:>10}  {:<17} what it is",
            "addresses", "size", "in memory", "handed out", "may"
        ),
    );
    let mut end = None;
    for row in &picture.rows {
        if let Some(end) = end
            && row.from - end >= GAP
        {
            line(
                out,
                format_args!(
                    "{:>width$} {:>10}",
                    "\u{2026} nothing \u{2026}",
                    bytes(row.from - end)
                ),
            );
        }
        end = Some(row.to);
        one(out, row, width, picture, callers);
    }
}

fn addresses(row: &Row) -> String {
    format!("{:x}-{:x}", row.from, row.to)
}

/// One range; its addresses take `width` letters.
fn one(out: &mut String, row: &Row, width: usize, picture: &Picture, callers: &Callers) {
    let addresses = addresses(row);
    let resident = row
        .resident
        .map_or_else(|| "?".to_string(), |resident| bytes(resident.all));
    let handed = match row.handed_out.blocks {
        0 => String::new(),
        _ => bytes(row.handed_out.bytes),
    };
    line(
        out,
        format_args!(
            "{addresses:<width$} {:>10} {resident:>10} {handed:>10}  {:<17} {}",
            bytes(row.to - row.from),
            may(row.perms),
            what(row, picture, callers)
        ),
    );
}

/// Permissions in words, short.
fn may(perms: Perms) -> String {
    let mut words = Vec::new();
    for (has, word) in [
        (perms.read, "read"),
        (perms.write, "write"),
        (perms.exec, "execute"),
        (perms.shared, "shared"),
    ] {
        if has {
            words.push(word);
        }
    }
    if words.is_empty() {
        return "nothing".to_string();
    }
    words.join(" ")
}

fn what(row: &Row, picture: &Picture, callers: &Callers) -> String {
    let mut what = row.kind.words().to_string();
    let named = row.path.first() == Some(&b'/');
    if named {
        let _ = write!(what, ": {}", printable(&row.path));
        if matches!(row.kind, Kind::FileMapping | Kind::SharedMapping) {
            let _ = write!(what, " from byte {}", count(row.offset));
        }
    }
    match (row.kind, row.thread, picture.stack_limit) {
        (Kind::MainStack, _, Some(limit)) => {
            let _ = write!(what, ", may grow to {}", bytes(limit));
        }
        (Kind::MainStack, _, None) => what.push_str(", may grow without limit"),
        (Kind::ThreadStack | Kind::Guard, Some(thread), _) if thread != 0 => {
            let _ = write!(what, " {thread}");
        }
        _ => {}
    }
    if let Some(call) = row.call {
        if let Some(via) = call.via {
            let _ = write!(what, ", inside {via}");
        }
        if let Some(caller) = callers.line(call.stack, DEPTH) {
            let _ = write!(what, ", for {caller}");
        }
    }
    what
}

fn totals(out: &mut String, picture: &Picture) {
    line(
        out,
        format_args!(
            "\n{:<32} {:>6} {:>10} {:>10} {:>10}",
            "totals", "ranges", "size", "in memory", "handed out"
        ),
    );
    for (kind, total) in picture.totals() {
        line(
            out,
            format_args!(
                "{:<32} {:>6} {:>10} {:>10} {:>10}",
                kind.words(),
                count(total.ranges),
                bytes(total.size),
                in_memory(&total),
                match total.handed_out.blocks {
                    0 => String::new(),
                    _ => bytes(total.handed_out.bytes),
                }
            ),
        );
    }
    if picture.lost.blocks > 0 {
        line(
            out,
            format_args!(
                "{} live blocks ({}) lie in no known range.",
                count(picture.lost.blocks),
                bytes(picture.lost.bytes)
            ),
        );
    }
}

fn explain(out: &mut String, picture: &Picture) {
    line(out, format_args!(""));
    for kind in picture.totals().keys() {
        line(out, format_args!("{}: {}", kind.words(), kind.sentence()));
    }
}

fn heap(out: &mut String, heap: &Fragments, callers: &Callers) {
    if heap.held() == 0 {
        return;
    }
    line(
        out,
        format_args!(
            "\nThe heap segment holds {}: {} asked for in {} live blocks, {} with headers and rounding, {} free \
             between blocks, {} free at the top.",
            bytes(heap.held()),
            bytes(heap.asked),
            count(heap.blocks),
            bytes(heap.chunks),
            bytes(heap.holes()),
            bytes(heap.top())
        ),
    );
    if let Some(highest) = heap.highest {
        let caller = callers
            .line(highest.block.stack, DEPTH)
            .map_or_else(String::new, |caller| format!(", for {caller}"));
        line(
            out,
            format_args!(
                "The break can't go below its highest live block: {:#x}, {} by {} at {}{caller}.",
                highest.address,
                bytes(highest.block.size),
                highest.block.op.name(),
                time(highest.block.t)
            ),
        );
    }
}

fn accounts(out: &mut String, accounts: &[Account]) {
    for account in accounts.iter().skip(1) {
        let when = printable(account.when.as_bytes());
        let unexplained = account.unexplained().count();
        line(
            out,
            format_args!(
                "\nSnapshot `{when}` ({}) against the recorded calls: {} not as expected, {unexplained} unexplained.",
                time(account.t),
                ranges(account.differences.len() as u64),
            ),
        );
        for (cause, number, size) in account.by_cause() {
            line(
                out,
                format_args!("  {number:>4} {:>10}  {}", bytes(size), cause.words()),
            );
        }
        for difference in account.unexplained() {
            let side = match (difference.expected, difference.found) {
                (true, true) => "differs from the calls",
                (true, false) => "is gone without a call",
                _ => "is there without a call",
            };
            line(
                out,
                format_args!("  {:x}-{:x} {side}", difference.from, difference.to),
            );
        }
    }
}
