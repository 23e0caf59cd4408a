//! `memspy snapshot`: a leak check and a picture of the address space of a process that goes on.

use std::collections::BTreeMap;
use std::io::{self, Write as _};

use memspy_analysis::verdict::Kind;
use serde::Deserialize;
use serde_json::json;

use crate::amount::count;
use crate::ask::{Answer, Process, Target, Wish, parse_name};
use crate::exit;
use crate::terminal::{clean, say, show, visible};

/// How often a check is asked for again that met a realloc.
const TRIES: usize = 5;

/// Make a leak check and a picture of the address space of a recorded process, which goes on
///
/// The process stands still for as long as a fork takes; a copy of it looks for leaks and writes what it finds into the
/// process's log. A leak check needs MEMSPY_MODE=leaks or full. The process answers at its next memory call; if it was
/// started with MEMSPY_SIGNAL=USR2 (or another signal that it leaves alone), memspy wakes it by that.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  MEMSPY_MODE=leaks MEMSPY_SIGNAL=USR2 memspy run -o logs -- ./server &
  memspy snapshot 4711 --name before
  memspy snapshot 4711 --name after
  memspy leaks --since before --until after logs/
  memspy leaks --growing logs/             what grew between every two snapshots

Exit code: 0 done (leaks or none), 1 the process can't be asked, 124 it did not answer in time")]
pub(crate) struct Args {
    #[command(flatten)]
    target: Target,

    /// The name of this moment [default: snapshot-1, snapshot-2, …]
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    name: Option<String>,

    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// A `check` or `leak` line.
#[derive(Deserialize)]
struct Line {
    op: String,
    #[serde(default)]
    id: u64,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    blocks: u64,
    #[serde(default)]
    bytes: u64,
    #[serde(default)]
    live_blocks: u64,
    #[serde(default)]
    live_bytes: u64,
    #[serde(default)]
    complete: bool,
    #[serde(default)]
    why: String,
    #[serde(default)]
    pause_ns: u64,
}

/// What the copy found.
struct Found {
    head: Line,
    /// Blocks and bytes of each kind.
    kinds: BTreeMap<&'static str, (u64, u64)>,
}

/// Asks and prints what was found.
///
/// # Errors
/// When the process can't be asked, or does not answer.
pub(crate) fn run(args: &Args) -> anyhow::Result<u8> {
    let process = args.target.find()?;
    let name = args.name.as_deref().unwrap_or_default();
    let mut answer = process.ask(Wish::Snapshot, name)?;
    for _ in 1..TRIES {
        let moved = |found: Found| !found.head.complete && found.head.why.contains("realloc");
        if !found(&answer).is_some_and(moved) {
            break;
        }
        answer = process.ask(Wish::Snapshot, name)?;
    }
    let found = found(&answer);
    let told = if args.json {
        let document = document(&process, &answer, found.as_ref());
        visible(&document.to_string()) + "\n"
    } else {
        text(&process, &answer, found.as_ref())
    };
    io::stdout().write_all(told.as_bytes())?;
    if found.is_none() {
        say("it is recorded without leak checks: those need MEMSPY_MODE=leaks or full");
    }
    Ok(exit::OK)
}

/// Adds the lines up; `None` without a check.
fn found(answer: &Answer) -> Option<Found> {
    let lines = answer.check.split(|byte| *byte == b'\n');
    let mut lines = lines.filter_map(|line| serde_json::from_slice::<Line>(line).ok());
    let head = lines.find(|line| line.op == "check")?;
    let mut kinds = BTreeMap::new();
    for line in lines.filter(|line| line.op == "leak") {
        let Some(kind) = Kind::from_name(&line.kind) else {
            continue;
        };
        let sum: &mut (u64, u64) = kinds.entry(kind.name()).or_default();
        sum.0 = sum.0.saturating_add(line.blocks);
        sum.1 = sum.1.saturating_add(line.bytes);
    }
    Some(Found { head, kinds })
}

fn text(process: &Process, answer: &Answer, found: Option<&Found>) -> String {
    let (mark, log) = (clean(&answer.mark), show(&process.log));
    let mut out = format!(
        "{} (pid {}): {mark} in {log}\n",
        process.program, process.pid
    );
    let Some(Found { head, kinds }) = found else {
        out.push_str("its address space is in the log: memspy maps shows it\n");
        return out;
    };
    let mut row = |what: &str, blocks, bytes| {
        let (blocks, bytes) = (count(blocks), count(bytes));
        out.push_str(&format!(
            "  {what:<10} {blocks:>14} blocks {bytes:>18} bytes\n"
        ));
    };
    row("live", head.live_blocks, head.live_bytes);
    for kind in Kind::ALL {
        if let Some((blocks, bytes)) = kinds.get(kind.name()) {
            row(kind.name(), *blocks, *bytes);
        }
    }
    if !head.complete {
        out.push_str(&format!("beware: {}\n", clean(&head.why)));
    }
    let milliseconds = head.pause_ns as f64 / 1e6;
    out.push_str(&format!(
        "it stood still for {milliseconds:.2} ms; the call stacks: memspy leaks --until '{mark}' {log}\n"
    ));
    out
}

fn document(process: &Process, answer: &Answer, found: Option<&Found>) -> serde_json::Value {
    let check = found.map(|Found { head, kinds }| {
        let kinds = Kind::ALL.into_iter().map(|kind| {
            let (blocks, bytes) = kinds.get(kind.name()).copied().unwrap_or_default();
            (
                kind.name().into(),
                json!({"blocks": blocks, "bytes": bytes}),
            )
        });
        json!({
            "id": head.id,
            "live_blocks": head.live_blocks,
            "live_bytes": head.live_bytes,
            "kinds": kinds.collect::<serde_json::Map<_, _>>(),
            "complete": head.complete,
            "why": head.why,
            "pause_ns": head.pause_ns,
        })
    });
    json!({
        "schema": 1,
        "pid": process.pid,
        "program": process.program,
        "log": process.log.to_string_lossy(),
        "mark": answer.mark,
        "check": check,
    })
}
