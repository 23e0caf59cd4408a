//! What a range of the address space is.

use super::cause::{Area, is_locale, module_at, thread_stack};
use super::layout::{Layout, Maker, Piece};
use crate::event::Address;
use crate::model::Modules;

/// What a range of the address space is, in the order in which reports list them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Machine code of the program or a library.
    Code,
    /// Constants of a file: strings, tables, and what is read-only after relocation.
    Constants,
    /// Global and static variables with a value in the file.
    Data,
    /// Global and static variables that begin as zero.
    Bss,
    /// The heap segment, which the break bounds.
    Heap,
    /// A mapping that malloc made for one block.
    MallocMapping,
    /// The usable part of a thread arena's heap.
    Arena,
    /// The part of a thread arena's heap that is not usable yet.
    ArenaReserve,
    /// Anonymous memory that the program mapped.
    ProgramMapping,
    /// Memory that the program mapped to share it.
    SharedMapping,
    /// A file that was mapped, but not as a library.
    FileMapping,
    /// A file of the locale or of character conversion.
    Locale,
    /// The stack of a thread but the first.
    ThreadStack,
    /// The page below a thread's stack that nobody may touch.
    Guard,
    /// The first thread's stack.
    MainStack,
    /// Clock data that the kernel shares with every process.
    Vvar,
    /// Kernel code that runs without a system call.
    Vdso,
    /// The vdso's predecessor.
    Vsyscall,
    /// ld.so, and what it mapped for itself before the program started.
    Loader,
    /// memspy's own.
    Memspy,
    /// Nobody knows.
    Unknown,
}

impl Kind {
    /// Every kind, in the order of reports.
    pub const ALL: [Kind; 21] = [
        Kind::Code,
        Kind::Constants,
        Kind::Data,
        Kind::Bss,
        Kind::Heap,
        Kind::MallocMapping,
        Kind::Arena,
        Kind::ArenaReserve,
        Kind::ProgramMapping,
        Kind::SharedMapping,
        Kind::FileMapping,
        Kind::Locale,
        Kind::ThreadStack,
        Kind::Guard,
        Kind::MainStack,
        Kind::Vvar,
        Kind::Vdso,
        Kind::Vsyscall,
        Kind::Loader,
        Kind::Memspy,
        Kind::Unknown,
    ];

    /// What people call it.
    pub fn words(self) -> &'static str {
        match self {
            Kind::Code => "code",
            Kind::Constants => "constants",
            Kind::Data => "data",
            Kind::Bss => "bss",
            Kind::Heap => "[heap], the brk segment",
            Kind::MallocMapping => "malloc's mapping for one block",
            Kind::Arena => "thread arena",
            Kind::ArenaReserve => "thread arena, reserved",
            Kind::ProgramMapping => "program's mapping",
            Kind::SharedMapping => "program's shared mapping",
            Kind::FileMapping => "file",
            Kind::Locale => "locale file",
            Kind::ThreadStack => "thread stack",
            Kind::Guard => "guard of a thread stack",
            Kind::MainStack => "main stack",
            Kind::Vvar => "vvar",
            Kind::Vdso => "vdso",
            Kind::Vsyscall => "vsyscall",
            Kind::Loader => "loader",
            Kind::Memspy => "memspy's own",
            Kind::Unknown => "unknown",
        }
    }

    /// A word for machines.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Code => "code",
            Kind::Constants => "constants",
            Kind::Data => "data",
            Kind::Bss => "bss",
            Kind::Heap => "heap",
            Kind::MallocMapping => "malloc_mapping",
            Kind::Arena => "arena",
            Kind::ArenaReserve => "arena_reserve",
            Kind::ProgramMapping => "program_mapping",
            Kind::SharedMapping => "shared_mapping",
            Kind::FileMapping => "file",
            Kind::Locale => "locale",
            Kind::ThreadStack => "thread_stack",
            Kind::Guard => "guard",
            Kind::MainStack => "main_stack",
            Kind::Vvar => "vvar",
            Kind::Vdso => "vdso",
            Kind::Vsyscall => "vsyscall",
            Kind::Loader => "loader",
            Kind::Memspy => "memspy",
            Kind::Unknown => "unknown",
        }
    }

    /// One sentence that says what it is for.
    pub fn sentence(self) -> &'static str {
        match self {
            Kind::Code => {
                "Machine code, mapped from the file; every process that runs it shares the same pages."
            }
            Kind::Constants => {
                "Strings, tables and pointers that are fixed before main, mapped from the file and read-only."
            }
            Kind::Data => {
                "Global and static variables with an initial value: mapped from the file, and copied page by page at the first write."
            }
            Kind::Bss => {
                "Global and static variables that begin as zero: they take no room in the file, so the loader maps empty pages for them."
            }
            Kind::Heap => {
                "Where malloc's small blocks lie: one segment behind the program's data that brk() lets grow and shrink at its upper end only."
            }
            Kind::MallocMapping => {
                "A block at or above malloc's mmap threshold (128 KiB at first): it has a mapping of its own, outside [heap], and free() gives it back to the kernel at once."
            }
            Kind::Arena => {
                "malloc's memory for blocks of threads other than the first, so that threads need not wait for each other; made with mmap, not with brk."
            }
            Kind::ArenaReserve => {
                "Address space that malloc keeps for a thread arena to grow into: no access, no memory behind it."
            }
            Kind::ProgramMapping => {
                "Memory that the program (or a library) asked of the kernel with its own mmap(): malloc has nothing to do with it."
            }
            Kind::SharedMapping => {
                "Memory that the program mapped with MAP_SHARED: a forked child sees the same bytes."
            }
            Kind::FileMapping => {
                "A file's bytes as memory: a page is read from the file when it is first touched."
            }
            Kind::Locale => {
                "Tables of the user's language and character set; libc maps them when setlocale() or iconv_open() asks."
            }
            Kind::ThreadStack => {
                "The stack of a thread: pthread_create() maps all of it, and memory appears behind it as the thread uses it."
            }
            Kind::Guard => {
                "Pages without access below a thread's stack: a thread that overruns its stack dies here instead of writing over its neighbour."
            }
            Kind::MainStack => {
                "The stack of the first thread: the kernel lets it grow downwards when it is touched, up to the limit of `ulimit -s`."
            }
            Kind::Vvar => {
                "Data that the kernel keeps for the vdso, above all the clock; the process can only read it."
            }
            Kind::Vdso => {
                "A small library of the kernel's, mapped into every process: clock_gettime() and its kind run here without a system call."
            }
            Kind::Vsyscall => {
                "The vdso's predecessor at a fixed address, kept for very old programs; it lies in the kernel's half and is no memory of the process."
            }
            Kind::Loader => {
                "ld.so, which mapped the libraries before main, with the memory that it took before malloc was there: the first thread's local variables and its own lists."
            }
            Kind::Memspy => {
                "memspy's library, its event buffers and tables; without memspy the process does not have them."
            }
            Kind::Unknown => "Mapped by nobody whom memspy knows.",
        }
    }
}

