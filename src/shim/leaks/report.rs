//! A check's lines in the log.

use super::{Caller, Check, Report, check, group::Group};
use crate::scratch::Scratch;
use crate::{clock, log};
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use memspy_log::{Op, key, tag};

/// More than the longest line needs.
const LINE: usize = 256;

static LAST_ID: AtomicU64 = AtomicU64::new(0);

/// Numbers the checks from 1 again (a new image).
pub(super) fn restart() {
    LAST_ID.store(0, Relaxed);
}

/// Makes a check and writes its lines. `when`: what the `check` line says.
pub(crate) fn write(when: &str, caller: Caller) {
    let mut lines = Lines {
        scratch: None,
        when,
        id: LAST_ID.fetch_add(1, Relaxed) + 1,
        t: clock::before(),
    };
    check(caller, &mut lines);
    if let Some(scratch) = lines.scratch {
        // A log that can't be written says so itself.
        let _ = scratch.write();
    }
}

/// Takes a check's result as lines.
struct Lines<'a> {
    scratch: Option<Scratch>,
    when: &'a str,
    id: u64,
    t: u64,
}

impl Report for Lines<'_> {
    fn check(&mut self, check: &Check) {
        let Ok(mut scratch) = Scratch::new((check.groups + 32) * LINE) else {
            return;
        };
        scratch.line(const { &tag(Op::Check) }, |line| {
            line.num(log::T, self.t);
            line.num(const { &key("id") }, self.id);
            line.name(const { &key("when") }, self.when);
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
            line.num(log::T, self.t);
            line.num(const { &key("check") }, self.id);
            line.name(const { &key("kind") }, group.key.kind.name());
            line.num(const { &key("blocks") }, group.blocks);
            line.num(const { &key("bytes") }, group.bytes);
            if group.key.stack != 0 {
                line.num(const { &key("stack") }, group.key.stack.into());
            }
            if inherited {
                line.flag(const { &key("inherited") }, true);
            }
        });
    }
}
