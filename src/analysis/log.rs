//! One image's log, opened: its first line, where its blocks lie, its tail.

use crate::damage::Damage;
use crate::error::Error;
use crate::event::Start;
use crate::index::{self, Block, Index};
use crate::process;
use crate::source::{self, Source};
use crate::tail::Tail;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The log of one process image, with its tail where there is one.
///
/// Opening makes the first pass: along the block lines. [`crate::merge::Merge`] and
/// [`crate::replay::replay`] make the second.
#[derive(Debug)]
pub struct Log {
    pub(crate) source: Arc<Source>,
    /// Where it begins in its source.
    from: u64,
    pub(crate) index: Index,
    pub(crate) tail: Option<Tail>,
    running: bool,
}

impl Log {
    /// Opens the logs that `paths` name: files, directories, `-` for standard input. A file that
    /// holds several logs one after the other gives several. Among several files an empty one is the log of an image
    /// that was killed before its first line, and keeps nobody from reading the others.
    ///
    /// # Errors
    /// At the first path that can't be read or is not a log.
    pub fn open_all(paths: &[PathBuf]) -> Result<Vec<Log>, Error> {
        Log::each(paths)?.collect()
    }

    /// The same logs one by one: each path is opened when its turn comes.
    ///
    /// # Errors
    /// When a directory can't be read or holds no log.
    pub fn each(paths: &[PathBuf]) -> Result<Each, Error> {
        let paths = source::find(paths)?;
        Ok(Each {
            several: paths.len() > 1,
            paths: paths.into_iter(),
            images: Vec::new().into_iter(),
        })
    }

    /// The log of an image that made the file and no line.
    fn unborn(path: &Path) -> Result<Log, Error> {
        // Its tail may be as unfinished as the log is.
        let tail = Tail::of_log(path).ok().flatten();
        let source = Arc::new(Source::open(path)?);
        Ok(Log::of(source, 0, tail, Index::default()))
    }

    /// Whether the image ended before its first line and left nothing in the tail.
    fn is_unborn(&self) -> bool {
        self.source.is_empty() && self.index.blocks.is_empty()
    }

    /// Opens one log; of a file that holds several, the first.
    ///
    /// # Errors
    /// When the path can't be read or is not a log.
    pub fn open(path: &Path) -> Result<Log, Error> {
        let tail = Tail::of_log(path)?;
        let source = Arc::new(Source::open(path)?);
        Log::image(source, tail, 0)
    }

    /// Opens the first `end` bytes of a log, with a tail that was read before.
    pub(crate) fn up_to(path: &Path, end: u64, tail: Tail) -> Result<Log, Error> {
        let mut source = Source::open(path)?;
        source.cut_at(end);
        Log::image(Arc::new(source), Some(tail), 0)
    }

    fn open_images(path: &Path, logs: &mut Vec<Log>) -> Result<(), Error> {
        let first = Log::open(path)?;
        let source = Arc::clone(&first.source);
        let mut end = first.index.end;
        logs.push(first);
        while end < source.len() {
            let next = Log::image(Arc::clone(&source), None, end)?;
            if next.index.end <= end {
                break;
            }
            end = next.index.end;
            logs.push(next);
        }
        Ok(())
    }

    /// Opens the log that begins at `from` of a source.
    fn image(source: Arc<Source>, tail: Option<Tail>, from: u64) -> Result<Log, Error> {
        let index = index::build(&source, tail.as_ref(), from)?;
        Ok(Log::of(source, from, tail, index))
    }

    fn of(source: Arc<Source>, from: u64, tail: Option<Tail>, index: Index) -> Log {
        let running = tail.as_ref().is_some_and(|tail| {
            let control = &tail.control;
            process::is_running(control.pid, control.start_ticks, &control.boot_id)
        });
        Log {
            source,
            from,
            index,
            tail,
            running,
        }
    }

    /// The path by which it was opened; `-` for standard input.
    pub fn path(&self) -> &Path {
        self.source.path()
    }

    /// The first line; `None` when the log was cut before it.
    pub fn start(&self) -> Option<&Start> {
        self.index.start.as_ref()
    }

    /// The first line as it stands in the log, without its newline; empty when it is missing.
    pub fn start_text(&self) -> &[u8] {
        &self.index.start_text
    }

    /// The process, 0 when unknown.
    pub fn pid(&self) -> u32 {
        let by_tail = || self.tail.as_ref().map(|tail| tail.control.pid);
        self.start()
            .map(|start| start.pid)
            .or_else(by_tail)
            .unwrap_or(0)
    }

