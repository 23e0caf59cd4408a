//! What one log says about its process's leaks, before anybody judges it.

use std::path::Path;

use super::frame::last_component;
use super::peak::Levels;
use super::{Ending, Kind, Leak, Measures, Process};
use crate::complete;
use crate::error::Error;
use crate::event::{self, StackId, Start, What};
use crate::log::Log;
use crate::merge::Step;
use crate::model::{Change, LiveBlock, Memory};
use crate::printable;
use crate::replay::{Outcome, Visitor, replay};

/// A log's testimony.
#[derive(Debug)]
pub struct Evidence {
    /// The process; the leaks have no frames yet.
    pub process: Process,
    /// The stack of each of the process's leaks, in their order.
    pub stacks: Vec<StackId>,
    /// The stacks and modules that the numbers mean.
    pub memory: Memory,
    /// The log is of mode `events`: it has no leak check, and only budgets can be judged.
    pub events_only: bool,
    /// CLOCK_MONOTONIC when the image started, nanoseconds.
    pub began: u64,
    /// Wall clock then, nanoseconds since 1970.
    pub unix_ns: u64,
    /// The executable's path, bytes from outside.
    pub exe: Box<[u8]>,
    /// The name by which it was called, last component alone: `sh` where `exe` is dash.
    pub called: String,
    /// How much memory was live when, for the peak of the tree.
    pub levels: Levels,
}

impl Evidence {
    /// Reads a log to its end.
    ///
    /// # Errors
    /// When the log can't be read any more. What is wrong inside of it becomes a doubt.
    pub fn read(log: &Log) -> Result<Evidence, Error> {
        let mut watch = Watch::default();
        let outcome = replay(log, &mut watch)?;
        let start = log.start().cloned().unwrap_or_default();
        let mut process = process(log, &start, &outcome);
        let events_only = &*start.mode == "events" && watch.checks.is_empty();
        if &*start.mode != "leaks" {
            process.measures = Measures {
                peak_bytes: Some(watch.peak),
                allocs: Some(watch.allocs),
                mmaps: Some(watch.mmaps),
            };
        }
        let check = watch.deciding();
        if !events_only {
            process
                .doubts
                .extend(check_doubts(check, &outcome.completeness.ending));
        }
        let mut stacks = Vec::new();
        for (leak, stack) in check.map_or(&[][..], |check| &check.leaks) {
            stacks.push(*stack);
            process.leaks.push(leak.clone());
        }
        Ok(Evidence {
            process,
            stacks,
            memory: outcome.memory,
            events_only,
            began: start.mono_ns,
            unix_ns: start.unix_ns,
            called: start.argv.first().map_or_else(String::new, |argv0| {
                last_component(&String::from_utf8_lossy(argv0)).to_owned()
            }),
            exe: start.exe,
            levels: watch.levels,
        })
    }
}

/// Of images of one process id, each must lead to the next: one that became another program whose
/// log is not among these leaves that program unjudged. Adds the doubt where it belongs.
pub fn doubt_lost_images(all: &mut [Evidence]) {
    let images: Vec<(u32, u64)> = all.iter().map(|one| (one.process.pid, one.began)).collect();
    for one in all
        .iter_mut()
        .filter(|one| one.process.ending == Ending::Exec)
    {
        let followed = images
            .iter()
            .any(|(pid, began)| *pid == one.process.pid && *began > one.began);
        if !followed {
            let lost = "it became another program that left no log (static, setuid, a cleared \
                        environment?)";
            one.process.doubts.push(lost.into());
        }
    }
}

fn process(log: &Log, start: &Start, outcome: &Outcome) -> Process {
    let exe = String::from_utf8_lossy(&start.exe);
    let completeness = &outcome.completeness;
    let mut doubts: Vec<String> = completeness
        .reasons
        .iter()
        .map(|reason| format!("its log is incomplete: {reason}"))
        .collect();
    // A log without a start line has no allocator; that it is incomplete stands there already.
    if !start.allocator.is_empty() && &*start.allocator != b"glibc" {
        let allocator = printable(&start.allocator);
        doubts.push(format!(
            "its malloc is {allocator}, not glibc's: its blocks are not checked"
        ));
    }
    Process {
        pid: log.pid(),
        parent: (start.ppid > 0).then_some(start.ppid),
        program: last_component(&exe).to_owned(),
        log: Path::new(log.path()).display().to_string(),
        ending: match &completeness.ending {
            complete::Ending::Said(how) if is_exec(how) => Ending::Exec,
            complete::Ending::Said(how) => Ending::Exit(how.clone()),
            _ => Ending::Unknown,
        },
        skipped: false,
        doubts,
        leaks: Vec::new(),
        measures: Measures::default(),
    }
}

