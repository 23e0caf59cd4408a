//! What reads hostile input, each as a function of bytes that must return: no panic, no hang, memory in bounds.
//!
//! cargo-fuzz drives these functions with coverage and the address sanitizer (`fuzz_targets`), and a test of the suite
//! drives the same functions on the stable toolchain with a bounded number of mutated seeds (`tests/fuzz`). Where a
//! reader promises more than to return, the function asserts it.

pub mod baseline;
pub mod decode;
pub mod log;
pub mod names;
pub mod program;
pub mod suppressions;
pub mod tail;
pub mod words;
pub mod zst;

use std::fs;
use std::path::{Path, PathBuf};

/// A target: its name, which is also the folder of its seeds, and its function.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 9] = [
    ("decode", decode::run),
    ("log", log::run),
    ("tail", tail::run),
    ("zst", zst::run),
    ("suppressions", suppressions::run),
    ("baseline", baseline::run),
    ("names", names::run),
    ("words", words::run),
    ("program", program::run),
];

/// The directory of this process's files, in memory where that can be had.
fn files() -> PathBuf {
    let shared = Path::new("/dev/shm");
    let parent = if shared.is_dir() {
        shared.to_owned()
    } else {
        std::env::temp_dir()
    };
    parent.join(format!("memspy-fuzz-{}", std::process::id()))
}

/// The path of a file of one target.
fn place(target: &str, name: &str) -> PathBuf {
    let directory = files().join(target);
    fs::create_dir_all(&directory).expect("a directory for the files of the target");
    directory.join(name)
}

/// Removes what the targets of this process left.
pub fn clean_up() {
    // Fails only when there is nothing.
    let _ = fs::remove_dir_all(files());
}
