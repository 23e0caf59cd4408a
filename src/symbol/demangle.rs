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
pub fn demangled(symbol: &str) -> String {
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
    let whole = with_return_type(symbol);
    let name = cpp_demangle::Symbol::new(whole.as_deref().unwrap_or(symbol)).ok()?;
    let options = cpp_demangle::DemangleOptions::new();
    let mut out = Bounded::default();
    let finished = name
        .structured_demangle(&mut out, &options.recursion_limit(96))
        .is_ok();
    out.take(finished)
}

/// How many places are tried for the end of a constructor's name.
const MOST_ENDS: usize = 64;

/// The symbol of a constructor that is a template, with a return type put in; else nothing.
///
/// Function templates are mangled with their return type, constructors have none. cpp_demangle takes
/// the first parameter for it and shows one too few (gimli-rs/cpp_demangle#129).
fn with_return_type(symbol: &str) -> Option<String> {
    let marks = ["C1I", "C2I", "C3I", "C4I", "C5I"];
    let start = marks.iter().filter_map(|mark| symbol.find(mark)).min()?;
    let ends = symbol[start..]
        .match_indices('E')
        .take(MOST_ENDS)
        .map(|(at, _)| start + at + 1);
    // Where the name ends, `v` stands for no parameters, and the name with it is a whole symbol.
    let mut ends = ends.filter(|&end| {
        let alone = cpp_demangle::Symbol::new(format!("{}v", &symbol[..end])).ok();
        let name = alone.and_then(|alone| alone.demangle().ok());
        name.is_some_and(|name| name.strip_suffix("()").is_some_and(is_constructor_template))
    });
    let end = ends.next().filter(|&end| end < symbol.len())?;
    Some(format!("{}v{}", &symbol[..end], &symbol[end..]))
}

/// Whether a readable name is like `Table<int>::Table<char>`.
fn is_constructor_template(name: &str) -> bool {
    let own = without_arguments(name);
    let Some((class, constructor)) = own.rsplit_once("::") else {
        return false;
    };
    own.len() < name.len() && without_arguments(class).rsplit("::").next() == Some(constructor)
}

/// The name without template arguments at its end.
fn without_arguments(name: &str) -> &str {
    let mut depth = 0usize;
    for (at, byte) in name.bytes().enumerate().rev() {
        match byte {
            b'>' => depth += 1,
            b'<' if depth > 0 => depth -= 1,
            _ if depth == 0 => return name,
            _ => continue,
        }
        if depth == 0 {
            return &name[..at];
        }
    }
    name
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
    fn constructor_templates_keep_all_their_parameters() {
        for (symbol, name) in [
            ("_ZN3FooC1IiEET_i", "Foo::Foo<int>(int, int)"),
            ("_ZN3FooC2IiEEi", "Foo::Foo<int>(int)"),
            ("_ZN3FooC1IJiiEEEDpT_", "Foo::Foo<int, int>(int, int)"),
            (
                "_ZN7mozilla3gfx12RecordedFillC2INS0_11EventStreamEEERT_",
                "mozilla::gfx::RecordedFill::RecordedFill<mozilla::gfx::EventStream>(mozilla::gfx::EventStream&)",
            ),
            (
                "_ZNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEC1IS3_EEmcRKS3_",
                "std::__cxx11::basic_string<char, std::char_traits<char>, std::allocator<char> >\
                 ::basic_string<std::allocator<char> >(unsigned long, char, std::allocator<char> const&)",
            ),
            // No constructor templates: a function template, a constructor, a function named like one.
            ("_ZN3Foo3barIiEEvT_", "void Foo::bar<int>(int)"),
            ("_ZN3FooIiEC1Ei", "Foo<int>::Foo(int)"),
            ("_ZN3C1I3barEi", "C1I::bar(int)"),
        ] {
            assert_eq!(demangled(symbol), name);
        }
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
