//! A line of the log becomes an [`Event`].
//!
//! Two decoders: [`fast`] knows the lines of the heap calls byte by byte, in the one key order that
//! memspy writes, and gives up at anything else; [`fields`] reads whatever JSON may hold. Where the
//! first one answers, the second one answers the same (a property test holds them to it).

mod digits;
mod fast;
mod fields;
mod text;

use crate::event::Event;
use memchr::memchr;
use std::fmt;

/// The longest line that is read, in bytes; longer ones are skipped and counted.
///
/// memspy's own longest is a start line with 4096 bytes of arguments, each of up to six bytes.
pub const MAX_LINE: usize = 4 << 20;

/// Something that takes the event of a line.
pub(crate) trait Take {
    /// Called once for a line that is not bad.
    fn event(&mut self, event: Event);
}

impl Take for Option<Event> {
    #[inline(always)]
    fn event(&mut self, event: Event) {
        *self = Some(event);
    }
}

/// Reads the first line of `text`, with or without its newline.
///
/// Answers the line's event and its length in bytes, blanks and newline included; the rest of
/// `text` does not matter. The end of the text, NULs left out, ends a line without a newline.
pub fn first_line(text: &[u8]) -> (Result<Event, BadLine>, usize) {
    let mut found = None;
    let (result, len) = take_line(text, &mut found);
    // What is not bad was taken.
    let event = result.and_then(|()| found.ok_or(BadLine::NoOp));
    (event, len)
}

/// The same for many lines: gives the event to `take` instead of answering it.
#[inline(always)]
pub(crate) fn take_line(text: &[u8], take: &mut impl Take) -> (Result<(), BadLine>, usize) {
    match fast::first_line(text, take) {
        Some(len) => (Ok(()), len),
        None => {
            let (event, len) = unusual_line(text);
            (event.map(|event| take.event(event)), len)
        }
    }
}

#[inline(never)]
fn unusual_line(text: &[u8]) -> (Result<Event, BadLine>, usize) {
    let end = || text.iter().rposition(|byte| *byte != 0);
    let newline = memchr(b'\n', text);
    let len = newline.or_else(end).map_or(text.len(), |last| last + 1);
    (line(&text[..len]), len)
}

/// Reads one line by the general decoder.
///
/// # Errors
/// When it is no JSON object, has no known op or lacks a key that its op must have.
pub fn line(line: &[u8]) -> Result<Event, BadLine> {
    if line.len() > MAX_LINE {
        return Err(BadLine::TooLong(line.len()));
    }
    fields::decode(line)
}

/// The format's version in a start line, also in one of a version that this reader can't decode.
pub fn version(line: &[u8]) -> Option<u64> {
    #[derive(serde::Deserialize)]
    struct Version {
        v: u64,
    }
    let version: Option<Version> = serde_json::from_slice(line).ok();
    version.map(|version| version.v)
}

/// Why a line is not an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadLine {
    /// Not JSON, or a value of the wrong type: what the JSON reader says.
    Json(String),
    /// Not UTF-8.
    Utf8,
    /// A JSON object without an op: not memspy's.
    NoOp,
    /// An op that this version does not know.
    UnknownOp(String),
    /// A key that this op must have is not there.
    Missing {
        /// The op's name.
        op: &'static str,
        /// The key.
        key: &'static str,
    },
    /// Longer than [`MAX_LINE`]; its bytes.
    TooLong(usize),
}

impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            BadLine::Json(why) => write!(f, "not an event: {why}"),
            BadLine::Utf8 => write!(f, "not an event: not UTF-8 text"),
            BadLine::NoOp => write!(f, "not an event: it has no \"op\""),
            BadLine::UnknownOp(op) => {
                write!(
                    f,
                    "unknown event \"{}\"",
                    crate::text::printable(op.as_bytes())
                )
            }
            BadLine::Missing { op, key } => write!(f, "a \"{op}\" without \"{key}\""),
            BadLine::TooLong(len) => write!(f, "a line of {len} bytes, longer than {MAX_LINE}"),
        }
    }
}

impl std::error::Error for BadLine {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::What;

    fn decode(text: &str) -> Result<Event, BadLine> {
        line(text.as_bytes())
    }

    #[test]
    fn keys_in_any_order_with_blanks_read_the_same() {
        let odd =
            decode(r#" {"ptr":"0x10", "size":5 ,"t":9,"op":"malloc","new":[{"a":"\udcff"}]} "#);
        let usual = decode(r#"{"op":"malloc","t":9,"size":5,"ptr":"0x10"}"#);
        assert!(usual.is_ok());
        assert_eq!(odd, usual);
    }

    #[test]
    fn bytes_that_are_not_utf8_come_back_as_they_were() {
        let name = b"\xff\x80 \xc3\xa4 \xf0\x9f\x98\x80 \x1b\"\\";
        let mut out = [0; 256];
        let len = memspy_log::escape(name, &mut out).expect("fits");
        let escaped = std::str::from_utf8(&out[..len]).expect("is UTF-8");
        let event = decode(&format!(r#"{{"op":"mark","t":1,"name":"{escaped}"}}"#));
        assert_eq!(
            event.map(|event| event.what),
            Ok(What::Mark {
                name: Box::from(&name[..]),
                generation: None,
            })
        );
    }

    #[test]
    fn each_bad_line_says_what_is_wrong() {
        let said = |text: &str| decode(text).expect_err("is bad").to_string();
        assert!(said("").starts_with("not an event: "));
        assert_eq!(said(r#"{"t":1}"#), "not an event: it has no \"op\"");
        assert_eq!(said(r#"{"op":"mapp","t":1}"#), "unknown event \"mapp\"");
        assert_eq!(
            said("{\"op\":\"a\\u001b\",\"t\":1}"),
            "unknown event \"a\\x1b\""
        );
        assert_eq!(said(r#"{"op":"free","t":1}"#), "a \"free\" without \"ptr\"");
        assert_eq!(
            said(r#"{"op":"free","ptr":"0x1"}"#),
            "a \"free\" without \"t\""
        );
        assert!(said(r#"{"op":"free","t":18446744073709551616,"ptr":"0x1"}"#).contains("column"));
        assert!(said(r#"{"op":"free","t":1,"ptr":"12"}"#).contains("address"));
        assert!(said(r#"{"op":"free","t":1,"ptr":"0x11112222333344445"}"#).contains("address"));
        assert!(said("[1,2]").starts_with("not an event: "));
        assert_eq!(
            line(b"{\"op\":\"mark\",\"t\":1,\"name\":\"\xff\"}"),
            Err(BadLine::Utf8)
        );
    }
}
