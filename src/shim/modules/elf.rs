//! A loaded ELF object, read where it lies in memory: its span, its build id, its unwind data, its symbols.
//!
//! Nothing is opened and nothing is mapped: what the loader mapped is enough, and it is there even when the file has
//! been replaced or the process may not open files any more. Hook-safe.

use core::ffi::{CStr, c_char};
use libc::{Elf64_Ehdr, Elf64_Phdr, Elf64_Sym};

const PT_GNU_EH_FRAME: u32 = 0x6474_e550;
const NT_GNU_BUILD_ID: u32 = 3;
const DT_STRTAB: usize = 5;
const DT_SYMTAB: usize = 6;
const DT_GNU_HASH: usize = 0x6fff_fef5;
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
        let bias = self.bias;
        self.headers
            .iter()
            .filter(move |header| header.p_type == kind)
            .map(move |header| Span {
                at: bias.wrapping_add(header.p_vaddr as usize),
                len: header.p_memsz as usize,
            })
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

    /// The address of an exported symbol, by the object's own GNU hash table; `None` when it has no such symbol.
    pub(crate) fn symbol(&self, name: &CStr) -> Option<usize> {
        let dynamic = self.segments(libc::PT_DYNAMIC).next()?;
        let table = |tag| Some(self.relocated(entry(dynamic, tag)?));
        let (hash, symbols, strings) = (table(DT_GNU_HASH)?, table(DT_SYMTAB)?, table(DT_STRTAB)?);
        let wanted = gnu_hash(name);
        // SAFETY: the loader has verified these tables of a loaded object; the layout is the GNU hash table's: four
        // words, a bloom filter of 64-bit words, buckets, chains.
        unsafe {
            let word = |at: usize| (at as *const u32).read();
            let buckets = word(hash);
            let first_hashed = word(hash + 4);
            let bucket_table = hash + 16 + 8 * word(hash + 8) as usize;
            let chains = bucket_table + 4 * buckets as usize;
            let mut index = word(bucket_table + 4 * (wanted.checked_rem(buckets)?) as usize);
            while index >= first_hashed {
                let chain = word(chains + 4 * (index - first_hashed) as usize);
                let symbol = &*(symbols as *const Elf64_Sym).add(index as usize);
                let spelled = (strings + symbol.st_name as usize) as *const c_char;
                if chain | 1 == wanted | 1 && CStr::from_ptr(spelled) == name {
                    return (symbol.st_shndx != 0)
                        .then(|| self.bias.wrapping_add(symbol.st_value as usize));
                }
                if chain & 1 == 1 {
                    return None;
                }
                index += 1;
            }
        }
        None
    }

    /// The loader adds the bias to a dynamic section that it may write; else it is still the file's.
    fn relocated(&self, address: usize) -> usize {
        if self.span().contains(address) {
            address
        } else {
            self.bias.wrapping_add(address)
        }
    }
}

/// The value of `tag` in a dynamic section.
fn entry(dynamic: Span, tag: usize) -> Option<usize> {
    (0..dynamic.len / 16)
        // SAFETY: the section is mapped for its whole length, in entries of two words.
        .map(|i| unsafe { (dynamic.at as *const [usize; 2]).add(i).read() })
        .take_while(|entry| entry[0] != 0)
        .find(|entry| entry[0] == tag)
        .map(|entry| entry[1])
}

/// The hash of a name in a GNU hash table: Bernstein's, times 33.
fn gnu_hash(name: &CStr) -> u32 {
    name.to_bytes().iter().fold(5381u32, |hash, byte| {
        hash.wrapping_mul(33).wrapping_add(u32::from(*byte))
    })
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

#[cfg(test)]
mod tests {
    use super::{Object, gnu_hash};

    #[test]
    fn the_hash_is_the_one_that_linkers_use() {
        assert_eq!(gnu_hash(c""), 0x1505);
        assert_eq!(gnu_hash(c"printf"), 0x156b_2bb8);
    }

    #[test]
    fn a_symbol_of_libc_is_where_dlsym_finds_it() {
        let mut found = 0;
        // SAFETY: the callback only reads what the loader hands it, and `found` outlives the call.
        unsafe { libc::dl_iterate_phdr(Some(look), (&raw mut found).cast()) };
        // SAFETY: a lookup by name has no precondition.
        let expected = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"puts".as_ptr()) } as usize;
        assert_eq!(found, expected);

        unsafe extern "C" fn look(
            info: *mut libc::dl_phdr_info,
            _: libc::size_t,
            found: *mut core::ffi::c_void,
        ) -> i32 {
            // SAFETY: the loader hands a valid description, and `found` is the word above.
            unsafe {
                let info = &*info;
                let headers =
                    core::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum));
                let object = Object::new(info.dlpi_addr as usize, headers);
                match object.symbol(c"puts") {
                    Some(at) => {
                        found.cast::<usize>().write(at);
                        1
                    }
                    None => 0,
                }
            }
        }
    }
}
