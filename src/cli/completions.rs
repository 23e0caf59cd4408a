//! `memspy completions`: completion scripts for shells, generated from the command line's definition.

use std::io::{self, Write as _};

use clap::CommandFactory as _;

/// Print a completion script for a shell.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  memspy completions bash > ~/.local/share/bash-completion/completions/memspy")]
pub(crate) struct Args {
    /// The shell
    shell: clap_complete::Shell,
}

/// Prints the script on standard output.
pub(crate) fn run(args: &Args) -> anyhow::Result<u8> {
    let mut script = Vec::new();
    let mut command = crate::args::Args::command();
    clap_complete::generate(args.shell, &mut command, "memspy", &mut script);
    io::stdout().write_all(&script)?;
    Ok(crate::exit::OK)
}
