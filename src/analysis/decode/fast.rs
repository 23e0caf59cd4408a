//! The lines of the heap calls and of stacks, in memspy's own key order and spacing.
//!
//! Gives up (`None`) at the first byte that differs; then the general decoder decides.

use super::digits::{decimal, hexadecimal};
use crate::event::{Alloc, Event, Free, Realloc, StackNode, What};
use memspy_log::Op;

/// Reads the first line of `text`: its event and its length with blanks and newline.
///
/// Reads words of eight bytes, so that it gives up at a line that ends within 16 bytes of the end
/// of `text`.
#[inline]
pub(super) fn first_line(text: &[u8]) -> Option<(Event, usize)> {
    let mut line = Rest(text);
    line.literal(b"{\"op\":\"")?;
    // The first letters tell nearly all ops apart; the literal that follows proves the guess.
    let event = match line.0.first_chunk()? {
        b"mal" => line
            .literal(b"malloc\"")
            .and_then(|()| line.alloc(Op::Malloc, Shape::Plain)),
        b"fre" => line.literal(b"free\"").and_then(|()| line.free()),
        b"rea" => line.literal(b"realloc\"").and_then(|()| line.realloc()),
        b"cal" => line
            .literal(b"calloc\"")
            .and_then(|()| line.alloc(Op::Calloc, Shape::Counted)),
        b"sta" => line.literal(b"stack\"").and_then(|()| line.stack()),
        b"pos" => line
            .literal(b"posix_memalign\"")
            .and_then(|()| line.alloc(Op::PosixMemalign, Shape::Aligned)),
        b"ali" => line
            .literal(b"aligned_alloc\"")
            .and_then(|()| line.alloc(Op::AlignedAlloc, Shape::Aligned)),
        _ => None,
    }?;
    line.literal(b"}")?;
    while let [b' ', rest @ ..] = line.0 {
        line.0 = rest;
    }
    line.literal(b"\n")?;
    Some((event, text.len() - line.0.len()))
}

/// Which keys an allocating call has beside its size.
enum Shape {
    Plain,
    Counted,
    Aligned,
}

/// What is left of the text.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    #[inline(always)]
    fn literal<const N: usize>(&mut self, expected: &[u8; N]) -> Option<()> {
        let (found, rest) = self.0.split_first_chunk::<N>()?;
        (found == expected).then(|| self.0 = rest)
    }

    #[inline(always)]
    fn number(&mut self) -> Option<u64> {
        let (value, len) = decimal(self.0)?;
        self.0 = self.0.get(len..)?;
        Some(value)
    }

    #[inline(always)]
    fn small(&mut self) -> Option<u32> {
        self.number()?.try_into().ok()
    }

    /// An address with its quotes.
    #[inline(always)]
    fn address(&mut self) -> Option<u64> {
        self.literal(b"\"0x")?;
        let (value, len) = hexadecimal(self.0)?;
        self.0 = self.0.get(len..)?;
        self.literal(b"\"")?;
        Some(value)
    }

    /// `,"t":…` and `,"tid":…` where it is.
    #[inline(always)]
    fn head(&mut self) -> Option<(u64, u32)> {
        self.literal(b",\"t\":")?;
        Some((self.number()?, self.tid()?))
    }

    #[inline(always)]
    fn tid(&mut self) -> Option<u32> {
        match self.literal(b",\"tid\":") {
            Some(()) => self.small(),
            None => Some(0),
        }
    }

    /// `,"stack":…` and `,"tid":…` where they are, and the whole event.
    #[inline(always)]
    fn tail(&mut self, op: Op, (t, tid): (u64, u32), dt: u64, what: What) -> Option<Event> {
        let stack = match self.literal(b",\"stack\":") {
            Some(()) => self.small()?,
            None => 0,
        };
        Some(Event {
            t,
            dt,
            tid: if tid == 0 { self.tid()? } else { tid },
            stack,
            op,
            via: None,
            err: None,
            what,
        })
    }

    #[inline(always)]
    fn alloc(&mut self, op: Op, shape: Shape) -> Option<Event> {
        let head = self.head()?;
        let (mut count, mut align) = (1, 0);
        match shape {
            Shape::Plain => {}
            Shape::Counted => {
                self.literal(b",\"count\":")?;
                count = self.number()?;
            }
            Shape::Aligned => {
                self.literal(b",\"align\":")?;
                align = self.number()?;
            }
        }
        self.literal(b",\"size\":")?;
        let size = self.number()?;
        self.literal(b",\"ptr\":")?;
        let ptr = self.address()?;
        let call = Alloc {
            count,
            size,
            align,
            ptr,
        };
        self.tail(op, head, 0, What::Alloc(call))
    }

    #[inline(always)]
    fn free(&mut self) -> Option<Event> {
        let head = self.head()?;
        self.literal(b",\"ptr\":")?;
        let call = Free {
            ptr: self.address()?,
            size: None,
            align: None,
        };
        self.tail(Op::Free, head, 0, What::Free(call))
    }

    #[inline(always)]
    fn realloc(&mut self) -> Option<Event> {
        let head = self.head()?;
        self.literal(b",\"dt\":")?;
        let dt = self.number()?;
        self.literal(b",\"old\":")?;
        let old = self.address()?;
        self.literal(b",\"size\":")?;
        let size = self.number()?;
        self.literal(b",\"ptr\":")?;
        let ptr = self.address()?;
        let call = Realloc {
            old,
            count: 1,
            size,
            ptr,
        };
        self.tail(Op::Realloc, head, dt, What::Realloc(call))
    }

    fn stack(&mut self) -> Option<Event> {
        let head = self.head()?;
        self.literal(b",\"id\":")?;
        let id = self.small()?;
        self.literal(b",\"parent\":")?;
        let parent = self.small()?;
        self.literal(b",\"module\":")?;
        let module = self.small()?;
        self.literal(b",\"ip\":")?;
        let node = StackNode {
            id,
            parent,
            module,
            ip: self.address()?,
            cut: None,
        };
        self.tail(Op::Stack, head, 0, What::Stack(node))
    }
}

