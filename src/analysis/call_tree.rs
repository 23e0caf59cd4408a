//! The tree of call stacks, over one or several logs.
//!
//! Each log numbers its stacks and modules for itself, defines one node more than once, and may
//! define it after its first use. Here all logs share one tree: a place is known by its module's
//! path and build id and the address in that file, so that two processes of one program have the
//! same stacks.

use std::collections::HashMap;

use crate::event::{Address, Cut, Module, StackId, StackNode};
use crate::model::{Memory, Modules};
use rustc_hash::FxHashMap;

/// A node of the shared tree: one call stack. [`NodeId::NONE`] is the empty one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(u32);

impl NodeId {
    /// The empty stack: the log has no stack, or does not define it.
    pub const NONE: NodeId = NodeId(0);

    /// Whether there is a stack.
    pub fn is_some(self) -> bool {
        self != NodeId::NONE
    }
}

/// A code address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// Index of its module in [`CallTree::modules`]; `None`: the address belongs to no module.
    pub module: Option<usize>,
    /// The address to look up, one byte before the return address: as it stands in the module's
    /// file, without a module as it was in the process.
    pub address: Address,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Node {
    parent: NodeId,
    place: usize,
    cut: Option<Cut>,
}

/// The tree, its places and modules.
#[derive(Default)]
pub struct CallTree {
    modules: Vec<Module>,
    places: Vec<Place>,
    /// Node `i` has the id `i + 1`.
    nodes: Vec<Node>,
    known_modules: HashMap<(Box<[u8]>, Box<str>), usize>,
    known_places: FxHashMap<Place, usize>,
    known_nodes: FxHashMap<Node, NodeId>,
}

/// What the numbers of one log's stacks stand for, as far as they were asked for.
pub type Translation = FxHashMap<StackId, NodeId>;

impl CallTree {
    /// Puts a stack of a log that was read to its end into the tree. `done` is the log's own.
    ///
    /// A number that the log does not define is [`NodeId::NONE`]; a stack whose caller is not
    /// defined, or that calls itself in a circle, ends there and is marked as cut.
    pub fn add(&mut self, memory: &Memory, done: &mut Translation, stack: StackId) -> NodeId {
        let mut path: Vec<&StackNode> = Vec::new();
        let mut id = stack;
        while !done.contains_key(&id)
            && let Some(node) = memory.stacks.node(id)
        {
            // Marks what is being walked: meeting it again is a circle.
            done.insert(id, NodeId::NONE);
            path.push(node);
            id = node.parent;
        }
        let mut parent = done.get(&id).copied().unwrap_or(NodeId::NONE);
        let mut lost = id != 0 && parent == NodeId::NONE;
        while let Some(node) = path.pop() {
            let cut = if lost { Some(Cut::Other) } else { node.cut };
            lost = false;
            let place = self.place(&memory.modules, node);
            parent = self.node(Node { parent, place, cut });
            done.insert(node.id, parent);
        }
        parent
    }

    fn node(&mut self, node: Node) -> NodeId {
        *self.known_nodes.entry(node).or_insert_with(|| {
            self.nodes.push(node);
            NodeId(self.nodes.len() as u32)
        })
    }

    fn place(&mut self, modules: &Modules, node: &StackNode) -> usize {
        let call = node.ip.saturating_sub(1);
        let place = match modules.get(node.module) {
            Some(module) => Place {
                module: Some(self.module(module)),
                address: call.wrapping_sub(module.bias),
            },
            None => Place {
                module: None,
                address: call,
            },
        };
        *self.known_places.entry(place).or_insert_with(|| {
            self.places.push(place);
            self.places.len() - 1
        })
    }

    /// Puts a module into the list if it is not there, and answers its index.
    pub fn module(&mut self, module: &Module) -> usize {
        let key = (module.path.clone(), module.build_id.clone());
        *self.known_modules.entry(key).or_insert_with(|| {
            self.modules.push(module.clone());
            self.modules.len() - 1
        })
    }

    /// The loaded objects; where several logs have one, `base`, `size` and `bias` are the first's.
    pub fn modules(&self) -> &[Module] {
        &self.modules
    }

    /// All code addresses.
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// How many stacks there are.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The places of a stack, innermost first, as indices of [`CallTree::places`].
    pub fn path(&self, id: NodeId) -> impl Iterator<Item = usize> {
        self.walk(id).map(|node| node.place)
    }

    /// Why the stack was not followed to its end, if so.
    pub fn cut(&self, id: NodeId) -> Option<Cut> {
        self.walk(id).last().and_then(|node| node.cut)
    }

