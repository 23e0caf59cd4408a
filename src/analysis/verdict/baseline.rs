//! The baseline: leaks that a project has today and will not fix today. Only new ones and ones
//! that grew fail a check.
//!
//! A JSON file, made to be committed: sorted, one entry for each fingerprint, without addresses,
//! line numbers, process ids or dates. It covers the whole process tree.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Finding, Fingerprint, Kind, Standing, call_path};

/// The version that this memspy writes and the newest that it reads.
const VERSION: u64 = 1;

/// The known leaks of a project.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Baseline {
    entries: BTreeMap<Fingerprint, BaselineEntry>,
}

/// One known leak.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaselineEntry {
    /// Its kind.
    pub kind: Kind,
    /// Blocks in the whole tree.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The call path, for the human who reads the file; innermost first.
    pub stack: Vec<String>,
}

/// Why a baseline file was refused.
#[derive(Debug)]
pub enum BaselineError {
    /// It is not the JSON that a baseline is; the error holds line and column.
    Malformed(serde_json::Error),
    /// A newer memspy wrote it.
    Newer(u64),
    /// The entry with this fingerprint makes no sense.
    Entry {
        /// The fingerprint as it is written there.
        fingerprint: String,
        /// What is wrong.
        what: &'static str,
    },
}

impl fmt::Display for BaselineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BaselineError::Malformed(error) => {
                write!(
                    f,
                    "{}:{}: not a baseline: {error}",
                    error.line(),
                    error.column()
                )
            }
            BaselineError::Newer(version) => write!(
                f,
                "the baseline has version {version}, this memspy reads {VERSION}: use a newer \
                 memspy or write the baseline again with --write-baseline"
            ),
            BaselineError::Entry { fingerprint, what } => {
                write!(f, "the entry with fingerprint {fingerprint:?} {what}")
            }
        }
    }
}

impl std::error::Error for BaselineError {}

#[derive(Serialize, Deserialize)]
struct Version {
    memspy_baseline: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    memspy_baseline: u64,
    leaks: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    fingerprint: String,
    kind: String,
    blocks: u64,
    bytes: u64,
    stack: Vec<String>,
}

impl Baseline {
    /// Reads a baseline file's text. The version is looked at first, so that a newer file is
    /// called newer and not malformed.
    pub fn parse(text: &str) -> Result<Baseline, BaselineError> {
        let version: Version = serde_json::from_str(text).map_err(BaselineError::Malformed)?;
        if version.memspy_baseline > VERSION {
            return Err(BaselineError::Newer(version.memspy_baseline));
        }
        let document: Document = serde_json::from_str(text).map_err(BaselineError::Malformed)?;
        let mut entries = BTreeMap::new();
        for entry in document.leaks {
            let refuse = |what| BaselineError::Entry {
                fingerprint: entry.fingerprint.clone(),
                what,
            };
            let fingerprint = Fingerprint::parse(&entry.fingerprint)
                .ok_or_else(|| refuse("must have 16 hexadecimal digits"))?;
            let kind = Kind::from_name(&entry.kind).ok_or_else(|| refuse("has an unknown kind"))?;
            let (blocks, bytes) = (entry.blocks, entry.bytes);
            let known = BaselineEntry {
                kind,
                blocks,
                bytes,
                stack: entry.stack.clone(),
            };
            if entries.insert(fingerprint, known).is_some() {
                return Err(refuse("stands there twice"));
            }
        }
        Ok(Baseline { entries })
    }

    /// The baseline that would let these findings pass: those that fail now, are known already or
    /// fit in a budget. Suppressed ones, inherited ones and pools need no entry.
    pub fn of(findings: &[Finding]) -> Baseline {
        let mut baseline = Baseline::default();
        for finding in findings.iter().filter(|finding| wants_entry(finding)) {
            let leak = &finding.leak;
            let entry = baseline
                .entries
                .entry(finding.fingerprint)
                .or_insert_with(|| {
                    let stack = call_path(&leak.frames);
                    BaselineEntry {
                        kind: leak.kind,
                        blocks: 0,
                        bytes: 0,
                        stack,
                    }
                });
            entry.blocks = entry.blocks.saturating_add(leak.blocks);
            entry.bytes = entry.bytes.saturating_add(leak.bytes);
        }
        baseline
    }

