//! The tail: what a process has not yet brought to its log, see FORMAT.md, *The tail*.
//!
//! Read only. The copy is made before the log is read, so that a block which a live process
//! flushes in between is seen at least once; what is seen twice is left out by (thread, n).

use crate::decode;
use crate::error::Error;
use crate::event::{BlockLine, What};
use crate::source::Source;
use memchr::{memchr2, memmem};
use memspy_log::tail::{
    CONTROL_SIZE, HEADER_SIZE, MAGIC, MAX_EXTENTS, VOID, control, header, state,
};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The largest tail that is read: memspy's buffers end at 16 MiB unless MEMSPY_BUFFER says more.
const MAX_TAIL: u64 = 1 << 30;
/// How often a buffer is read again that changed while it was read.
const TRIES: usize = 8;

/// A copy of what a tail holds.
#[derive(Debug, Default)]
pub struct Tail {
    /// Where it lies.
    pub path: PathBuf,
    /// What its control page says.
    pub control: Control,
    /// The pieces' bytes.
    pub(crate) text: Vec<u8>,
    /// Lines that are in no block yet, and blocks whose way to the log was not finished.
    pub(crate) pieces: Vec<Piece>,
    /// Of each thread that has a buffer, the number of the last event that the buffer vouches for.
    pub(crate) vouched: Vec<(u32, u64)>,
    /// Lines begun and never finished, in the buffers.
    pub(crate) abandoned: u64,
}

/// The control page of a tail.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Control {
    /// The process.
    pub pid: u32,
    /// See [`memspy_log::tail::state`].
    pub state: u32,
    /// Field 22 of /proc/PID/stat.
    pub start_ticks: u64,
    /// The boot during which the process ran.
    pub boot_id: String,
    /// Bytes of the log that are given out.
    pub log_end: u64,
    /// The log's inode.
    pub inode: u64,
    /// The log's device.
    pub device: u64,
    /// Events that could not be kept.
    pub lost: u64,
    /// Thread numbers given out.
    pub streams: u64,
    /// Why writing stopped: an errno, 0 while it has not.
    pub stop_errno: u32,
    /// The image is in a seccomp sandbox.
    pub sandboxed: bool,
    /// Lines begun and never finished.
    pub abandoned: u64,
}

/// A run of one thread's lines in a tail.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    /// The lines, in [`Tail::text`].
    pub(crate) at: usize,
    /// Their bytes.
    pub(crate) len: usize,
    /// memspy's number of the thread.
    pub(crate) thread: u32,
    /// The kernel's number.
    pub(crate) tid: u32,
    /// The number of the first event.
    pub(crate) n: u64,
    /// How many there are.
    pub(crate) events: u64,
    /// The smallest time.
    pub(crate) t: u64,
    /// The largest time.
    pub(crate) until: u64,
    /// Where the block belongs when its way to the log was begun: (position, bytes with its block
    /// line); `None` when the lines wait for a place.
    pub(crate) place: Option<(u64, u64)>,
    /// Bytes of the block line, which stands before the lines; 0 when they have none.
    pub(crate) head: usize,
}

/// The name of the tail of a log.
pub(crate) fn path_of(log: &Path) -> PathBuf {
    let mut name = OsString::from(log);
    name.push(".tail");
    name.into()
}

impl Tail {
    /// Reads the tail of a log; `None` when there is none, or when its image died while it made it.
    ///
    /// # Errors
    /// When it is there but can't be read or is not a tail.
    pub fn of_log(log: &Path) -> Result<Option<Tail>, Error> {
        let path = path_of(log);
        match std::fs::symlink_metadata(&path) {
            Err(why) if why.kind() == std::io::ErrorKind::NotFound => Ok(None),
            _ => Tail::read(&path),
        }
    }

