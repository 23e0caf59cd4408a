//! Lines of source files, for people who want to see the code beside its name.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use memspy_analysis::printable;

/// Larger files are not source that somebody wrote.
const LARGEST_FILE: u64 = 16 << 20;
/// What fits beside a name.
const LONGEST_LINE: usize = 160;

/// Source files that were read.
#[derive(Default)]
pub(crate) struct SourceLines(HashMap<PathBuf, Option<Vec<u8>>>);

impl SourceLines {
    /// Line `number` (from 1) of a file, without its indentation, cut and safe to print; `None` when
    /// there is no such file or line.
    pub(crate) fn line(&mut self, file: &Path, number: u32) -> Option<String> {
        let text = self
            .0
            .entry(file.to_path_buf())
            .or_insert_with(|| read(file))
            .as_ref()?;
        let mut lines = text.split(|&byte| byte == b'\n');
        let line = lines.nth(number.checked_sub(1)? as usize)?.trim_ascii();
        let shown: String = printable(line).chars().take(LONGEST_LINE).collect();
        Some(shown).filter(|line| !line.is_empty())
    }
}

/// The name comes from a debug file: only a regular file of moderate size is read.
fn read(file: &Path) -> Option<Vec<u8>> {
    let about = fs::metadata(file).ok()?;
    if !about.is_file() || about.len() > LARGEST_FILE {
        return None;
    }
    let mut text = Vec::new();
    File::open(file)
        .ok()?
        .take(LARGEST_FILE)
        .read_to_end(&mut text)
        .ok()?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_found_by_its_number_and_shown_without_indentation() {
        let mut lines = SourceLines::default();
        let here = Path::new(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/src/cli/sites/source_line.rs"
        ));
        let first = lines.line(here, 1);
        assert!(first.is_some_and(|line| line.starts_with("//! Lines of source files")));
        assert_eq!(lines.line(here, 0), None);
        assert_eq!(lines.line(here, 1_000_000), None);
        assert_eq!(lines.line(Path::new("/nonexistent.c"), 1), None);
        assert_eq!(lines.line(Path::new("/dev/zero"), 1), None);
    }
}
