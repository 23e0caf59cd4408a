//! Asking a recorded process for something, through the control page of its tail (FORMAT.md, *The tail*).
//!
//! The process answers at its next memory call. One that makes none is sent the signal that MEMSPY_SIGNAL named when it
//! was started, if it still catches it.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, anyhow, bail};
use memspy_log::tail::{CONTROL_SIZE, MAGIC, MAX_NAME, answer, control, request, state};

use crate::events::number;
use crate::exit::{self, Failure};
use crate::preflight::Program;
use crate::signal;
use crate::terminal::{say, show};

/// How often the control page is looked at.
const LOOK: Duration = Duration::from_millis(5);
/// How long a process may take to come by itself before it is sent a signal, and between two signals.
const SIGNAL_AFTER: Duration = Duration::from_millis(200);
/// After this the user is told what is waited for.
const TELL_AFTER: Duration = Duration::from_secs(1);

/// Which process is asked, and for how long.
#[derive(clap::Args)]
pub(crate) struct Target {
    /// The process
    #[arg(value_name = "PID", value_parser = number)]
    pid: u32,

    /// Give up after this many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u64,
}

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    /// A mark, a picture of the address space and a leak check.
    Snapshot,
    /// A mark.
    Mark,
}

/// A recorded process that runs.
pub(crate) struct Process {
    /// Its number as memspy sees it.
    pub(crate) pid: u32,
    /// The last part of its executable's path.
    pub(crate) program: String,
    /// Its log, as the process names it.
    pub(crate) log: PathBuf,
    root: PathBuf,
    tail: File,
    /// Which process has the number: field 22 of its stat file.
    ticks: u64,
    limit: Duration,
}

/// The answer to a wish.
pub(crate) struct Answer {
    /// The name of the mark.
    pub(crate) mark: String,
    /// The log's lines about the leak check; empty where none was made.
    pub(crate) check: Vec<u8>,
}

/// A name for a mark.
///
/// # Errors
/// When it is empty, too long, or not printable.
pub(crate) fn parse_name(name: &str) -> Result<String, String> {
    if name.is_empty() || name.len() > MAX_NAME {
        return Err(format!("a name has 1 to {MAX_NAME} bytes"));
    }
    if name.chars().any(char::is_control) {
        return Err("a name has no control characters".into());
    }
    Ok(name.to_owned())
}

impl Target {
    /// The process, if it can be asked.
    ///
    /// # Errors
    /// One line about why not: no such process, another user's, not recorded, ending.
    pub(crate) fn find(&self) -> anyhow::Result<Process> {
        let pid = self.pid;
        let (state, ticks) = stat(pid).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => anyhow!("there is no process {pid}"),
            _ => anyhow!("can't look at process {pid}: {error}"),
        })?;
        if state == 'Z' {
            bail!("process {pid} has ended");
        }
        let maps = fs::read(format!("/proc/{pid}/maps")).map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => anyhow!(
                "process {pid} is another user's, or gave up rights: ask as root or as its user"
            ),
            _ => anyhow!("can't look at the memory of process {pid}: {error}"),
        })?;
        let exe = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        let root = PathBuf::from(format!("/proc/{pid}/root"));
        let mut forked = false;
        for map in maps.split(|byte| *byte == b'\n').filter_map(Shared::parse) {
            let Some((tail, page)) = map.open(pid, &root) else {
                continue;
            };
            if word32(&page, control::PID) != own_pid(pid) {
                forked = true;
                continue;
            }
            if word32(&page, control::STATE) == state::DIRECT {
                bail!("process {pid} is ending");
            }
            return Ok(Process {
                pid,
                program: show(exe.file_name().unwrap_or_default()),
                log: map.path.with_extension(""),
                root,
                tail,
                ticks,
                limit: Duration::from_secs(self.timeout),
            });
        }
        if forked {
            bail!(
                "process {pid} has made no memory call since it was forked: it can't be asked yet"
            );
        }
        Err(not_recorded(pid, &exe, &maps))
    }
}

/// Why a process without a tail has none.
fn not_recorded(pid: u32, exe: &Path, maps: &[u8]) -> anyhow::Error {
    let loaded = maps.windows(9).any(|word| word == b"libmemspy");
    let why = match Program::find(exe.as_os_str()) {
        _ if loaded => {
            "libmemspy.so is loaded and records nothing (MEMSPY_MODE=off, MEMSPY_PARENT, or \
                        its log could not be made)"
                .into()
        }
        Ok(Program {
            refusal: Some(why), ..
        }) => why,
        _ => "start it with memspy run, or with libmemspy.so in LD_PRELOAD".into(),
    };
    anyhow!("process {pid} ({}) is not recorded: {why}", show(exe))
}

/// A mapping that may be a tail.
struct Shared {
    range: String,
    inode: u64,
    path: PathBuf,
    deleted: bool,
}