#[cfg(test)]
mod tests {
    use crate::decode::{fields, first_line};
    use crate::event::Event;
    use proptest::prelude::*;

    /// Lines as memspy writes them, and each of them with one byte changed.
    fn lines() -> impl Strategy<Value = String> {
        let number = prop_oneof![any::<u64>(), 0..5000u64, Just(u64::MAX), Just(0)];
        let tid = prop_oneof![
            Just(String::new()),
            any::<u32>().prop_map(|tid| format!(",\"tid\":{tid}"))
        ];
        let stack = prop_oneof![
            Just(String::new()),
            any::<u32>().prop_map(|stack| format!(",\"stack\":{stack}"))
        ];
        let numbers = prop::array::uniform5(number);
        (0..9usize, numbers, tid, stack, 0..3usize).prop_map(|(kind, n, tid, stack, blanks)| {
            let [t, a, b, c, d] = n;
            let body = match kind {
                0 => format!("malloc\",\"t\":{t}{tid},\"size\":{a},\"ptr\":\"{b:#x}\"{stack}"),
                1 => format!("free\",\"t\":{t}{tid},\"ptr\":\"{a:#x}\""),
                2 => format!(
                    "calloc\",\"t\":{t},\"count\":{a},\"size\":{b},\"ptr\":\"{c:#x}\"{stack}{tid}"
                ),
                3 => format!(
                    "realloc\",\"t\":{t}{tid},\"dt\":{a},\"old\":\"{b:#x}\",\"size\":{c},\
                     \"ptr\":\"{d:#x}\"{stack}"
                ),
                4 => format!("realloc\",\"t\":{t},\"dt\":{a},\"old\":\"{b:#x}\",\"size\":0{stack}"),
                5 => format!(
                    "posix_memalign\",\"t\":{t},\"align\":{a},\"size\":{b},\"ptr\":\"{c:#x}\""
                ),
                6 => format!("malloc\",\"t\":{t},\"size\":{a},\"err\":\"ENOMEM\"{stack}"),
                7 => format!(
                    "stack\",\"t\":{t}{tid},\"id\":{},\"parent\":{},\"module\":{},\"ip\":\"{d:#x}\"",
                    a as u32, b as u32, c as u32
                ),
                _ => format!(
                    "aligned_alloc\",\"t\":{t}{tid},\"align\":{a},\"size\":{b},\"ptr\":\"{c:#x}\""
                ),
            };
            format!("{{\"op\":\"{body}}}{}\n", " ".repeat(blanks))
        })
    }

    fn padded(line: &[u8]) -> Vec<u8> {
        [line, &[0; 32]].concat()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn both_decoders_agree(line in lines(), at: prop::sample::Index, byte: u8) {
            let whole = super::first_line(&padded(line.as_bytes()));
            let (fast, general) = (whole.as_ref().map(|(event, _)| event), fields::decode(line.as_bytes()));
            if let Some(fast) = fast {
                prop_assert_eq!(Some(fast), general.as_ref().ok());
            }
            prop_assert_eq!(first_line(&padded(line.as_bytes())).1, line.len());

            let mut changed = line.into_bytes();
            let at = at.index(changed.len());
            changed[at] = byte;
            let end = changed.iter().position(|byte| *byte == b'\n').map_or(changed.len(), |at| at + 1);
            let fast: Option<(Event, usize)> = super::first_line(&padded(&changed));
            if let Some((event, len)) = fast {
                prop_assert_eq!(len, end);
                prop_assert_eq!(Ok(event), fields::decode(&changed[..end]));
            }
        }
    }

    #[test]
    fn the_lines_of_memspy_take_the_fast_way() {
        let lines = [
            r#"{"op":"malloc","t":12,"size":32,"ptr":"0x55d0c0ffee00","stack":4}"#,
            r#"{"op":"free","t":123456789012,"tid":7,"ptr":"0x0"}"#,
            r#"{"op":"calloc","t":1,"count":3,"size":8,"ptr":"0x10"}"#,
            r#"{"op":"realloc","t":1,"dt":100,"old":"0x0","size":8,"ptr":"0x10","stack":1}"#,
            r#"{"op":"posix_memalign","t":1,"align":64,"size":8,"ptr":"0x40"}"#,
            r#"{"op":"aligned_alloc","t":1,"align":4096,"size":131072,"ptr":"0x1000"}"#,
            r#"{"op":"stack","t":1,"id":2,"parent":1,"module":3,"ip":"0x7f0000001234"}"#,
        ];
        for line in lines {
            let text = padded(format!("{line}\n").as_bytes());
            assert!(super::first_line(&text).is_some(), "{line}");
        }
    }
}
