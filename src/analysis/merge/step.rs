//! What a reader of events sees: an event, or half of one, at its moment.

use crate::event::{Event, What};
use memchr::memchr2;

/// Which part of an event happens at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Half {
    /// The call gives memory back, before it takes any: at `t`.
    Release,
    /// The call has taken memory: at `t`+`dt`.
    Acquire,
    /// All of an event that does only one of them, or neither.
    Whole,
}

impl Half {
    /// Whether this is the last of the event's moments: true once for each event.
    pub fn is_last(self) -> bool {
        self != Half::Release
    }
}

/// An event, or half of one, at its moment.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// Nanoseconds since the image started.
    pub time: u64,
    /// Which part of the event this is.
    pub half: Half,
    /// The event, its `tid` filled in.
    pub event: &'a Event,
    /// memspy's number of the thread.
    pub thread: u32,
    /// The event's number in its thread, from 1.
    pub n: u64,
    /// The log's text from the event's line on.
    pub(crate) rest: &'a [u8],
}

impl<'a> Step<'a> {
    /// The event's line, without its newline and blanks before that.
    pub fn text(&self) -> &'a [u8] {
        let len = memchr2(b'\n', 0, self.rest).unwrap_or(self.rest.len());
        self.rest[..len].trim_ascii_end()
    }
}

/// What goes first at equal times, between threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    Releases,
    Other,
}

/// How an event is kept, see [`super::group`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A malloc that succeeded.
    Malloc,
    /// A free.
    Free,
    /// Any other.
    Other,
}

/// When an event, or half of one, happens: packed, because there is one for each event.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) time: u64,
    /// Where its reader finds the group that holds the event.
    pub(super) seat: u32,
    /// The record's place in its group (27 bits), the kind (2), the rank (1), the half (2).
    packed: u32,
}

const _: () = assert!(size_of::<Moment>() == 16);

/// The most events that a group may hold.
pub(super) const MOST_EVENTS: usize = 1 << 27;

impl Moment {
    #[inline(always)]
    fn new(time: u64, seat: u32, record: usize, kind: Kind, half: Half, rank: Rank) -> Moment {
        let facts = (kind as u32) << 3 | (rank as u32) << 2 | half as u32;
        let packed = (record as u32) << 5 | facts;
        Moment { time, seat, packed }
    }

    #[inline(always)]
    pub(super) fn record(self) -> usize {
        (self.packed >> 5) as usize
    }

    #[inline(always)]
    pub(super) fn kind(self) -> Kind {
        match self.packed >> 3 & 3 {
            0 => Kind::Malloc,
            1 => Kind::Free,
            _ => Kind::Other,
        }
    }

    #[inline(always)]
    pub(super) fn rank(self) -> Rank {
        match self.packed >> 2 & 1 {
            0 => Rank::Releases,
            _ => Rank::Other,
        }
    }

    #[inline(always)]
    pub(super) fn half(self) -> Half {
        match self.packed & 3 {
            0 => Half::Release,
            1 => Half::Acquire,
            _ => Half::Whole,
        }
    }
}

/// Appends the moments of the event whose record has this place in its group.
#[inline(always)]
pub(super) fn moments(out: &mut Vec<Moment>, seat: u32, record: usize, kind: Kind, event: &Event) {
    let moment = |time, half, rank| Moment::new(time, seat, record, kind, half, rank);
    match effect(event) {
        Effect::Both => {
            out.push(moment(event.t, Half::Release, Rank::Releases));
            out.push(moment(event.end(), Half::Acquire, Rank::Other));
        }
        Effect::Release => out.push(moment(event.t, Half::Whole, Rank::Releases)),
        Effect::Other => out.push(moment(event.end(), Half::Whole, Rank::Other)),
    }
}

/// What a call does to memory.
enum Effect {
    Both,
    Release,
    Other,
}

#[inline(always)]
fn effect(event: &Event) -> Effect {
    let failed = event.err.is_some();
    match &event.what {
        What::Alloc(_) => Effect::Other,
        What::Free(_) | What::Munmap(_) => Effect::Release,
        What::Realloc(call) if failed || call.old == 0 => Effect::Other,
        What::Realloc(call) if call.ptr == 0 => Effect::Release,
        What::Realloc(_) => Effect::Both,
        What::Mremap(_) | What::Mmap(_) if failed => Effect::Other,
        What::Mremap(_) => Effect::Both,
        What::Mmap(_) if event.dt > 0 => Effect::Both,
        What::Brk(call) if call.to < call.from => Effect::Release,
        _ => Effect::Other,
    }
}
