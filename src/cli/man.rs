//! `memspy man`: manual pages, generated from the command line's definition.

use std::io::{self, Write as _};

use anyhow::Context as _;
use clap::CommandFactory as _;

/// Print a manual page.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  memspy man | man -l -
  memspy man run > memspy-run.1")]
pub(crate) struct Args {
    /// The subcommand to describe; without it memspy itself
    subcommand: Option<String>,
}

/// Prints the page on standard output.
pub(crate) fn run(args: &Args) -> anyhow::Result<u8> {
    let mut command = crate::args::Args::command();
    command.build();
    let page = match &args.subcommand {
        None => command,
        Some(name) => {
            let found = command.find_subcommand(name);
            let found = found.with_context(|| {
                format!("there is no subcommand '{name}'; memspy --help lists them")
            })?;
            found.clone()
        }
    };
    let mut text = Vec::new();
    clap_mangen::Man::new(page).render(&mut text)?;
    io::stdout().write_all(&text)?;
    Ok(crate::exit::OK)
}