/// Whether an `end` line's word is one of the exec family.
fn is_exec(how: &str) -> bool {
    how.starts_with("exec") || how == "fexecve"
}

/// Why the check that decides does not decide.
fn check_doubts(check: Option<&Check>, ending: &complete::Ending) -> Vec<String> {
    let running = *ending == complete::Ending::Running;
    let Some(check) = check else {
        let why = match ending {
            complete::Ending::Running => "it still runs and has made no leak check",
            complete::Ending::Killed => "it was killed or crashed before its leak check",
            _ => "its log has no leak check",
        };
        return vec![why.into()];
    };
    let mut doubts = Vec::new();
    if !check.head.complete {
        let why = printable(&check.head.why);
        doubts.push(match why.as_str() {
            "" => "its leak check is incomplete".into(),
            why => format!("its leak check is incomplete: {why}"),
        });
    }
    if check.leaks.len() as u64 + check.unknown != check.head.groups {
        doubts.push("lines of its leak check are missing".into());
    }
    if check.unknown > 0 {
        doubts.push("its leak check has kinds that this memspy does not know".into());
    }
    if !check.at_end() && !running {
        doubts.push("it ended without a leak check; the last one was made on request".into());
    }
    doubts
}

/// One leak check with its lines.
struct Check {
    head: event::Check,
    leaks: Vec<(Leak, StackId)>,
    /// Lines of kinds that this version does not know.
    unknown: u64,
}

impl Check {
    /// Whether it was made when the image ended, not on demand.
    fn at_end(&self) -> bool {
        matches!(&*self.head.when, "exit" | "exec")
    }
}

/// Collects the checks and counts what the budgets need.
#[derive(Default)]
struct Watch {
    checks: Vec<Check>,
    allocs: u64,
    mmaps: u64,
    now: u64,
    peak: u64,
    levels: Levels,
    /// CLOCK_MONOTONIC at t=0.
    start: u64,
}

impl Watch {
    /// The last check at an end of the image; without any, the last one at all.
    fn deciding(&self) -> Option<&Check> {
        let at_end = self.checks.iter().rev().find(|check| check.at_end());
        at_end.or(self.checks.last())
    }

    /// Inherited blocks are the parent's, also while the child frees them.
    fn count(&mut self, time: u64, change: &Change) {
        let own = |block: &LiveBlock| if block.inherited { 0 } else { block.size };
        if let Some((_, block)) = &change.died {
            self.now = self.now.saturating_sub(own(block));
        }
        if let Some((_, block)) = &change.born {
            self.now = self.now.saturating_add(own(block));
        }
        self.peak = self.peak.max(self.now);
        self.levels
            .record(self.start.saturating_add(time), self.now);
    }

    fn leak(&mut self, line: &event::Leak, stack: StackId) {
        let Some(check) = self
            .checks
            .iter_mut()
            .rfind(|check| check.head.id == line.check)
        else {
            return;
        };
        match Kind::from_name(&line.kind) {
            Some(kind) => {
                let (blocks, bytes, inherited) = (line.blocks, line.bytes, line.inherited);
                let leak = Leak {
                    kind,
                    blocks,
                    bytes,
                    frames: Vec::new(),
                    cut: false,
                    inherited,
                };
                check.leaks.push((leak, stack));
            }
            None => check.unknown += 1,
        }
    }
}

impl Visitor for Watch {
    fn begin(&mut self, log: &Log, _memory: &Memory) {
        self.start = log.start().map_or(0, |start| start.mono_ns);
    }

    fn step(&mut self, step: &Step, change: &Change, _memory: &Memory) {
        if change.died.is_some() || change.born.is_some() {
            self.count(step.time, change);
        }
        if !step.half.is_last() || step.event.err.is_some() {
            return;
        }
        match &step.event.what {
            What::Alloc(call) => self.allocs += u64::from(call.ptr != 0),
            What::Realloc(call) => self.allocs += u64::from(call.ptr != 0),
            What::Mmap(_) => self.mmaps += u64::from(step.event.via.is_none()),
            What::Check(head) => {
                let head = event::Check::clone(head);
                self.checks.push(Check {
                    head,
                    leaks: Vec::new(),
                    unknown: 0,
                });
            }
            What::Leak(line) => self.leak(line, step.event.stack),
            _ => {}
        }
    }
}
