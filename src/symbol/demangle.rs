//! From the linker's name of a function to the one in its source, within bounds.
//!
//! A mangled name is a small program for a demangler: one of 50 bytes can stand for gigabytes. What
//! goes in and what comes out are bounded here; the time, by the deadline of the worker.

use std::fmt::{self, Write};

use crate::frame::{Frame, boundary, cut};

/// Mangled names longer than this are shown as they are, cut.
const LONGEST_MANGLED: usize = 16 * 1024;

/// The readable form of `symbol`: demangled if it is a Rust or C++ name, else itself; at most
/// [`Frame::LONGEST_NAME`] bytes and an ellipsis.
pub(crate) fn demangled(symbol: &str) -> String {
    if symbol.len() > LONGEST_MANGLED {
        return cut(symbol, Frame::LONGEST_NAME);
    }
    rust(symbol)
        .or_else(|| cpp(symbol))
        .unwrap_or_else(|| cut(symbol, Frame::LONGEST_NAME))
}

fn rust(symbol: &str) -> Option<String> {
    let name = rustc_demangle::try_demangle(symbol).ok()?;
    let mut out = Bounded::default();
    // `#` leaves the hash out.
    let finished = write!(out, "{name:#}").is_ok();
    out.take(finished)
}

fn cpp(symbol: &str) -> Option<String> {
    if !symbol.starts_with("_Z") {
        return None;
    }
    let name = cpp_demangle::Symbol::new(symbol).ok()?;
    let options = cpp_demangle::DemangleOptions::new();
    let mut out = Bounded::default();
    let finished = name
        .structured_demangle(&mut out, &options.recursion_limit(96))
        .is_ok();
    out.take(finished)
}

/// Text that refuses to grow over the limit, which stops the writer.
#[derive(Default)]
struct Bounded {
    text: String,
    full: bool,
}

impl Bounded {
    /// What was written: all of it, or as much as fits. `None` when the writer gave up by itself.
    fn take(self, finished: bool) -> Option<String> {
        match (finished, self.full) {
            (true, _) => Some(self.text),
            (false, true) => Some(cut(&self.text, Frame::LONGEST_NAME)),
            (false, false) => None,
        }
    }
}

impl fmt::Write for Bounded {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        let room = Frame::LONGEST_NAME + 1 - self.text.len().min(Frame::LONGEST_NAME);
        if piece.len() < room {
            self.text.push_str(piece);
            return Ok(());
        }
        self.text.push_str(&piece[..boundary(piece, room)]);
        self.full = true;
        Err(fmt::Error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_c_stay() {
        assert_eq!(demangled("xrealloc"), "xrealloc");
        assert_eq!(demangled(""), "");
        assert_eq!(demangled("_Z"), "_Z");
    }

    #[test]
    fn names_of_cpp_and_rust_become_readable() {
        assert_eq!(
            demangled("_ZNSt6vectorIiSaIiEE9push_backEOi"),
            "std::vector<int, std::allocator<int> >::push_back(int&&)"
        );
        assert_eq!(
            demangled("_ZN4core3ptr13drop_in_place17h0123456789abcdefE"),
            "core::ptr::drop_in_place"
        );
        assert_eq!(demangled("_RNvC6_123foo3bar"), "123foo::bar");
    }

    #[test]
    fn a_name_that_doubles_at_each_step_is_cut() {
        // Each S_ pair doubles the type before it: 40 of them would be 2^40 bytes.
        let mut bomb = String::from("_Z1fSt4pairIiiE");
        for _ in 0..40 {
            bomb = format!("_Z1fSt4pairI{0}{0}E", &bomb[4..]);
            if bomb.len() > 12 * 1024 {
                break;
            }
        }
        let name = demangled(&bomb);
        assert!(
            name.len() <= Frame::LONGEST_NAME + '…'.len_utf8(),
            "{} bytes",
            name.len()
        );
        assert!(name.ends_with('…'), "{name}");
    }

    #[test]
    fn deep_nesting_neither_crashes_nor_hangs() {
        for piece in ["P", "I", "N", "F", "T_", "XadL", "St4pairI", "Z1fE"] {
            demangled(&format!("_Z1f{}", piece.repeat(4000 / piece.len())));
            demangled(&format!("_R{}", piece.repeat(4000 / piece.len())));
        }
    }

    #[test]
    fn a_very_long_name_is_cut_undemangled() {
        let name = demangled(&format!("_Z{}", "a".repeat(1_000_000)));
        assert_eq!(name.len(), Frame::LONGEST_NAME + '…'.len_utf8());
    }
}
