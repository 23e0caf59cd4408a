//! The second pass: the events of one log in true time order.
//!
//! Each thread is a stream of blocks, each block a run of lines. A heap holds one key for each
//! stream: the time of its next event, or of its next block while that is not open. A block is
//! decoded when it is its turn, so that memory holds the open blocks and nothing else.

use crate::damage::Damage;
use crate::decode::{self, BadLine};
use crate::error::Error;
use crate::event::{Event, Parent, What};
use crate::index::{Block, place};
use crate::log::Log;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::HashMap;
use std::collections::binary_heap::PeekMut;
use std::ops::ControlFlow;

/// Blocks of one thread whose times overlap are opened together up to this many bytes.
const MOST_TOGETHER: u64 = 32 << 20;
/// Bytes behind a block's text, so that the decoder may read whole words at its end.
const SLACK: usize = 32;

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
    /// The line, without its newline.
    pub text: &'a [u8],
}

/// Which events to take of each thread: those that a forked child inherits.
#[derive(Clone, Debug, Default)]
pub struct Cut {
    named: HashMap<u32, u64>,
    streams: u64,
}

impl Cut {
    /// What a child inherits of its parent's log.
    pub fn of(parent: &Parent) -> Cut {
        Cut {
            named: parent.cut.iter().copied().collect(),
            streams: parent.streams,
        }
    }

    /// The number of the last event to take of a thread; 0 for none, 2^64-1 for all.
    pub fn last(&self, thread: u32) -> u64 {
        let ended = u64::from(thread) <= self.streams;
        let other = if ended { u64::MAX } else { 0 };
        self.named.get(&thread).copied().unwrap_or(other)
    }
}

/// How many events are announced at once.
const AHEAD: usize = 32;

/// Something that takes events in time order.
pub(crate) trait Sink {
    /// Called now and then with events of one thread that will soon come, so that what they need
    /// can be brought into the processor's cache while others are waited for. Changes no answer.
    fn ahead(&mut self, _coming: &[Event]) {}

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
pub struct Merge<'a> {
    log: &'a Log,
    streams: Vec<Stream>,
    turns: BinaryHeap<Reverse<Turn>>,
    spare: Vec<Opened>,
    cut: Option<&'a Cut>,
    damage: Damage,
    latest: u64,
}

/// When a stream's next event happens. At equal times releases come before all else.
type Turn = (u64, Rank, u32);

/// What goes first at equal times, between threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Releases,
    Other,
}

/// The blocks of one thread that are still to come, by their places in the index.
struct Stream {
    next: usize,
    end: usize,
    open: Option<Opened>,
}

/// A block, or several that overlap, decoded.
#[derive(Default)]
struct Opened {
    text: Vec<u8>,
    events: Vec<Event>,
    places: Vec<Place>,
    order: Vec<Moment>,
    next: usize,
}

struct Place {
    n: u64,
    from: u32,
    len: u32,
}

#[derive(Clone, Copy)]
struct Moment {
    time: u64,
    event: u32,
    half: Half,
    rank: Rank,
}

impl<'a> Merge<'a> {
    /// Makes ready to go through a log.
    pub fn new(log: &'a Log) -> Self {
        Merge::up_to(log, None)
    }

    /// Makes ready to go through those events of a log whose numbers are not beyond `cut`.
    pub fn up_to(log: &'a Log, cut: Option<&'a Cut>) -> Self {
        let blocks = &log.index.blocks;
        let mut streams = Vec::new();
        let mut turns = BinaryHeap::new();
        let mut from = 0;
        for run in blocks.chunk_by(|a, b| a.thread == b.thread) {
            let last = cut.map_or(u64::MAX, |cut| cut.last(run[0].thread));
            let taken = run.iter().take_while(|block| block.n <= last).count();
            if taken > 0 {
                turns.push(Reverse((run[0].t, Rank::Releases, streams.len() as u32)));
                streams.push(Stream {
                    next: from,
                    end: from + taken,
                    open: None,
                });
            }
            from += run.len();
        }
        Merge {
            log,
            streams,
            turns,
            spare: Vec::new(),
            cut,
            damage: Damage::default(),
            latest: 0,
        }
    }

