//! One line of a log as typed values.
//!
//! An [`Event`] owns what it holds and borrows nothing from the log, so that it can wait in a
//! cursor until its time has come. What memory it means is decided later, by the model.

use memspy_log::{Op, errno_name};
use std::fmt;

/// An address in the recorded process; 0 where a call had none.
pub type Address = u64;

/// The number of a call stack, see [`crate::model::Stacks`]; 0 where the log has none.
pub type StackId = u32;

/// One thing that happened, or one line about the log itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Nanoseconds since the image started: before a releasing call, after an acquiring one,
    /// before a call that does both.
    pub t: u64,
    /// Nanoseconds that a call which releases and acquires took; 0 for all others.
    pub dt: u64,
    /// The kernel's thread id, that of the line's block; 0 when the line stands in none.
    pub tid: u32,
    /// The call stack, 0 when stacks are off.
    pub stack: StackId,
    /// What the line is about.
    pub op: Op,
    /// The libc function inside which a kernel call was made; `None` when the program called.
    pub via: Option<Via>,
    /// Why the call failed.
    pub err: Option<Errno>,
    /// The keys of this op.
    pub what: What,
}

impl Default for Event {
    /// A free(NULL) at time 0.
    fn default() -> Event {
        Event {
            t: 0,
            dt: 0,
            tid: 0,
            stack: 0,
            op: Op::Free,
            via: None,
            err: None,
            what: What::Free(Free {
                ptr: 0,
                size: None,
                align: None,
            }),
        }
    }
}

impl Event {
    /// The moment at which the call had ended, as far as the log tells.
    pub fn end(&self) -> u64 {
        self.t.saturating_add(self.dt)
    }

    /// Bytes that the call asked for, given or not; `None` for calls that ask for none.
    pub fn asked(&self) -> Option<u64> {
        match &self.what {
            What::Alloc(call) => Some(call.bytes()),
            What::Realloc(call) => Some(call.bytes()),
            What::Mmap(call) => Some(call.size),
            What::Mremap(call) => Some(call.size),
            _ => None,
        }
    }
}

/// The keys of a line, by family of calls.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// malloc, calloc, aligned_alloc, memalign, posix_memalign, valloc, pvalloc.
    Alloc(Alloc),
    /// realloc and reallocarray.
    Realloc(Realloc),
    /// free, free_sized, free_aligned_sized.
    Free(Free),
    /// mmap and mmap64.
    Mmap(Mmap),
    /// munmap.
    Munmap(Range),
    /// mremap.
    Mremap(Mremap),
    /// mprotect.
    Mprotect {
        /// The pages.
        range: Range,
        /// Their new protection, the number of the call.
        prot: u32,
    },
    /// brk and sbrk.
    Brk(Brk),
    /// A heap of one of glibc's thread arenas.
    Arena(Arena),
    /// A loaded object.
    Module(Box<Module>),
    /// A module that is gone.
    Unload {
        /// Its number.
        module: u32,
    },
    /// A node of the tree of call stacks.
    Stack(StackNode),
    /// A thread's first line.
    Thread {
        /// memspy's number of the thread.
        thread: u32,
        /// Its name, bytes from outside.
        name: Box<[u8]>,
        /// An address on its stack, 0 when the line does not say.
        sp: Address,
    },
    /// Head of a picture of the address space.
    Snapshot(Box<Snapshot>),
    /// One mapping of a snapshot.
    Map(Box<Map>),
    /// A child began another program in this process's memory.
    Spawn {
        /// The child.
        pid: u32,
        /// The program as it was named, bytes from outside; empty where memspy does not know it.
        path: Box<[u8]>,
        /// It did not work after all.
        failed: bool,
    },
    /// A named point in time.
    Mark {
        /// The name, bytes from outside.
        name: Box<[u8]>,
        /// The generation of blocks that begins with it.
        generation: Option<u32>,
    },
    /// Head of a leak check's result.
    Check(Box<Check>),
    /// A group of blocks that a leak check found.
    Leak(Box<Leak>),
    /// The log's first line.
    Start(Box<Start>),
    /// Head of one thread's run of lines.
    Block(Box<BlockLine>),
    /// The image's last word.
    End(Box<End>),
    /// Writing failed from here on.
    Stopped {
        /// The errno's name.
        why: Box<str>,
        /// Events lost so far.
        lost: u64,
    },
    /// Writing goes on.
    Resumed {
        /// Why it had stopped.
        why: Box<str>,
        /// Events that are missing before this line.
        lost: u64,
    },
}

