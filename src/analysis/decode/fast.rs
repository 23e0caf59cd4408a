//! The lines of the heap calls and of stacks, in memspy's own key order and spacing.
//!
//! Gives up (`None`) at the first byte that differs; then the general decoder decides.

use super::Take;
use super::digits::{decimal, hexadecimal};
use crate::event::{Alloc, Event, Free, Realloc, StackId, StackNode, What};
use memspy_log::Op;

/// Reads the first line of `text` and gives its event to `take`; answers the line's length with
/// blanks and newline.
///
/// The event is handed over where it is made: its way through several results would cost more than
/// reading it. Reads words of eight bytes, so that it gives up at a line that ends within 16 bytes
/// of the end of `text`.
#[inline(always)]
pub(super) fn first_line(text: &[u8], take: &mut impl Take) -> Option<usize> {
    let mut line = Rest(text);
    line.literal(b"{\"op\":\"")?;
    // The first letters tell nearly all ops apart; the literal that follows proves the guess.
    match line.0.first_chunk()? {
        b"fre" => {
            line.literal(b"free\",\"t\":")?;
            line.free(take)?;
        }
        b"mal" => {
            line.literal(b"malloc\",\"t\":")?;
            line.alloc(Op::Malloc, Shape::Plain, take)?;
        }
        b"rea" => {
            line.literal(b"realloc\",\"t\":")?;
            line.realloc(take)?;
        }
        _ => take.event(line.rarer()?),
    }
    Some(text.len() - line.0.len())
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

    /// The time, whose key is read, and `,"tid":…` where it is.
    #[inline(always)]
    fn head(&mut self) -> Option<(u64, u32)> {
        Some((self.number()?, self.tid()?))
    }

    #[inline(always)]
    fn tid(&mut self) -> Option<u32> {
        match self.literal(b",\"tid\":") {
            Some(()) => self.small(),
            None => Some(0),
        }
    }

    /// `,"stack":…` and `,"tid":…` where they are, and the end of the line.
    #[inline(always)]
    fn tail(&mut self, tid: u32) -> Option<(StackId, u32)> {
        let stack = match self.literal(b",\"stack\":") {
            Some(()) => self.small()?,
            None => 0,
        };
        let tid = if tid == 0 { self.tid()? } else { tid };
        self.literal(b"}")?;
        while let [b' ', rest @ ..] = self.0 {
            self.0 = rest;
        }
        self.literal(b"\n")?;
        Some((stack, tid))
    }

    /// The ops that are not on nearly every line.
    #[inline(never)]
    fn rarer(&mut self) -> Option<Event> {
        let mut take = None;
        match self.0.first_chunk()? {
            b"cal" => {
                self.literal(b"calloc\",\"t\":")?;
                self.alloc(Op::Calloc, Shape::Counted, &mut take)?;
            }
            b"sta" => {
                self.literal(b"stack\",\"t\":")?;
                self.stack(&mut take)?;
            }
            b"pos" => {
                self.literal(b"posix_memalign\",\"t\":")?;
                self.alloc(Op::PosixMemalign, Shape::Aligned, &mut take)?;
            }
            b"ali" => {
                self.literal(b"aligned_alloc\",\"t\":")?;
                self.alloc(Op::AlignedAlloc, Shape::Aligned, &mut take)?;
            }
            _ => return None,
        }
        take
    }

    #[inline(always)]
    fn alloc(&mut self, op: Op, shape: Shape, take: &mut impl Take) -> Option<()> {
        let (t, tid) = self.head()?;
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
        let (stack, tid) = self.tail(tid)?;
        let call = Alloc {
            count,
            size,
            align,
            ptr,
        };
        take.event(event(op, t, 0, tid, stack, What::Alloc(call)));
        Some(())
    }

    #[inline(always)]
    fn free(&mut self, take: &mut impl Take) -> Option<()> {
        let (t, tid) = self.head()?;
        self.literal(b",\"ptr\":")?;
        let ptr = self.address()?;
        let (stack, tid) = self.tail(tid)?;
        let call = Free {
            ptr,
            size: None,
            align: None,
        };
        take.event(event(Op::Free, t, 0, tid, stack, What::Free(call)));
        Some(())
    }

    #[inline(always)]
    fn realloc(&mut self, take: &mut impl Take) -> Option<()> {
        let (t, tid) = self.head()?;
        self.literal(b",\"dt\":")?;
        let dt = self.number()?;
        self.literal(b",\"old\":")?;
        let old = self.address()?;
        self.literal(b",\"size\":")?;
        let size = self.number()?;
        self.literal(b",\"ptr\":")?;
        let ptr = self.address()?;
        let (stack, tid) = self.tail(tid)?;
        let call = Realloc {
            old,
            count: 1,
            size,
            ptr,
        };
        take.event(event(Op::Realloc, t, dt, tid, stack, What::Realloc(call)));
        Some(())
    }

    fn stack(&mut self, take: &mut impl Take) -> Option<()> {
        let (t, tid) = self.head()?;
        self.literal(b",\"id\":")?;
        let id = self.small()?;
        self.literal(b",\"parent\":")?;
        let parent = self.small()?;
        self.literal(b",\"module\":")?;
        let module = self.small()?;
        self.literal(b",\"ip\":")?;
        let ip = self.address()?;
        let (stack, tid) = self.tail(tid)?;
        let node = StackNode {
            id,
            parent,
            module,
            ip,
            cut: None,
        };
        take.event(event(Op::Stack, t, 0, tid, stack, What::Stack(node)));
        Some(())
    }
}

/// An event of a call that did not fail.
#[inline(always)]
fn event(op: Op, t: u64, dt: u64, tid: u32, stack: StackId, what: What) -> Event {
    Event {
        t,
        dt,
        tid,
        stack,
        op,
        via: None,
        err: None,
        what,
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

    fn fast(text: &[u8]) -> Option<(Event, usize)> {
        let mut found = None;
        let len = super::first_line(text, &mut found)?;
        found.map(|event| (event, len))
    }

    fn padded(line: &[u8]) -> Vec<u8> {
        [line, &[0; 32]].concat()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn both_decoders_agree(line in lines(), at: prop::sample::Index, byte: u8) {
            if let Some((event, len)) = fast(&padded(line.as_bytes())) {
                prop_assert_eq!(len, line.len());
                prop_assert_eq!(Ok(event), fields::decode(line.as_bytes()));
            }
            prop_assert_eq!(first_line(&padded(line.as_bytes())).1, line.len());

            let mut changed = line.into_bytes();
            let at = at.index(changed.len());
            changed[at] = byte;
            let end = changed.iter().position(|byte| *byte == b'\n').map_or(changed.len(), |at| at + 1);
            if let Some((event, len)) = fast(&padded(&changed)) {
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
            assert!(fast(&text).is_some(), "{line}");
        }
    }
}
