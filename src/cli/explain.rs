//! `memspy explain`: the story of a process's memory, one kernel call after the other.

mod group;
mod json;
mod prose;
mod text;

use std::io::{self, Write as _};
use std::path::PathBuf;

use memspy_analysis::replay::replay;
use memspy_analysis::space::{Picture, Space, Story, View};

use crate::callers::Callers;
use crate::exit;
use crate::naming::NameOptions;
use crate::one_log;
use crate::terminal;
use group::Group;
use text::Text;

/// Tell why each kernel call for memory was made.
///
/// Each call with what the program had asked for, and the rule by which malloc chose it; calls that tell the same are told
/// once. The rules are those of glibc's malloc with its default settings; a call that does not follow them is reported as
/// such.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  memspy explain memspy.cat.4711.jsonl
  memspy explain --all --depth 20 memspy.app.4711.jsonl      every call, long stacks
  memspy explain --json memspy.cat.4711.jsonl | jq '.calls[] | [.call, .reason]'")]
pub(crate) struct Args {
    /// A log, or a directory with one; `-` is standard input
    #[arg(value_name = "LOG")]
    log: PathBuf,

    /// How many entries to show, the first ones; 0 shows all [default: 40, or all with --all]
    #[arg(long, value_name = "N")]
    top: Option<usize>,

    /// Show each call by itself, not those of one function, reason and site together; equal ones in a row stay one entry
    #[arg(long)]
    all: bool,

    /// How many functions of a stack to show; 0 shows all
    #[arg(long, value_name = "N", default_value_t = 6)]
    depth: usize,

    /// Print one JSON document
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    names: NameOptions,
}

impl Args {
    /// The most entries.
    fn most(&self) -> usize {
        limit(self.top.unwrap_or(if self.all { 0 } else { TOP }))
    }
}

/// Entries that are shown unless the user says otherwise.
const TOP: usize = 40;

/// What is told.
struct Told {
    story: Story,
    view: View,
}

impl Told {
    /// The calls, as they are to be shown.
    fn groups(&self, each: bool) -> Vec<Group<'_>> {
        let chapters = &self.story.chapters;
        if each {
            Group::of_each(chapters)
        } else {
            Group::of_equal(chapters, &self.view.outcome.memory)
        }
    }
}

/// Prints the report.
pub(crate) fn run(args: &Args) -> anyhow::Result<u8> {
    let log = one_log::open(&args.log)?;
    let mut story = Story::default();
    let mut watch = (&mut story, Space::default());
    let outcome = replay(&log, &mut watch)?;
    let space = watch.1;
    story.finish();
    let picture = Picture::at_end(&space, &outcome);
    let view = View {
        picture,
        space,
        outcome,
    };
    let told = Told { story, view };
    let mut groups = told.groups(args.all || args.json);
    let more = groups.split_off(args.most().min(groups.len()));
    let highest = told.view.picture.heap.highest;
    let stacks = groups
        .iter()
        .map(|group| group.first.stack)
        .chain(highest.map(|highest| highest.block.stack));
    let callers = Callers::find(&log, &told.view.outcome.memory, stacks, &args.names);
    let mut out = io::stdout().lock();
    if args.json {
        let document = json::document(&log, &told, &groups, &callers);
        out.write_all(terminal::document(&document)?.as_bytes())?;
    } else {
        let text = Text {
            title: &one_log::title(&log),
            told: &told,
            groups: &groups,
            more: more.iter().map(Group::times).sum(),
            callers: &callers,
            depth: limit(args.depth),
        }
        .report();
        out.write_all(text.as_bytes())?;
    }
    one_log::warn(&log, &told.view.outcome);
    Ok(exit::OK)
}

/// A number on the command line where 0 means all.
fn limit(number: usize) -> usize {
    if number == 0 { usize::MAX } else { number }
}
