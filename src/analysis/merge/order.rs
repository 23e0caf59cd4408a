//! Brings the events of one log into the order of time, a batch at a time.
//!
//! Each thread is a stream of blocks, each block a run of lines. A heap holds one turn for each
//! stream: the time of its next event, or of its next block while that is not open. A block is
//! decoded when it is its turn, so that memory holds the open blocks and nothing else.

use super::batch::Batch;
use super::cut::Cut;
use super::group::Group;
use super::step::{MOST_EVENTS, Moment, Rank};
use crate::damage::Damage;
use crate::decode::{self, BadLine};
use crate::error::Error;
use crate::index::{Block, MAX_BLOCK, place};
use crate::log::Log;
use std::borrow::Borrow;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

/// Blocks of one thread whose times overlap are opened together up to this many bytes.
const MOST_TOGETHER: u64 = 32 << 20;

// The shortest line that is an event has more than 16 bytes.
const _: () = assert!((MAX_BLOCK + MOST_TOGETHER) / 16 < MOST_EVENTS as u64);

/// The events of one log, still to be given out in the order of time.
pub(super) struct Order<L> {
    log: L,
    streams: Vec<Stream>,
    turns: BinaryHeap<Reverse<Turn>>,
    spare: Vec<Group>,
    spare_moments: Vec<Vec<Moment>>,
    seats: Seats,
    cut: Option<Cut>,
    /// What was wrong with the lines that were read so far.
    pub(super) damage: Damage,
    latest: u64,
}

/// When a stream's next event happens. At equal times releases come before all else.
type Turn = (u64, Rank, u32);

/// The blocks of one thread that are still to come, by their places in the index.
struct Stream {
    next: usize,
    end: usize,
    open: Option<Open>,
}

/// The moments of a stream's group, which itself is on its way to the reader.
struct Open {
    seat: u32,
    moments: Vec<Moment>,
    next: usize,
}

/// The numbers by which groups are found by their reader, given out anew when a group is done.
#[derive(Default)]
struct Seats {
    taken: u32,
    free: Vec<u32>,
    /// Of groups whose last moment is in the present batch: free from the next one on.
    leaving: Vec<u32>,
}

impl Seats {
    fn take(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.taken += 1;
            self.taken - 1
        })
    }
}