/// A call that gives out a heap block.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Alloc {
    /// Elements: 1 but for calloc.
    pub count: u64,
    /// Bytes of one element.
    pub size: u64,
    /// The alignment asked for, 0 when the call has none.
    pub align: u64,
    /// The block, 0 when the call failed (or gave NULL without an error).
    pub ptr: Address,
}

impl Alloc {
    /// Bytes asked for in all, saturating at 2^64-1.
    pub fn bytes(&self) -> u64 {
        self.count.saturating_mul(self.size)
    }
}

/// A call that changes a heap block's size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Realloc {
    /// The block before, 0 for NULL.
    pub old: Address,
    /// Elements: 1 but for reallocarray.
    pub count: u64,
    /// Bytes of one element.
    pub size: u64,
    /// The block after. 0: the call failed, or with no `err` it freed.
    pub ptr: Address,
}

impl Realloc {
    /// Bytes asked for in all, saturating at 2^64-1.
    pub fn bytes(&self) -> u64 {
        self.count.saturating_mul(self.size)
    }
}

/// A call that gives a heap block back.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Free {
    /// The block, 0 for NULL.
    pub ptr: Address,
    /// The size that free_sized or free_aligned_sized was told.
    pub size: Option<u64>,
    /// The alignment that free_aligned_sized was told.
    pub align: Option<u64>,
}

/// A run of bytes of the address space.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    /// First byte.
    pub addr: Address,
    /// Bytes, as the call had them: not rounded to pages.
    pub size: u64,
}

/// An mmap call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mmap {
    /// The mapping, 0 when the call failed.
    pub addr: Address,
    /// The address asked for, 0 for NULL.
    pub hint: Address,
    /// Bytes asked for, not rounded to pages.
    pub size: u64,
    /// Protection, the number of the call.
    pub prot: u32,
    /// Flags, the number of the call.
    pub flags: u32,
    /// The file, -1 for none.
    pub fd: i32,
    /// Offset in the file.
    pub offset: u64,
}

/// An mremap call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mremap {
    /// The mapping before.
    pub old: Address,
    /// Its bytes, as the call had them.
    pub old_size: u64,
    /// Bytes asked for.
    pub size: u64,
    /// Flags, the number of the call.
    pub flags: u32,
    /// The address asked for with MREMAP_FIXED, else 0.
    pub hint: Address,
    /// The mapping after, 0 when the call failed.
    pub addr: Address,
}

/// A move of the program break.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Brk {
    /// The break before.
    pub from: Address,
    /// The break after; equal to `from` when nothing moved.
    pub to: Address,
    /// On a failed brk: the break asked for, else 0.
    pub hint: Address,
    /// What sbrk was asked for, 0 for brk.
    pub delta: i64,
}

/// What is known of a heap of a thread arena.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Arena {
    /// Where the heap lies.
    pub base: Address,
    /// Its bytes in use by the arena.
    pub size: u64,
    /// What happened to it.
    pub change: ArenaChange,
    /// The arena to which it belongs, 0 when the line does not say.
    pub arena: Address,
}

/// What happened to a heap of a thread arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArenaChange {
    /// It is new.
    Made,
    /// It became larger.
    Grown,
    /// It became smaller.
    Shrunk,
    /// It is gone, or a word that this version does not know.
    Other,
}

/// A loaded object.
#[derive(Clone, Debug, PartialEq)]
pub struct Module {
    /// Its number, from 1.
    pub id: u32,
    /// The lowest mapped address.
    pub base: Address,
    /// Bytes from the lowest mapped address to the highest.
    pub size: u64,
    /// What is added to the file's addresses.
    pub bias: Address,
    /// The file, bytes from outside; `[vdso]` for the vdso.
    pub path: Box<[u8]>,
    /// Hexadecimal digits; empty when the file has none.
    pub build_id: Box<str>,
}

