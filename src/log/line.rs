//! Writes one log line into a given slice, without allocation and without a branch for each digit.
//!
//! Numbers are formatted eight digits at a time inside a 64-bit word. Every piece is stored as 16 bytes of which only
//! its length counts, so the slice needs [`Line::SLACK`] bytes of room behind the text.

use crate::errno::errno_name;
use crate::escape::escape;
use crate::number::{eight, hex, upto8};
use crate::op::Op;

/// The opening of a line with its op, without the brace: `"op":"malloc"`, made at compile time by [`tag`].
#[derive(Clone, Copy)]
pub struct Tag {
    pub(crate) bytes: [u8; 32],
    pub(crate) len: usize,
}

/// Makes the opening of an event's lines, up to the value of its time: `"op":"malloc","t":`.
///
/// # Panics
/// At compile time, when the name is longer than 20 bytes.
pub const fn timed_tag(op: Op) -> Tag {
    let mut made = tag(op);
    let time = b",\"t\":";
    let mut i = 0;
    while i < time.len() {
        made.bytes[made.len] = time[i];
        made.len += 1;
        i += 1;
    }
    made
}

/// Makes the opening of an op's lines.
///
/// # Panics
/// At compile time, when the name is longer than 24 bytes.
pub const fn tag(op: Op) -> Tag {
    let name = op.name().as_bytes();
    let open = b"\"op\":\"";
    let mut bytes = [0; 32];
    let mut len = 0;
    while len < open.len() {
        bytes[len] = open[len];
        len += 1;
    }
    let mut i = 0;
    while i < name.len() {
        bytes[len] = name[i];
        len += 1;
        i += 1;
    }
    bytes[len] = b'"';
    len += 1;
    assert!(len <= 32);
    Tag { bytes, len }
}

/// A key with its punctuation, `,"size":`, made at compile time by [`key`].
#[derive(Clone, Copy)]
pub struct Key {
    pub(crate) bytes: [u8; 16],
    pub(crate) len: usize,
}

/// Makes a key.
///
/// # Panics
/// At compile time, when the name is longer than 12 bytes.
pub const fn key(name: &str) -> Key {
    let name = name.as_bytes();
    assert!(name.len() <= 12);
    let mut bytes = [0; 16];
    bytes[0] = b',';
    bytes[1] = b'"';
    let mut i = 0;
    while i < name.len() {
        bytes[i + 2] = name[i];
        i += 1;
    }
    bytes[i + 2] = b'"';
    bytes[i + 3] = b':';
    Key { bytes, len: i + 4 }
}

/// A line under construction.
///
/// What does not fit is left out and remembered: [`Line::finish`] then answers `None`.
pub struct Line<'a> {
    buf: &'a mut [u8],
    len: usize,
    full: bool,
}

impl<'a> Line<'a> {
    /// Room behind the text that a slice must have for the last piece to fit.
    pub const SLACK: usize = 32;

    /// Begins a line at the start of `buf`. The first byte, the `{`, is never touched: storing it is the commit.
    #[inline(always)]
    pub fn new(buf: &'a mut [u8], tag: &Tag) -> Self {
        let mut line = Line {
            buf,
            len: 1,
            full: false,
        };
        line.piece(&tag.bytes, tag.len);
        line
    }

    /// Begins a line that is committed at once (used outside the event buffers).
    pub fn whole(buf: &'a mut [u8], tag: &Tag) -> Self {
        let line = Line::new(buf, tag);
        if let Some(byte) = line.buf.first_mut() {
            *byte = b'{';
        }
        line
    }

    #[inline(always)]
    fn piece<const N: usize>(&mut self, bytes: &[u8; N], len: usize) {
        match self.buf.get_mut(self.len..self.len + N) {
            Some(place) => {
                place.copy_from_slice(bytes);
                self.len += len;
            }
            None => self.full = true,
        }
    }

    /// Appends `,"key":123`.
    #[inline(always)]
    pub fn num(&mut self, key: &Key, value: u64) {
        self.piece(&key.bytes, key.len);
        self.digits(value);
    }

    /// Appends `,"key":-123`.
    #[inline(always)]
    pub fn signed(&mut self, key: &Key, value: i64) {
        self.piece(&key.bytes, key.len);
        if value < 0 {
            self.piece(b"-", 1);
        }
        self.digits(value.unsigned_abs());
    }

    /// Appends `,"key":"0x7f12"`.
    #[inline(always)]
    pub fn addr(&mut self, key: &Key, value: usize) {
        self.piece(&key.bytes, key.len);
        self.piece(b"\"0x", 3);
        let (digits, len) = hex(value as u64);
        self.piece(&digits, len);
        self.piece(b"\"", 1);
    }

    /// Appends `,"key":true`.
    pub fn flag(&mut self, key: &Key, value: bool) {
        self.piece(&key.bytes, key.len);
        if value {
            self.piece(b"true", 4)
        } else {
            self.piece(b"false", 5)
        }
    }

    /// Appends `,"key":"text"` for text that needs no escaping (names of memspy's own).
    #[inline]
    pub fn name(&mut self, key: &Key, text: &str) {
        self.piece(&key.bytes, key.len);
        self.piece(b"\"", 1);
        self.raw(text.as_bytes());
        self.piece(b"\"", 1);
    }

    /// Appends `,"key":"bytes"` for bytes from outside, escaped so that none is lost.
    pub fn text(&mut self, key: &Key, bytes: &[u8]) {
        self.piece(&key.bytes, key.len);
        self.string(bytes);
    }

