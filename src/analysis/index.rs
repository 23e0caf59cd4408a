//! The first pass: hops along the block lines and notes where each block lies.
//!
//! 48 bytes for each block; no event is read. Where a hop does not land on a block line, the way
//! is found again at the next line that is one.

mod aside;

use crate::damage::Damage;
use crate::decode::{self, BadLine, MAX_LINE};
use crate::error::Error;
use crate::event::{BlockLine, Event, Start, What};
use crate::lines::Lines;
use crate::source::Source;
use crate::tail::{Piece, Tail};
use aside::{CutShort, is_cut_head};
use memchr::memchr;
use std::path::Path;

/// A run of one thread's lines.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block {
    /// Position of the lines, with [`IN_TAIL`] and [`DAMAGED`] in its top bits.
    at: u64,
    /// The smallest time.
    pub(crate) t: u64,
    /// The largest time.
    pub(crate) until: u64,
    /// The number of the first event.
    pub(crate) n: u64,
    /// How many events its block line promises.
    pub(crate) events: u32,
    /// Bytes of the lines.
    pub(crate) len: u32,
    /// memspy's number of the thread; [`LOOSE`] for lines outside any block.
    pub(crate) thread: u32,
    /// The kernel's number.
    pub(crate) tid: u32,
}

const _: () = assert!(size_of::<Block>() == 48);

const IN_TAIL: u64 = 1 << 63;
const DAMAGED: u64 = 1 << 62;

/// The thread number of lines outside any block.
pub(crate) const LOOSE: u32 = u32::MAX;

/// The largest block, in bytes; a block line that promises more is damage.
///
/// A block is one flush of one buffer, and all buffers of an image are 16 MiB unless it was told
/// otherwise.
pub(crate) const MAX_BLOCK: u64 = 64 << 20;
/// Loose lines are cut into pieces of about this size.
const LOOSE_PIECE: u64 = 1 << 20;
/// What is read at each hop: a block line with room to spare.
const WINDOW: usize = 1 << 10;

const BLOCK_OPENING: &[u8] = b"{\"op\":\"block\"";
const START_OPENING: &[u8] = b"{\"op\":\"start\"";

impl Block {
    /// Position of the lines, in the log or in the tail's text.
    pub(crate) fn at(&self) -> u64 {
        self.at & !(IN_TAIL | DAMAGED)
    }

    /// Whether the lines stand in the tail's text.
    pub(crate) fn in_tail(&self) -> bool {
        self.at & IN_TAIL != 0
    }

    /// Whether its block line does not fit what stands there.
    pub(crate) fn damaged(&self) -> bool {
        self.at & DAMAGED != 0
    }

    /// Whether the lines stood outside any block.
    pub(crate) fn loose(&self) -> bool {
        self.thread == LOOSE
    }

    /// Lines that a recovery adds to a log for the thread number that all threads share.
    pub(crate) fn of_last_words(n: u64, events: u32, t: u64, tid: u32) -> Block {
        Block {
            at: 0,
            t,
            until: t,
            n,
            events,
            len: 0,
            thread: 0,
            tid,
        }
    }

    pub(crate) fn of_piece(piece: &Piece) -> Block {
        Block {
            at: piece.at as u64 | IN_TAIL,
            t: piece.t,
            until: piece.until,
            n: piece.n,
            events: piece.events as u32,
            len: piece.len as u32,
            thread: piece.thread,
            tid: piece.tid,
        }
    }
}

/// Where everything lies in one log.
#[derive(Debug, Default)]
pub(crate) struct Index {
    /// The first line.
    pub(crate) start: Option<Start>,
    /// The first line as it stands in the log, without its newline.
    pub(crate) start_text: Vec<u8>,
    /// All blocks, by thread and number.
    pub(crate) blocks: Vec<Block>,
    /// The last numbers of threads that are known to have ended, and others that were given out for certain.
    pub(crate) last: Vec<(u32, u64)>,
    /// The latest pair of (`at`, `mono_ns`).
    pub(crate) clock: Option<(u64, u64)>,
    /// Resident bytes at times, as the block lines tell, in the order of the file.
    pub(crate) resident: Vec<(u64, u64)>,
    /// No block line at all: lines are read in the order of the file.
    pub(crate) file_order: bool,
    /// What was wrong.
    pub(crate) damage: Damage,
    /// Where the log ends: the end of the file, or the start line of the next image in it.
    pub(crate) end: u64,
    /// Events (as block lines promise them) that came from the tail.
    pub(crate) from_tail: u64,
}

