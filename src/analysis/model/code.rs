//! What the log says of code: the tree of call stacks and the loaded objects.

use crate::event::{Address, Module, StackId, StackNode};
use rustc_hash::FxHashMap;

/// The nodes of the tree of call stacks, by number.
#[derive(Debug, Default)]
pub struct Stacks {
    nodes: FxHashMap<StackId, StackNode>,
}

impl Stacks {
    pub(crate) fn add(&mut self, node: StackNode) {
        self.nodes.insert(node.id, node);
    }

    /// The node of a number.
    pub fn node(&self, id: StackId) -> Option<&StackNode> {
        self.nodes.get(&id)
    }

    /// The nodes of a stack from the innermost to the outermost; none for number 0 and for numbers
    /// that are not defined. Ends after as many nodes as there are, should the log hold a circle.
    pub fn frames(&self, id: StackId) -> impl Iterator<Item = &StackNode> {
        let first = self.nodes.get(&id);
        std::iter::successors(first, |node| self.nodes.get(&node.parent)).take(self.nodes.len())
    }

    /// How many nodes there are.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }
}

/// The loaded objects by number, also those that are gone.
#[derive(Debug, Default)]
pub struct Modules {
    modules: FxHashMap<u32, Module>,
    unloaded: FxHashMap<u32, u64>,
}

impl Modules {
    pub(crate) fn add(&mut self, module: &Module) {
        self.modules.insert(module.id, module.clone());
    }

    pub(super) fn unload(&mut self, module: u32, t: u64) {
        self.unloaded.insert(module, t);
    }

    /// The object of a number; numbers count from 1.
    pub fn get(&self, id: u32) -> Option<&Module> {
        self.modules.get(&id)
    }

    /// When an object went, nanoseconds since the image started; `None` while it is loaded.
    pub fn unloaded_at(&self, id: u32) -> Option<u64> {
        self.unloaded.get(&id).copied()
    }

    /// All objects, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Module> {
        self.modules.values()
    }

    /// The loaded object in whose span an address lies.
    pub fn at(&self, address: Address) -> Option<&Module> {
        self.modules.values().find(|module| {
            self.unloaded_at(module.id).is_none()
                && address
                    .checked_sub(module.base)
                    .is_some_and(|offset| offset < module.size)
        })
    }
}
