//! The moment of a log at which somebody wants to see its address space.

use super::account::Space;
use super::picture::Picture;
use crate::error::Error;
use crate::event::What;
use crate::log::Log;
use crate::merge::Step;
use crate::model::{Change, Memory};
use crate::replay::{Outcome, Visitor, replay};

/// A moment of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// When recording began, behind the first snapshot.
    Start,
    /// When this many nanoseconds had passed since the image started.
    Time(u64),
    /// When the live blocks were largest for the first time.
    Peak,
    /// The last event.
    End,
}

/// A picture and the whole log's accounts.
#[derive(Debug)]
pub struct View {
    /// The picture at the moment.
    pub picture: Picture,
    /// All snapshots of the log.
    pub space: Space,
    /// What is known at the end of the log.
    pub outcome: Outcome,
}

impl View {
    /// Reads a log to its end and takes a picture at `moment`. For the peak it is read once more, up
    /// to there.
    ///
    /// # Errors
    /// When the log can't be read.
    pub fn read(log: &Log, moment: Moment) -> Result<View, Error> {
        let mut watch = Watch::new(moment);
        let outcome = replay(log, &mut watch)?;
        if moment == Moment::Peak {
            let peak = outcome.memory.heap.peak();
            let mut again = Watch::new(moment);
            again.peak = Some((peak.t, peak.level.bytes));
            replay(log, &mut again)?;
            watch.picture = again.picture;
        }
        let picture = watch
            .picture
            .unwrap_or_else(|| Picture::at_end(&watch.space, &outcome));
        Ok(View {
            picture,
            space: watch.space,
            outcome,
        })
    }
}

struct Watch {
    moment: Moment,
    /// Time and bytes of the peak, when they are known.
    peak: Option<(u64, u64)>,
    space: Space,
    picture: Option<Picture>,
}

impl Watch {
    fn new(moment: Moment) -> Watch {
        Watch {
            moment,
            peak: None,
            space: Space::default(),
            picture: None,
        }
    }
}

impl Visitor for Watch {
    fn begin(&mut self, log: &Log, memory: &Memory) {
        self.space.begin(log, memory);
    }

    #[inline(always)]
    fn step(&mut self, step: &Step, change: &Change, memory: &Memory) {
        if self.picture.is_none() && self.is_over(step) {
            let t = match self.moment {
                Moment::Time(t) => t,
                _ => step.time,
            };
            self.picture = Some(Picture::take(&self.space, memory, t, *change));
        }
        self.space.step(step, change, memory);
        if self.picture.is_none()
            && let Some((t, bytes)) = self.peak
            && step.time == t
            && memory.heap.now().bytes == bytes
        {
            let picture = Picture::take(&self.space, memory, t, Change::default());
            self.picture = Some(picture);
        }
    }

    /// Who knows the peak has read the log to its end before.
    fn is_done(&self) -> bool {
        self.peak.is_some() && self.picture.is_some()
    }
}

impl Watch {
    /// Whether a step comes after the moment.
    #[inline]
    fn is_over(&self, step: &Step) -> bool {
        match self.moment {
            Moment::Time(t) => step.time > t,
            Moment::Start => {
                let lines = matches!(step.event.what, What::Map(_) | What::Snapshot(_));
                !self.space.accounts.is_empty() && !lines
            }
            Moment::Peak | Moment::End => false,
        }
    }
}
