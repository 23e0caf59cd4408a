//! `memspy summary`: what a program did with memory, on one screen.

mod json;
mod kernel;
mod text;
mod tree;

use std::io::{self, Write as _};
use std::path::PathBuf;

use memspy_analysis::log::Log;
use memspy_analysis::site::{Kind, Sites};
use memspy_analysis::summary::Summary;

use crate::colour::Colour;
use crate::exit;
use crate::signal;
use crate::sites::{self, TopSite};

/// How many call sites are shown.
const MOST_SITES: usize = 5;

/// Say what a program did with memory, and where the memory came from.
///
/// Of one log: calls, bytes in use at the peak and at the end, the kernel calls and what caused them, sizes, threads,
/// and which code asked for most.
/// Of several: the tree of processes and what they did together.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  memspy summary memspy.cat.4711.jsonl
  memspy summary memspy.make.4711.d/            a directory: all logs in it
  zstd -dc old.jsonl.zst | memspy summary -     a stream
  memspy summary --json LOG | jq .logs[0].heap.peak

Exit code: 0 done, also for incomplete logs (the text says so), 1 a log can't be read")]
pub(crate) struct Args {
    /// Logs, or directories of logs; `-` is standard input
    #[arg(required = true, value_name = "LOG")]
    logs: Vec<PathBuf>,

    /// Print one JSON document (its schema: src/cli/summary.schema.json in the source)
    #[arg(long)]
    json: bool,
}

/// Prints the summary.
///
/// # Errors
/// When a log can't be read.
pub(crate) fn run(args: &Args) -> anyhow::Result<u8> {
    let mut summaries = Vec::new();
    let mut sites = Sites::new(Kind::Heap, 1);
    for log in Log::each(&args.logs)? {
        let log = log?;
        let has_stacks = log.start().is_some_and(|start| &*start.stacks != "off");
        summaries.push(match has_stacks {
            true => Summary::read_with_sites(&log, &mut sites)?,
            false => Summary::read(&log)?,
        });
    }
    let starts = summaries
        .iter()
        .filter_map(|summary| summary.process.as_ref());
    let sites = sites::top(&sites, MOST_SITES, starts.map(|start| start.unix_ns).min());
    let text = if args.json {
        json::document(&summaries, &sites)?
    } else {
        let colour = Colour::of_stdout();
        report(&summaries, colour) + &top_sites(&sites, colour)
    };
    signal::ignore_sigpipe();
    match io::stdout().lock().write_all(text.as_bytes()) {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(exit::OK),
        result => result.map(|()| exit::OK).map_err(Into::into),
    }
}

/// The section about sites, for people; empty without stacks.
fn top_sites(sites: &[TopSite], colour: Colour) -> String {
    if sites.is_empty() {
        return String::new();
    }
    let heading = colour.bold("Largest call sites (memspy sites shows the stacks)");
    format!("\n{heading}\n{}", sites::top_text(sites))
}

/// The report on logs, for people.
pub(crate) fn report(summaries: &[Summary], colour: Colour) -> String {
    match summaries {
        [one] => text::one(one, colour),
        several => tree::several(several, colour),
    }
}
