//! The lines of a part of a log, one after the other, in bounded memory.
//!
//! Used where block lines do not lead the way: logs that were cut, and damaged places.

use crate::decode::MAX_LINE;
use crate::error::Error;
use crate::source::Source;
use memchr::memchr2;

const STEP: usize = 1 << 18;

/// A cursor over lines. NULs between them are skipped; a line that they cut ends there.
pub(crate) struct Lines<'a> {
    source: &'a Source,
    /// Position of `buf[0]`.
    at: u64,
    end: u64,
    buf: Vec<u8>,
    from: usize,
}

/// Where a line stands.
pub(crate) struct Line<'b> {
    /// Position of its first byte.
    pub(crate) at: u64,
    /// Position behind it and its newline.
    pub(crate) end: u64,
    /// Its text with the newline, if it has one; `None` when it is longer than [`MAX_LINE`].
    pub(crate) text: Option<&'b [u8]>,
}

impl<'a> Lines<'a> {
    /// The lines between two positions.
    pub(crate) fn new(source: &'a Source, from: u64, end: u64) -> Self {
        Lines {
            source,
            at: from,
            end: end.min(source.len()),
            buf: Vec::new(),
            from: 0,
        }
    }

    /// The next line; `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Line<'_>>, Error> {
        let mut looked = 0;
        loop {
            if looked == 0 {
                let nuls = self.buf[self.from..]
                    .iter()
                    .take_while(|byte| **byte == 0)
                    .count();
                self.from += nuls;
            }
            let text = &self.buf[self.from..];
            if let Some(end) = memchr2(b'\n', 0, &text[looked..]) {
                let newline = usize::from(text[looked + end] == b'\n');
                return Ok(Some(self.take(looked + end + newline)));
            }
            looked = text.len();
            if looked > MAX_LINE {
                return self.skip().map(Some);
            }
            if self.fill()? == 0 {
                return Ok((looked > 0).then(|| self.take(looked)));
            }
        }
    }

    fn take(&mut self, len: usize) -> Line<'_> {
        let from = self.from;
        self.from += len;
        let at = self.at + from as u64;
        Line {
            at,
            end: at + len as u64,
            text: Some(&self.buf[from..from + len]),
        }
    }

    /// Leaves out a line that is too long: looks for its newline without keeping its text.
    fn skip(&mut self) -> Result<Line<'_>, Error> {
        let start = self.at + self.from as u64;
        loop {
            self.from = self.buf.len();
            if self.fill()? == 0 {
                break;
            }
            let text = &self.buf[self.from..];
            if let Some(end) = memchr2(b'\n', 0, text) {
                self.from += end + usize::from(text[end] == b'\n');
                break;
            }
        }
        Ok(Line {
            at: start,
            end: self.at + self.from as u64,
            text: None,
        })
    }

    /// Drops what was taken and reads on. Answers how many bytes came.
    fn fill(&mut self) -> Result<usize, Error> {
        self.buf.drain(..self.from);
        self.at += self.from as u64;
        self.from = 0;
        let have = self.buf.len();
        let next = self.at + have as u64;
        let want = self.end.saturating_sub(next).min(STEP as u64) as usize;
        self.buf.resize(have + want, 0);
        let got = self.source.read_at(&mut self.buf[have..], next)?;
        self.buf.truncate(have + got);
        Ok(got)
    }
}
