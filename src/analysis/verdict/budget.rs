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

/// A limit that could not be read.
#[derive(Debug, PartialEq, Eq)]
pub struct BudgetError {
    text: String,
    expected: &'static str,
}

impl fmt::Display for BudgetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not {}", self.text, self.expected)
    }
}

impl std::error::Error for BudgetError {}

/// Reads a size: a whole or decimal number with a unit. `K M G T` and `KiB MiB GiB TiB` count in
/// 1024s, `kB KB MB GB TB` in 1000s; no unit or `B` are bytes. A part of a byte is dropped.
pub fn parse_size(text: &str) -> Result<u64, BudgetError> {
    let error = || BudgetError {
        text: text.into(),
        expected: "a size such as 4096, 64KiB, 1.5MiB or 2GB",
    };
    let trimmed = text.trim();
    let end = trimmed
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(end);
    let unit: u128 = match unit.trim_start() {
        "" | "B" => 1,
        "K" | "KiB" | "k" => 1 << 10,
        "M" | "MiB" | "m" => 1 << 20,
        "G" | "GiB" | "g" => 1 << 30,
        "T" | "TiB" | "t" => 1 << 40,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        _ => return Err(error()),
    };
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let decimal = number.contains('.');
    if whole.is_empty() || whole.len() > 20 || part.len() > 12 || (decimal && part.is_empty()) {
        return Err(error());
    }
    let digits: u128 = format!("{whole}{part}").parse().map_err(|_| error())?;
    let bytes = digits * unit / 10_u128.pow(part.len() as u32);
    u64::try_from(bytes).map_err(|_| error())
}

/// Reads a count: digits, with `_` between them if the user likes.
pub fn parse_count(text: &str) -> Result<u64, BudgetError> {
    let digits: String = text.trim().chars().filter(|c| *c != '_').collect();
    let plain = digits.bytes().all(|b| b.is_ascii_digit());
    let error = || BudgetError {
        text: text.into(),
        expected: "a number such as 1000",
    };
    digits.parse().ok().filter(|_| plain).ok_or_else(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_know_binary_and_decimal_units() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("64MiB", 64 << 20),
            ("64 MiB", 64 << 20),
            ("1.5K", 1536),
            ("2GB", 2_000_000_000),
            ("0.1B", 0),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in [
            "",
            "MiB",
            "-1",
            "1e9",
            "64Mi",
            "1.",
            ".5K",
            "1.2.3K",
            "18446744073709551616",
            "99999999T",
            "0x10",
            "１",
        ] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn counts_are_plain_numbers() {
        assert_eq!(parse_count("1_000_000"), Ok(1_000_000));
        for text in ["", "_", "+1", "1k", "-1", "1.0"] {
            assert!(parse_count(text).is_err(), "{text}");
        }
    }
}
