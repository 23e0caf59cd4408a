//! The decoded lines of one thread's block, or of several that overlap.

use super::Sink;
use super::step::{Kind, Moment, Step, moments};
use crate::decode::Take;
use crate::event::{Address, Alloc, Event, Free, What};
use memspy_log::Op;
use std::ops::ControlFlow;

/// Bytes behind a block's text, so that the decoder may read whole words at its end.
const SLACK: usize = 32;

/// Decoded lines of one thread.
#[derive(Debug, Default)]
pub(super) struct Group {
    /// The lines, and behind them NULs.
    pub(super) text: Vec<u8>,
    records: Vec<Record>,
    /// The events that a record alone can't hold.
    events: Vec<Event>,
    /// memspy's number of the thread.
    pub(super) thread: u32,
    /// The number of the first event of the first block.
    first_n: u64,
}

/// A line. There is one for each, so that it is small: on its way from one processor's cache to
/// the other's, bytes are time.
#[derive(Clone, Copy, Debug)]
struct Record {
    /// Of a plain malloc or free the block; of other events the place in [`Group::events`].
    ptr: Address,
    size: u64,
    stack: u32,
    tid: u32,
    /// Where the line begins in the text.
    from: u32,
    /// Its number beyond the group's first.
    n: u32,
}

const _: () = assert!(size_of::<Record>() == 32);

impl Record {
    /// The plain malloc that ended at this time.
    #[inline(always)]
    fn malloc(&self, t: u64) -> Event {
        let call = Alloc {
            count: 1,
            size: self.size,
            align: 0,
            ptr: self.ptr,
        };
        self.event(t, Op::Malloc, What::Alloc(call))
    }

    /// The plain free that began at this time.
    #[inline(always)]
    fn free(&self, t: u64) -> Event {
        let call = Free {
            ptr: self.ptr,
            size: None,
            align: None,
        };
        self.event(t, Op::Free, What::Free(call))
    }

    #[inline(always)]
    fn event(&self, t: u64, op: Op, what: What) -> Event {
        Event {
            t,
            dt: 0,
            tid: self.tid,
            stack: self.stack,
            op,
            via: None,
            err: None,
            what,
        }
    }
}

/// Takes the event of one line into its group.
pub(super) struct Taker<'g> {
    records: &'g mut Vec<Record>,
    events: &'g mut Vec<Event>,
    moments: &'g mut Vec<Moment>,
    seat: u32,
    tid: u32,
    from: u32,
    n: u32,
}

impl Take for Taker<'_> {
    #[inline(always)]
    fn event(&mut self, mut event: Event) {
        if event.tid == 0 {
            event.tid = self.tid;
        }
        let kind = kind(&event);
        moments(self.moments, self.seat, self.records.len(), kind, &event);
        let mut record = Record {
            ptr: 0,
            size: 0,
            stack: event.stack,
            tid: event.tid,
            from: self.from,
            n: self.n,
        };
        match (kind, &event.what) {
            (Kind::Malloc, What::Alloc(call)) => {
                record.ptr = call.ptr;
                record.size = call.size;
            }
            (Kind::Free, What::Free(call)) => record.ptr = call.ptr,
            _ => {
                record.ptr = self.events.len() as u64;
                self.events.push(event);
            }
        }
        self.records.push(record);
    }
}

/// Whether an event is a plain malloc or free, of which a record holds all.
#[inline(always)]
fn kind(event: &Event) -> Kind {
    if event.dt > 0 || event.via.is_some() || event.err.is_some() {
        return Kind::Other;
    }
    match &event.what {
        What::Alloc(call) if event.op == Op::Malloc && (call.count, call.align) == (1, 0) => {
            Kind::Malloc
        }
        What::Free(call) if event.op == Op::Free && (call.size, call.align) == (None, None) => {
            Kind::Free
        }
        _ => Kind::Other,
    }
}

impl Group {
    /// Makes it empty, for lines of a thread from this number on.
    pub(super) fn begin(&mut self, thread: u32, first_n: u64) {
        self.text.clear();
        self.records.clear();
        self.events.clear();
        self.thread = thread;
        self.first_n = first_n;
    }

    /// Room for a block's lines behind those that are there: where they begin and end.
    pub(super) fn room(&mut self, len: usize) -> std::ops::Range<usize> {
        let start = self.text.len().saturating_sub(SLACK);
        let end = start + len;
        self.text.truncate(start);
        self.text.resize(end + SLACK, 0);
        start..end
    }

    /// The lines, and what takes the one of number `n` that begins at `from`: the event, and its
    /// moments at a seat. `tid`: the thread of the block, that of a line which does not
    /// name another (as no log of the shim does).
    #[inline(always)]
    pub(super) fn taker<'g>(
        &'g mut self,
        moments: &'g mut Vec<Moment>,
        seat: u32,
        tid: u32,
        n: u64,
        from: usize,
    ) -> (&'g [u8], Taker<'g>) {
        let taker = Taker {
            records: &mut self.records,
            events: &mut self.events,
            moments,
            seat,
            tid,
            from: from as u32,
            n: n.wrapping_sub(self.first_n) as u32,
        };
        (&self.text, taker)
    }

    /// The step at a moment.
    #[inline(always)]
    pub(super) fn step<'a>(&'a self, moment: Moment, event: &'a Event) -> Step<'a> {
        let record = &self.records[moment.record()];
        Step {
            time: moment.time,
            half: moment.half(),
            event,
            thread: self.thread,
            n: self.first_n.wrapping_add(u64::from(record.n)),
            rest: &self.text[record.from as usize..],
        }
    }

    /// The event at a moment: itself, or made from its record in `made`.
    pub(super) fn event<'a>(&'a self, moment: Moment, made: &'a mut Event) -> &'a Event {
        let record = &self.records[moment.record()];
        *made = match moment.kind() {
            Kind::Malloc => record.malloc(moment.time),
            Kind::Free => record.free(moment.time),
            Kind::Other => return &self.events[record.ptr as usize],
        };
        made
    }

    /// Gives the step at a moment to a sink.
    #[inline(always)]
    pub(super) fn give(&self, moment: Moment, sink: &mut impl Sink) -> ControlFlow<()> {
        // An arm for each kind, so that the sink is compiled for each: it then knows the event.
        let record = &self.records[moment.record()];
        match moment.kind() {
            Kind::Malloc => sink.step(self.step(moment, &record.malloc(moment.time))),
            Kind::Free => sink.step(self.step(moment, &record.free(moment.time))),
            Kind::Other => sink.step(self.step(moment, &self.events[record.ptr as usize])),
        }
    }

    /// The block that the event at a moment is about; 0 for none.
    #[inline(always)]
    pub(super) fn address(&self, moment: Moment) -> Address {
        let record = &self.records[moment.record()];
        match moment.kind() {
            Kind::Other => match &self.events[record.ptr as usize].what {
                What::Realloc(call) => call.old,
                What::Alloc(call) => call.ptr,
                What::Free(call) => call.ptr,
                _ => 0,
            },
            _ => record.ptr,
        }
    }
}
