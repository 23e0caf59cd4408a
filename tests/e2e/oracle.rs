//! What a test program says that it did, held against what its log says.
//!
//! The programs tell each call on a descriptor of their own (`tests/programs/oracle.h`), in the log's words. Nothing here
//! uses memspy's own reader: numbers, blocks and ends are counted again, from FORMAT.md alone.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::{Finished, Log, TestDir, clean, compile, finish, preloaded};

/// Lines that are calls of the program or of libc.
const CALLS: [&str; 18] = [
    "malloc",
    "calloc",
    "realloc",
    "reallocarray",
    "free",
    "free_sized",
    "free_aligned_sized",
    "posix_memalign",
    "aligned_alloc",
    "memalign",
    "valloc",
    "pvalloc",
    "mmap",
    "munmap",
    "mremap",
    "mprotect",
    "brk",
    "sbrk",
];

/// Keys of an event that say when and where, not what.
const CIRCUMSTANCES: [&str; 3] = ["t", "dt", "stack"];

/// A program that ran twice, without and with memspy, and behaved alike.
pub(crate) struct Recorded {
    /// Where the logs are.
    pub(crate) logs: TestDir,
    /// How the recorded run ended and what it printed.
    pub(crate) run: Finished,
    work: TestDir,
}

/// Runs `tests/programs/NAME.c` without and with memspy in directories of their own.
///
/// # Panics
/// When status, standard output or standard error differ between the two.
#[track_caller]
pub(crate) fn record(name: &str, arguments: &[&str]) -> Recorded {
    record_program(&compile(&format!("{name}.c")), arguments)
}

/// The same for any program.
#[track_caller]
pub(crate) fn record_program(program: &Path, arguments: &[impl AsRef<OsStr>]) -> Recorded {
    let baseline = TestDir::new();
    let plain = finish(
        clean(program)
            .args(arguments)
            .current_dir(baseline.path())
            .env("ORACLE", baseline.join("oracle"))
            .env("CHILD_ORACLE", baseline.join("child")),
    );
    let recorded = record_alone(program, arguments);
    assert_same(&plain, &recorded.run);
    recorded
}

/// Runs a program with memspy only: for programs whose output is never twice the same.
#[track_caller]
pub(crate) fn record_alone(program: &Path, arguments: &[impl AsRef<OsStr>]) -> Recorded {
    let (work, logs) = (TestDir::new(), TestDir::new());
    let run = finish(
        preloaded(program, &logs)
            .args(arguments)
            .current_dir(work.path())
            .env("ORACLE", work.join("oracle"))
            .env("CHILD_ORACLE", work.join("child")),
    );
    Recorded { logs, run, work }
}

/// Asserts that two runs ended alike and printed the same.
#[track_caller]
pub(crate) fn assert_same(plain: &Finished, recorded: &Finished) {
    let same = plain.status == recorded.status
        && plain.stdout_bytes == recorded.stdout_bytes
        && plain.stderr_bytes == recorded.stderr_bytes;
    assert!(same, "without memspy: {plain}\nwith memspy: {recorded}");
}

impl Recorded {
    /// The only log of the run.
    #[track_caller]
    pub(crate) fn log(&self) -> Log {
        Log::only_in(&self.logs)
    }

    /// What the program told.
    #[track_caller]
    pub(crate) fn told(&self) -> Vec<Value> {
        told(&self.work.join("oracle"))
    }

    /// What its child told.
    #[track_caller]
    pub(crate) fn child_told(&self) -> Vec<Value> {
        told(&self.work.join("child"))
    }
}

/// The lines of an oracle file. A program that was killed may have left half a line.
#[track_caller]
pub(crate) fn told(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let whole = text.split_inclusive('\n').filter(|l| l.ends_with('\n'));
    whole
        .map(|line| serde_json::from_str(line).expect("an oracle writes JSON"))
        .collect()
}

/// The calls among a log's lines, without times and stacks and without what memspy inferred.
pub(crate) fn calls(lines: &[Value]) -> Vec<Value> {
    let made = |line: &&Value| {
        CALLS.contains(&line["op"].as_str().unwrap_or_default()) && line.get("via").is_none()
    };
    lines.iter().filter(made).map(bare).collect()
}

/// An event without its circumstances.
fn bare(line: &Value) -> Value {
    let mut line = line.clone();
    let keys = line.as_object_mut().expect("a line is an object");
    for key in CIRCUMSTANCES {
        keys.remove(key);
    }
    line
}

