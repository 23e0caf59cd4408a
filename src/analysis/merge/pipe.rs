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
    loop {
        let mut batch = emptied.try_recv().unwrap_or_default();
        if !order.fill(&mut batch)? || full.send(batch).is_err() {
            return Ok(());
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
