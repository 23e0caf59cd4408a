//! All blocks of a check in ascending order, and the way from any word to the block that it points into.
//!
//! A small block is one 64-bit word: its address, its state and its size together, so that judging a pointer touches
//! two cache lines besides the block itself: the index of its 512-byte granule, and the word. Blocks of 128 KiB and
//! more are few; they are found by bisection and don't fill the index.

use super::table::Entry;

/// How a block is reached, in Valgrind's terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum State {
    /// Nothing points to it, as far as is known. After the marking: definitely lost.
    Unreached,
    /// Only blocks point to it that are lost themselves: indirectly lost.
    Indirect,
    /// Reached only by way of pointers into the middle of a block: possibly lost.
    Possible,
    /// Reached from the roots by pointers to the start of blocks: still reachable.
    Reachable,
}

/// A block of at least [`LARGE`] bytes.
#[derive(Clone, Copy)]
pub(super) struct Large {
    from: usize,
    size: usize,
    number: u32,
}

const STATE_SHIFT: u32 = 17;
const QUEUED: u64 = 1 << 19;
const ADDRESS_SHIFT: u32 = 20;
const SIZE_MASK: u64 = (1 << STATE_SHIFT) - 1;
/// Blocks from this size on stand in the list of large ones.
pub(super) const LARGE: usize = SIZE_MASK as usize;

const GRANULE_SHIFT: u32 = 9;
/// A leaf of the index covers 128 MiB.
pub(super) const LEAF_SHIFT: u32 = 27;
pub(super) const LEAF: usize = 1 << (LEAF_SHIFT - GRANULE_SHIFT);
/// Leaves that the 47-bit address space has.
pub(super) const DIRECTORY: usize = 1 << (47 - LEAF_SHIFT);

/// The memory that [`Blocks`] live in: zeroed, from the caller.
pub(super) struct Room<'a> {
    /// One for each block.
    pub(super) words: &'a mut [u64],
    /// One for each block of at least [`LARGE`] bytes.
    pub(super) large: &'a mut [Large],
    /// [`DIRECTORY`] words: number of the leaf, plus one.
    pub(super) directory: &'a mut [u32],
    /// [`LEAF`] words for each 128 MiB in which a block lies: number of the last block that begins in or before the
    /// granule and reaches into it, plus one.
    pub(super) leaves: &'a mut [u32],
}

/// The blocks of a check.
pub(super) struct Blocks<'a> {
    room: Room<'a>,
    len: usize,
    large: usize,
    leaves: usize,
    lowest: usize,
    highest: usize,
}

impl<'a> Blocks<'a> {
    pub(super) fn new(room: Room<'a>) -> Self {
        Blocks {
            room,
            len: 0,
            large: 0,
            leaves: 0,
            lowest: usize::MAX,
            highest: 0,
        }
    }

    /// Adds a block above all others. `None`: there is no room.
    pub(super) fn push(&mut self, from: usize, entry: &Entry) -> Option<()> {
        let number = u32::try_from(self.len).ok()?;
        let size = entry.size.min(LARGE);
        let last = from.saturating_add(size.max(1) - 1);
        *self.room.words.get_mut(self.len)? = (from as u64) >> 3 << ADDRESS_SHIFT | size as u64;
        if size == LARGE {
            *self.room.large.get_mut(self.large)? = Large {
                from,
                size: entry.size,
                number,
            };
            self.large += 1;
            *self.granule_mut(from)? = number + 1;
        } else {
            let mut at = from >> GRANULE_SHIFT << GRANULE_SHIFT;
            while at <= last {
                *self.granule_mut(at)? = number + 1;
                at += 1 << GRANULE_SHIFT;
            }
        }
        self.len += 1;
        self.lowest = self.lowest.min(from);
        self.highest = self.highest.max(from.saturating_add(entry.size.max(1)));
        Some(())
    }

