//! What a program is, found out before it starts: can ld.so load the shim into it, and will the shim see its heap?
//!
//! Nothing is run here. A script is followed through its `#!` lines to the ELF file that the kernel will map.

use std::env;
use std::ffi::{CString, OsStr, OsString};
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::exit::{self, Failure};
use crate::terminal::show;
use elf::Elf;

mod elf;

/// The kernel follows this many `#!` lines and then gives up.
const SCRIPT_DEPTH_MAX: usize = 5;
/// The kernel reads this many bytes of a `#!` line.
const SCRIPT_LINE_MAX: usize = 255;

/// A program that exists and can be executed.
pub(crate) struct Program {
    /// The file that is executed.
    pub(crate) path: PathBuf,
    /// The interpreters that its `#!` line leads to, outermost first; empty when it is no script.
    pub(crate) interpreters: Vec<PathBuf>,
    /// Why it can't be recorded.
    pub(crate) refusal: Option<String>,
    /// What the log will lack.
    pub(crate) warnings: Vec<String>,
    /// Libraries that must stand before the shim in `LD_PRELOAD`.
    pub(crate) preload_first: Vec<String>,
    /// The loader that its ELF file names.
    pub(crate) loader: Option<PathBuf>,
}

impl Program {
    /// Looks at what `name` would execute: a path if it has a slash, else searched for in `PATH`.
    ///
    /// # Errors
    /// With the shell's codes: 127 when there is no such program (or the interpreter or loader it needs is missing),
    /// 126 when it can't be executed.
    pub(crate) fn find(name: &OsStr) -> Result<Self, Failure> {
        let path = search(name)?;
        let mut program = Self {
            path: path.clone(),
            interpreters: Vec::new(),
            refusal: None,
            warnings: Vec::new(),
            preload_first: Vec::new(),
            loader: None,
        };
        program.follow(path)?;
        Ok(program)
    }

    /// The ELF file that the kernel maps first.
    pub(crate) fn elf_path(&self) -> &Path {
        self.interpreters.last().unwrap_or(&self.path)
    }

    /// Follows `#!` lines to an ELF file and judges it; `env` on the way leads to the program that it starts.
    fn follow(&mut self, mut path: PathBuf) -> Result<(), Failure> {
        for _ in 0..=SCRIPT_DEPTH_MAX {
            let next = match Contents::read(&path)? {
                Contents::Elf(bytes) => return self.judge(&path, &bytes),
                Contents::Script {
                    interpreter,
                    argument,
                } => {
                    let found = check_executable(interpreter.clone()).map_err(|failure| {
                        let script = show(&path);
                        Failure::new(failure.code, format!("{script} asks for {failure}"))
                    })?;
                    self.interpreters.push(found.clone());
                    self.env_target(&found, argument.as_deref())
                        .transpose()?
                        .unwrap_or(found)
                }
                // execvp and the shells run a text file without `#!` with the shell.
                Contents::Text => {
                    let shell = PathBuf::from("/bin/sh");
                    self.interpreters.push(shell.clone());
                    shell
                }
            };
            path = next;
        }
        Err(Failure::new(
            exit::NOT_EXECUTABLE,
            format!("{}: too many #! lines", show(&self.path)),
        ))
    }

    /// The program that `#!/usr/bin/env NAME` starts.
    fn env_target(
        &mut self,
        interpreter: &Path,
        argument: Option<&OsStr>,
    ) -> Option<Result<PathBuf, Failure>> {
        if interpreter.file_name() != Some(OsStr::new("env")) {
            return None;
        }
        let words = argument?.as_bytes().split(u8::is_ascii_whitespace);
        let is_name =
            |word: &&[u8]| !word.is_empty() && !word.starts_with(b"-") && !word.contains(&b'=');
        let name = OsStr::from_bytes(words.into_iter().find(is_name)?);
        let found = search(name);
        if let Ok(found) = &found {
            self.interpreters.push(found.clone());
        }
        Some(found)
    }