    /// Appends `,"key":` and nothing else: the caller goes on with [`Line::raw`] and [`Line::string`].
    pub fn open(&mut self, key: &Key) {
        self.piece(&key.bytes, key.len);
    }

    /// Appends a JSON string with its quotes.
    pub fn string(&mut self, bytes: &[u8]) {
        self.piece(b"\"", 1);
        let room = self.buf.len().saturating_sub(Self::SLACK);
        match self.buf.get_mut(self.len..room) {
            Some(place) => match escape(bytes, place) {
                Some(len) => self.len += len,
                None => self.full = true,
            },
            None => self.full = true,
        }
        self.piece(b"\"", 1);
    }

    /// Appends bytes as they are.
    #[inline]
    pub fn raw(&mut self, bytes: &[u8]) {
        match self.buf.get_mut(self.len..self.len + bytes.len()) {
            Some(place) => {
                place.copy_from_slice(bytes);
                self.len += bytes.len();
            }
            None => self.full = true,
        }
    }

    /// Appends `"err":"ENOMEM"`.
    pub fn errno(&mut self, errno: i32) {
        let key = const { &key("err") };
        match errno_name(errno) {
            Some(name) => self.name(key, name),
            None => {
                self.open(key);
                self.raw(b"\"E");
                self.digits(errno.unsigned_abs().into());
                self.raw(b"\"");
            }
        }
    }

    /// Appends decimal digits without a key.
    #[inline(always)]
    pub fn digits(&mut self, value: u64) {
        if value < 100_000_000 {
            let (digits, len) = upto8(value as u32);
            self.piece(&digits, len);
        } else {
            self.many_digits(value);
        }
    }

    #[inline(always)]
    fn many_digits(&mut self, value: u64) {
        let (high, low) = (value / 100_000_000, value % 100_000_000);
        if high < 100_000_000 {
            let (digits, len) = upto8(high as u32);
            self.piece(&digits, len);
        } else {
            let (digits, len) = upto8((high / 100_000_000) as u32);
            self.piece(&digits, len);
            self.piece(&eight((high % 100_000_000) as u32), 8);
        }
        self.piece(&eight(low as u32), 8);
    }

    /// Closes the object and the line. Answers its length with the newline, `None` when it did not fit.
    #[inline(always)]
    pub fn finish(mut self) -> Option<usize> {
        self.piece(b"}\n", 2);
        if self.full { None } else { Some(self.len) }
    }

    /// The length so far, the uncommitted first byte included.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing was written; never true, a line begins with its op.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;
    use std::format;
    use std::string::String;
    use std::vec::Vec;

    fn line(build: impl FnOnce(&mut Line)) -> Value {
        let mut buf = [0; 4096];
        let mut line = Line::whole(&mut buf, const { &tag(Op::Malloc) });
        build(&mut line);
        let len = line.finish().expect("the line fits");
        assert_eq!(buf[len - 1], b'\n');
        serde_json::from_slice(&buf[..len]).expect("a line is valid JSON")
    }

    proptest! {
        #[test]
        fn numbers_read_back_as_they_were(value: u64, small in 0..100_000_000u64, signed: i64) {
            let json = line(|line| {
                line.num(&key("size"), value);
                line.num(&key("count"), small);
                line.signed(&key("delta"), signed);
            });
            prop_assert_eq!(json["size"].as_u64(), Some(value));
            prop_assert_eq!(json["count"].as_u64(), Some(small));
            prop_assert_eq!(json["delta"].as_i64(), Some(signed));
        }

        #[test]
        fn addresses_are_hexadecimal_as_format_prints_them(value: usize, shift in 0..64u32) {
            let value = value >> shift;
            let json = line(|line| line.addr(&key("ptr"), value));
            prop_assert_eq!(json["ptr"].as_str().map(String::from), Some(format!("{value:#x}")));
        }

        #[test]
        fn text_without_control_bytes_reads_back_as_it_was(text: String) {
            let json = line(|line| line.text(&key("path"), text.as_bytes()));
            prop_assert_eq!(json["path"].as_str(), Some(text.as_str()));
        }

        #[test]
        fn a_line_that_does_not_fit_is_refused_and_writes_nothing_beyond(room in 0..200usize) {
            let mut buf = [7u8; 256];
            let (inside, outside) = buf.split_at_mut(room);
            let mut line = Line::whole(inside, const { &tag(Op::Malloc) });
            line.num(&key("size"), u64::MAX);
            line.text(&key("path"), &[b'"'; 30]);
            let needed = 14 + 28 + 8 + 62 + 2;
            match line.finish() {
                Some(len) => prop_assert_eq!(len, needed),
                None => prop_assert!(room < needed + Line::SLACK),
            }
            prop_assert!(outside.iter().all(|byte| *byte == 7));
        }
    }

    #[test]
    fn numbers_at_the_edges_of_their_digit_groups_are_exact() {
        let mut edges = Vec::from([0, u64::MAX]);
        for power in 0..20 {
            let ten = 10u64.pow(power);
            edges.extend([ten - 1, ten, ten + 1]);
        }
        for value in edges {
            let json = line(|line| line.num(&key("size"), value));
            assert_eq!(json["size"].as_u64(), Some(value));
        }
    }

    #[test]
    fn the_first_byte_is_left_to_the_committer() {
        let mut buf = [0; 128];
        let line = Line::new(&mut buf, const { &tag(Op::Free) });
        line.finish();
        assert_eq!(buf[0], 0);
        assert_eq!(&buf[1..8], b"\"op\":\"f");
    }
}
