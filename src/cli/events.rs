//! `memspy events`: the events of a log, or of several, in the order of time.

mod call;
mod filter;
mod one;
mod several;

use std::io::{self, Write};
use std::path::PathBuf;

use memspy_analysis::complete::Completeness;
use memspy_analysis::several::Several;

use crate::exit;
use crate::signal;
use crate::terminal::visible;

pub(crate) use filter::number;
use filter::{Filter, Options};

/// Print the events of a log in the order of time, or of several logs in their common one.
///
/// One line for each event: when (seconds since the program's start), which thread, the call and its result. A call
/// that both gives memory back and takes some, such as realloc, stands where it began.
///
/// Of several logs each line says the process, too, and times count from the start of the first. A `start` line says
/// what a process runs from then on.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  memspy events memspy.cat.4711.jsonl | less
  memspy events --op malloc,realloc --min-size 1M LOG      large blocks
  memspy events --address 0x55d0c0ffee10 LOG               the life of the block that holds an address
  memspy events --from 1.5s --to 1.6s --tid 4712 LOG
  memspy events --json LOG | jq -r 'select(.op==\"free\") | .ptr'
  memspy events --op mmap,munmap memspy.make.4711.d/       of all processes of a tree
  memspy events --pid 4712,4713 memspy.make.4711.d/        of two of them

Exit code: 0 done, 1 a log can't be read, or none is of a process that --pid names")]
pub(crate) struct Args {
    /// Logs, or directories of logs; `-` is standard input
    #[arg(required = true, value_name = "LOG")]
    logs: Vec<PathBuf>,

    /// Only events of these processes
    #[arg(long, value_name = "PID", value_delimiter = ',', value_parser = number)]
    pid: Vec<u32>,

    #[command(flatten)]
    filter: Options,

    /// Print the log's own lines, each with its thread id (`tid`); of several logs also with `pid`, and the moment by
    /// the clock that all share (`mono_ns`, CLOCK_MONOTONIC)
    #[arg(long)]
    json: bool,
}

/// Prints the events that the filter lets through.
///
/// # Errors
/// When a log can't be read or the output can't be written.
pub(crate) fn run(args: Args) -> anyhow::Result<u8> {
    let mut logs = Several::find(&args.logs)?;
    let several = logs.places().len() > 1;
    if !args.pid.is_empty() {
        logs.only(&args.pid);
        several::refuse_none(&logs)?;
    }
    signal::ignore_sigpipe();
    let mut printer = Printer {
        out: io::BufWriter::with_capacity(1 << 16, io::stdout().lock()),
        filter: Filter::new(args.filter),
        json: args.json,
        line: Vec::new(),
        result: Ok(()),
    };
    match logs.places() {
        [place] if !several => one::print(&place.open()?, &mut printer)?,
        _ => several::print(logs, &mut printer)?,
    }
    let flushed = printer.out.flush();
    match printer.result.and(flushed) {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(exit::OK),
        result => result.map(|()| exit::OK).map_err(Into::into),
    }
}

/// Where lines go.
struct Printer<W> {
    out: W,
    filter: Filter,
    json: bool,
    line: Vec<u8>,
    result: io::Result<()>,
}

impl<W: Write> Printer<W> {
    /// Prints the line that was made.
    fn print(&mut self) {
        // The log itself may hold what a terminal acts on, in strings.
        if self.json
            && !self.line.is_ascii()
            && let Ok(line) = std::str::from_utf8(&self.line)
        {
            self.line = visible(line).into();
        }
        self.line.push(b'\n');
        if self.result.is_ok() {
            self.result = self.out.write_all(&self.line);
        }
        self.line.clear();
    }
}

/// A line of the log with these keys added to it, those left out that it has.
fn with_keys(out: &mut Vec<u8>, line: &[u8], keys: &[(&str, u64)]) {
    let Some(open) = line.strip_suffix(b"}") else {
        out.extend_from_slice(line);
        return;
    };
    out.extend_from_slice(open);
    for (key, value) in keys {
        // Inside a string the quotes would be escaped, so that this can only be the key.
        let name = format!("\"{key}\":");
        if !line.windows(name.len()).any(|part| part == name.as_bytes()) {
            out.extend_from_slice(format!(",{name}{value}").as_bytes());
        }
    }
    out.push(b'}');
}

/// Why a log is not complete, in words.
fn reasons(completeness: &Completeness) -> String {
    let why: Vec<_> = completeness
        .reasons
        .iter()
        .map(ToString::to_string)
        .collect();
    why.join("; ")
}
