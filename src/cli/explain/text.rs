//! The story for people.

use std::collections::HashMap;
use std::fmt::Write as _;

use memspy_analysis::space::{Account, Cause, Chapter};

use super::group::Group;
use super::{Told, prose};
use crate::amount::{bytes, count, ranges};
use crate::callers::Callers;
use crate::one_log::time;

/// Columns of a line of prose.
const WIDTH: usize = 100;

/// Calls of a group that are shown, the first ones.
const EXAMPLES: usize = 3;

/// What the report is made of.
pub(super) struct Text<'a> {
    /// The program and its process.
    pub(super) title: &'a str,
    /// What is told.
    pub(super) told: &'a Told,
    /// The calls that are shown.
    pub(super) groups: &'a [Group<'a>],
    /// How many calls are not, of those that are kept.
    pub(super) more: u64,
    /// The names of the first stack of each group.
    pub(super) callers: &'a Callers,
    /// The most functions of a stack.
    pub(super) depth: usize,
}

impl Text<'_> {
    /// The report.
    pub(super) fn report(&self) -> String {
        let mut out = String::new();
        let left_out = self.told.story.left_out;
        let shown: u64 = self.groups.iter().map(Group::times).sum();
        let calls = shown + self.more + left_out;
        let noun = if calls == 1 {
            "kernel call"
        } else {
            "kernel calls"
        };
        line(
            &mut out,
            format_args!("{}: {} {noun} for memory", self.title, count(calls)),
        );
        // Where each rule was told first.
        let mut told = HashMap::new();
        for (number, group) in (1..).zip(self.groups) {
            if group.rest.is_empty() {
                head_of_one(&mut out, number, group.first);
            } else {
                head_of_several(&mut out, number, group);
            }
            let first = group.first;
            let why = match *told.entry(prose::rule(first)).or_insert(number) {
                before if before < number && group.rest.is_empty() => {
                    prose::why_again(first, before)
                }
                before if before < number => format!("As in {before}."),
                _ if group.rest.is_empty() => prose::why(first),
                _ => prose::why_several(first),
            };
            wrap(&mut out, &why);
            self.caller(&mut out, group);
        }
        if self.more + left_out > 0 {
            let hint = if self.more > 0 {
                " (--top 0 shows all)"
            } else {
                ""
            };
            let more = count(self.more + left_out);
            line(&mut out, format_args!("\n\u{2026} and {more} more{hint}"));
        }
        end(&mut out, self.told, self.callers);
        for account in self.told.view.space.accounts.iter().skip(1) {
            unseen(&mut out, account);
        }
        out
    }

    /// Who asked.
    fn caller(&self, out: &mut String, group: &Group) {
        if let Some(caller) = self.callers.line(group.first.stack, self.depth) {
            let others = match group.stacks() {
                1 => String::new(),
                stacks => format!("; {} call stacks in all", count(stacks as u64)),
            };
            line(out, format_args!("   asked by {caller}{others}"));
        }
    }
}

/// A call, or a run of equal ones.
fn head_of_one(out: &mut String, number: usize, chapter: &Chapter) {
    let thread = match chapter.thread {
        0 | 1 => String::new(),
        thread => format!(", thread {thread}"),
    };
    let call = with_cause(chapter);
    line(
        out,
        format_args!("\n{number}. {}{thread}: {call}", time(chapter.t)),
    );
    if chapter.times > 1 {
        line(
            out,
            format_args!(
                "   {} such calls until {}, {}",
                count(chapter.times),
                time(chapter.until),
                change(chapter.bytes)
            ),
        );
    }
}

/// Calls that tell the same.
fn head_of_several(out: &mut String, number: usize, group: &Group) {
    let first = group.first;
    let inside = first
        .via
        .map_or_else(String::new, |via| format!(" inside {via}"));
    let threads = match group.threads() {
        1 => String::new(),
        threads => format!(" in {} threads", count(threads as u64)),
    };
    line(
        out,
        format_args!(
            "\n{number}. {} to {}: {} calls of {}{inside}{threads}, {}",
            time(first.t),
            time(group.until()),
            count(group.times()),
            first.op.name(),
            change(group.bytes())
        ),
    );
    let mut told = 0;
    for chapter in group.chapters().take(EXAMPLES) {
        told += chapter.times;
        let more = match chapter.times {
            1 => String::new(),
            times => format!(
                ", and {} more until {}",
                count(times - 1),
                time(chapter.until)
            ),
        };
        let call = with_cause(chapter);
        line(out, format_args!("   {}: {call}{more}", time(chapter.t)));
    }
    if group.times() > told {
        let rest = count(group.times() - told);
        line(
            out,
            format_args!("   \u{2026} and {rest} more (--all lists each)"),
        );
    }
}

/// The kernel call with the call inside which it was made.
fn with_cause(chapter: &Chapter) -> String {
    let call = prose::call(chapter);
    match (&chapter.asked, chapter.via) {
        (Some(asked), _) => format!("{call}, inside {}", prose::asked(asked)),
        (None, Some(via)) => format!("{call}, inside {via}"),
        (None, None) => call,
    }
}

/// By how much calls changed the mapped bytes.
fn change(bytes_changed: i64) -> String {
    let way = if bytes_changed < 0 { "less" } else { "more" };
    format!("{} {way} in all", bytes(bytes_changed.unsigned_abs()))
}

fn line(out: &mut String, text: std::fmt::Arguments) {
    // Writing to a String can't fail.
    let _ = writeln!(out, "{text}");
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
