//! The directory that collects the logs of one process tree.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

/// Most bytes of a program's name in the name of a directory or log.
const NAME_MAX: usize = 64;

/// Who may do what in a new directory. A server that root starts gives up root and must still reach its log, which
/// memspy has given to it by then; nobody else can list the directory or write to it.
fn mode() -> u32 {
    match fs::metadata("/proc/self").map(|own| own.uid()) {
        Ok(0) => 0o711,
        _ => 0o700,
    }
}

/// An existing directory that logs go to, and which logs were there before.
pub(crate) struct LogDir {
    /// As the user wrote it, for messages.
    shown: PathBuf,
    /// Absolute: recorded programs change their directory.
    absolute: PathBuf,
    earlier: HashSet<OsString>,
}

impl LogDir {
    /// Takes `path`, and makes it if it is missing (its parents too).
    ///
    /// # Errors
    /// When it can't be made, is no directory, or can't be read.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        let make = fs::DirBuilder::new()
            .recursive(true)
            .mode(mode())
            .create(path);
        make.with_context(|| format!("can't make the log directory {}", path.display()))?;
        Self::existing(path)
    }

    /// Makes a new `memspy.<program>.<pid>.d` in the current directory; `<pid>` is memspy's own. A name that is taken
    /// gets `.2.d`, `.3.d`.
    ///
    /// # Errors
    /// When the current directory can't be written.
    pub(crate) fn create(program: &Path) -> anyhow::Result<Self> {
        let stem = format!("memspy.{}.{}", safe_name(program), std::process::id());
        for number in 1..1000 {
            let name = match number {
                1 => format!("{stem}.d"),
                number => format!("{stem}.{number}.d"),
            };
            match fs::DirBuilder::new().mode(mode()).create(&name) {
                Ok(()) => return Self::existing(Path::new(&name)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => {
                    return Err(error).with_context(|| {
                        format!("can't make the log directory {name} here; choose one with -o DIR")
                    });
                }
            }
        }
        bail!("all names like {stem}.d are taken; choose a log directory with -o DIR")
    }

    /// Makes a new directory among the temporary ones, for logs that nobody keeps.
    ///
    /// # Errors
    /// When the directory for temporary files can't be written.
    pub(crate) fn temporary() -> anyhow::Result<Self> {
        let parent = std::env::temp_dir();
        for number in 1..1000 {
            let path = parent.join(format!("memspy.{}.{number}.d", std::process::id()));
            match fs::DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Self::existing(&path),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => {
                    return Err(error).with_context(|| {
                        format!(
                            "can't make the log directory {}; set TMPDIR",
                            path.display()
                        )
                    });
                }
            }
        }
        bail!(
            "all names for a log directory in {} are taken",
            parent.display()
        )
    }

    /// Removes the directory with all that is in it.
    ///
    /// # Errors
    /// When something in it can't be removed.
    pub(crate) fn remove(&self) -> io::Result<()> {
        fs::remove_dir_all(&self.absolute)
    }

    fn existing(path: &Path) -> anyhow::Result<Self> {
        let absolute = fs::canonicalize(path)
            .with_context(|| format!("can't use the log directory {}", path.display()))?;
        let earlier = log_names(&absolute)
            .with_context(|| format!("can't read the log directory {}", path.display()))?;
        Ok(Self {
            shown: path.to_owned(),
            absolute,
            earlier: earlier.into_iter().collect(),
        })
    }

    /// The path for messages, as the user wrote it.
    pub(crate) fn shown(&self) -> &Path {
        &self.shown
    }

    /// Removes the directory again if nothing was written to it.
    pub(crate) fn remove_if_empty(&self) {
        // A directory that is not empty stays, which is what is wanted.
        let _ = fs::remove_dir(&self.absolute);
    }

    /// The value for `MEMSPY_LOG`: a directory ends in a slash.
    pub(crate) fn template(&self) -> OsString {
        let mut template = Vec::new();
        for &byte in self.absolute.as_os_str().as_bytes() {
            // `%` begins a placeholder.
            template.extend_from_slice(if byte == b'%' {
                b"%%"
            } else {
                std::slice::from_ref(&byte)
            });
        }
        template.push(b'/');
        OsString::from_vec(template)
    }

    /// The logs that were written since, sorted by name.
    ///
    /// # Errors
    /// When the directory can't be read any more.
    pub(crate) fn new_logs(&self) -> io::Result<Vec<PathBuf>> {
        let mut names = log_names(&self.absolute)?;
        names.retain(|name| !self.earlier.contains(name));
        names.sort();
        Ok(names
            .into_iter()
            .map(|name| self.shown.join(name))
            .collect())
    }
}

/// The names of the logs in a directory.
fn log_names(directory: &Path) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        if name.as_bytes().starts_with(b"memspy.") && name.as_bytes().ends_with(b".jsonl") {
            names.push(name);
        }
    }
    Ok(names)
}

/// The program's file name as it stands in names of logs: `[A-Za-z0-9._+-]`, anything else as `_`.
fn safe_name(program: &Path) -> String {
    let name = program.file_name().unwrap_or_default().as_bytes();
    let plain = |&byte: &u8| byte.is_ascii_alphanumeric() || b"._+-".contains(&byte);
    let letter = |byte: &u8| if plain(byte) { char::from(*byte) } else { '_' };
    name.iter().take(NAME_MAX).map(letter).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_name_becomes_a_plain_file_name() {
        assert_eq!(safe_name(Path::new("/opt/my app/\u{1b}[2J;é")), "__2J___");
        assert_eq!(safe_name(Path::new(&"x".repeat(100))).len(), NAME_MAX);
    }
}
