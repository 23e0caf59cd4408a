//! A run of `tests/programs/steps.c` under the shim and a tracer, and what it told.

use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::process::Stdio;

use memspy_log::HeapText;
use memspy_log::tail::{CONTROL_SIZE, HEADER_SIZE, control, header};

use super::tracee::{Stop, Tracee};
use crate::support::{TestDir, compile, preloaded};

/// A word of the file that program and tracer share.
#[derive(Clone, Copy)]
pub(crate) enum Word {
    /// Entries told.
    Told,
    /// What the signal handler does.
    Action,
    /// No more calls are needed.
    Enough,
    /// How often the handler has run.
    Handled,
    /// The child that the handler made.
    Forked,
}

/// Who made a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Who {
    Main,
    Handler,
    Child,
    Thread(u32),
}

/// A call that the program told of.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// The op in the log.
    pub(crate) op: &'static str,
    /// Its size or, when it releases memory, its address.
    pub(crate) key: u64,
    /// Whether it had returned.
    pub(crate) done: bool,
    /// Who made it.
    pub(crate) who: Who,
}

/// The calls in the order of the program's enumeration.
pub(crate) const OPS: [&str; 7] = [
    "malloc",
    "free",
    "realloc",
    "calloc",
    "posix_memalign",
    "mmap",
    "munmap",
];

/// The room that there must be behind the text for the line of a heap call.
const ROOM: u64 = size_of::<HeapText>() as u64;

const ENTRIES_AT: u64 = 4096;
const ENTRY: usize = 24;

/// How the program is to run.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    /// The program's first argument.
    pub(crate) scenario: &'static str,
    /// The op of the calls under test.
    pub(crate) op: &'static str,
    /// Calls before the first one that can be stepped through.
    pub(crate) quiet: usize,
    /// Environment variables.
    pub(crate) settings: &'static [(&'static str, &'static str)],
    /// Whether log and tail lie on tmpfs.
    pub(crate) tmpfs: bool,
}

/// Stacks and pictures of the address space make hooks long and are not what most sweeps are about.
pub(crate) const SHORT: &[(&str, &str)] = &[("MEMSPY_STACKS", "off"), ("MEMSPY_MAPS", "off")];

impl Plan {
    /// The calls of one kind, in short hooks, on a disk.
    pub(crate) const fn calls(op: &'static str) -> Self {
        Self::scenario("calls", op)
    }

    /// Whether each call is one line, a heap call's.
    pub(crate) fn has_one_line(&self) -> bool {
        self.settings == SHORT && !matches!(self.op, "mmap" | "munmap")
    }

    /// A scenario of the program's.
    pub(crate) const fn scenario(scenario: &'static str, op: &'static str) -> Self {
        Self {
            scenario,
            op,
            quiet: 3,
            settings: SHORT,
            tmpfs: false,
        }
    }
}

/// Stacks from the unwinder, and no pictures.
pub(crate) const STACKS_ONLY: &[(&str, &str)] = &[("MEMSPY_MAPS", "off")];

/// Everything on.
pub(crate) const FULL: &[(&str, &str)] = &[];

/// The program, its logs and what it tells.
pub(crate) struct Target {
    /// The process, or its only thread.
    pub(crate) tracee: Tracee,
    /// Where the logs are.
    pub(crate) logs: TestDir,
    /// The shim's code in its address space.
    code: Option<Range<u64>>,
    /// What it tells.
    pub(crate) told: Told,
    _work: TestDir,
}

/// The file that program and tracer share.
pub(crate) struct Told(File);

impl Target {
    /// Starts it, stopped after its exec.
    pub(crate) fn start(plan: &Plan) -> Self {
        let place = if plan.tmpfs {
            TestDir::on_tmpfs
        } else {
            TestDir::new
        };
        let (logs, work) = (place(), TestDir::on_tmpfs());
        let path = work.join("told");
        let told = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .expect("the shared file can be made");
        told.set_len(ENTRIES_AT + 4096 * ENTRY as u64).unwrap();
        let op = OPS.iter().position(|op| *op == plan.op).unwrap();
        let mut command = preloaded(compile("steps.c"), &logs);
        command
            .args([plan.scenario, &op.to_string(), &plan.quiet.to_string()])
            .envs(plan.settings.iter().copied())
            .env("ORACLE", &path)
            .stdin(Stdio::null());
        Self {
            tracee: Tracee::start(&mut command),
            logs,
            code: None,
            told: Told(told),
            _work: work,
        }
    }

