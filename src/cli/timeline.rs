//! `memspy timeline`: how much memory there was at which time.

mod svg;

use std::io::{self, Write as _};
use std::path::PathBuf;

use memspy_analysis::printable;
use memspy_analysis::replay::replay;
use memspy_analysis::space::{Point, Timeline};
use serde_json::{Value, json};

use crate::amount::bytes;
use crate::exit;
use crate::export::write_to;
use crate::one_log::{self, time};
use crate::terminal;

/// Lines of the table.
const LINES: usize = 30;

/// Show memory over time.
///
/// Live blocks: what the program asked malloc for and has not freed. Malloc holds: what malloc has from the kernel for
/// them. Mapped: what the program mapped itself. In memory: the resident bytes of everything, as last known. A row says
/// the most that there was from its time to the next row's.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  memspy timeline --svg app.svg memspy.app.4711.jsonl
  memspy timeline --json memspy.app.4711.jsonl | jq -r '.points[] | [.t, .in_use] | @tsv'")]
pub(crate) struct Args {
    /// A log, or a directory with one; `-` is standard input
    #[arg(value_name = "LOG")]
    log: PathBuf,

    /// Draw the curves into FILE; `-` is standard output
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    svg: Option<PathBuf>,

    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Prints the report.
pub(crate) fn run(args: &Args) -> anyhow::Result<u8> {
    let log = one_log::open(&args.log)?;
    let mut line = Timeline::default();
    let outcome = replay(&log, &mut line)?;
    line.finish(&outcome.memory);
    let title = one_log::title(&log);
    if let Some(file) = &args.svg {
        let drawing = svg::draw(&title, &line);
        write_to(file, |out| out.write_all(drawing.as_bytes()))?;
    } else {
        let mut out = io::stdout().lock();
        if args.json {
            out.write_all(terminal::document(&document(&line))?.as_bytes())?;
        } else {
            out.write_all(table(&title, &line).as_bytes())?;
        }
    }
    one_log::warn(&log, &outcome);
    Ok(exit::OK)
}

/// The resident bytes at a time: the last that were known.
fn resident(line: &Timeline, t: u64) -> Option<u64> {
    let known = line.resident.partition_point(|(at, _)| *at <= t);
    line.resident[..known].last().map(|(_, bytes)| *bytes)
}

fn table(title: &str, line: &Timeline) -> String {
    let mut rows = vec![format!(
        "{title}: memory over {}, peak of live blocks {} at {}",
        time(line.end),
        bytes(line.peak.level.bytes),
        time(line.peak.t)
    )];
    rows.push(format!(
        "{:>12} {:>12} {:>12} {:>12} {:>12}",
        "time", "live blocks", "malloc holds", "mapped", "in memory"
    ));
    let step = line.points.len().div_ceil(LINES).max(1);
    for span in line.points.chunks(step) {
        let Some(last) = span.last() else { continue };
        let mut most = span[0];
        span.iter().for_each(|point| most.raise(point));
        rows.push(format!(
            "{:>12} {:>12} {:>12} {:>12} {:>12}",
            time(most.t),
            bytes(most.in_use),
            bytes(most.held),
            bytes(most.mapped),
            resident(line, last.t).map_or_else(|| "?".to_string(), bytes)
        ));
    }
    for (t, name) in &line.marks {
        rows.push(format!("mark at {}: {}", time(*t), printable(name)));
    }
    rows.join("\n") + "\n"
}

fn document(line: &Timeline) -> Value {
    let point = |point: &Point| {
        json!({
            "t": point.t,
            "in_use": point.in_use,
            "held": point.held,
            "mapped": point.mapped,
        })
    };
    let resident = line
        .resident
        .iter()
        .map(|(t, bytes)| json!({"t": t, "bytes": bytes}));
    let marks = line
        .marks
        .iter()
        .map(|(t, name)| json!({"t": t, "name": printable(name)}));
    json!({
        "schema": 1,
        "end": line.end,
        "peak": {"t": line.peak.t, "bytes": line.peak.level.bytes, "blocks": line.peak.level.blocks},
        "points": line.points.iter().map(point).collect::<Vec<_>>(),
        "resident": resident.collect::<Vec<_>>(),
        "marks": marks.collect::<Vec<_>>(),
    })
}
