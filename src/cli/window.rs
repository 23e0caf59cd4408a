//! `--since MARK --until MARK`: the part of a run that a report is about.

use memspy_analysis::printable;
use memspy_analysis::verdict::{Evidence, Window};

use crate::ask::parse_name;
use crate::terminal::clean;

/// The part of the run that counts.
#[derive(clap::Args)]
#[command(next_help_heading = "Between marks")]
pub(crate) struct WindowOptions {
    /// Only what was allocated after this mark (memspy mark, memspy snapshot)
    #[arg(long, value_name = "MARK", value_parser = parse_name)]
    since: Option<String>,

    /// Only what was allocated before this mark, as the first leak check from then on found it
    #[arg(long, value_name = "MARK", value_parser = parse_name)]
    until: Option<String>,
}

impl WindowOptions {
    /// The window.
    pub(crate) fn window(&self) -> Window {
        Window {
            since: self.since.clone(),
            until: self.until.clone(),
        }
    }

    /// Says, one sentence each, which processes are left out because they lack a mark.
    ///
    /// # Errors
    /// When no process has the marks.
    pub(crate) fn left_out(&self, evidence: &[Evidence]) -> anyhow::Result<Vec<String>> {
        let mut notes = Vec::new();
        for one in evidence {
            if let Some(name) = &one.lacks {
                let (pid, program) = (one.process.pid, &one.process.program);
                notes.push(format!(
                    "process {pid} ({}) has no mark {}: it is left out",
                    clean(program),
                    clean(name)
                ));
            }
        }
        if notes.len() < evidence.len() || evidence.is_empty() {
            return Ok(notes);
        }
        let mut there: Vec<String> = evidence
            .iter()
            .flat_map(|one| one.marks.iter().map(|mark| clean(&printable(&mark.name))))
            .collect();
        there.sort();
        there.dedup();
        let there = match there.as_slice() {
            [] => "there are none".to_owned(),
            names => format!("there are {}", names.join(", ")),
        };
        let name = evidence.iter().find_map(|one| one.lacks.as_deref());
        let name = name.unwrap_or_default();
        anyhow::bail!("no log has a mark {}; {there}", clean(name))
    }
}
