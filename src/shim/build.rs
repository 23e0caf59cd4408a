//! Links the unwinder's support code statically: a preloaded library whose dependency is missing keeps its host from
//! starting, and slim containers have no libgcc_s.so.1.

use std::path::PathBuf;
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    // The linker finds this script where it looks for libgcc_s, which std asks for.
    fs::write(out.join("libgcc_s.so"), "INPUT(-l:libgcc_eh.a -lgcc)\n")
        .expect("OUT_DIR is writable");
    println!("cargo::rustc-cdylib-link-arg=-L{}", out.display());
    println!("cargo::rustc-cdylib-link-arg=-Wl,--exclude-libs,ALL");
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,now");
}
