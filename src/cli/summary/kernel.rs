//! Where the memory came from: kernel calls, and the libc function that made each.

use std::cmp::Reverse;

use memspy_analysis::event::Via;
use memspy_analysis::summary::{Act, Example, KernelCalls, Totals, Verb};
use memspy_log::Op;

use crate::amount::{bytes, count};

/// How many causes of one kind of kernel call are named.
const MOST_CAUSES: usize = 4;
/// glibc's mmap threshold before it adapts itself, in bytes (mallopt(3), M_MMAP_THRESHOLD).
const FIRST_THRESHOLD: u64 = 128 << 10;
/// What glibc adds to a block at most before it compares with the threshold: header and rounding.
const HEADER: u64 = 32;

/// A line about one kind of kernel call.
pub(super) struct Row {
    pub(super) what: &'static str,
    pub(super) bytes: String,
    pub(super) calls: String,
    pub(super) by: String,
}

/// On whose behalf a kernel call is made.
#[derive(Clone, Copy, PartialEq)]
enum Side {
    Malloc,
    Program,
}

/// The kinds of kernel calls as they are shown, and whether their bytes add up to something.
const KINDS: [(&str, Side, &[Verb], bool); 13] = {
    use Side::{Malloc, Program};
    use Verb::*;
    [
        ("brk heap grown", Malloc, &[BrkUp], true),
        ("  shrunk", Malloc, &[BrkDown], true),
        ("mmap by malloc", Malloc, &[Mmap], true),
        ("  resized", Malloc, &[Mremap], true),
        ("  unmapped", Malloc, &[Munmap], true),
        ("thread arenas made", Malloc, &[ArenaMade], true),
        ("  grown", Malloc, &[ArenaGrown], true),
        ("  shrunk", Malloc, &[ArenaShrunk], true),
        ("mmap by the program", Program, &[Mmap], true),
        ("  resized", Program, &[Mremap], true),
        ("  unmapped", Program, &[Munmap], true),
        ("  protected", Program, &[Mprotect], true),
        (
            "brk by the program",
            Program,
            &[BrkUp, BrkDown, BrkSame],
            false,
        ),
    ]
};

/// The lines about kernel calls. `inferred`: those inside malloc are known, so none means none.
pub(super) fn rows(totals: &Totals, inferred: bool) -> Vec<Row> {
    let mut shown = Vec::new();
    for (what, side, verbs, sums) in KINDS {
        let calls = select(totals, side, verbs);
        let main = matches!(verbs, [Verb::BrkUp] | [Verb::Mmap]);
        if calls.is_empty() {
            if main && (inferred || side == Side::Program) {
                shown.push(Row {
                    what,
                    bytes: "none".into(),
                    calls: String::new(),
                    by: String::new(),
                });
            }
            continue;
        }
        let sum = calls
            .iter()
            .fold(0, |sum: u64, (_, calls)| sum.saturating_add(calls.bytes));
        shown.push(Row {
            what,
            bytes: if sums { bytes(sum) } else { String::new() },
            calls: times(&calls),
            by: match side {
                Side::Malloc => causes(&calls),
                Side::Program => String::new(),
            },
        });
    }
    shown
}

fn select<'a>(totals: &'a Totals, side: Side, verbs: &[Verb]) -> Vec<(&'a Act, &'a KernelCalls)> {
    let mut calls: Vec<_> = totals
        .kernel
        .iter()
        .filter(|(act, _)| verbs.contains(&act.verb) && self::side(act) == side)
        .collect();
    calls.sort_by_key(|(_, calls)| Reverse((calls.bytes, calls.count)));
    calls
}

/// Arena lines need no `via`: only malloc makes arenas.
fn side(act: &Act) -> Side {
    let arena = matches!(
        act.verb,
        Verb::ArenaMade | Verb::ArenaGrown | Verb::ArenaShrunk
    );
    if arena || act.via.is_some() {
        Side::Malloc
    } else {
        Side::Program
    }
}

fn times(calls: &[(&Act, &KernelCalls)]) -> String {
    let sum = |of: fn(&KernelCalls) -> u64| calls.iter().map(|(_, calls)| of(calls)).sum::<u64>();
    let all = sum(|calls| calls.count);
    let failed = sum(|calls| calls.failures);
    let noun = if all == 1 { "call" } else { "calls" };
    match failed {
        0 => format!("{} {noun}", count(all)),
        _ => format!("{} {noun}, {} failed", count(all), count(failed)),
    }
}

/// Which libc functions made the calls, the largest first.
fn causes(calls: &[(&Act, &KernelCalls)]) -> String {
    let name = |act: &Act| match act.via {
        None => "malloc".into(),
        Some(Via::Several) => "several threads at once".into(),
        Some(via) => via.to_string(),
    };
    if let [(act, _)] = calls {
        return format!("in {}", name(act));
    }
    let mut named: Vec<_> = calls
        .iter()
        .take(MOST_CAUSES)
        .map(|(act, calls)| format!("{} {}", name(act), count(calls.count)))
        .collect();
    if calls.len() > MOST_CAUSES {
        named.push("others".into());
    }
    format!("in {}", named.join(", "))
}

/// Why the largest block with a mapping of its own has one; `None` where glibc's rules do not
/// apply or do not explain it.
pub(super) fn story(totals: &Totals) -> Option<String> {
    let (cause, example) = totals
        .kernel
        .iter()
        .filter(|(act, _)| act.verb == Verb::Mmap)
        .filter_map(|(act, calls)| match act.via {
            Some(Via::Call(cause)) => Some((cause, calls.largest?)),
            _ => None,
        })
        .max_by_key(|(_, example)| example.bytes)?;
    let Example {
        bytes,
        asked,
        align,
    } = example;
    let needed = asked.saturating_add(align).saturating_add(HEADER);
    if needed < FIRST_THRESHOLD || bytes < asked {
        return None;
    }
    let aligning = match align {
        0 => "",
        _ => "room to align it, ",
    };
    Some(format!(
        "{} mapped {} bytes: a block this large (glibc's mmap threshold is {} bytes at first) gets \
         a mapping of its own, outside [heap], for the block, {aligning}its header, in whole pages; \
         free unmaps it at once.",
        call(cause, asked, align),
        count(bytes),
        count(FIRST_THRESHOLD),
    ))
}

/// A call as a programmer writes it, as far as sums allow.
fn call(op: Op, asked: u64, align: u64) -> String {
    let name = op.name();
    match op {
        Op::AlignedAlloc | Op::Memalign => format!("{name}({align}, {asked})"),
        Op::Malloc | Op::Valloc | Op::Pvalloc => format!("{name}({asked})"),
        Op::PosixMemalign => format!("{name}(…, {align}, {asked})"),
        Op::Realloc | Op::Reallocarray => format!("{name} to {} bytes", count(asked)),
        _ => format!("{name} of {} bytes", count(asked)),
    }
}
