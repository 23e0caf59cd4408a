//! A log with its tail: what a killed process left, and its recovery.
//!
//! The input is the length of the log (four bytes, little-endian), the log, the tail.

use std::fs;

use memspy_analysis::log::Log;
use memspy_analysis::recover::{Recovered, recover};

/// The most that a log of a few kilobytes may grow to: a sparse file of the size that a tail claims is no loss.
const MOST_LOG: u64 = 1 << 24;

/// Reads both, recovers, and reads again: the events of the tail must be in the log now.
pub fn run(data: &[u8]) {
    let Some((len, rest)) = data.split_first_chunk::<4>() else {
        return;
    };
    let len = (u32::from_le_bytes(*len) as usize).min(rest.len());
    let (log, tail) = rest.split_at(len);
    let path = super::place("tail", "memspy.fuzz.1.jsonl");
    let tail_path = super::place("tail", "memspy.fuzz.1.jsonl.tail");
    fs::write(&path, log).expect("the file can be written");
    fs::write(&tail_path, tail).expect("the file can be written");
    super::log::read(&path);
    let from_tail = Log::open(&path).map(|log| log.events_from_tail());
    match recover(&path, true) {
        Ok(Recovered::Done { .. }) => {
            assert!(!tail_path.exists(), "the tail is still there");
            let grown = fs::metadata(&path).expect("the log is there").len();
            if grown <= MOST_LOG && from_tail.is_ok_and(|events| events > 0) {
                Log::open(&path).expect("a recovered log is a log");
            }
        }
        // FORMAT.md: what begins with eight zero bytes, or is empty, is no tail yet.
        Ok(Recovered::Nothing) => {
            assert!(
                tail.iter().take(8).all(|byte| *byte == 0),
                "there was a tail"
            );
        }
        Err(why) => assert!(!why.to_string().contains(char::is_control), "{why:?}"),
    }
    let _ = fs::remove_file(&tail_path);
}
