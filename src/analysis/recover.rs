//! Brings what a dead process left in its tail to its log, for good.
//!
//! All places are computed from the tail alone: blocks whose way had begun go to theirs, waiting
//! lines go behind `log_end`, in the order of the buffers, then an `end` line. So a second try
//! after a death in between writes the same bytes to the same places. The tail goes last.

use crate::error::Error;
use crate::event::{End, What};
use crate::index::{Block, LOOSE, MAX_BLOCK};
use crate::log::Log;
use crate::merge::Merge;
use crate::process;
use crate::tail::Tail;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

/// What was done to a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovered {
    /// There is no tail: nothing was to be done.
    Nothing,
    /// The tail is in the log now, and gone.
    Done {
        /// How many events came from it.
        events: u64,
    },
}

/// Completes a log from its tail and removes the tail.
///
/// With `force` also when the process can't be proven dead, and when the tail names another file
/// as its log (both were copied).
///
/// # Errors
/// When the process may still run, the log or its tail can't be read or written, or the bytes
/// behind the log's end are not what an earlier recovery would have written.
pub fn recover(path: &Path, force: bool) -> Result<Recovered, Error> {
    let Some(tail) = Tail::of_log(path)? else {
        // Of a log that is not there nothing can be said, not even this.
        std::fs::metadata(path).map_err(|why| Error::io(path, "open", why))?;
        return Ok(Recovered::Nothing);
    };
    let file = open(path)?;
    if !force {
        must_be_dead(path, &tail)?;
        must_be_its_log(path, &tail, &file)?;
    }
    let log_end = tail.control.log_end;
    let events = tail.pieces.iter().map(|piece| piece.events);
    let events = events.fold(0, u64::saturating_add);
    let log = Log::up_to(path, log_end, tail)?;
    let writes = plan(&log)?;
    must_be_near(path, &file, &log, &writes)?;
    if !force {
        must_be_ours(path, &file, log_end, &writes)?;
    }
    let failed = |why| Error::io(path, "write", why);
    for (at, bytes) in &writes {
        file.write_all_at(bytes, *at).map_err(failed)?;
    }
    if !force {
        // The dead image may have set disk blocks aside behind the end.
        let len = file.metadata().map_err(failed)?.len();
        file.set_len(len).map_err(failed)?;
    }
    file.sync_all().map_err(failed)?;
    if let Some(tail) = log.tail() {
        std::fs::remove_file(&tail.path).map_err(|why| Error::io(&tail.path, "remove", why))?;
    }
    Ok(Recovered::Done { events })
}

fn open(path: &Path) -> Result<File, Error> {
    let failed = |why| Error::io(path, "open for writing", why);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_NOFOLLOW)
        .open(path)
        .map_err(failed)?;
    if file.metadata().map_err(failed)?.is_file() {
        Ok(file)
    } else {
        Err(failed(io::Error::other("not a regular file")))
    }
}

fn refuse(path: &Path, why: String) -> Error {
    Error::Recover {
        path: path.into(),
        why,
    }
}

fn must_be_dead(path: &Path, tail: &Tail) -> Result<(), Error> {
    let control = &tail.control;
    if process::is_running(control.pid, control.start_ticks, &control.boot_id) {
        return Err(refuse(
            path,
            format!(
                "process {} still runs and writes this log; recover it when the process has ended",
                control.pid
            ),
        ));
    }
    // A process of another pid namespace has another number here, or none.
    let pid_ns = Log::open(path)?.start().map_or(0, |start| start.pid_ns);
    if process::is_this_boot(&control.boot_id) && pid_ns != 0 && pid_ns != process::pid_namespace()
    {
        return Err(refuse(
            path,
            format!(
                "process {} belongs to another container, so whether it still runs can't be \
                 known here; recover it there, or use --force when you know that it has ended",
                control.pid
            ),
        ));
    }
    Ok(())
}

fn must_be_its_log(path: &Path, tail: &Tail, file: &File) -> Result<(), Error> {
    let about = file
        .metadata()
        .map_err(|why| Error::io(path, "read", why))?;
    let control = &tail.control;
    if (about.ino(), about.dev()) == (control.inode, control.device) {
        return Ok(());
    }
    Err(refuse(
        path,
        "its tail was made for another file; when log and tail were copied together, use --force"
            .into(),
    ))
}

/// How far a dead process can have given out room behind the bytes that it wrote: what its buffers hold, and what it
/// could not write (of which nothing but a guess is possible).
const MOST_AHEAD: u64 = MAX_BLOCK;

/// No byte goes further behind the file's end than a process can have meant: a tail that was forged, or whose log was
/// cut, would make a file of any size.
fn must_be_near(
    path: &Path,
    file: &File,
    log: &Log,
    writes: &[(u64, Vec<u8>)],
) -> Result<(), Error> {
    let failed = |why| Error::io(path, "read", why);
    let len = file.metadata().map_err(failed)?.len();
    let kept = log.tail().map_or(0, |tail| tail.text.len() as u64);
    let far = len.saturating_add(kept).saturating_add(MOST_AHEAD);
    match writes.iter().map(|(at, _)| *at).find(|at| *at > far) {
        None => Ok(()),
        Some(at) => Err(refuse(
            path,
            format!(
                "has {len} bytes, and its tail has lines for position {at}: the log was cut, or this is not its tail; \
                 move the tail away to read the log without it"
            ),
        )),
    }
}

