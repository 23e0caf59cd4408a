//! Reads suppression files. An error says where and what was expected: a suppression that is
//! silently not understood hides or shows the wrong leaks.

use std::fmt;

use super::super::KindSet;
use super::{Date, FrameLine, Pattern, Rule, Suppression};

/// Why a suppression file was refused. Lines and columns count from 1, columns in characters.
#[derive(Debug, PartialEq, Eq)]
pub struct ParseError {
    /// Where the file came from.
    pub file: String,
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
    /// What is wrong there and what would be right.
    pub what: String,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}:{}: {}",
            self.file, self.line, self.column, self.what
        )
    }
}

impl std::error::Error for ParseError {}

/// The entries of `text`, in order. Valgrind entries for other tools and other errors than leaks
/// are read over, as Valgrind does. `file` only names the place in errors and reports.
pub fn parse(file: &str, text: &str) -> Result<Vec<Suppression>, ParseError> {
    let mut lines = Lines {
        file,
        rest: text.lines().enumerate(),
        last: 0,
    };
    let mut entries = Vec::new();
    let mut expires = None;
    while let Some(line) = lines.next() {
        if let Some(comment) = line.text.strip_prefix('#') {
            expires = expiry(&line, comment)?.or(expires);
        } else if line.text == "{" {
            entries.extend(valgrind_entry(&mut lines, &line, expires.take())?);
        } else if line.text.starts_with('{') {
            return Err(line.error(1, "expected nothing else on the line of the opening brace"));
        } else {
            entries.push(lsan_entry(&line, expires.take())?);
        }
    }
    Ok(entries)
}

/// The lines that hold something, with their places.
struct Lines<'a> {
    file: &'a str,
    rest: std::iter::Enumerate<std::str::Lines<'a>>,
    last: usize,
}

struct Line<'a> {
    file: &'a str,
    number: usize,
    /// Characters before the text.
    indent: usize,
    text: &'a str,
}

impl<'a> Iterator for Lines<'a> {
    type Item = Line<'a>;

    fn next(&mut self) -> Option<Line<'a>> {
        loop {
            let (index, raw) = self.rest.next()?;
            self.last = index + 1;
            let text = raw.trim();
            if !text.is_empty() {
                let indent = raw.chars().take_while(|c| c.is_whitespace()).count();
                return Some(Line {
                    file: self.file,
                    number: index + 1,
                    indent,
                    text,
                });
            }
        }
    }
}

impl Line<'_> {
    /// An error at character `at` (from 0) of the line's text.
    fn error(&self, at: usize, what: impl Into<String>) -> ParseError {
        let column = self.indent + at + 1;
        ParseError {
            file: self.file.into(),
            line: self.number,
            column,
            what: what.into(),
        }
    }

    /// The line's text from byte `at` on, without blanks before it, and that place in characters.
    fn tail(&self, at: usize) -> (&str, usize) {
        let rest = self.text[at..].trim_start();
        (
            rest,
            self.text[..self.text.len() - rest.len()].chars().count(),
        )
    }
}

/// The date of an `expires:` comment; other comments have none.
fn expiry(line: &Line, comment: &str) -> Result<Option<Date>, ParseError> {
    let Some(date) = comment.trim_start().strip_prefix("expires:") else {
        return Ok(None);
    };
    let (date, at) = line.tail(line.text.len() - date.len());
    let parsed = Date::parse(date)
        .ok_or_else(|| line.error(at, "expected a date such as 2027-01-31 after 'expires:'"))?;
    Ok(Some(parsed))
}

fn lsan_entry(line: &Line, expires: Option<Date>) -> Result<Suppression, ParseError> {
    let Some((kind, _)) = line.text.split_once(':') else {
        return Err(line.error(
            0,
            "expected 'leak:pattern', a '{ … }' entry, or a '#' comment",
        ));
    };
    if kind != "leak" {
        let what =
            format!("unknown suppression type {kind:?}; this is a leak check: 'leak:pattern'");
        return Err(line.error(0, what));
    }
    let (pattern, at) = line.tail("leak:".len());
    if pattern.is_empty() {
        return Err(line.error(at, "expected a pattern after 'leak:'"));
    }
    Ok(Suppression {
        name: pattern.into(),
        file: line.file.into(),
        line: line.number,
        expires,
        rule: Rule::Anywhere(Pattern::part(pattern)),
    })
}

