//! `memspy events`: the events of a log in the order of time.

mod call;
mod filter;

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use anyhow::bail;
use memspy_analysis::log::Log;
use memspy_analysis::merge::{Half, Step};
use memspy_analysis::model::{Change, Memory};
use memspy_analysis::replay::{Visitor, replay};

use crate::exit;
use crate::signal;
use crate::terminal::say;

use filter::{Filter, Options};

/// Print the events of a log in the order of time.
///
/// One line for each event: when (seconds since the program's start), which thread, the call and its result. A call
/// that both gives memory back and takes some, such as realloc, stands where it began.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  memspy events memspy.cat.4711.jsonl | less
  memspy events --op malloc,realloc --min-size 1M LOG      large blocks
  memspy events --address 0x55d0c0ffee10 LOG               the life of the block that holds an address
  memspy events --from 1.5s --to 1.6s --tid 4712 LOG
  memspy events --json LOG | jq -r 'select(.op==\"free\") | .ptr'

Exit code: 0 done, 1 the log can't be read")]
pub(crate) struct Args {
    /// A log; `-` is standard input
    #[arg(value_name = "LOG")]
    log: PathBuf,

    #[command(flatten)]
    filter: Options,

    /// Print the log's own lines, each with its thread id
    #[arg(long)]
    json: bool,
}

/// Prints the events that the filter lets through.
///
/// # Errors
/// When the log can't be read or the output can't be written.
pub(crate) fn run(args: Args) -> anyhow::Result<u8> {
    let logs = Log::open_all(&[args.log])?;
    let [log] = logs.as_slice() else {
        bail!(
            "these are {} logs, and events of several programs have no common order; name one of them",
            logs.len()
        );
    };
    if log.is_in_file_order() {
        say(
            "this log has no block lines (it was cut or filtered): its lines come in the order of the file",
        );
    }
    signal::ignore_sigpipe();
    let mut printer = Printer {
        out: BufWriter::with_capacity(1 << 16, io::stdout().lock()),
        filter: Filter::new(args.filter),
        json: args.json,
        line: Vec::new(),
        result: Ok(()),
    };
    printer.start(log);
    let outcome = replay(log, &mut printer)?;
    let flushed = printer.out.flush();
    match printer.result.and(flushed) {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(exit::OK),
        result => result?,
    }
    if !outcome.completeness.complete {
        let why: Vec<_> = outcome
            .completeness
            .reasons
            .iter()
            .map(ToString::to_string)
            .collect();
        say(&format!("the log is incomplete: {}", why.join("; ")));
    }
    Ok(exit::OK)
}

/// Prints what the filter lets through.
struct Printer<W> {
    out: W,
    filter: Filter,
    json: bool,
    line: Vec<u8>,
    result: io::Result<()>,
}

impl<W: Write> Printer<W> {
    /// The first line, which is no event and has no number.
    fn start(&mut self, log: &Log) {
        if self.json && self.filter.takes_all() && !log.start_text().is_empty() {
            self.line.clear();
            with_tid(&mut self.line, log.start_text(), log.pid());
            self.print();
        }
    }

    fn print(&mut self) {
        self.line.push(b'\n');
        self.result = self.out.write_all(&self.line);
    }
}

impl<W: Write> Visitor for Printer<W> {
    fn step(&mut self, step: &Step, change: &Change, _memory: &Memory) {
        if step.half == Half::Acquire || !self.filter.takes(step, change) {
            return;
        }
        self.line.clear();
        if self.json {
            with_tid(&mut self.line, step.text(), step.event.tid);
        } else {
            call::write(&mut self.line, step);
        }
        self.print();
    }

    fn is_done(&self) -> bool {
        self.result.is_err()
    }
}

/// A line of the log, with its thread id where it leaves it out.
fn with_tid(out: &mut Vec<u8>, line: &[u8], tid: u32) {
    // Inside a string the quotes would be escaped, so that this can only be the key.
    let has_tid = line.windows(6).any(|part| part == b"\"tid\":");
    match line.strip_suffix(b"}") {
        Some(open) if !has_tid => {
            out.extend_from_slice(open);
            out.extend_from_slice(format!(",\"tid\":{tid}}}").as_bytes());
        }
        _ => out.extend_from_slice(line),
    }
}
