//! `memspy export`: the allocation sites of logs in the file formats of other tools.

mod folded;
mod pprof;
mod speedscope;

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::ValueEnum;

use crate::exit;
use crate::naming::NameOptions;
use crate::profile::{Measure, Profile};
use crate::site_kind::SiteKind;
use crate::terminal::{say, show, visible};

pub(crate) use folded::lines as folded_lines;

/// Write allocation sites for other tools.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  memspy export --to pprof -o heap.pb.gz memspy.app.4711.jsonl     then: pprof -http=: heap.pb.gz
  memspy export --to speedscope -o app.json memspy.app.4711.jsonl  then open it in https://www.speedscope.app
  memspy export --to folded --by leaked memspy.app.4711.jsonl | inferno-flamegraph > leaks.svg")]
pub(crate) struct Args {
    /// Logs, or directories of logs; `-` is standard input
    #[arg(required = true, value_name = "LOG")]
    logs: Vec<PathBuf>,

    /// The format
    #[arg(long, value_enum)]
    to: Format,

    /// The file to write; `-` is standard output
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    output: PathBuf,

    /// Which memory
    #[arg(long, value_enum, default_value_t)]
    kind: SiteKind,

    /// The figure that folded stacks carry; the other formats have them all
    #[arg(long, value_enum, default_value_t = Measure::Bytes)]
    by: Measure,

    #[command(flatten)]
    names: NameOptions,
}

/// A file format.
#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// Folded stacks, one line each: flamegraph.pl, inferno
    Folded,
    /// speedscope's JSON
    Speedscope,
    /// pprof's gzipped protobuf, with alloc and inuse values
    Pprof,
}

/// Writes the export.
pub(crate) fn run(args: &Args) -> anyhow::Result<u8> {
    let profile = Profile::read(&args.logs, args.kind.into(), &args.names)?;
    write_to(&args.output, |out| match args.to {
        Format::Folded => {
            for line in folded::lines(&profile, args.by) {
                writeln!(out, "{line}")?;
            }
            Ok(())
        }
        Format::Speedscope => {
            let document = speedscope::document(&profile, &profile.title);
            writeln!(out, "{}", visible(&document.to_string()))
        }
        Format::Pprof => pprof::write(&profile, out),
    })?;
    for note in &profile.notes {
        say(note);
    }
    Ok(exit::OK)
}

/// Writes a document to `path`, or to standard output for `-`.
pub(crate) fn write_to(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> anyhow::Result<()> {
    if path == Path::new("-") {
        let mut out = BufWriter::new(io::stdout().lock());
        write(&mut out)
            .and_then(|()| out.flush())
            .context("standard output")
    } else {
        let written = File::create(path).and_then(|file| {
            let mut out = BufWriter::new(file);
            write(&mut out).and_then(|()| out.flush())
        });
        written.with_context(|| format!("can't write {}", show(path)))
    }
}
