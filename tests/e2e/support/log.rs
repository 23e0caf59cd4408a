//! Logs as tests see them: lines of JSON, in the order of the file.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::TestDir;

/// One log, read with serde_json and nothing else.
pub(crate) struct Log {
    /// Where it lies.
    pub(crate) path: PathBuf,
    /// Its lines, in the order of the file.
    pub(crate) lines: Vec<Value>,
}

impl Log {
    /// Reads a log. NUL bytes between lines are a write that never happened, as FORMAT.md says.
    ///
    /// # Panics
    /// When it can't be read or a line is not JSON.
    #[track_caller]
    pub(crate) fn read(path: &Path) -> Self {
        let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let parse = |(number, line): (usize, &[u8])| -> Option<Value> {
            let line = line
                .iter()
                .position(|byte| *byte != 0)
                .map(|start| &line[start..])?;
            Some(serde_json::from_slice(line).unwrap_or_else(|error| {
                let text = String::from_utf8_lossy(line);
                panic!("{}:{}: {error}: {text}", path.display(), number + 1)
            }))
        };
        let lines = bytes
            .split(|byte| *byte == b'\n')
            .enumerate()
            .filter_map(parse)
            .collect();
        Self {
            path: path.to_owned(),
            lines,
        }
    }

    /// The logs in a directory, sorted by name. Tails and other files are passed over.
    #[track_caller]
    pub(crate) fn all_in(directory: &Path) -> Vec<Self> {
        let entries = fs::read_dir(directory).expect("the log directory can be read");
        let mut paths: Vec<PathBuf> = entries
            .map(|entry| entry.expect("an entry can be read").path())
            .collect();
        paths.retain(|path| {
            path.extension()
                .is_some_and(|extension| extension == "jsonl")
        });
        paths.sort();
        paths.iter().map(|path| Self::read(path)).collect()
    }

    /// The one log in a directory.
    ///
    /// # Panics
    /// When there is none, or more than one.
    #[track_caller]
    pub(crate) fn only_in(directory: &TestDir) -> Self {
        let mut logs = Self::all_in(directory.path());
        assert_eq!(logs.len(), 1, "logs in {:?}", directory.names());
        logs.remove(0)
    }

    /// The log of the program with this name (the last component of `exe`).
    ///
    /// # Panics
    /// When not exactly one of the directory's logs is about it.
    #[track_caller]
    pub(crate) fn of_program(directory: &Path, program: &str) -> Self {
        let mut logs = Self::all_in(directory);
        logs.retain(|log| {
            let exe = log.start()["exe"].as_str().unwrap_or_default();
            exe.rsplit('/').next() == Some(program)
        });
        assert_eq!(
            logs.len(),
            1,
            "logs of {program} in {}",
            directory.display()
        );
        logs.remove(0)
    }

    /// The first line.
    #[track_caller]
    pub(crate) fn start(&self) -> &Value {
        let start = self
            .lines
            .first()
            .unwrap_or_else(|| panic!("{} is empty", self.path.display()));
        assert_eq!(start["op"], "start", "{}", self.path.display());
        start
    }

    /// All lines with this op, in the order of the file.
    pub(crate) fn ops(&self, op: &str) -> impl Iterator<Item = &Value> {
        self.lines.iter().filter(move |line| line["op"] == op)
    }

    /// The only line with this op and, when given, this `size`.
    ///
    /// # Panics
    /// When there is none, or more than one.
    #[track_caller]
    pub(crate) fn only(&self, op: &str, size: Option<u64>) -> &Value {
        let fits = |line: &&Value| size.is_none_or(|size| line["size"] == size);
        let found: Vec<&Value> = self.ops(op).filter(fits).collect();
        assert_eq!(
            found.len(),
            1,
            "{op} {size:?} in {}: {found:?}",
            self.path.display()
        );
        found[0]
    }

    /// The last `end` line.
    #[track_caller]
    pub(crate) fn end(&self) -> &Value {
        self.ops("end")
            .last()
            .unwrap_or_else(|| panic!("{} has no end", self.path.display()))
    }
}

/// The number that an address or pointer, `"0x…"`, stands for.
#[track_caller]
pub(crate) fn address(value: &Value) -> u64 {
    let digits = value.as_str().and_then(|text| text.strip_prefix("0x"));
    let number = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
    number.unwrap_or_else(|| panic!("{value} is not an address"))
}
