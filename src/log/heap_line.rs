//! Writes the lines of the heap calls: nearly all lines of a log, and bounded in length by what they consist of.
//!
//! So no piece is checked for room. Each is stored whole, as a register's worth of bytes of which only its length
//! counts, at a place that a mask keeps inside the text; the next piece covers the rest.

use crate::line::{Key, Tag};
use crate::number::{eight, hex, upto3, upto8};

/// The longest line of a heap call in bytes, with its newline; a power of two.
pub const MAX_HEAP_LINE: usize = 256;
/// Room behind the text for the last piece.
const SLACK: usize = 32;

/// Where a line of a heap call is written: the line at its start, behind it bytes that mean nothing.
pub type HeapText = [u8; MAX_HEAP_LINE + SLACK];

/// A key whose value is an address, up to its first digit: `,"ptr":"0x`, made at compile time by [`address_key`].
#[derive(Clone, Copy)]
pub(crate) struct AddressKey {
    bytes: [u8; 16],
    len: usize,
}

/// Makes the key of an address.
///
/// # Panics
/// At compile time, when the name is longer than 9 bytes.
pub(crate) const fn address_key(name: &str) -> AddressKey {
    let Key { mut bytes, len } = crate::line::key(name);
    assert!(len + 3 <= 16);
    bytes[len] = b'"';
    bytes[len + 1] = b'0';
    bytes[len + 2] = b'x';
    AddressKey {
        bytes,
        len: len + 3,
    }
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With a block at this address.
    Block(usize),
    /// With NULL, as it should (a realloc to nothing).
    Nothing,
    /// With this errno.
    Failed(i32),
}

/// A call that gives out a block.
#[derive(Clone, Copy)]
pub struct Acquire {
    /// The line's opening.
    pub opening: &'static Tag,
    /// Nanoseconds since the image started, after the call; before it if `moved` is there.
    pub t: u64,
    /// Of a call that gives a block back too: how long it took, in nanoseconds, and the old block.
    pub moved: Option<(u64, usize)>,
    /// `count` or `align`, where the function has one.
    pub extra: Option<(&'static Key, u64)>,
    /// Bytes asked for; of one element with `count`.
    pub size: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// Number of the call stack; 0: none.
    pub stack: u32,
}

/// A call that gives a block back.
#[derive(Clone, Copy)]
pub struct Release {
    /// The line's opening.
    pub opening: &'static Tag,
    /// Nanoseconds since the image started, before the call.
    pub t: u64,
    /// The block.
    pub ptr: usize,
    /// Its alignment and size, where the function is told.
    pub align: Option<u64>,
    /// See `align`.
    pub size: Option<u64>,
    /// Number of the call stack; 0: none.
    pub stack: u32,
}

/// Formats the two numbers that every line has. [`Portable`] needs nothing; who writes many lines may know shorter ways.
pub trait Digits {
    /// The digits of `time` but for the last eight (a word of which the upper byte tells how many, 0 if there are none),
    /// and the value of those eight. Two zeros of a time that has more than fifteen digits.
    fn split(&self, time: u64) -> (u64, u32);

    /// The hexadecimal digits of an address without leading zeros, and how many there are.
    fn hex(&self, address: usize) -> ([u8; 16], usize);
}

/// Digits by arithmetic alone.
#[derive(Clone, Copy, Debug)]
pub struct Portable;

impl Digits for Portable {
    #[inline(always)]
    fn split(&self, time: u64) -> (u64, u32) {
        let (high, low) = (time / LAST_EIGHT, (time % LAST_EIGHT) as u32);
        if high == 0 {
            return (0, low);
        }
        if high >= 10_000_000 {
            return (0, 0);
        }
        let (digits, len) = upto8(high as u32);
        (u64::from_le_bytes(digits) | (len as u64) << 56, low)
    }

    #[inline(always)]
    fn hex(&self, address: usize) -> ([u8; 16], usize) {
        hex(address as u64)
    }
}

/// What the last eight digits count up to.
const LAST_EIGHT: u64 = 100_000_000;

/// A call with a line of its own.
pub trait HeapCall: Copy {
    /// The line's opening.
    fn opening(self) -> &'static Tag;

