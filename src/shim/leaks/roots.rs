//! The roots: the memory from which a program can find its blocks.
//!
//! Everything that is writable, less what is not the program's: the heaps with their free chunks, the mappings of
//! large blocks, memspy's own pages and data, dead parts of stacks. Blocks themselves are no roots: they count when
//! something leads to them. And the registers of all threads.

use super::maps::{Kind, Maps};
use super::ranges::Ranges;
use crate::memory;

unsafe extern "C" {
    /// First byte of this library: the linker puts it there.
    #[link_name = "__ehdr_start"]
    static OWN_HEADER: u8;
}

/// Adds memspy's own pages and its writable data.
pub(super) fn exclude_own(maps: &Maps, own: &mut Ranges) {
    for (from, to) in memory::own_ranges() {
        own.add(from, to);
    }
    let base = &raw const OWN_HEADER as usize;
    let half = |at: usize| maps.load(at).unwrap_or(0) as u16 as usize;
    let word = |at: usize| maps.load(at).unwrap_or(0) as usize;
    let headers = base + word(base + 32);
    let (size, count) = (half(base + 54), half(base + 56));
    for i in 0..count {
        let header = headers + i * size;
        let kind_and_flags = word(header);
        let is_data = kind_and_flags as u32 == libc::PT_LOAD
            && kind_and_flags >> 32 & libc::PF_W as usize != 0;
        if is_data {
            let from = base + word(header + 16);
            own.add(from, from + word(header + 40));
        }
    }
}

/// Calls `visit` with each word of the roots.
pub(super) fn each(maps: &Maps, not_roots: &Ranges, mut visit: impl FnMut(u64)) {
    for mapping in maps.list() {
        if mapping.readable && mapping.writable && mapping.kind != Kind::Device {
            not_roots.each_rest(mapping.from, mapping.to, |from, to| {
                maps.each_word_at(from, to, |_, word| visit(word));
            });
        }
    }
}
