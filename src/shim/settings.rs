//! The settings in force: read once, then everywhere.

use crate::config::{Config, Mode, Stacks};
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use once_cell::race::OnceRef;

static SETTINGS: OnceRef<Config> = OnceRef::new();
static EVENTS: AtomicBool = AtomicBool::new(true);
static STACKS: AtomicBool = AtomicBool::new(false);
static FREE_STACKS: AtomicBool = AtomicBool::new(false);
static LEAKS: AtomicBool = AtomicBool::new(false);
static BLOCKS_ONLY: AtomicBool = AtomicBool::new(false);

/// Puts the settings into force; the first call counts.
pub(crate) fn set(config: &'static Config) {
    let _ = SETTINGS.set(config);
    EVENTS.store(matches!(config.mode, Mode::Events | Mode::Full), Relaxed);
    STACKS.store(config.stacks != Stacks::Off, Relaxed);
    FREE_STACKS.store(config.free_stacks, Relaxed);
    LEAKS.store(matches!(config.mode, Mode::Leaks | Mode::Full), Relaxed);
    BLOCKS_ONLY.store(config.mode == Mode::Leaks, Relaxed);
}

/// The settings; the defaults before the start.
pub(crate) fn get() -> &'static Config {
    SETTINGS.get().unwrap_or(&Config::DEFAULT)
}

/// Whether each call becomes a line.
#[inline(always)]
pub(crate) fn events() -> bool {
    EVENTS.load(Relaxed)
}

/// Whether calls that acquire memory carry stacks.
#[inline(always)]
pub(crate) fn stacks() -> bool {
    STACKS.load(Relaxed)
}

/// Whether calls that release memory carry stacks too.
#[inline(always)]
pub(crate) fn free_stacks() -> bool {
    FREE_STACKS.load(Relaxed)
}

/// Whether live blocks are kept and judged.
#[inline(always)]
pub(crate) fn leaks() -> bool {
    LEAKS.load(Relaxed)
}

/// Whether each call becomes a line without a stack, and that is all. Known only once the image has begun.
pub(crate) fn lines_only() -> bool {
    events() && !stacks() && !leaks()
}

/// Whether live blocks are kept and judged, and that is all. Known only once the image has begun.
#[inline(always)]
pub(crate) fn blocks_only() -> bool {
    BLOCKS_ONLY.load(Relaxed)
}
