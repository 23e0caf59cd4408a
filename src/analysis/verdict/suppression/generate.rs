//! Writes the suppression entry that would match a leak, for a user to paste and prune.

use super::super::{Finding, Frame};

/// The syntax of a generated entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syntax {
    /// `{ … }`, as precise as the stack.
    Valgrind,
    /// `leak:function`, as coarse as LeakSanitizer's.
    Lsan,
}

/// Frames that Valgrind accepts in one entry.
const MOST_FRAMES: usize = 24;

/// The entry for one leak; `None` when its stack holds nothing to name it by.
pub fn generate(finding: &Finding, syntax: Syntax) -> Option<String> {
    match syntax {
        Syntax::Valgrind => valgrind_entry(finding),
        Syntax::Lsan => {
            let frame = finding.culprit()?;
            let name = nonempty(frame.function.as_deref()).or(nonempty(frame.module_name()))?;
            Some(format!("leak:{}\n", escaped(name, &['*', '^', '$'], '*')))
        }
    }
}

fn valgrind_entry(finding: &Finding) -> Option<String> {
    let frames = &finding.leak.frames;
    // Valgrind's stacks end at main.
    let main = frames
        .iter()
        .position(|frame| frame.function.as_deref() == Some("main"));
    let shown = main.map_or(frames.len(), |main| main + 1);
    let mut lines: Vec<String> = frames[..shown].iter().map_while(frame_line).collect();
    if lines.is_empty() {
        return None;
    }
    // Valgrind's stacks begin with the allocation function, except where that is operator new.
    let new = frames.first().is_some_and(super::is_operator_new);
    if !new {
        lines.insert(0, "fun:*alloc".into());
    }
    lines.truncate(MOST_FRAMES);
    let (kind, fingerprint) = (finding.leak.kind, finding.fingerprint);
    let mut entry = format!("{{\n   memspy-{fingerprint}\n   Memcheck:Leak\n");
    entry.push_str(&format!("   match-leak-kinds: {kind}\n"));
    for line in lines {
        entry.push_str(&format!("   {line}\n"));
    }
    entry.push_str("}\n");
    Some(entry)
}

fn frame_line(frame: &Frame) -> Option<String> {
    let function = nonempty(frame.function.as_deref());
    let name = nonempty(frame.symbol.as_deref()).or(function);
    match (name, nonempty(frame.module.as_deref())) {
        (Some(name), _) => Some(format!("fun:{}", escaped(name, &[], '?'))),
        (None, Some(module)) => Some(format!("obj:{}", escaped(module, &[], '?'))),
        (None, None) => None,
    }
}

/// A name, unless nothing is in it: an empty pattern is no pattern.
fn nonempty(name: Option<&str>) -> Option<&str> {
    name.filter(|name| !name.is_empty())
}

/// `name` with control characters, blanks at its ends and the characters that mean something else
/// in the syntax replaced by a wildcard: names are the program's own and may hold anything.
fn escaped(name: &str, special: &[char], wildcard: char) -> String {
    let last = name.chars().count().saturating_sub(1);
    let foreign = |c: char| c.is_control() || c == '\u{2028}' || c == '\u{2029}';
    name.chars()
        .enumerate()
        .map(|(at, c)| {
            let at_end = at == 0 || at == last;
            let unsafe_here = foreign(c) || special.contains(&c) || (at_end && c.is_whitespace());
            if unsafe_here { wildcard } else { c }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::super::{Fingerprint, Kind, Leak, Standing};
    use super::super::parse;
    use super::*;

    fn finding(frames: Vec<Frame>) -> Finding {
        let leak = Leak {
            kind: Kind::Definite,
            blocks: 1,
            bytes: 8,
            frames,
            cut: false,
            inherited: false,
        };
        let fingerprint = Fingerprint::new(leak.kind, &leak.frames);
        let standing = Standing::Fails;
        Finding {
            leak,
            process: 0,
            fingerprint,
            pool: None,
            standing,
            grown_from: None,
        }
    }

    fn named(name: &str) -> Frame {
        Frame {
            function: Some(name.into()),
            module: Some("/opt/app".into()),
            ..Frame::default()
        }
    }

    #[test]
    fn a_generated_entry_matches_its_own_leak() {
        let stacks = [
            vec![named("load"), named("main")],
            vec![named("operator new(unsigned long)"), named("main")],
            vec![
                Frame {
                    function: None,
                    ..named("")
                },
                named("main"),
            ],
            vec![
                named("evil\nname\n}\n{"),
                named(" ^blank$ "),
                named("\u{1b}[31mred"),
            ],
            (0..40).map(|i| named(&format!("f{i}"))).collect(),
        ];
        for frames in stacks {
            let finding = finding(frames);
            for syntax in [Syntax::Valgrind, Syntax::Lsan] {
                let text = generate(&finding, syntax).unwrap();
                let entries = parse("generated", &text).unwrap_or_else(|e| panic!("{e}\n{text}"));
                assert_eq!(entries.len(), 1, "{text}");
                assert!(entries[0].matches(&finding.leak), "{text}");
            }
        }
    }

    #[test]
    fn an_empty_name_is_no_pattern() {
        let named = |function: &str, module: &str| Frame {
            function: Some(function.into()),
            module: Some(module.into()),
            ..Frame::default()
        };
        let leak = finding(vec![named("", "/lib/a.so"), named("", "")]);
        for syntax in [Syntax::Valgrind, Syntax::Lsan] {
            let entry = generate(&leak, syntax).expect("the module has a name");
            let read = parse("f.supp", &entry).unwrap_or_else(|why| panic!("{why}: {entry}"));
            assert!(read[0].matches(&leak.leak), "{entry}");
            assert_eq!(generate(&finding(vec![named("", "")]), syntax), None);
        }
    }

    #[test]
    fn a_stack_without_names_and_modules_has_no_entry() {
        assert_eq!(generate(&finding(Vec::new()), Syntax::Valgrind), None);
        assert_eq!(
            generate(&finding(vec![Frame::default()]), Syntax::Valgrind),
            None
        );
    }
}
