//! Text on its way to a terminal. Names and paths are hostile: no control byte of theirs may arrive there.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::Write as _;

/// Prints one message of memspy's on standard error, with `memspy: ` before it and nothing raw in it.
pub(crate) fn say(message: &str) {
    let line = format!("memspy: {}\n", clean(message));
    // Standard error may be closed; the exit code still tells.
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// `text` with every control character, and every character that reorders text, written as an escape.
///
/// Newlines are escaped too: what is passed here is one line or a part of one.
pub(crate) fn clean(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => clean.push_str("\\n"),
            '\t' => clean.push_str("\\t"),
            c if c.is_control() || reorders(c) => {
                // Writing to a String can't fail.
                let _ = write!(clean, "\\u{{{:x}}}", c as u32);
            }
            c => clean.push(c),
        }
    }
    clean
}

/// JSON text with every character that [`clean`] escapes written as JSON's own escape. JSON asks that only of those
/// below U+0020. Outside of strings no such character stands, so the document means the same.
pub(crate) fn visible(json: &str) -> String {
    let mut visible = String::with_capacity(json.len());
    for c in json.chars() {
        if matches!(c, '\u{7f}'..='\u{9f}') || reorders(c) {
            // Writing to a String can't fail.
            let _ = write!(visible, "\\u{:04x}", c as u32);
        } else {
            visible.push(c);
        }
    }
    visible
}

/// A value as a JSON document over several lines, [`visible`], with its newline.
///
/// # Errors
/// When the value has no form in JSON.
pub(crate) fn document(value: &impl serde::Serialize) -> serde_json::Result<String> {
    let text = serde_json::to_string_pretty(value)?;
    Ok(visible(&text) + "\n")
}

/// A path or an argument for a message: [`clean`], bytes that are not UTF-8 as U+FFFD.
pub(crate) fn show(text: impl AsRef<OsStr>) -> String {
    clean(&text.as_ref().to_string_lossy())
}

/// Unicode's bidirectional controls and invisible separators, which can make a line read as something else.
fn reorders(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(
            clean("a\u{1b}]52;c\u{7}b\u{9b}31m\r\n"),
            "a\\u{1b}]52;c\\u{7}b\\u{9b}31m\\u{d}\\n"
        );
    }

    #[test]
    fn json_keeps_its_meaning_and_loses_what_a_terminal_acts_on() {
        let name = "a\u{9b}31m\u{202e}\u{7f}\u{1b}ü";
        let json = document(&name).unwrap();
        assert!(
            !json
                .trim_end()
                .chars()
                .any(|c| c.is_control() || reorders(c))
        );
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), name);
    }

    #[test]
    fn text_direction_can_not_be_changed() {
        assert_eq!(clean("exe\u{202e}gpj.ü"), "exe\\u{202e}gpj.ü");
    }
}
