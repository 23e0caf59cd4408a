//! Names for the stacks of leaks: module, function, source line.

use memspy_analysis::call_tree::{CallTree, NodeId};
use memspy_analysis::verdict::{Evidence, Frame};

use crate::naming::{NameOptions, Naming};

/// Fills in the frames of every leak. What keeps names away becomes a note.
pub(super) fn fill_in(evidence: &mut [Evidence], options: &NameOptions, notes: &mut Vec<String>) {
    let mut tree = CallTree::default();
    let nodes: Vec<Vec<NodeId>> = evidence.iter().map(|one| add(&mut tree, one)).collect();
    let wanted = nodes.iter().flatten().flat_map(|node| tree.path(*node));
    let recorded = evidence.iter().map(|one| one.unix_ns).min();
    let naming = Naming::find(&tree, wanted, options, recorded);
    for (one, nodes) in evidence.iter_mut().zip(&nodes) {
        for (leak, node) in one.process.leaks.iter_mut().zip(nodes) {
            leak.frames = tree
                .path(*node)
                .flat_map(|place| frames(&tree, &naming, place))
                .collect();
            leak.cut = tree.cut(*node).is_some();
        }
    }
    notes.extend(naming.notes());
}

/// The nodes of one log's leaks in the tree that all logs share.
fn add(tree: &mut CallTree, evidence: &Evidence) -> Vec<NodeId> {
    let mut done = Default::default();
    let stacks = evidence.stacks.iter();
    stacks
        .map(|stack| tree.add(&evidence.memory, &mut done, *stack))
        .collect()
}

/// The functions at a place, innermost first; one without a name where nothing is known.
pub(crate) fn frames(tree: &CallTree, naming: &Naming, place: usize) -> Vec<Frame> {
    let at = tree.places()[place];
    let module = at.module.map(|module| &tree.modules()[module]);
    let bare = Frame {
        module: module.map(|module| String::from_utf8_lossy(&module.path).into()),
        address: at.address,
        ..Frame::default()
    };
    let named = naming.frames(place).iter().map(|frame| Frame {
        function: frame.function.clone(),
        symbol: frame.symbol.clone(),
        file: frame.file.clone(),
        line: frame.line,
        inlined: frame.inlined,
        ..bare.clone()
    });
    let named: Vec<Frame> = named.collect();
    if named.is_empty() { vec![bare] } else { named }
}
