//! The address space of the recorded process: what lies where, who put it there, and why.
//!
//! [`Space`] is a visitor that keeps the exact list of mappings between the log's snapshots. At each
//! snapshot the list and the kernel's are compared, and every difference gets a [`Cause`];
//! afterwards the kernel's list is the truth. [`Picture`] is that list at one moment, each range
//! with what it is. [`Story`] says why each kernel call was made, [`Trace`] what happened to one
//! address, [`Timeline`] how much memory there was at which time.

mod account;
mod cause;
mod fragments;
mod glibc;
mod kind;
mod layout;
mod moment;
mod perms;
mod picture;
mod story;
mod timeline;
mod trace;

pub use account::{Account, Space};
pub use cause::{Cause, Difference};
pub use fragments::{Fragments, Highest};
pub use glibc::{chunk, top_growth};
pub use kind::Kind;
pub use layout::{Layout, Maker, Piece, Resident};
pub use moment::{Moment, View};
pub use perms::Perms;
pub use picture::{Call, Held, Picture, Row, Total};
pub use story::{Asked, Chapter, Reason, Story};
pub use timeline::{Point, Timeline};
pub use trace::{End, Life, Touch, Trace};

#[cfg(test)]
mod tests;
