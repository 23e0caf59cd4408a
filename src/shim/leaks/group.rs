//! Blocks of one kind and one stack, added up.

use super::arrays::{self, Zeroed};
use super::blocks::State;

/// What became of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub(crate) enum Kind {
    /// Nothing points to them.
    Definite = 1,
    /// Only lost blocks point to them.
    Indirect,
    /// Only pointers into their middle are left.
    Possible,
    /// The program can still find them.
    Reachable,
    /// Mappings that the program made and never unmapped.
    Mapping,
}

impl Kind {
    /// As it stands in the log.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Kind::Definite => "definite",
            Kind::Indirect => "indirect",
            Kind::Possible => "possible",
            Kind::Reachable => "reachable",
            Kind::Mapping => "mapping",
        }
    }

    /// The kind of a number that `as` made.
    pub(super) const fn from_number(number: u32) -> Kind {
        match number {
            1 => Kind::Definite,
            2 => Kind::Indirect,
            3 => Kind::Possible,
            4 => Kind::Reachable,
            _ => Kind::Mapping,
        }
    }
}

impl From<State> for Kind {
    fn from(state: State) -> Kind {
        match state {
            State::Unreached => Kind::Definite,
            State::Indirect => Kind::Indirect,
            State::Possible => Kind::Possible,
            State::Reachable => Kind::Reachable,
        }
    }
}

/// What the blocks of a group have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) kind: Kind,
    /// Number of the call stack, 0 without one.
    pub(crate) stack: u32,
    /// The generation in which they were allocated.
    pub(crate) generation: u32,
}

/// Blocks of one kind and one stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) key: Key,
    pub(crate) blocks: u64,
    /// Bytes asked for.
    pub(crate) bytes: u64,
}

#[derive(Clone, Copy)]
struct Sum {
    /// Kind, generation and stack in one word; 0: empty.
    key: u64,
    blocks: u64,
    bytes: u64,
}

// SAFETY: plain numbers.
unsafe impl Zeroed for Sum {}

fn packed(key: Key) -> u64 {
    (key.kind as u64) << 60 | u64::from(key.generation) << 32 | u64::from(key.stack)
}

fn unpacked(word: u64) -> Key {
    Key {
        kind: Kind::from_number((word >> 60) as u32),
        stack: word as u32,
        generation: (word >> 32) as u32 & 0xfff_ffff,
    }
}

/// All groups of a check: a hash table that doubles.
pub(super) struct Groups {
    sums: &'static mut [Sum],
    len: usize,
    /// The place of the key that came last: neighbours are often alike.
    last: usize,
}

impl Groups {
    pub(super) fn new() -> Option<Groups> {
        Some(Groups {
            sums: arrays::zeroed(1 << 10)?,
            len: 0,
            last: 0,
        })
    }

    /// Adds one block. `None`: there is no memory.
    pub(super) fn add(&mut self, key: Key, bytes: u64) -> Option<()> {
        let word = packed(key);
        if let Some(sum) = self.sums.get_mut(self.last)
            && sum.key == word
        {
            sum.blocks += 1;
            sum.bytes = sum.bytes.saturating_add(bytes);
            return Some(());
        }
        if self.len * 2 >= self.sums.len() {
            let room = arrays::zeroed(self.sums.len() * 2)?;
            let old = core::mem::replace(&mut self.sums, room);
            self.len = 0;
            for sum in old.iter().filter(|sum| sum.key != 0) {
                let (place, _) = self.place(sum.key)?;
                *place = *sum;
                self.len += 1;
            }
        }
        let (sum, fresh) = self.place(word)?;
        sum.blocks += 1;
        sum.bytes = sum.bytes.saturating_add(bytes);
        self.len += usize::from(fresh);
        Some(())
    }

    /// The sum of a key, and whether it is new.
    fn place(&mut self, key: u64) -> Option<(&mut Sum, bool)> {
        let mask = self.sums.len() - 1;
        let mut at = (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize & mask;
        while self
            .sums
            .get(at)
            .is_some_and(|sum| sum.key != 0 && sum.key != key)
        {
            at = (at + 1) & mask;
        }
        self.last = at;
        let sum = self.sums.get_mut(at)?;
        let fresh = sum.key == 0;
        sum.key = key;
        Some((sum, fresh))
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Each group.
    pub(super) fn iter(&self) -> impl Iterator<Item = Group> {
        self.sums
            .iter()
            .filter(|sum| sum.key != 0)
            .map(|sum| Group {
                key: unpacked(sum.key),
                blocks: sum.blocks,
                bytes: sum.bytes,
            })
    }
}

#[cfg(test)]
mod tests {
    use super::{Group, Groups, Key, Kind};

    #[test]
    fn blocks_of_one_kind_and_stack_are_one_group() {
        let mut groups = Groups::new().expect("memory");
        let key = |stack: u32, kind| Key {
            kind,
            stack,
            generation: stack % 3,
        };
        for round in 0..3u64 {
            for stack in 0..5000 {
                groups
                    .add(key(stack, Kind::Definite), round)
                    .expect("memory");
                groups.add(key(stack, Kind::Mapping), 10).expect("memory");
            }
        }
        assert_eq!(groups.len(), 10_000);
        let found = groups
            .iter()
            .find(|group| group.key == key(7, Kind::Definite));
        let want = Group {
            key: key(7, Kind::Definite),
            blocks: 3,
            bytes: 3,
        };
        assert_eq!(found, Some(want));
        assert_eq!(groups.iter().map(|group| group.blocks).sum::<u64>(), 30_000);
    }
}
