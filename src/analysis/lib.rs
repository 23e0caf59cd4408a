//! Events in, answers out: reads memspy's logs and computes what the reports say. Prints nothing.
//!
//! The way of a log: [`log::Log::open_all`] finds its blocks (first pass), [`merge::Merge`] brings
//! its events into the order of time (second pass), [`replay::replay`] keeps the memory that they
//! describe ([`model::Memory`]) and tells a [`replay::Visitor`] each step. An analysis is a visitor
//! and the answer that it makes. [`several::Several`] does the same for the logs of several processes.
#![forbid(unsafe_code)]

pub mod call_tree;
pub mod complete;
pub mod damage;
pub mod decode;
mod error;
pub mod event;
pub mod histogram;
mod index;
pub mod lineage;
mod lines;
pub mod log;
pub mod merge;
pub mod model;
mod process;
pub mod recover;
pub mod replay;
pub mod several;
pub mod site;
mod site_ledger;
mod site_tally;
mod source;
pub mod space;
pub mod summary;
pub mod tail;
mod text;
pub mod tree;
pub mod verdict;

pub use error::Error;
pub use source::find;
pub use text::{count, printable};

#[cfg(test)]
mod reader_tests;
#[cfg(test)]
mod testlog;