/// One `{ … }` entry, whose brace was `open`; `None` when it is not about Memcheck's leaks.
fn valgrind_entry(
    lines: &mut Lines,
    open: &Line,
    mut expires: Option<Date>,
) -> Result<Option<Suppression>, ParseError> {
    let mut body = Vec::new();
    loop {
        let Some(line) = lines.next() else {
            let (line, what) = (lines.last.max(open.number), "the file ends inside an entry");
            let what = format!("{what} that began in line {}: expected '}}'", open.number);
            return Err(ParseError {
                file: open.file.into(),
                line,
                column: 1,
                what,
            });
        };
        if let Some(comment) = line.text.strip_prefix('#') {
            expires = expiry(&line, comment)?.or(expires);
        } else if line.text == "}" {
            return entry_of(open, &line, &body, expires);
        } else if line.text == "{" {
            let what = format!(
                "expected '}}' of the entry that began in line {}",
                open.number
            );
            return Err(line.error(0, what));
        } else {
            body.push(line);
        }
    }
}

fn entry_of(
    open: &Line,
    close: &Line,
    body: &[Line],
    expires: Option<Date>,
) -> Result<Option<Suppression>, ParseError> {
    let [name, tool, rest @ ..] = body else {
        return Err(close.error(0, "expected a name and 'Memcheck:Leak' before '}'"));
    };
    let Some((tools, error)) = tool.text.split_once(':') else {
        return Err(tool.error(0, "expected 'Tool:Error', such as 'Memcheck:Leak'"));
    };
    if error.trim() != "Leak" || !tools.split(',').any(|tool| tool.trim() == "Memcheck") {
        return Ok(None);
    }
    let (kinds, frames) = match rest.first().map(|line| (line, leak_kinds(line))) {
        Some((_, Some(kinds))) => (kinds?, &rest[1..]),
        _ => (KindSet::ALL, rest),
    };
    let lines = frames
        .iter()
        .map(frame_line)
        .collect::<Result<Vec<_>, _>>()?;
    if lines.iter().all(|line| *line == FrameLine::Ellipsis) {
        let what = "expected at least one 'fun:', 'obj:' or 'src:' line before '}'";
        return Err(close.error(0, what));
    }
    Ok(Some(Suppression {
        name: name.text.into(),
        file: open.file.into(),
        line: open.number,
        expires,
        rule: Rule::Innermost { kinds, lines },
    }))
}

/// The kinds of a `match-leak-kinds:` line; `None` for any other line.
fn leak_kinds(line: &Line) -> Option<Result<KindSet, ParseError>> {
    const KEY: &str = "match-leak-kinds:";
    line.text.strip_prefix(KEY)?;
    let (words, at) = line.tail(KEY.len());
    let set: Result<KindSet, _> = match words {
        // Valgrind's "all" means its four; mappings are memspy's own kind.
        "all" => Ok(KindSet::HEAP),
        words => words.parse(),
    };
    Some(set.map_err(|error| line.error(at, error.to_string())))
}

