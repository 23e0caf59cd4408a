//! Writes the lines of the heap calls: nearly all lines of a log.
//!
//! A usual line is measured before it is written, so that its room can be taken to the byte: nothing has to be given back,
//! and no piece is checked for room. Each piece is a store of a register's worth of bytes at a place that a mask keeps
//! inside the text; the pieces come in such an order that what is too long is covered by the next, and nothing is stored
//! behind the line's end. What is unusual (a failed call, a number of more than eight digits) is a [`Line`] like any other.

use crate::line::{Key, Line, Tag, key};
use crate::number::{eight, four, hex16, upto3, upto8};

/// How far behind a usual line's start a piece can begin; a power of two.
const REACH: usize = 256;
/// The longest piece.
const PIECE: usize = 32;

/// What a usual line is written to: its own bytes at the start, behind them bytes that stay as they are.
pub type HeapText = [u8; REACH + PIECE];

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

/// A time: how many digits it has but for the last four, and the value of those.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time {
    /// From 1 to 16.
    pub len: usize,
    /// Below [`LAST_FOUR`].
    pub low: u32,
}

/// Formats the two numbers that every line has. [`Portable`] needs nothing; who writes many lines may know shorter ways.
pub trait Digits {
    /// Measures a time. `None` if it has less than five digits, or if there is no way at the moment.
    fn time(&self, t: u64) -> Option<Time>;

    /// The digits of a time that was measured just now, but for the last four: eight and eight, then bytes that mean
    /// nothing.
    fn high(&self, t: u64) -> [u64; 2];

    /// Sixteen hexadecimal digits, the highest first, each counted from the character in its place of `zero`: that is
    /// `'0'`, but for digits that are known to be 0, of which it makes something else.
    fn hex(&self, value: u64, zero: [u8; 16]) -> [u8; 16];
}

/// Digits by arithmetic alone.
#[derive(Clone, Copy, Debug)]
pub struct Portable;

/// What the last four digits of a time count up to.
pub const LAST_FOUR: u64 = 10_000;
/// What eight digits count up to.
const EIGHT: u64 = 100_000_000;

impl Digits for Portable {
    fn time(&self, t: u64) -> Option<Time> {
        let len = (t / LAST_FOUR).checked_ilog10()? as usize + 1;
        let low = (t % LAST_FOUR) as u32;
        Some(Time { len, low })
    }

    fn high(&self, t: u64) -> [u64; 2] {
        let high = t / LAST_FOUR;
        let (first, last) = (high / EIGHT, (high % EIGHT) as u32);
        if first == 0 {
            let (digits, _) = upto8(last);
            return [u64::from_le_bytes(digits), 0];
        }
        let (digits, len) = upto8(first as u32);
        let [first, last] =
            [digits, eight(last)].map(|digits| u128::from(u64::from_le_bytes(digits)));
        let word = first | last << (8 * len);
        [word as u64, (word >> 64) as u64]
    }

    #[inline(always)]
    fn hex(&self, value: u64, zero: [u8; 16]) -> [u8; 16] {
        hex16(value, zero)
    }
}

/// A number of at most eight digits.
#[derive(Clone, Copy)]
struct Short {
    digits: [u8; 8],
    len: usize,
}

impl Short {
    #[inline(always)]
    fn of(value: u64) -> Option<Short> {
        let (digits, len) = if value < 1000 {
            let (digits, len) = upto3(value as u32);
            (u64::from(u32::from_le_bytes(digits)).to_le_bytes(), len)
        } else if value < EIGHT {
            upto8(value as u32)
        } else {
            return None;
        };
        Some(Short { digits, len })
    }
}

/// An address and how many digits it has, at most twelve.
#[derive(Clone, Copy)]
struct Address {
    value: usize,
    len: usize,
}

impl Address {
    #[inline(always)]
    fn of(value: usize) -> Option<Address> {
        let len = (value | 1).ilog2() as usize / 4 + 1;
        (len <= 12).then_some(Address { value, len })
    }
}

/// The number of a stack, of at most six digits.
#[derive(Clone, Copy)]
struct StackNumber(Option<Short>);

impl StackNumber {
    #[inline(always)]
    fn of(stack: u32, ptr: Address) -> Option<StackNumber> {
        if stack == 0 {
            return Some(StackNumber(None));
        }
        let number = Short::of(stack.into())?;
        (number.len <= 6 && ptr.len >= 3).then_some(StackNumber(Some(number)))
    }

    /// Bytes of the line's end: what stands behind the address.
    #[inline(always)]
    fn len(self) -> usize {
        match self.0 {
            None => CLOSE.len(),
            Some(number) => STACK_KEY.len() + STACK_COLON.len() + number.len + CLOSE.len() - 1,
        }
    }
}