    /// Judges an ELF file: what keeps ld.so from loading the shim, what keeps the shim from seeing the heap.
    fn judge(&mut self, path: &Path, bytes: &[u8]) -> Result<(), Failure> {
        let shown = show(path);
        let elf = match Elf::parse(bytes) {
            Ok(elf) => elf,
            Err(elf::Foreign::Malformed(error)) => {
                let message = format!("{shown} is a broken ELF file: {error}");
                return Err(Failure::new(exit::NOT_EXECUTABLE, message));
            }
            Err(elf::Foreign::Machine(machine)) => {
                self.refusal = Some(format!(
                    "{shown} is a program for {machine}, memspy records x86-64"
                ));
                return Ok(());
            }
        };
        if let Some(loader) = &elf.loader {
            let loader = PathBuf::from(OsString::from_vec(loader.clone()));
            if !loader.exists() {
                let message = format!(
                    "{shown} needs the loader {}, which is missing",
                    show(&loader)
                );
                return Err(Failure::new(exit::NOT_FOUND, message));
            }
            self.loader = Some(loader);
        }
        self.refusal = refusal(path, &elf).map(|why| format!("{shown} {why}"));
        self.warnings = warnings(&elf)
            .into_iter()
            .map(|what| format!("{shown} {what}"))
            .collect();
        self.preload_first = elf.sanitizers();
        Ok(())
    }
}

/// Why ld.so would not load the shim.
fn refusal(path: &Path, elf: &Elf) -> Option<String> {
    let is_loader = path
        .file_name()
        .is_some_and(|name| name.as_bytes().starts_with(b"ld-linux"));
    match &elf.loader {
        None if is_loader => {}
        None if elf.is_go => {
            return Some(
                "is a statically linked Go program: nothing can be preloaded into it".into(),
            );
        }
        None => return Some("is statically linked: nothing can be preloaded into it".into()),
        Some(loader) if contains(loader, b"ld-musl") => {
            return Some("is linked with musl: libmemspy.so needs glibc".into());
        }
        Some(_) => {}
    }
    raises_privileges(path).map(|how| format!("{how}: ld.so ignores LD_PRELOAD for such programs"))
}

/// What the shim would not see.
fn warnings(elf: &Elf) -> Vec<String> {
    let mut warnings = Vec::new();
    if let Some(runtime) = elf.sanitizers().first() {
        warnings.push(format!(
            "is built with a sanitizer: {runtime} must come first and brings its own malloc, \
             so heap calls are not seen"
        ));
    } else if elf.defines_malloc {
        warnings
            .push("has a malloc of its own: its heap calls are not seen, its mappings are".into());
    }
    if let Some(allocator) = &elf.private_allocator {
        warnings.push(format!(
            "has {allocator} built in: blocks from there are not seen, its mappings may be"
        ));
    }
    if elf.is_go {
        warnings.push("is a Go program: only what its C code allocates is seen".into());
    }
    warnings
}

/// How executing the file gives the process other rights (AT_SECURE), if it does.
fn raises_privileges(path: &Path) -> Option<String> {
    if no_new_privileges() {
        return None;
    }
    let metadata = fs::metadata(path).ok()?;
    // SAFETY: getuid and getgid can't fail and touch no memory.
    #[allow(unsafe_code)]
    let (user, group) = unsafe { (libc::getuid(), libc::getgid()) };
    let mode = metadata.mode();
    if mode & libc::S_ISUID != 0 && metadata.uid() != user {
        return Some(format!("is setuid to user {}", metadata.uid()));
    }
    let group_executable = mode & libc::S_IXGRP != 0;
    if mode & libc::S_ISGID != 0 && group_executable && metadata.gid() != group {
        return Some(format!("is setgid to group {}", metadata.gid()));
    }
    (user != 0 && has_capabilities(path)).then(|| "has file capabilities".into())
}

/// Whether the kernel will give no new rights to anything that this process executes.
fn no_new_privileges() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .any(|line| line.split_whitespace().eq(["NoNewPrivs:", "1"]))
}

fn has_capabilities(path: &Path) -> bool {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else {
        return false;
    };
    // SAFETY: both strings are NUL-terminated; without a buffer only the attribute's size is asked for.
    #[allow(unsafe_code)]
    let size = unsafe {
        libc::getxattr(
            path.as_ptr(),
            c"security.capability".as_ptr(),
            std::ptr::null_mut(),
            0,
        )
    };
    size > 0
}

/// What kind of file a program is.
enum Contents {
    Elf(Vec<u8>),
    Script {
        interpreter: PathBuf,
        argument: Option<OsString>,
    },
    Text,
}

