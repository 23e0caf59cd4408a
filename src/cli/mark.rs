//! `memspy mark`: gives a moment of a running process a name.

use std::io::{self, Write as _};

use crate::ask::{Target, Wish, parse_name};
use crate::exit;
use crate::terminal::{clean, show};

/// Give the present moment of a recorded process a name
///
/// The name stands in its log from then on; memspy leaks and memspy check take it as --since and --until, memspy events
/// shows it. Nothing is stopped or looked at: memspy snapshot does that.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  memspy mark 4711 warmed-up
  memspy leaks --since warmed-up memspy.server.4711.jsonl

Exit code: 0 done, 1 the process can't be asked, 124 it did not answer in time")]
pub(crate) struct Args {
    #[command(flatten)]
    target: Target,

    /// The name
    #[arg(value_name = "NAME", value_parser = parse_name)]
    name: String,
}

/// Asks and says where the mark is.
///
/// # Errors
/// When the process can't be asked, or does not answer.
pub(crate) fn run(args: &Args) -> anyhow::Result<u8> {
    let process = args.target.find()?;
    let answer = process.ask(Wish::Mark, &args.name)?;
    writeln!(
        io::stdout(),
        "{} (pid {}): mark {} in {}",
        process.program,
        process.pid,
        clean(&answer.mark),
        show(&process.log)
    )?;
    Ok(exit::OK)
}