const PTR_KEY: &[u8; 8] = b",\"ptr\":\"";
const PREFIX: &[u8; 2] = b"0x";
const SIZE_KEY: &[u8; 8] = b",\"size\":";
const STACK_KEY: &[u8; 8] = b"\",\"stack";
const STACK_COLON: &[u8; 2] = b"\":";
const CLOSE: &[u8; 3] = b"\"}\n";

/// A usual line, measured.
pub struct Measured<C> {
    call: C,
    time: Time,
    len: usize,
}

impl<C> Measured<C> {
    /// The line's bytes with its newline.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the line has no bytes; never true.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// A call with a line of its own.
pub trait HeapCall: Copy {
    /// What measuring finds out about the numbers.
    type Numbers: Copy;

    /// The line's opening.
    fn opening(self) -> &'static Tag;

    /// Smallest and largest time of the call.
    fn times(self) -> (u64, u64);

    /// Measures a usual line. `None`: it is unusual, see [`HeapCall::put`].
    fn measure(self, digits: &impl Digits) -> Option<Measured<Self::Numbers>>;

    /// Writes a usual line. Its first byte, the `{`, is not touched: storing it is the commit; nor is what lies behind its
    /// end.
    fn write(self, line: &Measured<Self::Numbers>, text: &mut HeapText, digits: &impl Digits);

    /// Appends to a line of any kind what stands behind the opening.
    fn put(self, line: &mut Line);
}

/// What there is before the size of a call that gives out a block.
#[derive(Clone, Copy)]
pub struct AcquireNumbers {
    moved: Option<(Short, Address)>,
    extra: Option<(&'static Key, Short)>,
    size: Short,
    ptr: Address,
    stack: StackNumber,
}

impl HeapCall for Acquire {
    type Numbers = AcquireNumbers;

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
    fn measure(self, digits: &impl Digits) -> Option<Measured<AcquireNumbers>> {
        let Outcome::Block(ptr) = self.outcome else {
            return None;
        };
        let ptr = Address::of(ptr)?;
        let call = AcquireNumbers {
            moved: match self.moved {
                Some((dt, old)) => Some((Short::of(dt)?, Address::of(old)?)),
                None => None,
            },
            extra: match self.extra {
                Some((key, value)) => Some((key, Short::of(value)?)),
                None => None,
            },
            size: Short::of(self.size)?,
            ptr,
            stack: StackNumber::of(self.stack, ptr)?,
        };
        let mut len = SIZE_KEY.len() + call.size.len;
        if let Some((dt, old)) = call.moved {
            len += DT_KEY.len + dt.len + OLD_KEY.len() + old.len + 1;
        }
        if let Some((key, value)) = call.extra {
            len += key.len + value.len;
        }
        Some(measured(
            call,
            self.opening,
            digits.time(self.t)?,
            len,
            (ptr, call.stack),
        ))
    }

    #[inline(always)]
    fn write(self, line: &Measured<AcquireNumbers>, text: &mut HeapText, digits: &impl Digits) {
        let call = &line.call;
        let time_at = begin(text, self.opening, (self.t, &line.time), digits);
        let ptr_at = line.len - tail_len(call.ptr, call.stack);
        close(text, ptr_at, digits, (call.ptr, call.stack));
        let mut at = time_at + 4;
        if let Some((dt, old)) = call.moved {
            at = number(text, at, DT_KEY, dt);
            put(text, at, OLD_KEY);
            at += OLD_KEY.len();
            put(
                text,
                at,
                &digits.hex((old.value as u64) << (4 * (16 - old.len)), [b'0'; 16]),
            );
            put(text, at + old.len, b"\"");
            at += old.len + 1;
        }
        if let Some((key, value)) = call.extra {
            at = number(text, at, key, value);
        }
        put(text, at, SIZE_KEY);
        put(text, at + SIZE_KEY.len(), &call.size.digits);
        put(text, ptr_at, PTR_KEY);
        put(text, ptr_at + PTR_KEY.len(), PREFIX);
        put(text, time_at, &four(line.time.low));
    }

