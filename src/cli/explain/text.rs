//! The story for people.

use std::fmt::Write as _;

use memspy_analysis::space::{Account, Cause, Chapter};

use super::{Args, Told, limit, prose};
use crate::amount::{bytes, count, ranges};
use crate::callers::Callers;
use crate::one_log::time;

/// Columns of a line of prose.
const WIDTH: usize = 100;

/// The report.
pub(super) fn text(title: &str, args: &Args, told: &Told, callers: &Callers) -> String {
    let story = &told.story;
    let mut out = String::new();
    let calls: u64 = story.chapters.iter().map(|chapter| chapter.times).sum();
    let calls = calls + story.left_out;
    let noun = if calls == 1 {
        "kernel call"
    } else {
        "kernel calls"
    };
    line(
        &mut out,
        format_args!("{title}: {} {noun} for memory", count(calls)),
    );
    let most = limit(args.top);
    for (number, chapter) in story.chapters.iter().take(most).enumerate() {
        one(&mut out, number + 1, chapter, callers, limit(args.depth));
    }
    let more: u64 = story
        .chapters
        .iter()
        .skip(most)
        .map(|chapter| chapter.times)
        .sum();
    if more + story.left_out > 0 {
        let hint = if more > 0 { " (--top 0 shows all)" } else { "" };
        line(
            &mut out,
            format_args!("\n\u{2026} and {} more{hint}", count(more + story.left_out)),
        );
    }
    end(&mut out, told, callers);
    for account in told.view.space.accounts.iter().skip(1) {
        unseen(&mut out, account);
    }
    out
}

fn line(out: &mut String, text: std::fmt::Arguments) {
    // Writing to a String can't fail.
    let _ = writeln!(out, "{text}");
}

fn one(out: &mut String, number: usize, chapter: &Chapter, callers: &Callers, depth: usize) {
    let thread = match chapter.thread {
        0 | 1 => String::new(),
        thread => format!(", thread {thread}"),
    };
    let inside = match (&chapter.asked, chapter.via) {
        (Some(asked), _) => format!(", inside {}", prose::asked(asked)),
        (None, Some(via)) => format!(", inside {via}"),
        (None, None) => String::new(),
    };
    line(
        out,
        format_args!(
            "\n{number}. {}{thread}: {}{inside}",
            time(chapter.t),
            prose::call(chapter)
        ),
    );
    if chapter.times > 1 {
        let change = chapter.bytes.unsigned_abs();
        let way = if chapter.bytes < 0 { "less" } else { "more" };
        line(
            out,
            format_args!(
                "   {} such calls until {}, {} {way} in all",
                count(chapter.times),
                time(chapter.until),
                bytes(change)
            ),
        );
    }
    wrap(out, &prose::why(chapter));
    if let Some(caller) = callers.line(chapter.stack, depth) {
        line(out, format_args!("   asked by {caller}"));
    }
}

/// Prose in lines of at most [`WIDTH`] columns, indented.
fn wrap(out: &mut String, text: &str) {
    let mut row = String::from("  ");
    for word in text.split_whitespace() {
        if row.chars().count() + 1 + word.chars().count() > WIDTH {
            line(out, format_args!("{row}"));
            row = String::from("  ");
        }
        row.push(' ');
        row.push_str(word);
    }
    line(out, format_args!("{row}"));
}

/// What was left at the end, and why it was not given back.
fn end(out: &mut String, told: &Told, callers: &Callers) {
    let heap = &told.view.picture.heap;
    if heap.held() == 0 {
        return;
    }
    let trim = told.story.trim_threshold();
    let mut text = format!(
        "At the end the heap segment holds {}, up to {} of it free at the top. ",
        bytes(heap.held()),
        bytes(heap.top())
    );
    if heap.top() >= trim {
        text.push_str(
            "That may be more than the trim threshold, but malloc looks only when a free makes a free chunk of 64 KiB or \
             more, and small blocks stay in the threads' block caches.",
        );
    } else {
        let _ = write!(
            text,
            "free gives the top back only when more than {} (the trim threshold) is free there.",
            bytes(trim)
        );
    }
    if let Some(highest) = heap.highest {
        let caller = callers
            .line(highest.block.stack, 4)
            .map_or_else(String::new, |caller| format!(", asked by {caller}"));
        let _ = write!(
            text,
            " Nothing below its highest live block can be given back at all: {:#x}, {}{caller}.",
            highest.address,
            bytes(highest.block.size)
        );
    }
    text.push_str(" When the process ends the kernel takes back everything.");
    line(out, format_args!(""));
    wrap(out, &text);
}

/// What changed without a call that can be seen.
fn unseen(out: &mut String, account: &Account) {
    let mut causes = account.by_cause();
    causes.retain(|(cause, ..)| *cause != Cause::Memspy);
    if causes.is_empty() {
        return;
    }
    line(
        out,
        format_args!(
            "\nFound by the snapshot `{}` ({}), made by libc, the loader or the kernel without a call that memspy sees:",
            memspy_analysis::printable(account.when.as_bytes()),
            time(account.t)
        ),
    );
    for (cause, number, size) in causes {
        line(
            out,
            format_args!(
                "   {}: {} in {}",
                cause.words(),
                bytes(size),
                ranges(number as u64)
            ),
        );
    }
}