impl Shared {
    /// A line of a maps file, if it is of a file shared for writing, from its start, whose name is a tail's.
    fn parse(line: &[u8]) -> Option<Shared> {
        use std::ffi::OsStr;
        use std::os::unix::ffi::OsStrExt as _;
        let mut fields = line.splitn(6, |byte| *byte == b' ');
        let range = std::str::from_utf8(fields.next()?).ok()?;
        let shared = fields.next()? == b"rw-s" && fields.next()?.iter().all(|byte| *byte == b'0');
        let inode = std::str::from_utf8(fields.nth(1)?).ok()?.parse().ok()?;
        let path = fields.next()?.trim_ascii_start();
        let (path, deleted) = match path.strip_suffix(b" (deleted)") {
            Some(path) => (path, true),
            None => (path, false),
        };
        (shared && path.ends_with(b".tail")).then(|| Shared {
            range: range.into(),
            inode,
            path: OsStr::from_bytes(path).into(),
            deleted,
        })
    }

    /// The file and its control page, if it is a tail. One that was deleted is reached through the mapping, where the
    /// kernel allows that.
    fn open(&self, pid: u32, root: &Path) -> Option<(File, Vec<u8>)> {
        let by_path = root.join(self.path.strip_prefix("/").ok()?);
        let by_map = PathBuf::from(format!("/proc/{pid}/map_files/{}", self.range));
        let ways = if self.deleted {
            [by_map, by_path]
        } else {
            [by_path, by_map]
        };
        ways.iter().find_map(|way| {
            let file = File::options().read(true).write(true).open(way).ok()?;
            let same = file.metadata().ok()?.ino() == self.inode;
            let mut page = vec![0; CONTROL_SIZE];
            file.read_exact_at(&mut page, 0).ok()?;
            (same && page.starts_with(&MAGIC)).then_some((file, page))
        })
    }
}

fn word32(page: &[u8], at: usize) -> u32 {
    let bytes = page.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
    bytes.map_or(0, u32::from_le_bytes)
}

