//! Writes logs and tails for tests, from FORMAT.md alone: a witness beside the shim.

use serde_json::Value;
use std::fmt::Write;
use std::path::Path;

/// The process of every test log.
pub(crate) const PID: u32 = 4711;
/// The boot of every test log: no machine has it.
pub(crate) const BOOT: &str = "00000000-1111-2222-3333-444444444444";

/// A log under construction.
#[derive(Clone, Default)]
pub(crate) struct TestLog {
    /// The text so far.
    pub(crate) text: String,
    numbers: std::collections::BTreeMap<u32, u64>,
}

impl TestLog {
    /// A log with its first line, `extra` added to it (`,"key":value`).
    pub(crate) fn new(extra: &str) -> TestLog {
        let text = format!(
            "{{\"op\":\"start\",\"v\":1,\"pid\":{PID},\"ppid\":4700,\"exe\":\"/usr/bin/cat\",\
             \"argv\":[\"cat\",\"README.md\"],\"cwd\":\"/tmp\",\"unix_ns\":1790000000000000000,\
             \"mono_ns\":1000,\"boot_id\":\"{BOOT}\",\"start_ticks\":12345,\"pid_ns\":4026531836,\
             \"memspy\":\"0.1.0\",\"libc\":\"glibc 2.36\",\"allocator\":\"glibc\",\
             \"inference\":true,\"clock\":\"tsc\",\"mode\":\"events\",\"stacks\":\"off\",\
             \"page\":4096{extra}}}\n"
        );
        TestLog {
            text,
            ..TestLog::default()
        }
    }

    /// Adds a block of one thread's lines, each without its newline.
    pub(crate) fn block(&mut self, thread: u32, lines: &[&str]) -> &mut Self {
        let block = self.make_block(thread, lines, "");
        self.text.push_str(&block);
        self
    }

    /// Adds a thread's last block.
    pub(crate) fn last_block(&mut self, thread: u32, lines: &[&str]) -> &mut Self {
        let block = self.make_block(thread, lines, ",\"last\":true");
        self.text.push_str(&block);
        self
    }

    /// A block with the thread's next numbers, not added.
    pub(crate) fn make_block(&mut self, thread: u32, lines: &[&str], extra: &str) -> String {
        let n = self.next_number(thread);
        self.numbers.insert(thread, n + lines.len() as u64);
        block(thread, n, lines, extra)
    }

    /// The number that the thread's next event gets.
    pub(crate) fn next_number(&self, thread: u32) -> u64 {
        self.numbers.get(&thread).copied().unwrap_or(1)
    }

    /// Adds the `end` line as an event of a thread, vouching for all numbers given so far.
    pub(crate) fn end(&mut self, thread: u32, t: u64) -> &mut Self {
        let mut open = String::new();
        let mut numbers = self.numbers.clone();
        *numbers.entry(thread).or_insert(1) += 1;
        for (thread, next) in &numbers {
            let comma = if open.is_empty() { "" } else { "," };
            write!(open, "{comma}[{thread},{}]", next - 1).expect("a String takes all");
        }
        let streams = numbers.keys().filter(|thread| **thread > 0).count();
        let line = format!(
            "{{\"op\":\"end\",\"t\":{t},\"how\":\"exit\",\"streams\":{streams},\
             \"open\":[{open}],\"lost\":0,\"abandoned\":0,\"mapped\":409600}}"
        );
        self.block(thread, &[&line])
    }

    /// Writes the log.
    pub(crate) fn write(&self, path: &Path) {
        std::fs::write(path, &self.text).expect("the test's directory is writable");
    }
}

