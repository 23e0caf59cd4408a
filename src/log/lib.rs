//! The words that the shim and the readers share: the names of events and keys, and the writer of log lines.
//!
//! `FORMAT.md` beside this file is the specification. This crate allocates nothing, uses no standard library and
//! contains no `unsafe`; everything in it may be called inside a hook.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

mod errno;
mod escape;
mod heap_line;
mod line;
mod number;
mod op;
pub mod tail;

pub use errno::errno_name;
pub use escape::escape;
pub use heap_line::{
    Acquire, Digits, HeapCall, HeapText, LAST_FOUR, Measured, Outcome, Portable, Release, Time,
};
pub use line::{Key, Line, Tag, key, tag, timed_tag};
pub use op::Op;

/// The version of the log format that this crate writes and the newest that a reader accepts.
pub const VERSION: u64 = 1;

/// The longest line of a memory event in bytes, with its newline.
///
/// Lines about the log itself (start, module, map) are longer and never written on the event path.
pub const MAX_EVENT: usize = 384;