fn frame_line(line: &Line) -> Result<FrameLine, ParseError> {
    if line.text == "..." {
        return Ok(FrameLine::Ellipsis);
    }
    let Some((key, _)) = line.text.split_once(':') else {
        return Err(line.error(0, "expected 'fun:', 'obj:', 'src:' or '...'"));
    };
    let (value, at) = line.tail(key.len() + 1);
    if value.is_empty() {
        return Err(line.error(at, format!("expected a pattern after '{key}:'")));
    }
    match key {
        "fun" => Ok(FrameLine::Function(Pattern::whole(value))),
        "obj" => Ok(FrameLine::Module(Pattern::whole(value))),
        "src" => Ok(
            match value
                .rsplit_once(':')
                .map(|(file, line)| (file, line.parse()))
            {
                Some((file, Ok(line))) => FrameLine::Source(Pattern::whole(file), Some(line)),
                _ => FrameLine::Source(Pattern::whole(value), None),
            },
        ),
        key => {
            let what =
                format!("unknown frame type {key:?}; expected 'fun:', 'obj:', 'src:', '...'");
            Err(line.error(0, what))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> (usize, usize, String) {
        let error = parse("f.supp", text).expect_err(text);
        (error.line, error.column, error.what)
    }

    #[test]
    fn both_syntaxes_may_stand_in_one_file() {
        let text = "# known\nleak: libfoo\n\n{\n  one\n  Memcheck:Leak\n  fun:malloc\n  fun:f\n}\n";
        let entries = parse("f.supp", text).unwrap();
        let names: Vec<_> = entries.iter().map(|e| (e.name.as_str(), e.line)).collect();
        assert_eq!(names, [("libfoo", 2), ("one", 4)]);
    }

    #[test]
    fn entries_for_other_tools_and_errors_are_read_over() {
        let text = "{\nuninit\nMemcheck:Param\nwrite(buf)\nfun:write\n}\n\
                    {\nrace\nHelgrind:Race\nfun:f\n}\nleak:x\n";
        assert_eq!(parse("f.supp", text).unwrap().len(), 1);
    }

    #[test]
    fn errors_name_line_and_column() {
        assert_eq!(place("leak:a\n  race:b\n").0, 2);
        assert_eq!(place("leak:a\n  race:b\n").1, 3);
        assert_eq!((place("leak:").0, place("leak:").1), (1, 6));
        let (line, column, what) = place("{\n n\n Memcheck:Leak\n fun:a\n\n  func:b\n}\n");
        assert_eq!((line, column), (6, 3));
        assert!(what.contains("\"func\""), "{what}");
        let (line, column, what) =
            place("{\nn\nMemcheck:Leak\nmatch-leak-kinds: direct\nfun:a\n}\n");
        assert_eq!((line, column), (4, 19));
        assert!(what.contains("\"direct\""), "{what}");
    }

    #[test]
    fn an_entry_without_an_end_names_the_line_where_it_began() {
        let (line, _, what) = place("leak:a\n{\nn\nMemcheck:Leak\nfun:a\n");
        assert_eq!(line, 5);
        assert!(what.contains("began in line 2"), "{what}");
        assert_eq!(place("{\nn\n{\n").0, 3);
        assert_eq!(place("{\nn\n}\n").0, 3);
        assert_eq!(place("{\nn\nMemcheck:Leak\n...\n}\n").0, 5);
    }

    #[test]
    fn an_expiry_belongs_to_the_next_entry_or_the_one_around_it() {
        let text = "# expires: 2027-01-01\nleak:a\nleak:b\n{\n# expires: 2028-02-29\nn\n\
                    Memcheck:Leak\nfun:c\n}\n";
        let days: Vec<_> = parse("f.supp", text)
            .unwrap()
            .iter()
            .map(|entry| entry.expires.map(|day| day.to_string()))
            .collect();
        assert_eq!(
            days,
            [Some("2027-01-01".into()), None, Some("2028-02-29".into())]
        );
        let (line, column, _) = place("leak:a\n# expires: soon\nleak:b\n");
        assert_eq!((line, column), (2, 12));
    }

    #[test]
    fn no_text_makes_it_panic() {
        const WORDS: [&str; 16] = [
            "{",
            "}",
            "\n",
            " ",
            "é",
            "leak:",
            "fun:",
            "src:a:",
            "...",
            "Memcheck:Leak",
            "Memcheck:",
            "match-leak-kinds:",
            "# expires:",
            "#",
            "*",
            ":",
        ];
        // A linear congruential generator: the same texts in every run.
        let mut state: u32 = 1;
        for _ in 0..20_000 {
            let mut text = String::new();
            for _ in 0..12 {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                text.push_str(WORDS[(state >> 28) as usize]);
            }
            if let Err(error) = parse("f.supp", &text) {
                let last = text.lines().count().max(1);
                assert!(
                    (1..=last).contains(&error.line) && error.column > 0,
                    "{text:?}: {error}"
                );
            }
        }
    }

    #[test]
    fn columns_count_characters_not_bytes() {
        assert_eq!(place("\u{a0}\u{a0}é").1, 3);
    }
}
