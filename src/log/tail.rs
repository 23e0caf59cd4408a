//! The layout of the tail file, as `FORMAT.md` (*The tail*) states it: byte offsets of little-endian fields.

/// First bytes of a tail.
pub const MAGIC: [u8; 8] = *b"MEMSPYT1";
/// Size of the control page in bytes.
pub const CONTROL_SIZE: usize = 4096;
/// Size of a buffer's header in bytes; the text follows.
pub const HEADER_SIZE: usize = 512;
/// Most extents that a tail can have.
pub const MAX_EXTENTS: usize = 64;
/// `flush_len` of a buffer whose text is in the log.
pub const VOID: u64 = u64::MAX;

/// States of an image, the control page's `state`.
pub mod state {
    /// The log is being made.
    pub const STARTING: u32 = 0;
    /// Events go into buffers.
    pub const BUFFERED: u32 = 1;
    /// The image is ending: each event goes straight to the log.
    pub const DIRECT: u32 = 2;
    /// The log can't be written any more.
    pub const STOPPED: u32 = 3;
}

/// What a process is asked for, the control page's `request`.
pub mod request {
    /// Nothing.
    pub const NONE: u32 = 0;
    /// A mark, a leak check and a picture of the address space.
    pub const SNAPSHOT: u32 = 1;
    /// A mark.
    pub const MARK: u32 = 2;
    /// The process has seen the request and works on it.
    pub const TAKEN: u32 = 3;
}

/// What became of a request, the control page's `answer`.
pub mod answer {
    /// It is in the log.
    pub const DONE: u32 = 0;
    /// It could not be written.
    pub const NOT_WRITTEN: u32 = 1;
    /// Another check was under way.
    pub const BUSY: u32 = 2;
    /// The process is in a sandbox and makes no system calls for memspy any more.
    pub const SANDBOXED: u32 = 3;
    /// The image is ending.
    pub const ENDING: u32 = 4;
}

/// Most bytes of a mark's name.
pub const MAX_NAME: usize = 80;

/// Offsets in the control page.
pub mod control {
    /// u32
    pub const PID: usize = 8;
    /// u32, see [`super::state`]
    pub const STATE: usize = 12;
    /// u64, field 22 of /proc/PID/stat
    pub const START_TICKS: usize = 16;
    /// 36 bytes of text
    pub const BOOT_ID: usize = 24;
    /// u64, bytes of the log that are given out
    pub const LOG_END: usize = 64;
    /// u64
    pub const LOG_INODE: usize = 72;
    /// u64
    pub const LOG_DEVICE: usize = 80;
    /// u64, events that could not be kept
    pub const LOST: usize = 88;
    /// u64, thread numbers given out
    pub const STREAMS: usize = 96;
    /// u32, errno of the stop
    pub const STOP_ERRNO: usize = 104;
    /// u32
    pub const EXTENTS: usize = 108;
    /// u64, lines begun and never finished
    pub const ABANDONED: usize = 112;
    /// u32, not 0: the image is in a seccomp sandbox and makes no system call any more
    pub const SANDBOXED: usize = 120;
    /// u32, see [`super::request`]; the asker writes it last
    pub const REQUEST: usize = 128;
    /// u32, not 0: the copy that made a check has ended and is to be reaped
    pub const COPY_ENDED: usize = 132;
    /// u32, the asker's number for its request
    pub const SERIAL: usize = 136;
    /// u32, number of the last request whose answer is complete
    pub const DONE: usize = 140;
    /// u32, see [`super::answer`]
    pub const ANSWER: usize = 144;
    /// u32, the signal that makes an idle process look here, 0: none
    pub const SIGNAL: usize = 148;
    /// u64, where in the log the lines of the answer's leak check are
    pub const CHECK_AT: usize = 152;
    /// u64, their bytes with their block line, 0: there is no check
    pub const CHECK_LEN: usize = 160;
    /// u32, bytes of the name
    pub const NAME_LEN: usize = 168;
    /// up to [`super::MAX_NAME`] bytes: the name of the mark
    pub const NAME: usize = 172;
    /// 16 bytes for each extent: u64 size of a buffer, u64 count
    pub const EXTENT_TABLE: usize = 256;
}

/// Offsets in a buffer's header.
pub mod header {
    /// u64, 0: never used
    pub const THREAD: usize = 0;
    /// u32
    pub const TID: usize = 8;
    /// u32, tid of the thread that flushes, or 0
    pub const FLUSHER: usize = 12;
    /// u64, number of the first event at `FLUSHED`
    pub const FIRST_N: usize = 16;
    /// u64, end of the text
    pub const TOP: usize = 24;
    /// u64, end of the text that is in the log
    pub const FLUSHED: usize = 32;
    /// u64, start of the bytes of the flush under way
    pub const FLUSH_FROM: usize = 40;
    /// u64, their place in the log
    pub const FLUSH_OFF: usize = 48;
    /// u64, their length, 0 or [`super::VOID`]
    pub const FLUSH_LEN: usize = 56;
}

const _: () = assert!(control::NAME + MAX_NAME <= control::EXTENT_TABLE);
const _: () = assert!(control::EXTENT_TABLE + 16 * MAX_EXTENTS <= CONTROL_SIZE);
