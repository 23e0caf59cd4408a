//! `memspy where`: what one address is, and what happened to it.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::PathBuf;

use memspy_analysis::event::Address;
use memspy_analysis::model::LiveBlock;
use memspy_analysis::printable;
use memspy_analysis::replay::replay;
use memspy_analysis::space::{Life, Picture, Space, Touch, Trace};
use serde_json::{Value, json};

use crate::amount::bytes;
use crate::callers::Callers;
use crate::exit;
use crate::naming::NameOptions;
use crate::one_log::{self, time};
use crate::terminal;

/// Show what an address is: its range, its block, who allocated and freed it, its neighbours.
///
/// The range and the neighbours are those at the end of the log; the blocks are all that ever held the address.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  memspy where memspy.app.4711.jsonl 0x5581d02c92a0
  memspy where --json memspy.app.4711.jsonl 0x5581d02c92a0 | jq '.blocks[-1]'")]
pub(crate) struct Args {
    /// A log, or a directory with one; `-` is standard input
    #[arg(value_name = "LOG")]
    log: PathBuf,

    /// The address, hexadecimal with 0x or without
    #[arg(value_name = "ADDRESS", value_parser = address)]
    address: Address,

    /// How many blocks and calls to show, the latest ones; 0 shows all that are kept
    #[arg(long, value_name = "N", default_value_t = 10)]
    top: usize,

    /// How many functions of a stack to show; 0 shows all
    #[arg(long, value_name = "N", default_value_t = 8)]
    depth: usize,

    /// Print one JSON document
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    names: NameOptions,
}

fn address(text: &str) -> Result<Address, String> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let number = plain.then(|| Address::from_str_radix(digits, 16));
    match number {
        Some(Ok(number)) => Ok(number),
        _ => Err("not an address; write up to 16 hexadecimal digits, like 0x5581d02c92a0".into()),
    }
}

/// A block in another range is no neighbour when it is further away.
const NEAR: u64 = 1 << 20;

/// What was found.
struct Found {
    address: Address,
    picture: Picture,
    lives: Vec<Life>,
    touches: Vec<Touch>,
    neighbours: [Option<(Address, LiveBlock)>; 2],
    callers: Callers,
    depth: usize,
}

/// Prints the report.
pub(crate) fn run(args: &Args) -> anyhow::Result<u8> {
    let log = one_log::open(&args.log)?;
    let mut watch = (Trace::new(args.address), Space::default());
    let outcome = replay(&log, &mut watch)?;
    let (trace, space) = watch;
    let most = if args.top == 0 { usize::MAX } else { args.top };
    let lives: Vec<Life> = latest(trace.lives.iter().copied(), most);
    let touches: Vec<Touch> = latest(trace.touches.iter().copied(), most);
    let neighbours = trace.neighbours(&outcome.memory);
    let picture = Picture::at_end(&space, &outcome);
    let stacks = lives
        .iter()
        .flat_map(|life| [life.block.stack, life.end.map_or(0, |end| end.stack)])
        .chain(touches.iter().map(|touch| touch.stack))
        .chain(neighbours.iter().flatten().map(|(_, block)| block.stack))
        .chain(
            picture
                .at(args.address)
                .and_then(|row| row.call)
                .map(|call| call.stack),
        );
    let callers = Callers::find(&log, &outcome.memory, stacks, &args.names);
    let found = Found {
        address: args.address,
        picture,
        lives,
        touches,
        neighbours,
        callers,
        depth: if args.depth == 0 {
            usize::MAX
        } else {
            args.depth
        },
    };
    let mut out = io::stdout().lock();
    if args.json {
        out.write_all(terminal::document(&found.json())?.as_bytes())?;
    } else {
        let mut text = String::new();
        // Writing to a String can't fail.
        let _ = found.text(&mut text, &one_log::title(&log));
        out.write_all(text.as_bytes())?;
    }
    one_log::warn(&log, &outcome);
    Ok(exit::OK)
}

fn latest<T>(all: impl ExactSizeIterator<Item = T>, most: usize) -> Vec<T> {
    let skip = all.len().saturating_sub(most);
    all.skip(skip).collect()
}

