//! Which events `memspy events` prints.

use memspy_analysis::event::{Address, Event, What};
use memspy_analysis::merge::Step;
use memspy_analysis::model::Change;
use memspy_log::Op;

use crate::size;

/// The options that choose events. An event must pass each one that is given.
#[derive(clap::Args)]
pub(super) struct Options {
    /// Only these calls or kinds of lines, such as malloc,free,mmap
    #[arg(long, value_name = "OP", value_delimiter = ',', value_parser = op)]
    op: Vec<Op>,

    /// Only calls that ask for at least this many bytes
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    min_size: Option<u64>,

    /// Only calls that ask for at most this many bytes
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    max_size: Option<u64>,

    /// Only events of this thread, by the kernel's number
    #[arg(long, value_name = "TID", value_parser = number)]
    tid: Option<u32>,

    /// Only events from this time on, such as 1.5s, 200us or plain nanoseconds; of several logs, since the first start
    #[arg(long, value_name = "TIME", value_parser = time)]
    from: Option<u64>,

    /// Only events up to this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    to: Option<u64>,

    /// Only events about a block or mapping that contains this address
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    address: Option<Address>,
}

/// Chooses events.
pub(super) struct Filter {
    options: Options,
}

impl Filter {
    pub(super) fn new(options: Options) -> Self {
        Self { options }
    }

    /// Whether every event passes.
    pub(super) fn takes_all(&self) -> bool {
        let all = &self.options;
        all.op.is_empty()
            && (all.min_size, all.max_size, all.from) == (None, None, None)
            && (all.to, all.tid, all.address) == (None, None, None)
    }

    /// Whether the filter needs to know what events did to the heap's blocks.
    pub(super) fn needs_blocks(&self) -> bool {
        self.options.address.is_some()
    }

    /// Whether the first line of a log passes, which is no event: `time` is that of the image's start.
    pub(super) fn takes_start(&self, time: u64) -> bool {
        let wanted = &self.options;
        (wanted.op.is_empty() || wanted.op.contains(&Op::Start))
            && (wanted.min_size, wanted.max_size) == (None, None)
            && (wanted.tid, wanted.address) == (None, None)
            && self.within(time)
    }

    fn within(&self, time: u64) -> bool {
        let wanted = &self.options;
        wanted.from.is_none_or(|from| from <= time) && wanted.to.is_none_or(|to| time <= to)
    }

    /// Whether an event at this time passes; `change` is what it did to the heap's blocks.
    pub(super) fn takes(&self, step: &Step, change: &Change, time: u64) -> bool {
        let wanted = &self.options;
        let event = step.event;
        let sized = || match (wanted.min_size, wanted.max_size) {
            (None, None) => true,
            (least, most) => event.asked().is_some_and(|asked| {
                (least.unwrap_or(0)..=most.unwrap_or(u64::MAX)).contains(&asked)
            }),
        };
        (wanted.op.is_empty() || wanted.op.contains(&event.op))
            && wanted.tid.is_none_or(|tid| tid == event.tid)
            && self.within(time)
            && sized()
            && wanted
                .address
                .is_none_or(|address| touches(event, change, address))
    }
}

/// Whether an event is about a block or mapping that contains an address.
fn touches(event: &Event, change: &Change, address: Address) -> bool {
    let within = |from: Address, size: u64| {
        from != 0 && address.checked_sub(from).is_some_and(|at| at < size.max(1))
    };
    let died = change
        .died
        .is_some_and(|(from, block)| within(from, block.size));
    died || match &event.what {
        What::Alloc(call) => within(call.ptr, call.bytes()),
        What::Realloc(call) => within(call.ptr, call.bytes()) || within(call.old, 1),
        What::Free(call) => within(call.ptr, 1),
        What::Mmap(call) => within(call.addr, call.size),
        What::Munmap(range) | What::Mprotect { range, .. } => within(range.addr, range.size),
        What::Mremap(call) => within(call.old, call.old_size) || within(call.addr, call.size),
        What::Brk(call) => (call.from.min(call.to)..call.from.max(call.to)).contains(&address),
        What::Arena(arena) => within(arena.base, arena.size),
        What::Module(module) => within(module.base, module.size),
        What::Map(map) => (map.from..map.to).contains(&address),
        _ => false,
    }
}

fn op(name: &str) -> Result<Op, String> {
    Op::from_name(name).ok_or_else(|| {
        let names: Vec<_> = Op::ALL.iter().map(|op| op.name()).collect();
        format!(
            "no such call or kind of line; there are {}",
            names.join(", ")
        )
    })
}

/// Reads the number of a process or a thread.
pub(crate) fn number(text: &str) -> Result<u32, String> {
    text.parse()
        .map_err(|_| "not the kernel's number of a process or thread, such as 4711".into())
}

fn address(text: &str) -> Result<Address, String> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    match Address::from_str_radix(digits, 16) {
        Ok(address) if !digits.starts_with('+') => Ok(address),
        _ => Err("not an address; write it in hexadecimal, like 0x7f0012345678".into()),
    }
}

/// Reads a time: a number, with or without a point, and its unit; nanoseconds without one.
fn time(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u32); 5] = [("ns", 0), ("us", 3), ("µs", 3), ("ms", 6), ("s", 9)];
    let unit = UNITS.iter().find(|(unit, _)| text.ends_with(unit));
    let (unit, power) = unit.copied().unwrap_or(("", 0));
    exact(text.strip_suffix(unit).unwrap_or(text), power)
        .ok_or_else(|| "not a time; write it like 1.5s, 20ms, 300us or in nanoseconds".into())
}

/// A decimal number times a power of ten, what is below 1 cut off.
fn exact(number: &str, power: u32) -> Option<u64> {
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(part) {
        return None;
    }
    let part: String = part
        .chars()
        .chain("000000000".chars())
        .take(power as usize)
        .collect();
    format!("{whole}{part}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_exact_to_the_nanosecond() {
        assert_eq!(time("17"), Ok(17));
        assert_eq!(time("1.5s"), Ok(1_500_000_000));
        assert_eq!(time("0.1us"), Ok(100));
        assert_eq!(time("20ms"), Ok(20_000_000));
        assert_eq!(time("1.0000000019s"), Ok(1_000_000_001));
        for wrong in ["", "s", "-1s", "1e3", "1.5.2s", ".5s", "99999999999999s"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn addresses_are_hexadecimal_with_or_without_their_mark() {
        assert_eq!(address("0xff"), Ok(255));
        assert_eq!(address("ff"), Ok(255));
        assert!(address("0x").is_err() && address("+f").is_err() && address("0xg").is_err());
    }
}