    fn granule_mut(&mut self, at: usize) -> Option<&mut u32> {
        let leaf = self.room.directory.get_mut(at >> LEAF_SHIFT)?;
        if *leaf == 0 {
            self.leaves += 1;
            *leaf = self.leaves as u32;
        }
        let leaf = (*leaf as usize - 1) * LEAF;
        self.room
            .leaves
            .get_mut(leaf + (at >> GRANULE_SHIFT) % LEAF)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The lowest address of a block, and how many bytes there are up to the end of the highest one: what lies outside
    /// is no pointer into a block.
    #[inline(always)]
    pub(super) fn span(&self) -> (usize, usize) {
        (self.lowest, self.highest.wrapping_sub(self.lowest))
    }

    /// The place in the index that [`Blocks::find`] will read for `at`.
    #[inline(always)]
    pub(super) fn granule(&self, at: usize) -> Option<&u32> {
        let leaf = *self.room.directory.get(at >> LEAF_SHIFT)?;
        if leaf == 0 {
            return None;
        }
        let leaf = (leaf as usize - 1) * LEAF;
        self.room.leaves.get(leaf + (at >> GRANULE_SHIFT) % LEAF)
    }

    /// The word of block `number`, for prefetching.
    pub(super) fn word(&self, number: u32) -> Option<&u64> {
        self.room.words.get(number as usize)
    }

    /// The block that holds the byte at `at`; a block without bytes counts as having one.
    #[inline(always)]
    pub(super) fn find(&self, at: usize) -> Option<u32> {
        let mut next = *self.granule(at).unwrap_or(&0);
        while next > 0 {
            let number = next - 1;
            let word = *self.room.words.get(number as usize)?;
            let from = (word >> ADDRESS_SHIFT << 3) as usize;
            if from <= at {
                let size = (word & SIZE_MASK) as usize;
                if at - from < size.max(1) && size < LARGE {
                    return Some(number);
                }
                break;
            }
            next = number;
        }
        self.find_large(at)
    }

    fn find_large(&self, at: usize) -> Option<u32> {
        let large = self.room.large.get(..self.large)?;
        let after = large.partition_point(|block| block.from <= at);
        let block = large.get(after.checked_sub(1)?)?;
        (at - block.from < block.size).then_some(block.number)
    }

    /// Start of block `number`, if there is one.
    #[inline(always)]
    pub(super) fn start(&self, number: u32) -> Option<usize> {
        let word = self.room.words.get(..self.len)?.get(number as usize)?;
        Some((*word >> ADDRESS_SHIFT << 3) as usize)
    }

    /// Start and size in bytes of block `number`.
    #[inline(always)]
    pub(super) fn extent(&self, number: u32) -> (usize, usize) {
        let word = *self.room.words.get(number as usize).unwrap_or(&0);
        let from = (word >> ADDRESS_SHIFT << 3) as usize;
        let size = (word & SIZE_MASK) as usize;
        if size < LARGE {
            return (from, size);
        }
        let large = self.room.large.get(..self.large).unwrap_or_default();
        let at = large.partition_point(|block| block.number < number);
        (from, large.get(at).map_or(0, |block| block.size))
    }

    #[inline(always)]
    pub(super) fn state(&self, number: u32) -> State {
        let word = *self.room.words.get(number as usize).unwrap_or(&0);
        match word >> STATE_SHIFT & 3 {
            0 => State::Unreached,
            1 => State::Indirect,
            2 => State::Possible,
            _ => State::Reachable,
        }
    }

    #[inline(always)]
    pub(super) fn set_state(&mut self, number: u32, state: State) {
        if let Some(word) = self.room.words.get_mut(number as usize) {
            *word = *word & !(3 << STATE_SHIFT) | (state as u64) << STATE_SHIFT;
        }
    }

    /// Notes that block `number` waits to be scanned; false: it waited already.
    #[inline(always)]
    pub(super) fn queue(&mut self, number: u32) -> bool {
        match self.room.words.get_mut(number as usize) {
            Some(word) if *word & QUEUED == 0 => {
                *word |= QUEUED;
                true
            }
            _ => false,
        }
    }

    /// Notes that block `number` waits no longer.
    #[inline(always)]
    pub(super) fn unqueue(&mut self, number: u32) {
        if let Some(word) = self.room.words.get_mut(number as usize) {
            *word &= !QUEUED;
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::table::Entry;
    use super::{Blocks, DIRECTORY, LARGE, LEAF, Large, Room};

    /// Blocks of the given addresses and sizes, in memory that lives as long as the test.
    pub(in super::super) fn blocks(of: &[(usize, usize)]) -> Blocks<'static> {
        let nothing = Large {
            from: 0,
            size: 0,
            number: 0,
        };
        let mut blocks = Blocks::new(Room {
            words: vec![0; of.len()].leak(),
            large: vec![nothing; of.len()].leak(),
            directory: vec![0; DIRECTORY].leak(),
            leaves: vec![0; LEAF * 4].leak(),
        });
        for (from, size) in of {
            let entry = Entry {
                size: *size,
                stack: 0,
                generation: 0,
            };
            blocks.push(*from, &entry).expect("room");
        }
        blocks
    }

    #[test]
    fn every_byte_leads_to_its_block_and_the_gaps_to_none() {
        let of = [
            (0x10010, 24),
            (0x10030, 0),
            (0x10050, 1000),
            (0x10440, LARGE - 1),
            (0x40000, LARGE),
            (0x90000, 0x10_0000),
            (0x200_0000, 1),
        ];
        let blocks = blocks(&of);
        for at in (0xff00..0x1a_0000).chain(0x1ff_ff00..0x200_0100) {
            let truth = of
                .iter()
                .position(|(from, size)| at >= *from && at < from + (*size).max(1));
            assert_eq!(blocks.find(at), truth.map(|i| i as u32), "{at:#x}");
        }
        assert_eq!(blocks.find(0), None);
        assert_eq!(blocks.find(usize::MAX), None);
        for (i, (from, size)) in of.into_iter().enumerate() {
            assert_eq!(blocks.extent(i as u32), (from, size));
        }
    }
}