/// A node of the tree of call stacks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StackNode {
    /// Its number.
    pub id: StackId,
    /// The caller's node, 0 at the outermost.
    pub parent: StackId,
    /// The module of `ip`, 0 for none.
    pub module: u32,
    /// The return address; look up `ip`-1.
    pub ip: Address,
    /// Why the stack was not followed further, at its outermost node.
    pub cut: Option<Cut>,
}

/// Why a stack ends before its outermost frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cut {
    /// The depth limit.
    Depth,
    /// The end of the known stack memory.
    Bounds,
    /// No unwind data, or bad unwind data.
    Unwind,
    /// A word that this version does not know.
    Other,
}

/// Head of a picture of the address space.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// Its number.
    pub id: u32,
    /// `start`, `exit`, `thread`, `request`.
    pub when: Box<str>,
    /// How many `map` lines follow.
    pub maps: u64,
    /// The program break then, 0 when unknown.
    pub brk: Address,
    /// RLIMIT_STACK then, bytes; `None` when there was no limit or the line does not say.
    pub stack_limit: Option<u64>,
    /// Bytes of memspy's own mappings that other threads were making or giving back, so that their lines may not say
    /// whose they are.
    pub making: u64,
}

/// One line of /proc/self/maps.
#[derive(Clone, Debug, PartialEq)]
pub struct Map {
    /// The snapshot to which it belongs.
    pub snapshot: u32,
    /// First byte.
    pub from: Address,
    /// First byte behind it.
    pub to: Address,
    /// `rwxp` as the kernel prints them.
    pub perms: Box<str>,
    /// Offset in the file.
    pub offset: u64,
    /// The file's inode, 0 for none.
    pub inode: u64,
    /// The path or the kernel's word (`[heap]`), bytes from outside, may be empty.
    pub path: Box<[u8]>,
    /// Resident bytes.
    pub rss: Option<u64>,
    /// Resident bytes that no other process maps.
    pub private: Option<u64>,
    /// Resident bytes that were changed, or have no file.
    pub dirty: Option<u64>,
    /// Whether it is memspy's own.
    pub own: bool,
}

/// Head of a leak check's result.
#[derive(Clone, Debug, PartialEq)]
pub struct Check {
    /// Its number.
    pub id: u32,
    /// `exit`, `exec`, `request`.
    pub when: Box<str>,
    /// The mark at which it was made, bytes from outside; empty without one.
    pub mark: Box<[u8]>,
    /// How many `leak` lines follow.
    pub groups: u64,
    /// Live blocks then.
    pub live_blocks: u64,
    /// Their bytes.
    pub live_bytes: u64,
    /// False when a part could not be read or the report was cut.
    pub complete: bool,
    /// Why it is not complete, bytes from outside.
    pub why: Box<[u8]>,
    /// How long the program stood still.
    pub pause_ns: u64,
}

/// A group of blocks of a leak check.
#[derive(Clone, Debug, PartialEq)]
pub struct Leak {
    /// The check to which it belongs.
    pub check: u32,
    /// `definite`, `indirect`, `possible`, `reachable`, `mapping`.
    pub kind: Box<str>,
    /// How many.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The generation in which they were allocated; 0: before the first mark.
    pub generation: u32,
    /// Whether they came with fork from the parent.
    pub inherited: bool,
}

