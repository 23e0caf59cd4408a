//! How much memory there was at which time.

use super::account::Space;
use crate::event::What;
use crate::log::Log;
use crate::merge::Step;
use crate::model::{Change, Memory, Peak};
use crate::replay::Visitor;

/// More points than this are halved: twice the pixels of a wide screen.
const MOST_POINTS: usize = 4096;

/// The most that there was in a span of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Point {
    /// The span's first moment with an event, nanoseconds since the image started.
    pub t: u64,
    /// Bytes in live blocks.
    pub in_use: u64,
    /// Bytes that malloc held: heap segment, thread arenas, its own mappings.
    pub held: u64,
    /// Bytes that the program mapped itself.
    pub mapped: u64,
}

impl Point {
    /// Takes in what there was at another moment of the span.
    pub fn raise(&mut self, other: &Point) {
        self.in_use = self.in_use.max(other.in_use);
        self.held = self.held.max(other.held);
        self.mapped = self.mapped.max(other.mapped);
    }
}

/// The curves of a log.
#[derive(Debug)]
pub struct Timeline {
    /// The points in the order of time.
    pub points: Vec<Point>,
    /// Resident bytes at some times.
    pub resident: Vec<(u64, u64)>,
    /// Named moments; names are bytes from outside.
    pub marks: Vec<(u64, Box<[u8]>)>,
    /// The highest moment of the live blocks.
    pub peak: Peak,
    /// The last event.
    pub end: u64,
    span: u64,
    /// What there is after the last event.
    now: Point,
    /// Bytes in heaps of thread arenas.
    arenas: u64,
    space: Space,
}

impl Default for Timeline {
    fn default() -> Self {
        Timeline {
            points: Vec::new(),
            resident: Vec::new(),
            marks: Vec::new(),
            peak: Peak::default(),
            end: 0,
            span: 1024,
            now: Point::default(),
            arenas: 0,
            space: Space::default(),
        }
    }
}

impl Visitor for Timeline {
    fn begin(&mut self, log: &Log, memory: &Memory) {
        self.space.begin(log, memory);
        self.resident = log.resident().to_vec();
        self.arenas = arenas(memory);
        self.note(memory);
    }

    #[inline]
    fn step(&mut self, step: &Step, change: &Change, memory: &Memory) {
        match &step.event.what {
            What::Alloc(_) | What::Free(_) | What::Realloc(_) => {}
            What::Mark { name, .. } => self.marks.push((step.time, name.clone())),
            what => {
                self.space.step(step, change, memory);
                if let What::Arena(_) = what {
                    self.arenas = arenas(memory);
                }
                self.note(memory);
            }
        }
        self.end = step.time;
        self.now.t = step.time;
        self.now.in_use = memory.heap.now().bytes;
        match self.points.last_mut() {
            Some(point) if point.t / self.span == step.time / self.span => point.raise(&self.now),
            _ => self.next(),
        }
    }
}

impl Timeline {
    /// Takes in what is known at the end of the log. Call it after the last event.
    pub fn finish(&mut self, memory: &Memory) {
        self.peak = memory.heap.peak();
        let snapshots = self.space.accounts.iter();
        let known = snapshots.filter_map(|account| Some((account.t, account.resident?)));
        self.resident.extend(known);
        self.resident.sort_unstable();
    }

    /// Begins a span with what there is now.
    fn next(&mut self) {
        if self.points.len() >= MOST_POINTS {
            self.halve();
        }
        self.points.push(self.now);
    }

    /// Notes what malloc and the program have from the kernel now.
    fn note(&mut self, memory: &Memory) {
        let mappings = &memory.mappings;
        let heap = mappings.brk();
        let heap = heap.map_or(0, |brk| brk.now.saturating_sub(brk.first));
        let own = mappings.by_malloc().bytes;
        self.now.held = own.saturating_add(heap).saturating_add(self.arenas);
        self.now.mapped = mappings.by_program().bytes;
    }

    /// Makes the spans twice as long.
    fn halve(&mut self) {
        self.span = self.span.saturating_mul(2);
        let span = self.span;
        let mut kept: Vec<Point> = Vec::with_capacity(MOST_POINTS);
        for point in self.points.drain(..) {
            match kept.last_mut() {
                Some(last) if last.t / span == point.t / span => {
                    last.raise(&point);
                }
                _ => kept.push(point),
            }
        }
        self.points = kept;
    }
}

/// Bytes in heaps of thread arenas.
fn arenas(memory: &Memory) -> u64 {
    let sizes = memory.mappings.arenas().map(|arena| arena.size);
    sizes.fold(0, u64::saturating_add)
}
