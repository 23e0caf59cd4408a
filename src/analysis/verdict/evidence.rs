//! What one log says about its process's leaks, before anybody judges it.

use std::collections::HashMap;
use std::path::Path;

use super::frame::last_component;
use super::peak::Levels;
use super::point::by_stack;
use super::window::Bounds;
use super::{Ending, Held, Kind, Leak, Mark, Measures, Point, Process, Totals, Window};
use crate::complete;
use crate::error::Error;
use crate::event::{self, StackId, Start, What};
use crate::lineage::{self, Lineage, LostChild, NO_LOG, is_exec};
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
    /// Of such a log, what the window left live.
    pub live: Vec<Held>,
    /// What it tells of other programs.
    pub lineage: Lineage,
    /// The moments at which somebody looked.
    pub points: Vec<Point>,
    /// The names that somebody gave to moments.
    pub marks: Vec<Mark>,
    /// The mark of the window that this process does not have: nothing of it counts.
    pub lacks: Option<String>,
    /// Wall clock when the image started, nanoseconds since 1970.
    pub unix_ns: u64,
    /// The name by which it was called, last component alone: `sh` where `exe` is dash.
    pub called: String,
    /// How much memory was live when, for the peak of the tree.
    pub levels: Levels,
}

impl Evidence {
    /// Reads a log to its end. Leaks are those of the window.
    ///
    /// # Errors
    /// When the log can't be read any more. What is wrong inside of it becomes a doubt.
    pub fn read(log: &Log, window: &Window) -> Result<Evidence, Error> {
        let mut watch = Watch::new(window);
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
        let (bounds, lacks) = match window.among(&watch.marks) {
            Ok(bounds) => (bounds, None),
            Err(name) => (Bounds::default(), Some(name)),
        };
        process.doubts.extend(bounds.doubts());
        let check = watch.deciding(&bounds);
        if !events_only {
            let sandboxed = log.tail().is_some_and(|tail| tail.control.sandboxed);
            let doubts = check_doubts(check, &outcome.completeness.ending, &bounds);
            process.doubts.extend(if check.is_none() && sandboxed {
                vec![SANDBOXED.into()]
            } else {
                doubts
            });
        }
        let mut stacks = Vec::new();
        let leaks = check.map_or_else(Vec::new, |check| check.leaks_in(&bounds));
        if lacks.is_none() {
            (process.leaks, stacks) = leaks.into_iter().unzip();
        }
        let live = match watch.live_then.take() {
            Some(live) => live,
            None if events_only && lacks.is_none() => live(&outcome.memory, bounds.since.as_ref()),
            None => Vec::new(),
        };
        Ok(Evidence {
            process,
            stacks,
            memory: outcome.memory,
            events_only,
            live,
            lineage: outcome.lineage,
            points: if events_only {
                watch.points
            } else {
                watch.checks.iter().filter_map(Check::point).collect()
            },
            marks: watch.marks,
            lacks,
            unix_ns: start.unix_ns,
            called: start.argv.first().map_or_else(String::new, |argv0| {
                last_component(&String::from_utf8_lossy(argv0)).to_owned()
            }),
            levels: watch.levels,
        })
    }
}

/// The live blocks of a log of events by call stack: those allocated after the mark.
fn live(memory: &Memory, since: Option<&Mark>) -> Vec<Held> {
    let inside = |block: &&LiveBlock| since.is_none_or(|mark| block.t >= mark.t);
    let blocks = memory.heap.live().map(|(_, block)| block);
    by_stack(blocks.filter(inside).map(|block| Held {
        // An inherited block's stack is a number of the parent's log.
        stack: if block.inherited { 0 } else { block.stack },
        inherited: block.inherited,
        totals: Totals {
            bytes: block.size,
            blocks: 1,
        },
    }))
}

/// An image that became another program whose log is not among these leaves that program unjudged. Adds the doubt where
/// it belongs.
pub fn doubt_lost_images(all: &mut [Evidence]) {
    let images: Vec<&Lineage> = all.iter().map(|one| &one.lineage).collect();
    for lost in lineage::lost_images(&images) {
        let why = format!("it became another program that {NO_LOG}");
        all[lost].process.doubts.push(why);
    }
}

