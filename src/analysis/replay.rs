//! Goes through a log in time order with the memory it describes: what every analysis plugs into.

use crate::complete::{Completeness, Witness};
use crate::damage::Damage;
use crate::error::Error;
use crate::event::{Address, Parent};
use crate::lineage::Lineage;
use crate::log::Log;
use crate::merge::{Cut, Merge, Sink, Step};
use crate::model::{Change, Memory};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// How many generations of forked parents are followed for inherited blocks.
const MOST_GENERATIONS: usize = 64;

/// Something that watches the events of one log.
pub trait Visitor {
    /// Called before the first event with what the image began with: nothing, or what a forked
    /// child has from its parent.
    fn begin(&mut self, _log: &Log, _memory: &Memory) {}

    /// Called at each moment of each event, in time order. `memory` has taken the step already,
    /// `change` is what the step did to the heap's blocks.
    ///
    /// An event that gives memory back and takes some (realloc, mremap) comes twice, see
    /// [`crate::merge::Half`]; count it where [`crate::merge::Half::is_last`] is true.
    fn step(&mut self, step: &Step, change: &Change, memory: &Memory);

    /// Whether no more events are wanted: the replay then ends before the log does, and what its
    /// outcome says holds up to there.
    fn is_done(&self) -> bool {
        false
    }
}

impl<A: Visitor, B: Visitor> Visitor for (A, B) {
    fn begin(&mut self, log: &Log, memory: &Memory) {
        self.0.begin(log, memory);
        self.1.begin(log, memory);
    }

    #[inline(always)]
    fn step(&mut self, step: &Step, change: &Change, memory: &Memory) {
        self.0.step(step, change, memory);
        self.1.step(step, change, memory);
    }

    fn is_done(&self) -> bool {
        self.0.is_done() && self.1.is_done()
    }
}

impl<V: Visitor + ?Sized> Visitor for &mut V {
    fn begin(&mut self, log: &Log, memory: &Memory) {
        (**self).begin(log, memory);
    }

    #[inline(always)]
    fn step(&mut self, step: &Step, change: &Change, memory: &Memory) {
        (**self).step(step, change, memory);
    }

    fn is_done(&self) -> bool {
        (**self).is_done()
    }
}

/// What is known when a log has been gone through.
#[derive(Debug)]
pub struct Outcome {
    /// The memory as it was at the end.
    pub memory: Memory,
    /// Whether every event is there.
    pub completeness: Completeness,
    /// What was wrong in the log, of both passes.
    pub damage: Damage,
    /// Of a forked child: what became of its parent's blocks.
    pub inheritance: Inheritance,
    /// Events read, each counted once.
    pub events: u64,
    /// The time of the last event, nanoseconds since the image started.
    pub last_t: u64,
    /// What the log tells of other programs.
    pub lineage: Lineage,
}

/// Where a forked child's first blocks came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inheritance {
    /// The image was not forked from a recorded one.
    None,
    /// The parent's log was read.
    Read {
        /// Its path.
        log: PathBuf,
        /// Whether the parent's log, and those of its parents, held all the events.
        complete: bool,
    },
    /// The parent's log is not there: frees of inherited blocks are oddities.
    Missing {
        /// Where it was looked for.
        log: PathBuf,
        /// Why it could not be read.
        why: String,
    },
}

/// Goes through a log from its first event to its last.
///
/// # Errors
/// When the log can't be read any more.
pub fn replay<V: Visitor>(log: &Log, visitor: &mut V) -> Result<Outcome, Error> {
    let (memory, inheritance) = inherited(log, 0);
    visitor.begin(log, &memory);
    let mut stage = Stage {
        memory,
        visitor,
        witness: Witness::new(log),
        events: 0,
        last_t: 0,
    };
    let mut merge = Merge::new(log);
    merge.drain_into(&mut stage)?;
    let mut damage = log.damage().clone();
    damage.add(merge.damage());
    Ok(Outcome {
        completeness: stage.witness.judge(log, &damage),
        memory: stage.memory,
        damage,
        inheritance,
        events: stage.events,
        last_t: stage.last_t,
        lineage: stage.witness.lineage,
    })
}

