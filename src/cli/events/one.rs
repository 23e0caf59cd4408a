//! The events of one log: times count from its own start.

use std::io::Write;

use memspy_analysis::log::Log;
use memspy_analysis::merge::{Half, Step};
use memspy_analysis::model::{Change, Memory};
use memspy_analysis::replay::{Visitor, replay};

use super::{Printer, call, reasons, with_keys};
use crate::terminal::say;

/// Prints what the filter lets through.
///
/// # Errors
/// When the log can't be read any more.
pub(super) fn print<W: Write>(log: &Log, printer: &mut Printer<W>) -> anyhow::Result<()> {
    if log.is_in_file_order() {
        say(
            "this log has no block lines (it was cut or filtered): its lines come in the order of the file",
        );
    }
    // The first line, which is no event and has no number.
    if printer.json && printer.filter.takes_all() && !log.start_text().is_empty() {
        let tid = [("tid", u64::from(log.pid()))];
        with_keys(&mut printer.line, log.start_text(), &tid);
        printer.print();
    }
    let outcome = replay(log, &mut Lines(printer))?;
    if !outcome.completeness.complete && printer.result.is_ok() {
        let why = reasons(&outcome.completeness);
        say(&format!("the log is incomplete: {why}"));
    }
    Ok(())
}

struct Lines<'p, W>(&'p mut Printer<W>);

impl<W: Write> Visitor for Lines<'_, W> {
    fn step(&mut self, step: &Step, change: &Change, _memory: &Memory) {
        let printer = &mut *self.0;
        if step.half == Half::Acquire || !printer.filter.takes(step, change, step.time) {
            return;
        }
        if printer.json {
            let tid = [("tid", u64::from(step.event.tid))];
            with_keys(&mut printer.line, step.text(), &tid);
        } else {
            call::write(&mut printer.line, step);
        }
        printer.print();
    }

    fn is_done(&self) -> bool {
        self.0.result.is_err()
    }
}