    fn read(path: &Path) -> Result<Option<Tail>, Error> {
        let source = Source::open(path)?;
        let not_a_tail = |why: &str| Error::NotALog {
            path: path.into(),
            why: format!("{why}; move the file away to read the log without it"),
        };
        let mut page = vec![0; CONTROL_SIZE];
        let read = source.read_at(&mut page, 0)?;
        if page[..MAGIC.len()] == [0; MAGIC.len()] {
            return Ok(None);
        }
        if read < CONTROL_SIZE || page[..MAGIC.len()] != MAGIC {
            return Err(not_a_tail("its tail does not begin as a tail does"));
        }
        if source.len() > MAX_TAIL {
            return Err(not_a_tail("its tail is larger than any tail of memspy"));
        }
        let mut tail = Tail {
            path: path.into(),
            control: Control::read(&page),
            ..Tail::default()
        };
        let extents = number4(&page, control::EXTENTS) as usize;
        let mut at = CONTROL_SIZE as u64;
        for extent in 0..extents.min(MAX_EXTENTS) {
            let entry = control::EXTENT_TABLE + 16 * extent;
            let (size, count) = (number8(&page, entry), number8(&page, entry + 8));
            if size <= HEADER_SIZE as u64 {
                break;
            }
            for _ in 0..count {
                if at.checked_add(size).is_none_or(|end| end > source.len()) {
                    return Ok(Some(tail));
                }
                tail.buffer(&source, at, size as usize)?;
                at += size;
            }
        }
        Ok(Some(tail))
    }

    /// Reads one buffer, again while it changes under the reading.
    fn buffer(&mut self, source: &Source, at: u64, size: usize) -> Result<(), Error> {
        let mut buffer = vec![0; size];
        let mut after = [0; HEADER_SIZE];
        for _ in 0..TRIES {
            if source.read_at(&mut buffer[..HEADER_SIZE], at)? < HEADER_SIZE
                || number8(&buffer, header::THREAD) == 0
            {
                return Ok(());
            }
            source.read_at(&mut buffer, at)?;
            source.read_at(&mut after, at)?;
            let same = |field| number8(&buffer, field) == number8(&after, field);
            if [
                header::THREAD,
                header::FIRST_N,
                header::FLUSHED,
                header::FLUSH_LEN,
            ]
            .into_iter()
            .all(same)
            {
                break;
            }
        }
        self.take(&buffer);
        Ok(())
    }

    /// Takes over what a buffer holds.
    fn take(&mut self, buffer: &[u8]) {
        let size = buffer.len();
        let Ok(thread) = u32::try_from(number8(buffer, header::THREAD)) else {
            return;
        };
        let tid = number4(buffer, header::TID);
        let mut n = number8(buffer, header::FIRST_N);
        let top = (number8(buffer, header::TOP) as usize).clamp(HEADER_SIZE, size);
        let mut from = (number8(buffer, header::FLUSHED) as usize).max(HEADER_SIZE);
        match number8(buffer, header::FLUSH_LEN) {
            0 => {}
            VOID => from = top,
            len => {
                let start = number8(buffer, header::FLUSH_FROM) as usize;
                let end = start.saturating_add(len as usize).min(size);
                let place = (number8(buffer, header::FLUSH_OFF), len);
                if let Some(block) = buffer.get(start..end)
                    && let Some((line, t, head)) = block_line(block)
                {
                    self.pieces.push(Piece {
                        at: self.text.len() + line,
                        len: block.len() - line,
                        thread,
                        tid,
                        n: head.n,
                        events: head.events,
                        t,
                        until: head.until,
                        place: Some(place),
                        head: line,
                    });
                    self.text.extend_from_slice(block);
                    n = head.n.saturating_add(head.events);
                }
                from = end;
            }
        }
        if from < top {
            n = n.saturating_add(self.pending(&buffer[from..top], thread, tid, n));
        }
        if n > 0 {
            self.vouched.push((thread, n - 1));
        }
    }

