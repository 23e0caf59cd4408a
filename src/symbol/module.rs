//! A loaded object whose addresses want names, and where its file may be looked for.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::wire::{path_bytes, path_list};

/// An executable or library of the recorded program.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Module {
    /// Its path on the recorded machine. Something in brackets, as `[vdso]`, is no file.
    #[serde(with = "path_bytes")]
    pub path: PathBuf,
    /// Its build id in hex as the log has it.
    pub build_id: Option<String>,
    /// When the recording began, in nanoseconds since 1970: a file without a build id that was
    /// changed later is not the one that was recorded.
    pub recorded_unix_ns: Option<u64>,
}

/// Where names are looked for, and how much of them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Options {
    /// Report inlined functions.
    pub inlines: bool,
    /// Directories of debug files, searched before `/usr/lib/debug`: `<dir>/.build-id/ab/cdef.debug`
    /// and the places that a debug link names.
    #[serde(with = "path_list")]
    pub debug_dirs: Vec<PathBuf>,
    /// The directory that holds the recorded machine's files; `/` is this machine.
    #[serde(with = "path_bytes")]
    pub sysroot: PathBuf,
    /// Ask `debuginfod-find` for debug files that are not here.
    pub debuginfod: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            inlines: true,
            debug_dirs: Vec::new(),
            sysroot: "/".into(),
            debuginfod: false,
        }
    }
}

impl Options {
    /// Debug directories in the order of their search, inside the sysroot where there is one.
    pub(crate) fn all_debug_dirs(&self) -> Vec<PathBuf> {
        let system = self.in_sysroot(Path::new("/usr/lib/debug"));
        self.debug_dirs.iter().cloned().chain([system]).collect()
    }

    /// Where a path of the recorded machine is found on this one.
    pub(crate) fn in_sysroot(&self, path: &Path) -> PathBuf {
        self.sysroot.join(path.strip_prefix("/").unwrap_or(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sysroot_holds_the_absolute_paths_of_the_other_machine() {
        let options = Options {
            sysroot: "/mnt/target".into(),
            ..Options::default()
        };
        let found = options.in_sysroot(Path::new("/usr/bin/cat"));
        assert_eq!(found, PathBuf::from("/mnt/target/usr/bin/cat"));
        assert_eq!(
            options.all_debug_dirs(),
            [PathBuf::from("/mnt/target/usr/lib/debug")]
        );
    }
}