/// Takes the lock of a file, waiting for it, or gives it back.
fn flock(file: &File, operation: libc::c_int) -> io::Result<()> {
    // SAFETY: takes two numbers, the descriptor is open.
    #[allow(unsafe_code)]
    let answer = unsafe { libc::flock(file.as_raw_fd(), operation) };
    match answer {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// State and start time of a process.
fn stat(pid: u32) -> io::Result<(char, u64)> {
    let text = fs::read(format!("/proc/{pid}/stat"))?;
    let text = String::from_utf8_lossy(&text);
    let fields = text.rsplit_once(") ").map_or("", |(_, fields)| fields);
    let mut fields = fields.split(' ');
    let state = fields.next().and_then(|state| state.chars().next());
    let ticks = fields.nth(18).and_then(|ticks| ticks.parse().ok());
    Ok((state.unwrap_or('Z'), ticks.unwrap_or(0)))
}

/// A line of the status file.
fn status(pid: u32, key: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    Some(line.trim_start_matches(':').trim().to_owned())
}

/// The process's number in its own pid namespace.
fn own_pid(pid: u32) -> u32 {
    let numbers = status(pid, "NSpid");
    let last = numbers.and_then(|all| all.split_whitespace().last()?.parse().ok());
    last.unwrap_or(pid)
}

impl Process {
    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// When the process ends, refuses, or does not answer in time (exit code 124).
    pub(crate) fn ask(&self, wish: Wish, name: &str) -> anyhow::Result<Answer> {
        // Askers take turns; the kernel lets go of the lock when memspy ends.
        flock(&self.tail, libc::LOCK_EX).context("can't lock the tail")?;
        let serial = self.fresh_serial()?;
        self.put(control::NAME_LEN, name.len() as u32)?;
        self.tail
            .write_all_at(name.as_bytes(), control::NAME as u64)?;
        self.put(control::SERIAL, serial)?;
        self.put(
            control::REQUEST,
            match wish {
                Wish::Snapshot => request::SNAPSHOT,
                Wish::Mark => request::MARK,
            },
        )?;
        self.wait(serial)?;
        let answered = self.word(control::ANSWER)?;
        flock(&self.tail, libc::LOCK_UN).context("can't unlock the tail")?;
        let pid = self.pid;
        match answered {
            answer::DONE => {}
            answer::NOT_WRITTEN => {
                bail!("process {pid} could not write its log (memspy summary says why)")
            }
            answer::BUSY => bail!("process {pid} has another leak check under way: ask again"),
            answer::SANDBOXED => {
                bail!("process {pid} is in a seccomp sandbox: it makes no system calls for memspy")
            }
            _ => bail!("process {pid} is ending"),
        }
        let mut name = vec![0; (self.word(control::NAME_LEN)? as usize).min(MAX_NAME)];
        self.tail.read_exact_at(&mut name, control::NAME as u64)?;
        let check = match wish {
            Wish::Snapshot => self.check()?,
            Wish::Mark => Vec::new(),
        };
        Ok(Answer {
            mark: String::from_utf8_lossy(&name).into_owned(),
            check,
        })
    }

    /// A number that is not the last request's, nor that of one which nobody waited for to the end.
    fn fresh_serial(&self) -> io::Result<u32> {
        let done = self.word(control::DONE)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let number = now.map_or(0, |now| now.as_micros() as u32);
        Ok(if number == done {
            done.wrapping_add(1)
        } else {
            number
        })
    }

    fn wait(&self, serial: u32) -> anyhow::Result<()> {
        let began = Instant::now();
        let mut told = None;
        let mut signals = 0;
        while self.word(control::DONE)? != serial {
            let waited = began.elapsed();
            let pending = matches!(
                self.word(control::REQUEST)?,
                request::SNAPSHOT | request::MARK
            );
            if !stat(self.pid).is_ok_and(|(state, ticks)| state != 'Z' && ticks == self.ticks) {
                bail!("process {} ended before it answered", self.pid);
            }
            if waited >= self.limit {
                return Err(self.too_late(pending));
            }
            if pending && waited >= SIGNAL_AFTER * (signals + 1) {
                signals += 1;
                self.wake()?;
            }
            if waited >= TELL_AFTER && told != Some(pending) {
                told = Some(pending);
                let what = if pending {
                    "waiting for the next memory call of"
                } else {
                    "the check is under way, of"
                };
                say(&format!("{what} {} (pid {}) …", self.program, self.pid));
            }
            sleep(LOOK);
        }
        Ok(())
    }

    /// Withdraws the request.
    fn too_late(&self, pending: bool) -> anyhow::Error {
        let (pid, seconds) = (self.pid, self.limit.as_secs());
        let why = if pending {
            // The process may take it at this very moment: then the log has what nobody waits for any more.
            let _ = self.put(control::REQUEST, request::NONE);
            "made no memory call in"
        } else {
            "did not end its leak check in"
        };
        let hint = if pending && self.word(control::SIGNAL).unwrap_or(0) == 0 {
            " (started with MEMSPY_SIGNAL=USR2 it would answer while idle)"
        } else {
            ""
        };
        let message = format!("process {pid} {why} {seconds} s{hint}");
        Failure::new(exit::TIMED_OUT, message).into()
    }

    /// Sends the signal, if the process named one and still catches it.
    fn wake(&self) -> anyhow::Result<()> {
        let number = self.word(control::SIGNAL)?;
        if number == 0 || number > 64 {
            return Ok(());
        }
        let caught = status(self.pid, "SigCgt").and_then(|set| u64::from_str_radix(&set, 16).ok());
        if caught.unwrap_or(0) >> (number - 1) & 1 == 1 {
            signal::queue(self.pid, number as i32)
                .with_context(|| format!("can't send signal {number} to process {}", self.pid))?;
        }
        Ok(())
    }

    /// The log's lines that the answer points at.
    fn check(&self) -> anyhow::Result<Vec<u8>> {
        let (at, len) = (
            self.long(control::CHECK_AT)?,
            self.long(control::CHECK_LEN)?,
        );
        if len == 0 {
            return Ok(Vec::new());
        }
        let path = self.root.join(self.log.strip_prefix("/")?);
        let log = File::open(&path).with_context(|| format!("can't open {}", show(&self.log)))?;
        if at.saturating_add(len) > log.metadata()?.len() {
            bail!("the log {} lacks the answer", show(&self.log));
        }
        let mut lines = vec![0; usize::try_from(len)?];
        log.read_exact_at(&mut lines, at)?;
        Ok(lines)
    }

    fn word(&self, at: usize) -> io::Result<u32> {
        let mut bytes = [0; 4];
        self.tail.read_exact_at(&mut bytes, at as u64)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn long(&self, at: usize) -> io::Result<u64> {
        let mut bytes = [0; 8];
        self.tail.read_exact_at(&mut bytes, at as u64)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn put(&self, at: usize, word: u32) -> io::Result<()> {
        self.tail.write_all_at(&word.to_le_bytes(), at as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_tail_mapped_from_its_start_is_taken_for_one() {
        let line = b"7f00-7f10 rw-s 00000000 fe:01 4711                       /tmp/a b.jsonl.tail";
        let found = Shared::parse(line).expect("a tail");
        assert_eq!((found.inode, found.deleted), (4711, false));
        assert_eq!(found.path, Path::new("/tmp/a b.jsonl.tail"));
        let deleted = [&line[..], b" (deleted)"].concat();
        assert!(Shared::parse(&deleted).is_some_and(|found| found.deleted));
        for other in [
            &b"7f00-7f10 rw-s 00009000 fe:01 4711      /tmp/a.jsonl.tail"[..],
            b"7f00-7f10 rw-p 00000000 fe:01 4711      /tmp/a.jsonl.tail",
            b"7f00-7f10 rw-s 00000000 fe:01 4711      /tmp/a.jsonl",
            b"7f00-7f10 rw-s 00000000 00:00 0 ",
            b"",
        ] {
            assert!(Shared::parse(other).is_none());
        }
    }

    #[test]
    fn names_are_short_and_printable() {
        assert_eq!(
            parse_name("nach dem Laden ü"),
            Ok("nach dem Laden ü".into())
        );
        assert!(parse_name("").is_err() && parse_name("a\nb").is_err());
        assert!(parse_name(&"x".repeat(MAX_NAME + 1)).is_err());
    }
}
