//! The command line: one variant for each subcommand, whose options stand in its own file.

use clap::{Parser, Subcommand};

use crate::{
    check, completions, diff, doctor, events, exit, explain, export, flamegraph, leaks, man, maps,
    mark, recover, run, shim_file, sites, snapshot, summary, symbol_worker, timeline, where_,
};

/// A flight recorder for the memory of any Linux process.
///
/// memspy runs an unmodified program and writes every call that takes memory from libc or from the kernel into a log
/// of one JSON line per call. The other commands read such logs.
#[derive(Parser)]
#[command(name = "memspy", version, after_help = EXAMPLES, after_long_help = after_help())]
#[command(
    propagate_version = true,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What memspy is asked to do.
#[derive(Subcommand)]
pub(crate) enum Command {
    Run(run::Args),
    Check(Box<check::Args>),
    Snapshot(snapshot::Args),
    Mark(mark::Args),
    Leaks(leaks::Args),
    Summary(summary::Args),
    Events(events::Args),
    Recover(recover::Args),
    Sites(sites::Args),
    Diff(diff::Args),
    Maps(maps::Args),
    Explain(explain::Args),
    Where(where_::Args),
    Timeline(timeline::Args),
    Flamegraph(flamegraph::Args),
    Export(export::Args),
    Doctor(doctor::Args),
    ShimPath(shim_file::Args),
    Completions(completions::Args),
    Man(man::Args),
    SymbolWorker(symbol_worker::Args),
}

impl Command {
    /// The exit code of an error that did not choose one.
    pub(crate) fn error_code(&self) -> u8 {
        match self {
            Self::Run(_) | Self::Check(_) | Self::Doctor(_) => exit::NOT_JUDGED,
            _ => exit::ERROR,
        }
    }
}

const EXAMPLES: &str = "\
Examples:
  memspy run -- cat README.md          record a program, then show where its memory came from
  memspy run -o logs -- make test      record a whole process tree into the directory logs
  memspy check -- ./tests              fail if the program or a child of it leaks memory
  LD_PRELOAD=$(memspy shim-path) cat README.md
                                       record without the launcher: the log appears here";

/// What follows the list of commands in `--help`.
fn after_help() -> String {
    format!("{EXAMPLES}\n\n{}", exit::HELP)
}
