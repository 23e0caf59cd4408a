//! What a process that died left behind: its log and its tail, put together as FORMAT.md (*The tail*) says.
//!
//! Written from that text alone, so that neither the shim nor memspy's reader is its own witness.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::ops::Range;
use std::path::Path;

use serde_json::Value;

use crate::oracle::number;

/// The events of each thread, by their number.
pub(crate) type Events = BTreeMap<u64, BTreeMap<u64, Value>>;

/// All events in a log and, when it is there, its tail. Each has the `tid` of its block or buffer, but for those of the
/// image's first thread.
///
/// # Panics
/// When something is not as FORMAT.md has it.
#[track_caller]
pub(crate) fn remains(log: &Path) -> Events {
    let mut text = fs::read(log).expect("the log can be read");
    let mut tail_path = log.as_os_str().to_owned();
    tail_path.push(".tail");
    let mut pending = Vec::new();
    // Empty, or with zeros for the magic: its image died while it made it.
    let made = |tail: &Vec<u8>| !tail.is_empty() && tail[..8] != [0; 8];
    if let Some(tail) = fs::read(&tail_path).ok().filter(made) {
        assert_eq!(&tail[..8], b"MEMSPYT1");
        for buffer in buffers(&tail) {
            fold(&tail[buffer], &mut text, &mut pending);
        }
    }
    let mut events = written(&text);
    let first_line = text
        .split(|byte| *byte == b'\n')
        .next()
        .expect("a first line");
    let pid = serde_json::from_slice::<Value>(first_line).expect("a start line")["pid"].clone();
    for (thread, first, line) in pending {
        events
            .entry(thread)
            .or_default()
            .entry(first)
            .or_insert(line);
    }
    for line in events.values_mut().flat_map(BTreeMap::values_mut) {
        if line["tid"] == pid {
            line.as_object_mut()
                .expect("a line is an object")
                .remove("tid");
        }
    }
    events
}

/// Where the buffers of a tail lie.
fn buffers(tail: &[u8]) -> Vec<Range<usize>> {
    let mut at = 4096;
    let mut found = Vec::new();
    for extent in 0..u32_at(tail, 108) as usize {
        let (size, count) = (
            u64_at(tail, 256 + 16 * extent),
            u64_at(tail, 264 + 16 * extent),
        );
        for _ in 0..count {
            found.push(at..at + size as usize);
            at += size as usize;
        }
    }
    found
}

/// Puts a buffer's interrupted flush into the text of the log, and its other lines into `pending`.
fn fold(buffer: &[u8], text: &mut Vec<u8>, pending: &mut Vec<(u64, u64, Value)>) {
    let thread = u64_at(buffer, 0);
    if thread == 0 && u64_at(buffer, 24) == 0 {
        return;
    }
    let mut from = u64_at(buffer, 32) as usize;
    let top = (u64_at(buffer, 24) as usize).min(buffer.len());
    let mut n = u64_at(buffer, 16);
    match u64_at(buffer, 56) {
        0 => {}
        u64::MAX => return,
        length => {
            let start = u64_at(buffer, 40) as usize;
            let bytes = &buffer[start..start + length as usize];
            let place = u64_at(buffer, 48) as usize;
            text.resize(text.len().max(place + bytes.len()), 0);
            text[place..place + bytes.len()].copy_from_slice(bytes);
            let block = &committed(bytes)[0];
            n = number(block, "n") + number(block, "events");
            from = start + length as usize;
        }
    }
    if from < 512 {
        from = 512;
    }
    for mut line in committed(&buffer[from..top.max(from)]) {
        line["tid"] = u32_at(buffer, 8).into();
        pending.push((thread, n, line));
        n += 1;
    }
}

/// The lines of a piece of text: from a `{` after a newline, a NUL or the start, up to the newline.
fn committed(text: &[u8]) -> Vec<Value> {
    let mut lines = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let begins = text[at] == b'{' && (at == 0 || matches!(text[at - 1], b'\n' | 0));
        if !begins {
            at += 1;
            continue;
        }
        let Some(length) = text[at..].iter().position(|byte| *byte == b'\n') else {
            break;
        };
        let line = &text[at..at + length];
        lines.push(serde_json::from_slice(line).unwrap_or_else(|error| {
            panic!("{error}: {}", String::from_utf8_lossy(line));
        }));
        at += length;
    }
    lines
}

/// The events of a log's text, block by block.
fn written(text: &[u8]) -> Events {
    let mut events = Events::new();
    let mut seen = HashSet::new();
    let mut at = text
        .iter()
        .position(|byte| *byte == b'\n')
        .map_or(0, |end| end + 1);
    while at < text.len() {
        if text[at] == 0 {
            at += 1;
            continue;
        }
        let length = text[at..].iter().position(|byte| *byte == b'\n');
        let line = &text[at..length.map_or(text.len(), |length| at + length)];
        let cut = line.iter().position(|byte| *byte == 0);
        let (Some(length), None) = (length, cut) else {
            // A write that a death has cut at a page, as below.
            at += cut.unwrap_or(line.len());
            continue;
        };
        let block: Value = serde_json::from_slice(line).expect("a block line");
        assert_eq!(block["op"], "block", "at byte {at}");
        let start = at + length + 1;
        let end = start + number(&block, "bytes") as usize;
        let (thread, first) = (number(&block, "thread"), number(&block, "n"));
        let body = text.get(start..end.min(text.len())).unwrap_or_default();
        if thread == 0 && (start + body.len() < end || body.contains(&0)) {
            // A write may be cut at a page by a death. The tail has the blocks of buffers once more; this one is an event
            // of thread 0 whose call had not returned, and the last of that thread.
            at = end;
            continue;
        }
        assert_eq!(start + body.len(), end, "the log holds the whole {block}");
        let lines = committed(body);
        assert_eq!(lines.len() as u64, number(&block, "events"), "{block}");
        assert!(
            lines.is_empty() || seen.insert((thread, first)),
            "twice in the log: {block}"
        );
        let stream = events.entry(thread).or_default();
        for (n, mut line) in (first..).zip(lines) {
            line["tid"] = block["tid"].clone();
            stream.insert(n, line);
        }
        at = end;
    }
    events
}

/// Asserts that each thread's numbers run from 1 without a gap.
#[track_caller]
pub(crate) fn assert_contiguous(events: &Events) {
    for (thread, stream) in events {
        for (expected, n) in (1..).zip(stream.keys()) {
            assert_eq!(*n, expected, "thread {thread}");
        }
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
