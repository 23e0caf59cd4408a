//! `memspy recover`: completes the log of a process that was killed, for good.

use std::path::PathBuf;

use memspy_analysis::find;
use memspy_analysis::recover::{Recovered, recover};

use crate::amount::count;
use crate::exit;
use crate::terminal::{say, show};

/// Complete the log of a process that was killed.
///
/// What a killed process had not written yet lies in the tail file beside its log. Every command reads both; this one
/// writes the tail's part into the log and removes the tail. A log without a tail stays as it is.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  memspy recover memspy.app.4711.jsonl
  memspy recover memspy.app.4711.d/          every log in a directory

Exit code: 0 done or nothing to do, 1 a log can't be recovered")]
pub(crate) struct Args {
    /// Logs, or directories of logs
    #[arg(required = true, value_name = "LOG")]
    logs: Vec<PathBuf>,

    /// Recover even when memspy can't prove that the process has ended, or that log and tail belong together
    #[arg(long)]
    force: bool,
}

/// Recovers each log and says what was done.
///
/// # Errors
/// When a path can't be read. Logs that can't be recovered are said one by one, then the exit code is 1.
pub(crate) fn run(args: &Args) -> anyhow::Result<u8> {
    let mut code = exit::OK;
    for log in find(&args.logs)? {
        match recover(&log, args.force) {
            Ok(Recovered::Nothing) => say(&format!("{}: has no tail, nothing to do", show(&log))),
            Ok(Recovered::Done { events }) => say(&format!(
                "{}: recovered, {} events came from its tail",
                show(&log),
                count(events)
            )),
            Err(error) => {
                say(&format!("{:#}", anyhow::Error::from(error)));
                code = exit::ERROR;
            }
        }
    }
    Ok(code)
}
