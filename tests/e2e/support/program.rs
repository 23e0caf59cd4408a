//! The C, C++ and Rust programs of `tests/programs`, compiled when a test asks for them.

use std::collections::HashMap;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::SystemTime;

use super::{TestDir, clean, finish, repository, scratch};

/// Compiles `tests/programs/NAME` (`.c`, `.cpp` or `.rs`) without optimisation, once for a test binary, and returns the
/// program. Another process of the same binary may be doing the same: the first to be done wins.
///
/// Without optimisation because compilers delete pairs of malloc and free that nobody looks at.
pub(crate) fn compile(name: &str) -> PathBuf {
    compile_with(name, &[])
}

/// The same with more arguments for the compiler, after the usual ones and the source.
pub(crate) fn compile_with(name: &str, arguments: &[&str]) -> PathBuf {
    static PROGRAMS: OnceLock<Mutex<HashMap<String, Arc<OnceLock<PathBuf>>>>> = OnceLock::new();
    let key = format!("{name} {}", arguments.join(" "));
    let programs = PROGRAMS.get_or_init(Mutex::default);
    let slot = programs
        .lock()
        .expect("nobody panics here")
        .entry(key.clone())
        .or_default()
        .clone();
    slot.get_or_init(|| build(name, arguments, &key)).clone()
}

/// A program that gives its process another user: made here as root, else one of the system's.
pub(crate) fn setuid_program(dir: &TestDir) -> PathBuf {
    let copy = dir.join("copy");
    fs::copy("/bin/true", &copy).expect("/bin/true can be copied");
    let owner = fs::metadata(&copy).expect("the copy exists").uid();
    if owner != 0 {
        return "/usr/bin/su".into();
    }
    chown(&copy, Some(65534), None).expect("root can give a file away");
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o4755)).expect("chmod works");
    copy
}

/// `tests/programs/NAME` linked with musl, in `dir`.
pub(crate) fn musl_program(name: &str, dir: &TestDir) -> PathBuf {
    let program = dir.join("with_musl");
    let mut compiler = clean("musl-gcc");
    compiler
        .arg("-o")
        .arg(&program)
        .arg(repository().join("tests/programs").join(name));
    finish(&mut compiler).success();
    program
}

fn build(name: &str, arguments: &[&str], key: &str) -> PathBuf {
    let source = repository().join("tests/programs").join(name);
    let (stem, language) = name.rsplit_once('.').expect("a source has a suffix");
    let compiler = match language {
        "c" => "cc",
        "cpp" => "c++",
        "rs" => "rustc",
        _ => panic!("no compiler for {name}"),
    };
    let usual: &[&str] = match language {
        "rs" => &["--edition=2024", "-Cdebuginfo=2"],
        _ => &["-O0", "-g", "-Wall", "-pthread"],
    };
    // Each variant has a directory, so that a program keeps its name.
    let variant: String = key
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .collect();
    let directory = scratch().join("programs").join(variant);
    let program = directory.join(stem);
    if is_fresh(&program) {
        return program;
    }
    // The compilers' own files lie beside the program: a directory for each process.
    let workshop = directory.join(std::process::id().to_string());
    fs::create_dir_all(&workshop).expect("the scratch directory can be written");
    let made = workshop.join(stem);
    let mut command = clean(compiler);
    command
        .args(usual)
        .arg("-o")
        .arg(&made)
        .arg(&source)
        .args(arguments);
    finish(&mut command).success();
    // A link never replaces a program that another process has made, and may be running.
    while let Err(error) = fs::hard_link(&made, &program) {
        assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
        if is_fresh(&program) {
            break;
        }
        let _ = fs::remove_file(&program);
    }
    fs::remove_dir_all(&workshop).expect("a directory of our own");
    program
}

/// Whether a program is there and younger than all sources and this binary, which knows the arguments.
fn is_fresh(program: &Path) -> bool {
    static LAST_CHANGE: OnceLock<SystemTime> = OnceLock::new();
    let changed = |path: &Path| fs::metadata(path).and_then(|file| file.modified());
    let last_change = LAST_CHANGE.get_or_init(|| {
        let sources = fs::read_dir(repository().join("tests/programs")).expect("the sources");
        let sources = sources.map(|source| source.expect("a source").path());
        let binary = std::env::current_exe().expect("this binary");
        let all = sources.chain([binary]);
        let times = all.map(|path| changed(&path).expect("the time of a file"));
        times.max().expect("a time")
    });
    changed(program).is_ok_and(|made| made > *last_change)
}
