//! How much memory there was at which time.

use super::account::Space;
use crate::event::What;
use crate::log::Log;
use crate::merge::Step;
use crate::model::{Change, Memory, Peak};
use crate::replay::Visitor;

/// More points than this are halved: twice the pixels of a wide screen.
const MOST_POINTS: usize = 4096;

/// What there was in a span of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Point {
    /// The span's first moment with an event, nanoseconds since the image started.
    pub t: u64,
    /// Bytes in live blocks, the most in the span.
    pub in_use: u64,
    /// Bytes that malloc held: heap segment, thread arenas, its own mappings; at the span's end.
    pub held: u64,
    /// Bytes that the program mapped itself; at the span's end.
    pub mapped: u64,
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
    }

    #[inline]
    fn step(&mut self, step: &Step, change: &Change, memory: &Memory) {
        let mut rare = false;
        match &step.event.what {
            What::Alloc(_) | What::Free(_) | What::Realloc(_) => {}
            What::Mark { name, .. } => self.marks.push((step.time, name.clone())),
            _ => {
                self.space.step(step, change, memory);
                rare = true;
            }
        }
        self.end = step.time;
        let in_use = memory.heap.now().bytes;
        match self.points.last_mut() {
            Some(point) if point.t / self.span == step.time / self.span => {
                point.in_use = point.in_use.max(in_use);
            }
            _ => self.next(step.time, in_use),
        }
        if rare || self.points.len() == 1 {
            if let What::Arena(_) = &step.event.what {
                self.arenas = arenas(memory);
            }
            self.fill(memory);
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

    fn next(&mut self, t: u64, in_use: u64) {
        if self.points.len() >= MOST_POINTS {
            self.halve();
        }
        let before = self.points.last().copied().unwrap_or_default();
        self.points.push(Point {
            t,
            in_use,
            ..before
        });
    }

    /// Fills in what holds after the last step of the last span so far.
    fn fill(&mut self, memory: &Memory) {
        let mappings = &memory.mappings;
        let heap = mappings.brk();
        let heap = heap.map_or(0, |brk| brk.now.saturating_sub(brk.first));
        let own = mappings.by_malloc().bytes;
        if let Some(point) = self.points.last_mut() {
            point.held = own.saturating_add(heap).saturating_add(self.arenas);
            point.mapped = mappings.by_program().bytes;
        }
    }

    /// Makes the spans twice as long.
    fn halve(&mut self) {
        self.span = self.span.saturating_mul(2);
        let span = self.span;
        let mut kept: Vec<Point> = Vec::with_capacity(MOST_POINTS);
        for point in self.points.drain(..) {
            match kept.last_mut() {
                Some(last) if last.t / span == point.t / span => {
                    last.in_use = last.in_use.max(point.in_use);
                    (last.held, last.mapped) = (point.held, point.mapped);
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
