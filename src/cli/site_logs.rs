//! The allocation sites of the logs on a command line, and what is to be said of those logs.

use std::path::PathBuf;

use memspy_analysis::log::Log;
use memspy_analysis::printable;
use memspy_analysis::site::{Kind, Sites};

use crate::terminal::show;

/// Logs that were read for their sites.
pub(crate) struct SiteLogs {
    pub(crate) sites: Sites,
    /// When the first recording began, nanoseconds since 1970.
    pub(crate) start_unix_ns: Option<u64>,
    /// From the start to the last event of the log that lasted longest, nanoseconds.
    pub(crate) duration_ns: u64,
    /// Whether every log has every event.
    pub(crate) complete: bool,
    /// What the logs lack, safe to print.
    pub(crate) warnings: Vec<String>,
    programs: Vec<String>,
}

impl SiteLogs {
    /// Reads logs to their ends; for `kind` and `short` see [`Sites::new`].
    ///
    /// # Errors
    /// When a log can't be read.
    pub(crate) fn read(paths: &[PathBuf], kind: Kind, short: u64) -> anyhow::Result<SiteLogs> {
        let mut read = SiteLogs {
            sites: Sites::new(kind, short),
            start_unix_ns: None,
            duration_ns: 0,
            complete: true,
            warnings: Vec::new(),
            programs: Vec::new(),
        };
        for log in Log::each(paths)? {
            read.add(&log?)?;
        }
        Ok(read)
    }

    fn add(&mut self, log: &Log) -> anyhow::Result<()> {
        let outcome = self.sites.read(log)?;
        self.duration_ns = self.duration_ns.max(outcome.last_t);
        if !outcome.completeness.complete {
            self.complete = false;
            let why: Vec<String> = outcome
                .completeness
                .reasons
                .iter()
                .map(ToString::to_string)
                .collect();
            let why = printable(why.join(", ").as_bytes());
            self.warnings
                .push(format!("{}: incomplete: {why}", show(log.path())));
        }
        if let Some(start) = log.start() {
            let earliest = self.start_unix_ns.unwrap_or(u64::MAX).min(start.unix_ns);
            self.start_unix_ns = Some(earliest);
            let name = start
                .exe
                .rsplit(|&byte| byte == b'/')
                .next()
                .unwrap_or_default();
            self.programs
                .push(format!("{} (pid {})", printable(name), start.pid));
        }
        Ok(())
    }

    /// Which programs, in a few words.
    pub(crate) fn title(&self) -> String {
        match self.programs.as_slice() {
            [] => "a log without a start".to_string(),
            [one] => one.clone(),
            [first, rest @ ..] => format!("{first} and {} more", rest.len()),
        }
    }
}
