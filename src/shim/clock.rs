//! One clock for the whole image: nanoseconds since its start.
//!
//! The time stamp counter where the kernel itself trusts it, else CLOCK_MONOTONIC. Rate and origin are fixed once,
//! before the first line, so that an error in them changes lengths and never the order. Hook-safe.

use crate::{image, start, sys, x86_64};
use core::sync::atomic::{AtomicU8, AtomicU64, Ordering::*};

/// What a time is read from: [`MONOTONIC`], [`TSC`] or [`TSC_SHARED`].
static KIND: AtomicU8 = AtomicU8::new(MONOTONIC);
/// CLOCK_MONOTONIC, or no clock at all any more.
const MONOTONIC: u8 = 0;
/// The counter, while one thread's times are compared with its own only.
const TSC: u8 = 1;
/// The counter, when the times of several threads are compared.
const TSC_SHARED: u8 = 2;
/// The time at which the clock was stopped; 0: it runs.
static FROZEN_AT: AtomicU64 = AtomicU64::new(0);
/// Counter (or nanosecond) at `t` = 0.
static ORIGIN: AtomicU64 = AtomicU64::new(0);
/// Nanoseconds of a tick, times 2^64 / [`TICK_PARTS`].
static RATE: AtomicU64 = AtomicU64::new(0);
/// So many parts of a tick are counted: more than a tick has nanoseconds (from 125 MHz on), and few enough for 2^61 ticks
/// (14 years at 5 GHz), so that the product's upper half is the time.
const TICK_PARTS: u64 = 8;

/// The first of the two readings from which the rate is taken.
pub(crate) struct Start {
    tsc: u64,
    mono_ns: u64,
}

impl Start {
    /// Reads both clocks.
    pub(crate) fn read() -> Start {
        Start {
            tsc: x86_64::tsc(),
            mono_ns: sys::clock_ns(libc::CLOCK_MONOTONIC),
        }
    }

    /// Fixes origin and rate: now is `t` = 0. Answers CLOCK_MONOTONIC at that moment.
    ///
    /// The rate is as good as the time between the two readings is long; block lines carry pairs of both clocks, by
    /// which a reader corrects it.
    pub(crate) fn fix(&self) -> u64 {
        let trusted = trusted();
        let end = Start::read();
        match self.rate(&end) {
            Some(rate) if trusted => {
                RATE.store(rate, Relaxed);
                ORIGIN.store(end.tsc, Relaxed);
                KIND.store(TSC, Relaxed);
            }
            _ => ORIGIN.store(end.mono_ns, Relaxed),
        }
        end.mono_ns
    }

    /// See [`RATE`]. `None`: the counter is too slow for that.
    fn rate(&self, end: &Start) -> Option<u64> {
        let ticks = u128::from(end.tsc.wrapping_sub(self.tsc).max(1));
        let ns = u128::from(end.mono_ns.wrapping_sub(self.mono_ns));
        u64::try_from((ns << 64) / (ticks * u128::from(TICK_PARTS))).ok()
    }
}

/// Whether the kernel's own clock is the counter.
fn trusted() -> bool {
    let Ok(fd) = sys::open(
        c"/sys/devices/system/clocksource/clocksource0/current_clocksource",
        libc::O_RDONLY | libc::O_CLOEXEC,
        0,
    ) else {
        return false;
    };
    let mut name = [0; 8];
    let len = sys::read(fd, &mut name).unwrap_or(0);
    sys::close(fd);
    name.get(..len) == Some(b"tsc\n")
}

/// The name of the clock in use, as the start line has it.
pub(crate) fn name() -> &'static str {
    match KIND.load(Relaxed) {
        MONOTONIC => "monotonic",
        _ => "tsc",
    }
}

/// A new image begins here (a forked child): `t` = 0 is now. Answers CLOCK_MONOTONIC.
pub(crate) fn restart() -> u64 {
    let now = Start::read();
    if KIND.load(Relaxed) == MONOTONIC {
        ORIGIN.store(now.mono_ns, Relaxed);
    } else {
        KIND.store(TSC, Relaxed);
        ORIGIN.store(now.tsc, Relaxed);
    }
    now.mono_ns
}

/// Now, for a call that is about to release memory.
///
/// The block may be another thread's, handed over a moment ago: a counter read ahead of that would put the release before
/// the block's own malloc (seen: by 1 ns, once in a million events of eight threads).
#[inline(always)]
pub(crate) fn before() -> u64 {
    now()
}

/// Now, for a call that has just acquired memory.
#[inline(always)]
pub(crate) fn after() -> u64 {
    now()
}

#[inline(always)]
fn now() -> u64 {
    begin_if_new();
    running()
}

/// Now, for a caller who knows that the image has begun: it holds a buffer of it.
#[inline(always)]
pub(crate) fn running() -> u64 {
    of_block(|| false)
}

/// The same for an event of a block. `is_of_one`: whether no other thread has had an event of a block of the same heap, see
/// [`crate::arena`].
#[inline(always)]
pub(crate) fn of_block(is_of_one: impl FnOnce() -> bool) -> u64 {
    match KIND.load(Relaxed) {
        TSC => scale(x86_64::tsc()),
        TSC_SHARED if is_of_one() => scale(x86_64::tsc()),
        TSC_SHARED => scale(x86_64::tsc_ordered()),
        _ => monotonic(),
    }
}

/// The log has a second thread: from here on no time may be read ahead of what came before it.
///
/// One thread alone is in order with itself, and all that it did before it made the other is over.
pub(crate) fn share() {
    let _ = KIND.compare_exchange(TSC, TSC_SHARED, SeqCst, Relaxed);
}

/// Time stands still from here on: strict seccomp takes both clocks away, the counter included.
pub(crate) fn freeze() {
    FROZEN_AT.store(before().max(1), Relaxed);
    KIND.store(MONOTONIC, SeqCst);
}

/// A time means nothing before the image has begun: in a hook before the constructor, in the first of a forked child.
#[inline(always)]
fn begin_if_new() {
    if image::generation() == 0 {
        start::start();
    }
}

#[inline(always)]
fn scale(tsc: u64) -> u64 {
    let ticks = tsc.wrapping_sub(ORIGIN.load(Relaxed));
    let parts = ticks.wrapping_mul(TICK_PARTS);
    ((u128::from(parts) * u128::from(RATE.load(Relaxed))) >> 64) as u64
}

#[cold]
fn monotonic() -> u64 {
    let frozen_at = FROZEN_AT.load(Relaxed);
    if frozen_at != 0 {
        return frozen_at;
    }
    sys::clock_ns(libc::CLOCK_MONOTONIC).wrapping_sub(ORIGIN.load(Relaxed))
}
