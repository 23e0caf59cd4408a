//! Why a module's names are missing or poor.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What stands between a module and its names. The `Display` form is a clause to be put after the
/// module's path; it may quote the file's own words, so escape it before it reaches a terminal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Problem {
    /// The path names no file: memory without a file, such as `[vdso]`.
    NoFile,
    /// The file can't be opened; the system's words.
    Gone(String),
    /// The path leads to a directory, device, pipe or socket.
    NotRegular,
    /// The file is another build: the build id in the log, then the one found.
    Changed(String, Option<String>),
    /// The file has no build id and is younger than the recording.
    Younger,
    /// The file is no ELF file, or a broken one; the reader's words.
    Broken(String),
    /// The debug information can't be read, the symbol table may; the reader's words.
    BadDebug(String),
    /// The small packed symbol table (MiniDebugInfo) can't be read; the reader's words.
    BadMini(String),
    /// A reader died or hung over this file.
    Fatal(String),
    /// Neither debug information nor a symbol table: only exported functions have names.
    Stripped,
}

impl Problem {
    /// The addresses of the module have no names at all.
    pub fn is_total(&self) -> bool {
        !matches!(
            self,
            Problem::BadDebug(_) | Problem::BadMini(_) | Problem::Stripped | Problem::Fatal(_)
        )
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::NoFile => write!(f, "is not a file, its addresses stay addresses"),
            Problem::Gone(why) => write!(
                f,
                "cannot be opened ({why}): give the directory that holds it with --sysroot, or its \
                 debug file with --debug-dir"
            ),
            Problem::NotRegular => write!(f, "is not a regular file"),
            Problem::Changed(wanted, found) => write!(
                f,
                "is not the file that was recorded: build id {}, recorded {wanted}; give its debug \
                 file with --debug-dir, or the old file with --sysroot",
                found.as_deref().unwrap_or("missing")
            ),
            Problem::Younger => {
                write!(
                    f,
                    "has no build id and was changed after the recording: names not trusted"
                )
            }
            Problem::Broken(why) => write!(f, "cannot be read: {why}"),
            Problem::BadDebug(why) => write!(
                f,
                "has debug information that cannot be read, names come from its symbol table: {why}"
            ),
            Problem::BadMini(why) => write!(
                f,
                "has a packed symbol table (.gnu_debugdata) that cannot be read, only exported \
                 functions have names: {why}"
            ),
            Problem::Fatal(why) => write!(f, "stopped the reader of symbols: {why}"),
            Problem::Stripped => write!(
                f,
                "is stripped, only exported functions have names: install its debug symbols, or \
                 set DEBUGINFOD_URLS"
            ),
        }
    }
}
