//! The small symbol table that Fedora and others leave in stripped files: MiniDebugInfo, section
//! `.gnu_debugdata`, an xz stream of an ELF file with a `.symtab` of the functions that `.dynsym`
//! lacks (gdb's manual, MiniDebugInfo). It tells function names, no files and lines.
//!
//! The stream comes from a file that nobody vouches for: what it unpacks to is bounded.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use lzma_rust2::XzReader;
use object::elf::{self, FileHeader32, FileHeader64, SectionType};
use object::read::elf::{FileHeader, SectionHeader, Sym};
use object::{Endianness, FileKind, ReadCache, ReadRef};

/// The section's name.
pub(crate) const SECTION: &str = ".gnu_debugdata";

/// Bytes of the largest table that is unpacked. Those of the largest programs have a few million.
const MOST_BYTES: u64 = 64 << 20;

/// KiB that the decoder may use: a dictionary as large as the largest table, and its own state.
const DECODER_KIB: u32 = (MOST_BYTES >> 10) as u32 + 1024;

/// A function.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Function {
    address: u64,
    size: u64,
    name: Vec<u8>,
}

/// The functions of a stripped file: its exported ones and those of the small table.
#[derive(Debug, Default)]
pub(crate) struct MiniSymbols {
    /// By address.
    functions: Vec<Function>,
    /// Why the small table can't be used, if so.
    pub(crate) problem: Option<String>,
}

impl MiniSymbols {
    /// Reads a file. One that can't be read has no functions and a problem.
    pub(crate) fn read(path: &Path) -> MiniSymbols {
        let mut functions = Vec::new();
        let problem = File::open(path)
            .map_err(|err| err.to_string())
            .and_then(|file| {
                let file = ReadCache::new(file);
                of_elf(&file, elf::SHT_DYNSYM, &mut functions)?;
                let table = unpack(&packed(&file)?)?;
                of_elf(table.as_slice(), elf::SHT_SYMTAB, &mut functions)
            })
            .err();
        functions.sort_unstable();
        MiniSymbols { functions, problem }
    }

    /// The name of the function at an address of the file, as the linker has it.
    pub(crate) fn name(&self, address: u64) -> Option<String> {
        let after = self.functions.partition_point(|it| it.address <= address);
        let mut before = self.functions[..after].iter().rev();
        // Functions do not overlap, but several names may begin at one address, some without a size.
        let nearest = before.clone().next()?.address;
        let found = before
            .by_ref()
            .take_while(|it| it.address == nearest)
            .find(|it| it.size == 0 || address - it.address < it.size)?;
        Some(String::from_utf8_lossy(&found.name).into_owned())
    }
}

/// The section's bytes.
fn packed<'data, R: ReadRef<'data>>(file: R) -> Result<Vec<u8>, String> {
    match FileKind::parse(file) {
        Ok(FileKind::Elf64) => section::<FileHeader64<Endianness>, R>(file),
        Ok(FileKind::Elf32) => section::<FileHeader32<Endianness>, R>(file),
        Ok(_) => Err("not an ELF file".to_string()),
        Err(err) => Err(err.to_string()),
    }
}

fn section<'data, Elf, R>(file: R) -> Result<Vec<u8>, String>
where
    Elf: FileHeader<Endian = Endianness>,
    R: ReadRef<'data>,
{
    let read = || {
        let header = Elf::parse(file)?;
        let endian = header.endian()?;
        let sections = header.sections(endian, file)?;
        let found = sections.section_by_name(endian, SECTION.as_bytes());
        found.map_or(Ok(&[][..]), |(_, section)| section.data(endian, file))
    };
    read()
        .map(<[u8]>::to_vec)
        .map_err(|err: object::Error| err.to_string())
}

fn unpack(packed: &[u8]) -> Result<Vec<u8>, String> {
    let mut table = Vec::new();
    XzReader::new_mem_limit(packed, true, DECODER_KIB)
        .take(MOST_BYTES + 1)
        .read_to_end(&mut table)
        .map_err(|err| err.to_string())?;
    if table.len() as u64 > MOST_BYTES {
        return Err(format!("it unpacks to more than {} MiB", MOST_BYTES >> 20));
    }
    Ok(table)
}

/// Adds the functions of an ELF file's symbol table of this type.
fn of_elf<'data, R>(
    file: R,
    table: SectionType,
    functions: &mut Vec<Function>,
) -> Result<(), String>
where
    R: ReadRef<'data>,
{
    let read = match FileKind::parse(file).map_err(|err| err.to_string())? {
        FileKind::Elf64 => table_of::<FileHeader64<Endianness>, R>(file, table, functions),
        FileKind::Elf32 => table_of::<FileHeader32<Endianness>, R>(file, table, functions),
        _ => return Err("not an ELF file".to_string()),
    };
    read.map_err(|err| err.to_string())
}

fn table_of<'data, Elf, R>(
    file: R,
    table: SectionType,
    functions: &mut Vec<Function>,
) -> object::Result<()>
where
    Elf: FileHeader<Endian = Endianness>,
    R: ReadRef<'data>,
{
    let header = Elf::parse(file)?;
    let endian = header.endian()?;
    let symbols = header
        .sections(endian, file)?
        .symbols(endian, file, table)?;
    for symbol in symbols.iter() {
        let code = matches!(symbol.st_type(), elf::STT_FUNC | elf::STT_GNU_IFUNC);
        if !code || symbol.st_shndx(endian) == elf::SHN_UNDEF {
            continue;
        }
        let name = symbols.symbol_name(endian, symbol)?;
        if !name.is_empty() {
            functions.push(Function {
                address: symbol.st_value(endian).into(),
                size: symbol.st_size(endian).into(),
                name: name.to_vec(),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symbols(functions: &[(u64, u64, &str)]) -> MiniSymbols {
        let function = |&(address, size, name): &(u64, u64, &str)| Function {
            address,
            size,
            name: name.into(),
        };
        let mut functions: Vec<Function> = functions.iter().map(function).collect();
        functions.sort_unstable();
        MiniSymbols {
            functions,
            problem: None,
        }
    }

    #[test]
    fn an_address_has_the_function_that_spans_it() {
        let symbols = symbols(&[(0x10, 0x10, "one"), (0x10, 0, "start"), (0x40, 8, "two")]);
        let name = |address| symbols.name(address);
        assert_eq!(name(0x10).as_deref(), Some("one"));
        assert_eq!(name(0x1f).as_deref(), Some("one"));
        assert_eq!(name(0x20).as_deref(), Some("start"));
        assert_eq!(name(0x47).as_deref(), Some("two"));
        assert_eq!((name(0xf), name(0x48)), (None, None));
    }

    #[test]
    fn what_is_no_xz_stream_or_no_elf_file_is_a_problem() {
        for bad in [&b""[..], b"\xfd7zXZ\0", b"\x7fELF"] {
            assert!(unpack(bad).is_err(), "{bad:?}");
        }
        let mut functions = Vec::new();
        assert!(of_elf(&b"\x7fELF"[..], elf::SHT_SYMTAB, &mut functions).is_err());
        let read = MiniSymbols::read(Path::new("/etc/passwd"));
        assert!(read.problem.is_some());
        assert_eq!(read.name(1), None);
    }
}
