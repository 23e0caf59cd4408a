//! The first answer about a log: how often, how much, how much at once, and where it came from.

use crate::complete::Completeness;
use crate::damage::Damage;
use crate::error::Error;
use crate::event::{Address, Event, Start, Via, What};
use crate::histogram::Histogram;
use crate::lineage::Lineage;
use crate::log::Log;
use crate::merge::{Half, Step};
use crate::model::{Change, Counts, Level, Mapped, Memory, Oddities, Peak};
use crate::replay::{Inheritance, Outcome, Visitor, replay};
use crate::site::Sites;
use crate::text::printable;
use memspy_log::Op;
use rustc_hash::FxHashMap;
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// How many kernel calls may wait for their causes at one time.
const MOST_WAITING: usize = 256;

/// The answer about one log.
#[derive(Debug, Serialize)]
pub struct Summary {
    /// The log's path; `-` for standard input.
    #[serde(serialize_with = "path")]
    pub log: PathBuf,
    /// The first line; `None` when the log was cut before it.
    #[serde(serialize_with = "process")]
    pub process: Option<Start>,
    /// From the image's start to its last event, in real nanoseconds.
    pub duration_ns: u64,
    /// Events in the log.
    pub events: u64,
    /// How many of them came from the tail.
    pub events_from_tail: u64,
    /// Whether the lines came in the order of the file, not of time.
    pub file_order: bool,
    /// Whether every event is there.
    #[serde(flatten)]
    pub completeness: Completeness,
    /// What was wrong in the log.
    pub damage: Damage,
    /// Of a forked child: what became of its parent's blocks.
    #[serde(serialize_with = "inheritance")]
    pub inheritance: Inheritance,
    /// The heap's blocks.
    pub heap: HeapAnswer,
    /// The calls and where their memory came from.
    #[serde(flatten)]
    pub totals: Totals,
    /// Mappings and break.
    pub space: SpaceAnswer,
    /// The threads in the order of their numbers.
    pub threads: Vec<ThreadAnswer>,
    /// What the log tells of other programs.
    #[serde(skip)]
    pub lineage: Lineage,
}

/// What is said of the heap's blocks.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct HeapAnswer {
    /// The highest moment of the live bytes.
    pub peak: Peak,
    /// What was live after the last event.
    pub end: Level,
    /// What a forked child had from its parent.
    pub inherited: Level,
    /// Blocks given out and back, failures.
    #[serde(flatten)]
    pub counts: Counts,
    /// What can't be.
    pub oddities: Oddities,
}

/// What is said of mappings and the break.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct SpaceAnswer {
    /// Bytes by which the brk heap was larger at the end than before the first event.
    pub brk_grown: i64,
    /// Bytes by which the brk heap was larger at its highest.
    pub brk_peak: u64,
    /// Mappings made inside a libc function: bytes at the end and at most.
    pub mapped_by_malloc: Mapped,
    /// Mappings that the program made: bytes at the end and at most.
    pub mapped_by_program: Mapped,
    /// Heaps of thread arenas at the end.
    pub arenas: u64,
    /// Their bytes.
    pub arena_bytes: u64,
}

/// What is said of a thread.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ThreadAnswer {
    /// memspy's number; 0 for the number that threads without a buffer share.
    pub thread: u32,
    /// The kernel's number.
    pub tid: u32,
    /// Its name, safe to print; empty when the log does not say.
    pub name: String,
    /// Its events.
    pub events: u64,
    /// Blocks that it was given, and their bytes.
    pub allocated: Level,
}

/// Counts that can be added up over several logs.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Totals {
    /// By function, those that were called.
    #[serde(serialize_with = "calls")]
    pub calls: BTreeMap<Op, Calls>,
    /// By kernel call and the function that made it.
    #[serde(serialize_with = "kernel")]
    pub kernel: BTreeMap<Act, KernelCalls>,
    /// Sizes of the blocks that were given out.
    pub sizes: Histogram,
}