    /// What was wrong with the lines that were read so far (not what the first pass found).
    pub fn damage(&self) -> &Damage {
        &self.damage
    }

    /// Goes through all events, or as long as `visit` says [`ControlFlow::Continue`].
    ///
    /// # Errors
    /// When the log can't be read any more.
    pub fn run(&mut self, mut visit: impl FnMut(Step) -> ControlFlow<()>) -> Result<(), Error> {
        self.drain_into(&mut visit)
    }

    /// The same with a sink.
    pub(crate) fn drain_into(&mut self, sink: &mut impl Sink) -> Result<(), Error> {
        while let Some(Reverse((_, _, stream))) = self.turns.peek().copied() {
            let at = stream as usize;
            let Some(mut open) = self.streams[at].open.take() else {
                self.open(at)?;
                continue;
            };
            // The earliest moment of another stream ends this one's turn.
            let limit = second(&self.turns);
            let thread = self.log.index.blocks[self.streams[at].next - 1].thread;
            let mut going = true;
            while going {
                let Some(moment) = open.order.get(open.next) else {
                    break;
                };
                if limit.is_some_and(|limit| (moment.time, moment.rank, stream) > limit) {
                    break;
                }
                if open.next % AHEAD == 0 {
                    let first = moment.event as usize;
                    let end = open.events.len().min(first + AHEAD);
                    sink.ahead(&open.events[first..end]);
                }
                open.next += 1;
                let place = &open.places[moment.event as usize];
                let step = Step {
                    time: moment.time,
                    half: moment.half,
                    event: &open.events[moment.event as usize],
                    thread,
                    n: place.n,
                    text: &open.text[place.from as usize..][..place.len as usize],
                };
                self.damage.disorder += u64::from(moment.time < self.latest);
                self.latest = self.latest.max(moment.time);
                going = sink.step(step).is_continue();
            }
            if !going {
                return Ok(());
            }
            match open.order.get(open.next) {
                Some(moment) => {
                    let turn = (moment.time, moment.rank, stream);
                    self.streams[at].open = Some(open);
                    self.again(Some(turn));
                }
                None => {
                    self.spare.push(open);
                    self.again(self.next_block(at).map(|t| (t, Rank::Releases, stream)));
                }
            }
        }
        Ok(())
    }

    /// Gives the stream whose turn it was its next turn, or none any more.
    fn again(&mut self, turn: Option<Turn>) {
        if let Some(mut top) = self.turns.peek_mut() {
            match turn {
                Some(turn) => *top = Reverse(turn),
                None => {
                    PeekMut::pop(top);
                }
            }
        }
    }

    /// The smallest time of a stream's next block.
    fn next_block(&self, at: usize) -> Option<u64> {
        let stream = &self.streams[at];
        (stream.next < stream.end).then(|| self.log.index.blocks[stream.next].t)
    }

    /// Opens a stream's next block and those that overlap with it.
    fn open(&mut self, at: usize) -> Result<(), Error> {
        let mut open = self.spare.pop().unwrap_or_default();
        open.clear();
        let in_file_order = self.log.index.file_order;
        let mut until = None;
        let mut bytes = 0;
        while let Some(t) = self.next_block(at) {
            let block = self.log.index.blocks[self.streams[at].next];
            bytes += u64::from(block.len);
            if until.is_some_and(|until| t >= until || bytes > MOST_TOGETHER || in_file_order) {
                break;
            }
            until = until.max(Some(block.until));
            self.streams[at].next += 1;
            self.read(&block, &mut open)?;
        }
        if !in_file_order && !open.order.is_sorted_by_key(|moment| moment.time) {
            open.order.sort_by_key(|moment| moment.time);
        }
        let turn = open
            .order
            .first()
            .map(|moment| (moment.time, moment.rank, at as u32))
            .or_else(|| self.next_block(at).map(|t| (t, Rank::Releases, at as u32)));
        if open.order.is_empty() {
            self.spare.push(open);
        } else {
            self.streams[at].open = Some(open);
        }
        self.again(turn);
        Ok(())
    }

