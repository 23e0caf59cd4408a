//! Builds the shim and hands its path to `shim_file.rs`, so that the program carries the very shim it was built with.
//!
//! A nested cargo compiles `memspy-shim` into a target directory of its own inside `OUT_DIR` (the outer cargo holds
//! the lock of the shared one), always with the release profile: debug builds and tests use the real thing.
//! `MEMSPY_SHIM_PREBUILT=PATH` skips the nested build, for packagers who build the shim elsewhere.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the shim is made of, relative to the package's root. Cargo looks into directories.
const SOURCES: [&str; 5] = [
    "src/cli/build.rs",
    "src/log",
    "src/shim",
    "Cargo.toml",
    "Cargo.lock",
];

/// Variables that the outer cargo set for this package and that would change how the shim is compiled.
const FOREIGN: [&str; 4] = [
    "CARGO_ENCODED_RUSTFLAGS",
    "RUSTFLAGS",
    "RUSTC_WRAPPER",
    "RUSTC_WORKSPACE_WRAPPER",
];

fn main() {
    println!("cargo::rerun-if-env-changed=MEMSPY_SHIM_PREBUILT");
    let shim = match env::var_os("MEMSPY_SHIM_PREBUILT").filter(|path| !path.is_empty()) {
        Some(path) => prebuilt(Path::new(&path)),
        None => build(),
    };
    println!("cargo::rustc-env=MEMSPY_SHIM_FILE={}", shim.display());
}

/// The absolute path of a shim that somebody else built.
fn prebuilt(path: &Path) -> PathBuf {
    let shim = path.canonicalize().unwrap_or_else(|error| {
        panic!(
            "MEMSPY_SHIM_PREBUILT={}: {error}; give the path of a libmemspy.so",
            path.display()
        )
    });
    println!("cargo::rerun-if-changed={}", shim.display());
    shim
}

/// Compiles the shim and returns the path of `libmemspy.so`.
fn build() -> PathBuf {
    let root = PathBuf::from(variable("CARGO_MANIFEST_DIR"));
    let target = variable("TARGET");
    let directory = Path::new(&variable("OUT_DIR")).join("shim");
    for source in SOURCES {
        println!("cargo::rerun-if-changed={}", root.join(source).display());
    }

    let mut cargo = Command::new(variable("CARGO"));
    cargo
        .current_dir(&root)
        .args([
            "build",
            "--release",
            "--package",
            "memspy-shim",
            "--target",
            &target,
        ])
        .arg("--target-dir")
        .arg(&directory)
        // A configured build directory would be the outer cargo's, and locked by it.
        .env("CARGO_BUILD_BUILD_DIR", directory.join("build"));
    if root.join("Cargo.lock").exists() {
        cargo.arg("--locked");
    }
    for name in FOREIGN {
        cargo.env_remove(name);
    }
    let status = cargo
        .status()
        .unwrap_or_else(|error| panic!("can't start {cargo:?}: {error}"));
    assert!(
        status.success(),
        "building the shim failed ({status}): {cargo:?}"
    );

    let shim = directory.join(&target).join("release/libmemspy.so");
    assert!(shim.is_file(), "cargo built no {}", shim.display());
    shim
}

/// A variable that cargo always sets for a build script.
fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|error| panic!("{name}: {error}"))
}
