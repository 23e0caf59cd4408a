//! Names for the places of a call tree, and what to say where there are none.

use std::collections::BTreeMap;
use std::path::PathBuf;

use memspy_analysis::call_tree::CallTree;
use memspy_analysis::printable;
use memspy_symbol::{Frame, Module, Names, Options, Problem};
use serde::Serialize;

use crate::{progress, signal, symbol_worker};

/// Where names come from.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Names")]
pub(crate) struct NameOptions {
    /// Leave inlined functions out
    #[arg(long)]
    no_inlines: bool,

    /// Search DIR for debug files, before /usr/lib/debug: DIR/.build-id/ab/cdef.debug and what debug links name.
    /// May be given more than once
    #[arg(long = "debug-dir", value_name = "DIR")]
    debug_dirs: Vec<PathBuf>,

    /// The directory that holds the recorded machine's files
    #[arg(long, value_name = "DIR", default_value = "/")]
    sysroot: PathBuf,
}

impl Default for NameOptions {
    fn default() -> Self {
        NameOptions {
            no_inlines: false,
            debug_dirs: Vec::new(),
            sysroot: PathBuf::from("/"),
        }
    }
}

impl NameOptions {
    fn options(&self) -> Options {
        let asks = std::env::var_os("DEBUGINFOD_URLS").is_some_and(|urls| !urls.is_empty());
        Options {
            inlines: !self.no_inlines,
            debug_dirs: self.debug_dirs.clone(),
            sysroot: self.sysroot.clone(),
            debuginfod: asks,
        }
    }

    /// Where a source file of the recorded machine is found on this one.
    pub(crate) fn in_sysroot(&self, file: &str) -> PathBuf {
        self.sysroot.join(file.trim_start_matches('/'))
    }
}

/// The names of a call tree's places.
pub(crate) struct Naming<'a> {
    tree: &'a CallTree,
    names: Names,
}

/// A module whose names are missing or poor.
#[derive(Debug, Serialize)]
pub(crate) struct Unnamed {
    module: String,
    build_id: Option<String>,
    why: String,
}

impl<'a> Naming<'a> {
    /// Finds the names of the places `wanted`, indices of [`CallTree::places`].
    ///
    /// `recorded_unix_ns` is when the recording began.
    pub(crate) fn find(
        tree: &'a CallTree,
        wanted: impl Iterator<Item = usize>,
        args: &NameOptions,
        recorded_unix_ns: Option<u64>,
    ) -> Naming<'a> {
        let modules: Vec<Module> = tree
            .modules()
            .iter()
            .map(|module| Module {
                path: path_of(&module.path),
                build_id: (!module.build_id.is_empty()).then(|| module.build_id.to_string()),
                recorded_unix_ns,
            })
            .collect();
        let mut addresses = vec![Vec::new(); modules.len()];
        for place in wanted {
            let place = tree.places()[place];
            if let Some(module) = place.module {
                addresses[module].push(place.address);
            }
        }
        for list in &mut addresses {
            list.sort_unstable();
            list.dedup();
        }
        let total = addresses.iter().map(Vec::len).sum();
        let finder = symbol_worker::finder(args.options(), total);
        let find = || signal::ignoring_sigpipe(|| finder.find(&modules, &addresses));
        let names = progress::showing("looking up names", &finder.named, total, find);
        Naming { tree, names }
    }

    /// The frames at a place, innermost first; empty when nothing is known of it.
    pub(crate) fn frames(&self, place: usize) -> &[Frame] {
        let place = self.tree.places()[place];
        place
            .module
            .map_or(&[], |module| self.names.frames(module, place.address))
    }

    /// The file name of a place's module, safe to print.
    pub(crate) fn module(&self, place: usize) -> Option<String> {
        let module = &self.tree.modules()[self.tree.places()[place].module?];
        let name = module
            .path
            .rsplit(|&byte| byte == b'/')
            .next()
            .unwrap_or_default();
        Some(printable(name))
    }

    /// What stands for a function without a name: `libx.so+0x1234`, or the address.
    pub(crate) fn address(&self, place: usize) -> String {
        let address = self.tree.places()[place].address;
        match self.module(place) {
            Some(module) => format!("{module}+{address:#x}"),
            None => format!("{address:#x}"),
        }
    }

    /// A frame's function, safe to print.
    pub(crate) fn function(&self, place: usize, frame: &Frame) -> String {
        match &frame.function {
            Some(name) => printable(name.as_bytes()),
            None => self.address(place),
        }
    }

    /// The modules in trouble.
    pub(crate) fn unnamed(&self) -> Vec<Unnamed> {
        let unnamed = self.names.notes().iter().map(|note| {
            let module = &self.tree.modules()[note.module];
            Unnamed {
                module: printable(&module.path),
                build_id: (!module.build_id.is_empty())
                    .then(|| printable(module.build_id.as_bytes())),
                why: printable(note.problem.to_string().as_bytes()),
            }
        });
        unnamed.collect()
    }

    /// One line for each trouble, with the modules that have it; safe to print.
    pub(crate) fn notes(&self) -> Vec<String> {
        let mut stripped = Vec::new();
        let mut others = BTreeMap::new();
        for note in self.names.notes() {
            let module = &self.tree.modules()[note.module];
            let path = printable(&module.path);
            match note.problem {
                Problem::Stripped => stripped.push(path),
                Problem::NoFile => {}
                ref problem => {
                    let why = printable(problem.to_string().as_bytes());
                    others.entry(path).or_insert_with(Vec::new).push(why);
                }
            }
        }
        let mut lines: Vec<String> = others
            .into_iter()
            .map(|(path, why)| format!("{path} {}", why.join("; it ")))
            .collect();
        if !stripped.is_empty() {
            lines.push(format!(
                "without debug symbols, so that only exported functions have names (install them, or set \
                 DEBUGINFOD_URLS): {}",
                stripped.join(", ")
            ));
        }
        lines
    }
}

fn path_of(bytes: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt as _;
    PathBuf::from(std::ffi::OsStr::from_bytes(bytes))
}
