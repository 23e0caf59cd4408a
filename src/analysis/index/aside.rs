//! Blocks of stream 0 that were cut while they were written.
//!
//! A thread without a buffer writes its event into the log before its call returns, one such thread after the other. A
//! death in the middle leaves the beginning of the block and behind it NULs or the end of the file. Such a write never
//! happened: nothing of it is read. Whether its event is missing is proven as everywhere, by numbers: a later block of
//! the stream, or the `end` line, that vouches for it. The blocks of buffers are in the tail until they are whole.

use super::{BLOCK_OPENING, Block, Builder, MAX_BLOCK, WINDOW, place, span};
use crate::decode::BadLine;
use crate::error::Error;
use crate::event::{BlockLine, Event};
use memchr::memchr2;
use memspy_log::MAX_EVENT;

/// How the block lines of stream 0 begin.
const OPENING: &[u8] = b"{\"op\":\"block\",\"thread\":0,";

// A block line and an event, which is no shorter, fit into a window.
const _: () = assert!(2 * MAX_EVENT <= WINDOW);

/// A write that the end of the file has cut.
pub(super) struct CutShort {
    at: u64,
    /// Where it would have ended, at the latest.
    end: u64,
    /// The block, when its block line is whole.
    block: Option<(Block, u64)>,
}

/// Whether a text before a NUL or the end of the file is the beginning of a block line of stream 0.
pub(super) fn is_cut_head(text: &[u8]) -> bool {
    let cut = match memchr2(b'\n', 0, text) {
        Some(end) if text[end] == b'\n' => return false,
        Some(end) => &text[..end],
        None => text,
    };
    let alike = cut.starts_with(OPENING) || OPENING.starts_with(cut);
    alike && !cut.is_empty() && cut.len() < WINDOW
}

impl Builder<'_> {
    /// Skips a block whose line is cut, if that is what stands at the present position. Answers whether it is.
    pub(super) fn skip_cut_head(&mut self, text: &[u8]) -> bool {
        let room = self.border().saturating_sub(self.at);
        let text = &text[..text.len().min(room.try_into().unwrap_or(usize::MAX))];
        if !self.in_step() || !is_cut_head(text) {
            return false;
        }
        let len = text
            .iter()
            .position(|byte| *byte == 0)
            .unwrap_or(text.len()) as u64;
        if self.at + len == self.source.len() {
            self.cut_short = Some(CutShort {
                at: self.at,
                end: self.at + WINDOW as u64,
                block: None,
            });
        }
        self.at += len;
        self.blocks_seen = true;
        true
    }

    /// Skips the block whose line stands before `lines` if the rest of it is cut. Answers whether it is.
    pub(super) fn skip_cut(
        &mut self,
        event: &Event,
        head: &BlockLine,
        lines: u64,
    ) -> Result<bool, Error> {
        let end = lines.saturating_add(head.bytes);
        if head.thread != 0 || !self.is_cut(lines, end)? {
            return Ok(false);
        }
        // The number before it was given out in any case.
        self.index.last.push((0, head.n.saturating_sub(1)));
        if end > self.source.len() {
            self.cut_short = Some(CutShort {
                at: self.at,
                end,
                block: Some((span(head, event), lines)),
            });
        }
        self.at = end;
        Ok(true)
    }

    /// Whether a block's lines are a beginning, and NULs or nothing up to their end.
    fn is_cut(&self, lines: u64, end: u64) -> Result<bool, Error> {
        let bytes = end - lines;
        if bytes == 0 || bytes > MAX_BLOCK || end > self.border() {
            return Ok(false);
        }
        if end <= self.source.len() {
            let mut last = [0];
            self.source.read_at(&mut last, end - 1)?;
            if last != [0] || !self.leads_on(end, true)? {
                return Ok(false);
            }
        }
        let mut text = vec![0; bytes as usize];
        self.source.read_at(&mut text, lines)?;
        let mut rest = text.iter().skip_while(|byte| **byte != 0);
        Ok(rest.all(|byte| *byte == 0))
    }

    /// With the bytes that were given out of the log: where some behind a cut write are missing, the file was cut, and
    /// not the write.
    pub(super) fn doubt_cut_short(&mut self, log_end: u64) {
        let Some(cut) = self.cut_short.take() else {
            return;
        };
        if log_end <= cut.end.max(self.at) {
            return;
        }
        match cut.block {
            Some((block, lines)) => self.push(&block, lines, self.source.len(), true),
            None => {
                let path = self.source.path();
                let why = BadLine::Json("a block line that is cut".into());
                self.index.damage.line(|| place(path, cut.at), &why);
            }
        }
    }

    /// Whether a block line may stand here: some line of memspy's has been read.
    fn in_step(&self) -> bool {
        self.index.start.is_some() || self.blocks_seen
    }
}

const _: () = assert!(BLOCK_OPENING.len() < OPENING.len());
