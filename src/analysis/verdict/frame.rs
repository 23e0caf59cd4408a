//! One frame of a leak's stack, with the names that the symboliser found.

/// One function on a stack. An inlined function is a frame of its own, before the frame of the
/// function that holds it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// The demangled name; `None` when the address has no name.
    pub function: Option<String>,
    /// The name as the symbol table holds it (mangled), where it differs from `function`.
    pub symbol: Option<String>,
    /// Path of the executable or library that holds the code.
    pub module: Option<String>,
    /// Path of the source file, as the debug information has it.
    pub file: Option<String>,
    /// Line in `file`, from 1.
    pub line: Option<u32>,
    /// Address of the call, as it stands in the module's file; without a module, as it was in the
    /// process.
    pub address: u64,
    /// The compiler inlined this function into the next frame's.
    pub inlined: bool,
}

impl Frame {
    /// Last component of the module's path.
    pub fn module_name(&self) -> Option<&str> {
        self.module.as_deref().map(last_component)
    }

    /// The function's name, else `module+0xoffset`, else the bare address.
    pub fn label(&self) -> String {
        match (&self.function, self.module_name()) {
            (Some(function), _) => function.clone(),
            (None, Some(module)) => format!("{module}+{:#x}", self.address),
            (None, None) => format!("{:#x}", self.address),
        }
    }

    /// Every name of the function: demangled, and as the symbol table has it.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.function
            .as_deref()
            .into_iter()
            .chain(self.symbol.as_deref())
    }
}

/// The part of a path after its last slash.
pub(super) fn last_component(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Whether `module` (a file name, not a path) is part of the C or C++ runtime: libc, the loader,
/// libstdc++, libgcc and their companions.
pub(super) fn is_runtime(module: &str) -> bool {
    const STEMS: [&str; 9] = [
        "libc.so",
        "libc-2.",
        "ld-linux",
        "libpthread",
        "libdl.so",
        "libm.so",
        "libgcc_s.so",
        "libstdc++.so",
        "libc++.so",
    ];
    module.starts_with("ld-2.") || STEMS.iter().any(|stem| module.starts_with(stem))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_without_a_name_is_labelled_by_module_and_offset() {
        let frame = Frame {
            module: Some("/opt/app/libz.so".into()),
            address: 0x1f,
            ..Frame::default()
        };
        assert_eq!(frame.label(), "libz.so+0x1f");
        assert_eq!(
            Frame {
                address: 16,
                ..Frame::default()
            }
            .label(),
            "0x10"
        );
    }

    #[test]
    fn a_library_whose_name_begins_like_libc_is_not_the_runtime() {
        assert!(is_runtime("libc.so.6"));
        assert!(is_runtime("ld-linux-x86-64.so.2"));
        assert!(!is_runtime("libcurl.so.4"));
        assert!(!is_runtime("libmagic.so.1"));
    }
}
