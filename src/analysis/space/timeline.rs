//! How much memory there was at which time.

use super::account::Space;
use crate::event::{Via, What};
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
    changed: bool,
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
            changed: true,
            space: Space::default(),
        }
    }
}

impl Visitor for Timeline {
    fn begin(&mut self, log: &Log, memory: &Memory) {
        self.space.begin(log, memory);
        self.resident = log.resident().to_vec();
    }

    #[inline]
    fn step(&mut self, step: &Step, change: &Change, memory: &Memory) {
        match &step.event.what {
            What::Alloc(_) | What::Free(_) | What::Realloc(_) => {}
            What::Mark { name, .. } => self.marks.push((step.time, name.clone())),
            _ => {
                self.space.step(step, change, memory);
                self.changed = true;
            }
        }
        self.end = step.time;
        let in_use = memory.heap.now().bytes;
        match self.points.last_mut() {
            Some(point) if point.t / self.span == step.time / self.span => {
                point.in_use = point.in_use.max(in_use);
            }
            _ => self.next(step.time, in_use, memory),
        }
    }
}

impl Timeline {
    /// Takes in what is known at the end of the log. Call it after the last event.
    pub fn finish(&mut self, memory: &Memory) {
        self.close(memory);
        self.peak = memory.heap.peak();
        let snapshots = self.space.accounts.iter();
        let known = snapshots.filter_map(|account| Some((account.t, account.resident?)));
        self.resident.extend(known);
        self.resident.sort_unstable();
    }

    fn next(&mut self, t: u64, in_use: u64, memory: &Memory) {
        self.close(memory);
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

    /// Fills in what holds at the end of the last span.
    fn close(&mut self, memory: &Memory) {
        if !std::mem::take(&mut self.changed) {
            return;
        }
        let (mut held, mut mapped) = (0u64, 0u64);
        for (from, mapping) in memory.mappings.iter() {
            let bytes = mapping.end - from;
            match mapping.via {
                Some(Via::Call(_) | Via::Several | Via::Other) => {
                    held = held.saturating_add(bytes);
                }
                None => mapped = mapped.saturating_add(bytes),
            }
        }
        let brk = memory.mappings.brk();
        let heap = brk.map_or(0, |brk| brk.now.saturating_sub(brk.first));
        let arenas = memory.mappings.arenas().map(|arena| arena.size);
        held = arenas.chain([heap]).fold(held, u64::saturating_add);
        if let Some(point) = self.points.last_mut() {
            (point.held, point.mapped) = (held, mapped);
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
