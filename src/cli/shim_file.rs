//! Where `libmemspy.so` is: the path that goes into `LD_PRELOAD`.
//!
//! The first of `--shim PATH`, `MEMSPY_SHIM`, and the copy inside this program, which is written once to
//! `${XDG_CACHE_HOME:-~/.cache}/memspy/<hash of its bytes>/libmemspy.so`. ld.so splits `LD_PRELOAD` at blanks and
//! colons and can't map a file on a `noexec` mount, so a place with such a name or mount is passed over for a private
//! directory among the temporary ones. Programs that root starts may go on as another user, for whom ld.so would
//! complain about a library under `/root`: root's place is `/var/cache/memspy`.

use std::env;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use crate::mount::Mount;

/// The shim that was built together with this program.
const EMBEDDED: &[u8] = include_bytes!(env!("MEMSPY_SHIM_FILE"));

/// Print the path of libmemspy.so, for recording without the launcher.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  LD_PRELOAD=$(memspy shim-path) cat README.md")]
pub(crate) struct Args {
    #[command(flatten)]
    choice: Choice,
}

/// The option of every subcommand that launches a program.
#[derive(clap::Args)]
pub(crate) struct Choice {
    /// Preload this libmemspy.so instead of the one inside this program
    #[arg(long, value_name = "PATH", env = "MEMSPY_SHIM", hide_env_values = true)]
    shim: Option<PathBuf>,
}

/// Prints the path on standard output.
pub(crate) fn run(args: &Args) -> anyhow::Result<u8> {
    let mut line = args.choice.path()?.into_os_string();
    line.push("\n");
    io::stdout().write_all(line.as_bytes())?;
    Ok(crate::exit::OK)
}

impl Choice {
    /// The absolute path of the shim, fit for `LD_PRELOAD`.
    ///
    /// # Errors
    /// When the chosen file can't be read, or there is no place that the embedded one can be written to.
    pub(crate) fn path(&self) -> anyhow::Result<PathBuf> {
        let Some(chosen) = self
            .shim
            .as_deref()
            .filter(|path| !path.as_os_str().is_empty())
        else {
            return unpack(EMBEDDED);
        };
        let path = fs::canonicalize(chosen)
            .with_context(|| format!("can't use the shim {}", chosen.display()))?;
        let bytes = fs::read(&path).with_context(|| format!("can't read {}", path.display()))?;
        if !bytes.starts_with(b"\x7fELF") {
            bail!(
                "{} is not a shared library; --shim wants a libmemspy.so",
                chosen.display()
            );
        }
        if preloadable(&path) {
            Ok(path)
        } else {
            unpack(&bytes)
        }
    }
}

/// Whether ld.so takes this path from `LD_PRELOAD`: no separator in it, and a file that may be mapped executable.
pub(crate) fn preloadable(path: &Path) -> bool {
    let bytes = path.as_os_str().as_bytes();
    let separated = bytes
        .iter()
        .any(|byte| byte.is_ascii_whitespace() || *byte == b':');
    // `$` begins ld.so's own placeholders.
    !separated && !bytes.contains(&b'$') && !Mount::of(path).is_ok_and(|mount| mount.noexec)
}

/// Where the embedded shim is put if that is possible.
pub(crate) fn cache_directory() -> Option<PathBuf> {
    let set = |name| {
        env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    if let Some(cache) = set("XDG_CACHE_HOME") {
        return Some(cache.join("memspy"));
    }
    if effective_user() == 0 {
        return Some("/var/cache/memspy".into());
    }
    set("HOME").map(|home| home.join(".cache/memspy"))
}

fn effective_user() -> u32 {
    // SAFETY: geteuid can't fail and touches no memory.
    #[allow(unsafe_code)]
    unsafe {
        libc::geteuid()
    }
}

/// Writes the shim to the first place that can take it, or finds it there, and returns its path.
fn unpack(shim: &[u8]) -> anyhow::Result<PathBuf> {
    let name = format!("{:016x}", hash(shim));
    let mut failures = Vec::new();
    for parent in places() {
        match unpack_in(&parent, &name, shim) {
            Ok(path) => return Ok(path),
            Err(error) => failures.push(format!("{}: {error}", parent.display())),
        }
    }
    bail!(
        "no directory can hold libmemspy.so ({}); set XDG_CACHE_HOME to a writable directory \
         without blanks or colons in its name, on a mount that is not noexec",
        failures.join("; ")
    )
}

/// Directories that may hold the shim, best first.
fn places() -> Vec<PathBuf> {
    let user = effective_user();
    let temporary = env::var_os("TMPDIR")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute());
    let temporary = temporary
        .into_iter()
        .chain(["/tmp", "/var/tmp", "/dev/shm"].map(PathBuf::from));
    let private = temporary.map(|directory| directory.join(format!("memspy-{user}")));
    cache_directory().into_iter().chain(private).collect()
}

