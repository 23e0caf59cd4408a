//! A check's lines in the log.

use super::{Caller, Check, Gap, Report, check, group::Group};
use crate::scratch::Scratch;
use crate::{clock, log, sys};
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use memspy_log::{Op, key, tag};

/// More than the longest line needs.
const LINE: usize = 256;

static LAST_ID: AtomicU64 = AtomicU64::new(0);

/// Numbers the checks from 1 again (a new image).
pub(super) fn restart() {
    LAST_ID.store(0, Relaxed);
}

/// What the `check` line says before anything is known.
pub(super) struct Head<'a> {
    pub(super) id: u64,
    pub(super) t: u64,
    pub(super) when: &'a str,
    /// The mark at which the check is made; empty without one.
    pub(super) mark: &'a [u8],
}

impl<'a> Head<'a> {
    /// The next check begins.
    pub(super) fn now(when: &'a str, mark: &'a [u8]) -> Head<'a> {
        Head {
            id: LAST_ID.fetch_add(1, Relaxed) + 1,
            t: clock::before(),
            when,
            mark,
        }
    }
}

/// The result of a check that was none.
pub(super) fn none(gap: Gap, pause_ns: u64) -> Check {
    Check {
        groups: 0,
        live_blocks: 0,
        live_bytes: 0,
        gap,
        pause_ns,
    }
}

/// Makes a check and writes its lines. `when`: what the `check` line says.
pub(crate) fn write(when: &str, caller: Caller) {
    let head = Head::now(when, b"");
    let mut lines = Lines::new(&head, sys::gettid());
    check(caller, &mut lines);
    if let Some(scratch) = lines.scratch() {
        // A log that can't be written says so itself.
        let _ = scratch.write();
    }
}

/// Takes a check's result as lines.
pub(super) struct Lines<'a> {
    head: &'a Head<'a>,
    tid: i32,
    scratch: Option<Scratch>,
}

impl<'a> Lines<'a> {
    /// No lines yet; they will be the thread `tid`'s.
    pub(super) fn new(head: &'a Head<'a>, tid: i32) -> Lines<'a> {
        Lines {
            head,
            tid,
            scratch: None,
        }
    }

    /// The lines; `None` when there was no memory for them.
    pub(super) fn scratch(self) -> Option<Scratch> {
        self.scratch
    }
}

impl Report for Lines<'_> {
    fn check(&mut self, check: &Check) {
        let Ok(mut scratch) = Scratch::of_thread((check.groups + 32) * LINE, self.tid) else {
            return;
        };
        scratch.line(const { &tag(Op::Check) }, |line| {
            line.num(log::T, self.head.t);
            line.num(const { &key("id") }, self.head.id);
            line.name(const { &key("when") }, self.head.when);
            if !self.head.mark.is_empty() {
                line.text(log::MARK, self.head.mark);
            }
            line.num(const { &key("groups") }, check.groups as u64);
            line.num(const { &key("live_blocks") }, check.live_blocks);
            line.num(const { &key("live_bytes") }, check.live_bytes);
            let gap = check.gap.text();
            line.flag(const { &key("complete") }, gap.is_none());
            if let Some(gap) = gap {
                line.name(log::WHY, gap);
            }
            line.num(const { &key("pause_ns") }, check.pause_ns);
        });
        self.scratch = Some(scratch);
    }

    fn group(&mut self, group: &Group, inherited: bool) {
        let Some(scratch) = &mut self.scratch else {
            return;
        };
        scratch.line(const { &tag(Op::Leak) }, |line| {
            line.num(log::T, self.head.t);
            line.num(const { &key("check") }, self.head.id);
            line.name(const { &key("kind") }, group.key.kind.name());
            line.num(const { &key("blocks") }, group.blocks);
            line.num(const { &key("bytes") }, group.bytes);
            if group.key.stack != 0 {
                line.num(const { &key("stack") }, group.key.stack.into());
            }
            if group.key.generation != 0 {
                line.num(log::GENERATION, group.key.generation.into());
            }
            if inherited {
                line.flag(const { &key("inherited") }, true);
            }
        });
    }
}
