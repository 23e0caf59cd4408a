//! Link arguments of libmemspy.so: what it must not need, and what must not be in it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    // A preloaded library whose dependency is missing keeps its host from starting, and slim containers have no
    // libgcc_s.so.1. The linker finds this script where it looks for it: the unwinder's support code is linked in.
    fs::write(out.join("libgcc_s.so"), "INPUT(-l:libgcc_eh.a -lgcc)\n")
        .expect("OUT_DIR is writable");
    argument(&format!("-L{}", out.display()));
    argument("-Wl,--exclude-libs,ALL");
    argument("-Wl,-z,now");
    argument("-Wl,--gc-sections");
    argument("-Wl,--strip-debug");
    // std's panic handler prints, allocates and has thread-locals of the kind that call malloc. The shim's own takes
    // its place, so that none of that is even linked.
    if let Some(handler) = panic_handler() {
        argument(&format!("-Wl,--defsym={handler}=memspy_panicked"));
    }
    // Nothing unwinds in here, so the personality of core's functions is never asked. std's would bring libgcc's
    // unwinder, which wants glibc 2.35.
    argument("-Wl,--defsym=rust_eh_personality=memspy_panicked");
}

fn argument(argument: &str) {
    println!("cargo::rustc-cdylib-link-arg={argument}");
}

/// The symbol of std's panic handler, which is mangled with the compiler's own hash.
fn panic_handler() -> Option<String> {
    let rustc = env::var_os("RUSTC")?;
    let target = env::var("TARGET").ok()?;
    let libraries = Command::new(rustc)
        .args(["--print", "target-libdir", "--target", &target])
        .output()
        .ok()?;
    let directory = PathBuf::from(String::from_utf8(libraries.stdout).ok()?.trim());
    let std = fs::read_dir(directory)
        .ok()?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| is_std(path))?;
    let bytes = fs::read(std).ok()?;
    let end = b"_7___rustc17rust_begin_unwind";
    let start = b"_RNvCs";
    let at = bytes.windows(end.len()).position(|window| window == end)?;
    let from = bytes
        .get(..at)?
        .windows(start.len())
        .rposition(|window| window == start)?;
    let symbol = bytes.get(from..at + end.len())?;
    (symbol.len() < 80).then(|| String::from_utf8_lossy(symbol).into_owned())
}

fn is_std(path: &Path) -> bool {
    let name = path
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    name.starts_with("libstd-") && name.ends_with(".rlib")
}
