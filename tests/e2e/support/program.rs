//! The C, C++ and Rust programs of `tests/programs`, compiled when a test asks for them.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};

use super::{clean, finish, repository, scratch};

/// Compiles `tests/programs/NAME` (`.c`, `.cpp` or `.rs`) without optimisation, once in a run, and returns the program.
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
    fs::create_dir_all(&directory).expect("the scratch directory can be written");
    // Built under another name and renamed: another test process may be running the old one.
    let fresh = directory.join(format!("{stem}.{}", std::process::id()));
    let mut command = clean(compiler);
    command
        .args(usual)
        .arg("-o")
        .arg(&fresh)
        .arg(&source)
        .args(arguments);
    finish(&mut command).success();
    let program = directory.join(stem);
    fs::rename(&fresh, &program).expect("a program can be renamed");
    program
}
