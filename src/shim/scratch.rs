//! Room for the long and rare lines: start, modules, snapshots, end. Its own pages, given back at once.

use crate::flush::{Block, MAX_BLOCK};
use crate::record::{Run, write_aside, write_block};
use crate::{clock, memory, sys};
use memspy_log::{Line, Tag};

/// Lines under construction, with room for a block line before them.
pub(crate) struct Scratch {
    base: *mut u8,
    len: usize,
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
        Ok(Scratch {
            base: memory::map_own(len, memory::ZEROED, -1, 0)?,
            len,
            used: MAX_BLOCK,
            events: 0,
            began: clock::before(),
            tid,
        })
    }

    /// The address range, for whoever must know that it is the shim's.
    pub(crate) fn range(&self) -> (usize, usize) {
        (self.base as usize, self.base as usize + self.len)
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

    /// What was written so far.
    pub(crate) fn text(&self) -> &[u8] {
        // SAFETY: these bytes were written by `line`.
        unsafe { core::slice::from_raw_parts(self.base.add(MAX_BLOCK), self.used - MAX_BLOCK) }
    }

    /// Events so far.
    pub(crate) fn events(&self) -> u64 {
        self.events
    }

    /// Writes the lines as a block of stream 0.
    pub(crate) fn write(self) -> sys::Result<()> {
        let times = (self.began, clock::before());
        let run = Run {
            tid: self.tid as u64,
            events: self.events,
            times,
        };
        // SAFETY: the lines lie behind MAX_BLOCK bytes of room.
        unsafe { write_aside(self.base.add(MAX_BLOCK), self.used - MAX_BLOCK, &run) }
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
            times: (self.began, clock::before()),
            last: true,
            sample: false,
        };
        // SAFETY: the lines lie behind MAX_BLOCK bytes of room.
        unsafe { write_block(self.base.add(MAX_BLOCK), &block) }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        memory::unmap_own(self.base, self.len);
    }
}
