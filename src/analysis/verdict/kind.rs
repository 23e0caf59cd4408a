//! The kinds of leaks, in Valgrind's words, and sets of them as the command line names them.

use std::fmt;
use std::str::FromStr;

/// How a live block was found (or not found) from the program's roots when it was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Nothing points at the block any more.
    Definite,
    /// Only blocks that are themselves leaked point at it.
    Indirect,
    /// Only pointers into its middle were found.
    Possible,
    /// A pointer to its start was found: still reachable.
    Reachable,
    /// A mapping that the program made itself and never unmapped; not a heap block.
    Mapping,
}

impl Kind {
    /// Every kind, worst first.
    pub const ALL: [Kind; 5] = [
        Kind::Definite,
        Kind::Indirect,
        Kind::Possible,
        Kind::Reachable,
        Kind::Mapping,
    ];

    /// The word that the log, the options and the reports use.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Definite => "definite",
            Kind::Indirect => "indirect",
            Kind::Possible => "possible",
            Kind::Reachable => "reachable",
            Kind::Mapping => "mapping",
        }
    }

    /// The kind that `name` means, if it means one.
    pub fn from_name(name: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.name() == name)
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of kinds, written as `definite,possible`, `all` or `none`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KindSet(u8);

impl KindSet {
    /// No kind.
    pub const NONE: KindSet = KindSet(0);
    /// What Valgrind's leak check knows: every kind but [`Kind::Mapping`].
    pub const HEAP: KindSet = KindSet(
        Kind::Definite.bit() | Kind::Indirect.bit() | Kind::Possible.bit() | Kind::Reachable.bit(),
    );
    /// Every kind.
    pub const ALL: KindSet = KindSet(KindSet::HEAP.0 | Kind::Mapping.bit());
    /// What fails a check unless the user says otherwise: definite, indirect, possible.
    pub const LOST: KindSet =
        KindSet(Kind::Definite.bit() | Kind::Indirect.bit() | Kind::Possible.bit());

    /// Whether `kind` is in the set.
    pub fn contains(self, kind: Kind) -> bool {
        self.0 & kind.bit() != 0
    }

    /// The set with `kind` added.
    #[must_use]
    pub fn with(self, kind: Kind) -> KindSet {
        KindSet(self.0 | kind.bit())
    }
}

/// A word in a list of kinds that is not a kind.
#[derive(Debug, PartialEq, Eq)]
pub struct UnknownKind(String);

impl fmt::Display for UnknownKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "unknown kind {:?}; the kinds are definite, indirect, possible, reachable, mapping \
             (or all, none)",
            self.0
        )
    }
}

impl std::error::Error for UnknownKind {}

impl FromStr for KindSet {
    type Err = UnknownKind;

    fn from_str(text: &str) -> Result<KindSet, UnknownKind> {
        match text.trim() {
            "all" => return Ok(KindSet::ALL),
            "none" => return Ok(KindSet::NONE),
            _ => {}
        }
        text.split(',')
            .map(str::trim)
            .try_fold(KindSet::NONE, |set, word| {
                Kind::from_name(word)
                    .map(|kind| set.with(kind))
                    .ok_or_else(|| UnknownKind(word.into()))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_kinds_holds_those_and_no_others() {
        let set: KindSet = "definite, mapping".parse().unwrap();
        let held: Vec<Kind> = Kind::ALL
            .into_iter()
            .filter(|kind| set.contains(*kind))
            .collect();
        assert_eq!(held, [Kind::Definite, Kind::Mapping]);
        assert_eq!("none".parse(), Ok(KindSet::NONE));
        assert_eq!("all".parse(), Ok(KindSet::ALL));
    }

    #[test]
    fn a_word_that_is_no_kind_is_named_in_the_error() {
        let error = "definite,direct".parse::<KindSet>().unwrap_err();
        assert!(error.to_string().contains("\"direct\""), "{error}");
        assert!("".parse::<KindSet>().is_err());
    }
}
