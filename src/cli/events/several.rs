//! The events of several logs: each line names its process, times count from the first start of all.

use std::io::Write;

use memspy_analysis::complete::Completeness;
use memspy_analysis::log::Log;
use memspy_analysis::merge::{Half, Step};
use memspy_analysis::model::Change;
use memspy_analysis::several::{Several, Watcher};

use super::{Printer, call, reasons, with_keys};
use crate::exit::{self, Failure};
use crate::terminal::{say, show};

/// How many incomplete logs are named.
const MOST_NAMED: u64 = 5;

/// Refuses when no log is left.
pub(super) fn refuse_none(logs: &Several) -> anyhow::Result<()> {
    if !logs.places().is_empty() {
        return Ok(());
    }
    let message = "no log is of a process that --pid names; `memspy summary` on the same logs lists their processes";
    Err(Failure::new(exit::ERROR, message).into())
}

/// Prints what the filter lets through.
///
/// # Errors
/// When a log can't be read any more, or its place in time is unknown.
pub(super) fn print<W: Write>(logs: Several, printer: &mut Printer<W>) -> anyhow::Result<()> {
    if logs.have_several_boots() {
        say(
            "these logs come from several boots or machines: only their wall clocks put them in order",
        );
    }
    let blocks = printer.filter.needs_blocks();
    let mut lines = Lines {
        printer,
        incomplete: 0,
    };
    logs.run(blocks, &mut lines)?;
    if let Some(more @ 1..) = lines.incomplete.checked_sub(MOST_NAMED) {
        say(&format!(
            "and {more} more logs are incomplete; `memspy summary` says which"
        ));
    }
    Ok(())
}

struct Lines<'p, W> {
    printer: &'p mut Printer<W>,
    incomplete: u64,
}

impl<W: Write> Watcher for Lines<'_, W> {
    fn begin(&mut self, log: &Log, time: u64) {
        if log.is_in_file_order() {
            say(&format!(
                "{}: has no block lines (it was cut or filtered): its lines come in the order of the file",
                show(log.path())
            ));
        }
        let Some(start) = log.start() else { return };
        if !self.printer.filter.takes_start(time) {
            return;
        }
        if self.printer.json {
            let tid = [("tid", u64::from(start.pid))];
            with_keys(&mut self.printer.line, log.start_text(), &tid);
        } else {
            call::write_start(&mut self.printer.line, time, start);
        }
        self.printer.print();
    }

    fn step(&mut self, log: &Log, step: &Step, change: &Change, time: u64) {
        let printer = &mut *self.printer;
        if step.half == Half::Acquire || !printer.filter.takes(step, change, time) {
            return;
        }
        let pid = log.pid();
        if printer.json {
            let keys = [
                ("tid", u64::from(step.event.tid)),
                ("pid", u64::from(pid)),
                ("mono_ns", log.mono_ns(step.time).unwrap_or(step.time)),
            ];
            with_keys(&mut printer.line, step.text(), &keys);
        } else {
            call::write_of(&mut printer.line, pid, time, step);
        }
        printer.print();
    }

    fn end(&mut self, log: &Log, completeness: &Completeness) {
        if completeness.complete {
            return;
        }
        self.incomplete += 1;
        if self.incomplete <= MOST_NAMED {
            say(&format!(
                "{}: incomplete: {}",
                show(log.path()),
                reasons(completeness)
            ));
        }
    }

    fn is_done(&self) -> bool {
        self.printer.result.is_err()
    }
}
