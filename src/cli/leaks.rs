//! `memspy leaks`: what a process had not given back when its log ended, by call stack.
//!
//! A log with leak checks knows the kinds. A plain event log does not: of a block that was not
//! freed it can't tell whether anything still pointed at it, and the report says so.

use std::collections::HashMap;
use std::io::{self, Write as _};
use std::path::PathBuf;

use memspy_analysis::call_tree::{CallTree, NodeId, Translation};
use memspy_analysis::event::StackId;
use memspy_analysis::log::Log;
use memspy_analysis::printable;
use memspy_analysis::verdict::{Evidence, Frame, Totals};
use serde_json::{Value, json};

use crate::check::{frames, visible};
use crate::naming::{NameOptions, Naming};
use crate::terminal::{clean, say};
use crate::{amount, exit};

/// Show what was not freed
///
/// Of logs recorded with leak checks (MEMSPY_MODE=leaks or full) the kinds are told: definite, indirect, possible,
/// reachable. memspy check gates on them.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  memspy leaks memspy.app.4711.jsonl
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
    stack: NodeId,
}

/// Reads the logs and prints.
pub(crate) fn run(args: &Args) -> anyhow::Result<u8> {
    let mut tree = CallTree::default();
    let mut processes = Vec::new();
    for log in Log::open_all(&args.logs)? {
        let evidence = Evidence::read(&log)?;
        processes.push(Unfreed::of(evidence, &mut tree));
    }
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
            let mut live: HashMap<(StackId, bool), Totals> = HashMap::new();
            for (_, block) in evidence.memory.heap.live() {
                // An inherited block's stack is a number of the parent's log.
                let stack = if block.inherited { 0 } else { block.stack };
                let totals = live.entry((stack, block.inherited)).or_default();
                totals.bytes = totals.bytes.saturating_add(block.size);
                totals.blocks += 1;
            }
            let group = |((stack, inherited), totals)| Group {
                kind: None,
                inherited,
                totals,
                stack: add(stack),
            };
            live.into_iter().map(group).collect()
        } else {
            let leaks = evidence.process.leaks.iter().zip(&evidence.stacks);
            let group = |(leak, stack): (&memspy_analysis::verdict::Leak, &StackId)| Group {
                kind: Some(leak.kind.name()),
                inherited: leak.inherited,
                totals: Totals {
                    bytes: leak.bytes,
                    blocks: leak.blocks,
                },
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
}

impl Report<'_> {
    fn text(&self, unfreed: &Unfreed, shown: usize) -> String {
        let process = &unfreed.evidence.process;
        let (program, total) = (clean(&process.program), unfreed.total());
        let mut out = format!(
            "{program} (pid {}): {} not freed\n",
            process.pid,
            words(total)
        );
        if unfreed.evidence.events_only {
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
            json!({
                "kind": group.kind,
                "bytes": group.totals.bytes,
                "blocks": group.totals.blocks,
                "inherited": group.inherited,
                "stack": stack.collect::<Vec<_>>(),
            })
        });
        json!({
            "pid": process.pid,
            "program": printable(process.program.as_bytes()),
            "log": process.log,
            "kinds_known": !unfreed.evidence.events_only,
            "doubts": process.doubts,
            "bytes": total.bytes,
            "blocks": total.blocks,
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
