//! The mappings that the program made itself and has not unmapped, for the kind `mapping`.

use super::table::{Entry, Table};

/// The table of mappings: places of a page, granules of 128 KiB.
pub(super) type Mappings = Table<17>;

const PAGE: usize = 4096;

/// Notes a mapping that the program was given; what it lies over is forgotten.
///
/// `fixed`: the program chose the place, so that there may have been something.
pub(super) fn insert(table: &Mappings, from: usize, len: usize, fixed: bool, entry: Entry) {
    let len = len.next_multiple_of(PAGE);
    if fixed {
        remove(table, from, len);
    }
    table.insert(from, Entry { size: len, ..entry });
}

/// Forgets a range, before it is unmapped; what lies beside it in the same mapping stays.
pub(super) fn remove(table: &Mappings, from: usize, len: usize) {
    let len = len.next_multiple_of(PAGE);
    let Some(to) = from.checked_add(len) else {
        return;
    };
    match table.remove(from) {
        Some(entry) if entry.size >= len => return keep_behind(table, to, from, entry),
        Some(_) => {}
        None => {
            if let Some((start, entry)) = table.below(from, 0)
                && start + entry.size > from
            {
                table.remove(start);
                let size = from - start;
                table.insert(start, Entry { size, ..entry });
                keep_behind(table, to, start, entry);
            }
        }
    }
    while let Some((start, entry)) = table.below(to, from) {
        table.remove(start);
        keep_behind(table, to, start, entry);
    }
}

fn keep_behind(table: &Mappings, to: usize, start: usize, entry: Entry) {
    let end = start + entry.size;
    if end > to {
        let size = end - to;
        table.insert(to, Entry { size, ..entry });
    }
}

#[cfg(test)]
mod tests {
    use super::{Mappings, PAGE, insert, remove};
    use crate::leaks::table::Entry;

    #[test]
    fn the_pages_that_are_left_are_those_that_nobody_unmapped() {
        static TABLE: Mappings = Mappings::new();
        let base = 0x7000_0000_0000;
        let mut truth = vec![0u32; 300];
        let mut seed = 5usize;
        let mut random = |below: usize| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1);
            (seed >> 33) % below
        };
        for stack in 1..3000 {
            let page = random(280);
            let pages = 1 + random(20);
            let entry = Entry {
                size: 0,
                stack,
                generation: 0,
            };
            if random(2) == 0 {
                insert(&TABLE, base + page * PAGE, pages * PAGE, true, entry);
                truth[page..page + pages].fill(stack);
            } else {
                remove(&TABLE, base + page * PAGE, pages * PAGE - 1);
                truth[page..page + pages].fill(0);
            }
            if stack % 50 != 0 {
                continue;
            }
            let mut found = vec![0u32; 300];
            TABLE.each(
                |_| true,
                |at, entry| {
                    let page = (at - base) / PAGE;
                    found[page..page + entry.size / PAGE].fill(entry.stack);
                },
            );
            assert_eq!(found, truth);
        }
    }
}
