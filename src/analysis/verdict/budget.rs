//! Budgets: how much a run may leak, hold at its peak, allocate and map.

use std::fmt;

use super::{Finding, Standing};

/// What a log counted. `None`: that log does not hold it (a log of mode `leaks` has no events).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measures {
    /// Most bytes live in the heap at one time, as asked for.
    pub peak_bytes: Option<u64>,
    /// Successful allocation calls of the malloc family.
    pub allocs: Option<u64>,
    /// Successful mmap calls that the program made itself.
    pub mmaps: Option<u64>,
}

/// One limit that the user set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Budget {
    /// `--max-leaked` with a size.
    LeakedBytes,
    /// `--max-leaked` with a number of blocks.
    LeakedBlocks,
    /// `--max-peak`
    Peak,
    /// `--max-allocs`
    Allocs,
    /// `--max-mmaps`
    Mmaps,
}

impl Budget {
    /// What is limited, in words that fit between a number and its limit.
    pub fn name(self) -> &'static str {
        match self {
            Budget::LeakedBytes => "bytes leaked",
            Budget::LeakedBlocks => "blocks leaked",
            Budget::Peak => "bytes at the peak",
            Budget::Allocs => "allocations",
            Budget::Mmaps => "mmap calls",
        }
    }

    /// The value that `measures` has for it, where the log counts it.
    pub(super) fn of(self, measures: &Measures) -> Option<u64> {
        match self {
            Budget::Peak => measures.peak_bytes,
            Budget::Allocs => measures.allocs,
            Budget::Mmaps => measures.mmaps,
            Budget::LeakedBytes | Budget::LeakedBlocks => None,
        }
    }
}

/// The limits of a check; each holds for the tree, or for each process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budgets {
    /// Bytes that may leak.
    pub leaked_bytes: Option<u64>,
    /// Blocks that may leak.
    pub leaked_blocks: Option<u64>,
    /// Bytes that may be live at one time.
    pub peak_bytes: Option<u64>,
    /// Allocation calls.
    pub allocs: Option<u64>,
    /// mmap calls.
    pub mmaps: Option<u64>,
    /// Hold each process, not the tree, to the limits.
    pub per_process: bool,
}

impl Budgets {
    /// Whether a limit needs the events of the run, not only its leaks.
    pub fn need_events(&self) -> bool {
        self.measured().next().is_some()
    }

    /// Whether leaks up to a limit are accepted.
    pub fn limit_leaks(&self) -> bool {
        self.leaked_bytes.is_some() || self.leaked_blocks.is_some()
    }

    /// The limits on what a log counts.
    pub(super) fn measured(&self) -> impl Iterator<Item = (Budget, u64)> {
        let limits = [
            (Budget::Peak, self.peak_bytes),
            (Budget::Allocs, self.allocs),
            (Budget::Mmaps, self.mmaps),
        ];
        limits
            .into_iter()
            .filter_map(|(budget, limit)| Some((budget, limit?)))
    }

    /// The leak limits that this many bytes and blocks are over, with the value and the limit.
    pub(super) fn leaks_over(&self, bytes: u64, blocks: u64) -> Vec<(Budget, u64, u64)> {
        let limits = [
            (Budget::LeakedBytes, bytes, self.leaked_bytes),
            (Budget::LeakedBlocks, blocks, self.leaked_blocks),
        ];
        let over = limits.into_iter().filter_map(|(budget, value, limit)| {
            let limit = limit?;
            (value > limit).then_some((budget, value, limit))
        });
        over.collect()
    }
}

/// Bytes and blocks of the findings that fail the check.
pub fn leaked<'a>(findings: impl Iterator<Item = &'a Finding>) -> (u64, u64) {
    findings
        .filter(|finding| finding.standing == Standing::Fails)
        .fold((0, 0), |sum, finding| {
            (
                sum.0.saturating_add(finding.leak.bytes),
                sum.1.saturating_add(finding.leak.blocks),
            )
        })
}

/// Text that is no count.
#[derive(Debug, PartialEq, Eq)]
pub struct NoCount;

impl fmt::Display for NoCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a number; write digits, such as 1000 or 1_000_000")
    }
}

impl std::error::Error for NoCount {}

/// Reads a count: digits, with `_` between them if the user likes.
///
/// # Errors
/// When it is none, or more than 2^64-1.
pub fn parse_count(text: &str) -> Result<u64, NoCount> {
    let digits = text.trim().replace('_', "");
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| plain).ok_or(NoCount)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_plain_numbers() {
        assert_eq!(parse_count("1_000_000"), Ok(1_000_000));
        for text in ["", "_", "+1", "1k", "-1", "1.0"] {
            assert!(parse_count(text).is_err(), "{text}");
        }
    }
}