    /// Keeps the lines of a text that are in no block, and answers how many events they are.
    fn pending(&mut self, text: &[u8], thread: u32, tid: u32, n: u64) -> u64 {
        let mut piece = Piece {
            at: self.text.len(),
            len: 0,
            thread,
            tid,
            n,
            events: 0,
            t: u64::MAX,
            until: 0,
            place: None,
            head: 0,
        };
        let mut abandoned = 0;
        for line in committed(text, &mut abandoned) {
            self.text.extend_from_slice(line);
            piece.events += 1;
            if let (Ok(event), _) = decode::first_line(line) {
                piece.t = piece.t.min(event.t);
                piece.until = piece.until.max(event.end());
            }
        }
        self.abandoned += abandoned;
        piece.t = piece.t.min(piece.until);
        piece.len = self.text.len() - piece.at;
        let events = piece.events;
        if events > 0 {
            self.pieces.push(piece);
        }
        events
    }

    /// The bytes of a piece: its block line, where it has one, and its lines.
    pub(crate) fn bytes(&self, piece: &Piece) -> &[u8] {
        let from = piece.at - piece.head;
        self.text
            .get(from..piece.at + piece.len)
            .unwrap_or_default()
    }

    /// The errno by which writing stopped, by name.
    pub(crate) fn stop_name(&self) -> String {
        let errno = self.control.stop_errno;
        let name = i32::try_from(errno).ok().and_then(memspy_log::errno_name);
        name.map_or_else(|| format!("E{errno}"), str::to_string)
    }

    /// Whether the log could not be written any more.
    pub(crate) fn stopped(&self) -> bool {
        self.control.state == state::STOPPED
    }
}

/// The committed lines of a buffer's text, each with its newline; counts the abandoned ones.
pub(crate) fn committed<'a>(
    mut text: &'a [u8],
    abandoned: &mut u64,
) -> impl Iterator<Item = &'a [u8]> {
    std::iter::from_fn(move || {
        loop {
            let gap = text
                .iter()
                .take_while(|byte| matches!(byte, 0 | b'\n' | b' '))
                .count();
            text = &text[gap..];
            let end = memchr2(b'\n', 0, text)?;
            let (line, rest) = text.split_at(end + 1);
            text = rest;
            if line.first() == Some(&b'{') && line.last() == Some(&b'\n') {
                return Some(line);
            }
            // A piece without its opening is the rest of one that was counted, or was never begun.
            *abandoned += u64::from(memmem::find(line, b"\"op\":\"").is_some());
        }
    })
}

/// The block line at the start of `block`: its length, its time, itself.
fn block_line(block: &[u8]) -> Option<(usize, u64, BlockLine)> {
    match decode::first_line(block) {
        (Ok(event), len) => match event.what {
            What::Block(head) => Some((len, event.t, *head)),
            _ => None,
        },
        _ => None,
    }
}

impl Control {
    fn read(page: &[u8]) -> Control {
        let boot_id = &page[control::BOOT_ID..control::BOOT_ID + 36];
        Control {
            pid: number4(page, control::PID),
            state: number4(page, control::STATE),
            start_ticks: number8(page, control::START_TICKS),
            boot_id: String::from_utf8_lossy(boot_id)
                .trim_end_matches('\0')
                .into(),
            log_end: number8(page, control::LOG_END),
            inode: number8(page, control::LOG_INODE),
            device: number8(page, control::LOG_DEVICE),
            lost: number8(page, control::LOST),
            streams: number8(page, control::STREAMS),
            stop_errno: number4(page, control::STOP_ERRNO),
            sandboxed: number4(page, control::SANDBOXED) != 0,
            abandoned: number8(page, control::ABANDONED),
        }
    }
}

/// The little-endian number of 4 bytes at `at`; 0 behind the end.
fn number4(bytes: &[u8], at: usize) -> u32 {
    let number = bytes.get(at..).and_then(|rest| rest.first_chunk());
    number.map_or(0, |number| u32::from_le_bytes(*number))
}

/// The little-endian number of 8 bytes at `at`; 0 behind the end.
fn number8(bytes: &[u8], at: usize) -> u64 {
    let number = bytes.get(at..).and_then(|rest| rest.first_chunk());
    number.map_or(0, |number| u64::from_le_bytes(*number))
}
