//! Room for the long and rare lines: start, modules, snapshots, end. Its own pages, given back at once.
//!
//! Mapping, first touch of each page and unmapping cost more than the lines, so what is made one after the other shares a
//! scratch, and what is only needed on the way to the lines lies in its annex.

use crate::flush::{Block, MAX_BLOCK, block_line};
use crate::record::{Run, aside_numbers, write_aside, write_block};
use crate::{clock, file, image, memory, sys};
use core::sync::atomic::Ordering::Relaxed;
use memspy_log::tail::control;
use memspy_log::{Line, Tag};

/// Lines under construction, with room for a block line before them.
pub(crate) struct Scratch {
    base: *mut u8,
    len: usize,
    /// Bytes of the annex, behind the lines.
    annex: usize,
    /// Bytes of lines that stand in no block; the others follow them after room for a block line.
    head: usize,
    used: usize,
    events: u64,
    began: u64,
    tid: i32,
}

impl Scratch {
    /// Maps `len` bytes, of which only those that are used cost memory.
    pub(crate) fn new(len: usize) -> sys::Result<Scratch> {
        Scratch::of_thread(len, sys::gettid())
    }

    /// The same, for lines of the thread `tid`.
    pub(crate) fn of_thread(len: usize, tid: i32) -> sys::Result<Scratch> {
        Scratch::map(len, 0, tid)
    }

    /// The same with an annex of so many bytes, for the calling thread.
    pub(crate) fn with_annex(len: usize, annex: usize) -> sys::Result<Scratch> {
        Scratch::map(len, annex, sys::gettid())
    }

    fn map(len: usize, annex: usize, tid: i32) -> sys::Result<Scratch> {
        // A huge page would have to be zeroed for a few lines.
        let flags = memory::ZEROED | memory::NO_HUGE_PAGES;
        Ok(Scratch {
            base: memory::map_own(len + annex, flags, -1, 0)?,
            len,
            annex,
            head: 0,
            used: MAX_BLOCK,
            events: 0,
            began: clock::running(),
            tid,
        })
    }

    /// The address range, for whoever must know that it is the shim's.
    pub(crate) fn range(&self) -> (usize, usize) {
        let from = self.base as usize;
        (from, from + self.len + self.annex)
    }

    /// Start and length of the annex: zeroed, on a page's border, there as long as the scratch, and never looked at here.
    pub(crate) fn annex(&self) -> (*mut u8, usize) {
        (self.base.wrapping_add(self.len), self.annex)
    }

    /// Whether so many bytes of lines fit.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        bytes <= self.len - self.used
    }

    /// Moves to larger pages, with the lines and without what is in the annex.
    pub(crate) fn grow(&mut self, len: usize, annex: usize) -> sys::Result<()> {
        let mut other = Scratch::map(len.max(self.len), annex, self.tid)?;
        // SAFETY: both begin with room for the lines, and they are two mappings.
        unsafe { other.base.copy_from_nonoverlapping(self.base, self.used) };
        other.head = self.head;
        other.used = self.used;
        other.events = self.events;
        other.began = self.began;
        // The smaller pages go with `other`.
        core::mem::swap(self, &mut other);
        Ok(())
    }

    /// Adds a line; answers whether it fitted.
    pub(crate) fn line(&mut self, tag: &Tag, build: impl FnOnce(&mut Line)) -> bool {
        // SAFETY: `used`..`len` lies inside the pages, which are this value's alone.
        let room = unsafe {
            core::slice::from_raw_parts_mut(self.base.add(self.used), self.len - self.used)
        };
        let mut line = Line::whole(room, tag);
        build(&mut line);
        let Some(len) = line.finish() else {
            return false;
        };
        self.used += len;
        self.events += 1;
        true
    }

    /// The lines so far are the log's head: they stand in no block, the lines to come in one behind them.
    pub(crate) fn end_head(&mut self) {
        self.head = self.used - MAX_BLOCK;
        self.used += MAX_BLOCK;
        self.events = 0;
    }

    /// Writes the log's first bytes, in one piece: the head, and the lines behind it as a block of stream 0.
    pub(crate) fn write_first(self) -> sys::Result<()> {
        let lines = 2 * MAX_BLOCK + self.head;
        let mut room = [0u8; MAX_BLOCK];
        let block = match self.events {
            0 => 0,
            events => block_line(
                &Block {
                    stream: 0,
                    tid: self.tid as u64,
                    n: aside_numbers(events),
                    events,
                    bytes: (self.used - lines) as u64,
                    times: (self.began, clock::running()),
                    last: false,
                    sample: false,
                },
                &mut room,
            ),
        };
        let len = self.used - lines + block + self.head;
        // SAFETY: block line and head have their room before the lines, the head where it lies and what it moves over.
        let from = unsafe {
            let from = self.base.add(self.used - len);
            core::ptr::copy(self.base.add(MAX_BLOCK), from, self.head);
            from.add(self.head)
                .copy_from_nonoverlapping(room.as_ptr(), block);
            from
        };
        image::word(control::LOG_END).store(len as u64, Relaxed);
        // SAFETY: head, block line and lines are one range of the scratch.
        unsafe { file::write_log(from, len, 0) }
    }

    /// Writes the lines as a block of stream 0.
    pub(crate) fn write(mut self) -> sys::Result<()> {
        self.write_out()
    }

    /// The same, and begins anew: the next lines are a block of their own.
    pub(crate) fn write_out(&mut self) -> sys::Result<()> {
        if self.events == 0 {
            return Ok(());
        }
        let times = (self.began, clock::running());
        let run = Run {
            tid: self.tid as u64,
            events: self.events,
            times,
        };
        // SAFETY: the lines lie behind MAX_BLOCK bytes of room.
        let written = unsafe { write_aside(self.base.add(MAX_BLOCK), self.used - MAX_BLOCK, &run) };
        self.used = MAX_BLOCK;
        self.events = 0;
        self.began = clock::running();
        written
    }

    /// Writes the lines as all that there is of `stream`. Answers where in the log they are, and their bytes with the
    /// block line.
    pub(crate) fn write_as(self, stream: u64) -> sys::Result<(u64, u64)> {
        let block = Block {
            stream,
            tid: self.tid as u64,
            n: 1,
            events: self.events,
            bytes: (self.used - MAX_BLOCK) as u64,
            times: (self.began, clock::running()),
            last: true,
            sample: false,
        };
        // SAFETY: the lines lie behind MAX_BLOCK bytes of room.
        unsafe { write_block(self.base.add(MAX_BLOCK), &block) }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        memory::unmap_own(self.base, self.len + self.annex);
    }
}
