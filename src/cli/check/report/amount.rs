//! Bytes and blocks in words.

use std::fmt;

use memspy_analysis::verdict::{Kind, Totals};

use crate::amount;

/// `72,704 bytes in 1 block`.
pub(super) struct Amount {
    bytes: u64,
    blocks: u64,
    noun: &'static str,
}

impl Amount {
    /// An amount of one kind; mappings are not called blocks.
    pub(super) fn of(bytes: u64, blocks: u64, kind: Kind) -> Amount {
        let noun = if kind == Kind::Mapping {
            "mapping"
        } else {
            "block"
        };
        Amount {
            bytes,
            blocks,
            noun,
        }
    }

    /// An amount of heap blocks.
    pub(super) fn blocks(totals: Totals) -> Amount {
        Amount {
            bytes: totals.bytes,
            blocks: totals.blocks,
            noun: "block",
        }
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (bytes, blocks) = (count(self.bytes, "byte"), count(self.blocks, self.noun));
        write!(f, "{bytes} in {blocks}")
    }
}

/// `1 block`, `2,000 blocks`.
pub(super) fn count(number: u64, noun: &str) -> String {
    let plural = match (number, noun) {
        (1, noun) => noun.to_owned(),
        (_, "process") => "processes".into(),
        (_, noun) => format!("{noun}s"),
    };
    format!("{} {plural}", amount::count(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_nouns_agree() {
        assert_eq!(
            Amount::of(72704, 1, Kind::Reachable).to_string(),
            "72,704 bytes in 1 block"
        );
        assert_eq!(
            Amount::of(1, 1000, Kind::Mapping).to_string(),
            "1 byte in 1,000 mappings"
        );
        assert_eq!(count(2, "process"), "2 processes");
    }
}
