//! Long writes that end where file systems like it.
//!
//! The page cache keeps a file in pieces of a power of two, each at a multiple of its size, and a write that begins or ends
//! elsewhere makes a dozen small ones: 0.13 ns a byte on ext4, not 0.10. So a busy thread's buffer counts as full when what
//! it holds reaches to such a place, and the block line gets the blanks that are missing. If another thread's block comes
//! between, the place is missed; nothing depends on it.

use crate::image;
use core::sync::atomic::Ordering::Relaxed;
use memspy_log::tail::{HEADER_SIZE, control};

/// The shortest write, and the smallest buffer, for which it is done.
pub(crate) const WORTH: u64 = 256 << 10;
/// Where a write ends: at a multiple of this.
const PLACE: u64 = 128 << 10;
/// Text of a block beside its lines: what its block line takes, rather more than less.
const HEAD: u64 = 224;
/// Room that is left for the last line, so that it seldom reaches beyond the place.
const LAST_LINE: u64 = 96;

/// Up to where an empty buffer of `size` bytes is to be filled, if a line needs `reach` bytes: at most `size`.
pub(crate) fn limit(size: u64, reach: u64) -> u64 {
    let log_end = image::word(control::LOG_END).load(Relaxed);
    let most = log_end + HEAD + (size - HEADER_SIZE as u64);
    let place = most / PLACE * PLACE;
    let text = place.saturating_sub(log_end + HEAD);
    // Else most of the buffer would lie idle.
    if text < size / 2 {
        return size;
    }
    (HEADER_SIZE as u64 + text + reach - LAST_LINE).min(size)
}

/// How many blanks bring the end of a write of `len` bytes to such a place; 0 if that needs more than `most`.
pub(crate) fn blanks(len: u64, most: u64) -> u64 {
    let end = image::word(control::LOG_END).load(Relaxed) + len;
    let missing = end.next_multiple_of(PLACE) - end;
    if missing <= most { missing } else { 0 }
}
