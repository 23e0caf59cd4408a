//! `memspy leaks`: what a process had not given back when its log ended, by call stack.
//!
//! A log with leak checks knows the kinds. A plain event log does not: of a block that was not
//! freed it can't tell whether anything still pointed at it, and the report says so.

use std::io::{self, Write as _};
use std::path::PathBuf;

use memspy_analysis::call_tree::{CallTree, NodeId, Translation};
use memspy_analysis::event::StackId;
use memspy_analysis::log::Log;
use memspy_analysis::printable;
use memspy_analysis::verdict::{Evidence, Frame, Held, Point, Totals, growing};
use serde_json::{Value, json};

use crate::check::frames;
use crate::naming::{NameOptions, Naming};
use crate::terminal::{clean, say, visible};
use crate::window::WindowOptions;
use crate::{amount, exit};

/// Show what was not freed
///
/// Of logs recorded with leak checks (MEMSPY_MODE=leaks or full) the kinds are told: definite, indirect, possible,
/// reachable. memspy check gates on them.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  memspy leaks memspy.app.4711.jsonl
  memspy leaks --since before --until after logs/       between two snapshots of a service
  memspy leaks --growing logs/                          what grew from each snapshot to the next
  memspy leaks --top 0 --json logs/ | jq '.processes[].groups[].bytes'")]
pub(crate) struct Args {
    /// Logs, or directories of logs; `-` is standard input
    #[arg(required = true, value_name = "LOG")]
    logs: Vec<PathBuf>,

    /// How many call stacks of each process to show; 0 shows all
    #[arg(long, value_name = "N", default_value_t = 10)]
    top: usize,

    /// Print one JSON document
    #[arg(long)]
    json: bool,

    /// Show the call stacks that held more at each snapshot (in a log of events: at each mark) than at the one before:
    /// the sign of a leak in a service, whether anything still points at the blocks or not
    #[arg(long, conflicts_with_all = ["since", "until"])]
    growing: bool,

    #[command(flatten)]
    window: WindowOptions,

    #[command(flatten)]
    names: NameOptions,
}

/// What one process had not given back.
struct Unfreed {
    evidence: Evidence,
    /// Most bytes first.
    groups: Vec<Group>,
}

/// Blocks of one call stack, and of one kind where kinds are known.
struct Group {
    kind: Option<&'static str>,
    inherited: bool,
    totals: Totals,
    /// What it held at each point; only of what grows.
    at_points: Vec<Totals>,
    stack: NodeId,
}

/// Reads the logs and prints.
pub(crate) fn run(args: &Args) -> anyhow::Result<u8> {
    let mut tree = CallTree::default();
    let window = args.window.window();
    let read = Log::each(&args.logs)?.map(|log| Evidence::read(&log?, &window));
    let evidence: Vec<Evidence> = read.collect::<Result<_, _>>()?;
    for note in args.window.left_out(&evidence)? {
        say(&note);
    }
    let there = evidence.into_iter().filter(|one| one.lacks.is_none());
    let processes: Vec<Unfreed> = there
        .map(|one| match args.growing {
            true => Unfreed::growing(one, &mut tree),
            false => Unfreed::of(one, &mut tree),
        })
        .collect();
    let shown = |unfreed: &Unfreed| match args.top {
        0 => unfreed.groups.len(),
        top => top.min(unfreed.groups.len()),
    };
    let stacks = processes
        .iter()
        .flat_map(|one| one.groups.iter().take(shown(one)));
    let wanted = stacks.flat_map(|group| tree.path(group.stack));
    let recorded = processes.iter().map(|one| one.evidence.unix_ns).min();
    let naming = Naming::find(&tree, wanted, &args.names, recorded);
    let report = Report {
        tree: &tree,
        naming: &naming,
        growing: args.growing,
    };
    let text = if args.json {
        let processes = processes.iter().map(|one| report.json(one, shown(one)));
        let document = json!({"schema": 1, "processes": processes.collect::<Vec<_>>()});
        visible(&document.to_string()) + "\n"
    } else {
        processes
            .iter()
            .map(|one| report.text(one, shown(one)))
            .collect()
    };
    io::stdout().write_all(text.as_bytes())?;
    naming.notes().iter().for_each(|note| say(note));
    Ok(exit::OK)
}

impl Unfreed {
    /// The groups of a leak check where the log has one, else what its events left live.
    fn of(evidence: Evidence, tree: &mut CallTree) -> Unfreed {
        let mut done = Translation::default();
        let mut add = |stack: StackId| tree.add(&evidence.memory, &mut done, stack);
        let mut groups: Vec<Group> = if evidence.events_only {
            let group = |held: &Held| Group {
                kind: None,
                inherited: held.inherited,
                totals: held.totals,
                at_points: Vec::new(),
                stack: add(held.stack),
            };
            evidence.live.iter().map(group).collect()
        } else {
            let leaks = evidence.process.leaks.iter().zip(&evidence.stacks);
            let group = |(leak, stack): (&memspy_analysis::verdict::Leak, &StackId)| Group {
                kind: Some(leak.kind.name()),
                inherited: leak.inherited,
                totals: Totals {
                    bytes: leak.bytes,
                    blocks: leak.blocks,
                },
                at_points: Vec::new(),
                stack: add(*stack),
            };
            leaks.map(group).collect()
        };
        groups.sort_by_key(|group| {
            (
                std::cmp::Reverse(group.totals.bytes),
                group.kind,
                group.stack,
                group.inherited,
            )
        });
        Unfreed { evidence, groups }
    }