/// What is needed to tell the kind of a piece.
pub(super) struct Surroundings<'a> {
    /// All pieces.
    pub(super) layout: &'a Layout,
    /// The loaded objects.
    pub(super) modules: &'a Modules,
    /// Addresses on threads' stacks.
    pub(super) stacks: &'a [(u32, Address)],
}

impl Surroundings<'_> {
    /// The kind of a piece, and the thread where it is a stack (0: unknown).
    pub(super) fn kind(&self, from: Address, piece: &Piece) -> (Kind, Option<u32>) {
        let module = module_at(self.modules, from);
        if piece.own || is_memspy(module.unwrap_or(&piece.path)) {
            return (Kind::Memspy, None);
        }
        let kind = match &piece.path[..] {
            b"[stack]" => Kind::MainStack,
            b"[vdso]" => Kind::Vdso,
            b"[vsyscall]" => Kind::Vsyscall,
            path if path.starts_with(b"[vvar") => Kind::Vvar,
            _ => match module {
                Some(path) if is_loader(path) => Kind::Loader,
                Some(_) => of_module(piece),
                None => return self.elsewhere(from, piece),
            },
        };
        (kind, None)
    }

    fn elsewhere(&self, from: Address, piece: &Piece) -> (Kind, Option<u32>) {
        let kind = match piece.maker {
            Maker::Break => Kind::Heap,
            Maker::Arena(_) if piece.perms.write => Kind::Arena,
            Maker::Arena(_) => Kind::ArenaReserve,
            Maker::Call { via: Some(_), .. } => Kind::MallocMapping,
            Maker::Call { file: true, .. } => Kind::FileMapping,
            Maker::Call { .. } if piece.perms.shared => Kind::SharedMapping,
            Maker::Call { .. } => Kind::ProgramMapping,
            _ if &piece.path[..] == b"[heap]" => Kind::Heap,
            _ if is_loader(&piece.path) => Kind::Loader,
            _ if is_locale(&piece.path) => Kind::Locale,
            _ if piece.file => Kind::FileMapping,
            maker => {
                let area = |(from, piece): (Address, &Piece)| {
                    let anonymous = !piece.file && !piece.own && piece.path.is_empty();
                    anonymous.then_some(Area {
                        from,
                        to: piece.end,
                        perms: piece.perms,
                    })
                };
                let at = |address| self.layout.at(address).and_then(area);
                let stack = at(from).and_then(|own| thread_stack(own, at, self.stacks));
                return match (stack, maker) {
                    (Some(thread), _) if piece.perms.write => (Kind::ThreadStack, Some(thread)),
                    (Some(thread), _) => (Kind::Guard, Some(thread)),
                    (None, Maker::Start) => (Kind::Loader, None),
                    (None, _) => (Kind::Unknown, None),
                };
            }
        };
        (kind, None)
    }
}

fn of_module(piece: &Piece) -> Kind {
    if !piece.file {
        Kind::Bss
    } else if piece.perms.exec {
        Kind::Code
    } else if piece.perms.write {
        Kind::Data
    } else {
        Kind::Constants
    }
}

fn file_name(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or(path)
}

/// Whether a file is the loader of glibc.
fn is_loader(path: &[u8]) -> bool {
    let name = file_name(path);
    name.starts_with(b"ld-linux") || name.starts_with(b"ld-2.") || name.starts_with(b"ld64.so")
}

/// Whether a file is memspy's library.
pub(super) fn is_memspy(path: &[u8]) -> bool {
    let name = file_name(path);
    name.starts_with(b"libmemspy") && name.windows(3).any(|part| part == b".so")
}
