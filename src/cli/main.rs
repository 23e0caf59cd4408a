//! The `memspy` program: parse, match, exit code. Everything else stands in a file named after its noun.
//!
//! A subcommand is a file with a clap `Args` struct and `pub(crate) fn run(args) -> anyhow::Result<u8>`.
#![deny(unsafe_code)]

mod amount;
mod args;
mod ask;
mod callers;
mod check;
mod colour;
mod completions;
mod diff;
mod doctor;
mod drawing;
mod events;
mod exit;
mod explain;
mod export;
mod flamegraph;
mod inherited;
mod launch;
mod leaks;
mod log_dir;
mod man;
mod maps;
mod mark;
mod mount;
mod naming;
mod one_log;
mod preflight;
mod profile;
mod progress;
mod recorded;
mod recover;
mod run;
mod shim_file;
mod signal;
mod site_kind;
mod site_logs;
mod sites;
mod size;
mod snapshot;
mod summary;
mod survivors;
mod symbol_worker;
mod terminal;
mod timeline;
mod untraced;
mod where_;
mod window;

use std::process::ExitCode;

use clap::Parser;

use args::{Args, Command};

fn main() -> ExitCode {
    signal::default_sigpipe();
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => return usage(&error),
    };
    let default_code = args.command.error_code();
    let result = match args.command {
        Command::Run(args) => run::run(args),
        Command::Snapshot(args) => snapshot::run(&args),
        Command::Mark(args) => mark::run(&args),
        Command::Leaks(args) => leaks::run(&args),
        Command::Check(args) => check::run(*args),
        Command::Summary(args) => summary::run(&args),
        Command::Events(args) => events::run(args),
        Command::Recover(args) => recover::run(&args),
        Command::Sites(args) => sites::run(&args),
        Command::Diff(args) => diff::run(&args),
        Command::Maps(args) => maps::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Where(args) => where_::run(&args),
        Command::Timeline(args) => timeline::run(&args),
        Command::Flamegraph(args) => flamegraph::run(&args),
        Command::Export(args) => export::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::ShimPath(args) => shim_file::run(&args),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&args),
        Command::SymbolWorker(args) => symbol_worker::run(&args),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            terminal::say(&format!("{error:#}"));
            let chosen = error
                .downcast_ref::<exit::Failure>()
                .map(|failure| failure.code);
            ExitCode::from(chosen.unwrap_or(default_code))
        }
    }
}

/// Prints help, the version, or what is wrong with the command line.
fn usage(error: &clap::Error) -> ExitCode {
    // Nobody is left to tell when even this can't be printed.
    let _ = error.print();
    if !error.use_stderr() {
        return ExitCode::from(exit::OK);
    }
    let command = std::env::args_os().nth(1);
    let launches = command.is_some_and(|command| command == "run" || command == "check");
    ExitCode::from(if launches {
        exit::NOT_JUDGED
    } else {
        exit::USAGE
    })
}
