//! Whether a log holds every event of its image: proven by numbers, never guessed.
//!
//! FORMAT.md, *Complete*, has the rule. Each thread's events are numbered from 1; the `end` line,
//! blocks marked as a thread's last, and the buffers of the tail vouch for the last number.

use crate::damage::Damage;
use crate::event::{End, Event, What};
use crate::index::Block;
use crate::lineage::Lineage;
use crate::log::Log;
use crate::merge::Step;
use crate::tail::Tail;
use crate::text::some;
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;
use std::fmt;

/// Whether a log is complete, and how its image ended.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Completeness {
    /// Whether every event up to the end (or, for a running program, up to now) is there.
    pub complete: bool,
    /// How the image ended.
    pub ending: Ending,
    /// Why the log is not complete; empty when it is.
    pub reasons: Vec<Reason>,
}

/// How an image ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind", content = "how")]
pub enum Ending {
    /// By itself; the `how` of its `end` line.
    Said(String),
    /// Without a last word (killed, crashed); the tail was left.
    Killed,
    /// It still runs.
    Running,
    /// The log does not say.
    Unknown,
}

/// Why a log is not complete. Its text is a clause: "the end is missing".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Neither an `end` line nor a tail.
    NoEnd,
    /// No first line.
    NoStart,
    /// No block lines: the lines are not counted.
    NoBlocks,
    /// Events of a thread are missing between others.
    Gap {
        /// memspy's number of the thread.
        thread: u32,
        /// How many.
        events: u64,
    },
    /// A thread's last events are missing.
    Short {
        /// memspy's number of the thread.
        thread: u32,
        /// How many.
        events: u64,
    },
    /// Threads that were given a number but have no event.
    Threads(u64),
    /// Writing failed and did not go on.
    Stopped(String),
    /// Events that memspy could not keep.
    Lost(u64),
    /// Damaged blocks.
    Blocks(u64),
    /// Lines that can't be read.
    Lines(u64),
    /// The compressed file is cut.
    Cut,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Reason::NoEnd => write!(f, "the end is missing"),
            Reason::NoStart => write!(f, "the first line is missing"),
            Reason::NoBlocks => write!(
                f,
                "it was cut or filtered (no block lines), so what is missing can't be known"
            ),
            Reason::Gap { thread, events } => {
                write!(
                    f,
                    "{} of thread {thread} missing inside",
                    some(*events, "event")
                )
            }
            Reason::Short { thread, events } => write!(
                f,
                "the last {} of thread {thread} missing",
                some(*events, "event")
            ),
            Reason::Threads(threads) => write!(f, "{} without any event", some(*threads, "thread")),
            Reason::Stopped(why) => {
                let why = crate::text::printable(why.as_bytes());
                write!(f, "writing stopped ({why})")
            }
            Reason::Lost(events) => write!(f, "{} could not be kept", some(*events, "event")),
            Reason::Blocks(blocks) => write!(f, "{} damaged", some(*blocks, "block")),
            Reason::Lines(lines) => write!(f, "{} unreadable", some(*lines, "line")),
            Reason::Cut => write!(f, "the compressed file is cut"),
        }
    }
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, json: S) -> Result<S::Ok, S::Error> {
        json.collect_str(self)
    }
}

/// The lines of a log that bear witness about it and about other programs, collected while it is gone through.
#[derive(Debug)]
pub(crate) struct Witness {
    end: Option<End>,
    stopped: Option<String>,
    lost: u64,
    pub(crate) lineage: Lineage,
}

impl Witness {
    /// Of a log of which no event has been read.
    pub(crate) fn new(log: &Log) -> Witness {
        Witness {
            end: None,
            stopped: None,
            lost: 0,
            lineage: Lineage::new(log),
        }
    }

    #[inline]
    pub(crate) fn step(&mut self, step: &Step) {
        if let Event {
            what: What::End(_) | What::Stopped { .. } | What::Resumed { .. } | What::Spawn { .. },
            ..
        } = step.event
        {
            self.note(&step.event.what);
        }
    }

