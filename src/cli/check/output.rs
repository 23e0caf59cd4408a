//! Where reports go: standard error, standard output, files.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use anyhow::Context as _;

use super::options::Args;
use super::report::{Format, Report};
use crate::terminal::show;

/// Writes the report in every format that was asked for. Files come first: what a pipe's reader
/// does must not cost them.
pub(super) fn deliver(report: &Report, args: &Args) -> anyhow::Result<()> {
    for output in &args.output {
        write_file(&output.file, &report.write(output.format))?;
    }
    match args.format {
        // Standard error may be closed; the exit code still tells.
        Format::Text => {
            let _ = io::stderr().write_all(report.write(Format::Text).as_bytes());
        }
        format => {
            let text = report.write(format);
            let mut stdout = io::stdout().lock();
            let written = stdout
                .write_all(text.as_bytes())
                .and_then(|()| stdout.flush());
            written.context("can't write the report to standard output")?;
            let _ = writeln!(io::stderr(), "{}", report.verdict_line());
        }
    }
    Ok(())
}

/// Writes a file anew, or standard output for `-`.
pub(super) fn write_file(path: &Path, text: &str) -> anyhow::Result<()> {
    if path == Path::new("-") {
        let written = io::stdout().write_all(text.as_bytes());
        return written.context("can't write to standard output");
    }
    fs::write(path, text).with_context(|| format!("can't write {}", show(path)))
}
