//! A set of address ranges, gathered in any order, then taken away from others.

use super::arrays;

/// The set.
pub(super) struct Ranges {
    list: &'static mut [(usize, usize)],
    len: usize,
    full: bool,
}

impl Ranges {
    /// A set with room for `most` ranges.
    pub(super) fn new(most: usize) -> Option<Ranges> {
        Some(Ranges {
            list: arrays::zeroed(most)?,
            len: 0,
            full: false,
        })
    }

    /// Adds `from` up to, without, `to`. An empty range is nothing.
    pub(super) fn add(&mut self, from: usize, to: usize) {
        if from >= to {
            return;
        }
        match self.list.get_mut(self.len) {
            Some(slot) => {
                *slot = (from, to);
                self.len += 1;
            }
            None => self.full = true,
        }
    }

    /// Whether a range found no room.
    pub(super) fn is_full(&self) -> bool {
        self.full
    }

    /// Puts the set in order; needed before it is asked.
    pub(super) fn sort(&mut self) {
        let Some(list) = self.list.get_mut(..self.len) else {
            return;
        };
        list.sort_unstable();
        let mut kept = 0usize;
        for i in 0..list.len() {
            let Some((from, to)) = list.get(i).copied() else {
                break;
            };
            match kept.checked_sub(1).and_then(|last| list.get_mut(last)) {
                Some((_, end)) if from <= *end => *end = to.max(*end),
                _ => {
                    if let Some(slot) = list.get_mut(kept) {
                        *slot = (from, to);
                    }
                    kept += 1;
                }
            }
        }
        self.len = kept;
    }

    /// Adds all of this set to another.
    pub(super) fn add_to(&self, other: &mut Ranges) {
        for (from, to) in self.list.get(..self.len).unwrap_or_default() {
            other.add(*from, *to);
        }
    }

    /// The range that holds an address.
    pub(super) fn at(&self, address: usize) -> Option<(usize, usize)> {
        let list = self.list.get(..self.len)?;
        let after = list.partition_point(|(from, _)| *from <= address);
        let range = *list.get(after.checked_sub(1)?)?;
        (address < range.1).then_some(range)
    }

    /// Calls `visit` with what is left of a range when the set is taken away from it.
    pub(super) fn each_rest(&self, from: usize, to: usize, mut visit: impl FnMut(usize, usize)) {
        let list = self.list.get(..self.len).unwrap_or_default();
        let first = list.partition_point(|(_, end)| *end <= from);
        let mut at = from;
        for (begin, end) in list.get(first..).unwrap_or_default() {
            if *begin >= to {
                break;
            }
            if at < *begin {
                visit(at, *begin);
            }
            at = *end;
        }
        if at < to {
            visit(at, to);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Ranges;

    #[test]
    fn what_is_left_is_what_no_range_covers() {
        let mut seed = 3usize;
        let mut random = |below: usize| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1);
            (seed >> 33) % below
        };
        for _ in 0..200 {
            let mut ranges = Ranges::new(20).expect("memory");
            let mut covered = [false; 200];
            for _ in 0..random(20) {
                let from = random(200);
                let to = (from + random(20)).min(200);
                ranges.add(from, to);
                covered[from..to].fill(true);
            }
            ranges.sort();
            let (from, to) = (random(100), 100 + random(100));
            let mut left = [false; 200];
            ranges.each_rest(from, to, |from, to| left[from..to].fill(true));
            for at in 0..200 {
                assert_eq!(left[at], at >= from && at < to && !covered[at]);
                assert_eq!(ranges.at(at).is_some(), covered[at]);
            }
        }
    }

    #[test]
    fn a_set_without_room_says_so() {
        let mut ranges = Ranges::new(1).expect("memory");
        ranges.add(1, 2);
        ranges.add(3, 3);
        assert!(!ranges.is_full());
        ranges.add(3, 4);
        assert!(ranges.is_full());
    }
}
