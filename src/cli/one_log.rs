//! Reports that are about one process: the one log that the command line means.

use std::path::Path;

use memspy_analysis::log::Log;
use memspy_analysis::printable;
use memspy_analysis::replay::Outcome;

use crate::exit::{self, Failure};
use crate::terminal::{say, show};

/// Opens the log that a path names: a file, or a directory with one log in it.
///
/// # Errors
/// When it can't be read, or there are several.
pub(crate) fn open(path: &Path) -> anyhow::Result<Log> {
    let mut logs = Log::open_all(&[path.to_owned()])?;
    match logs.len() {
        1 => Ok(logs.remove(0)),
        count => {
            let message = format!(
                "{}: holds {count} logs, but this report is about one process; name one of its files",
                show(path)
            );
            Err(Failure::new(exit::ERROR, message).into())
        }
    }
}

/// The program and its process, safe to print.
pub(crate) fn title(log: &Log) -> String {
    match log.start() {
        Some(start) => {
            let name = start.exe.rsplit(|&byte| byte == b'/').next();
            format!(
                "{} (pid {})",
                printable(name.unwrap_or_default()),
                start.pid
            )
        }
        None => "a log without a start".to_string(),
    }
}

/// Says on standard error what the log lacks.
pub(crate) fn warn(log: &Log, outcome: &Outcome) {
    if outcome.completeness.complete {
        return;
    }
    let reasons: Vec<String> = outcome
        .completeness
        .reasons
        .iter()
        .map(ToString::to_string)
        .collect();
    say(&format!(
        "{}: incomplete: {}",
        show(log.path()),
        printable(reasons.join(", ").as_bytes())
    ));
}

/// A time since the start: `12.3 ms`.
pub(crate) fn time(ns: u64) -> String {
    match ns {
        0..1_000_000 => format!("{:.1} \u{b5}s", ns as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.2} ms", ns as f64 / 1e6),
        _ => format!("{:.3} s", ns as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::time;

    #[test]
    fn times_have_the_unit_that_fits() {
        assert_eq!(time(950), "0.9 \u{b5}s");
        assert_eq!(time(12_345_678), "12.35 ms");
        assert_eq!(time(1_500_000_000), "1.500 s");
    }
}
