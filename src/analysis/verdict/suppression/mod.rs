//! Suppressions: leaks that the user knows and accepts, named by their stacks.
//!
//! Two syntaxes, which may stand in one file: LeakSanitizer's `leak:pattern` lines and Valgrind's
//! `{ … }` entries. A comment `# expires: 2027-01-01` before or inside an entry gives it an end:
//! after that day it matches nothing and is reported.

mod date;
mod generate;
mod parse;

pub use date::Date;
pub use generate::{Syntax, generate};
pub use parse::{ParseError, parse};

use super::pattern::Pattern;
use super::{Frame, KindSet, Leak};

/// One entry of a suppression file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suppression {
    /// Valgrind's name of the entry, or the LeakSanitizer pattern.
    pub name: String,
    /// Where it was read from, for reports.
    pub file: String,
    /// Line of its start in `file`, from 1.
    pub line: usize,
    /// The last day on which it matches.
    pub expires: Option<Date>,
    rule: Rule,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Rule {
    /// LeakSanitizer: one frame anywhere on the stack has this in its function, source file or
    /// module.
    Anywhere(Pattern),
    /// Valgrind: the innermost frames are these.
    Innermost {
        kinds: KindSet,
        lines: Vec<FrameLine>,
    },
}

/// One line of a Valgrind entry.
#[derive(Clone, Debug, PartialEq, Eq)]
enum FrameLine {
    /// `fun:`
    Function(Pattern),
    /// `obj:`
    Module(Pattern),
    /// `src:` file, with a line when one is given.
    Source(Pattern, Option<u32>),
    /// `...`: any number of frames, also none.
    Ellipsis,
}

impl Suppression {
    /// Whether the entry's last day is before `today`.
    pub fn expired(&self, today: Date) -> bool {
        self.expires.is_some_and(|last| last < today)
    }

    /// Whether the entry matches `leak`, its expiry left aside.
    pub fn matches(&self, leak: &Leak) -> bool {
        match &self.rule {
            Rule::Anywhere(pattern) => leak.frames.iter().any(|frame| {
                frame
                    .names()
                    .chain(frame.file.as_deref())
                    .chain(frame.module.as_deref())
                    .any(|name| pattern.matches(name))
            }),
            Rule::Innermost { kinds, lines } => {
                kinds.contains(leak.kind) && innermost_match(lines, &leak.frames)
            }
        }
    }
}

/// A frame as Valgrind would see it.
#[derive(Clone, Copy)]
enum Seen<'a> {
    /// The allocation function itself, on top of Valgrind's stacks and absent from memspy's.
    Allocator,
    Frame(&'a Frame),
}

/// Whether `lines` match the innermost of `frames`, in any of the forms in which Valgrind can have
/// written that stack: with `malloc` on top, without it (`operator new` calls malloc by itself),
/// and with `operator new[]` alone where libstdc++ has `operator new` on top of it.
fn innermost_match(lines: &[FrameLine], frames: &[Frame]) -> bool {
    let plain: Vec<Seen> = frames.iter().map(Seen::Frame).collect();
    if prefix_match(lines, &plain) {
        return true;
    }
    let mut topped = vec![Seen::Allocator];
    topped.extend(&plain);
    if prefix_match(lines, &topped) {
        return true;
    }
    let nested = frames.len() > 1 && frames[..2].iter().all(is_operator_new);
    nested && prefix_match(lines, &plain[1..])
}

fn is_operator_new(frame: &Frame) -> bool {
    frame.names().any(|name| {
        name.starts_with("operator new") || name.starts_with("_Znw") || name.starts_with("_Zna")
    })
}

/// Wildcard match with frames for characters and `...` for `*`. The outermost frames are free.
fn prefix_match(lines: &[FrameLine], frames: &[Seen]) -> bool {
    let (mut line, mut frame) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    loop {
        match lines.get(line) {
            None => return true,
            Some(FrameLine::Ellipsis) => {
                line += 1;
                retry = Some((line, frame));
                continue;
            }
            Some(pattern) if frames.get(frame).is_some_and(|seen| pattern.matches(*seen)) => {
                line += 1;
                frame += 1;
                continue;
            }
            Some(_) => {}
        }
        let Some((after_ellipsis, from)) = retry else {
            return false;
        };
        if from >= frames.len() {
            return false;
        }
        line = after_ellipsis;
        frame = from + 1;
        retry = Some((line, frame));
    }
}