/// How often a function was called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Calls {
    /// Calls, the failed ones included.
    pub count: u64,
    /// Bytes: asked for by allocations that succeeded; given back by frees of known blocks; of the
    /// range of mapping calls.
    pub bytes: u64,
    /// Calls that failed.
    pub failures: u64,
}

/// A kind of kernel call, and on whose behalf.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Act {
    /// What the kernel did.
    pub verb: Verb,
    /// The libc function that made the call; `None` for the program itself.
    pub via: Option<Via>,
}

/// What a kernel call did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    /// The break went up.
    BrkUp,
    /// The break went down.
    BrkDown,
    /// The break was asked for, or could not be moved.
    BrkSame,
    /// mmap.
    Mmap,
    /// mremap.
    Mremap,
    /// munmap.
    Munmap,
    /// mprotect.
    Mprotect,
    /// A heap of a thread arena was made.
    ArenaMade,
    /// It grew.
    ArenaGrown,
    /// It shrank.
    ArenaShrunk,
}

/// Kernel calls of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct KernelCalls {
    /// Calls, the failed ones included.
    pub count: u64,
    /// Bytes of those that succeeded, in whole pages; of mremap the bytes after, of an arena's heap how much it changed.
    pub bytes: u64,
    /// Calls that failed.
    pub failures: u64,
    /// The largest of them and the call that caused it, where that is known.
    pub largest: Option<Example>,
}

/// A kernel call and the call inside which it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Example {
    /// The bytes that the kernel gave or took.
    pub bytes: u64,
    /// Bytes that the libc call was asked for, or of the block that it freed.
    pub asked: u64,
    /// The alignment that it was asked for, 0 for none.
    pub align: u64,
}

impl Summary {
    /// Reads a log to its end.
    ///
    /// # Errors
    /// When it can't be read any more.
    pub fn read(log: &Log) -> Result<Summary, Error> {
        let mut tally = Tally::default();
        let outcome = replay(log, &mut tally)?;
        Ok(tally.finish(log, outcome))
    }

    /// Reads a log to its end and adds its sites to `sites`, in one go.
    ///
    /// # Errors
    /// When it can't be read any more.
    pub fn read_with_sites(log: &Log, sites: &mut Sites) -> Result<Summary, Error> {
        let mut tallies = (Tally::default(), sites.tally());
        let outcome = replay(log, &mut tallies)?;
        let (tally, site_tally) = tallies;
        sites.take(site_tally, &outcome.memory);
        Ok(tally.finish(log, outcome))
    }
}

impl Totals {
    /// Adds another log's totals.
    pub fn merge(&mut self, other: &Totals) {
        for (op, calls) in &other.calls {
            let sum = self.calls.entry(*op).or_default();
            sum.count += calls.count;
            sum.bytes = sum.bytes.saturating_add(calls.bytes);
            sum.failures += calls.failures;
        }
        for (act, calls) in &other.kernel {
            let sum = self.kernel.entry(*act).or_default();
            sum.count += calls.count;
            sum.bytes = sum.bytes.saturating_add(calls.bytes);
            sum.failures += calls.failures;
            if let Some(example) = calls.largest {
                sum.offer(example);
            }
        }
        self.sizes.merge(&other.sizes);
    }
}

impl KernelCalls {
    fn offer(&mut self, example: Example) {
        if self
            .largest
            .is_none_or(|largest| largest.bytes < example.bytes)
        {
            self.largest = Some(example);
        }
    }
}

/// Counts while a log is gone through.
struct Tally {
    calls: [Calls; Op::ALL.len()],
    kernel: BTreeMap<Act, KernelCalls>,
    sizes: Histogram,
    threads: FxHashMap<u32, ThreadAnswer>,
    /// The thread that had the last step: most steps belong to the same.
    present: ThreadAnswer,
    /// Inferred acquiring kernel calls whose cause is still to come: (thread, act, bytes).
    waiting: Vec<(u32, Act, u64)>,
    /// The last block that a thread gave back: (thread, time, bytes).
    freed: (u32, u64, u64),
    /// The heaps of thread arenas by their first byte, and their sizes.
    arenas: FxHashMap<Address, u64>,
}