/// The log's first line.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Start {
    /// The format's version.
    pub v: u64,
    /// The process.
    pub pid: u32,
    /// Its parent.
    pub ppid: u32,
    /// The executable, bytes from outside.
    pub exe: Box<[u8]>,
    /// The arguments, bytes from outside.
    pub argv: Vec<Box<[u8]>>,
    /// Whether `argv` was too long and is cut.
    pub argv_cut: bool,
    /// The working directory, bytes from outside.
    pub cwd: Box<[u8]>,
    /// Wall clock at t=0, nanoseconds.
    pub unix_ns: u64,
    /// CLOCK_MONOTONIC at t=0, nanoseconds.
    pub mono_ns: u64,
    /// The boot during which it ran.
    pub boot_id: Box<str>,
    /// Field 22 of /proc/PID/stat.
    pub start_ticks: u64,
    /// Inode of the pid namespace.
    pub pid_ns: u64,
    /// memspy's version.
    pub memspy: Box<str>,
    /// Name and version of the libc.
    pub libc: Box<str>,
    /// `glibc`, or the path of the module that has malloc, bytes from outside.
    pub allocator: Box<[u8]>,
    /// Whether kernel calls inside malloc are inferred.
    pub inference: bool,
    /// `tsc` or `monotonic`.
    pub clock: Box<str>,
    /// `events`, `leaks` or `full`.
    pub mode: Box<str>,
    /// `full`, `fp` or `off`.
    pub stacks: Box<str>,
    /// Bytes of a page, 0 when the line does not say.
    pub page: u64,
    /// In a forked child: where it came from.
    pub forked_from: Option<Parent>,
}

/// The image of which a forked child began as a copy.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parent {
    /// The parent process.
    pub pid: u32,
    /// The parent's log, bytes from outside.
    pub log: Box<[u8]>,
    /// The highest thread number that the parent had given.
    pub streams: u64,
    /// Of the parent's threads that lived, the number of the last event that the child inherits.
    /// Other threads up to `streams` had ended: the child inherits all of theirs.
    pub cut: Vec<(u32, u64)>,
}

/// Head of one thread's run of lines.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BlockLine {
    /// memspy's number of the thread, 0 for the shared one.
    pub thread: u32,
    /// Number of the first event.
    pub n: u64,
    /// How many events.
    pub events: u64,
    /// Bytes of their lines.
    pub bytes: u64,
    /// The largest time among them.
    pub until: u64,
    /// CLOCK_MONOTONIC at the moment `at`.
    pub mono_ns: Option<u64>,
    /// A time like `t`.
    pub at: Option<u64>,
    /// Resident bytes at `at`.
    pub rss: Option<u64>,
    /// Whether the thread is known to have ended.
    pub last: bool,
}

/// The image's last word.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct End {
    /// `exit`, `_exit`, `quick_exit`, `execve`, …
    pub how: Box<str>,
    /// Thread numbers given out.
    pub streams: u64,
    /// Of each thread without a last block, the number of its last event.
    pub open: Vec<(u32, u64)>,
    /// Events that could not be kept.
    pub lost: u64,
    /// Lines begun and never finished.
    pub abandoned: u64,
    /// Bytes of memory that memspy held.
    pub mapped: u64,
}

/// The libc function inside which a kernel call was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Via {
    /// This one.
    Call(Op),
    /// Some allocator function of several threads (`?` in the log).
    Several,
    /// A function that this version does not know.
    Other,
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Via::Call(op) => op.name(),
            Via::Several => "?",
            Via::Other => "other",
        })
    }
}

/// An errno by number; 0 for a name that this version does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Errno(pub u16);

impl Errno {
    /// The errno of a name as the log writes it: `ENOMEM`, or `E<number>` where there is no name.
    pub fn from_name(name: &str) -> Errno {
        let digits = name.strip_prefix('E').and_then(|rest| rest.parse().ok());
        let named = || (1..256).find(|errno| errno_name(i32::from(*errno)) == Some(name));
        Errno(digits.or_else(named).unwrap_or(0))
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match errno_name(i32::from(self.0)) {
            Some(name) => f.write_str(name),
            None if self.0 == 0 => f.write_str("an unknown error"),
            None => write!(f, "E{}", self.0),
        }
    }
}

const _: () = assert!(size_of::<Event>() <= 96);

#[cfg(test)]
mod tests {
    use super::Errno;

    #[test]
    fn an_errno_reads_back_from_its_name() {
        assert_eq!(Errno::from_name("ENOMEM"), Errno(12));
        assert_eq!(Errno::from_name("E77").to_string(), "E77");
        assert_eq!(Errno::from_name("ENOMEM").to_string(), "ENOMEM");
        assert_eq!(Errno::from_name("EWHATEVER"), Errno(0));
    }
}