    /// Smallest and largest time of the call.
    fn times(self) -> (u64, u64);

    /// Writes the line and answers its length with the newline. The first byte, the `{`, is not touched: storing it is
    /// the commit.
    fn write(self, text: &mut HeapText, digits: &impl Digits) -> usize;
}

impl HeapCall for Acquire {
    #[inline(always)]
    fn opening(self) -> &'static Tag {
        self.opening
    }

    #[inline(always)]
    fn times(self) -> (u64, u64) {
        let (dt, _) = self.moved.unwrap_or_default();
        (self.t, self.t + dt)
    }

    #[inline(always)]
    fn write(self, text: &mut HeapText, digits: &impl Digits) -> usize {
        let (mut line, time) = HeapLine::begin(text, digits, self.opening, self.t);
        if let Some((dt, old)) = self.moved {
            line.num(const { &crate::line::key("dt") }, dt);
            line.addr(const { &address_key("old") }, old);
        }
        if let Some((key, value)) = self.extra {
            line.num(key, value);
        }
        line.num(const { &crate::line::key("size") }, self.size);
        match self.outcome {
            Outcome::Block(ptr) => line.addr(const { &address_key("ptr") }, ptr),
            Outcome::Nothing => {}
            Outcome::Failed(errno) => line.len = error(line.text, line.len, errno),
        }
        line.finish(self.stack, time)
    }
}

impl HeapCall for Release {
    #[inline(always)]
    fn opening(self) -> &'static Tag {
        self.opening
    }

    #[inline(always)]
    fn times(self) -> (u64, u64) {
        (self.t, self.t)
    }

    #[inline(always)]
    fn write(self, text: &mut HeapText, digits: &impl Digits) -> usize {
        let (mut line, time) = HeapLine::begin(text, digits, self.opening, self.t);
        line.addr(const { &address_key("ptr") }, self.ptr);
        if let Some(align) = self.align {
            line.num(const { &crate::line::key("align") }, align);
        }
        if let Some(size) = self.size {
            line.num(const { &crate::line::key("size") }, size);
        }
        line.finish(self.stack, time)
    }
}

/// The last eight digits of a line's time, and where they belong.
///
/// They are written last: until the clock has answered, the processor makes the rest of the line, and while it makes these
/// digits it is on its way to the next event's clock.
struct LastDigits {
    at: usize,
    value: u32,
}

/// A line under construction. What is rare takes and gives the length, so that the line itself can lie in registers.
struct HeapLine<'a, D> {
    text: &'a mut HeapText,
    len: usize,
    digits: &'a D,
}

impl<'a, D: Digits> HeapLine<'a, D> {
    #[inline(always)]
    fn begin(text: &'a mut HeapText, digits: &'a D, opening: &Tag, t: u64) -> (Self, LastDigits) {
        let mut line = HeapLine {
            text,
            len: 1,
            digits,
        };
        line.piece(&opening.bytes, opening.len);
        let (high, value) = digits.split(t);
        if high == 0 && value < LAST_EIGHT as u32 / 10 {
            // The first hundredth of a second, or after eleven days.
            line.len = any_digits(line.text, line.len, t);
            return (line, LastDigits { at: NOWHERE, value });
        }
        line.piece(&high.to_le_bytes(), (high >> 56) as usize);
        let at = line.len;
        line.len += 8;
        (line, LastDigits { at, value })
    }

    #[inline(always)]
    fn piece<const N: usize>(&mut self, bytes: &[u8; N], len: usize) {
        self.len = piece(self.text, self.len, bytes, len);
    }

    #[inline(always)]
    fn num(&mut self, key: &Key, value: u64) {
        self.piece(&key.bytes, key.len);
        self.len = digits(self.text, self.len, value);
    }

    #[inline(always)]
    fn addr(&mut self, key: &AddressKey, value: usize) {
        self.piece(&key.bytes, key.len);
        let (digits, len) = self.digits.hex(value);
        self.piece(&digits, len);
        self.piece(b"\"", 1);
    }