impl Default for Tally {
    fn default() -> Self {
        Tally {
            calls: [Calls::default(); Op::ALL.len()],
            kernel: BTreeMap::new(),
            sizes: Histogram::default(),
            threads: FxHashMap::default(),
            present: ThreadAnswer {
                thread: u32::MAX,
                ..ThreadAnswer::default()
            },
            waiting: Vec::new(),
            freed: (0, 0, 0),
            arenas: FxHashMap::default(),
        }
    }
}

impl Visitor for Tally {
    fn begin(&mut self, _: &Log, memory: &Memory) {
        let arenas = memory.mappings.arenas();
        self.arenas = arenas.map(|arena| (arena.base, arena.size)).collect();
    }

    #[inline(always)]
    fn step(&mut self, step: &Step, change: &Change, memory: &Memory) {
        if step.thread != self.present.thread {
            self.turn_to(step.thread);
        }
        if let Some((_, block)) = change.born {
            self.sizes.add(block.size);
            self.present.allocated.add(block.size);
        }
        let event = step.event;
        let calls = &mut self.calls[event.op as usize];
        match &event.what {
            What::Alloc(call) => {
                calls.count += 1;
                if event.err.is_some() {
                    calls.failures += 1;
                } else {
                    calls.bytes = calls.bytes.saturating_add(call.bytes());
                }
                if !self.waiting.is_empty() {
                    self.cause(step, call.bytes(), call.align);
                }
            }
            What::Free(_) => {
                calls.count += 1;
                if let Some((_, block)) = change.died {
                    calls.bytes = calls.bytes.saturating_add(block.size);
                    self.freed = (step.thread, step.time, block.size);
                }
            }
            _ => self.rare(step, change, memory),
        }
        if step.half.is_last() {
            self.present.events += 1;
            self.present.tid = event.tid;
        }
    }
}

impl Tally {
    fn turn_to(&mut self, thread: u32) {
        let next = self.threads.remove(&thread).unwrap_or(ThreadAnswer {
            thread,
            ..ThreadAnswer::default()
        });
        let before = std::mem::replace(&mut self.present, next);
        self.threads.insert(before.thread, before);
    }

    fn rare(&mut self, step: &Step, change: &Change, memory: &Memory) {
        let event = step.event;
        let failed = event.err.is_some();
        match &event.what {
            What::Realloc(call) => {
                if let Some((_, block)) = change.died {
                    self.freed = (step.thread, step.time, block.size);
                }
                if !step.half.is_last() {
                    return;
                }
                let calls = &mut self.calls[event.op as usize];
                calls.count += 1;
                calls.failures += u64::from(failed);
                if !failed {
                    calls.bytes = calls.bytes.saturating_add(call.bytes());
                }
                self.cause(step, call.bytes(), 0);
            }
            What::Thread { name, .. } => self.present.name = printable(name),
            _ if step.half == Half::Release => {}
            _ => {
                if let Some((verb, mut bytes)) = kernel_act(event, memory.mappings.page()) {
                    if let What::Arena(arena) = &event.what {
                        let before = self.arenas.insert(arena.base, arena.size);
                        bytes = bytes.abs_diff(before.unwrap_or(0));
                    }
                    self.kernel_call(step, verb, bytes);
                }
            }
        }
    }

    fn kernel_call(&mut self, step: &Step, verb: Verb, bytes: u64) {
        let event = step.event;
        let failed = event.err.is_some();
        let act = Act {
            verb,
            via: event.via,
        };
        let bytes = if failed { 0 } else { bytes };
        let row = self.kernel.entry(act).or_default();
        row.count += 1;
        row.failures += u64::from(failed);
        row.bytes = row.bytes.saturating_add(bytes);
        if event.via.is_none() && event.op != Op::Arena {
            let calls = &mut self.calls[event.op as usize];
            calls.count += 1;
            calls.failures += u64::from(failed);
            calls.bytes = calls.bytes.saturating_add(bytes);
        }
        let Some(Via::Call(cause)) = event.via else {
            return;
        };
        if cause.allocates() {
            // A damaged log can hold any number of these without their causes.
            if self.waiting.len() >= MOST_WAITING {
                self.waiting.clear();
            }
            self.waiting.push((step.thread, act, bytes));
        } else if (self.freed.0, self.freed.1) == (step.thread, step.time) {
            row.offer(Example {
                bytes,
                asked: self.freed.2,
                align: 0,
            });
        }
    }

