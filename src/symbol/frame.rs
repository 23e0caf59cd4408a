//! One function at one place in the code.

use serde::{Deserialize, Serialize};

/// A function that was active at an address, and the place in its source.
///
/// One address gives several frames where functions were inlined: innermost first, each but the
/// last with `inlined`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// The demangled name, at most [`Frame::LONGEST_NAME`] bytes and an ellipsis. Whatever the file
    /// held: escape it before it reaches a terminal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    /// The name as the file held it (mangled), where it differs from `function`; cut like it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub symbol: Option<String>,
    /// The source file as the debug information names it, hostile like `function`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Line in `file`, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// The compiler put this function's code into the next frame's function.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub inlined: bool,
}

impl Frame {
    /// Bytes of a function's name that are kept. Template names of 100 KB exist; nobody reads them.
    pub const LONGEST_NAME: usize = 1024;
    /// Bytes of a file's name that are kept: PATH_MAX.
    pub const LONGEST_FILE: usize = 4096;
}

/// The longest beginning of `text` of at most `limit` bytes that ends between two characters, with
/// an ellipsis when something was cut.
pub(crate) fn cut(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_string();
    }
    format!("{}…", &text[..boundary(text, limit)])
}

/// The last boundary between two characters of `text` at or before `limit`.
pub(crate) fn boundary(text: &str, limit: usize) -> usize {
    (0..=limit.min(text.len()))
        .rev()
        .find(|&at| text.is_char_boundary(at))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cut_text_ends_between_two_characters() {
        assert_eq!(cut("née", 2), "n…");
        assert_eq!(cut("née", 3), "né…");
        assert_eq!(cut("née", 4), "née");
    }
}