    /// Appends the stack's number, if there is one, closes the line and answers its length.
    #[inline(always)]
    fn finish(mut self, stack: u32, time: LastDigits) -> usize {
        if stack != 0 {
            self.num(const { &crate::line::key("stack") }, u64::from(stack));
        }
        self.piece(b"}\n", 2);
        if let Some(place) = self.text.get_mut(time.at..time.at + 8) {
            place.copy_from_slice(&eight(time.value));
        }
        self.len
    }
}

/// A place behind every line: its bytes mean nothing.
const NOWHERE: usize = MAX_HEAP_LINE;

/// Stores `bytes`, of which `len` count, at `at`; answers where they end.
#[inline(always)]
fn piece<const N: usize>(text: &mut HeapText, at: usize, bytes: &[u8; N], len: usize) -> usize {
    const { assert!(N <= SLACK) };
    let from = at & (MAX_HEAP_LINE - 1);
    if let Some(place) = text.get_mut(from..from + N) {
        place.copy_from_slice(bytes);
    }
    at + len
}

#[inline(always)]
fn digits(text: &mut HeapText, at: usize, value: u64) -> usize {
    if value < 1000 {
        let (digits, len) = upto3(value as u32);
        piece(text, at, &digits, len)
    } else if value < LAST_EIGHT {
        let (digits, len) = upto8(value as u32);
        piece(text, at, &digits, len)
    } else {
        any_digits(text, at, value)
    }
}

/// Digits of a number of any length.
#[cold]
#[inline(never)]
fn any_digits(text: &mut HeapText, at: usize, value: u64) -> usize {
    let (high, low) = (value / LAST_EIGHT, (value % LAST_EIGHT) as u32);
    if high == 0 {
        let (digits, len) = upto8(low);
        return piece(text, at, &digits, len);
    }
    let at = any_digits(text, at, high);
    piece(text, at, &eight(low), 8)
}

#[cold]
#[inline(never)]
fn error(text: &mut HeapText, at: usize, errno: i32) -> usize {
    let at = piece(text, at, b",\"err\":\"", 8);
    let at = match crate::errno_name(errno) {
        Some(name) => {
            let mut bytes = [0; 16];
            for (place, byte) in bytes.iter_mut().zip(name.bytes()) {
                *place = byte;
            }
            piece(text, at, &bytes, name.len().min(16))
        }
        None => {
            let at = piece(text, at, b"E", 1);
            digits(text, at, errno.unsigned_abs().into())
        }
    };
    piece(text, at, b"\"", 1)
}

/// The longest that a line can become: every key there, every number of full length.
const LONGEST: usize = "{\"op\":\"aligned_alloc_sized\",\"t\":".len()
    + ",\"dt\":,\"old\":\"0x\",\"count\":,\"size\":,\"err\":\"ENOTRECOVERABLE\",\"stack\":}\n"
        .len()
    + 4 * 20
    + 16
    + 10;
const _: () = assert!(LONGEST <= MAX_HEAP_LINE && MAX_HEAP_LINE.is_power_of_two());

#[cfg(test)]
mod tests {
    use super::*;
    use crate::line::{key, timed_tag};
    use crate::op::Op;
    use proptest::prelude::*;
    use serde_json::{Value, json};
    use std::format;
    use std::string::String;

    const REALLOCARRAY: &Tag = &timed_tag(Op::Reallocarray);
    const ENOMEM: i32 = 12;
    const FREE_ALIGNED_SIZED: &Tag = &timed_tag(Op::FreeAlignedSized);

    fn written(call: impl HeapCall) -> String {
        let mut text = [7; _];
        let len = call.write(&mut text, &Portable);
        assert_eq!(text[0], 7, "the first byte is left to the committer");
        text[0] = b'{';
        String::from_utf8(text[..len].into()).expect("a line is UTF-8")
    }

    fn read(line: &str) -> Value {
        serde_json::from_str(line).expect("a line is valid JSON")
    }

    /// Numbers of every length.
    fn number() -> impl Strategy<Value = u64> {
        (any::<u64>(), 0..64u32).prop_map(|(value, shift)| value >> shift)
    }