    fn put(self, line: &mut Line) {
        line.digits(self.t);
        if let Some((dt, old)) = self.moved {
            line.num(DT_KEY, dt);
            line.addr(const { &key("old") }, old);
        }
        if let Some((key, value)) = self.extra {
            line.num(key, value);
        }
        line.num(const { &key("size") }, self.size);
        match self.outcome {
            Outcome::Block(ptr) => line.addr(const { &key("ptr") }, ptr),
            Outcome::Nothing => {}
            Outcome::Failed(errno) => line.errno(errno),
        }
        put_stack(line, self.stack);
    }
}

const DT_KEY: &Key = &key("dt");
const OLD_KEY: &[u8; 10] = b",\"old\":\"0x";

/// What there is of a call that gives a block back.
#[derive(Clone, Copy)]
pub struct ReleaseNumbers {
    ptr: Address,
    stack: StackNumber,
}

impl HeapCall for Release {
    type Numbers = ReleaseNumbers;

    #[inline(always)]
    fn opening(self) -> &'static Tag {
        self.opening
    }

    #[inline(always)]
    fn times(self) -> (u64, u64) {
        (self.t, self.t)
    }

    #[inline(always)]
    fn measure(self, digits: &impl Digits) -> Option<Measured<ReleaseNumbers>> {
        if self.align.is_some() || self.size.is_some() {
            return None;
        }
        let ptr = Address::of(self.ptr)?;
        let stack = StackNumber::of(self.stack, ptr)?;
        let call = ReleaseNumbers { ptr, stack };
        Some(measured(
            call,
            self.opening,
            digits.time(self.t)?,
            0,
            (ptr, stack),
        ))
    }

    #[inline(always)]
    fn write(self, line: &Measured<ReleaseNumbers>, text: &mut HeapText, digits: &impl Digits) {
        let ReleaseNumbers { ptr, stack } = line.call;
        let time_at = begin(text, self.opening, (self.t, &line.time), digits);
        let ptr_at = time_at + 4;
        close(text, ptr_at, digits, (ptr, stack));
        put(text, ptr_at, PTR_KEY);
        put(text, ptr_at + PTR_KEY.len(), PREFIX);
        put(text, time_at, &four(line.time.low));
    }

    fn put(self, line: &mut Line) {
        line.digits(self.t);
        line.addr(const { &key("ptr") }, self.ptr);
        if let Some(align) = self.align {
            line.num(const { &key("align") }, align);
        }
        if let Some(size) = self.size {
            line.num(const { &key("size") }, size);
        }
        put_stack(line, self.stack);
    }
}

fn put_stack(line: &mut Line, stack: u32) {
    if stack != 0 {
        line.num(const { &key("stack") }, u64::from(stack));
    }
}

/// A line with `len` bytes between its time and its pointer.
#[inline(always)]
fn measured<C>(
    call: C,
    opening: &Tag,
    time: Time,
    len: usize,
    end: (Address, StackNumber),
) -> Measured<C> {
    Measured {
        call,
        time,
        len: 1 + opening.len + time.len + 4 + len + tail_len(end.0, end.1),
    }
}

/// Bytes from the pointer's key to the line's end.
#[inline(always)]
fn tail_len(ptr: Address, stack: StackNumber) -> usize {
    PTR_KEY.len() + PREFIX.len() + ptr.len + stack.len()
}

/// Writes the opening and the time's first digits; answers where the last four belong.
///
/// They are written last: until the clock has answered, the processor makes the rest of the line, and while it makes these
/// digits it is on its way to the next event's clock.
#[inline(always)]
fn begin(
    text: &mut HeapText,
    opening: &Tag,
    (t, time): (u64, &Time),
    digits: &impl Digits,
) -> usize {
    put(text, 1, &opening.bytes);
    let [first, second] = digits.high(t).map(u64::to_le_bytes);
    put(text, 1 + opening.len, &first);
    put(text, 1 + opening.len + 8, &second);
    1 + opening.len + time.len
}

/// Writes the pointer's digits and what stands behind them. What stands before them, from the last four digits of the time
/// on, must be written later: the digits are stored with zeros before them. `ptr_at`: where the pointer's key belongs.
#[inline(always)]
fn close(text: &mut HeapText, ptr_at: usize, digits: &impl Digits, end: (Address, StackNumber)) {
    let (ptr, StackNumber(stack)) = end;
    let behind = ptr_at + PTR_KEY.len() + PREFIX.len() + ptr.len;
    match stack {
        None => {
            // One digit that is 0, the address's twelve, and three that are 0.
            const ZERO: [u8; 16] = *b"0000000000000\"}\n";
            put(
                text,
                behind - 13,
                &digits.hex((ptr.value as u64) << 12, ZERO),
            );
        }
        Some(number) => {
            put(text, behind - 16, &digits.hex(ptr.value as u64, [b'0'; 16]));
            let value = u64::from_le_bytes(number.digits) & ((1 << (8 * number.len)) - 1);
            let word = value | u64::from(u16::from_le_bytes(*b"}\n")) << (8 * number.len);
            let key_end = behind + STACK_KEY.len() + STACK_COLON.len();
            let aligned = word << (8 * (6 - number.len));
            put(text, key_end + number.len + 2 - 8, &aligned.to_le_bytes());
            put(text, behind, STACK_KEY);
            put(text, behind + STACK_KEY.len(), STACK_COLON);
        }
    }
}

/// Writes a key and a number; answers where they end.
#[inline(always)]
fn number(text: &mut HeapText, at: usize, key: &Key, value: Short) -> usize {
    put(text, at, &key.bytes);
    put(text, at + key.len, &value.digits);
    at + key.len + value.len
}

/// Stores a piece.
#[inline(always)]
fn put<const N: usize>(text: &mut HeapText, at: usize, bytes: &[u8; N]) {
    const { assert!(N <= PIECE) };
    let from = at % REACH;
    if let Some(place) = text.get_mut(from..from + N) {
        place.copy_from_slice(bytes);
    }
}

/// The longest that a usual line can become.
const LONGEST: usize = "{\"op\":\"aligned_alloc_sized\",\"t\":".len()
    + ",\"dt\":,\"old\":\"0x\",\"count\":,\"size\":,\"ptr\":\"0x\",\"stack\":}\n".len()
    + 20
    + 3 * 8
    + 2 * 12
    + 6;
const _: () = assert!(LONGEST <= REACH && REACH.is_power_of_two());

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
    const FREE: &Tag = &timed_tag(Op::Free);
    const FREE_ALIGNED_SIZED: &Tag = &timed_tag(Op::FreeAlignedSized);