impl Contents {
    fn read(path: &Path) -> Result<Self, Failure> {
        let cannot = |error: &io::Error| {
            Failure::new(
                exit::NOT_EXECUTABLE,
                format!("can't read {}: {error}", show(path)),
            )
        };
        let mut file = fs::File::open(path).map_err(|error| cannot(&error))?;
        let mut head = Vec::new();
        let limit = SCRIPT_LINE_MAX as u64;
        (&mut file)
            .take(limit)
            .read_to_end(&mut head)
            .map_err(|error| cannot(&error))?;
        if head.starts_with(b"\x7fELF") {
            file.read_to_end(&mut head)
                .map_err(|error| cannot(&error))?;
            return Ok(Self::Elf(head));
        }
        let line = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
        match line.strip_prefix(b"#!") {
            Some(rest) => Self::script(path, rest),
            None if line.contains(&0) => {
                let message = format!("{} is neither an ELF program nor a script", show(path));
                Err(Failure::new(exit::NOT_EXECUTABLE, message))
            }
            None => Ok(Self::Text),
        }
    }

    /// The kernel's reading of a `#!` line: the interpreter, and the rest of the line as one argument.
    fn script(path: &Path, line: &[u8]) -> Result<Self, Failure> {
        let line = line.trim_ascii();
        let end = line
            .iter()
            .position(u8::is_ascii_whitespace)
            .unwrap_or(line.len());
        let (interpreter, argument) = line.split_at(end);
        if interpreter.is_empty() {
            let message = format!("{} has a #! line without an interpreter", show(path));
            return Err(Failure::new(exit::NOT_EXECUTABLE, message));
        }
        let argument = argument.trim_ascii();
        Ok(Self::Script {
            interpreter: PathBuf::from(OsStr::from_bytes(interpreter)),
            argument: (!argument.is_empty()).then(|| OsStr::from_bytes(argument).to_owned()),
        })
    }
}

/// Finds a program as execvp(3) does.
fn search(name: &OsStr) -> Result<PathBuf, Failure> {
    if name.as_bytes().contains(&b'/') {
        return check_executable(PathBuf::from(name));
    }
    let path = env::var_os("PATH").unwrap_or_else(|| "/bin:/usr/bin".into());
    let mut denied = None;
    for directory in env::split_paths(&path) {
        // An empty entry is the current directory.
        let directory = if directory.as_os_str().is_empty() {
            Path::new(".").into()
        } else {
            directory
        };
        let candidate = directory.join(name);
        // A directory that this user may not look into is no place where a program was found.
        if fs::metadata(&candidate).is_err() {
            continue;
        }
        match check_executable(candidate) {
            Ok(found) => return Ok(found),
            Err(failure) if failure.code == exit::NOT_EXECUTABLE => {
                denied = denied.or(Some(failure))
            }
            Err(_) => {}
        }
    }
    let missing = || {
        Failure::new(
            exit::NOT_FOUND,
            format!("{}: no such program in PATH", show(name)),
        )
    };
    Err(denied.unwrap_or_else(missing))
}

/// Whether the kernel would execute this file.
fn check_executable(path: PathBuf) -> Result<PathBuf, Failure> {
    let shown = show(&path);
    let metadata = fs::metadata(&path).map_err(|error| {
        let code = match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => exit::NOT_FOUND,
            _ => exit::NOT_EXECUTABLE,
        };
        Failure::new(code, format!("{shown}: {error}"))
    })?;
    if metadata.is_dir() {
        return Err(Failure::new(
            exit::NOT_EXECUTABLE,
            format!("{shown} is a directory"),
        ));
    }
    let Ok(name) = CString::new(path.as_os_str().as_bytes()) else {
        return Err(Failure::new(
            exit::NOT_FOUND,
            format!("{shown}: no such program"),
        ));
    };
    // SAFETY: the path is NUL-terminated.
    #[allow(unsafe_code)]
    let denied =
        unsafe { libc::faccessat(libc::AT_FDCWD, name.as_ptr(), libc::X_OK, libc::AT_EACCESS) }
            != 0;
    if denied || !metadata.is_file() {
        let message = format!("{shown} is not executable; chmod +x it if it is meant to be");
        return Err(Failure::new(exit::NOT_EXECUTABLE, message));
    }
    Ok(path)
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack
        .windows(needle.len())
        .any(|window| window == needle)
}
