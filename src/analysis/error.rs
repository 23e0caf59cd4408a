//! Why a log can't be read at all. What is wrong inside a readable log is counted as [`Damage`].
//!
//! [`Damage`]: crate::damage::Damage

use crate::text::printable;
use std::fmt;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Why a log can't be read. Its text is one line: what, where, what to do.
#[derive(Debug)]
pub enum Error {
    /// The file or directory can't be opened or read.
    Io {
        /// What it is called.
        path: PathBuf,
        /// What was tried: `open`, `read`, …
        verb: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Not a regular file where one is needed.
    NotAFile {
        /// What it is called.
        path: PathBuf,
        /// What it is instead.
        kind: &'static str,
    },
    /// A directory without logs.
    NoLogs(PathBuf),
    /// A file without a byte.
    Empty(PathBuf),
    /// No line of the file is memspy's.
    NotALog {
        /// What it is called.
        path: PathBuf,
        /// What is wrong with its first line.
        why: String,
    },
    /// The log is of a newer version than this reader.
    Newer {
        /// What it is called.
        path: PathBuf,
        /// Its version.
        version: u64,
    },
    /// The log's first line is missing, and with it its place in time among others.
    NoOrigin {
        /// What it is called.
        path: PathBuf,
    },
    /// The log can't be recovered.
    Recover {
        /// What it is called.
        path: PathBuf,
        /// Why not, and what to do.
        why: String,
    },
}

impl Error {
    /// The text with what the system said.
    pub(crate) fn in_full(&self) -> String {
        match self {
            Error::Io { source, .. } => format!("{self}: {source}"),
            _ => self.to_string(),
        }
    }

    pub(crate) fn io(path: &Path, verb: &'static str, source: io::Error) -> Error {
        Error::Io {
            path: path.into(),
            verb,
            source,
        }
    }
}

/// A path on its way to a person.
pub(crate) fn shown(path: &Path) -> String {
    if path == Path::new("-") {
        return "standard input".into();
    }
    printable(path.as_os_str().as_bytes())
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Error::Io { path, verb, .. } => write!(f, "{}: can't {verb} it", shown(path)),
            Error::NotAFile { path, kind } => write!(
                f,
                "{}: is a {kind}, not a log file; to read a stream, give it on standard input \
                 and `-` as its name",
                shown(path)
            ),
            Error::NoLogs(path) => write!(
                f,
                "{}: no log in this directory; a log's name ends in .jsonl or .jsonl.zst",
                shown(path)
            ),
            Error::Empty(path) => write!(
                f,
                "{}: is empty; the program ended before its first line, or this is not a log",
                shown(path)
            ),
            Error::NotALog { path, why } => {
                write!(f, "{}: is not a memspy log: {why}", shown(path))
            }
            Error::NoOrigin { path } => write!(
                f,
                "{}: its first line is missing, so that its events have no time in common with \
                 those of other logs; read it by itself, or leave it out",
                shown(path)
            ),
            Error::Newer { path, version } => write!(
                f,
                "{}: log version {version}, but this memspy reads up to {}; use a newer memspy",
                shown(path),
                memspy_log::VERSION
            ),
            Error::Recover { path, why } => write!(f, "{}: {why}", shown(path)),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}
