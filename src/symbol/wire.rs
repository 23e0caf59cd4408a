//! What the finder and its workers say to each other: one JSON object on one line.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{Frame, Module, Options, Problem};

/// A question to a worker.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Which files have the names of `module`? Answered by one [`Answer::Located`].
    Locate { module: Module, options: Options },
    /// Which frames are at `addresses` (of the file)? Answered by one [`Answer::Opened`] and then
    /// one [`Answer::Frames`] for each address, in their order.
    Name {
        files: Files,
        options: Options,
        addresses: Vec<u64>,
    },
}

/// A worker's line.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    Located {
        files: Files,
        problem: Option<Problem>,
    },
    Opened {
        problem: Option<Problem>,
    },
    Frames(Vec<Frame>),
}

/// The files that have a module's names. Either may be missing, they may be the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Files {
    /// The file with the debug information: the module itself or its debug file.
    pub debug: Option<FilePath>,
    /// The module itself, for its symbol table.
    pub symbols: Option<FilePath>,
    /// The module itself, when its own functions have names in a small packed table only.
    #[serde(default)]
    pub mini: Option<FilePath>,
}

/// A path in JSON, which has no bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FilePath(#[serde(with = "path_bytes")] pub PathBuf);

/// Paths as arrays of bytes: they need not be UTF-8.
pub(crate) mod path_bytes {
    use std::ffi::OsString;
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    use std::path::{Path, PathBuf};

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(crate) fn serialize<S: Serializer>(path: &Path, out: S) -> Result<S::Ok, S::Error> {
        path.as_os_str().as_bytes().serialize(out)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<PathBuf, D::Error> {
        Vec::<u8>::deserialize(from).map(|bytes| PathBuf::from(OsString::from_vec(bytes)))
    }
}

/// Several paths, each as an array of bytes.
pub(crate) mod path_list {
    use std::path::PathBuf;

    use serde::{Deserialize, Deserializer, Serializer};

    use super::FilePath;

    pub(crate) fn serialize<S: Serializer>(paths: &[PathBuf], out: S) -> Result<S::Ok, S::Error> {
        out.collect_seq(paths.iter().cloned().map(FilePath))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Vec<PathBuf>, D::Error> {
        Vec::<FilePath>::deserialize(from)
            .map(|paths| paths.into_iter().map(|path| path.0).collect())
    }
}
