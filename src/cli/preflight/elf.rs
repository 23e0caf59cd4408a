//! The few facts about an ELF program that decide whether it can be recorded.

use object::elf::{self, DT_NEEDED, ELFCLASS32, EM_X86_64, FileHeader64, Machine, PT_INTERP};
use object::read::elf::{
    Dyn as _, FileHeader as _, ProgramHeader as _, SectionHeader as _, Sym as _,
};
use object::{Endianness, read};

/// The most bytes of a name that is worth keeping.
const NAME_MAX: usize = 4096;

/// Runtimes that must be loaded before any other library and bring their own malloc.
const SANITIZERS: [&[u8]; 4] = [b"libasan.so", b"libtsan.so", b"liblsan.so", b"libhwasan.so"];

/// Functions of allocators that programs link statically under names of their own.
const PRIVATE_ALLOCATORS: [(&[u8], &str); 4] = [
    (b"_rjem_malloc", "jemalloc"),
    (b"je_malloc", "jemalloc"),
    (b"mi_malloc", "mimalloc"),
    (b"tc_malloc", "tcmalloc"),
];

/// What was found in a 64-bit x86 program.
pub(crate) struct Elf {
    /// PT_INTERP; `None`: statically linked.
    pub(super) loader: Option<Vec<u8>>,
    /// The DT_NEEDED entries.
    needed: Vec<Vec<u8>>,
    /// Whether the program's own malloc takes the place of every other one.
    pub(super) defines_malloc: bool,
    /// The name of an allocator that is linked in beside malloc.
    pub(super) private_allocator: Option<&'static str>,
    /// Whether the Go linker made it.
    pub(super) is_go: bool,
}

/// Why there are no facts.
#[derive(Debug)]
pub(super) enum Foreign {
    /// The file contradicts itself.
    Malformed(String),
    /// It is for another machine, named here.
    Machine(String),
}

impl From<read::Error> for Foreign {
    fn from(error: read::Error) -> Self {
        Self::Malformed(error.to_string())
    }
}

impl Elf {
    /// Reads the facts from a whole file that begins with the ELF magic.
    ///
    /// # Errors
    /// When it is for another machine, or its headers point outside of it.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Foreign> {
        if bytes.get(4) == Some(&ELFCLASS32.0) {
            return Err(Foreign::Machine("32-bit machines".into()));
        }
        let header = FileHeader64::<Endianness>::parse(bytes)?;
        let endian = header.endian()?;
        let machine = header.e_machine(endian);
        if machine != EM_X86_64 {
            return Err(Foreign::Machine(machine_name(machine)));
        }
        let mut elf = Self {
            loader: None,
            needed: Vec::new(),
            defines_malloc: false,
            private_allocator: None,
            is_go: false,
        };
        for segment in header.program_headers(endian, bytes)? {
            if segment.p_type(endian) == PT_INTERP {
                let text = segment
                    .data(endian, bytes)
                    .map_err(|()| outside("PT_INTERP"))?;
                let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
                elf.loader = Some(text.iter().copied().take(NAME_MAX).collect());
            }
        }
        elf.read_sections(header, endian, bytes)?;
        Ok(elf)
    }

    /// The sanitizer runtimes that the program is linked with.
    pub(super) fn sanitizers(&self) -> Vec<String> {
        let is_sanitizer =
            |name: &&Vec<u8>| SANITIZERS.iter().any(|runtime| name.starts_with(runtime));
        let sanitizers = self.needed.iter().filter(is_sanitizer);
        sanitizers
            .map(|name| String::from_utf8_lossy(name).into_owned())
            .collect()
    }

    /// Sections are optional: a program without them has no symbols to find.
    fn read_sections(
        &mut self,
        header: &FileHeader64<Endianness>,
        endian: Endianness,
        bytes: &[u8],
    ) -> Result<(), Foreign> {
        let sections = header.sections(endian, bytes)?;
        for section in sections.iter() {
            let name = sections.section_name(endian, section).unwrap_or_default();
            self.is_go |= name == b".go.buildinfo" || name == b".note.go.buildid";
            if let Some((dynamic, strings)) = section.dynamic(endian, bytes)? {
                let strings = sections.strings(endian, bytes, strings)?;
                for entry in dynamic {
                    if entry.d_tag(endian) == DT_NEEDED {
                        let offset = u32::try_from(entry.d_val(endian)).unwrap_or(u32::MAX);
                        let name = strings.get(offset).map_err(|()| outside("DT_NEEDED"))?;
                        self.needed
                            .push(name.iter().copied().take(NAME_MAX).collect());
                    }
                }
            }
        }
        let exported = sections.symbols(endian, bytes, elf::SHT_DYNSYM)?;
        self.defines_malloc = exported.iter().any(|symbol| {
            let name = symbol.name(endian, exported.strings()).unwrap_or_default();
            name == b"malloc" && !symbol.is_undefined(endian)
        });
        let all = sections.symbols(endian, bytes, elf::SHT_SYMTAB)?;
        self.private_allocator = all
            .iter()
            .filter(|symbol| !symbol.is_undefined(endian))
            .find_map(|symbol| {
                let name = symbol.name(endian, all.strings()).unwrap_or_default();
                PRIVATE_ALLOCATORS
                    .iter()
                    .find(|(function, _)| *function == name)
                    .map(|(_, library)| *library)
            });
        Ok(())
    }
}

fn outside(what: &str) -> Foreign {
    Foreign::Malformed(format!("{what} lies outside of the file"))
}

fn machine_name(machine: Machine) -> String {
    match machine {
        elf::EM_AARCH64 => "aarch64".into(),
        elf::EM_RISCV => "RISC-V".into(),
        elf::EM_PPC64 => "64-bit PowerPC".into(),
        elf::EM_S390 => "s390".into(),
        Machine(number) => format!("ELF machine {number}"),
    }
}
