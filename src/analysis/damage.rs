//! What is wrong inside a log that can be read all the same: counted, with a few examples.

use crate::decode::BadLine;
use serde::Serialize;
use std::collections::BTreeMap;

/// How many different unknown ops are told apart.
const MOST_OPS: usize = 16;
/// How many examples are kept.
const MOST_EXAMPLES: usize = 8;

/// What was wrong, by kind.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Damage {
    /// Lines that are no events.
    pub bad_lines: u64,
    /// Lines longer than [`crate::decode::MAX_LINE`], skipped.
    pub long_lines: u64,
    /// Lines with an op that this version does not know.
    pub unknown_ops: u64,
    /// Those ops, the first sixteen of them, with their counts.
    pub unknown_op_names: BTreeMap<String, u64>,
    /// Blocks whose length or number of events is not what their block line says.
    pub bad_blocks: u64,
    /// Blocks that stand twice; the second one is left out.
    pub double_blocks: u64,
    /// Lines outside any block, in a log that has blocks.
    pub stray_lines: u64,
    /// Events that came with a time before that of their predecessor in the merged order.
    pub disorder: u64,
    /// The first few bad places, in words: where and what.
    pub examples: Vec<String>,
}

impl Damage {
    /// Whether nothing was wrong.
    pub fn is_none(&self) -> bool {
        *self == Damage::default()
    }

    /// Adds what another pass found.
    pub(crate) fn add(&mut self, other: &Damage) {
        self.bad_lines += other.bad_lines;
        self.long_lines += other.long_lines;
        self.unknown_ops += other.unknown_ops;
        self.bad_blocks += other.bad_blocks;
        self.double_blocks += other.double_blocks;
        self.stray_lines += other.stray_lines;
        self.disorder += other.disorder;
        for (name, count) in &other.unknown_op_names {
            *self.unknown_op_names.entry(name.clone()).or_default() += count;
        }
        for text in &other.examples {
            self.example(|| text.clone());
        }
    }

    pub(crate) fn line(&mut self, place: impl FnOnce() -> String, why: &BadLine) {
        match why {
            BadLine::TooLong(_) => self.long_lines += 1,
            BadLine::UnknownOp(op) => {
                self.unknown_ops += 1;
                let op = crate::text::printable(op.as_bytes());
                let name: String = op.chars().take(64).collect();
                let room = self.unknown_op_names.len() < MOST_OPS;
                match self.unknown_op_names.get_mut(&name) {
                    Some(count) => *count += 1,
                    None if room => {
                        self.unknown_op_names.insert(name, 1);
                    }
                    None => {}
                }
            }
            _ => self.bad_lines += 1,
        }
        self.example(|| format!("{}: {why}", place()));
    }

    pub(crate) fn block(&mut self, place: impl FnOnce() -> String) {
        self.bad_blocks += 1;
        self.example(place);
    }

    fn example(&mut self, text: impl FnOnce() -> String) {
        if self.examples.len() < MOST_EXAMPLES {
            self.examples.push(text());
        }
    }
}
