//! A site in two recordings.

use std::collections::HashMap;

use memspy_analysis::site::{Figures, Site, Sites};
use serde::Serialize;

use crate::naming::Naming;
use crate::site_logs::SiteLogs;
use crate::sites::{By, Sort, asker_name};

/// What was counted at a site before and after. A site that one recording does not have is all zero there.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Change {
    /// The functions of the call stack with their modules, innermost first; by name, the one name. Safe to print.
    pub(super) site: Vec<String>,
    pub(super) old: Figures,
    pub(super) new: Figures,
}

impl Change {
    /// How much a figure has grown; negative: shrunk.
    pub(super) fn by(&self, figure: Sort) -> i128 {
        i128::from(figure.of(&self.new)) - i128::from(figure.of(&self.old))
    }
}

/// All sites of both recordings, in no order.
pub(super) fn changes(
    old: (&SiteLogs, &Naming),
    new: (&SiteLogs, &Naming),
    by: By,
    skip: &[String],
) -> Vec<Change> {
    let mut known: HashMap<Vec<String>, (Figures, Figures)> = HashMap::new();
    for (at, (logs, naming)) in [old, new].into_iter().enumerate() {
        for site in logs.sites.list() {
            let name = match by {
                By::Stack => stack(&logs.sites, site, naming),
                By::Function | By::File | By::Module => {
                    vec![asker_name(&logs.sites, site, naming, by, skip)]
                }
            };
            let (before, after) = known.entry(name).or_default();
            let figures = if at == 0 { before } else { after };
            figures.add(&site.figures);
        }
    }
    let change = |(site, (old, new))| Change { site, old, new };
    known.into_iter().map(change).collect()
}

/// The functions of a site's call stack, innermost first; without a stack the call.
fn stack(sites: &Sites, site: &Site, naming: &Naming) -> Vec<String> {
    let mut names = Vec::new();
    if let Some(call) = site.call {
        names.push(format!("{}({})", call.op.name(), call.size));
    }
    for place in sites.tree.path(site.stack) {
        let frames = naming.frames(place);
        if frames.is_empty() {
            names.push(naming.address(place));
        }
        for frame in frames {
            let function = naming.function(place, frame);
            names.push(match naming.module(place) {
                Some(module) if frame.function.is_some() => format!("{function}  [{module}]"),
                _ => function,
            });
        }
    }
    names
}
