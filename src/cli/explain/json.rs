//! The story for programs.

use memspy_analysis::log::Log;
use memspy_analysis::printable;
use memspy_analysis::space::{Chapter, Reason};
use serde_json::{Value, json};

use super::group::Group;
use super::{Told, prose};
use crate::callers::Callers;

/// The document. Addresses are hexadecimal strings, sizes bytes, times nanoseconds.
pub(super) fn document(log: &Log, told: &Told, groups: &[Group], callers: &Callers) -> Value {
    let story = &told.story;
    let calls = groups.iter().flat_map(Group::chapters);
    let shown: u64 = groups.iter().map(Group::times).sum();
    let all: u64 = story.chapters.iter().map(|chapter| chapter.times).sum();
    json!({
        "schema": 1,
        "program": log.start().map(|start| printable(&start.exe)),
        "pid": log.pid(),
        "complete": told.view.outcome.completeness.complete,
        "kernel_calls": all + story.left_out,
        "not_shown": all + story.left_out - shown,
        "mmap_threshold": story.mmap_threshold(),
        "trim_threshold": story.trim_threshold(),
        "calls": calls.map(|chapter| call(chapter, callers)).collect::<Vec<_>>(),
    })
}

fn call(chapter: &Chapter, callers: &Callers) -> Value {
    json!({
        "t": chapter.t,
        "until": chapter.until,
        "times": chapter.times,
        "thread": chapter.thread,
        "op": chapter.op.name(),
        "call": prose::call(chapter),
        "err": chapter.err.map(|err| err.to_string()),
        "via": chapter.via.map(|via| via.to_string()),
        "asked": chapter.asked.map(|asked| json!({
            "op": asked.op.name(),
            "bytes": asked.bytes,
            "align": asked.align,
            "ptr": format!("{:#x}", asked.block),
        })),
        "bytes": chapter.bytes,
        "reason": name(chapter.reason),
        "why": prose::why(chapter),
        "stack": callers.of(chapter.stack),
    })
}

/// A word for machines.
fn name(reason: Reason) -> &'static str {
    match reason {
        Reason::FirstHeap { .. } => "first_heap",
        Reason::TopTooSmall { .. } => "top_too_small",
        Reason::OtherGrowth { .. } => "other_growth",
        Reason::Mapped { .. } => "at_threshold",
        Reason::MappedBelow { .. } => "below_threshold",
        Reason::Unmapped { moved: Some(_), .. } => "freed_and_raised_threshold",
        Reason::Unmapped { moved: None, .. } => "freed",
        Reason::Left => "realloc_left",
        Reason::Remapped => "realloc_resized",
        Reason::Trimmed { .. } => "trimmed",
        Reason::ArenaMade { .. } => "arena_made",
        Reason::ArenaGrew => "arena_grew",
        Reason::ArenaShrank => "arena_shrank",
        Reason::Program => "program",
        Reason::SeveralThreads => "several_threads",
        Reason::NoCause => "no_cause",
    }
}
