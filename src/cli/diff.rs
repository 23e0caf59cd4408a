//! `memspy diff`: which code asks for more memory, or less, than in an earlier recording.

mod change;
mod text;

use std::cmp::Reverse;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use memspy_analysis::site::{Figures, Kind};
use serde::Serialize;

use crate::exit;
use crate::naming::{NameOptions, Naming};
use crate::site_kind::SiteKind;
use crate::site_logs::SiteLogs;
use crate::sites::{By, Extent, Grouping, Sort};
use crate::terminal::{self, say};

use change::Change;

/// Compare two recordings, site by site.
///
/// Sites of the two recordings are the same when their functions have the same names in the same modules: addresses and
/// line numbers, which change with every build, do not count. What has not changed is left out. The exit code does not
/// tell whether there are changes; to fail on what grew, see `memspy check --baseline`.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  memspy diff before/ after/                          two runs, all their processes, by call stack
  memspy diff --by function --sort peak OLD NEW       who made the peak higher
  memspy diff --sort live OLD NEW                     what is not freed any more, or freed now
  memspy diff --json OLD NEW | jq '.sites[] | select(.old.blocks == 0)'
                                                      sites that only the new recording has")]
pub(crate) struct Args {
    /// The earlier recording: a log or a directory of logs
    #[arg(value_name = "OLD")]
    old: PathBuf,

    /// The later one
    #[arg(value_name = "NEW")]
    new: PathBuf,

    /// Which memory to compare
    #[arg(long, value_enum, default_value_t)]
    kind: SiteKind,

    #[command(flatten)]
    grouping: Grouping,

    /// The figure whose change counts: the largest change, up or down, comes first
    #[arg(long, value_enum, default_value_t = Sort::Bytes)]
    sort: Sort,

    #[command(flatten)]
    extent: Extent,

    /// Print one JSON document
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    names: NameOptions,
}

/// The answer, as its JSON document has it. Every string in it is safe to print.
#[derive(Serialize)]
struct Report {
    schema: u32,
    old: Side,
    new: Side,
    kind: Kind,
    by: By,
    sort: Sort,
    sites: Vec<Change>,
    /// Sites with a change that are not shown.
    left_out: usize,
    /// Sites whose figure has not changed.
    unchanged: usize,
    /// Those of them of which another figure has changed.
    changed_otherwise: usize,
    /// How many functions of a stack the text shows.
    #[serde(skip)]
    depth: usize,
    /// Modules whose names are missing or poor, when sites are named.
    notes: Vec<String>,
}

/// One of the two recordings.
#[derive(Serialize)]
struct Side {
    /// Which programs.
    programs: String,
    /// Whether its logs have every event.
    complete: bool,
    /// From the start to the last event of the log that lasted longest, nanoseconds.
    duration_ns: u64,
    /// Over all sites.
    total: Figures,
}

/// Prints the report.
pub(crate) fn run(args: &Args) -> anyhow::Result<u8> {
    let kind = args.kind.into();
    let read = |path: &Path| SiteLogs::read(&[path.to_path_buf()], kind, 1);
    let (old, new) = (read(&args.old)?, read(&args.new)?);
    let report = report(args, &old, &new);
    let answer = if args.json {
        terminal::document(&report)?
    } else {
        text::text(&report)
    };
    io::stdout().write_all(answer.as_bytes())?;
    for warning in old.warnings.iter().chain(&new.warnings) {
        say(warning);
    }
    Ok(exit::OK)
}

fn report(args: &Args, old: &SiteLogs, new: &SiteLogs) -> Report {
    let [before, after] = [old, new].map(|logs| {
        let tree = &logs.sites.tree;
        Naming::find(
            tree,
            0..tree.places().len(),
            &args.names,
            logs.start_unix_ns,
        )
    });
    let sites = change::changes(
        (old, &before),
        (new, &after),
        args.grouping.by,
        &args.grouping.skip,
    );
    let (mut sites, unchanged): (Vec<Change>, Vec<Change>) =
        sites.into_iter().partition(|site| site.by(args.sort) != 0);
    let changed_otherwise = unchanged.iter().filter(|site| site.old != site.new);
    let changed_otherwise = changed_otherwise.count();
    sites.sort_by(|a, b| {
        let size = |site: &Change| Reverse(site.by(args.sort).unsigned_abs());
        size(a).cmp(&size(b)).then_with(|| a.site.cmp(&b.site))
    });
    let changed = sites.len();
    sites.truncate(if args.extent.top == 0 {
        changed
    } else {
        args.extent.top
    });
    let mut notes = Vec::new();
    if !sites.is_empty() {
        notes = before.notes();
        notes.extend(after.notes());
    }
    notes.sort();
    notes.dedup();
    Report {
        schema: 1,
        old: Side::of(old),
        new: Side::of(new),
        kind: args.kind.into(),
        by: args.grouping.by,
        sort: args.sort,
        left_out: changed - sites.len(),
        sites,
        unchanged: unchanged.len(),
        changed_otherwise,
        depth: args.extent.depth,
        notes,
    }
}

impl Side {
    fn of(logs: &SiteLogs) -> Side {
        Side {
            programs: logs.title(),
            complete: logs.complete,
            duration_ns: logs.duration_ns,
            total: logs.sites.total(),
        }
    }
}