    /// What held more at each point than at the one before.
    fn growing(evidence: Evidence, tree: &mut CallTree) -> Unfreed {
        let mut done = Translation::default();
        let groups = growing(&evidence.points).into_iter().map(|growth| Group {
            kind: None,
            inherited: false,
            totals: growth.totals.last().copied().unwrap_or_default(),
            stack: tree.add(&evidence.memory, &mut done, growth.stack),
            at_points: growth.totals,
        });
        let groups = groups.collect();
        Unfreed { evidence, groups }
    }

    fn total(&self) -> Totals {
        self.groups
            .iter()
            .fold(Totals::default(), |sum, group| Totals {
                bytes: sum.bytes.saturating_add(group.totals.bytes),
                blocks: sum.blocks.saturating_add(group.totals.blocks),
            })
    }
}

/// The two forms of the answer.
struct Report<'a> {
    tree: &'a CallTree,
    naming: &'a Naming<'a>,
    growing: bool,
}

impl Report<'_> {
    fn text(&self, unfreed: &Unfreed, shown: usize) -> String {
        let process = &unfreed.evidence.process;
        let program = clean(&process.program);
        let mut out = format!("{program} (pid {}): ", process.pid);
        if self.growing {
            out.push_str(&points_text(&unfreed.evidence.points));
        } else {
            out.push_str(&format!("{} not freed\n", words(unfreed.total())));
        }
        if unfreed.evidence.events_only && !self.growing {
            out.push_str(
                "its log has events alone, so nothing tells whether these blocks are lost or still \
                 in use: memspy check -- CMD does\n",
            );
        }
        for doubt in &process.doubts {
            out.push_str(&format!("beware: {}\n", clean(doubt)));
        }
        for group in unfreed.groups.iter().take(shown) {
            out.push_str(&format!("\n{}", words(group.totals)));
            for totals in group.at_points.iter().rev().skip(1) {
                out.push_str(&format!(", before {}", words(*totals)));
            }
            out.extend(group.kind.map(|kind| format!(", {kind}")));
            out.push_str(if group.inherited {
                ", inherited from the parent\n"
            } else {
                "\n"
            });
            for (number, frame) in self.frames(group).iter().enumerate() {
                let place = match (&frame.file, frame.line, &frame.module) {
                    (Some(file), Some(line), _) => format!("{file}:{line}"),
                    (_, _, Some(module)) => format!("in {module}"),
                    _ => "in no known module".into(),
                };
                let (label, place) = (clean(&frame.label()), clean(&place));
                out.push_str(&format!("    #{number:<2} {label} ({place})\n"));
            }
        }
        let more = unfreed.groups.len() - shown;
        if more > 0 {
            out.push_str(&format!(
                "\n… and {more} more call stacks; --top 0 shows all\n"
            ));
        }
        out.push('\n');
        out
    }

    fn json(&self, unfreed: &Unfreed, shown: usize) -> Value {
        let (process, total) = (&unfreed.evidence.process, unfreed.total());
        let groups = unfreed.groups.iter().take(shown).map(|group| {
            let stack = self.frames(group).into_iter().map(|frame| {
                json!({
                    "function": frame.function,
                    "module": frame.module,
                    "file": frame.file,
                    "line": frame.line,
                    "address": format!("{:#x}", frame.address),
                    "inlined": frame.inlined,
                })
            });
            let at_points = group.at_points.iter();
            let at_points = at_points.map(|at| json!({"bytes": at.bytes, "blocks": at.blocks}));
            json!({
                "kind": group.kind,
                "bytes": group.totals.bytes,
                "blocks": group.totals.blocks,
                "inherited": group.inherited,
                "at_points": at_points.collect::<Vec<_>>(),
                "stack": stack.collect::<Vec<_>>(),
            })
        });
        let points = unfreed
            .evidence
            .points
            .iter()
            .map(|point| json!({"mark": printable(&point.mark), "t": point.t}));
        json!({
            "pid": process.pid,
            "program": printable(process.program.as_bytes()),
            "log": process.log,
            "kinds_known": !unfreed.evidence.events_only,
            "doubts": process.doubts,
            "bytes": total.bytes,
            "blocks": total.blocks,
            "points": points.collect::<Vec<_>>(),
            "groups_in_all": unfreed.groups.len(),
            "groups": groups.collect::<Vec<_>>(),
        })
    }

    fn frames(&self, group: &Group) -> Vec<Frame> {
        let places = self.tree.path(group.stack);
        places
            .flat_map(|place| frames(self.tree, self.naming, place))
            .collect()
    }
}

/// `what grew in each of 2 windows: a, b, c`
fn points_text(points: &[Point]) -> String {
    if points.len() < 2 {
        let found = points.len();
        return format!(
            "growth needs at least two snapshots (memspy snapshot PID), its log has {found}\n"
        );
    }
    let names: Vec<String> = points
        .iter()
        .map(|point| clean(&printable(&point.mark)))
        .collect();
    let windows = match points.len() - 1 {
        1 => "the only window, which proves little".to_owned(),
        windows => format!("each of {windows} windows"),
    };
    format!("what grew in {windows}: {}\n", names.join(", "))
}

/// `1,024 bytes in 2 blocks`
fn words(totals: Totals) -> String {
    let s = |number: u64| if number == 1 { "" } else { "s" };
    let (bytes, blocks) = (totals.bytes, totals.blocks);
    let (some_bytes, some_blocks) = (amount::count(bytes), amount::count(blocks));
    format!(
        "{some_bytes} byte{} in {some_blocks} block{}",
        s(bytes),
        s(blocks)
    )
}
