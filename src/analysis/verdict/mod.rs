//! The leak verdict: leaks of one or more processes in, one answer that a CI can trust out.
//!
//! [`Evidence`] is what one log says; the caller adds the names of its frames and hands the
//! [`Process`] values to [`judge()`], which applies suppressions, the baseline and the budgets. But
//! for the reading of logs all of this is pure: no files, no clock, no printing.
//!
//! The rule that decides every doubt: *clean* is said only when every process was judged and
//! nothing was found.

mod baseline;
mod budget;
mod evidence;
mod fingerprint;
mod frame;
mod judge;
mod kind;
mod leak;
mod pattern;
mod peak;
mod point;
mod pool;
mod process;
pub mod suppression;
mod window;

pub use baseline::{Baseline, BaselineEntry, BaselineError};
pub use budget::{Budget, Budgets, Measures, NoCount, leaked, parse_count};
pub use evidence::{Evidence, doubt_lost_images, lost_children};
pub use fingerprint::{Fingerprint, call_path};
pub use frame::Frame;
pub use judge::{Exceeded, Outcome, Policy, Totals, Usage, Verdict, judge};
pub use kind::{Kind, KindSet, UnknownKind};
pub use leak::{Finding, Leak, Standing};
pub use peak::{Levels, tree_peak};
pub use point::{Growth, Held, Point, growing};
pub use process::{Ending, Process};
pub use window::{Mark, Window};