    /// A call that may be the cause of kernel calls before it.
    fn cause(&mut self, step: &Step, asked: u64, align: u64) {
        let mine = |waiting: &mut (u32, Act, u64)| waiting.0 == step.thread;
        for (_, act, bytes) in self.waiting.extract_if(.., mine) {
            if act.via == Some(Via::Call(step.event.op)) {
                self.kernel.entry(act).or_default().offer(Example {
                    bytes,
                    asked,
                    align,
                });
            }
        }
    }

    fn finish(mut self, log: &Log, outcome: Outcome) -> Summary {
        self.turn_to(u32::MAX);
        let mut threads: Vec<_> = self.threads.into_values().collect();
        threads.retain(|thread| thread.events > 0);
        threads.sort_by_key(|thread| thread.thread);
        let heap = &outcome.memory.heap;
        let mappings = &outcome.memory.mappings;
        let brk = mappings.brk();
        let real = |t| {
            log.mono_ns(t)
                .zip(log.mono_ns(0))
                .map(|(to, from)| to.saturating_sub(from))
        };
        Summary {
            log: log.path().into(),
            process: log.start().cloned(),
            duration_ns: real(outcome.last_t).unwrap_or(outcome.last_t),
            events: outcome.events,
            events_from_tail: log.events_from_tail(),
            file_order: log.is_in_file_order(),
            heap: HeapAnswer {
                peak: heap.peak(),
                end: heap.now(),
                inherited: heap.inherited(),
                counts: heap.counts(),
                oddities: heap.oddities(),
            },
            totals: Totals {
                calls: Op::ALL
                    .iter()
                    .map(|op| (*op, self.calls[*op as usize]))
                    .filter(|(_, calls)| calls.count > 0)
                    .collect(),
                kernel: self.kernel,
                sizes: self.sizes,
            },
            space: SpaceAnswer {
                brk_grown: brk.map_or(0, |brk| brk.now.wrapping_sub(brk.first) as i64),
                brk_peak: brk.map_or(0, |brk| brk.highest - brk.first),
                mapped_by_malloc: mappings.by_malloc(),
                mapped_by_program: mappings.by_program(),
                arenas: mappings.arenas().count() as u64,
                arena_bytes: mappings
                    .arenas()
                    .fold(0, |sum, arena| sum.saturating_add(arena.size)),
            },
            threads,
            completeness: outcome.completeness,
            damage: outcome.damage,
            inheritance: outcome.inheritance,
            lineage: outcome.lineage,
        }
    }
}

/// What a kernel call did and to how many bytes; `None` for other events.
fn kernel_act(event: &Event, page: u64) -> Option<(Verb, u64)> {
    use crate::event::ArenaChange::{Grown, Made, Other, Shrunk};
    let pages = |size: u64| size.checked_next_multiple_of(page).unwrap_or(u64::MAX);
    Some(match &event.what {
        What::Mmap(call) => (Verb::Mmap, pages(call.size)),
        What::Munmap(range) => (Verb::Munmap, pages(range.size)),
        What::Mremap(call) => (Verb::Mremap, pages(call.size)),
        What::Mprotect { range, .. } => (Verb::Mprotect, pages(range.size)),
        What::Brk(call) if call.to > call.from => (Verb::BrkUp, call.to - call.from),
        What::Brk(call) if call.to < call.from => (Verb::BrkDown, call.from - call.to),
        What::Brk(_) => (Verb::BrkSame, 0),
        What::Arena(arena) => match arena.change {
            // The size after; what it was before is for the caller to know.
            Made => (Verb::ArenaMade, arena.size),
            Grown => (Verb::ArenaGrown, arena.size),
            Shrunk => (Verb::ArenaShrunk, arena.size),
            Other => return None,
        },
        _ => return None,
    })
}