    /// The file's text, ending in a newline.
    pub fn to_text(&self) -> String {
        let leaks = self.entries.iter().map(|(fingerprint, entry)| Entry {
            fingerprint: fingerprint.to_string(),
            kind: entry.kind.name().into(),
            blocks: entry.blocks,
            bytes: entry.bytes,
            stack: entry.stack.clone(),
        });
        let document = Document {
            memspy_baseline: VERSION,
            leaks: leaks.collect(),
        };
        let text = serde_json::to_string_pretty(&document);
        text.expect("numbers, strings and lists always serialise") + "\n"
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it knows no leak at all.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Marks the failing findings that the baseline knows: all findings of one fingerprint pass
    /// when together they have no more blocks and no more bytes than its entry, else all keep
    /// failing and say what they grew from. Returns the entries that no longer tell the truth:
    /// their leak is gone or has shrunk.
    pub(super) fn apply(&self, findings: &mut [Finding]) -> Vec<(Fingerprint, BaselineEntry)> {
        let now = Baseline::of(findings);
        for finding in findings
            .iter_mut()
            .filter(|f| f.standing == Standing::Fails)
        {
            let known = self.entries.get(&finding.fingerprint);
            let total = now.entries.get(&finding.fingerprint);
            let (Some(known), Some(total)) = (known, total) else {
                continue;
            };
            if total.blocks <= known.blocks && total.bytes <= known.bytes {
                finding.standing = Standing::Known;
            } else {
                finding.grown_from = Some((known.blocks, known.bytes));
            }
        }
        let shrunk = |fingerprint: &Fingerprint, known: &BaselineEntry| {
            now.entries.get(fingerprint).is_none_or(|total| {
                (total.blocks < known.blocks && total.bytes <= known.bytes)
                    || (total.blocks <= known.blocks && total.bytes < known.bytes)
            })
        };
        let stale = self
            .entries
            .iter()
            .filter(|(fingerprint, known)| shrunk(fingerprint, known));
        stale
            .map(|(fingerprint, known)| (*fingerprint, known.clone()))
            .collect()
    }
}

fn wants_entry(finding: &Finding) -> bool {
    matches!(
        finding.standing,
        Standing::Fails | Standing::Known | Standing::Budgeted
    )
}

#[cfg(test)]
mod tests {
    use super::super::{Frame, Leak};
    use super::*;

    fn finding(function: &str, blocks: u64, bytes: u64) -> Finding {
        let frames = vec![Frame {
            function: Some(function.into()),
            module: Some("/b/app".into()),
            ..Frame::default()
        }];
        let fingerprint = Fingerprint::new(Kind::Definite, &frames);
        Finding {
            leak: Leak {
                kind: Kind::Definite,
                blocks,
                bytes,
                frames,
                cut: false,
                inherited: false,
            },
            process: 0,
            fingerprint,
            pool: None,
            standing: Standing::Fails,
            grown_from: None,
        }
    }

    fn standings(baseline: &Baseline, mut findings: Vec<Finding>) -> (Vec<Standing>, usize) {
        let stale = baseline.apply(&mut findings);
        (findings.iter().map(|f| f.standing).collect(), stale.len())
    }

    #[test]
    fn text_and_back_is_the_same() {
        let baseline = Baseline::of(&[finding("f", 2, 32), finding("g\"\n\u{1b}", 1, 8)]);
        assert_eq!(Baseline::parse(&baseline.to_text()).unwrap(), baseline);
        assert_eq!(baseline.len(), 2);
    }

    #[test]
    fn only_new_and_grown_leaks_fail() {
        use Standing::{Fails, Known};
        let baseline = Baseline::of(&[finding("f", 2, 32)]);
        assert_eq!(
            standings(&baseline, vec![finding("f", 2, 32)]),
            (vec![Known], 0)
        );
        let grown = standings(&baseline, vec![finding("f", 3, 32), finding("g", 1, 1)]);
        assert_eq!(grown, (vec![Fails, Fails], 0));
        assert_eq!(
            standings(&baseline, vec![finding("f", 2, 33)]),
            (vec![Fails], 0)
        );
    }

    #[test]
    fn a_leak_that_is_split_over_processes_is_counted_together() {
        use Standing::{Fails, Known};
        let baseline = Baseline::of(&[finding("f", 2, 32)]);
        let twice = vec![finding("f", 1, 16), finding("f", 1, 16)];
        assert_eq!(standings(&baseline, twice), (vec![Known, Known], 0));
        let thrice = vec![
            finding("f", 1, 16),
            finding("f", 1, 16),
            finding("f", 1, 16),
        ];
        assert_eq!(standings(&baseline, thrice).0, [Fails, Fails, Fails]);
    }

    #[test]
    fn an_entry_whose_leak_is_gone_or_shrunk_is_stale() {
        let baseline = Baseline::of(&[finding("f", 2, 32), finding("g", 1, 8)]);
        assert_eq!(
            standings(&baseline, vec![finding("f", 1, 16)]),
            (vec![Standing::Known], 2)
        );
    }

    #[test]
    fn files_that_are_no_baseline_are_refused_with_their_place() {
        let message = |text: &str| Baseline::parse(text).unwrap_err().to_string();
        assert!(message("{\n \"memspy_baseline\":1,\n ]").starts_with("3:2: "));
        assert!(message("").contains("not a baseline"));
        assert!(message("{\"memspy_baseline\":2,\"new\":[]}").contains("version 2"));
        let entry = |fingerprint: &str, kind: &str| {
            format!(
                "{{\"memspy_baseline\":1,\"leaks\":[{{\"fingerprint\":\"{fingerprint}\",\
                 \"kind\":\"{kind}\",\"blocks\":1,\"bytes\":1,\"stack\":[]}}]}}"
            )
        };
        assert!(message(&entry("12", "definite")).contains("\"12\""));
        assert!(message(&entry("0123456789abcdef", "lost")).contains("unknown kind"));
    }
}
