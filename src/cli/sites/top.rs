//! The largest sites in a line each, for reports about something else.

use memspy_analysis::printable;
use memspy_analysis::site::{Figures, Sites};
use memspy_symbol::Frame;
use serde::Serialize;

use super::group::is_wrapper;
use super::{Sort, largest};
use crate::amount::{bytes, count, percent};
use crate::naming::{NameOptions, Naming};

/// How many functions of a stack are named.
const FUNCTIONS: usize = 3;

/// A site in a line. Every string in it is safe to print.
#[derive(Debug, Serialize)]
pub(crate) struct TopSite {
    #[serde(flatten)]
    figures: Figures,
    /// Its part of the bytes of all sites, 0 to 1.
    share: f64,
    /// The functions that asked, innermost first, without the standard libraries; for one without a name its address in
    /// its module. A function that is in itself (inlined, or called by itself) stands once.
    functions: Vec<String>,
    /// Where the first of them asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u32>,
}

/// The `most` sites with the most bytes; none where the logs have no stacks.
pub(crate) fn top(sites: &Sites, most: usize, recorded_unix_ns: Option<u64>) -> Vec<TopSite> {
    if !sites.have_stacks() {
        return Vec::new();
    }
    let order = largest(sites, Sort::Bytes, most);
    let stack = |&site: &usize| sites.tree.path(sites.list()[site].stack);
    let options = NameOptions::default();
    let naming = Naming::find(
        &sites.tree,
        order.iter().flat_map(stack),
        &options,
        recorded_unix_ns,
    );
    let total = sites.total().bytes;
    order
        .iter()
        .map(|&site| top_site(sites, site, &naming, total))
        .collect()
}

fn top_site(sites: &Sites, site: usize, naming: &Naming, total: u64) -> TopSite {
    let site = &sites.list()[site];
    let mut top = TopSite {
        figures: site.figures,
        share: site.figures.bytes as f64 / total.max(1) as f64,
        functions: Vec::new(),
        file: None,
        line: None,
    };
    let unnamed = [Frame::default()];
    for place in sites.tree.path(site.stack) {
        let frames = match naming.frames(place) {
            [] => &unnamed,
            frames => frames,
        };
        let asks = |frame: &&Frame| !is_wrapper(frame.function.as_deref().unwrap_or_default());
        for frame in frames.iter().filter(asks) {
            let function = naming.function(place, frame);
            if top.functions.is_empty() {
                top.file = frame.file.as_deref().map(|file| printable(file.as_bytes()));
                top.line = frame.line;
            }
            if top.functions.len() < FUNCTIONS && top.functions.last() != Some(&function) {
                top.functions.push(function);
            }
        }
    }
    if top.functions.is_empty() {
        let call = || {
            site.call
                .map(|call| format!("{}({})", call.op.name(), call.size))
        };
        let innermost = sites.tree.path(site.stack).next();
        let address = innermost.map(|place| naming.address(place));
        top.functions.extend(address.or_else(call));
    }
    top
}

/// The sites as lines of text, without a heading.
pub(crate) fn text(sites: &[TopSite]) -> String {
    let mut out = String::new();
    for site in sites {
        let place = match (&site.file, site.line) {
            (Some(file), Some(line)) => {
                format!("  {}:{line}", file.rsplit('/').next().unwrap_or(file))
            }
            _ => String::new(),
        };
        let share = percent((site.share * 1000.0).round() as u64, 1000);
        out.push_str(&format!(
            "  {:>10} {share:>6}  in {:<9} {}{place}\n",
            bytes(site.figures.bytes),
            count(site.figures.blocks),
            site.functions.join(" < "),
        ));
    }
    out
}