/// Behind the log's end stands nothing, or what an earlier recovery wrote before it was stopped.
fn must_be_ours(
    path: &Path,
    file: &File,
    log_end: u64,
    writes: &[(u64, Vec<u8>)],
) -> Result<(), Error> {
    for (at, bytes) in writes.iter().filter(|(at, _)| *at >= log_end) {
        let mut found = vec![0; bytes.len()];
        let mut len = 0;
        while len < found.len() {
            match file.read_at(&mut found[len..], at.saturating_add(len as u64)) {
                Ok(0) => break,
                Ok(more) => len += more,
                Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
                Err(why) => return Err(Error::io(path, "read", why)),
            }
        }
        let same = |(found, ours): (&u8, &u8)| *found == 0 || found == ours;
        if !found[..len].iter().zip(bytes).all(same) {
            return Err(refuse(
                path,
                format!(
                    "holds bytes behind its end, at {at}, that memspy did not write; \
                     use --force to overwrite them"
                ),
            ));
        }
    }
    Ok(())
}

/// What to write where: (position, bytes).
fn plan(log: &Log) -> Result<Vec<(u64, Vec<u8>)>, Error> {
    let Some(tail) = log.tail() else {
        return Ok(Vec::new());
    };
    let mut writes = Vec::new();
    let mut end = tail.control.log_end;
    let mut append = |bytes: Vec<u8>, writes: &mut Vec<_>| {
        let at = end;
        end = end.saturating_add(bytes.len() as u64);
        writes.push((at, bytes));
    };
    for piece in &tail.pieces {
        let lines = tail.bytes(piece);
        match piece.place {
            Some((at, _)) => writes.push((at, lines.to_vec())),
            None => append(block(&Block::of_piece(piece), lines), &mut writes),
        }
    }
    let last = last_words(log, tail)?;
    append(last, &mut writes);
    Ok(writes)
}

/// A block with its block line.
fn block(span: &Block, lines: &[u8]) -> Vec<u8> {
    let mut block = format!(
        "{{\"op\":\"block\",\"thread\":{},\"tid\":{},\"n\":{},\"events\":{},\"bytes\":{},\
         \"t\":{},\"until\":{}}}\n",
        span.thread,
        span.tid,
        span.n,
        span.events,
        lines.len(),
        span.t,
        span.until
    )
    .into_bytes();
    block.extend_from_slice(lines);
    block
}

/// The block of the shared thread number 0 that closes the log: what the image could not say.
fn last_words(log: &Log, tail: &Tail) -> Result<Vec<u8>, Error> {
    let mut said = None;
    Merge::new(log).run(|step| {
        if let What::End(end) = &step.event.what {
            said = Some(End::clone(end));
        }
        ControlFlow::Continue(())
    })?;
    let said = said.unwrap_or_else(|| End {
        how: "recovered".into(),
        ..End::default()
    });
    let mut numbers: BTreeMap<u32, u64> = BTreeMap::new();
    let mut t = 0;
    for block in log
        .index
        .blocks
        .iter()
        .filter(|block| block.thread != LOOSE)
    {
        let last = numbers.entry(block.thread).or_default();
        let behind = block.n.saturating_add(u64::from(block.events));
        *last = behind.saturating_sub(1).max(*last);
        t = block.until.max(t);
    }
    for (thread, n) in &tail.vouched {
        let last = numbers.entry(*thread).or_default();
        *last = (*n).max(*last);
    }
    let control = &tail.control;
    let lost = control.lost.max(said.lost);
    let n = numbers.get(&0).copied().unwrap_or(0).saturating_add(1);
    let mut lines = String::new();
    let mut events = 1;
    if tail.stopped() {
        let why = tail.stop_name();
        lines = format!("{{\"op\":\"stopped\",\"t\":{t},\"why\":\"{why}\",\"lost\":{lost}}}\n");
        events = 2;
    }
    numbers.insert(0, n.saturating_add(events - 1));
    let mut open = String::new();
    for (thread, last) in &numbers {
        let comma = if open.is_empty() { "" } else { "," };
        write!(open, "{comma}[{thread},{last}]").expect("a String takes all");
    }
    writeln!(
        lines,
        "{{\"op\":\"end\",\"t\":{t},\"how\":\"{}\",\"streams\":{},\"open\":[{open}],\
         \"lost\":{lost},\"abandoned\":{},\"mapped\":{}}}",
        word(&said.how),
        control.streams.max(said.streams),
        control.abandoned.saturating_add(tail.abandoned),
        said.mapped
    )
    .expect("a String takes all");
    let span = Block::of_last_words(n, events as u32, t, control.pid);
    Ok(block(&span, lines.as_bytes()))
}

/// A word of memspy's own; a log can hold any text in its place, which then becomes `exit`.
fn word(how: &str) -> &str {
    let plain = how
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if plain && !how.is_empty() {
        how
    } else {
        "exit"
    }
}
