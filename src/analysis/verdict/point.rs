//! What a process held at the moments when somebody looked, and what grew from each to the next.

use super::Totals;
use crate::event::StackId;
use std::collections::{BTreeMap, HashMap};

/// What one call stack held at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Who allocated it.
    pub stack: StackId,
    /// Whether it came with fork from the parent.
    pub inherited: bool,
    /// How much.
    pub totals: Totals,
}

/// A moment at which all live blocks are known: a check on request, or a mark in a log of events.
#[derive(Clone, Debug)]
pub struct Point {
    /// The mark's name, bytes from outside.
    pub mark: Box<[u8]>,
    /// When, nanoseconds since the image started.
    pub t: u64,
    /// What was live, of whatever kind, by call stack.
    pub held: Vec<Held>,
}

/// A call stack that held more bytes at each point than at the one before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Growth {
    /// Who allocates.
    pub stack: StackId,
    /// What it held at each point.
    pub totals: Vec<Totals>,
}

impl Growth {
    /// Bytes from the first point to the last.
    pub fn bytes(&self) -> u64 {
        let of = |totals: Option<&Totals>| totals.map_or(0, |totals| totals.bytes);
        of(self.totals.last()).saturating_sub(of(self.totals.first()))
    }
}

/// The call stacks that grew in every window between two neighbouring points, most bytes first. Inherited blocks don't
/// grow. Empty for fewer than two points.
pub fn growing(points: &[Point]) -> Vec<Growth> {
    let mut stacks: BTreeMap<StackId, Vec<Totals>> = BTreeMap::new();
    for (number, point) in points.iter().enumerate() {
        for held in point.held.iter().filter(|held| !held.inherited) {
            let totals = stacks
                .entry(held.stack)
                .or_insert_with(|| vec![Totals::default(); points.len()]);
            totals[number].bytes = totals[number].bytes.saturating_add(held.totals.bytes);
            totals[number].blocks = totals[number].blocks.saturating_add(held.totals.blocks);
        }
    }
    let grew = |totals: &[Totals]| {
        totals.len() > 1 && totals.windows(2).all(|pair| pair[0].bytes < pair[1].bytes)
    };
    let mut all: Vec<Growth> = stacks
        .into_iter()
        .filter(|(_, totals)| grew(totals))
        .map(|(stack, totals)| Growth { stack, totals })
        .collect();
    all.sort_by_key(|growth| (std::cmp::Reverse(growth.bytes()), growth.stack));
    all
}

/// Adds up what belongs to the same stack.
pub(super) fn by_stack(blocks: impl Iterator<Item = Held>) -> Vec<Held> {
    let mut sums: HashMap<(StackId, bool), Totals> = HashMap::new();
    for block in blocks {
        let sum = sums.entry((block.stack, block.inherited)).or_default();
        sum.bytes = sum.bytes.saturating_add(block.totals.bytes);
        sum.blocks = sum.blocks.saturating_add(block.totals.blocks);
    }
    let held = |((stack, inherited), totals)| Held {
        stack,
        inherited,
        totals,
    };
    sums.into_iter().map(held).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(t: u64, held: &[(StackId, u64)]) -> Point {
        let held = held.iter().map(|(stack, bytes)| Held {
            stack: *stack,
            inherited: false,
            totals: Totals {
                bytes: *bytes,
                blocks: 1,
            },
        });
        Point {
            mark: Box::default(),
            t,
            held: held.collect(),
        }
    }

    #[test]
    fn only_what_grew_in_every_window_is_growing() {
        let points = [
            point(1, &[(1, 10), (2, 10), (3, 5)]),
            point(2, &[(1, 20), (2, 30), (4, 1), (5, 7)]),
            point(3, &[(1, 30), (2, 30), (4, 2), (3, 9), (5, 100)]),
        ];
        let found: Vec<(StackId, u64)> = growing(&points)
            .iter()
            .map(|growth| (growth.stack, growth.bytes()))
            .collect();
        assert_eq!(found, [(5, 100), (1, 20), (4, 2)]);
    }

    #[test]
    fn one_point_proves_no_growth() {
        assert_eq!(growing(&[point(1, &[(1, 10)])]), []);
        assert_eq!(growing(&[]), []);
    }
}