    /// Reads and decodes one block behind what is open already.
    fn read(&mut self, block: &Block, open: &mut Opened) -> Result<(), Error> {
        let start = open.text.len().saturating_sub(SLACK);
        let end = start + block.len as usize;
        open.text.truncate(start);
        open.text.resize(end + SLACK, 0);
        if block.in_tail() {
            let tail = self.log.tail.as_ref().map_or(&[][..], |tail| &tail.text);
            let lines = tail.get(block.at() as usize..).unwrap_or_default();
            let len = lines.len().min(end - start);
            open.text[start..start + len].copy_from_slice(&lines[..len]);
        } else {
            self.log
                .source
                .read_at(&mut open.text[start..end], block.at())?;
        }
        let cut = self.cut.map_or(u64::MAX, |cut| cut.last(block.thread));
        // Without a first line, the thread's own number is the better guess.
        let pid = match self.log.pid() {
            0 => block.tid,
            pid => pid,
        };
        let mut n = block.n;
        let mut at = start;
        while at < end {
            if matches!(open.text[at], b'\n' | b' ' | 0) {
                at += 1;
                continue;
            }
            let (event, len) = decode::first_line(&open.text[at..]);
            let len = len.min(end - at);
            match event {
                _ if n > cut => break,
                Ok(mut event) => {
                    if event.tid == 0 {
                        event.tid = pid;
                    }
                    open.push(event, n, at, len);
                }
                Err(why) => self.bad(block, at - start, &why),
            }
            n = n.wrapping_add(1);
            at += len;
        }
        let found = n.wrapping_sub(block.n);
        let whole = n > cut || found == u64::from(block.events);
        if !whole && !block.damaged() && !block.loose() {
            let log = self.log;
            self.damage.block(|| {
                format!(
                    "{}: a block of {} events holds {found}",
                    place(log.path(), block.at()),
                    block.events
                )
            });
        }
        Ok(())
    }

    fn bad(&mut self, block: &Block, at: usize, why: &BadLine) {
        // What the first pass met outside blocks it has counted already.
        if !block.loose() {
            let log = self.log;
            let at = block.at() + at as u64;
            self.damage.line(|| place(log.path(), at), why);
        }
    }
}

/// The smallest turn but for the first.
fn second(turns: &BinaryHeap<Reverse<Turn>>) -> Option<Turn> {
    // In a binary heap it is one of the root's two children.
    let slots = turns.as_slice();
    let child = |at: usize| slots.get(at).map(|turn| turn.0);
    match (child(1), child(2)) {
        (Some(left), Some(right)) => Some(left.min(right)),
        (left, right) => left.or(right),
    }
}

impl Opened {
    fn clear(&mut self) {
        self.text.clear();
        self.events.clear();
        self.places.clear();
        self.order.clear();
        self.next = 0;
    }

    fn push(&mut self, event: Event, n: u64, at: usize, len: usize) {
        let number = self.events.len() as u32;
        let line = self.text[at..at + len].trim_ascii_end();
        self.places.push(Place {
            n,
            from: at as u32,
            len: line.len() as u32,
        });
        let mut moment = |time, half, rank| {
            self.order.push(Moment {
                time,
                event: number,
                half,
                rank,
            })
        };
        match effect(&event) {
            Effect::Both => {
                moment(event.t, Half::Release, Rank::Releases);
                moment(event.end(), Half::Acquire, Rank::Other);
            }
            Effect::Release => moment(event.t, Half::Whole, Rank::Releases),
            Effect::Other => moment(event.end(), Half::Whole, Rank::Other),
        }
        self.events.push(event);
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