    fn walk(&self, id: NodeId) -> impl Iterator<Item = Node> {
        let node = |id: NodeId| self.nodes.get((id.0 as usize).checked_sub(1)?).copied();
        std::iter::successors(node(id), move |last| node(last.parent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(id: u32, path: &str, bias: Address) -> Module {
        Module {
            id,
            base: bias,
            size: 0x1000,
            bias,
            path: path.as_bytes().into(),
            build_id: "00ff".into(),
        }
    }

    fn log(modules: &[Module], stacks: &[(StackId, StackId, u32, Address)]) -> Memory {
        let mut memory = Memory::default();
        for module in modules {
            memory.modules.add(module);
        }
        for &(id, parent, module, ip) in stacks {
            memory.stacks.add(StackNode {
                id,
                parent,
                module,
                ip,
                cut: None,
            });
        }
        memory
    }

    /// The addresses of a stack, innermost first.
    fn addresses(tree: &CallTree, id: NodeId) -> Vec<Address> {
        tree.path(id)
            .map(|place| tree.places()[place].address)
            .collect()
    }

    #[test]
    fn a_stack_is_its_places_innermost_first_one_byte_before_the_return_address() {
        let mut tree = CallTree::default();
        let log = log(
            &[module(1, "/a", 0x10000)],
            &[(2, 1, 1, 0x10021), (1, 0, 1, 0x10011)],
        );
        let id = tree.add(&log, &mut Translation::default(), 2);
        assert_eq!(addresses(&tree, id), [0x20, 0x10]);
        assert_eq!(tree.cut(id), None);
    }

    #[test]
    fn two_logs_with_other_numbers_and_addresses_share_their_stacks() {
        let mut tree = CallTree::default();
        let first = log(
            &[module(1, "/a", 0x10000)],
            &[(1, 0, 1, 0x10011), (2, 1, 1, 0x10021)],
        );
        let again = log(
            &[module(7, "/a", 0x50000)],
            &[(9, 0, 7, 0x50011), (4, 9, 7, 0x50021)],
        );
        let first = tree.add(&first, &mut Translation::default(), 2);
        let again = tree.add(&again, &mut Translation::default(), 4);
        assert_eq!(first, again);
        assert_eq!(tree.len(), 2);
        assert_eq!(tree.modules().len(), 1);
    }

    #[test]
    fn nodes_defined_twice_are_one() {
        let mut tree = CallTree::default();
        let log = log(
            &[],
            &[(1, 0, 0, 11), (2, 0, 0, 11), (3, 1, 0, 21), (4, 2, 0, 21)],
        );
        let mut done = Translation::default();
        assert_eq!(tree.add(&log, &mut done, 3), tree.add(&log, &mut done, 4));
        assert_eq!(tree.len(), 2);
    }

    #[test]
    fn a_library_at_the_address_of_another_has_its_own_places() {
        let mut tree = CallTree::default();
        let modules = [module(1, "/a", 0x10000), module(2, "/b", 0x10000)];
        let log = log(&modules, &[(1, 0, 1, 0x10011), (2, 0, 2, 0x10011)]);
        let mut done = Translation::default();
        let paths = [1, 2].map(|stack| {
            let id = tree.add(&log, &mut done, stack);
            let place = tree.places()[tree.path(id).next().unwrap()];
            tree.modules()[place.module.unwrap()].path.clone()
        });
        assert_eq!(paths.map(|path| path.to_vec()), [b"/a", b"/b"]);
    }

    #[test]
    fn circles_and_missing_callers_end_the_stack_and_are_marked() {
        let nodes = [
            (1, 2, 0, 11),
            (2, 3, 0, 21),
            (3, 1, 0, 31),
            (5, 99, 0, 51),
            (6, 6, 0, 61),
        ];
        let log = log(&[], &nodes);
        let mut tree = CallTree::default();
        let mut done = Translation::default();
        for stack in [1, 2, 3, 5, 6] {
            let id = tree.add(&log, &mut done, stack);
            assert!(tree.path(id).count() <= 3);
            assert_eq!(tree.cut(id), Some(Cut::Other));
        }
    }

    #[test]
    fn an_address_without_a_module_stays_as_it_is() {
        let mut tree = CallTree::default();
        let log = log(&[], &[(1, 0, 5, 0x7f00_0011), (2, 0, 0, 0)]);
        let mut done = Translation::default();
        let id = tree.add(&log, &mut done, 1);
        let place = tree.places()[tree.path(id).next().unwrap()];
        assert_eq!(
            place,
            Place {
                module: None,
                address: 0x7f00_0010
            }
        );
        let null = tree.add(&log, &mut done, 2);
        assert_eq!(addresses(&tree, null), [0]);
    }

    #[test]
    fn a_number_that_nothing_defines_is_no_stack() {
        let mut tree = CallTree::default();
        let mut done = Translation::default();
        assert_eq!(tree.add(&log(&[], &[]), &mut done, 7), NodeId::NONE);
        assert_eq!(tree.add(&log(&[], &[]), &mut done, 0), NodeId::NONE);
        assert!(tree.is_empty());
    }
}
