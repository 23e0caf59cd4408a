//! A check of a process that goes on: the host stands still for a fork, and the copy writes its verdict into the log by
//! itself, as a stream of its own.
//!
//! The copy ends unseen (exit signal 0) and stays a zombie until a hook reaps it; a word of the control page tells the
//! hooks when. A second fork would leave no zombie, but an orphan goes to the nearest subreaper and gets SIGCHLD as its
//! signal: a host that is one (a supervisor, a container's first process) would meet it in its own waits.

use super::copy::{Findings, Gap, Task};
use super::kernel::{self, Wait};
use super::report::{self, Head};
use super::{BLOCKS, BREAKS};
use super::{CHECKING, Caller, MAPPINGS, Shared, copy, threads};
use crate::scratch::Scratch;
use crate::{image, pool, sys};
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU32, AtomicU64, Ordering::*};
use memspy_log::tail::{answer, control};

/// The copy that is at work; 0: none. What follows belongs to it.
static COPY: AtomicI32 = AtomicI32::new(0);
static FINDINGS: AtomicPtr<Findings> = AtomicPtr::new(core::ptr::null_mut());
static STREAM: AtomicU64 = AtomicU64::new(0);
static CHECK: AtomicU64 = AtomicU64::new(0);
static BEGAN: AtomicU64 = AtomicU64::new(0);
static SERIAL: AtomicU32 = AtomicU32::new(0);

static REAPING: AtomicBool = AtomicBool::new(false);

/// The image is a new one: copies are the parent's.
pub(super) fn forget() {
    COPY.store(0, Relaxed);
    REAPING.store(false, Relaxed);
    FINDINGS.store(core::ptr::null_mut(), Relaxed);
}

/// Begins a check on request number `serial`, whose mark is `name`. Answers false when another is under way.
///
/// The copy tells the control page when the verdict is in the log. All signals must be blocked.
pub(crate) fn begin(caller: Caller, name: &[u8], serial: u32) -> bool {
    if CHECKING.swap(true, Acquire) {
        return false;
    }
    let head = Head::now("request", name);
    let stream = pool::next_stream();
    let Some(shared) = Shared::new() else {
        write(&head, stream, &report::none(Gap::Memory, 0), serial);
        CHECKING.store(false, Release);
        return true;
    };
    let begin = sys::clock_ns(libc::CLOCK_MONOTONIC);
    let tid = sys::gettid();
    let stopped = threads::stop(sys::getpid(), tid);
    let task = Task {
        caller,
        stopped: &stopped,
        blocks: &BLOCKS,
        mappings: &MAPPINGS,
        breaks: &BREAKS,
        findings: shared.findings(),
        then: Some(&|findings: &Findings| {
            let mut lines = report::Lines::new(&head, tid);
            let pause_ns = findings.pause_ns();
            super::hand_over(findings, findings.gap(), pause_ns, &mut lines);
            publish(lines.scratch(), stream, serial);
            image::word32(control::COPY_ENDED).store(1, Release);
        }),
    };
    // SAFETY: the copy ends inside `live`, and the caller has all signals blocked.
    let copied = unsafe { kernel::copy_process() };
    if copied == Ok(0) {
        copy::live(&task);
    }
    drop(stopped);
    let pause_ns = sys::clock_ns(libc::CLOCK_MONOTONIC).saturating_sub(begin);
    shared.findings().set_pause_ns(pause_ns);
    match copied {
        Ok(pid) => {
            FINDINGS.store(shared.into_raw(), Relaxed);
            STREAM.store(stream, Relaxed);
            CHECK.store(head.id, Relaxed);
            BEGAN.store(head.t, Relaxed);
            SERIAL.store(serial, Relaxed);
            COPY.store(pid, Release);
        }
        Err(_) => {
            write(&head, stream, &report::none(Gap::Copy, pause_ns), serial);
            CHECKING.store(false, Release);
        }
    }
    true
}

/// Reaps the copy if it has ended; one that ended without a verdict gets one that says so.
pub(crate) fn reap() {
    reap_waiting(Wait::Not);
}

/// Waits for the copy that is at work.
pub(crate) fn finish() {
    reap_waiting(Wait::Long);
}

fn reap_waiting(wait: Wait) {
    loop {
        let pid = COPY.load(Acquire);
        if pid == 0 {
            return;
        }
        // One at a time: a second wait could meet a child of the host's with the same number.
        if !REAPING.swap(true, Acquire) {
            let gone = kernel::reap(pid, wait);
            if gone {
                settle();
            }
            REAPING.store(false, Release);
        }
        if wait == Wait::Not {
            return;
        }
        sys::sched_yield();
    }
}

/// The copy is gone.
fn settle() {
    image::word32(control::COPY_ENDED).store(0, Relaxed);
    let shared = Shared::from_raw(FINDINGS.swap(core::ptr::null_mut(), Relaxed));
    if !shared.findings().is_written() {
        let head = Head {
            id: CHECK.load(Relaxed),
            t: BEGAN.load(Relaxed),
            when: "request",
            mark: b"",
        };
        let died = report::none(Gap::Died, shared.findings().pause_ns());
        write(&head, STREAM.load(Relaxed), &died, SERIAL.load(Relaxed));
    }
    drop(shared);
    COPY.store(0, Release);
    CHECKING.store(false, Release);
}

/// Writes a verdict without groups.
fn write(head: &Head, stream: u64, check: &super::Check, serial: u32) {
    let mut lines = report::Lines::new(head, sys::gettid());
    super::Report::check(&mut lines, check);
    publish(lines.scratch(), stream, serial);
}

/// Writes the lines and tells the asker where they are.
fn publish(lines: Option<Scratch>, stream: u64, serial: u32) {
    let written = lines.and_then(|lines| lines.write_as(stream).ok());
    let (at, len) = written.unwrap_or((0, 0));
    image::word(control::CHECK_AT).store(at, Relaxed);
    image::word(control::CHECK_LEN).store(len, Relaxed);
    let answer = if written.is_some() {
        answer::DONE
    } else {
        answer::NOT_WRITTEN
    };
    image::word32(control::ANSWER).store(answer, Relaxed);
    image::word32(control::DONE).store(serial, Release);
}
