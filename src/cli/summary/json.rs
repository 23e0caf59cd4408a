//! The summary as one JSON document; `summary.schema.json` describes it.

use memspy_analysis::summary::{Summary, Totals};
use memspy_analysis::tree::{Origin, Tree};
use serde::Serialize;

use crate::sites::TopSite;
use crate::terminal;

/// The version of the document's form.
const SCHEMA: u32 = 1;

#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    logs: Vec<Entry<'a>>,
    totals: Totals,
    sites: &'a [TopSite],
}

#[derive(Serialize)]
struct Entry<'a> {
    origin: &'static str,
    from: Option<usize>,
    #[serde(flatten)]
    summary: &'a Summary,
}

/// The document about logs and their largest call sites, with its newline.
pub(super) fn document(summaries: &[Summary], sites: &[TopSite]) -> serde_json::Result<String> {
    let starts: Vec<_> = summaries
        .iter()
        .map(|summary| summary.process.as_ref())
        .collect();
    let tree = Tree::of(&starts);
    let mut totals = Totals::default();
    let mut logs = Vec::new();
    for (summary, origin) in summaries.iter().zip(&tree.origins) {
        totals.merge(&summary.totals);
        let (origin, from) = match *origin {
            Origin::Root => ("root", None),
            Origin::Child(parent) => ("child", Some(parent)),
            Origin::Exec(before) => ("exec", Some(before)),
        };
        logs.push(Entry {
            origin,
            from,
            summary,
        });
    }
    let document = Document {
        schema: SCHEMA,
        logs,
        totals,
        sites,
    };
    terminal::document(&document)
}
