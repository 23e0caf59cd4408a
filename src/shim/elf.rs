//! A loaded ELF object, read where it lies in memory: its span, its code, its build id, its unwind data, its symbols.
//!
//! Nothing is opened and nothing is mapped: what the loader mapped is enough, and it is there even when the file has
//! been replaced or the process may not open files any more. Hook-safe, but for what asks the loader for its list: that
//! is for the start only.

mod loaded;
mod symbols;

pub(crate) use loaded::{
    code_of, find_object, first_definer, first_symbol, next_symbol, object_of,
};

use libc::{Elf64_Ehdr, Elf64_Phdr};

const PT_GNU_EH_FRAME: u32 = 0x6474_e550;
const NT_GNU_BUILD_ID: u32 = 3;
const PAGE: usize = 4096;

/// Longest build id that is kept, in bytes; linkers make 8 to 32.
pub(crate) const MAX_BUILD_ID: usize = 32;

/// A range of readable memory: address and length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) at: usize,
    pub(crate) len: usize,
}

impl Span {
    /// The first address behind it.
    pub(crate) fn end(self) -> usize {
        self.at.wrapping_add(self.len)
    }

    /// Whether `address` lies in it.
    pub(crate) fn contains(self, address: usize) -> bool {
        address.wrapping_sub(self.at) < self.len
    }
}

/// What the program headers of a loaded object say.
#[derive(Clone, Copy)]
pub(crate) struct Object<'a> {
    /// What is added to the file's addresses.
    pub(crate) bias: usize,
    headers: &'a [Elf64_Phdr],
}

impl<'a> Object<'a> {
    /// An object from the loader's own description of it.
    pub(crate) fn new(bias: usize, headers: &'a [Elf64_Phdr]) -> Object<'a> {
        Object { bias, headers }
    }

    /// The object whose first page is at `base`; `None` when no ELF header lies there.
    ///
    /// # Safety
    /// `base` must be the start of an object that is loaded for as long as the answer is used.
    pub(crate) unsafe fn at(base: usize, bias: usize) -> Option<Object<'a>> {
        // SAFETY: the caller vouches for the object; its first page is mapped readable, and page-aligned.
        let header = unsafe { &*(base as *const Elf64_Ehdr) };
        let size = usize::from(header.e_phentsize);
        let count = usize::from(header.e_phnum);
        let offset = usize::try_from(header.e_phoff).ok()?;
        let fits = offset.checked_add(count * size)? <= PAGE;
        if header.e_ident.get(..4)? != b"\x7fELF" || size != size_of::<Elf64_Phdr>() || !fits {
            return None;
        }
        // SAFETY: the headers lie inside the first page, which is mapped.
        let headers =
            unsafe { core::slice::from_raw_parts((base + offset) as *const Elf64_Phdr, count) };
        Some(Object { bias, headers })
    }

    fn segments(&self, kind: u32) -> impl Iterator<Item = Span> {
        self.segments_with(kind, 0)
    }

    /// The segments of a kind that have certain flags.
    fn segments_with(&self, kind: u32, flags: u32) -> impl Iterator<Item = Span> {
        let bias = self.bias;
        self.headers
            .iter()
            .filter(move |header| header.p_type == kind && header.p_flags & flags == flags)
            .map(move |header| Span {
                at: bias.wrapping_add(header.p_vaddr as usize),
                len: header.p_memsz as usize,
            })
    }

    /// Whether an address lies in a loaded segment.
    fn contains(&self, address: usize) -> bool {
        self.segments(libc::PT_LOAD)
            .any(|part| part.contains(address))
    }

    /// The executable segment that holds an address.
    fn code_at(&self, address: usize) -> Option<Span> {
        self.segments_with(libc::PT_LOAD, libc::PF_X)
            .find(|part| part.contains(address))
    }

    /// From the lowest to the highest mapped address, in whole pages.
    pub(crate) fn span(&self) -> Span {
        let from = self
            .segments(libc::PT_LOAD)
            .map(|part| part.at)
            .min()
            .unwrap_or(0);
        let to = self
            .segments(libc::PT_LOAD)
            .map(Span::end)
            .max()
            .unwrap_or(0);
        let at = from & !(PAGE - 1);
        Span {
            at,
            len: to.next_multiple_of(PAGE).saturating_sub(at),
        }
    }

    /// The search table of the unwind data (`.eh_frame_hdr`).
    pub(crate) fn unwind_table(&self) -> Option<Span> {
        self.segments(PT_GNU_EH_FRAME).next()
    }

    /// The loaded segment that holds `address`, from there on.
    pub(crate) fn rest_of_segment(&self, address: usize) -> Option<Span> {
        let part = self
            .segments(libc::PT_LOAD)
            .find(|part| part.contains(address))?;
        Some(Span {
            at: address,
            len: part.end() - address,
        })
    }

    /// The build id; empty when the object has none.
    pub(crate) fn build_id(&self) -> &'a [u8] {
        self.segments(libc::PT_NOTE)
            .find_map(build_id_in)
            .unwrap_or_default()
    }
}

/// The build id among the notes of a segment. A note is three words (length of the name, length of the content,
/// type), the name and the content, each padded to four bytes.
fn build_id_in<'a>(notes: Span) -> Option<&'a [u8]> {
    let mut at = notes.at;
    while at + 12 <= notes.end() {
        // SAFETY: three words lie inside the segment, which the loader mapped, and notes are aligned to four.
        let [name, len, kind] = unsafe { (at as *const [u32; 3]).read_unaligned() };
        let name_at = at + 12;
        let content = name_at.checked_add((name as usize).checked_next_multiple_of(4)?)?;
        let next = content.checked_add((len as usize).checked_next_multiple_of(4)?)?;
        if next > notes.end() {
            return None;
        }
        // SAFETY: name and content lie inside the segment, as just checked.
        let (name, content) = unsafe {
            (
                core::slice::from_raw_parts(name_at as *const u8, name as usize),
                core::slice::from_raw_parts(content as *const u8, len as usize),
            )
        };
        if kind == NT_GNU_BUILD_ID && name == b"GNU\0" {
            return content.get(..content.len().min(MAX_BUILD_ID));
        }
        at = next;
    }
    None
}