impl<L: Borrow<Log>> Order<L> {
    /// Makes ready to go through those events of a log whose numbers are not beyond `cut`.
    pub(super) fn new(log: L, cut: Option<Cut>) -> Self {
        let blocks = &log.borrow().index.blocks;
        let mut streams = Vec::new();
        let mut turns = BinaryHeap::new();
        let mut from = 0;
        for run in blocks.chunk_by(|a, b| a.thread == b.thread) {
            let last = cut.as_ref().map_or(u64::MAX, |cut| cut.last(run[0].thread));
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
        Order {
            log,
            streams,
            turns,
            spare: Vec::new(),
            spare_moments: Vec::new(),
            seats: Seats::default(),
            cut,
            damage: Damage::default(),
            latest: 0,
        }
    }

    pub(super) fn log(&self) -> &Log {
        self.log.borrow()
    }

    /// Fills a batch with the next moments. Answers whether there was any left.
    ///
    /// # Errors
    /// When the log can't be read any more.
    pub(super) fn fill(&mut self, batch: &mut Batch) -> Result<bool, Error> {
        batch.give_back(&mut self.spare);
        self.seats.free.append(&mut self.seats.leaving);
        while let Some(Reverse((_, _, stream))) = self.turns.peek().copied() {
            if batch.is_full() {
                break;
            }
            let at = stream as usize;
            let Some(mut open) = self.streams[at].open.take() else {
                self.open(at, batch)?;
                continue;
            };
            // The earliest moment of another stream ends this one's turn.
            let rest = &open.moments[open.next..];
            let count = match second(&self.turns) {
                None => rest.len(),
                Some(limit) => {
                    let before = |moment: &&Moment| (moment.time, moment.rank(), stream) <= limit;
                    rest.iter().take_while(before).count()
                }
            };
            let run = &rest[..count];
            self.damage.disorder += disorder(run, &mut self.latest);
            batch.moments.extend_from_slice(run);
            open.next += count;
            match open.moments.get(open.next) {
                Some(moment) => {
                    let turn = (moment.time, moment.rank(), stream);
                    self.streams[at].open = Some(open);
                    self.again(Some(turn));
                }
                None => {
                    self.seats.leaving.push(open.seat);
                    let next = self.next_block(at).map(|block| block.t);
                    self.again(next.map(|t| (t, Rank::Releases, stream)));
                    self.spare_moments.push(open.moments);
                }
            }
        }
        Ok(!batch.moments.is_empty())
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

    /// A stream's next block.
    fn next_block(&self, at: usize) -> Option<Block> {
        let stream = &self.streams[at];
        (stream.next < stream.end).then(|| self.log().index.blocks[stream.next])
    }

    /// Opens a stream's next block and those that overlap with it; their group joins the batch.
    fn open(&mut self, at: usize, batch: &mut Batch) -> Result<(), Error> {
        let in_file_order = self.log().index.file_order;
        let mut group = self.spare.pop().unwrap_or_default();
        let mut moments = self.spare_moments.pop().unwrap_or_default();
        moments.clear();
        let seat = self.seats.take();
        let mut until = None;
        let mut bytes = 0;
        let mut first_n = 0;
        while let Some(block) = self.next_block(at) {
            bytes += u64::from(block.len);
            match until {
                None => {
                    first_n = block.n;
                    group.begin(block.thread, first_n);
                }
                Some(until) => {
                    let far = block.n - first_n > u64::from(u32::MAX / 2);
                    if block.t >= until || bytes > MOST_TOGETHER || far || in_file_order {
                        break;
                    }
                }
            }
            until = until.max(Some(block.until));
            self.streams[at].next += 1;
            self.read(&block, &mut group, seat, &mut moments)?;
        }
        if !in_file_order && !moments.is_sorted_by_key(|moment| moment.time) {
            moments.sort_by_key(|moment| moment.time);
        }
        let stream = at as u32;
        let turn = moments
            .first()
            .map(|moment| (moment.time, moment.rank(), stream))
            .or_else(|| {
                self.next_block(at)
                    .map(|block| (block.t, Rank::Releases, stream))
            });
        if moments.is_empty() {
            self.seats.leaving.push(seat);
            self.spare.push(group);
            self.spare_moments.push(moments);
        } else {
            batch.open(seat, group);
            let next = 0;
            self.streams[at].open = Some(Open {
                seat,
                moments,
                next,
            });
        }
        self.again(turn);
        Ok(())
    }

    /// Reads and decodes one block behind what its group holds already.
    fn read(
        &mut self,
        block: &Block,
        group: &mut Group,
        seat: u32,
        moments: &mut Vec<Moment>,
    ) -> Result<(), Error> {
        let log = self.log.borrow();
        let room = group.room(block.len as usize);
        let (start, end) = (room.start, room.end);
        log.read_lines(block, &mut group.text[room])?;
        let cut = self
            .cut
            .as_ref()
            .map_or(u64::MAX, |cut| cut.last(block.thread));
        let mut n = block.n;
        let mut at = start;
        while at < end {
            if matches!(group.text[at], b'\n' | b' ' | 0) {
                at += 1;
                continue;
            }
            if n > cut {
                break;
            }
            let (text, mut taker) = group.taker(moments, seat, block.tid, n, at);
            let (result, len) = decode::take_line(&text[at..], &mut taker);
            if let Err(why) = result {
                bad_line(&mut self.damage, log, block, at - start, &why);
            }
            n = n.wrapping_add(1);
            at += len.min(end - at);
        }
        let found = n.wrapping_sub(block.n);
        let whole = n > cut || found == u64::from(block.events);
        if !whole && !block.damaged() && !block.loose() {
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
}

fn bad_line(damage: &mut Damage, log: &Log, block: &Block, at: usize, why: &BadLine) {
    // What the first pass met outside blocks it has counted already.
    if !block.loose() {
        let at = block.at() + at as u64;
        damage.line(|| place(log.path(), at), why);
    }
}

/// How many moments of a run come before the latest one that was given out; notes the new latest.
fn disorder(run: &[Moment], latest: &mut u64) -> u64 {
    let mut late = 0;
    for moment in run {
        late += u64::from(moment.time < *latest);
        *latest = moment.time.max(*latest);
    }
    late
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
