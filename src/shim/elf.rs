//! Finds symbols that may not exist, without dlsym: a failing dlsym allocates from the host's heap and leaves its text
//! in dlerror(). Used at the start only.

use core::ffi::{CStr, c_int, c_void};

/// A loaded object, as the loader lists it.
struct Object {
    base: usize,
    name: &'static CStr,
    headers: &'static [libc::Elf64_Phdr],
}

/// The tables in which a symbol is looked up.
struct Tables {
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

/// Calls `visit` for each loaded object, in the order in which the loader searches; stops when it answers `Some`.
fn find_object<T>(mut visit: impl FnMut(&Object) -> Option<T>) -> Option<T> {
    struct Search<'a, T> {
        visit: &'a mut dyn FnMut(&Object) -> Option<T>,
        found: Option<T>,
    }
    unsafe extern "C" fn step<T>(
        info: *mut libc::dl_phdr_info,
        _: usize,
        data: *mut c_void,
    ) -> c_int {
        // SAFETY: the loader passes its info, valid during the call, and the pointer given below.
        let (info, search) = unsafe { (&*info, &mut *data.cast::<Search<'_, T>>()) };
        // SAFETY: name and headers of a loaded object live as long as it; objects are not unloaded during the walk.
        let object = unsafe {
            Object {
                base: info.dlpi_addr as usize,
                name: if info.dlpi_name.is_null() {
                    c""
                } else {
                    CStr::from_ptr(info.dlpi_name)
                },
                headers: core::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()),
            }
        };
        search.found = (search.visit)(&object);
        search.found.is_some().into()
    }
    let mut search = Search {
        visit: &mut visit,
        found: None,
    };
    // SAFETY: `step` is given the search that it expects.
    unsafe { libc::dl_iterate_phdr(Some(step::<T>), (&raw mut search).cast()) };
    search.found
}

impl Object {
    fn contains(&self, address: usize) -> bool {
        self.headers.iter().any(|header| {
            let from = self.base.wrapping_add(header.p_vaddr as usize);
            header.p_type == libc::PT_LOAD && address.wrapping_sub(from) < header.p_memsz as usize
        })
    }

    fn tables(&self) -> Option<Tables> {
        let dynamic = self
            .headers
            .iter()
            .find(|header| header.p_type == libc::PT_DYNAMIC)?;
        let mut entry = self.base.wrapping_add(dynamic.p_vaddr as usize) as *const Dyn;
        let mut tables = Tables {
            base: self.base,
            symbols: 0,
            strings: 0,
            hash: 0,
            versions: 0,
        };
        loop {
            // SAFETY: the dynamic section is mapped and ends with DT_NULL, where this loop ends too.
            let Dyn { tag, value } = unsafe { entry.read() };
            // The loader has added the base to these addresses, but for the vdso, whose section is read-only.
            let address = if value < self.base {
                value + self.base
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
}

/// The hash function of DT_GNU_HASH: h = h * 33 + byte, from 5381.
fn gnu_hash(name: &CStr) -> u32 {
    name.to_bytes().iter().fold(5381, |hash: u32, byte| {
        hash.wrapping_mul(33).wrapping_add(u32::from(*byte))
    })
}

impl Tables {
    /// The address of a defined function or variable of default version.
    fn find(&self, name: &CStr) -> Option<usize> {
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

/// A symbol's address in the objects that the loader searches after this library.
pub(crate) fn next_symbol(name: &CStr) -> Option<usize> {
    let here = next_symbol as *const () as usize;
    let mut past = false;
    find_object(|object| {
        if !past {
            past = object.contains(here);
            return None;
        }
        object.tables()?.find(name)
    })
}

/// The object whose definition of a name the process uses: its base and path; the program's own path is empty.
pub(crate) fn first_definer(name: &CStr) -> Option<(usize, &'static CStr)> {
    find_object(|object| {
        object.tables()?.find(name)?;
        Some((object.base, object.name))
    })
}

/// The base and the path of the object that contains an address; the program's own path is empty.
pub(crate) fn object_of(address: usize) -> Option<(usize, &'static CStr)> {
    find_object(|object| {
        object
            .contains(address)
            .then_some((object.base, object.name))
    })
}

/// The address range of the executable segments of the object that contains an address.
pub(crate) fn code_of(address: usize) -> Option<(usize, usize)> {
    find_object(|object| {
        if !object.contains(address) {
            return None;
        }
        object
            .headers
            .iter()
            .filter(|header| header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_X != 0)
            .map(|header| {
                let from = object.base + header.p_vaddr as usize;
                (from, from + header.p_memsz as usize)
            })
            .find(|(from, to)| (*from..*to).contains(&address))
    })
}

#[cfg(test)]
mod tests {
    use super::{gnu_hash, object_of};

    #[test]
    fn the_hash_is_the_one_of_the_gnu_linker() {
        // From the description of the format: printf hashes to 0x156b2bb8, the empty name to 5381.
        assert_eq!(gnu_hash(c"printf"), 0x156b_2bb8);
        assert_eq!(gnu_hash(c""), 5381);
    }

    #[test]
    fn a_function_of_libc_lies_in_libc() {
        let (_, path) = object_of(libc::getpid as *const () as usize).expect("is loaded");
        assert!(
            path.to_str().is_ok_and(|path| path.contains("libc.so")),
            "{path:?}"
        );
    }
}
