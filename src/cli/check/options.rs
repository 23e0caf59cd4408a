//! The options of `memspy check`, and the files that they name.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::Context as _;
use clap::ValueEnum;
use memspy_analysis::verdict::suppression::{Suppression, Syntax, parse};
use memspy_analysis::verdict::{Baseline, Budgets, Evidence, KindSet, parse_count};

use super::report::Format;
use crate::naming::NameOptions;
use crate::terminal::show;
use crate::window::WindowOptions;
use crate::{run, shim_file, size};

/// Run a program with leak checks, or judge its logs, and gate a CI by the exit code
///
/// Every process of the program's tree is checked when it ends: which blocks does nothing point at any more? Nothing
/// but the verdict is memspy's: the program's output, its exit status if it failed, its speed as far as possible.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  memspy check -- ./tests
  memspy check --suppressions known.supp --max-peak 64MiB -- ./tests
  memspy check --baseline leaks.json --format github --output sarif=leaks.sarif -- make test
  LD_PRELOAD=$(memspy shim-path) MEMSPY_MODE=leaks ./tests; memspy check memspy.*.jsonl
  memspy check --since warmed-up --until after-load logs/

Exit code:
  the program's own   when the program failed
  23                  the program did well, leaks (or a budget) fail the check
  125                 memspy could not judge: it was killed, a log is incomplete, no log, a bad option or file
  126, 127            the program can't be executed, there is no such program
  0                   everything was judged and nothing was found")]
pub(crate) struct Args {
    /// Logs, or directories of logs, of mode leaks or full
    #[arg(
        value_name = "LOG",
        conflicts_with = "command",
        required_unless_present = "command"
    )]
    pub(super) logs: Vec<PathBuf>,

    /// The program and its arguments
    #[arg(last = true, value_name = "CMD")]
    pub(super) command: Vec<OsString>,

    /// Kinds that fail the check: definite, indirect, possible, reachable, mapping, all, none
    #[arg(
        long,
        value_name = "KINDS",
        default_value = "definite,indirect,possible"
    )]
    pub(super) fail_on: KindSet,

    /// Kinds that are listed with their stacks [default: those of --fail-on, and mapping]
    #[arg(long, value_name = "KINDS")]
    show: Option<KindSet>,

    /// Leaks to accept, in LeakSanitizer's or Valgrind's syntax; may be given several times
    #[arg(long, value_name = "FILE")]
    suppressions: Vec<PathBuf>,

    /// A suppression that matches nothing fails the check
    #[arg(long)]
    pub(super) fail_on_unused: bool,

    /// Write a suppression for each leak that fails the check; to standard output without =FILE
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true, default_missing_value = "-")]
    pub(super) gen_suppressions: Option<PathBuf>,

    /// The syntax of generated suppressions
    #[arg(long, value_name = "SYNTAX", default_value = "valgrind")]
    pub(super) suppression_syntax: SyntaxName,

    /// Known leaks: only new ones and ones that grew fail the check
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,

    /// Write the leaks that are there now as a baseline (changes no exit code)
    #[arg(long, value_name = "FILE")]
    pub(super) write_baseline: Option<PathBuf>,

    /// Leaks up to this are accepted: a size (64KiB), or a number of blocks (10blocks)
    #[arg(long, value_name = "SIZE|COUNT", value_parser = Leaked::from_str)]
    max_leaked: Vec<Leaked>,

    /// Most bytes that may be live in the heap at one time, such as 64MiB
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    max_peak: Option<u64>,

    /// Most allocation calls
    #[arg(long, value_name = "COUNT", value_parser = parse_count)]
    max_allocs: Option<u64>,

    /// Most mmap calls that the program makes itself
    #[arg(long, value_name = "COUNT", value_parser = parse_count)]
    max_mmaps: Option<u64>,

    /// Hold each process to the limits, not the tree as a whole
    #[arg(long)]
    per_process: bool,

    /// Leave processes of this program (the last part of its path, or the name it was called by) out of the verdict
    #[arg(long, value_name = "PROGRAM")]
    skip: Vec<String>,

    /// The code to end with when the program did well and the verdict is bad
    #[arg(long, value_name = "CODE", default_value_t = 23)]
    pub(super) leak_exit_code: u8,

    /// The report: text goes to standard error, the others to standard output, after the program's own output
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub(super) format: Format,

    /// Also write a report to a file, such as sarif=leaks.sarif; may be given several times
    #[arg(long, value_name = "FORMAT=FILE", value_parser = Output::from_str)]
    pub(super) output: Vec<Output>,

    /// The directory to which source paths are relative in reports [default: the current one]
    #[arg(long, value_name = "DIR")]
    source_root: Option<PathBuf>,

    /// Keep the program's logs in this directory [default: they are removed]
    #[arg(long, value_name = "DIR")]
    pub(super) logs_in: Option<PathBuf>,

    #[command(flatten)]
    pub(super) window: WindowOptions,

    #[command(flatten)]
    pub(super) names: NameOptions,

    #[command(flatten)]
    pub(super) settings: run::Settings,

    #[command(flatten)]
    pub(super) shim: shim_file::Choice,
}

