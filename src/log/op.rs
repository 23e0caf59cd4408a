//! The names of everything that a log line can be.

macro_rules! ops {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// What a log line is about: the value of its `op` key.
        ///
        /// The meaning and the keys of each are in `FORMAT.md`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Op {
            $($(#[$doc])* $variant,)*
        }

        impl Op {
            /// Every op, in the order of the specification.
            pub const ALL: &[Op] = &[$(Op::$variant,)*];

            /// The name as it stands in the log.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Op::$variant => $name,)*
                }
            }

            /// The op of a name, `None` for a name that this version does not know.
            pub fn from_name(name: &str) -> Option<Op> {
                match name {
                    $($name => Some(Op::$variant),)*
                    _ => None,
                }
            }
        }
    };
}

ops! {
    /// First line of a log.
    Start = "start",
    /// Head of a run of one thread's lines.
    Block = "block",
    /// Last word of an image.
    End = "end",
    /// Writing failed from here on.
    Stopped = "stopped",
    /// Writing works again.
    Resumed = "resumed",
    /// malloc(3).
    Malloc = "malloc",
    /// calloc(3).
    Calloc = "calloc",
    /// realloc(3).
    Realloc = "realloc",
    /// reallocarray(3).
    Reallocarray = "reallocarray",
    /// free(3).
    Free = "free",
    /// C23 free_sized.
    FreeSized = "free_sized",
    /// C23 free_aligned_sized.
    FreeAlignedSized = "free_aligned_sized",
    /// posix_memalign(3).
    PosixMemalign = "posix_memalign",
    /// aligned_alloc(3).
    AlignedAlloc = "aligned_alloc",
    /// memalign(3).
    Memalign = "memalign",
    /// valloc(3).
    Valloc = "valloc",
    /// pvalloc(3).
    Pvalloc = "pvalloc",
    /// mmap(2) and mmap64.
    Mmap = "mmap",
    /// munmap(2).
    Munmap = "munmap",
    /// mremap(2).
    Mremap = "mremap",
    /// mprotect(2).
    Mprotect = "mprotect",
    /// brk(2), or a move of the break seen around another call.
    Brk = "brk",
    /// sbrk(2).
    Sbrk = "sbrk",
    /// A heap of one of glibc's thread arenas.
    Arena = "arena",
    /// A loaded object.
    Module = "module",
    /// A module that is gone.
    Unload = "unload",
    /// A node of the tree of call stacks.
    Stack = "stack",
    /// A thread's first line.
    Thread = "thread",
    /// A child began another program in this process's memory.
    Spawn = "spawn",
    /// Head of a picture of the address space.
    Snapshot = "snapshot",
    /// One mapping of a snapshot.
    Map = "map",
    /// A named point in time.
    Mark = "mark",
    /// Head of a leak check's result.
    Check = "check",
    /// A group of blocks that a leak check found.
    Leak = "leak",
}

impl Op {
    /// Whether the call gives out a heap block (the malloc family, both reallocs included).
    pub const fn allocates(self) -> bool {
        matches!(
            self,
            Op::Malloc
                | Op::Calloc
                | Op::Realloc
                | Op::Reallocarray
                | Op::PosixMemalign
                | Op::AlignedAlloc
                | Op::Memalign
                | Op::Valloc
                | Op::Pvalloc
        )
    }

    /// Whether the call gives a heap block back without asking for another.
    pub const fn frees(self) -> bool {
        matches!(self, Op::Free | Op::FreeSized | Op::FreeAlignedSized)
    }
}

#[cfg(test)]
mod tests {
    use super::Op;

    #[test]
    fn every_name_leads_back_to_its_op() {
        for op in Op::ALL {
            assert_eq!(Op::from_name(op.name()), Some(*op));
        }
        assert_eq!(Op::from_name("mapp"), None);
    }
}
