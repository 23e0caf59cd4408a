//! glibc versions, and a trial of ld.so: it lists what it would map, and starts nothing.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use object::Endianness;
use object::elf::FileHeader64;
use object::read::elf::FileHeader as _;

/// A version of glibc's interface, as in `GLIBC_2.36`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version {
    major: u32,
    minor: u32,
}

impl Version {
    fn parse(name: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(name.strip_prefix(b"GLIBC_")?).ok()?;
        let mut parts = text.split('.');
        Some(Self {
            major: parts.next()?.parse().ok()?,
            minor: parts.next()?.parse().ok()?,
        })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// The oldest glibc that has all that a library asks for. `None` when the file can't be read.
pub(super) fn needed_by(library: &Path) -> Option<Version> {
    versions(library)?.needed.into_iter().max()
}

/// The newest version that a libc has. `None` when the file can't be read.
fn provided_by(libc: &Path) -> Option<Version> {
    versions(libc)?.provided.into_iter().max()
}

/// The glibc versions that an ELF file names.
struct Versions {
    needed: Vec<Version>,
    provided: Vec<Version>,
}

fn versions(path: &Path) -> Option<Versions> {
    let bytes = fs::read(path).ok()?;
    let data = bytes.as_slice();
    let header = FileHeader64::<Endianness>::parse(data).ok()?;
    let endian = header.endian().ok()?;
    let sections = header.sections(endian, data).ok()?;
    let mut versions = Versions {
        needed: Vec::new(),
        provided: Vec::new(),
    };
    if let Some((mut files, strings)) = sections.gnu_verneed(endian, data).ok()? {
        let strings = sections.strings(endian, data, strings).ok()?;
        while let Some((_, mut entries)) = files.next().ok()? {
            while let Some(entry) = entries.next().ok()? {
                versions
                    .needed
                    .extend(entry.name(endian, strings).ok().and_then(Version::parse));
            }
        }
    }
    if let Some((mut definitions, strings)) = sections.gnu_verdef(endian, data).ok()? {
        let strings = sections.strings(endian, data, strings).ok()?;
        while let Some((_, mut names)) = definitions.next().ok()? {
            if let Some(name) = names.next().ok()? {
                versions
                    .provided
                    .extend(name.name(endian, strings).ok().and_then(Version::parse));
            }
        }
    }
    Some(versions)
}

/// What ld.so answered.
pub(super) struct Trial {
    output: Vec<u8>,
    failed: bool,
    shim: PathBuf,
}

/// Asks the loader what it would map for the program with the shim preloaded.
///
/// # Errors
/// When the loader can't be started.
pub(super) fn trial(loader: &Path, program: &Path, shim: &Path) -> io::Result<Trial> {
    let mut command = Command::new(loader);
    command
        .arg("--list")
        .arg(program)
        .env("LD_PRELOAD", shim)
        .env("LC_ALL", "C");
    command.env("MEMSPY_MODE", "off").stdin(Stdio::null());
    let answer = command.output()?;
    let output = [answer.stdout, answer.stderr].concat();
    Ok(Trial {
        output,
        failed: !answer.status.success(),
        shim: shim.to_owned(),
    })
}

impl Trial {
    /// Why the shim would not be mapped, in ld.so's words.
    pub(super) fn refusal(&self) -> Option<String> {
        let complains = |line: &&[u8]| contains(line, b"libmemspy") && contains(line, b": ");
        let complaint = self.lines().find(complains);
        let listed = self.lines().any(|line| {
            line.trim_ascii()
                .starts_with(self.shim.as_os_str().as_bytes())
        });
        match complaint {
            Some(line) => Some(String::from_utf8_lossy(line.trim_ascii()).into_owned()),
            None if listed && !self.failed => None,
            None => {
                let last = self.lines().last().unwrap_or_default();
                Some(format!(
                    "ld.so does not list the shim: {}",
                    String::from_utf8_lossy(last)
                ))
            }
        }
    }

    /// The version of the libc that the program gets.
    pub(super) fn libc_version(&self) -> Option<Version> {
        let line = self
            .lines()
            .find(|line| line.trim_ascii().starts_with(b"libc.so.6 => "))?;
        let path = line.trim_ascii().strip_prefix(b"libc.so.6 => ")?;
        let end = path
            .iter()
            .position(|byte| *byte == b' ')
            .unwrap_or(path.len());
        provided_by(Path::new(OsStr::from_bytes(path.get(..end)?)))
    }

    fn lines(&self) -> impl Iterator<Item = &[u8]> {
        self.output
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
    }
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack
        .windows(needle.len())
        .any(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_numbers() {
        assert!(Version::parse(b"GLIBC_2.36") > Version::parse(b"GLIBC_2.4"));
        assert_eq!(Version::parse(b"GLIBC_PRIVATE"), None);
    }

    #[test]
    fn a_version_that_is_missing_is_a_refusal() {
        let output =
            b"/c/libmemspy.so: version `GLIBC_9.9' not found (required by /c/libmemspy.so)\n";
        let trial = Trial {
            output: output.to_vec(),
            failed: true,
            shim: "/c/libmemspy.so".into(),
        };
        assert!(trial.refusal().is_some_and(|why| why.contains("GLIBC_9.9")));
    }
}
