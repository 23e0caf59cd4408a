//! The reports of `memspy check`: one file for each format, each a pure function of a [`Report`].
//!
//! What they share: names and paths come from the judged program and are hostile. Every format
//! escapes them for its own reader; nothing of theirs passes raw.

mod amount;
mod github;
mod json;
mod junit;
mod markdown;
mod sarif;
mod source;
mod text;

use memspy_analysis::verdict::suppression::Suppression;
use memspy_analysis::verdict::{Finding, Frame, KindSet, Process, Standing, Verdict};

use crate::terminal::clean;
use amount::Amount;
pub(crate) use source::Sources;

/// A way to write a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people, on a terminal or in a CI log
    Text,
    /// One document with everything
    Json,
    /// JUnit XML, one test case for each leak
    Junit,
    /// SARIF 2.1.0, for code scanning
    Sarif,
    /// GitHub Actions workflow commands: annotations on the source lines
    Github,
    /// Markdown, for a job summary or a merge request
    Markdown,
}

/// What a report is about.
pub(crate) struct Report<'a> {
    /// What was found.
    pub(crate) verdict: &'a Verdict,
    /// The policy's suppressions, in the order that the verdict's indices mean.
    pub(crate) suppressions: &'a [Suppression],
    /// Kinds whose leaks are listed for people.
    pub(crate) show: KindSet,
    /// A baseline was given.
    pub(crate) against_baseline: bool,
    /// How source paths are shortened.
    pub(crate) sources: &'a Sources,
    /// Remarks that change no verdict.
    pub(crate) notes: &'a [String],
    /// The code with which memspy will end.
    pub(crate) exit_code: u8,
}

impl Report<'_> {
    /// The report in one format, ending in a newline.
    pub(crate) fn write(&self, format: Format) -> String {
        match format {
            Format::Text => text::write(self),
            Format::Json => json::write(self),
            Format::Junit => junit::write(self),
            Format::Sarif => sarif::write(self),
            Format::Github => github::write(self),
            Format::Markdown => markdown::write(self),
        }
    }

    /// The verdict in one line, without a newline.
    pub(crate) fn verdict_line(&self) -> String {
        text::verdict_line(self)
    }

    fn process(&self, finding: &Finding) -> &Process {
        &self.verdict.processes[finding.process]
    }

    /// `definite leak of 96 bytes in 3 blocks`, not escaped.
    fn headline(&self, finding: &Finding) -> String {
        let leak = &finding.leak;
        let amount = Amount::of(leak.bytes, leak.blocks, leak.kind);
        match leak.kind {
            memspy_analysis::verdict::Kind::Mapping => format!("leak of {amount}"),
            kind => format!("{kind} leak of {amount}"),
        }
    }

    /// Where a leak was allocated: `make_node (src/list.c:12)`, not escaped.
    fn origin(&self, finding: &Finding) -> String {
        match finding.culprit() {
            Some(frame) => format!("{} ({})", frame.label(), self.place(frame)),
            None => "an unknown place (no call stack)".into(),
        }
    }

    /// A frame's source line, else its module.
    fn place(&self, frame: &Frame) -> String {
        match (&frame.file, frame.line, &frame.module) {
            (Some(file), Some(line), _) => format!("{}:{line}", self.sources.shorten(file)),
            (Some(file), None, _) => self.sources.shorten(file),
            (None, _, Some(module)) => format!("in {module}"),
            (None, _, None) => "in no known module".into(),
        }
    }

    /// One line for each frame of a leak's stack down to main, escaped for people's eyes.
    fn stack_lines(&self, finding: &Finding) -> Vec<String> {
        let frames = &finding.leak.frames;
        let is_main = |frame: &Frame| frame.function.as_deref() == Some("main");
        let shown = frames
            .iter()
            .position(is_main)
            .map_or(frames.len(), |main| main + 1);
        let lines = frames[..shown].iter().enumerate().map(|(number, frame)| {
            let inlined = if frame.inlined { " [inlined]" } else { "" };
            let (label, place) = (clean(&frame.label()), clean(&self.place(frame)));
            format!("#{number:<2} {label} ({place}){inlined}")
        });
        let mut lines: Vec<String> = lines.collect();
        if frames.is_empty() {
            lines.push("no call stack was recorded".into());
        } else if finding.leak.cut && shown == frames.len() {
            lines.push("… the stack was not followed further".into());
        }
        lines
    }

    /// What became of a leak that does not fail the check, and what a failing one grew from.
    fn standing(&self, finding: &Finding) -> Option<String> {
        if let Some((blocks, bytes)) = finding.grown_from {
            let known = Amount::of(bytes, blocks, finding.leak.kind);
            return Some(format!("the baseline knows {known}"));
        }
        match finding.standing {
            Standing::Fails | Standing::Allowed => None,
            Standing::Pool => finding.pool.map(|pool| format!("runtime pool: {pool}")),
            Standing::Suppressed(index) => {
                let name = self
                    .suppressions
                    .get(index)
                    .map_or("?", |entry| entry.name.as_str());
                Some(format!("suppressed by {}", clean(name)))
            }
            Standing::Known => Some("in the baseline".into()),
            Standing::Budgeted => Some("within the leak budget".into()),
            Standing::Inherited => Some("inherited from the parent, not this process's".into()),
        }
    }

    /// Suppressions that matched nothing, each as `file:line: name` with the reason.
    fn unused(&self) -> Vec<String> {
        let entries = self.suppressions.iter().zip(&self.verdict.usage);
        let unused =
            entries
                .filter(|(_, usage)| usage.matched.blocks == 0)
                .map(|(entry, usage)| {
                    let (file, name) = (clean(&entry.file), clean(&entry.name));
                    let reason = match entry.expires.filter(|_| usage.expired) {
                        Some(day) => format!("expired on {day}"),
                        None => "matched nothing".into(),
                    };
                    format!("{file}:{}: {name}: {reason}", entry.line)
                });
        unused.collect()
    }

    /// Baseline entries whose leak is gone or smaller.
    fn stale(&self) -> Vec<String> {
        let stale = self.verdict.stale.iter().map(|(fingerprint, entry)| {
            let known = Amount::of(entry.bytes, entry.blocks, entry.kind);
            let stack = entry.stack.first().map_or("no stack", String::as_str);
            format!("{fingerprint} {}: {known}, {}", entry.kind, clean(stack))
        });
        stale.collect()
    }
}

#[cfg(test)]
mod fixture;
