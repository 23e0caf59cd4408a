//! Moments on their way from the side that decodes and orders to the side that replays.

use super::Sink;
use super::group::Group;
use super::step::{Moment, Step};
use crate::event::Event;
use std::ops::ControlFlow;

/// A batch is full when it holds this many moments,
const MOST_MOMENTS: usize = 1 << 12;
/// or this many bytes of lines.
const MOST_BYTES: usize = 1 << 18;
/// With so many bytes of lines it is large: its blocks are not of the usual size.
const LARGE_BYTES: usize = 1 << 20;
/// How many moments are announced at once.
const AHEAD: usize = 32;

/// A run of moments in the order of time.
#[derive(Default)]
pub(super) struct Batch {
    /// The groups that open in this batch, with their seats. After the batch was taken, as many
    /// groups that are done.
    groups: Vec<(u32, Group)>,
    pub(super) moments: Vec<Moment>,
    /// Bytes of the groups' lines.
    bytes: usize,
}

impl Batch {
    /// Empties it; its groups, which are done, can be used again.
    pub(super) fn give_back(&mut self, spare: &mut Vec<Group>) {
        spare.extend(self.groups.drain(..).map(|(_, group)| group));
        self.moments.clear();
        self.bytes = 0;
    }

    /// Adds a group, to be found at its seat.
    pub(super) fn open(&mut self, seat: u32, group: Group) {
        self.bytes += group.text.len();
        self.groups.push((seat, group));
    }

    /// Whether nothing more should be added. A batch without a moment is never full.
    pub(super) fn is_full(&self) -> bool {
        let moments = self.moments.len();
        moments >= MOST_MOMENTS || (moments > 0 && self.bytes >= MOST_BYTES)
    }

    /// Whether its blocks are so large that another batch beside it would be felt.
    pub(super) fn is_large(&self) -> bool {
        self.bytes >= LARGE_BYTES
    }
}

/// The reader's side: the groups of which moments are still to come.
#[derive(Default)]
pub(super) struct Table(Vec<Group>);

impl Table {
    /// Seats the groups of a batch, in exchange for those that were done there.
    pub(super) fn seat(&mut self, batch: &mut Batch) {
        for (seat, group) in &mut batch.groups {
            let seat = *seat as usize;
            if self.0.len() <= seat {
                self.0.resize_with(seat + 1, Group::default);
            }
            std::mem::swap(&mut self.0[seat], group);
        }
    }

    /// The step at a moment; its event is made in `made` where it has to be.
    pub(super) fn step<'a>(&'a self, moment: Moment, made: &'a mut Event) -> Step<'a> {
        let group = &self.0[moment.seat as usize];
        group.step(moment, group.event(moment, made))
    }

    /// Gives the steps of a batch that was seated to a sink, as long as that goes on.
    pub(super) fn go_through(&self, batch: &Batch, sink: &mut impl Sink) -> ControlFlow<()> {
        let group = |moment: &Moment| &self.0[moment.seat as usize];
        for coming in batch.moments.chunks(AHEAD) {
            sink.ahead(coming.iter().map(|moment| group(moment).address(*moment)));
            for moment in coming {
                group(moment).give(*moment, sink)?;
            }
        }
        ControlFlow::Continue(())
    }
}
