//! The state of the recorded process's memory at one moment, as its log tells it.

mod block_table;
mod code;
mod heap;
mod mapping;

pub use code::{Modules, Stacks};
pub use heap::{Counts, Heap, Level, LiveBlock, Oddities, Peak};
pub use mapping::{Break, Mapped, Mapping, Mappings, Shift};

use crate::event::What;
use crate::merge::{Half, Step};

/// Live blocks, mappings, the break, and what the log has said of code so far.
#[derive(Debug, Default)]
pub struct Memory {
    /// The live blocks.
    pub heap: Heap,
    /// Mappings that were made while recording, the program's own and those behind malloc.
    pub mappings: Mappings,
    /// The nodes of call stacks.
    pub stacks: Stacks,
    /// The loaded objects.
    pub modules: Modules,
}

/// What a step did to the heap's blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Change {
    /// A block that ended, with its address.
    pub died: Option<(u64, LiveBlock)>,
    /// A block that began, with its address.
    pub born: Option<(u64, LiveBlock)>,
}

impl Memory {
    /// An empty memory of a process whose pages have this size; 0 is taken as 4096.
    pub fn new(page: u64) -> Memory {
        Memory {
            mappings: Mappings::new(page),
            ..Memory::default()
        }
    }

    /// Takes a step. Answers what it did to the heap's blocks.
    #[inline(always)]
    pub fn apply(&mut self, step: &Step) -> Change {
        match &step.event.what {
            What::Alloc(call) => self.heap.alloc(step, call),
            What::Free(call) => self.heap.free(step, call),
            What::Realloc(call) => self.heap.realloc(step, call),
            _ => {
                self.rare(step);
                Change::default()
            }
        }
    }

    fn rare(&mut self, step: &Step) {
        self.mappings.forget_shifts();
        if step.event.err.is_some() {
            return;
        }
        match &step.event.what {
            What::Mmap(call) if step.half != Half::Release => self.mappings.mmap(step, call),
            What::Mmap(call) => self.mappings.remove(call.addr, call.size),
            What::Munmap(range) => self.mappings.remove(range.addr, range.size),
            What::Mremap(call) if step.half == Half::Release => self.mappings.lift(call),
            What::Mremap(call) => self.mappings.mremap(step, call),
            What::Mprotect { range, prot } => self.mappings.protect(*range, *prot),
            What::Brk(call) => self.mappings.set_break(step, call),
            What::Arena(arena) => self.mappings.arena(arena),
            What::Stack(node) => self.stacks.add(*node),
            What::Module(module) => self.modules.add(module),
            What::Unload { module } => self.modules.unload(*module, step.time),
            _ => {}
        }
    }

    /// Makes this the memory of a forked child: all that is live came from the parent.
    pub(crate) fn into_child(mut self) -> Memory {
        self.heap.inherit();
        self.mappings.inherit();
        Memory {
            heap: self.heap,
            mappings: self.mappings,
            // A child's log defines the numbers that it uses anew.
            stacks: Stacks::default(),
            modules: Modules::default(),
        }
    }
}
