//! Which file has a module's names, and whether it is the file that was recorded.
//!
//! The build id in the log decides: a file with another one is never used, whatever its path. Tried
//! in turn: the module itself if it carries debug information; a debug file under a `.build-id`
//! directory; the module's debug link; `debuginfod-find`. Where none of them has it, a stripped module
//! may have a small packed table of function names in itself.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use object::elf::{self, FileHeader32, FileHeader64};
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader};
use object::{Endianness, FileKind, ReadCache, ReadRef, SectionIndex};

use crate::debug_link::DebugLink;
use crate::wire::{FilePath, Files};
use crate::{Module, Options, Problem, debuginfod, mini};

/// The files with the names of `module`, and what is wrong with it. Runs in a worker.
pub(crate) fn locate(module: &Module, options: &Options) -> (Files, Option<Problem>) {
    if module.path.as_os_str().as_encoded_bytes().starts_with(b"[") {
        return (Files::default(), Some(Problem::NoFile));
    }
    let path = options.in_sysroot(&module.path);
    match Contents::read(&path).and_then(|own| own.check(module).map(|()| own)) {
        Ok(own) if own.debug => (files(Some(path.clone()), Some(path)), None),
        Ok(own) => {
            let (debug, problem) = separate(module, &own, &path, options);
            let mini = debug.is_none() && !own.symbols && own.mini;
            let problem = problem.filter(|problem| !mini || *problem != Problem::Stripped);
            let files = Files {
                mini: mini.then(|| FilePath(path.clone())),
                ..files(debug, Some(path))
            };
            (files, problem)
        }
        Err(problem) => match by_build_id(module, options) {
            Some(debug) => (files(Some(debug), None), None),
            None => (Files::default(), Some(problem)),
        },
    }
}

fn files(debug: Option<PathBuf>, symbols: Option<PathBuf>) -> Files {
    Files {
        debug: debug.map(FilePath),
        symbols: symbols.map(FilePath),
        mini: None,
    }
}

/// The debug file of a module that has no debug information itself, or why there is none.
fn separate(
    module: &Module,
    own: &Contents,
    path: &Path,
    options: &Options,
) -> (Option<PathBuf>, Option<Problem>) {
    if let Some(debug) = local_by_build_id(module, options) {
        return (Some(debug), None);
    }
    let linked = own
        .debug_link
        .as_ref()
        .and_then(|link| link.follow(path, options));
    if let Some(Ok(debug)) = linked {
        return (Some(debug), None);
    }
    match (remote_by_build_id(module, options), linked) {
        (Some(debug), _) => (Some(debug), None),
        (None, Some(Err(why))) => (None, Some(Problem::BadDebug(why))),
        (None, _) => (None, (!own.symbols).then_some(Problem::Stripped)),
    }
}

fn by_build_id(module: &Module, options: &Options) -> Option<PathBuf> {
    local_by_build_id(module, options).or_else(|| remote_by_build_id(module, options))
}

/// The debug file for the module's build id in a debug directory.
fn local_by_build_id(module: &Module, options: &Options) -> Option<PathBuf> {
    let build_id = module.build_id.as_deref()?;
    let hex = build_id.bytes().all(|byte| byte.is_ascii_hexdigit());
    let (head, rest) = build_id
        .split_at_checked(2)
        .filter(|(_, rest)| hex && !rest.is_empty())?;
    let name = format!(".build-id/{head}/{rest}.debug");
    let mut paths = options
        .all_debug_dirs()
        .into_iter()
        .map(|dir| dir.join(&name));
    paths.find(|path| has_build_id(path, build_id))
}

/// The debug file for the module's build id from a debuginfod server.
fn remote_by_build_id(module: &Module, options: &Options) -> Option<PathBuf> {
    let build_id = module.build_id.as_deref().filter(|_| options.debuginfod)?;
    debuginfod::debug_file(build_id).filter(|path| has_build_id(path, build_id))
}

fn has_build_id(path: &Path, build_id: &str) -> bool {
    Contents::read(path).is_ok_and(|file| file.build_id.as_deref() == Some(build_id))
}

