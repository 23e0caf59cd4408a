//! The live blocks by address: a hash table made for what replaying does all the time.
//!
//! Open addressing with linear probing in one array, so that a lookup is one cache miss and the
//! next block's place can be brought near without a branch. Address 0 marks a free slot. Removal
//! moves followers back, so that no marks of removed blocks pile up.

use super::heap::LiveBlock;
use crate::event::Address;

/// Slots of the smallest table, a power of two.
const SMALLEST: usize = 16;

/// Live blocks by their addresses, which are never 0.
#[derive(Debug, Default)]
pub(super) struct BlockTable {
    /// None, or a power of two of them; at least a quarter is free.
    slots: Vec<Slot>,
    len: usize,
}

/// A block at its address, or at address 0 nothing.
#[derive(Clone, Copy, Debug)]
struct Slot {
    address: Address,
    block: LiveBlock,
}

impl BlockTable {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Reads the slot where the search for an address begins: brings it into the cache. What it
    /// answers means nothing.
    #[inline(always)]
    pub(super) fn touch(&self, address: Address) -> u64 {
        self.slots
            .get(home(address, self.slots.len()))
            .map_or(0, |slot| slot.address)
    }

    pub(super) fn get(&self, address: Address) -> Option<&LiveBlock> {
        self.find(address).map(|at| &self.slots[at].block)
    }

    /// Puts a block at an address; answers the one that was there.
    #[inline(always)]
    pub(super) fn insert(&mut self, address: Address, block: LiveBlock) -> Option<LiveBlock> {
        debug_assert_ne!(address, 0);
        if (self.len + 1) * 4 > self.slots.len() * 3 {
            self.grow();
        }
        let mask = self.slots.len() - 1;
        let mut at = home(address, self.slots.len());
        loop {
            let slot = &mut self.slots[at];
            if slot.address == 0 {
                *slot = Slot { address, block };
                self.len += 1;
                return None;
            }
            if slot.address == address {
                return Some(std::mem::replace(&mut slot.block, block));
            }
            at = (at + 1) & mask;
        }
    }

    /// Takes the block at an address out.
    #[inline(always)]
    pub(super) fn remove(&mut self, address: Address) -> Option<LiveBlock> {
        let found = self.find(address)?;
        let block = self.slots[found].block;
        self.len -= 1;
        let count = self.slots.len();
        let mask = count - 1;
        let mut hole = found;
        let mut at = (hole + 1) & mask;
        loop {
            let address = self.slots[at].address;
            if address == 0 {
                self.slots[hole].address = 0;
                return Some(block);
            }
            // It may fill the hole when its search passes there.
            let searched = at.wrapping_sub(home(address, count)) & mask;
            if searched >= at.wrapping_sub(hole) & mask {
                self.slots[hole] = self.slots[at];
                hole = at;
            }
            at = (at + 1) & mask;
        }
    }

    /// All blocks with their addresses, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Address, &LiveBlock)> {
        let taken = self.slots.iter().filter(|slot| slot.address != 0);
        taken.map(|slot| (slot.address, &slot.block))
    }

    /// All blocks, in no order.
    pub(super) fn blocks_mut(&mut self) -> impl Iterator<Item = &mut LiveBlock> {
        let taken = self.slots.iter_mut().filter(|slot| slot.address != 0);
        taken.map(|slot| &mut slot.block)
    }

    /// The slot that holds an address.
    #[inline(always)]
    fn find(&self, address: Address) -> Option<usize> {
        if self.len == 0 || address == 0 {
            return None;
        }
        let mask = self.slots.len() - 1;
        let mut at = home(address, self.slots.len());
        loop {
            let found = self.slots[at].address;
            if found == address {
                return Some(at);
            }
            if found == 0 {
                return None;
            }
            at = (at + 1) & mask;
        }
    }

    #[cold]
    fn grow(&mut self) {
        let count = (self.slots.len() * 2).max(SMALLEST);
        let free = Slot {
            address: 0,
            block: LiveBlock::NONE,
        };
        let before = std::mem::replace(&mut self.slots, vec![free; count]);
        self.len = 0;
        for slot in before.into_iter().filter(|slot| slot.address != 0) {
            self.insert(slot.address, slot.block);
        }
    }
}

/// Where the search for an address begins in a table of so many slots, a power of two; 0 for none.
#[inline(always)]
fn home(address: Address, slots: usize) -> usize {
    // The digits of the golden ratio: multiplying by them spreads equal distances evenly. Both
    // halves of the product are used, so that high and low bits of the address count.
    let product = u128::from(address) * 0x9e37_79b9_7f4a_7c15;
    let mixed = (product >> 64) as u64 ^ product as u64;
    (mixed >> 20) as usize & slots.wrapping_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn block(size: u64) -> LiveBlock {
        LiveBlock {
            size,
            ..LiveBlock::NONE
        }
    }

    proptest! {
        #[test]
        fn it_holds_what_a_map_holds(calls in prop::collection::vec((0..3u8, 1..200u64, any::<u64>()), 0..2000)) {
            let mut table = BlockTable::default();
            let mut map = HashMap::new();
            for (call, place, size) in calls {
                // Near each other, as blocks are, and far apart.
                let address = place << (place % 5 * 12);
                match call {
                    0 => prop_assert_eq!(table.remove(address), map.remove(&address)),
                    _ => prop_assert_eq!(
                        table.insert(address, block(size)),
                        map.insert(address, block(size))
                    ),
                }
                prop_assert_eq!(table.len(), map.len());
                prop_assert_eq!(table.get(address), map.get(&address));
            }
            let held: HashMap<_, _> = table.iter().map(|(at, block)| (at, *block)).collect();
            prop_assert_eq!(held, map);
        }
    }

    #[test]
    fn blocks_at_regular_distances_are_found_within_a_few_slots() {
        for step in [16u64, 32, 48, 64, 4096, 1 << 21, 1 << 32] {
            let mut table = BlockTable::default();
            let count = 3000;
            for n in 1..=count {
                table.insert(0x7f00_0000_0000u64.wrapping_add(n * step), block(n));
            }
            let slots = table.slots.len();
            let searched: usize = table
                .slots
                .iter()
                .enumerate()
                .filter(|(_, slot)| slot.address != 0)
                .map(|(at, slot)| at.wrapping_sub(home(slot.address, slots)) & (slots - 1))
                .sum();
            assert!(searched < 3 * count as usize, "{searched} for {step}");
        }
    }

    #[test]
    fn nothing_is_found_in_an_empty_table() {
        let mut table = BlockTable::default();
        assert_eq!(table.get(16), None);
        assert_eq!(table.remove(16), None);
        assert_eq!(table.touch(16), 0);
        assert_eq!(table.get(0), None);
    }
}
