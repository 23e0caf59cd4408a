//! Code addresses in, names out: function, source file and line of every frame in a log.
//!
//! Names are looked up when a report is made, never in the recorded program. The files that hold
//! them (executables, libraries, debug files) may be of another machine, changed, cut off or made
//! to hurt, and the libraries that read them map them into memory and recurse over them. So the
//! reading happens in worker processes: this program once more, started as [`worker::serve`]. A
//! file that makes a worker crash, hang or eat memory costs the names of that file and nothing
//! else, and the report says so ([`Problem`]).
//!
//! The way of an address:
//!
//! ```text
//!   Finder ──locate──> worker: which file has the names of this module, and is it the same build?
//!          ──name────> worker: the frames at these addresses
//!          ──────────> Names: frames by (module, address), and a Note for each module in trouble
//! ```
#![forbid(unsafe_code)]

mod debug_link;
mod debuginfod;
mod demangle;
mod finder;
mod frame;
mod locate;
mod mini;
mod module;
mod names;
mod problem;
mod wire;
pub mod worker;

pub use demangle::demangled;
pub use finder::{Finder, Worker};
pub use frame::Frame;
pub use module::{Module, Options};
pub use names::{Names, Note};
pub use problem::Problem;