    proptest! {
        #[test]
        fn an_acquiring_call_reads_back_as_it_was(
            numbers in prop::array::uniform6(number()),
            moves: bool, counted: bool, failed in 0..3, stack: u32,
        ) {
            let [t, dt, old, count, size, ptr] = numbers;
            let outcome = match failed {
                0 => Outcome::Block(ptr as usize),
                1 => Outcome::Nothing,
                _ => Outcome::Failed(ENOMEM),
            };
            let line = written(Acquire {
                opening: REALLOCARRAY,
                t,
                moved: moves.then_some((dt, old as usize)),
                extra: counted.then_some((const { &key("count") }, count)),
                size,
                outcome,
                stack,
            });
            let mut expected = json!({"op": "reallocarray", "t": t, "size": size});
            if moves {
                expected["dt"] = dt.into();
                expected["old"] = format!("{old:#x}").into();
            }
            if counted {
                expected["count"] = count.into();
            }
            match outcome {
                Outcome::Block(_) => expected["ptr"] = format!("{ptr:#x}").into(),
                Outcome::Nothing => {}
                Outcome::Failed(_) => expected["err"] = "ENOMEM".into(),
            }
            if stack != 0 {
                expected["stack"] = stack.into();
            }
            prop_assert_eq!(read(&line), expected);
        }

        #[test]
        fn a_releasing_call_reads_back_as_it_was(
            numbers in prop::array::uniform4(number()),
            told: bool, stack: u32,
        ) {
            let [t, ptr, align, size] = numbers;
            let line = written(Release {
                opening: FREE_ALIGNED_SIZED,
                t,
                ptr: ptr as usize,
                align: told.then_some(align),
                size: told.then_some(size),
                stack,
            });
            let mut expected =
                json!({"op": "free_aligned_sized", "t": t, "ptr": format!("{ptr:#x}")});
            if told {
                expected["align"] = align.into();
                expected["size"] = size.into();
            }
            if stack != 0 {
                expected["stack"] = stack.into();
            }
            prop_assert_eq!(read(&line), expected);
        }
    }

    #[test]
    fn the_longest_line_fits() {
        let line = written(Acquire {
            opening: REALLOCARRAY,
            t: u64::MAX,
            moved: Some((u64::MAX, usize::MAX)),
            extra: Some((const { &key("count") }, u64::MAX)),
            size: u64::MAX,
            outcome: Outcome::Failed(i32::MIN),
            stack: u32::MAX,
        });
        assert_eq!(read(&line)["err"], "E2147483648");
        assert!(line.len() <= MAX_HEAP_LINE && line.ends_with("}\n"));
    }

    #[test]
    fn keys_stand_in_the_order_of_the_specification() {
        let line = written(Acquire {
            opening: REALLOCARRAY,
            t: 100_000_000,
            moved: Some((7, 0)),
            extra: Some((const { &key("count") }, 10_000)),
            size: 99,
            outcome: Outcome::Block(0xabc),
            stack: 3,
        });
        let expected = r#"{"op":"reallocarray","t":100000000,"dt":7,"old":"0x0","count":10000,"size":99,"ptr":"0xabc","stack":3}"#;
        assert_eq!(line.trim_end(), expected);
        let line = written(Release {
            opening: FREE_ALIGNED_SIZED,
            t: 99_999_999,
            ptr: 0x1000,
            align: Some(64),
            size: Some(9_999),
            stack: 12345,
        });
        let expected = r#"{"op":"free_aligned_sized","t":99999999,"ptr":"0x1000","align":64,"size":9999,"stack":12345}"#;
        assert_eq!(line.trim_end(), expected);
    }

    #[test]
    fn times_are_exact_where_their_digits_are_split() {
        let edges = [7, 8, 9, 15, 16, 19].map(|power| 10u64.pow(power));
        for edge in edges {
            for t in [edge - 1, edge, edge + 1] {
                let line = written(Release {
                    opening: FREE_ALIGNED_SIZED,
                    t,
                    ptr: 0,
                    align: None,
                    size: None,
                    stack: 0,
                });
                assert_eq!(read(&line)["t"].as_u64(), Some(t));
            }
        }
    }
}