/// The processes that are known only from their parents: they began another program in their parent's
/// memory, and that program left no log. `reason` may know why, by the path of the program.
pub fn lost_children(all: &[Evidence], reason: impl Fn(&[u8]) -> Option<String>) -> Vec<Process> {
    let images: Vec<&Lineage> = all.iter().map(|one| &one.lineage).collect();
    let process = |lost: LostChild| Process {
        pid: lost.pid,
        parent: Some(images[lost.parent].pid),
        program: last_component(&String::from_utf8_lossy(&lost.path)).to_owned(),
        log: String::new(),
        ending: Ending::Unknown,
        skipped: false,
        doubts: vec![match reason(&lost.path) {
            Some(reason) => format!("it left no log: {reason}"),
            None => format!("it {NO_LOG}"),
        }],
        leaks: Vec::new(),
        measures: Measures::default(),
    };
    lineage::lost_children(&images)
        .into_iter()
        .map(process)
        .collect()
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

/// Why a process in a sandbox has no check.
const SANDBOXED: &str = "it put itself into a seccomp sandbox, in which memspy makes no system calls: \
                         there is no leak check";

/// Why the check that decides does not decide.
fn check_doubts(check: Option<&Check>, ending: &complete::Ending, bounds: &Bounds) -> Vec<String> {
    let running = *ending == complete::Ending::Running;
    let Some(check) = check else {
        let why = match ending {
            _ if bounds.until.is_some() => "it has made no leak check since the mark",
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
    if check.groups.len() as u64 + check.unknown != check.head.groups {
        doubts.push("lines of its leak check are missing".into());
    }
    if check.unknown > 0 {
        doubts.push("its leak check has kinds that this memspy does not know".into());
    }
    if !check.at_end() && !running && bounds.until.is_none() {
        doubts.push("it ended without a leak check; the last one was made on request".into());
    }
    doubts
}

/// One leak check with its lines.
struct Check {
    head: event::Check,
    t: u64,
    groups: Vec<Group>,
    /// Lines of kinds that this version does not know.
    unknown: u64,
}

/// A `leak` line.
struct Group {
    kind: Kind,
    inherited: bool,
    generation: u32,
    stack: StackId,
    totals: Totals,
}

impl Check {
    /// Whether it was made when the image ended, not on demand.
    fn at_end(&self) -> bool {
        matches!(&*self.head.when, "exit" | "exec")
    }

    /// The leaks of the window, those of one kind and stack together, in the order of the log.
    fn leaks_in(&self, bounds: &Bounds) -> Vec<(Leak, StackId)> {
        let mut leaks: Vec<(Leak, StackId)> = Vec::new();
        let mut places: HashMap<(Kind, StackId, bool), usize> = HashMap::new();
        for group in self
            .groups
            .iter()
            .filter(|group| bounds.holds(group.generation))
        {
            let key = (group.kind, group.stack, group.inherited);
            let place = *places.entry(key).or_insert_with(|| {
                let leak = Leak {
                    kind: group.kind,
                    blocks: 0,
                    bytes: 0,
                    frames: Vec::new(),
                    cut: false,
                    inherited: group.inherited,
                };
                leaks.push((leak, group.stack));
                leaks.len() - 1
            });
            let leak = &mut leaks[place].0;
            leak.blocks = leak.blocks.saturating_add(group.totals.blocks);
            leak.bytes = leak.bytes.saturating_add(group.totals.bytes);
        }
        leaks
    }

    /// All that was live then, if the check was made on request and is whole.
    fn point(&self) -> Option<Point> {
        (!self.at_end() && self.head.complete).then(|| Point {
            mark: self.head.mark.clone(),
            t: self.t,
            held: by_stack(self.groups.iter().map(|group| Held {
                stack: group.stack,
                inherited: group.inherited,
                totals: group.totals,
            })),
        })
    }
}

/// Collects checks and marks, and counts what the budgets need.
struct Watch<'a> {
    window: &'a Window,
    checks: Vec<Check>,
    marks: Vec<Mark>,
    /// Of a log of events alone: what was live at each mark.
    points: Vec<Point>,
    /// And what of the window was live at its end.
    live_then: Option<Vec<Held>>,
    events_only: bool,
    /// CLOCK_MONOTONIC when the image started, nanoseconds.
    began: u64,
    allocs: u64,
    mmaps: u64,
    now: u64,
    peak: u64,
    levels: Levels,
}

impl<'a> Watch<'a> {
    fn new(window: &'a Window) -> Watch<'a> {
        Watch {
            window,
            checks: Vec::new(),
            marks: Vec::new(),
            points: Vec::new(),
            live_then: None,
            events_only: false,
            began: 0,
            allocs: 0,
            mmaps: 0,
            now: 0,
            peak: 0,
            levels: Levels::default(),
        }
    }

    /// The check that judges the window: the first at its end or after it. Without an end the last one at an end of the
    /// image, or the last one at all.
    fn deciding(&self, bounds: &Bounds) -> Option<&Check> {
        if let Some(until) = &bounds.until {
            return self.checks.iter().find(|check| check.t >= until.t);
        }
        let at_end = self.checks.iter().rev().find(|check| check.at_end());
        at_end.or(self.checks.last())
    }

    fn mark(&mut self, mark: Mark, memory: &Memory) {
        self.marks.push(mark.clone());
        if !self.events_only {
            return;
        }
        self.points.push(Point {
            mark: mark.name.clone(),
            t: mark.t,
            held: live(memory, None),
        });
        let ends = |until: &String| *mark.name == *until.as_bytes();
        if self.window.until.as_ref().is_some_and(ends)
            && let Ok(bounds) = self.window.among(&self.marks)
        {
            self.live_then = Some(live(memory, bounds.since.as_ref()));
        }
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
            .record(self.began.saturating_add(time), self.now);
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
            Some(kind) => check.groups.push(Group {
                kind,
                inherited: line.inherited,
                generation: line.generation,
                stack,
                totals: Totals {
                    bytes: line.bytes,
                    blocks: line.blocks,
                },
            }),
            None => check.unknown += 1,
        }
    }
}

impl Visitor for Watch<'_> {
    fn begin(&mut self, log: &Log, _memory: &Memory) {
        if let Some(start) = log.start() {
            self.began = start.mono_ns;
        }
        self.events_only = log.start().is_some_and(|start| &*start.mode == "events");
    }

    fn step(&mut self, step: &Step, change: &Change, memory: &Memory) {
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
                    t: step.time,
                    groups: Vec::new(),
                    unknown: 0,
                });
            }
            What::Mark { name, generation } => {
                let mark = Mark {
                    name: name.clone(),
                    t: step.time,
                    generation: *generation,
                };
                self.mark(mark, memory);
            }
            What::Leak(line) => self.leak(line, step.event.stack),
            _ => {}
        }
    }
}