impl FrameLine {
    fn matches(&self, seen: Seen) -> bool {
        const ALLOCATORS: [&str; 9] = [
            "malloc",
            "calloc",
            "realloc",
            "reallocarray",
            "memalign",
            "posix_memalign",
            "aligned_alloc",
            "valloc",
            "pvalloc",
        ];
        /// Where Valgrind keeps its own malloc.
        const ALLOCATOR_MODULE: &str = "/usr/libexec/valgrind/vgpreload_memcheck-amd64-linux.so";
        match (self, seen) {
            (FrameLine::Function(pattern), Seen::Allocator) => {
                ALLOCATORS.iter().any(|name| pattern.matches(name))
            }
            (FrameLine::Module(pattern), Seen::Allocator) => pattern.matches(ALLOCATOR_MODULE),
            (FrameLine::Source(..), Seen::Allocator) => false,
            (FrameLine::Function(pattern), Seen::Frame(frame)) => {
                frame.names().any(|name| pattern.matches(name))
            }
            (FrameLine::Module(pattern), Seen::Frame(frame)) => frame
                .module
                .as_deref()
                .is_some_and(|module| pattern.matches(module)),
            (FrameLine::Source(pattern, line), Seen::Frame(frame)) => {
                let file = frame.file.as_deref().unwrap_or_default();
                let named =
                    pattern.matches(file) || pattern.matches(super::frame::last_component(file));
                !file.is_empty() && named && line.is_none_or(|line| frame.line == Some(line))
            }
            (FrameLine::Ellipsis, _) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Kind;
    use super::*;

    fn frame(function: &str, symbol: Option<&str>, module: &str) -> Frame {
        Frame {
            function: Some(function.into()),
            symbol: symbol.map(str::to_owned),
            module: Some(module.into()),
            file: Some("/src/list.cc".into()),
            line: Some(12),
            ..Frame::default()
        }
    }

    fn leak(kind: Kind, frames: Vec<Frame>) -> Leak {
        Leak {
            kind,
            blocks: 1,
            bytes: 16,
            frames,
            cut: false,
            inherited: false,
        }
    }

    fn matches(text: &str, leak: &Leak) -> bool {
        parse("test.supp", text)
            .expect(text)
            .iter()
            .any(|entry| entry.matches(leak))
    }

    fn c_leak() -> Leak {
        leak(
            Kind::Definite,
            vec![
                frame("strdup", None, "/lib/libc.so.6"),
                frame("load", None, "/opt/app"),
                frame("main", None, "/opt/app"),
            ],
        )
    }

    #[test]
    fn a_valgrind_entry_with_malloc_on_top_matches_a_stack_that_begins_at_its_caller() {
        let leak = c_leak();
        assert!(matches(
            "{\nn\nMemcheck:Leak\nfun:malloc\nfun:strdup\nfun:load\n}",
            &leak
        ));
        assert!(matches(
            "{\nn\nMemcheck:Leak\nfun:*alloc\n...\nfun:main\n}",
            &leak
        ));
        assert!(!matches(
            "{\nn\nMemcheck:Leak\nfun:malloc\nfun:load\n}",
            &leak
        ));
        assert!(!matches(
            "{\nn\nMemcheck:Leak\nfun:free\nfun:strdup\n}",
            &leak
        ));
    }

    #[test]
    fn an_ellipsis_stands_for_any_number_of_frames_and_for_none() {
        let leak = c_leak();
        assert!(matches("{\nn\nMemcheck:Leak\n...\nfun:strdup\n}", &leak));
        assert!(matches(
            "{\nn\nMemcheck:Leak\n...\nobj:/opt/app\nfun:main\n}",
            &leak
        ));
        assert!(matches(
            "{\nn\nMemcheck:Leak\nfun:strdup\n...\nfun:load\n...\nfun:main\n}",
            &leak
        ));
        assert!(!matches(
            "{\nn\nMemcheck:Leak\n...\nfun:main\nfun:load\n}",
            &leak
        ));
    }

    #[test]
    fn a_valgrind_entry_names_cpp_functions_by_their_mangled_names() {
        let new = leak(
            Kind::Possible,
            vec![
                frame(
                    "operator new(unsigned long)",
                    Some("_Znwm"),
                    "/lib/libstdc++.so.6",
                ),
                frame(
                    "operator new[](unsigned long)",
                    Some("_Znam"),
                    "/lib/libstdc++.so.6",
                ),
                frame("Tree::grow()", Some("_ZN4Tree4growEv"), "/opt/app"),
            ],
        );
        assert!(matches(
            "{\nn\nMemcheck:Leak\nfun:_Znam\nfun:_ZN4Tree*\n}",
            &new
        ));
        assert!(matches(
            "{\nn\nMemcheck:Leak\nmatch-leak-kinds: possible\nfun:_Zn?m\n}",
            &new
        ));
        let other_kind = "{\nn\nMemcheck:Leak\nmatch-leak-kinds: definite\nfun:_Znam\n}";
        assert!(!matches(other_kind, &new));
    }

    #[test]
    fn a_source_line_matches_by_path_or_by_file_name() {
        let leak = c_leak();
        assert!(matches(
            "{\nn\nMemcheck:Leak\nfun:malloc\nsrc:list.cc:12\n}",
            &leak
        ));
        assert!(matches("{\nn\nMemcheck:Leak\nsrc:/src/*.cc\n}", &leak));
        assert!(!matches("{\nn\nMemcheck:Leak\nsrc:list.cc:13\n}", &leak));
    }

    #[test]
    fn a_lsan_line_matches_function_file_and_module_of_any_frame() {
        let leak = c_leak();
        for text in [
            "leak:load",
            "leak:^main$",
            "leak:list.cc",
            "leak:libc.so",
            "leak:/opt/*pp$",
        ] {
            assert!(matches(text, &leak), "{text}");
        }
        assert!(!matches("leak:^oad", &leak));
        assert!(!matches("leak:unload", &leak));
    }

    #[test]
    fn a_leak_without_a_stack_is_matched_by_no_frame() {
        let bare = leak(Kind::Definite, Vec::new());
        assert!(!matches("leak:*", &bare));
        assert!(!matches("{\nn\nMemcheck:Leak\nfun:malloc\nfun:*\n}", &bare));
    }
}
