//! How often blocks of which size are asked for, in classes of powers of two.

use serde::Serialize;

/// Counts by size class: class 0 is size 0, class c holds sizes from 2^(c-1) to 2^c - 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    classes: [Class; 65],
}

/// A size class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Class {
    /// The smallest size of the class, in bytes.
    pub from: u64,
    /// The largest size of the class, in bytes.
    pub to: u64,
    /// Blocks of these sizes.
    pub blocks: u64,
    /// Their bytes in all, saturating.
    pub bytes: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        let mut classes = [Class::default(); 65];
        for (class, limits) in classes.iter_mut().enumerate().skip(1) {
            limits.from = 1 << (class - 1);
            limits.to = limits.from - 1 + limits.from;
        }
        Histogram { classes }
    }
}

impl Histogram {
    /// Counts a block.
    #[inline]
    pub fn add(&mut self, size: u64) {
        let class = &mut self.classes[(u64::BITS - size.leading_zeros()) as usize];
        class.blocks += 1;
        class.bytes = class.bytes.saturating_add(size);
    }

    /// Adds another histogram's counts.
    pub fn merge(&mut self, other: &Histogram) {
        for (class, more) in self.classes.iter_mut().zip(&other.classes) {
            class.blocks += more.blocks;
            class.bytes = class.bytes.saturating_add(more.bytes);
        }
    }

    /// The classes that have blocks, by size.
    pub fn classes(&self) -> impl Iterator<Item = &Class> {
        self.classes.iter().filter(|class| class.blocks > 0)
    }
}

impl Serialize for Histogram {
    fn serialize<S: serde::Serializer>(&self, json: S) -> Result<S::Ok, S::Error> {
        json.collect_seq(self.classes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_size_falls_into_the_class_that_holds_it() {
        for size in [0, 1, 2, 3, 4, 7, 8, 131071, 131072, u64::MAX - 1, u64::MAX] {
            let mut sizes = Histogram::default();
            sizes.add(size);
            let classes: Vec<_> = sizes.classes().collect();
            assert_eq!(classes.len(), 1);
            assert!((classes[0].from..=classes[0].to).contains(&size), "{size}");
        }
    }
}