/// The name of a suppression syntax.
#[derive(Clone, Copy, ValueEnum)]
pub(super) enum SyntaxName {
    /// As precise as the stack
    Valgrind,
    /// One line, by function
    Lsan,
}

impl From<SyntaxName> for Syntax {
    fn from(name: SyntaxName) -> Syntax {
        match name {
            SyntaxName::Valgrind => Syntax::Valgrind,
            SyntaxName::Lsan => Syntax::Lsan,
        }
    }
}

/// A limit on leaks.
#[derive(Clone, Copy)]
enum Leaked {
    Bytes(u64),
    Blocks(u64),
}

impl FromStr for Leaked {
    type Err = String;

    fn from_str(text: &str) -> Result<Leaked, String> {
        match text
            .strip_suffix("blocks")
            .or_else(|| text.strip_suffix("block"))
        {
            Some(count) => parse_count(count)
                .map(Leaked::Blocks)
                .map_err(|error| error.to_string()),
            None => size::parse(text).map(Leaked::Bytes),
        }
    }
}

/// A report that goes to a file.
#[derive(Clone)]
pub(super) struct Output {
    pub(super) format: Format,
    pub(super) file: PathBuf,
}

impl FromStr for Output {
    type Err = String;

    fn from_str(text: &str) -> Result<Output, String> {
        let (format, file) = text
            .split_once('=')
            .filter(|(_, file)| !file.is_empty())
            .ok_or("expected FORMAT=FILE, such as sarif=leaks.sarif")?;
        Ok(Output {
            format: Format::from_str(format, false)?,
            file: file.into(),
        })
    }
}

impl Args {
    /// Kinds that are listed for people.
    pub(super) fn shown_kinds(&self) -> KindSet {
        self.show
            .unwrap_or(self.fail_on.with(memspy_analysis::verdict::Kind::Mapping))
    }

    /// Whether the user left this program out.
    pub(super) fn skips(&self, program: &str) -> bool {
        self.skip.iter().any(|skipped| skipped == program)
    }

    /// The limits.
    pub(super) fn budgets(&self) -> Budgets {
        let mut budgets = Budgets {
            peak_bytes: self.max_peak,
            allocs: self.max_allocs,
            mmaps: self.max_mmaps,
            per_process: self.per_process,
            ..Budgets::default()
        };
        for limit in &self.max_leaked {
            match limit {
                Leaked::Bytes(bytes) => budgets.leaked_bytes = Some(*bytes),
                Leaked::Blocks(blocks) => budgets.leaked_blocks = Some(*blocks),
            }
        }
        budgets
    }

    /// Whether nothing but budgets is asked of logs that can answer nothing else.
    pub(super) fn asks_only_for_budgets(&self, evidence: &[Evidence]) -> bool {
        let budgets = self.budgets();
        let about_leaks = budgets.limit_leaks()
            || self.baseline.is_some()
            || self.write_baseline.is_some()
            || !self.suppressions.is_empty();
        let only_events = evidence.iter().all(|one| one.events_only) && !evidence.is_empty();
        only_events && budgets.need_events() && !about_leaks
    }

    /// The absolute directory of the sources.
    pub(super) fn source_root(&self) -> anyhow::Result<PathBuf> {
        let root = self.source_root.as_deref().unwrap_or(Path::new("."));
        fs::canonicalize(root).with_context(|| format!("can't use the source root {}", show(root)))
    }

    /// Every entry of every suppression file.
    pub(super) fn read_suppressions(&self) -> anyhow::Result<Vec<Suppression>> {
        let mut entries = Vec::new();
        for path in &self.suppressions {
            let text = read_text(path, "suppressions")?;
            entries.extend(parse(&path.to_string_lossy(), &text)?);
        }
        Ok(entries)
    }

    /// The baseline, if one is given.
    pub(super) fn read_baseline(&self) -> anyhow::Result<Option<Baseline>> {
        let Some(path) = &self.baseline else {
            return Ok(None);
        };
        let text = read_text(path, "baseline")?;
        // The error begins with line and column where it has some.
        let baseline =
            Baseline::parse(&text).map_err(|error| anyhow::anyhow!("{}:{error}", show(path)))?;
        Ok(Some(baseline))
    }
}

fn read_text(path: &Path, what: &str) -> anyhow::Result<String> {
    let bytes = fs::read(path).with_context(|| format!("can't read the {what} {}", show(path)))?;
    String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
        anyhow::anyhow!("{}:{line}: the {what} are not UTF-8 text", show(path))
    })
}