/// Asserts that each thread's told calls are in the log, all of them, in the order in which they were told. Calls that
/// nobody told (libc's own) may stand between.
#[track_caller]
pub(crate) fn assert_told_calls_are_logged(told: &[Value], lines: &[Value]) {
    let mut threads: HashMap<u64, Vec<Value>> = HashMap::new();
    for call in calls(&with_threads(lines)) {
        threads.entry(thread_of(&call)).or_default().push(call);
    }
    let mut places: HashMap<u64, usize> = HashMap::new();
    for call in told {
        let thread = thread_of(call);
        let logged = threads.get(&thread).map_or(&[][..], Vec::as_slice);
        let place = places.entry(thread).or_default();
        match logged[*place..].iter().position(|found| found == call) {
            Some(skipped) => *place += skipped + 1,
            None => panic!("not in the log, or not there after call {place}: {call}"),
        }
    }
}

/// The lines of a log with the thread of each, as FORMAT.md says it: that of the block line before. As in what programs
/// tell, the first thread of the image is left out.
fn with_threads(lines: &[Value]) -> Vec<Value> {
    let mut lines = lines.to_vec();
    let pid = lines[0]["pid"].clone();
    let mut thread = pid.clone();
    for line in &mut lines {
        if line["op"] == "block" {
            thread = line["tid"].clone();
        } else if thread != pid {
            line["tid"] = thread.clone();
        }
    }
    lines
}

/// The thread that a line is about; 0 for the first of the image.
fn thread_of(line: &Value) -> u64 {
    line.get("tid").and_then(Value::as_u64).unwrap_or(0)
}

/// Asserts what FORMAT.md calls complete: block lines say how many lines follow, each thread's numbers run without a gap up
/// to what `end` vouches for, nothing lost, nothing stopped.
#[track_caller]
pub(crate) fn assert_complete(log: &Log) {
    let shown = log.path.display();
    let mut blocks: BTreeMap<u64, Vec<(u64, u64)>> = BTreeMap::new();
    let mut finished: BTreeMap<u64, bool> = BTreeMap::new();
    let mut lines = log.lines.iter().skip(1);
    while let Some(block) = lines.next() {
        assert_eq!(block["op"], "block", "{shown}: a line outside a block");
        let thread = number(block, "thread");
        let events = number(block, "events");
        blocks
            .entry(thread)
            .or_default()
            .push((number(block, "n"), events));
        finished.insert(thread, block["last"] == true);
        for _ in 0..events {
            let line = lines
                .next()
                .unwrap_or_else(|| panic!("{shown}: cut after {block}"));
            assert_ne!(line["op"], "block", "{shown}: too few lines after {block}");
        }
        assert!(number(block, "bytes") >= events, "{shown}: {block}");
    }
    let mut next: BTreeMap<u64, u64> = BTreeMap::new();
    for (thread, mut numbers) in blocks {
        numbers.sort_unstable(); // several threads write the blocks of thread 0
        for (n, events) in numbers {
            let expected = next.entry(thread).or_insert(1);
            assert_eq!(n, *expected, "{shown}: thread {thread}");
            *expected += events;
        }
    }
    let end = log.end();
    assert_eq!(end["lost"], 0, "{shown}: {end}");
    assert_eq!(log.ops("stopped").count(), 0, "{shown}");
    let open: BTreeMap<u64, u64> = end["open"]
        .as_array()
        .expect("open is a list")
        .iter()
        .map(|pair| (pair[0].as_u64().unwrap(), pair[1].as_u64().unwrap()))
        .collect();
    for thread in 1..=number(end, "streams") {
        let written = next.get(&thread).map_or(0, |next| next - 1);
        match open.get(&thread) {
            Some(vouched) => assert!(written >= *vouched, "{shown}: thread {thread}: {end}"),
            None => assert!(
                finished.get(&thread).copied().unwrap_or(false),
                "{shown}: thread {thread} is neither open nor ended"
            ),
        }
    }
}

/// A count of a line.
#[track_caller]
pub(crate) fn number(line: &Value, key: &str) -> u64 {
    line[key]
        .as_u64()
        .unwrap_or_else(|| panic!("{line} has no number {key}"))
}

/// The files of a directory that end in `.tail`.
pub(crate) fn tails(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("the log directory can be read");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|end| end == "tail"));
    paths
}
