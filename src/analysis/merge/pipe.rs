//! A log that is decoded and ordered by one thread while another replays it.
//!
//! Batches go over by a bounded channel and come back, emptied, by another: as many are under way
//! as the channel holds, so that memory does not grow with the log.

use super::Sink;
use super::batch::{Batch, Table};
use super::order::Order;
use crate::error::Error;
use crate::log::Log;
use std::borrow::Borrow;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;

/// Batches that wait for the replaying thread, at most.
const WAITING: usize = 2;
/// A log of fewer bytes is read before a thread would have begun to help.
const LARGE: u64 = 4 << 20;

/// Whether a second thread is there and would help.
pub(super) fn is_worth_it(log: &Log) -> bool {
    let several = || thread::available_parallelism().is_ok_and(|processors| processors.get() > 1);
    log.source.len() >= LARGE && several()
}

/// Goes through what is left of a log, decoding in a thread of its own. Answers false when no
/// thread could be started; nothing has happened then.
///
/// # Errors
/// When the log can't be read any more; the sink has got all events before that place.
pub(super) fn drain<L: Borrow<Log> + Send>(
    order: &mut Order<L>,
    table: &mut Table,
    sink: &mut impl Sink,
) -> Result<bool, Error> {
    thread::scope(|scope| {
        let (full, filled) = sync_channel(WAITING);
        let (empty, emptied) = channel();
        let decoder = thread::Builder::new()
            .name("memspy decode".into())
            .spawn_scoped(scope, move || decode(order, &full, &emptied));
        let Ok(decoder) = decoder else {
            return Ok(false);
        };
        replay(&filled, &empty, table, sink);
        // A sink that wants no more: the decoder's next batch finds nobody.
        drop(filled);
        match decoder.join() {
            Ok(result) => result.map(|()| true),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

fn decode<L: Borrow<Log>>(
    order: &mut Order<L>,
    full: &SyncSender<Batch>,
    emptied: &Receiver<Batch>,
) -> Result<(), Error> {
    let mut away = 0;
    let mut idle = Vec::new();
    loop {
        if let Ok(batch) = emptied.try_recv() {
            away -= 1;
            idle.push(batch);
        }
        let mut batch = idle.pop().unwrap_or_default();
        let more = order.fill(&mut batch)?;
        let large = batch.is_large();
        if !more || full.send(batch).is_err() {
            return Ok(());
        }
        away += 1;
        // Of huge blocks one is enough: the replaying thread catches up first.
        while large && away > 0 {
            let Ok(batch) = emptied.recv() else {
                return Ok(());
            };
            away -= 1;
            idle.push(batch);
        }
    }
}

fn replay(
    filled: &Receiver<Batch>,
    empty: &Sender<Batch>,
    table: &mut Table,
    sink: &mut impl Sink,
) {
    for mut batch in filled {
        table.seat(&mut batch);
        if table.go_through(&batch, sink).is_break() {
            return;
        }
        // The decoder may have ended; the batch is of no use then.
        let _ = empty.send(batch);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merge::{Merge, Step};
    use crate::testlog::{TestLog, free, malloc, realloc};
    use std::ops::ControlFlow;

    /// A log of three threads whose blocks overlap in time, of several batches.
    fn log(dir: &tempfile::TempDir) -> Log {
        let mut log = TestLog::new("");
        for round in 0..90 {
            for thread in 1..=3 {
                let t = |at: u64| round * 1000 + at * 10 + u64::from(thread) % 3;
                let ptr = |at: u64| (u64::from(thread) << 32) + round * 0x10000 + at * 0x20;
                let lines: Vec<String> = (0..90)
                    .map(|at| match at % 3 {
                        0 => malloc(t(at), 10 + at, ptr(at)),
                        1 => realloc(t(at), 15, ptr(at - 1), 99, ptr(at)),
                        _ => free(t(at), ptr(at - 1)),
                    })
                    .collect();
                let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
                log.block(thread, &lines);
            }
        }
        // And a block that is a batch by itself, larger than others.
        let lines: Vec<String> = (0..20_000u64)
            .map(|at| malloc(90_000 + at / 4, 10, 0x7f00_0000_0000 + at * 0x20))
            .collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        log.block(1, &lines);
        log.end(1, 100_000);
        let path = dir.path().join("memspy.cat.4711.jsonl");
        log.write(&path);
        Log::open(&path).expect("a log")
    }

    fn note(step: &Step) -> (u64, crate::merge::Half, u32, u64, String) {
        let text = String::from_utf8_lossy(step.text()).into_owned();
        (step.time, step.half, step.thread, step.n, text)
    }

    #[test]
    fn two_threads_give_the_same_events_in_the_same_order_as_one() {
        let dir = tempfile::tempdir().expect("a directory");
        let log = log(&dir);
        let mut alone = Vec::new();
        let mut merge = Merge::new(&log);
        while let Some(step) = merge.next_step().expect("readable") {
            alone.push(note(&step));
        }
        // Each realloc comes twice.
        assert_eq!(alone.len(), 90 * 3 * 120 + 20_000 + 1);
        assert!(alone.is_sorted_by_key(|(time, ..)| *time));
        let mut piped = Vec::new();
        let mut sink = |step: Step| {
            piped.push(note(&step));
            ControlFlow::Continue(())
        };
        let done = drain(
            &mut Order::new(&log, None),
            &mut Table::default(),
            &mut sink,
        );
        assert!(matches!(done, Ok(true)));
        assert!(piped == alone);
    }

    #[test]
    fn a_sink_that_has_enough_ends_both_threads() {
        let dir = tempfile::tempdir().expect("a directory");
        let log = log(&dir);
        for wanted in [1, 5000] {
            let mut seen = 0;
            let mut sink = |_: Step| {
                seen += 1;
                match seen < wanted {
                    true => ControlFlow::Continue(()),
                    false => ControlFlow::Break(()),
                }
            };
            let done = drain(
                &mut Order::new(&log, None),
                &mut Table::default(),
                &mut sink,
            );
            assert!(matches!(done, Ok(true)));
            assert_eq!(seen, wanted);
        }
    }
}