    /// Runs on to the next breakpoint; answers its address.
    #[track_caller]
    pub(crate) fn run_to_breakpoint(&mut self) -> u64 {
        assert_eq!(self.tracee.resume(0), Stop::Trap, "no further breakpoint");
        self.tracee.ip()
    }

    /// The shim's code. The library is loaded by then.
    pub(crate) fn code(&mut self) -> Range<u64> {
        let id = self.tracee.id();
        let code = self
            .code
            .get_or_insert_with(|| shim_code(id).expect("the shim is loaded"));
        code.clone()
    }

    /// The log of a process of the run, whether it is there or not.
    pub(crate) fn log_of(&self, pid: i32) -> PathBuf {
        self.logs.join(format!("memspy.steps.{pid}.jsonl"))
    }

    /// Whether the next event of the first thread will find its buffer full: its lines go to the log then.
    pub(crate) fn is_nearly_full(&self) -> bool {
        self.top() + ROOM > self.tail_word(control::EXTENT_TABLE)
    }

    /// Whether the first thread, in its first buffer, has a line under way: only its room holds a NUL.
    pub(crate) fn line_is_open(&self) -> bool {
        let text = HEADER_SIZE as u64..self.top().min(self.tail_word(control::EXTENT_TABLE));
        let mut bytes = vec![0; text.end.saturating_sub(text.start) as usize];
        let tail = self.tail();
        tail.read_exact_at(&mut bytes, CONTROL_SIZE as u64 + text.start)
            .unwrap();
        bytes.contains(&0)
    }

    /// Where the text of the first thread's first buffer ends.
    fn top(&self) -> u64 {
        self.tail_word(CONTROL_SIZE + header::TOP)
    }

    fn tail_word(&self, at: usize) -> u64 {
        let mut bytes = [0; 8];
        self.tail().read_exact_at(&mut bytes, at as u64).unwrap();
        u64::from_le_bytes(bytes)
    }

    fn tail(&self) -> File {
        let mut tail = self.log_of(self.tracee.id()).into_os_string();
        tail.push(".tail");
        File::open(tail).expect("a live image has a tail")
    }

    /// Whether the process has blocked all signals.
    pub(crate) fn blocks_signals(&self) -> bool {
        let status = fs::read_to_string(format!("/proc/{}/status", self.tracee.id())).unwrap();
        let mask = status
            .lines()
            .find_map(|line| line.strip_prefix("SigBlk:\t"));
        mask.is_some_and(|mask| !mask.starts_with("0000000000000000"))
    }
}

/// The executable mapping of libmemspy.so, from /proc.
pub(crate) fn shim_code(pid: i32) -> Option<Range<u64>> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).ok()?;
    let line = maps
        .lines()
        .find(|line| line.contains(" r-xp ") && line.ends_with("/libmemspy.so"))?;
    let (from, to) = line.split(' ').next()?.split_once('-')?;
    let number = |hex| u64::from_str_radix(hex, 16).ok();
    Some(number(from)?..number(to)?)
}

impl Told {
    /// A word of the shared file.
    pub(crate) fn word(&self, word: Word) -> u64 {
        let mut bytes = [0; 8];
        self.0.read_exact_at(&mut bytes, 8 * word as u64).unwrap();
        u64::from_le_bytes(bytes)
    }

    /// Changes a word of the shared file.
    pub(crate) fn set_word(&self, word: Word, value: u64) {
        self.0
            .write_all_at(&value.to_le_bytes(), 8 * word as u64)
            .unwrap();
    }

    /// What was told up to now.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        let mut bytes = vec![0; self.word(Word::Told) as usize * ENTRY];
        self.0.read_exact_at(&mut bytes, ENTRIES_AT).unwrap();
        let entry = |bytes: &[u8]| {
            let half = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
            Entry {
                op: OPS[half(0) as usize],
                done: half(4) == 2,
                who: match half(8) {
                    0 => Who::Main,
                    1 => Who::Handler,
                    2 => Who::Child,
                    n => Who::Thread(n - 3),
                },
                key: u64::from_le_bytes(bytes[16..].try_into().unwrap()),
            }
        };
        let told = bytes.chunks_exact(ENTRY).filter(|bytes| bytes[4] != 0);
        told.map(entry).collect()
    }
}
