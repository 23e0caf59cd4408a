//! Long writes that end where file systems like it.
//!
//! The page cache keeps a file in pieces of a power of two, each at a multiple of its size, and a write that begins or ends
//! elsewhere makes a dozen small ones: 0.13 ns a byte on ext4, not 0.10. So a busy thread's buffer counts as full when what
//! it holds reaches to such a place, and the block line gets the blanks that are missing. If another thread's block comes
//! between, the place is missed; nothing depends on it.

use crate::image;
use core::sync::atomic::Ordering::Relaxed;
use memspy_log::tail::{HEADER_SIZE, control};

/// The shortest write, and the smallest buffer, for which it is done: only a busy thread's buffer has so much.
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

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = (512 << 10) + 4096;
    const REACH: u64 = 288;

    /// The log ends at `end` while `act` runs.
    fn with_log_end<T>(end: u64, act: impl FnOnce() -> T) -> T {
        static ONE_AT_A_TIME: std::sync::Mutex<()> = std::sync::Mutex::new(());
        let _guard = ONE_AT_A_TIME.lock();
        let word = image::word(control::LOG_END);
        let before = word.swap(end, Relaxed);
        let answer = act();
        word.store(before, Relaxed);
        answer
    }

    /// Ends of logs that lie anywhere between two places, in logs of any size.
    fn ends() -> impl Iterator<Item = u64> {
        (0..2000u64).map(|i| (i * 7919 * 31) % PLACE + PLACE * (i * i))
    }

    #[test]
    fn a_buffer_that_was_filled_to_its_limit_ends_at_a_place() {
        for (i, end) in ends().enumerate() {
            let line = 40 + i % (LAST_LINE as usize - 39);
            let head = HEAD - i as u64 % 70;
            with_log_end(end, || {
                let limit = limit(SIZE, REACH);
                assert!((SIZE / 2..=SIZE).contains(&limit), "{limit}");
                // The first line that does not begin any more, since it might need all its reach.
                let mut lines = (HEADER_SIZE as u64..).step_by(line);
                let top = lines.find(|at| at + REACH > limit).expect("it ends");
                let len = head + top - HEADER_SIZE as u64;
                let blanks = blanks(len, HEAD + LAST_LINE);
                assert!((end + len + blanks).is_multiple_of(PLACE), "{end} {line}");
            });
        }
    }

    #[test]
    fn blanks_are_as_many_as_are_missing_or_none() {
        for end in ends() {
            let missing = (end + 1).next_multiple_of(PLACE) - (end + 1);
            let [enough, too_few] = [0, 1].map(|less| {
                let most = u64::saturating_sub(missing, less);
                with_log_end(end, || blanks(1, most))
            });
            assert_eq!(enough, missing);
            assert_eq!(too_few, 0);
        }
    }
}
