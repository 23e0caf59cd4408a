//! The rules by which glibc's malloc takes memory from the kernel (malloc/malloc.c, 2.36).

/// Bytes that malloc asks for beyond what it needs when it moves the break (M_TOP_PAD).
pub(super) const TOP_PAD: u64 = 128 << 10;
/// The mmap threshold at the start (M_MMAP_THRESHOLD).
pub(super) const MMAP_THRESHOLD: u64 = 128 << 10;
/// The trim threshold at the start (M_TRIM_THRESHOLD).
pub(super) const TRIM_THRESHOLD: u64 = 128 << 10;
/// The highest value that the dynamic mmap threshold takes on its own.
pub(super) const MMAP_THRESHOLD_MAX: u64 = 32 << 20;
/// The smallest chunk.
const MIN_CHUNK: u64 = 32;
/// A chunk's header.
pub(super) const HEADER: u64 = 16;

/// Bytes of the chunk that holds a block of `size` bytes in a heap: 8 for its size, rounded up to
/// 16, at least 32.
pub fn chunk(size: u64) -> u64 {
    size.saturating_add(8)
        .checked_next_multiple_of(16)
        .unwrap_or(u64::MAX - 15)
        .max(MIN_CHUNK)
}

/// Bytes of the chunk that memalign and its kind look for, so that an aligned one fits inside.
pub(super) fn aligned_request(size: u64, align: u64) -> u64 {
    if align <= 16 {
        return chunk(size);
    }
    chunk(
        chunk(size)
            .saturating_add(align.checked_next_power_of_two().unwrap_or(align))
            .saturating_add(MIN_CHUNK - 8),
    )
}

/// Bytes by which the break moves for a chunk of `chunk` bytes when `rest` bytes are free at the
/// top: the chunk, the top pad and a smallest chunk, less the rest, rounded up to pages.
pub fn top_growth(chunk: u64, rest: u64, page: u64) -> u64 {
    let needed = chunk.saturating_add(TOP_PAD).saturating_add(MIN_CHUNK);
    needed
        .saturating_sub(rest)
        .checked_next_multiple_of(page)
        .unwrap_or(u64::MAX)
}

/// The dynamic thresholds, as frees of mapped blocks move them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Thresholds {
    /// Requests of this size and larger get a mapping of their own.
    pub(super) mmap: u64,
    /// With more than this free at the top, free gives the top back.
    pub(super) trim: u64,
}

impl Default for Thresholds {
    fn default() -> Self {
        Thresholds {
            mmap: MMAP_THRESHOLD,
            trim: TRIM_THRESHOLD,
        }
    }
}

impl Thresholds {
    /// A mapped chunk of `chunk` bytes is freed. Answers whether the thresholds moved.
    pub(super) fn freed_mapping(&mut self, chunk: u64) -> bool {
        let moves = chunk > self.mmap && chunk <= MMAP_THRESHOLD_MAX;
        if moves {
            self.mmap = chunk;
            self.trim = 2 * chunk;
        }
        moves
    }
}