    /// The tail, when there is one beside the log.
    pub fn tail(&self) -> Option<&Tail> {
        self.tail.as_ref()
    }

    /// Whether the recorded process still runs.
    pub fn is_running(&self) -> bool {
        self.running
    }

    /// Whether the log has no block lines, so that its lines come in the order of the file, which
    /// between threads is not the order of time.
    pub fn is_in_file_order(&self) -> bool {
        self.index.file_order
    }

    /// How many events the tail adds.
    pub fn events_from_tail(&self) -> u64 {
        self.index.from_tail
    }

    /// What the first pass found wrong.
    pub fn damage(&self) -> &Damage {
        &self.index.damage
    }

    /// Resident bytes at some times (nanoseconds since the image started), in no order.
    pub fn resident(&self) -> &[(u64, u64)] {
        &self.index.resident
    }

    /// Reads the lines of a block into `lines`, which has their length; what a cut log lacks stays as it is.
    pub(crate) fn read_lines(&self, block: &Block, lines: &mut [u8]) -> Result<(), Error> {
        if block.in_tail() {
            let tail = self.tail.as_ref().map_or(&[][..], |tail| &tail.text);
            let text = tail.get(block.at() as usize..).unwrap_or_default();
            let len = text.len().min(lines.len());
            lines[..len].copy_from_slice(&text[..len]);
        } else {
            self.source.read_at(lines, block.at())?;
        }
        Ok(())
    }

    /// CLOCK_MONOTONIC at a time `t` of this log, in nanoseconds; `None` without a start line.
    ///
    /// The rate is corrected by the last pair of both clocks that the block lines hold.
    pub fn mono_ns(&self, t: u64) -> Option<u64> {
        let start = self.start()?.mono_ns;
        let scaled = match self.index.clock {
            Some((at, mono_ns)) if at > 0 && mono_ns > start => {
                let real = u128::from(mono_ns - start);
                (u128::from(t) * real / u128::from(at)) as u64
            }
            _ => t,
        };
        Some(start.saturating_add(scaled))
    }
}

/// Logs, opened one by one, see [`Log::each`].
#[derive(Debug)]
pub struct Each {
    several: bool,
    paths: std::vec::IntoIter<PathBuf>,
    /// What is left of the present path's.
    images: std::vec::IntoIter<Log>,
}

impl Each {
    /// How many paths are still to be opened.
    pub fn paths_left(&self) -> usize {
        self.paths.len()
    }
}

impl Iterator for Each {
    type Item = Result<Log, Error>;

    fn next(&mut self) -> Option<Result<Log, Error>> {
        loop {
            if let Some(log) = self.images.next() {
                return Some(Ok(log));
            }
            let path = self.paths.next()?;
            let mut images = Vec::new();
            if let Err(why) = Log::open_images(&path, &mut images) {
                if !(self.several && is_empty(&path)) {
                    return Some(Err(why));
                }
                return Some(Log::unborn(&path));
            }
            self.images = images.into_iter();
        }
    }
}

/// Where a log is to be found again, and its first line.
#[derive(Debug)]
pub struct Place {
    path: PathBuf,
    from: u64,
    /// The bytes, of standard input, which can't be read a second time, and where it was asked for.
    kept: Option<Arc<Source>>,
    unborn: bool,
    /// The first line; `None` when the log was cut before it.
    pub start: Option<Start>,
}

impl Place {
    /// The place of a log, which stays open when `keep`.
    pub fn of(log: &Log, keep: bool) -> Place {
        let keep = keep || log.path() == Path::new("-");
        Place {
            path: log.path().into(),
            from: log.from,
            kept: keep.then(|| Arc::clone(&log.source)),
            unborn: log.is_unborn(),
            start: log.start().cloned(),
        }
    }

    /// The path by which the log was opened; `-` for standard input.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the log again.
    ///
    /// # Errors
    /// When it can't be read any more.
    pub fn open(&self) -> Result<Log, Error> {
        if self.unborn {
            return Log::unborn(&self.path);
        }
        let tail = match self.from {
            0 => Tail::of_log(&self.path)?,
            _ => None,
        };
        let source = match &self.kept {
            Some(source) => Arc::clone(source),
            None => Arc::new(Source::open(&self.path)?),
        };
        Log::image(source, tail, self.from)
    }
}

fn is_empty(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|file| file.is_file() && file.len() == 0)
}
