//! `memspy maps`: the address space at a moment, each range with what it is.

mod json;
mod svg;
mod text;

use std::io::{self, Write as _};
use std::path::PathBuf;

use memspy_analysis::space::{Moment, Total, View};

use crate::amount::bytes;
use crate::callers::Callers;
use crate::exit;
use crate::export::write_to;
use crate::naming::NameOptions;
use crate::one_log;
use crate::terminal::{self, say};

/// Show the address space of a process, each range with what it is.
///
/// A range is a run of pages with the same permissions that one call made. In memory: resident at the last snapshot
/// before the moment. Handed out: bytes that the program had asked malloc for and not freed. What libc, the loader and
/// the kernel map without a call that memspy sees is shown from the next snapshot on.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  memspy maps memspy.cat.4711.jsonl                 the map at the end
  memspy maps --explain memspy.cat.4711.jsonl       with a sentence on each kind
  memspy maps --at peak --svg peak.svg memspy.app.4711.jsonl
  memspy maps --json memspy.cat.4711.jsonl | jq '.totals[] | [.kind, .size]'")]
pub(crate) struct Args {
    /// A log, or a directory with one; `-` is standard input
    #[arg(value_name = "LOG")]
    log: PathBuf,

    /// The moment: start, end, peak (the live blocks are largest), or a time since the start like 250us, 12.5ms, 3s
    #[arg(long, value_name = "TIME", default_value = "end", value_parser = moment)]
    at: Moment,

    /// Add a sentence on each kind of range
    #[arg(long)]
    explain: bool,

    /// Print one JSON document
    #[arg(long)]
    json: bool,

    /// Draw the address space into FILE; `-` is standard output
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    svg: Option<PathBuf>,

    #[command(flatten)]
    names: NameOptions,
}

/// Prints the report.
pub(crate) fn run(args: &Args) -> anyhow::Result<u8> {
    let log = one_log::open(&args.log)?;
    let view = View::read(&log, args.at)?;
    let title = one_log::title(&log);
    if let Some(file) = &args.svg {
        let drawing = svg::draw(&title, args.at, &view.picture);
        write_to(file, |out| out.write_all(drawing.as_bytes()))?;
        one_log::warn(&log, &view.outcome);
        return Ok(exit::OK);
    }
    let highest = view.picture.heap.highest.map(|highest| highest.block.stack);
    let calls = view.picture.rows.iter().filter_map(|row| row.call);
    let stacks = calls.map(|call| call.stack).chain(highest);
    let callers = Callers::find(&log, &view.outcome.memory, stacks, &args.names);
    let mut out = io::stdout().lock();
    if args.json {
        let document = json::document(&log, args.at, &view, &callers);
        out.write_all(terminal::document(&document)?.as_bytes())?;
    } else {
        let text = text::text(&title, args, &view, &callers);
        out.write_all(text.as_bytes())?;
    }
    one_log::warn(&log, &view.outcome);
    if view.space.accounts.is_empty() {
        say(
            "the log has no snapshot of the address space (MEMSPY_MAPS=off?): only what was mapped while recording is shown",
        );
    }
    Ok(exit::OK)
}

/// How much of ranges is in memory, as far as the log tells.
fn in_memory(total: &Total) -> String {
    match total.resident_unknown {
        0 => bytes(total.resident),
        _ if total.resident == 0 => "?".to_string(),
        _ => format!("\u{2265} {}", bytes(total.resident)),
    }
}

/// A moment in words.
fn moment_words(moment: Moment, t: u64) -> String {
    let time = one_log::time(t);
    match moment {
        Moment::Start => "at the start".to_string(),
        Moment::Time(_) => format!("{time} after the start"),
        Moment::Peak => format!("at the peak of its live blocks, {time} after the start"),
        Moment::End => format!("at the end, {time} after the start"),
    }
}

/// Reads `start`, `end`, `peak`, or a time with a unit.
fn moment(text: &str) -> Result<Moment, String> {
    match text {
        "start" => return Ok(Moment::Start),
        "end" => return Ok(Moment::End),
        "peak" => return Ok(Moment::Peak),
        _ => {}
    }
    let units = [
        ("ns", 1.0),
        ("us", 1e3),
        ("\u{b5}s", 1e3),
        ("ms", 1e6),
        ("s", 1e9),
    ];
    let split = units.iter().find_map(|(unit, factor)| {
        let number = text.strip_suffix(unit)?.parse::<f64>().ok()?;
        (number >= 0.0 && number.is_finite()).then_some(number * factor)
    });
    match split {
        Some(ns) => Ok(Moment::Time(ns as u64)),
        None => Err("not a moment; write start, end, peak or a time like 250us, 12.5ms, 3s".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_word_or_a_time_with_its_unit() {
        assert_eq!(moment("peak"), Ok(Moment::Peak));
        assert_eq!(moment("12.5ms"), Ok(Moment::Time(12_500_000)));
        assert_eq!(moment("3s"), Ok(Moment::Time(3_000_000_000)));
        assert_eq!(moment("40ns"), Ok(Moment::Time(40)));
        for bad in ["", "5", "-1s", "ms", "infs", "NaNs", "noon"] {
            assert!(moment(bad).is_err(), "{bad}");
        }
    }
}