/// Where events meet memory and visitor.
struct Stage<'v, V> {
    memory: Memory,
    visitor: &'v mut V,
    witness: Witness,
    events: u64,
    last_t: u64,
}

impl<V: Visitor> Sink for Stage<'_, V> {
    #[inline]
    fn ahead(&mut self, coming: impl Iterator<Item = Address>) {
        self.memory.heap.warm(coming);
    }

    #[inline(always)]
    fn step(&mut self, step: Step) -> ControlFlow<()> {
        let change = self.memory.apply(&step);
        self.witness.step(&step);
        self.events += u64::from(step.half.is_last());
        self.last_t = step.time;
        self.visitor.step(&step, &change, &self.memory);
        if self.visitor.is_done() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }
}

/// The memory with which an image began.
pub(crate) fn inherited(log: &Log, generation: usize) -> (Memory, Inheritance) {
    let page = log.start().map_or(0, |start| start.page);
    let Some(parent) = log.start().and_then(|start| start.forked_from.as_ref()) else {
        return (Memory::new(page), Inheritance::None);
    };
    let path = parent_log(log.path(), parent);
    let read = if generation < MOST_GENERATIONS {
        read_parent(log, &path, parent, generation)
    } else {
        Err(format!(
            "more than {MOST_GENERATIONS} generations of parents"
        ))
    };
    match read {
        Ok((memory, complete)) => (
            memory,
            Inheritance::Read {
                log: path,
                complete,
            },
        ),
        Err(why) => (Memory::new(page), Inheritance::Missing { log: path, why }),
    }
}

/// Where a child's parent's log lies: beside the child's own, for logs are moved together, else
/// where it was written. A compressed one will do.
fn parent_log(child: &Path, parent: &Parent) -> PathBuf {
    let given = Path::new(OsStr::from_bytes(&parent.log));
    let beside = child.with_file_name(given.file_name().unwrap_or_default());
    let compressed = |path: &Path| {
        let mut name = path.as_os_str().to_owned();
        name.push(".zst");
        PathBuf::from(name)
    };
    let places = [
        beside.clone(),
        compressed(&beside),
        given.to_owned(),
        compressed(given),
    ];
    let found = places.into_iter().find(|path| path.is_file());
    found.unwrap_or(beside)
}

fn read_parent(
    child: &Log,
    path: &Path,
    parent: &Parent,
    generation: usize,
) -> Result<(Memory, bool), String> {
    let log = Log::open(path).map_err(|why| why.in_full())?;
    if log.pid() != parent.pid {
        return Err(format!(
            "it is the log of process {}, not of {}",
            log.pid(),
            parent.pid
        ));
    }
    let boot = |log: &Log| log.start().map(|start| start.boot_id.clone());
    if boot(&log) != boot(child) {
        return Err("it is the log of another boot's process".into());
    }
    let (mut memory, before) = inherited(&log, generation + 1);
    let cut = Cut::of(parent);
    let mut seen: HashMap<u32, u64> = HashMap::new();
    let mut merge = Merge::up_to(&log, cut);
    merge
        .run(|step| {
            memory.apply(&step);
            let last = seen.entry(step.thread).or_default();
            *last = step.n.max(*last);
            ControlFlow::Continue(())
        })
        .map_err(|why| why.in_full())?;
    let whole = parent
        .cut
        .iter()
        .all(|(thread, n)| seen.get(thread).copied().unwrap_or(0) >= *n);
    let complete = whole
        && merge.damage().is_none()
        && log.damage().is_none()
        && !matches!(
            before,
            Inheritance::Missing { .. }
                | Inheritance::Read {
                    complete: false,
                    ..
                }
        );
    Ok((memory.into_child(), complete))
}
