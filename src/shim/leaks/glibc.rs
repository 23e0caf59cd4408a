//! Where glibc's malloc keeps its own: memory of it that holds no reference of the program's.
//!
//! The heaps themselves (their free chunks are full of stale words), and the arenas' lists of free chunks, which point
//! to the last word of the block before. Layouts are those of glibc 2.26 and newer; an arena is believed only when
//! its ring of arenas closes.

use super::maps::{Kind, Maps};
use super::ranges::Ranges;

/// A thread arena's heaps begin at multiples of this.
pub(super) const HEAP_ALIGN: usize = 64 << 20;
/// Offsets in `struct malloc_state`: the chunk at the top, the next arena, and the end of both.
const TOP: usize = 96;
const NEXT: usize = 2160;
const ARENA_SIZE: usize = 2200;
/// Offsets in `heap_info`: the heap before, and the bytes in use.
const HEAP_BEFORE: usize = 8;
const HEAP_SIZE: usize = 16;
const MOST_ARENAS: usize = 4096;
const MOST_HEAPS: usize = 1 << 16;

/// Bits of a chunk's size.
const IS_MMAPPED: u64 = 2;
const FLAGS: u64 = 7;
const PAGE: usize = 4096;

/// Adds the brk heap, the heaps of all arenas, and the main arena itself. `breaks`: what the program took from the
/// break itself, which stays a root.
pub(super) fn exclude_heaps(maps: &Maps, breaks: &Ranges, not_roots: &mut Ranges) {
    for mapping in maps.list() {
        if mapping.kind == Kind::Heap {
            breaks.each_rest(mapping.from, mapping.to, |from, to| not_roots.add(from, to));
        }
    }
    let Some(main) = main_arena(maps) else { return };
    not_roots.add(main, main + ARENA_SIZE);
    let mut arena = main;
    for _ in 0..MOST_ARENAS {
        let Some(next) = maps.load(arena + NEXT) else {
            return;
        };
        arena = next as usize;
        if arena == main {
            return;
        }
        exclude_arena(maps, arena, not_roots);
    }
}

/// Adds the heaps of one thread arena, from the newest back to the first.
fn exclude_arena(maps: &Maps, arena: usize, not_roots: &mut Ranges) {
    let Some(top) = maps.load(arena + TOP) else {
        return;
    };
    let mut heap = top as usize & !(HEAP_ALIGN - 1);
    for _ in 0..MOST_HEAPS {
        if heap == 0 {
            return;
        }
        let (Some(before), Some(size)) =
            (maps.load(heap + HEAP_BEFORE), maps.load(heap + HEAP_SIZE))
        else {
            return;
        };
        if size as usize <= HEAP_ALIGN {
            not_roots.add(heap, heap + size as usize);
        }
        heap = before as usize;
    }
}

/// The main arena: the place in libc's writable data from which the ring of arenas leads back to itself.
fn main_arena(maps: &Maps) -> Option<usize> {
    let data = crate::glibc::break_variable();
    let last = maps.list().partition_point(|mapping| mapping.from <= data);
    let mut from = maps.list().get(last.checked_sub(1)?)?.from;
    let to = maps.at(data)?.to;
    for mapping in maps.list().get(..last - 1)?.iter().rev() {
        if mapping.to != from || !mapping.writable {
            break;
        }
        from = mapping.from;
    }
    (from.next_multiple_of(16)..to.saturating_sub(ARENA_SIZE))
        .step_by(16)
        .find(|arena| is_main_arena(maps, *arena))
}

fn is_main_arena(maps: &Maps, main: usize) -> bool {
    let mut arena = main;
    for _ in 0..MOST_ARENAS {
        let Some(next) = maps.load(arena + NEXT) else {
            return false;
        };
        if next as usize == main {
            return has_bins(maps, main);
        }
        arena = next as usize;
        // A thread arena lies behind the head of its first heap.
        if !arena.is_multiple_of(16) || arena % HEAP_ALIGN > 256 {
            return false;
        }
    }
    false
}

/// Whether an empty bin of an arena points to itself, as most do.
fn has_bins(maps: &Maps, arena: usize) -> bool {
    const FIRST_BIN: usize = TOP + 16;
    (arena + FIRST_BIN..arena + NEXT - 16)
        .step_by(16)
        .any(|bin| {
            let itself = Some(bin as u64 - 16);
            maps.load(bin) == itself && maps.load(bin + 8) == itself
        })
}

/// The mapping that malloc made for one large block, when the block has one.
pub(super) fn own_mapping(maps: &Maps, block: usize) -> Option<(usize, usize)> {
    let size = maps.load(block.checked_sub(8)?)?;
    let before = maps.load(block.checked_sub(16)?)? as usize;
    if size & IS_MMAPPED == 0 {
        return None;
    }
    let from = block.checked_sub(16)?.checked_sub(before)?;
    let to = (block - 16).checked_add((size & !FLAGS) as usize)?;
    let mapping = maps.at(from)?;
    (from % PAGE == 0 && to % PAGE == 0 && to <= mapping.to).then_some((from, to))
}