/// What an ELF file holds that matters here.
struct Contents {
    build_id: Option<String>,
    debug: bool,
    symbols: bool,
    mini: bool,
    debug_link: Option<DebugLink>,
    changed_unix_ns: Option<u64>,
}

impl Contents {
    fn read(path: &Path) -> Result<Contents, Problem> {
        let gone = |err: std::io::Error| Problem::Gone(err.to_string());
        // Before the open, which would wait for the other end of a pipe.
        let about = fs::metadata(path).map_err(gone)?;
        if !about.is_file() {
            return Err(Problem::NotRegular);
        }
        let file = ReadCache::new(File::open(path).map_err(gone)?);
        let contents = match FileKind::parse(&file) {
            Ok(FileKind::Elf64) => Contents::parse::<FileHeader64<Endianness>, _>(&file),
            Ok(FileKind::Elf32) => Contents::parse::<FileHeader32<Endianness>, _>(&file),
            Ok(_) => return Err(Problem::Broken("not an ELF file".to_string())),
            Err(err) => Err(err),
        };
        let changed = about
            .modified()
            .ok()
            .and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        contents
            .map(|contents| Contents {
                changed_unix_ns: changed.and_then(|age| age.as_nanos().try_into().ok()),
                ..contents
            })
            .map_err(|err| Problem::Broken(err.to_string()))
    }

    fn parse<'data, Elf, R>(data: R) -> object::Result<Contents>
    where
        Elf: FileHeader<Endian = Endianness>,
        R: ReadRef<'data>,
    {
        let header = Elf::parse(data)?;
        let endian = header.endian()?;
        let sections = header.sections(endian, data)?;
        let has = |name: &str| sections.section_by_name(endian, name.as_bytes()).is_some();
        Ok(Contents {
            build_id: build_id(header, endian, data)?,
            debug: has(".debug_info") || has(".zdebug_info"),
            symbols: sections
                .symbols(endian, data, elf::SHT_SYMTAB)
                .is_ok_and(|table| table.section() != SectionIndex(0) && !table.is_empty()),
            mini: has(mini::SECTION),
            debug_link: sections
                .section_by_name(endian, b".gnu_debuglink")
                .and_then(|(_, section)| section.data(endian, data).ok())
                .and_then(|section| DebugLink::parse(section, endian)),
            changed_unix_ns: None,
        })
    }

    /// Is this the file that was recorded?
    fn check(&self, module: &Module) -> Result<(), Problem> {
        match (&module.build_id, &self.build_id) {
            (Some(wanted), found) if Some(wanted) != found.as_ref() => {
                Err(Problem::Changed(wanted.clone(), found.clone()))
            }
            (None, Some(_)) | (Some(_), _) => Ok(()),
            (None, None) => match (module.recorded_unix_ns, self.changed_unix_ns) {
                (Some(recorded), Some(changed)) if changed > recorded => Err(Problem::Younger),
                _ => Ok(()),
            },
        }
    }
}

/// The build id in hex: from the program headers as the loader's view has it, else from the
/// sections, because a debug file's program headers can point at nothing.
fn build_id<'data, Elf, R>(
    header: &Elf,
    endian: Endianness,
    data: R,
) -> object::Result<Option<String>>
where
    Elf: FileHeader<Endian = Endianness>,
    R: ReadRef<'data>,
{
    let hex = |id: &[u8]| {
        id.iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    for segment in header.program_headers(endian, data)? {
        let Ok(Some(mut notes)) = segment.notes(endian, data) else {
            continue;
        };
        while let Ok(Some(note)) = notes.next() {
            if note.name() == elf::ELF_NOTE_GNU && note.n_type(endian) == elf::NT_GNU_BUILD_ID {
                return Ok(Some(hex(note.desc())));
            }
        }
    }
    for section in header.sections(endian, data)?.iter() {
        let Ok(Some(mut notes)) = section.notes(endian, data) else {
            continue;
        };
        while let Ok(Some(note)) = notes.next() {
            if note.name() == elf::ELF_NOTE_GNU && note.n_type(endian) == elf::NT_GNU_BUILD_ID {
                return Ok(Some(hex(note.desc())));
            }
        }
    }
    Ok(None)
}
