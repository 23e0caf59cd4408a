//! The second pass: the events of one log in true time order.
//!
//! Two halves: [`order`] reads, decodes and brings into order, a [`batch`] at a time; the reader's
//! half walks through the batches. Of a large log the first half runs in a thread of its own
//! ([`pipe`]): the order is made on one side only, so that it is the same with one thread or two.

mod batch;
mod cut;
mod group;
mod order;
mod pipe;
mod step;

use crate::damage::Damage;
use crate::error::Error;
use crate::event::{Address, Event};
use crate::log::Log;
use batch::{Batch, Table};
use order::Order;
use std::borrow::Borrow;
use std::ops::ControlFlow;

pub use cut::Cut;
pub use step::{Half, Step};

/// Something that takes events in time order.
pub(crate) trait Sink {
    /// Called now and then with the blocks that events are about which will soon come, so that what
    /// they need can be brought into the processor's cache while others are waited for. Changes no
    /// answer. Address 0 means nothing.
    fn ahead(&mut self, _coming: impl Iterator<Item = Address>) {}

    /// Takes an event, or half of one; answers whether to go on.
    fn step(&mut self, step: Step) -> ControlFlow<()>;
}

impl<F: FnMut(Step) -> ControlFlow<()>> Sink for F {
    #[inline]
    fn step(&mut self, step: Step) -> ControlFlow<()> {
        self(step)
    }
}

/// The events of one log in time order.
pub struct Merge<L> {
    order: Order<L>,
    batch: Batch,
    table: Table,
    /// The next moment of the batch.
    next: usize,
    /// Where the event of the present step is made.
    made: Event,
}

impl<L: Borrow<Log>> Merge<L> {
    /// Makes ready to go through a log.
    pub fn new(log: L) -> Self {
        Merge::of(Order::new(log, None))
    }

    /// Makes ready to go through those events of a log whose numbers are not beyond `cut`.
    pub fn up_to(log: L, cut: Cut) -> Self {
        Merge::of(Order::new(log, Some(cut)))
    }

    fn of(order: Order<L>) -> Self {
        Merge {
            order,
            batch: Batch::default(),
            table: Table::default(),
            next: 0,
            made: Event::default(),
        }
    }

    /// The log.
    pub fn log(&self) -> &Log {
        self.order.log()
    }

    /// What was wrong with the lines that were read so far (not what the first pass found).
    pub fn damage(&self) -> &Damage {
        &self.order.damage
    }

    /// The next event, or half of one; `None` at the end.
    ///
    /// # Errors
    /// When the log can't be read any more.
    pub fn next_step(&mut self) -> Result<Option<Step<'_>>, Error> {
        self.ready()?;
        let moment = self.batch.moments.get(self.next).copied();
        self.next += 1;
        Ok(moment.map(|moment| self.table.step(moment, &mut self.made)))
    }

    /// When the next event happens, nanoseconds since the image started; `None` at the end.
    ///
    /// # Errors
    /// When the log can't be read any more.
    pub fn next_time(&mut self) -> Result<Option<u64>, Error> {
        self.ready()?;
        Ok(self.batch.moments.get(self.next).map(|moment| moment.time))
    }

    /// Fills the batch when all of it was given out.
    fn ready(&mut self) -> Result<(), Error> {
        if self.next >= self.batch.moments.len() {
            self.order.fill(&mut self.batch)?;
            self.table.seat(&mut self.batch);
            self.next = 0;
        }
        Ok(())
    }

    /// Goes through all events, or as long as `visit` says [`ControlFlow::Continue`].
    ///
    /// # Errors
    /// When the log can't be read any more.
    pub fn run(&mut self, mut visit: impl FnMut(Step) -> ControlFlow<()>) -> Result<(), Error>
    where
        L: Send,
    {
        self.drain_into(&mut visit)
    }

    /// The same with a sink.
    pub(crate) fn drain_into(&mut self, sink: &mut impl Sink) -> Result<(), Error>
    where
        L: Send,
    {
        if pipe::is_worth_it(self.log()) && pipe::drain(&mut self.order, &mut self.table, sink)? {
            return Ok(());
        }
        while self.order.fill(&mut self.batch)? {
            self.table.seat(&mut self.batch);
            if self.table.go_through(&self.batch, sink).is_break() {
                break;
            }
        }
        self.batch.moments.clear();
        Ok(())
    }
}