/// A block line and its lines, with times as the lines have them.
pub(crate) fn block(thread: u32, n: u64, lines: &[&str], extra: &str) -> String {
    let (mut t, mut until, mut bytes) = (u64::MAX, 0, 0);
    for line in lines {
        let json: Value = serde_json::from_str(line).expect("a test's lines are JSON");
        let from = json["t"].as_u64().expect("a test's lines have a time");
        t = t.min(from);
        until = until.max(from + json["dt"].as_u64().unwrap_or(0));
        bytes += line.len() + 1;
    }
    let tid = PID + thread.saturating_sub(1);
    let mut text = format!(
        "{{\"op\":\"block\",\"thread\":{thread},\"tid\":{tid},\"n\":{n},\"events\":{},\
         \"bytes\":{bytes},\"t\":{},\"until\":{until}{extra}}}\n",
        lines.len(),
        t.min(until)
    );
    for line in lines {
        text.push_str(line);
        text.push('\n');
    }
    text
}

/// A malloc line.
pub(crate) fn malloc(t: u64, size: u64, ptr: u64) -> String {
    format!("{{\"op\":\"malloc\",\"t\":{t},\"size\":{size},\"ptr\":\"{ptr:#x}\"}}")
}

/// A free line.
pub(crate) fn free(t: u64, ptr: u64) -> String {
    format!("{{\"op\":\"free\",\"t\":{t},\"ptr\":\"{ptr:#x}\"}}")
}

/// A realloc line.
pub(crate) fn realloc(t: u64, dt: u64, old: u64, size: u64, ptr: u64) -> String {
    format!(
        "{{\"op\":\"realloc\",\"t\":{t},\"dt\":{dt},\"old\":\"{old:#x}\",\"size\":{size},\
         \"ptr\":\"{ptr:#x}\"}}"
    )
}

/// A buffer of a tail.
#[derive(Clone, Default)]
pub(crate) struct TestBuffer {
    /// The thread's number.
    pub(crate) thread: u64,
    /// Number of the first event at the start of `text`.
    pub(crate) first_n: u64,
    /// The text behind what is flushed.
    pub(crate) text: Vec<u8>,
    /// A flush under way: its bytes, their place and what `flush_len` says.
    pub(crate) flush: Option<(Vec<u8>, u64, u64)>,
}

/// The bytes of a tail with these buffers.
pub(crate) fn tail(log_end: u64, streams: u64, lost: u64, buffers: &[TestBuffer]) -> Vec<u8> {
    const SIZE: usize = 16 << 10;
    let mut bytes = vec![0; 4096];
    let put = |bytes: &mut Vec<u8>, at: usize, value: u64| {
        bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
    };
    bytes[..8].copy_from_slice(b"MEMSPYT1");
    put(&mut bytes, 8, u64::from(PID) | 1 << 32);
    put(&mut bytes, 16, 12345);
    bytes[24..60].copy_from_slice(BOOT.as_bytes());
    put(&mut bytes, 64, log_end);
    put(&mut bytes, 88, lost);
    put(&mut bytes, 96, streams);
    put(&mut bytes, 104, 1 << 32);
    put(&mut bytes, 256, SIZE as u64);
    put(&mut bytes, 264, buffers.len() as u64);
    for buffer in buffers {
        let start = bytes.len();
        bytes.resize(start + SIZE, 0);
        put(&mut bytes, start, buffer.thread);
        put(
            &mut bytes,
            start + 8,
            u64::from(PID) + buffer.thread.saturating_sub(1),
        );
        put(&mut bytes, start + 16, buffer.first_n);
        let mut flushed = 512;
        if let Some((text, place, len)) = &buffer.flush {
            // The block line stands in header space, so that the lines begin where text does.
            let line = text
                .iter()
                .position(|byte| *byte == b'\n')
                .expect("a block line")
                + 1;
            let from = 512 - line;
            bytes[start + from..start + from + text.len()].copy_from_slice(text);
            put(&mut bytes, start + 40, from as u64);
            put(&mut bytes, start + 48, *place);
            put(&mut bytes, start + 56, *len);
            flushed = from + text.len();
            put(&mut bytes, start + 32, 512);
        } else {
            put(&mut bytes, start + 32, 512);
        }
        let text = start + flushed;
        bytes[text..text + buffer.text.len()].copy_from_slice(&buffer.text);
        put(&mut bytes, start + 24, (flushed + buffer.text.len()) as u64);
    }
    bytes
}
