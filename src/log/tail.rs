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

const _: () = assert!(control::EXTENT_TABLE + 16 * MAX_EXTENTS <= CONTROL_SIZE);
