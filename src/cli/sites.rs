//! `memspy sites`: which code asked for memory, how much, and what became of it.

mod group;
mod report;
mod source_line;
mod text;
mod top;

use std::cmp::Reverse;
use std::io::{self, Write as _};
use std::path::PathBuf;

use clap::ValueEnum;
use memspy_analysis::site::{Figures, Sites};

use crate::exit;
use crate::naming::{NameOptions, Naming};
use crate::site_kind::SiteKind;
use crate::site_logs::SiteLogs;
use crate::terminal::{self, say};

pub(crate) use group::name as asker_name;
use report::Report;
pub(crate) use top::{TopSite, text as top_text, top};

/// Show which code asked for memory.
///
/// A site is a call stack from which memory was asked for; a log without stacks has one for each call and size. An
/// allocation is a successful call of the malloc family. With --kind mappings, sites are those of the program's own
/// mmap, mremap, brk and sbrk, in whole pages; what malloc takes from the kernel is in its blocks already. At the peak:
/// when the process's heap (or what --kind counts) was largest.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  memspy sites memspy.app.4711.jsonl                        the ten largest, with their stacks
  memspy sites --sort live --source memspy.app.4711.jsonl   what was not freed, with source lines
  memspy sites --by function --top 30 logs/                 all processes of a run, by function
  memspy sites --by function --skip xmalloc --skip g_ LOG   who calls these wrappers of malloc
  memspy sites --kind mappings --sort live LOG              what the program mapped itself and never unmapped
  memspy sites --json memspy.app.4711.jsonl | jq '.sites[].bytes'")]
pub(crate) struct Args {
    /// Logs, or directories of logs; `-` is standard input
    #[arg(required = true, value_name = "LOG")]
    logs: Vec<PathBuf>,

    /// Which memory
    #[arg(long, value_enum, default_value_t)]
    kind: SiteKind,

    #[command(flatten)]
    grouping: Grouping,

    /// What comes first
    #[arg(long, value_enum, default_value_t = Sort::Bytes)]
    sort: Sort,

    #[command(flatten)]
    extent: Extent,

    /// A block is short-lived when it is freed before its thread has made N further allocations; a mapping likewise
    #[arg(long, value_name = "N", default_value_t = 1)]
    short: u64,

    /// Show the lines of source where the files are there
    #[arg(long)]
    source: bool,

    /// Print one JSON document
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    names: NameOptions,
}

/// How sites are put together.
#[derive(clap::Args)]
pub(crate) struct Grouping {
    /// What makes a site
    #[arg(long, value_enum, default_value_t = By::Stack)]
    pub(crate) by: By,

    /// With --by: pass over functions whose names begin with NAME, as over operator new. May be given more than once
    #[arg(long, value_name = "NAME")]
    pub(crate) skip: Vec<String>,
}

/// How much of a report is shown.
#[derive(clap::Args)]
pub(crate) struct Extent {
    /// How many sites to show; 0 shows all
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(crate) top: usize,

    /// How many functions of a stack to show; 0 shows all
    #[arg(long, value_name = "N", default_value_t = 12)]
    pub(crate) depth: usize,
}

/// What makes a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum By {
    /// The whole call stack
    Stack,
    /// The innermost function outside operator new and the standard libraries
    Function,
    /// That function's source file
    File,
    /// That function's executable or library
    Module,
}

/// The order of sites.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Sort {
    /// Bytes asked for
    Bytes,
    /// Number of calls that succeeded
    Count,
    /// Bytes live at the peak
    Peak,
    /// Bytes not given back at the end
    Live,
    /// Number of short-lived blocks or mappings
    Short,
    /// Number of failed calls
    Failures,
}

impl Sort {
    /// The figure of a site that the order goes by.
    pub(crate) fn of(self, figures: &Figures) -> u64 {
        match self {
            Sort::Bytes => figures.bytes,
            Sort::Count => figures.blocks,
            Sort::Peak => figures.peak_bytes,
            Sort::Live => figures.live_bytes,
            Sort::Short => figures.short_lived,
            Sort::Failures => figures.failures,
        }
    }
}

/// Prints the report.
pub(crate) fn run(args: &Args) -> anyhow::Result<u8> {
    let logs = SiteLogs::read(&args.logs, args.kind.into(), args.short)?;
    let report = if args.grouping.by == By::Stack {
        by_stack(args, &logs)
    } else {
        by_name(args, &logs)
    };
    let answer = if args.json {
        terminal::document(&report)?
    } else {
        text::text(&report)
    };
    io::stdout().write_all(answer.as_bytes())?;
    for warning in &logs.warnings {
        say(warning);
    }
    Ok(exit::OK)
}

/// The largest sites by `sort`: their indices in [`Sites::list`]. Sites where the figure is 0 are left out.
fn largest(sites: &Sites, sort: Sort, top: usize) -> Vec<usize> {
    let list = sites.list();
    let mut order: Vec<usize> = (0..list.len())
        .filter(|&site| sort.of(&list[site].figures) > 0)
        .collect();
    // Equal ones in the order of the log.
    order.sort_by_key(|&site| Reverse(sort.of(&list[site].figures)));
    order.truncate(if top == 0 { usize::MAX } else { top });
    order
}

fn by_stack(args: &Args, logs: &SiteLogs) -> Report {
    let sites = &logs.sites;
    let order = largest(sites, args.sort, args.extent.top);
    let wanted = order
        .iter()
        .flat_map(|&site| sites.tree.path(sites.list()[site].stack));
    let naming = Naming::find(&sites.tree, wanted, &args.names, logs.start_unix_ns);
    Report::by_stack(args, logs, &order, &naming)
}

fn by_name(args: &Args, logs: &SiteLogs) -> Report {
    let tree = &logs.sites.tree;
    let naming = Naming::find(
        tree,
        0..tree.places().len(),
        &args.names,
        logs.start_unix_ns,
    );
    let mut groups = group::groups(&logs.sites, &naming, args.grouping.by, &args.grouping.skip);
    groups.retain(|group| args.sort.of(&group.figures) > 0);
    groups.sort_by(|a, b| {
        let size = |group: &group::Group| Reverse(args.sort.of(&group.figures));
        size(a).cmp(&size(b)).then_with(|| a.name.cmp(&b.name))
    });
    Report::by_name(args, logs, groups, &naming)
}