impl Found {
    fn text(&self, out: &mut String, title: &str) -> std::fmt::Result {
        writeln!(out, "{title}: {:#x}", self.address)?;
        self.range(out)?;
        writeln!(out)?;
        if self.lives.is_empty() {
            writeln!(out, "No block that malloc gave out ever held it.")?;
        }
        for life in &self.lives {
            self.life(out, life)?;
        }
        for (side, neighbour) in ["below", "above"].iter().zip(&self.neighbours) {
            if let Some((at, block)) = neighbour
                && let away = self.distance(*at, block)
                && (away < NEAR || self.in_one_range(*at))
            {
                let by = self.by(block.stack);
                writeln!(
                    out,
                    "Nearest live block {side}, {} away: {at:#x}, {} by {} at {}{by}",
                    bytes(away),
                    bytes(block.size),
                    block.op.name(),
                    time(block.t)
                )?;
            }
        }
        if !self.touches.is_empty() {
            writeln!(out, "\nKernel calls that touched it:")?;
        }
        for touch in &self.touches {
            let inside = touch
                .via
                .map_or_else(String::new, |via| format!(" inside {via}"));
            writeln!(
                out,
                "  {}  {}{inside} {:#x}-{:#x}{}",
                time(touch.t),
                touch.op.name(),
                touch.from,
                touch.to,
                self.by(touch.stack)
            )?;
        }
        Ok(())
    }

    /// Bytes between the address and a block.
    fn distance(&self, at: Address, block: &LiveBlock) -> u64 {
        if at > self.address {
            at - self.address
        } else {
            self.address.saturating_sub(at.saturating_add(block.size))
        }
    }

    /// Whether a block lies in the address's range.
    fn in_one_range(&self, at: Address) -> bool {
        let range = self.picture.at(self.address);
        range.is_some_and(|row| (row.from..row.to).contains(&at))
    }

    fn range(&self, out: &mut String) -> std::fmt::Result {
        let Some(row) = self.picture.at(self.address) else {
            return writeln!(
                out,
                "At the end nothing is mapped there: touching it is a segmentation fault."
            );
        };
        let path = match row.path.first() {
            Some(b'/') if row.inode == 0 => format!(" of {}", printable(&row.path)),
            Some(b'/') => {
                let at = row.offset + (self.address - row.from);
                format!(" of {}, byte {at:#x} of the file", printable(&row.path))
            }
            _ => String::new(),
        };
        writeln!(
            out,
            "In {:#x}-{:#x} ({}): {}{path}; {}.",
            row.from,
            row.to,
            bytes(row.to - row.from),
            row.kind.words(),
            row.perms.words()
        )?;
        writeln!(out, "{}", row.kind.sentence())
    }

    fn life(&self, out: &mut String, life: &Life) -> std::fmt::Result {
        let block = &life.block;
        writeln!(
            out,
            "Byte {} of the block {:#x}, {} by {} at {} in thread {}{}",
            self.address - life.address,
            life.address,
            bytes(block.size),
            block.op.name(),
            time(block.t),
            block.thread,
            self.by(block.stack)
        )?;
        match life.end {
            Some(end) => writeln!(
                out,
                "  ended by {} at {} in thread {}{}",
                end.op.name(),
                time(end.t),
                end.thread,
                self.by(end.stack)
            ),
            None => writeln!(out, "  not freed"),
        }
    }

    fn by(&self, stack: u32) -> String {
        match self.callers.line(stack, self.depth) {
            Some(line) => format!(", for {line}"),
            None => String::new(),
        }
    }

    fn json(&self) -> Value {
        let hex = |address: Address| format!("{address:#x}");
        let block = |at: Address, block: &LiveBlock| {
            json!({
                "ptr": hex(at),
                "size": block.size,
                "op": block.op.name(),
                "t": block.t,
                "thread": block.thread,
                "stack": self.callers.of(block.stack),
            })
        };
        let lives = self.lives.iter().map(|life| {
            let mut value = block(life.address, &life.block);
            value["end"] = life.end.map_or(Value::Null, |end| {
                json!({
                    "op": end.op.name(),
                    "t": end.t,
                    "thread": end.thread,
                    "stack": self.callers.of(end.stack),
                })
            });
            value
        });
        let touches = self.touches.iter().map(|touch| {
            json!({
                "op": touch.op.name(),
                "t": touch.t,
                "from": hex(touch.from),
                "to": hex(touch.to),
                "via": touch.via.map(|via| via.to_string()),
                "stack": self.callers.of(touch.stack),
            })
        });
        let row = self.picture.at(self.address).map(|row| {
            json!({
                "from": hex(row.from),
                "to": hex(row.to),
                "kind": row.kind.name(),
                "perms": row.perms.to_string(),
                "path": printable(&row.path),
            })
        });
        let [below, above] = self
            .neighbours
            .map(|one| one.map(|(at, neighbour)| block(at, &neighbour)));
        json!({
            "schema": 1,
            "address": hex(self.address),
            "range": row,
            "blocks": lives.collect::<Vec<_>>(),
            "below": below,
            "above": above,
            "calls": touches.collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::address;

    #[test]
    fn an_address_is_hexadecimal() {
        assert_eq!(address("0x5581d02c92a0"), Ok(0x5581_d02c_92a0));
        assert_eq!(address("ff"), Ok(255));
        for bad in ["", "0x", "xyz", "-1", "+1", "11112222333344445"] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }
}
