//! The answer of a search: frames by module and address.

use std::collections::HashMap;

use crate::{Frame, Problem};

/// What was found, by the index of the module in the search and the address in its file.
#[derive(Debug, Default)]
pub struct Names {
    pub(crate) frames: HashMap<(usize, u64), Vec<Frame>>,
    pub(crate) notes: Vec<Note>,
}

/// A module whose names are missing or poor, by its index in the search.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Index of the module.
    pub module: usize,
    /// What is wrong with it.
    pub problem: Problem,
}

impl Names {
    /// The frames at an address, innermost first; empty when nothing is known of it.
    pub fn frames(&self, module: usize, address: u64) -> &[Frame] {
        self.frames
            .get(&(module, address))
            .map_or(&[], Vec::as_slice)
    }

    /// The modules in trouble, in the order of the search; a module may stand here twice.
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }
}
