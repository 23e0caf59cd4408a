//! The worker's side: read requests, read files, answer. May die at any moment.

use std::collections::hash_map::{Entry, HashMap};
use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};

use blazesym::symbolize::source::{Elf, Source};
use blazesym::symbolize::{CodeInfo, Input, Sym, Symbolized, Symbolizer};

use crate::demangle::demangled;
use crate::frame::{Frame, cut};
use crate::locate::locate;
use crate::mini::MiniSymbols;
use crate::wire::{Answer, Files, Request};
use crate::{Options, Problem};

/// Answers requests from `input` on `output` until the input ends.
///
/// # Errors
/// When the other side is gone or does not speak the finder's language.
pub fn serve(input: impl BufRead, mut output: impl Write) -> io::Result<()> {
    let mut readers = Readers::default();
    for line in input.lines() {
        match serde_json::from_str(&line?)? {
            Request::Locate { module, options } => {
                let (files, problem) = locate(&module, &options);
                answer(&mut output, &Answer::Located { files, problem })?;
            }
            Request::Name {
                files,
                options,
                addresses,
            } => {
                let reader = readers.with(&options);
                let mini = files.mini.as_ref().map(|file| MiniSymbols::read(&file.0));
                let bad_debug = reader.problem(&files);
                let debug = bad_debug.is_none();
                let bad_mini = || Some(Problem::BadMini(mini.as_ref()?.problem.clone()?));
                let problem = bad_debug.or_else(bad_mini);
                answer(&mut output, &Answer::Opened { problem })?;
                for address in addresses {
                    let frames = match &mini {
                        Some(mini) => mini.frames(address),
                        None => reader.frames(&files, debug, address),
                    };
                    answer(&mut output, &Answer::Frames(frames))?;
                }
            }
        }
        output.flush()?;
    }
    Ok(())
}

fn answer(output: &mut impl Write, answer: &Answer) -> io::Result<()> {
    serde_json::to_writer(&mut *output, answer)?;
    output.write_all(b"\n")
}

/// A symbolizer for each set of debug directories: it keeps what it has parsed.
#[derive(Default)]
struct Readers(HashMap<(bool, Vec<PathBuf>), Reader>);

impl Readers {
    fn with(&mut self, options: &Options) -> &Reader {
        match self.0.entry((options.inlines, options.all_debug_dirs())) {
            Entry::Occupied(there) => there.into_mut(),
            Entry::Vacant(free) => {
                let symbolizer = Symbolizer::builder()
                    .enable_auto_reload(false)
                    .enable_code_info(true)
                    .enable_inlined_fns(options.inlines)
                    // Done here, within bounds.
                    .enable_demangling(false)
                    .set_debug_dirs(Some(&free.key().1))
                    .build();
                free.insert(Reader(symbolizer))
            }
        }
    }
}

/// Names from files, without judging whether they are the right ones.
struct Reader(Symbolizer);

impl Reader {
    /// Why the debug information of `files` can't be used, if so.
    fn problem(&self, files: &Files) -> Option<Problem> {
        let debug = elf(&files.debug.as_ref()?.0, true);
        // Opens and indexes the file; that there is nothing at 0 is no error.
        let opened = self.0.symbolize_single(&debug, Input::VirtOffset(0));
        opened
            .err()
            .map(|err| Problem::BadDebug(cut(&format!("{err:#}"), Frame::LONGEST_NAME)))
    }

    /// The frames at an address of the file, innermost first; empty when nothing is known of it.
    fn frames(&self, files: &Files, debug: bool, address: u64) -> Vec<Frame> {
        let by_debug = files.debug.as_ref().filter(|_| debug);
        let by_debug = by_debug.and_then(|file| self.symbol(&elf(&file.0, true), address));
        // A debug file has a symbol table of its own, fuller than that of the stripped module.
        let by_symbols = || {
            let mut tables = [&files.debug, &files.symbols].into_iter().flatten();
            tables.find_map(|file| self.symbol(&elf(&file.0, false), address))
        };
        match by_debug {
            Some(sym) if is_mangled(&sym.name) => frames_of(&sym),
            Some(mut sym) => {
                // The debug information of a static C++ function has its bare name only; the symbol
                // table tells overloads apart.
                if let Some(full) = by_symbols().filter(|full| is_full_name(&full.name, &sym.name))
                {
                    sym.name = full.name;
                }
                frames_of(&sym)
            }
            None => by_symbols().map_or_else(Vec::new, |sym| frames_of(&sym)),
        }
    }

    fn symbol(&self, source: &Source<'_>, address: u64) -> Option<Sym<'_>> {
        match self.0.symbolize_single(source, Input::VirtOffset(address)) {
            Ok(Symbolized::Sym(sym)) => Some(sym),
            Ok(Symbolized::Unknown(_)) | Err(_) => None,
        }
    }
}

/// Whether a linker's name carries more than the function's own.
fn is_mangled(name: &str) -> bool {
    name.starts_with("_Z") || name.starts_with("_R")
}

/// Whether `full` is the mangled form of a function called `name`.
fn is_full_name(full: &str, name: &str) -> bool {
    is_mangled(full) && (name.is_empty() || full.contains(name))
}

fn elf(path: &Path, debug_syms: bool) -> Source<'static> {
    let mut elf = Elf::new(path);
    elf.debug_syms = debug_syms;
    Source::Elf(elf)
}

impl MiniSymbols {
    /// The frame at an address of the file; the other reader does not know such files.
    fn frames(&self, address: u64) -> Vec<Frame> {
        let name = self.name(address);
        name.iter().map(|name| frame(name, None, false)).collect()
    }
}

/// blazesym has the real function first and the innermost last; frames go the other way.
fn frames_of(sym: &Sym<'_>) -> Vec<Frame> {
    let inlined = sym
        .inlined
        .iter()
        .rev()
        .map(|call| (&*call.name, call.code_info.as_ref(), true));
    let real = (&*sym.name, sym.code_info.as_deref(), false);
    inlined
        .chain([real])
        .map(|(name, code, inlined)| frame(name, code, inlined))
        .collect()
}

fn frame(name: &str, code: Option<&CodeInfo<'_>>, inlined: bool) -> Frame {
    let function = (!name.is_empty()).then(|| demangled(name));
    let mangled = function.as_deref().is_some_and(|function| function != name);
    let symbol = mangled.then(|| cut(name, Frame::LONGEST_NAME));
    Frame {
        function,
        symbol,
        file: code.map(|code| cut(&code.to_path().to_string_lossy(), Frame::LONGEST_FILE)),
        line: code.and_then(|code| code.line).filter(|&line| line > 0),
        inlined,
    }
}