    fn note(&mut self, what: &What) {
        self.lineage.take(what);
        match what {
            What::End(end) => {
                self.lost = self.lost.max(end.lost);
                self.end = Some(End::clone(end));
            }
            What::Stopped { why, .. } => self.stopped = Some(why.to_string()),
            What::Resumed { lost, .. } => {
                self.stopped = None;
                self.lost = self.lost.max(*lost);
            }
            _ => {}
        }
    }

    /// Judges a log that was gone through to its end.
    pub(crate) fn judge(&self, log: &Log, damage: &Damage) -> Completeness {
        let tail = log.tail();
        let ending = match (&self.end, tail) {
            (Some(end), _) => Ending::Said(end.how.to_string()),
            (None, Some(_)) if log.is_running() => Ending::Running,
            (None, Some(_)) => Ending::Killed,
            (None, None) => Ending::Unknown,
        };
        let mut reasons = Vec::new();
        if log.start().is_none() {
            reasons.push(Reason::NoStart);
        }
        if log.is_in_file_order() {
            reasons.push(Reason::NoBlocks);
        } else {
            self.numbers(log, &mut reasons);
        }
        let lost = self.lost.max(tail.map_or(0, |tail| tail.control.lost));
        if lost > 0 {
            reasons.push(Reason::Lost(lost));
        }
        let stopped = self.stopped.clone().or_else(|| {
            // What could not be written since is in the tail, as long as there was room; without threads it never began.
            let harms = |tail: &&Tail| lost > 0 || log.is_running() || tail.control.streams == 0;
            tail.filter(|tail| tail.stopped())
                .filter(harms)
                .map(|tail| tail.stop_name())
        });
        reasons.extend(stopped.map(Reason::Stopped));
        if damage.bad_blocks > 0 {
            reasons.push(Reason::Blocks(damage.bad_blocks));
        }
        if damage.bad_lines + damage.long_lines > 0 {
            reasons.push(Reason::Lines(damage.bad_lines + damage.long_lines));
        }
        if log.source.is_cut() {
            reasons.push(Reason::Cut);
        }
        if self.end.is_none() && tail.is_none() {
            reasons.push(Reason::NoEnd);
        }
        Completeness {
            complete: reasons.is_empty(),
            ending,
            reasons,
        }
    }

    /// Compares the numbers that are there with those that should be.
    fn numbers(&self, log: &Log, reasons: &mut Vec<Reason>) {
        let mut vouched: BTreeMap<u32, u64> = BTreeMap::new();
        let end = self.end.iter().flat_map(|end| &end.open);
        let tail = log.tail().into_iter().flat_map(|tail| &tail.vouched);
        for (thread, n) in end.chain(&log.index.last).chain(tail) {
            let last = vouched.entry(*thread).or_default();
            *last = (*n).max(*last);
        }
        let mut threads = 0;
        for run in log.index.blocks.chunk_by(|a, b| a.thread == b.thread) {
            let thread = run[0].thread;
            if run[0].loose() {
                continue;
            }
            threads += u64::from(thread > 0);
            let (gap, last) = count(run);
            if gap > 0 {
                reasons.push(Reason::Gap {
                    thread,
                    events: gap,
                });
            }
            let short = vouched.remove(&thread).unwrap_or(0).saturating_sub(last);
            if short > 0 {
                reasons.push(Reason::Short {
                    thread,
                    events: short,
                });
            }
        }
        // Threads that are vouched for but have no block at all: one that has just begun has no event.
        threads += vouched
            .iter()
            .filter(|(thread, n)| **thread > 0 && **n == 0)
            .count() as u64;
        let gone = vouched.iter().filter(|(_, n)| **n > 0);
        reasons.extend(gone.map(|(thread, n)| Reason::Short {
            thread: *thread,
            events: *n,
        }));
        let vouched_streams = self.end.as_ref().map_or(0, |end| end.streams);
        let streams = vouched_streams.max(log.tail().map_or(0, |tail| tail.control.streams));
        if streams > threads {
            reasons.push(Reason::Threads(streams - threads));
        }
    }
}

/// Of one thread's blocks: how many numbers are missing between them, and the last number.
fn count(blocks: &[Block]) -> (u64, u64) {
    let mut gap = 0;
    let mut next = 1;
    for block in blocks {
        gap += block.n.saturating_sub(next);
        next = next.max(block.n.saturating_add(u64::from(block.events)));
    }
    (gap, next - 1)
}