fn path<S: Serializer>(path: &Path, json: S) -> Result<S::Ok, S::Error> {
    json.serialize_str(&printable(path.as_os_str().as_bytes()))
}

fn process<S: Serializer>(start: &Option<Start>, json: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Process<'a> {
        pid: u32,
        ppid: u32,
        exe: String,
        argv: Vec<String>,
        argv_cut: bool,
        cwd: String,
        unix_ns: u64,
        mono_ns: u64,
        boot_id: &'a str,
        start_ticks: u64,
        pid_ns: u64,
        memspy: &'a str,
        libc: &'a str,
        allocator: String,
        inference: bool,
        mode: &'a str,
        stacks: &'a str,
    }
    start
        .as_ref()
        .map(|start| Process {
            pid: start.pid,
            ppid: start.ppid,
            exe: printable(&start.exe),
            argv: start.argv.iter().map(|arg| printable(arg)).collect(),
            argv_cut: start.argv_cut,
            cwd: printable(&start.cwd),
            unix_ns: start.unix_ns,
            mono_ns: start.mono_ns,
            boot_id: &start.boot_id,
            start_ticks: start.start_ticks,
            pid_ns: start.pid_ns,
            memspy: &start.memspy,
            libc: &start.libc,
            allocator: printable(&start.allocator),
            inference: start.inference,
            mode: &start.mode,
            stacks: &start.stacks,
        })
        .serialize(json)
}

fn inheritance<S: Serializer>(from: &Inheritance, json: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    #[serde(rename_all = "snake_case", tag = "kind")]
    enum From {
        None,
        Read { log: String, complete: bool },
        Missing { log: String, why: String },
    }
    let shown = |log: &PathBuf| printable(log.as_os_str().as_bytes());
    match from {
        Inheritance::None => From::None,
        Inheritance::Read { log, complete } => From::Read {
            log: shown(log),
            complete: *complete,
        },
        Inheritance::Missing { log, why } => From::Missing {
            log: shown(log),
            why: why.clone(),
        },
    }
    .serialize(json)
}

fn calls<S: Serializer>(calls: &BTreeMap<Op, Calls>, json: S) -> Result<S::Ok, S::Error> {
    json.collect_map(calls.iter().map(|(op, calls)| (op.name(), calls)))
}

fn kernel<S: Serializer>(rows: &BTreeMap<Act, KernelCalls>, json: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Row<'a> {
        call: Verb,
        via: Option<String>,
        #[serde(flatten)]
        calls: &'a KernelCalls,
    }
    json.collect_seq(rows.iter().map(|(act, calls)| Row {
        call: act.verb,
        via: act.via.map(|via| via.to_string()),
        calls,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testlog::TestLog;

    #[test]
    fn the_heap_of_an_arena_grows_and_shrinks_by_what_it_changed() {
        let arena = |t: u64, size: u64, change: &str| {
            format!(
                "{{\"op\":\"arena\",\"t\":{t},\"base\":\"0x4000000\",\"size\":{size},\
                 \"change\":\"{change}\",\"arena\":\"0x4000030\",\"via\":\"malloc\"}}"
            )
        };
        let lines = [
            arena(1, 135_168, "made"),
            arena(2, 139_264, "grown"),
            arena(3, 147_456, "grown"),
            arena(4, 135_168, "shrunk"),
        ];
        let mut log = TestLog::new("");
        log.block(1, &lines.each_ref().map(String::as_str));
        log.end(1, 5);
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("log");
        log.write(&path);
        let log = Log::open(&path).expect("a log");
        let summary = Summary::read(&log).expect("it can be read");
        let rows = summary.totals.kernel.iter();
        let rows: Vec<_> = rows
            .map(|(act, calls)| (act.verb, calls.count, calls.bytes))
            .collect();
        let expected = [
            (Verb::ArenaMade, 1, 135_168),
            (Verb::ArenaGrown, 2, 12_288),
            (Verb::ArenaShrunk, 1, 12_288),
        ];
        assert_eq!(rows, expected);
        assert_eq!(summary.space.arena_bytes, 135_168);
    }
}
