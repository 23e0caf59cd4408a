//! Symbols that may not exist, found without dlsym: a failing dlsym allocates from the host's heap and leaves its text
//! in dlerror().

use super::Object;
use core::ffi::CStr;

/// The tables in which a symbol is looked up.
pub(super) struct Tables {
    base: usize,
    symbols: usize,
    strings: usize,
    hash: usize,
    versions: usize,
}

#[repr(C)]
struct Dyn {
    tag: i64,
    value: usize,
}

const DT_NULL: i64 = 0;
const DT_STRTAB: i64 = 5;
const DT_SYMTAB: i64 = 6;
const DT_GNU_HASH: i64 = 0x6fff_fef5;
const DT_VERSYM: i64 = 0x6fff_fff0;
const STT_TLS: u8 = 6;
const STT_GNU_IFUNC: u8 = 10;
const HIDDEN_VERSION: u16 = 0x8000;

/// The hash function of DT_GNU_HASH: h = h * 33 + byte, from 5381.
fn gnu_hash(name: &CStr) -> u32 {
    name.to_bytes().iter().fold(5381, |hash: u32, byte| {
        hash.wrapping_mul(33).wrapping_add(u32::from(*byte))
    })
}

impl Tables {
    /// The tables of an object, if it has any.
    pub(super) fn of(object: &Object) -> Option<Tables> {
        let mut entry = object.segments(libc::PT_DYNAMIC).next()?.at as *const Dyn;
        let mut tables = Tables {
            base: object.bias,
            symbols: 0,
            strings: 0,
            hash: 0,
            versions: 0,
        };
        loop {
            // SAFETY: the dynamic section is mapped and ends with DT_NULL, where this loop ends too.
            let Dyn { tag, value } = unsafe { entry.read() };
            // The loader has added the base to these addresses, but for the vdso, whose section is read-only.
            let address = if value < object.bias {
                value + object.bias
            } else {
                value
            };
            match tag {
                DT_NULL => break,
                DT_STRTAB => tables.strings = address,
                DT_SYMTAB => tables.symbols = address,
                DT_GNU_HASH => tables.hash = address,
                DT_VERSYM => tables.versions = address,
                _ => {}
            }
            entry = entry.wrapping_add(1);
        }
        (tables.symbols != 0 && tables.strings != 0 && tables.hash != 0).then_some(tables)
    }

    /// The address of a defined function or variable of default version.
    pub(super) fn find(&self, name: &CStr) -> Option<usize> {
        let wanted = gnu_hash(name);
        // SAFETY: layout of DT_GNU_HASH: bucket count, first hashed symbol, bloom size in words, bloom shift; the
        // bloom words; the buckets; then one hash value for each symbol, the last of a chain with bit 0 set.
        unsafe {
            let head = self.hash as *const u32;
            let (buckets, first, bloom) = (*head, *head.add(1), *head.add(2));
            let bucket = head.add(4 + 2 * bloom as usize);
            let chain = bucket.add(buckets as usize);
            let mut index = *bucket.add((wanted.checked_rem(buckets)?) as usize);
            if index < first {
                return None;
            }
            loop {
                let hash = *chain.add((index - first) as usize);
                if hash | 1 == wanted | 1
                    && let Some(address) = self.defined(index, name)
                {
                    return Some(address);
                }
                if hash & 1 != 0 {
                    return None;
                }
                index += 1;
            }
        }
    }

    /// # Safety
    /// `index` must be one of the symbol table's.
    unsafe fn defined(&self, index: u32, name: &CStr) -> Option<usize> {
        // SAFETY: the caller vouches for the index; a symbol's name lies in the string table.
        unsafe {
            let symbol = &*(self.symbols as *const libc::Elf64_Sym).add(index as usize);
            let text = CStr::from_ptr((self.strings + symbol.st_name as usize) as *const _);
            let hidden = self.versions != 0
                && *(self.versions as *const u16).add(index as usize) & HIDDEN_VERSION != 0;
            let kind = symbol.st_info & 15;
            let usable = symbol.st_shndx != 0 && !matches!(kind, STT_TLS | STT_GNU_IFUNC);
            (text == name && !hidden && usable)
                .then(|| self.base.wrapping_add(symbol.st_value as usize))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::gnu_hash;

    #[test]
    fn the_hash_is_the_one_of_the_gnu_linker() {
        // From the description of the format: printf hashes to 0x156b2bb8, the empty name to 5381.
        assert_eq!(gnu_hash(c"printf"), 0x156b_2bb8);
        assert_eq!(gnu_hash(c""), 5381);
    }
}