    /// The line as any line; as a usual one, if it is one, it must be the same.
    fn written(call: impl HeapCall) -> String {
        let mut room = [0; 512];
        let mut line = Line::whole(&mut room, call.opening());
        call.put(&mut line);
        let len = line.finish().expect("the line fits");
        let line = String::from_utf8(room[..len].into()).expect("a line is UTF-8");
        if let Some(usual) = usual(call) {
            assert_eq!(usual, line);
        }
        line
    }

    fn usual(call: impl HeapCall) -> Option<String> {
        let measured = call.measure(&Portable)?;
        let mut text = [7; _];
        call.write(&measured, &mut text, &Portable);
        assert_eq!(text[0], 7, "the first byte is left to the committer");
        text[0] = b'{';
        let (line, behind) = text.split_at(measured.len());
        assert!(
            behind.iter().all(|byte| *byte == 7),
            "what lies behind is another's"
        );
        Some(String::from_utf8(line.into()).expect("a line is UTF-8"))
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

    proptest! {
        /// And all are as any line would be, see `written`.
        #[test]
        fn lines_of_common_numbers_are_usual(
            t in LAST_FOUR..u64::MAX, dt in 0..EIGHT, size in 0..EIGHT, count in 0..EIGHT,
            old in 0..1usize << 48, ptr in 0x100..1usize << 48, shift in 0..40u32, stack in 0..1_000_000u32,
            moves: bool, counted: bool,
        ) {
            let call = Acquire {
                opening: REALLOCARRAY,
                t: (t >> (shift / 2)).max(LAST_FOUR),
                moved: moves.then_some((dt >> (shift / 2), old >> shift)),
                extra: counted.then_some((const { &key("count") }, count >> (shift / 2))),
                size: size >> (shift / 2),
                outcome: Outcome::Block((ptr >> shift).max(0x100)),
                stack: stack >> (shift / 2),
            };
            prop_assert!(usual(call).is_some());
            written(call);
            let call = Release {
                opening: FREE,
                t: (t >> (shift / 2)).max(LAST_FOUR),
                ptr: (ptr >> shift).max(0x100),
                align: None,
                size: None,
                stack: stack >> (shift / 2),
            };
            prop_assert!(usual(call).is_some());
            written(call);
        }
    }

    #[test]
    fn a_release_of_nothing_is_usual() {
        for t in [LAST_FOUR, u64::MAX] {
            let call = Release {
                opening: FREE,
                t,
                ptr: 0,
                align: None,
                size: None,
                stack: 0,
            };
            assert!(usual(call).is_some());
            assert_eq!(read(&written(call))["ptr"], "0x0");
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
        assert!(line.len() <= crate::MAX_EVENT && line.ends_with("}\n"));
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
        let edges = [3, 4, 5, 11, 12, 13, 19].map(|power| 10u64.pow(power));
        for edge in edges {
            for t in [edge - 1, edge, edge + 1] {
                let line = written(Release {
                    opening: FREE,
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