/// Puts the shim at `parent/name/libmemspy.so` unless it is there already.
fn unpack_in(parent: &Path, name: &str, shim: &[u8]) -> io::Result<PathBuf> {
    let directory = parent.join(name);
    let path = directory.join("libmemspy.so");
    if let Some(base) = parent.parent() {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(base)?;
    }
    for level in [parent, &directory] {
        own_directory(level)?;
    }
    if !preloadable(&path) {
        return Err(io::Error::other(
            "its name has a blank or colon, or its mount is noexec",
        ));
    }
    if fs::read(&path).is_ok_and(|present| present == shim) {
        return Ok(path);
    }
    // A new file under a name of our own, then renamed: another memspy may be starting a program with the old one.
    let fresh = directory.join(format!("libmemspy.so.{}", std::process::id()));
    let written = write_new(&fresh, shim).and_then(|()| fs::rename(&fresh, &path));
    if written.is_err() {
        // Half a file is of no use; that it can't be removed changes nothing about the error.
        let _ = fs::remove_file(&fresh);
    }
    written.map(|()| path)
}

/// Makes a directory, or accepts one that nobody else can write to: what lies there gets loaded into programs.
fn own_directory(directory: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o755).create(directory) {
        // Readable for everybody whatever the umask: a recorded program may go on as another user.
        Ok(()) => fs::set_permissions(directory, fs::Permissions::from_mode(0o755))?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    let metadata = fs::symlink_metadata(directory)?;
    if !metadata.is_dir() || metadata.uid() != effective_user() || metadata.mode() & 0o022 != 0 {
        return Err(io::Error::other(format!(
            "{} is not a directory that only you can write to",
            directory.display()
        )));
    }
    Ok(())
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // A leftover of a dead process with our pid.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)?;
    file.set_permissions(fs::Permissions::from_mode(0o644))?;
    file.write_all(bytes)
}

/// A name for the content: FNV-1a, 64 bits, but of words of 8 bytes, which is 8 times as fast; what is left of the last
/// word counts as zeros, and the length as one word more. It guards nothing, the content itself is compared.
fn hash(bytes: &[u8]) -> u64 {
    let mix = |hash: u64, word: u64| (hash ^ word).wrapping_mul(0x100_0000_01b3);
    let words = bytes.chunks(8).map(|chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        u64::from_le_bytes(word)
    });
    mix(words.fold(0xcbf2_9ce4_8422_2325, mix), bytes.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_that_differ_in_a_byte_or_in_their_length_have_different_names() {
        let of = [
            &b""[..],
            b"\0",
            b"\0\0",
            b"foobar",
            b"foobas",
            b"foobar\0",
            b"12345678",
            b"123456789",
        ];
        let names: std::collections::HashSet<u64> = of.into_iter().map(hash).collect();
        assert_eq!(names.len(), of.len());
    }

    #[test]
    fn names_that_ld_so_splits_are_not_preloadable() {
        assert!(preloadable(Path::new("/usr/lib/libmemspy.so")));
        for path in [
            "/my files/libmemspy.so",
            "/a:b/libmemspy.so",
            "/$LIB/libmemspy.so",
        ] {
            assert!(!preloadable(Path::new(path)), "{path}");
        }
    }
}
