//! The settings in force: read once, then everywhere.

use crate::config::{Config, Mode};
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use once_cell::race::OnceRef;

static SETTINGS: OnceRef<Config> = OnceRef::new();
static EVENTS: AtomicBool = AtomicBool::new(true);

/// Puts the settings into force; the first call counts.
pub(crate) fn set(config: &'static Config) {
    let _ = SETTINGS.set(config);
    EVENTS.store(matches!(config.mode, Mode::Events | Mode::Full), Relaxed);
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
