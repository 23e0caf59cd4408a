//! The answer of `memspy sites`, as its JSON document has it; the text is made from the same.

use memspy_analysis::event::Cut;
use memspy_analysis::model::Level;
use memspy_analysis::printable;
use memspy_analysis::site::{Figures, Kind, Site, Taken};
use serde::Serialize;

use super::group::Group;
use super::source_line::SourceLines;
use super::{Args, By, Sort};
use crate::naming::{Naming, Unnamed};
use crate::site_logs::SiteLogs;

/// The document. Every string in it is safe to print.
#[derive(Serialize)]
pub(crate) struct Report {
    schema: u32,
    /// Whether the logs have every event.
    pub(crate) complete: bool,
    /// Which programs.
    pub(crate) programs: String,
    /// Which memory.
    pub(crate) kind: Kind,
    pub(crate) by: By,
    pub(crate) sort: Sort,
    /// Further allocations before which a short-lived block is freed.
    pub(crate) short: u64,
    /// Whether the logs have call stacks.
    pub(crate) stacks: bool,
    /// Over all sites.
    pub(crate) total: Figures,
    /// What the programs mapped by their own calls, counted in `total` or not.
    pub(crate) program_mapped: Level,
    pub(crate) sites: Vec<Entry>,
    /// Sites that are not shown.
    pub(crate) left_out: usize,
    /// Modules whose names are missing or poor.
    unnamed: Vec<Unnamed>,
    /// The same, shorter.
    #[serde(skip)]
    pub(crate) notes: Vec<String>,
}

/// One site, or several of one name.
#[derive(Serialize)]
pub(crate) struct Entry {
    #[serde(flatten)]
    pub(crate) figures: Figures,
    /// How its memory was taken; of a group of sites of both kinds: missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) taken: Option<Taken>,
    /// Of a group: its name, and how many sites it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sites: Option<u64>,
    /// Without a stack: the call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) call: Option<Call>,
    /// Innermost first, as many as were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) stack: Option<Vec<Line>>,
    /// Functions of the stack that are not shown.
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) deeper: usize,
    /// Why the recorder did not follow the stack to its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cut: Option<&'static str>,
}

/// A call without a stack.
#[derive(Serialize)]
pub(crate) struct Call {
    pub(crate) op: &'static str,
    pub(crate) size: u64,
}

/// One function of a stack.
#[derive(Serialize)]
pub(crate) struct Line {
    /// `None`: no name is known.
    pub(crate) function: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) line: Option<u32>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) inlined: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) source: Option<String>,
    /// File name of the executable or library.
    pub(crate) module: Option<String>,
    /// `libx.so+0x1234`: one byte before the return address, as it stands in the module's file.
    pub(crate) address: String,
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

impl Report {
    /// The sites with the indices `order`.
    pub(crate) fn by_stack(
        args: &Args,
        logs: &SiteLogs,
        order: &[usize],
        naming: &Naming,
    ) -> Report {
        let list = logs.sites.list();
        let mut lines = SourceLines::default();
        let entries = order
            .iter()
            .map(|&site| entry(args, logs, &list[site], naming, &mut lines));
        Report {
            sites: entries.collect(),
            left_out: list.len() - order.len(),
            ..Report::head(args, logs, naming)
        }
    }

    /// The groups, the first ones of them.
    pub(crate) fn by_name(
        args: &Args,
        logs: &SiteLogs,
        groups: Vec<Group>,
        naming: &Naming,
    ) -> Report {
        let shown = if args.extent.top == 0 {
            groups.len()
        } else {
            args.extent.top.min(groups.len())
        };
        let left_out = groups.len() - shown;
        let entry = |group: Group| Entry {
            figures: group.figures,
            taken: group.taken,
            name: Some(group.name),
            sites: Some(group.sites),
            call: None,
            stack: None,
            deeper: 0,
            cut: None,
        };
        let sites = groups.into_iter().take(shown).map(entry).collect();
        Report {
            sites,
            left_out,
            ..Report::head(args, logs, naming)
        }
    }

    fn head(args: &Args, logs: &SiteLogs, naming: &Naming) -> Report {
        Report {
            schema: 1,
            complete: logs.complete,
            programs: logs.title(),
            kind: logs.sites.kind(),
            by: args.grouping.by,
            sort: args.sort,
            short: args.short,
            stacks: logs.sites.have_stacks(),
            total: logs.sites.total(),
            program_mapped: logs.sites.program_mapped(),
            sites: Vec::new(),
            left_out: 0,
            unnamed: naming.unnamed(),
            notes: naming.notes(),
        }
    }
}

fn entry(
    args: &Args,
    logs: &SiteLogs,
    site: &Site,
    naming: &Naming,
    lines: &mut SourceLines,
) -> Entry {
    let tree = &logs.sites.tree;
    let mut stack: Vec<Line> = Vec::new();
    let depth = if args.extent.depth == 0 {
        usize::MAX
    } else {
        args.extent.depth
    };
    let mut deeper = 0;
    for place in tree.path(site.stack) {
        let mut functions = stack_lines(place, naming);
        let room = (depth - stack.len().min(depth)).min(functions.len());
        deeper += functions.len() - room;
        functions.truncate(room);
        stack.append(&mut functions);
    }
    if args.source {
        for line in &mut stack {
            let place = line.file.as_deref().zip(line.line);
            line.source =
                place.and_then(|(file, number)| lines.line(&args.names.in_sysroot(file), number));
        }
    }
    Entry {
        figures: site.figures,
        taken: Some(site.taken),
        name: None,
        sites: None,
        call: site.call.map(|call| Call {
            op: call.op.name(),
            size: call.size,
        }),
        stack: site.stack.is_some().then_some(stack),
        deeper,
        cut: tree.cut(site.stack).map(|cut| match cut {
            Cut::Depth => "depth",
            Cut::Bounds => "bounds",
            Cut::Unwind => "unwind",
            Cut::Other => "other",
        }),
    }
}

/// The functions at one place.
fn stack_lines(place: usize, naming: &Naming) -> Vec<Line> {
    let line = |function, file, line, inlined| Line {
        function,
        file,
        line,
        inlined,
        source: None,
        module: naming.module(place),
        address: naming.address(place),
    };
    let frames = naming.frames(place);
    if frames.is_empty() {
        return vec![line(None, None, None, false)];
    }
    let text = |text: &String| printable(text.as_bytes());
    frames
        .iter()
        .map(|frame| {
            let (function, file) = (
                frame.function.as_ref().map(text),
                frame.file.as_ref().map(text),
            );
            line(function, file, frame.line, frame.inlined)
        })
        .collect()
}
