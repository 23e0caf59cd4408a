//! A name for a leak that survives rebuilds: made of module and function names, never of
//! addresses, line numbers, inlining or compiler-made suffixes.

use std::fmt;

use super::{Frame, Kind};

/// 64 bits over a leak's kind and call path, printed as 16 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(u64);

impl Fingerprint {
    /// The fingerprint of a leak. FNV-1a, because it is short, public and will never change under
    /// us as the standard library's hasher may.
    pub fn new(kind: Kind, frames: &[Frame]) -> Fingerprint {
        const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
        const PRIME: u64 = 0x0000_0100_0000_01b3;
        let path = call_path(frames);
        let words = std::iter::once(kind.name()).chain(path.iter().map(String::as_str));
        let bytes = words.flat_map(|word| word.bytes().chain(std::iter::once(0)));
        Fingerprint(bytes.fold(OFFSET, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(PRIME)
        }))
    }

    /// The fingerprint that `text` spells, if it spells one.
    pub fn parse(text: &str) -> Option<Fingerprint> {
        let hex = text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
        hex.then(|| u64::from_str_radix(text, 16).ok().map(Fingerprint))
            .flatten()
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The stack as `function (module)`, innermost first, down to main: the stable part of it.
///
/// Left out: inlined frames (they come and go with the optimiser and the debug information) and
/// what lies below main or a thread's first function (libc's start code changes with libc).
pub fn call_path(frames: &[Frame]) -> Vec<String> {
    let mut path = Vec::new();
    for frame in frames.iter().filter(|frame| !frame.inlined) {
        let function = frame.function.as_deref().map_or("?", stable_name);
        if is_start_code(function) {
            break;
        }
        path.push(format!(
            "{function} ({})",
            frame.module_name().map_or("?", stable_module)
        ));
        if function == "main" {
            break;
        }
    }
    path
}

fn is_start_code(function: &str) -> bool {
    matches!(
        function,
        "__libc_start_main" | "__libc_start_call_main" | "_start"
    ) || matches!(
        function,
        "start_thread" | "clone" | "clone3" | "__clone" | "__clone3"
    )
}

/// The name without what the compiler adds to it: symbol versions, clone suffixes such as
/// `.constprop.0`, and Rust's `::h0123456789abcdef`.
fn stable_name(function: &str) -> &str {
    const SUFFIXES: [&str; 6] = [
        ".constprop.",
        ".isra.",
        ".part.",
        ".cold",
        ".lto_priv.",
        ".llvm.",
    ];
    let mut name = function.split_once('@').map_or(function, |(name, _)| name);
    if let Some(cut) = SUFFIXES.iter().filter_map(|suffix| name.find(suffix)).min() {
        name = &name[..cut];
    }
    match name.rsplit_once("::h") {
        Some((path, hash)) if hash.len() == 16 && hash.bytes().all(|b| b.is_ascii_hexdigit()) => {
            path
        }
        _ => name,
    }
}

/// `libfoo.so.1.2.3` → `libfoo.so`.
fn stable_module(module: &str) -> &str {
    module.find(".so.").map_or(module, |at| &module[..at + 3])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(function: &str, module: &str, line: u32) -> Frame {
        Frame {
            function: Some(function.into()),
            module: Some(module.into()),
            line: Some(line),
            address: u64::from(line) * 7919,
            ..Frame::default()
        }
    }

    fn stack(line: u32) -> Vec<Frame> {
        vec![
            frame("make_node", "/build/7/app", line),
            frame("main", "/build/7/app", line + 10),
            frame("__libc_start_call_main", "/lib/libc.so.6", 0),
        ]
    }

    #[test]
    fn addresses_lines_and_build_directories_do_not_change_it() {
        let mut moved = stack(200);
        moved[0].module = Some("/home/other/app".into());
        assert_eq!(
            Fingerprint::new(Kind::Definite, &stack(3)),
            Fingerprint::new(Kind::Definite, &moved)
        );
    }

    #[test]
    fn inlining_clones_hashes_and_library_versions_do_not_change_it() {
        let plain = [frame("run", "/lib/libz.so.1.2", 1), frame("main", "app", 2)];
        let mut inner = frame("helper", "/lib/libz.so.1.2", 9);
        inner.inlined = true;
        let built = [
            inner,
            frame("run.constprop.0", "/lib/libz.so.1.3", 4),
            frame("main", "app", 2),
        ];
        assert_eq!(call_path(&plain), call_path(&built));
        let rust = [frame("app::run::h0123456789abcdef", "app", 1)];
        assert_eq!(call_path(&rust), ["app::run (app)"]);
    }

    #[test]
    fn kind_function_and_module_change_it() {
        let base = Fingerprint::new(Kind::Definite, &stack(3));
        assert_ne!(base, Fingerprint::new(Kind::Reachable, &stack(3)));
        let mut other = stack(3);
        other[0].function = Some("make_tree".into());
        assert_ne!(base, Fingerprint::new(Kind::Definite, &other));
    }

    #[test]
    fn it_is_fnv_1a_so_that_a_baseline_stays_valid_for_ever() {
        // Independent witness: FNV-1a of b"definite\0f (m)\0" computed by Python.
        let one = [frame("f", "m", 1)];
        assert_eq!(
            Fingerprint::new(Kind::Definite, &one).to_string(),
            "8994ec7f51b97527"
        );
    }

    #[test]
    fn text_and_back_is_the_same() {
        let fingerprint = Fingerprint::new(Kind::Possible, &stack(1));
        assert_eq!(
            Fingerprint::parse(&fingerprint.to_string()),
            Some(fingerprint)
        );
        assert_eq!(Fingerprint::parse("+123456789abcdef"), None);
    }
}
