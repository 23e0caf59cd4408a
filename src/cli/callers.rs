//! The functions behind a stack's number, for reports that show single calls.

use std::collections::BTreeMap;

use memspy_analysis::call_tree::{CallTree, Translation};
use memspy_analysis::event::StackId;
use memspy_analysis::log::Log;
use memspy_analysis::model::Memory;
use memspy_analysis::printable;

use crate::naming::{NameOptions, Naming};

/// Names of stacks, innermost function first, safe to print.
#[derive(Default)]
pub(crate) struct Callers {
    names: BTreeMap<StackId, Vec<String>>,
}

impl Callers {
    /// Finds the names of `stacks`, numbers of a log that was read to its end.
    pub(crate) fn find(
        log: &Log,
        memory: &Memory,
        stacks: impl Iterator<Item = StackId>,
        options: &NameOptions,
    ) -> Callers {
        let mut tree = CallTree::default();
        let mut done = Translation::default();
        let mut nodes = BTreeMap::new();
        for stack in stacks.filter(|stack| *stack != 0) {
            nodes.insert(stack, tree.add(memory, &mut done, stack));
        }
        let wanted = nodes.values().flat_map(|node| tree.path(*node));
        let recorded = log.start().map(|start| start.unix_ns);
        let naming = Naming::find(&tree, wanted, options, recorded);
        let names = nodes.iter().map(|(stack, node)| {
            let places = tree.path(*node);
            (
                *stack,
                places.flat_map(|place| names(&naming, place)).collect(),
            )
        });
        Callers {
            names: names.collect(),
        }
    }

    /// The functions of a stack, innermost first; none where the log has no stack.
    pub(crate) fn of(&self, stack: StackId) -> &[String] {
        self.names.get(&stack).map_or(&[], Vec::as_slice)
    }

    /// A stack on one line, at most `most` functions: `xmalloc < copy_file (cp.c:12) < main`.
    pub(crate) fn line(&self, stack: StackId, most: usize) -> Option<String> {
        let names = self.of(stack);
        if names.is_empty() {
            return None;
        }
        let mut line = names[..names.len().min(most)].join(" < ");
        if names.len() > most {
            line.push_str(" < \u{2026}");
        }
        Some(line)
    }
}

fn names(naming: &Naming, place: usize) -> Vec<String> {
    let frames = naming.frames(place);
    if frames.is_empty() {
        return vec![naming.address(place)];
    }
    frames
        .iter()
        .map(|frame| {
            let function = naming.function(place, frame);
            match (&frame.file, frame.line, naming.module(place)) {
                (Some(file), Some(line), _) => {
                    let file = file.rsplit('/').next().unwrap_or(file);
                    format!("{function} ({}:{line})", printable(file.as_bytes()))
                }
                (_, _, Some(module)) if frame.function.is_some() => {
                    format!("{function} ({module})")
                }
                _ => function,
            }
        })
        .collect()
}
