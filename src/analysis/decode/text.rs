//! JSON strings that hold bytes: `\udcXX` is the byte XX, see FORMAT.md, *Lines*.

use serde::de::{Deserialize, Deserializer, Error, Visitor};
use std::fmt;

/// The bytes of a JSON string.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Text(pub Vec<u8>);

impl Text {
    /// The text of a word of memspy's own; what is not UTF-8 is replaced.
    pub(super) fn word(&self) -> Box<str> {
        String::from_utf8_lossy(&self.0).into()
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Text;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Text, E> {
                Ok(Text(fold(bytes)))
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Text, E> {
                self.visit_bytes(text.as_bytes())
            }
        }
        // As str a lone surrogate would be an error; as bytes serde_json hands it over in the
        // three-byte form of WTF-8.
        json.deserialize_bytes(Bytes)
    }
}

/// Turns the three-byte forms of U+DC80 to U+DCFF (ED B2 80 to ED B3 BF) into the bytes they stand
/// for. Unambiguous, because the line is known to be UTF-8, where these bytes can't occur.
fn fold(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(at) = memchr::memchr(0xed, rest) {
        let (before, from) = rest.split_at(at);
        out.extend_from_slice(before);
        rest = match *from {
            [0xed, high @ 0xb2..=0xb3, low @ 0x80..=0xbf, ref after @ ..] => {
                out.push((high & 3) << 6 | (low & 0x3f));
                after
            }
            _ => {
                out.push(0xed);
                &from[1..]
            }
        };
    }
    out.extend_from_slice(rest);
    out
}
