//! Which memory a report about sites counts, and the words for it.

use clap::ValueEnum;
use memspy_analysis::site::{Kind, Taken};

use crate::amount::count;

/// What `--kind` takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum SiteKind {
    /// Blocks of malloc and its family
    #[default]
    Heap,
    /// What the program itself mapped: by mmap, mremap, brk, sbrk
    Mappings,
    /// Both
    All,
}

impl From<SiteKind> for Kind {
    fn from(kind: SiteKind) -> Kind {
        match kind {
            SiteKind::Heap => Kind::Heap,
            SiteKind::Mappings => Kind::Mappings,
            SiteKind::All => Kind::All,
        }
    }
}

/// How people speak of memory of a kind.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Words {
    /// One call that took memory, and several.
    calls: (&'static str, &'static str),
    /// What one such call took, and several.
    pieces: (&'static str, &'static str),
    /// What is still live was…
    pub(crate) live: &'static str,
    /// The program did what with so many bytes?
    pub(crate) took: &'static str,
    /// Whose peak.
    pub(crate) whose: &'static str,
}

impl Words {
    /// The words for a kind of memory.
    pub(crate) fn of(kind: Kind) -> Words {
        match kind {
            Kind::Heap => Words {
                calls: ("allocation", "allocations"),
                pieces: ("block", "blocks"),
                live: "not freed",
                took: "allocated",
                whose: "the heap's",
            },
            Kind::Mappings => Words {
                calls: ("mapping", "mappings"),
                pieces: ("mapping", "mappings"),
                live: "not unmapped",
                took: "mapped",
                whose: "the mappings'",
            },
            Kind::All => Words {
                calls: ("call", "calls"),
                pieces: ("block or mapping", "blocks and mappings"),
                live: "not given back",
                took: "allocated and mapped",
                whose: "the",
            },
        }
    }

    /// The words for one site's memory; `None` stands for sites of both kinds.
    pub(crate) fn of_taken(taken: Option<Taken>) -> Words {
        Words::of(match taken {
            Some(Taken::Heap) => Kind::Heap,
            Some(Taken::Mapping) => Kind::Mappings,
            None => Kind::All,
        })
    }

    /// What several calls that took memory are called.
    pub(crate) fn many_calls(&self) -> &'static str {
        self.calls.1
    }

    /// So many calls that took memory.
    pub(crate) fn calls(&self, number: u64) -> String {
        of(number, self.calls)
    }

    /// So many of what they took.
    pub(crate) fn pieces(&self, number: u64) -> String {
        of(number, self.pieces)
    }
}

fn of(number: u64, (one, many): (&str, &str)) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_one_and_the_rest_are_many() {
        let heap = Words::of(Kind::Heap);
        assert_eq!(heap.calls(1), "1 allocation");
        assert_eq!(heap.pieces(2000), "2,000 blocks");
        assert_eq!(Words::of_taken(None).pieces(1), "1 block or mapping");
        assert_eq!(Words::of_taken(Some(Taken::Mapping)).calls(0), "0 mappings");
    }
}