/// Builds the index of the image whose log begins at `from`.
///
/// # Errors
/// When the file can't be read, is empty, is of a newer version, or no line of it is memspy's.
pub(crate) fn build(source: &Source, tail: Option<&Tail>, from: u64) -> Result<Index, Error> {
    let mut overlays: Vec<&Piece> = tail
        .iter()
        .flat_map(|tail| &tail.pieces)
        .filter(|piece| piece.place.is_some())
        .collect();
    overlays.sort_by_key(|piece| piece.place);
    let mut builder = Builder {
        source,
        overlays,
        index: Index::default(),
        at: from,
        from,
        blocks_seen: false,
        loose_lines: 0,
        first_bad: None,
        cut_short: None,
    };
    builder.walk()?;
    builder.finish(tail)
}

struct Builder<'a> {
    source: &'a Source,
    /// Blocks of the tail that belong at a position of the log, by position; taken from the front.
    overlays: Vec<&'a Piece>,
    index: Index,
    at: u64,
    from: u64,
    blocks_seen: bool,
    loose_lines: u64,
    first_bad: Option<BadLine>,
    cut_short: Option<CutShort>,
}

impl Builder<'_> {
    fn walk(&mut self) -> Result<(), Error> {
        let mut window = vec![0; WINDOW];
        loop {
            if let Some(first) = self.overlays.first()
                && let Some((place, len)) = first.place
                && place <= self.at
            {
                let block = Block::of_piece(first);
                self.index.blocks.push(block);
                self.index.from_tail += u64::from(block.events);
                self.blocks_seen = true;
                self.overlays.remove(0);
                self.at = self.at.max(place.saturating_add(len));
                continue;
            }
            let got = self.source.read_at(&mut window, self.at)?;
            let text = &window[..got];
            if text.is_empty() {
                match self.overlays.first().and_then(|piece| piece.place) {
                    Some((place, _)) => self.at = place,
                    None => break,
                }
            } else if text[0] == 0 {
                let nuls = text.iter().take_while(|byte| **byte == 0).count();
                self.at = (self.at + nuls as u64).min(self.border());
            } else if self.skip_cut_head(text) {
                continue;
            } else if text.starts_with(BLOCK_OPENING) {
                let end = memchr(0, text).unwrap_or(text.len());
                self.block(&window[..end])?;
            } else if text.starts_with(START_OPENING) && self.at != self.from {
                break;
            } else {
                self.loose()?;
            }
        }
        self.index.end = self.at.min(self.source.len());
        Ok(())
    }

    /// Where the next block of the tail belongs: nothing before it reaches beyond.
    fn border(&self) -> u64 {
        let next = self.overlays.first().and_then(|piece| piece.place);
        next.map_or(u64::MAX, |(place, _)| place)
    }

    /// Takes the block whose line stands at the present position.
    fn block(&mut self, text: &[u8]) -> Result<(), Error> {
        let (event, len) = match decode::first_line(text) {
            (Ok(event), len) if text[..len].ends_with(b"\n") => (event, len),
            // Cut, or longer than any block line: its bytes are no event's.
            (event, len) => {
                let why = event.err().unwrap_or(BadLine::TooLong(len));
                let path = self.source.path();
                let at = self.at;
                self.index.damage.line(|| place(path, at), &why);
                self.first_bad.get_or_insert(why);
                self.at += len as u64;
                self.blocks_seen = true;
                return self.resync();
            }
        };
        let What::Block(head) = &event.what else {
            self.at += len as u64;
            return Ok(());
        };
        self.blocks_seen = true;
        let lines = self.at + len as u64;
        if self.skip_cut(&event, head, lines)? {
            return Ok(());
        }
        if let (Some(at), Some(mono_ns)) = (head.at, head.mono_ns)
            && self.index.clock.is_none_or(|(before, _)| before <= at)
        {
            self.index.clock = Some((at, mono_ns));
        }
        if let (Some(at), Some(rss)) = (head.at, head.rss) {
            self.index.resident.push((at, rss));
        }
        if head.last {
            let end = head.n.saturating_add(head.events).saturating_sub(1);
            self.index.last.push((head.thread, end));
        }
        let end = lines.saturating_add(head.bytes);
        let fits = head.bytes <= MAX_BLOCK && self.leads_on(end, head.bytes > 0)?;
        self.at = lines;
        let damaged = !fits;
        let end = if fits {
            end
        } else {
            self.resync()?;
            self.at
        };
        self.push(&span(head, &event), lines, end, damaged);
        self.at = end;
        Ok(())
    }

    /// Whether a block's end is followed by what may follow a block.
    fn leads_on(&self, end: u64, has_lines: bool) -> Result<bool, Error> {
        if end > self.source.len() {
            return Ok(false);
        }
        let mut around = [0; 1 + BLOCK_OPENING.len()];
        let got = self.source.read_at(&mut around, end - 1)?;
        let (before, after) = around[..got].split_at(got.min(1));
        // A block line may be cut, too.
        let after = &after[..memchr(0, after).unwrap_or(after.len())];
        let closed = !has_lines || matches!(before, b"\n" | b"\0");
        let opened = BLOCK_OPENING.starts_with(after) || after == START_OPENING;
        Ok(closed && (opened || end == self.border()))
    }

    /// Moves to the next block or start line, or the end.
    fn resync(&mut self) -> Result<(), Error> {
        let mut lines = Lines::new(self.source, self.at, self.border());
        loop {
            match lines.next()? {
                Some(line) => {
                    let text = line.text.unwrap_or_default();
                    if line.at > self.at
                        && (text.starts_with(BLOCK_OPENING) || text.starts_with(START_OPENING))
                    {
                        self.at = line.at;
                        return Ok(());
                    }
                }
                None => {
                    self.at = self.source.len().min(self.border());
                    return Ok(());
                }
            }
        }
    }

    fn push(&mut self, span: &Block, from: u64, end: u64, damaged: bool) {
        let len = end.saturating_sub(from).min(MAX_BLOCK) as u32;
        if damaged {
            let path = self.source.path();
            self.index.damage.block(|| {
                format!(
                    "{}: the block of {} events is not as its block line says",
                    place(path, from),
                    span.events
                )
            });
        }
        self.index.blocks.push(Block {
            at: from | if damaged { DAMAGED } else { 0 },
            len,
            ..*span
        });
    }

    /// Takes lines outside any block, up to the next block line, start line or border.
    fn loose(&mut self) -> Result<(), Error> {
        let mut lines = Lines::new(self.source, self.at, self.border());
        let mut open: Option<usize> = None;
        let path = self.source.path();
        while let Some(line) = lines.next()? {
            let text = line.text.unwrap_or_default();
            let is_start = text.starts_with(START_OPENING);
            let is_block = text.starts_with(BLOCK_OPENING)
                || (self.index.start.is_some() && is_cut_head(text));
            if is_block || (is_start && line.at != self.from) {
                self.at = line.at;
                return Ok(());
            }
            if let Some(version) = decode::version(text).filter(|_| is_start)
                && version > memspy_log::VERSION
            {
                return Err(Error::Newer {
                    path: path.into(),
                    version,
                });
            }
            let event = match line.text {
                Some(text) => decode::first_line(text).0,
                None => Err(BadLine::TooLong((line.end - line.at) as usize)),
            };
            match event {
                Ok(Event {
                    what: What::Start(start),
                    ..
                }) => {
                    self.index.start = Some(*start);
                    self.index.start_text = text.trim_ascii_end().to_vec();
                }
                Ok(event) => {
                    self.loose_lines += 1;
                    let at = match open {
                        Some(at) if line.end - self.index.blocks[at].at() <= LOOSE_PIECE => at,
                        _ => {
                            self.index
                                .blocks
                                .push(loose_piece(&event, line.at, self.loose_lines));
                            self.index.blocks.len() - 1
                        }
                    };
                    open = Some(at);
                    let piece = &mut self.index.blocks[at];
                    piece.t = piece.t.min(event.t);
                    piece.until = piece.until.max(event.end());
                    piece.events += 1;
                    piece.len = (line.end - piece.at()) as u32;
                }
                Err(why) => {
                    self.index.damage.line(|| place(path, line.at), &why);
                    self.first_bad.get_or_insert(why);
                    open = None;
                }
            }
        }
        self.at = self.source.len().min(self.border());
        Ok(())
    }

    fn finish(mut self, tail: Option<&Tail>) -> Result<Index, Error> {
        let path = self.source.path();
        let has_tail = tail.is_some_and(|tail| !tail.pieces.is_empty());
        if self.source.is_empty() && !has_tail {
            return Err(Error::Empty(path.into()));
        }
        let nothing = self.index.start.is_none() && self.loose_lines == 0 && !self.blocks_seen;
        if nothing && !has_tail {
            let why = match self.first_bad {
                Some(why) => {
                    format!("the first line is {why}; `memspy run -- PROGRAM` records one")
                }
                None => "it holds nothing but NUL bytes".into(),
            };
            return Err(Error::NotALog {
                path: path.into(),
                why,
            });
        }
        self.index.file_order = !self.blocks_seen && self.loose_lines > 0;
        if self.blocks_seen {
            self.index.damage.stray_lines += self.loose_lines;
        }
        if let Some(tail) = tail {
            self.doubt_cut_short(tail.control.log_end);
        }
        self.index
            .blocks
            .sort_by_key(|block| (block.thread, block.n, block.at()));
        self.drop_doubles();
        if let Some(tail) = tail {
            self.add_pending(tail);
        }
        Ok(self.index)
    }

    /// Leaves out blocks that stand twice.
    fn drop_doubles(&mut self) {
        let mut doubles = 0;
        self.index.blocks.dedup_by(|next, kept| {
            let same = next.thread == kept.thread
                && next.n == kept.n
                && next.events > 0
                && kept.events > 0
                && !next.loose()
                && !next.damaged()
                && !kept.damaged();
            doubles += u64::from(same);
            same
        });
        self.index.damage.double_blocks += doubles;
    }

    /// Adds the tail's waiting lines, but for those that stand in the log.
    fn add_pending(&mut self, tail: &Tail) {
        let known = self.index.blocks.len();
        for piece in tail.pieces.iter().filter(|piece| piece.place.is_none()) {
            let before = &self.index.blocks[..known];
            let first =
                before.partition_point(|block| (block.thread, block.n) < (piece.thread, piece.n));
            let same = before
                .get(first)
                .filter(|block| (block.thread, block.n) == (piece.thread, piece.n));
            match same {
                Some(block) if !block.damaged() && u64::from(block.events) >= piece.events => {
                    continue;
                }
                // Half of it had reached the log when the log was read.
                Some(_) => self.index.blocks[first] = Block::of_piece(piece),
                None => self.index.blocks.push(Block::of_piece(piece)),
            }
            self.index.from_tail += piece.events;
        }
        self.index
            .blocks
            .sort_by_key(|block| (block.thread, block.n, block.at()));
    }
}

fn loose_piece(event: &Event, at: u64, n: u64) -> Block {
    Block {
        at,
        t: event.t,
        until: event.t,
        n,
        events: 0,
        len: 0,
        thread: LOOSE,
        tid: 0,
    }
}

fn span(head: &BlockLine, event: &Event) -> Block {
    let t = event.t;
    Block {
        at: 0,
        t,
        until: head.until.max(t),
        n: head.n,
        events: u32::try_from(head.events).unwrap_or(u32::MAX),
        len: 0,
        thread: head.thread.min(LOOSE - 1),
        tid: event.tid,
    }
}

/// A position in a log, in words.
pub(crate) fn place(path: &Path, at: u64) -> String {
    format!("{} at byte {at}", crate::error::shown(path))
}

const _: () = assert!(MAX_LINE as u64 <= MAX_BLOCK);
