//! The logs of a run that has just ended, each read once: for the summary and for what they tell of other programs.

use std::path::PathBuf;

use memspy_analysis::Error;
use memspy_analysis::lineage::Lineage;
use memspy_analysis::log::Log;
use memspy_analysis::summary::Summary;

/// What the logs tell.
pub(crate) struct Recorded {
    /// Of other programs, one for each log that can be read.
    pub(crate) images: Vec<Lineage>,
    /// What happened in each, where that was asked for.
    pub(crate) summaries: Option<Result<Vec<Summary>, Error>>,
}

impl Recorded {
    /// Reads the logs: through all their events to summarise them, else as little as can be.
    pub(crate) fn read(logs: &[PathBuf], summarise: bool) -> Recorded {
        let mut images = Vec::new();
        if !summarise {
            let readable = logs.iter().filter_map(|path| Log::open(path).ok());
            images.extend(readable.filter_map(|log| Lineage::find(&log).ok()));
            return Recorded {
                images,
                summaries: None,
            };
        }
        let read = |log: Result<Log, Error>| {
            let mut summary = Summary::read(&log?)?;
            images.push(std::mem::take(&mut summary.lineage));
            Ok(summary)
        };
        let summaries = Log::each(logs).and_then(|logs| {
            let all: Vec<Result<Summary, Error>> = logs.map(read).collect();
            all.into_iter().collect()
        });
        Recorded {
            images,
            summaries: Some(summaries),
        }
    }
}
