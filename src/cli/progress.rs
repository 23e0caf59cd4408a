//! A line on a terminal that says how far a long piece of work has come.

use std::io::{IsTerminal as _, Write, stderr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::amount::count;

/// Work that is done sooner needs no line.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often the line changes.
const PACE: Duration = Duration::from_millis(200);
/// Back to the line's start, and what stands there away.
const CLEAR: &str = "\r\x1b[K";

/// Does `work`, of which `total` pieces are counted in `done` as it goes. When it takes more than a second and
/// standard error is a terminal, a line there says so, and is gone at the end.
pub(crate) fn showing<T>(
    what: &str,
    done: &AtomicUsize,
    total: usize,
    work: impl FnOnce() -> T,
) -> T {
    let dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
    if !stderr().is_terminal() || dumb {
        return work();
    }
    Line {
        out: stderr(),
        patience: PATIENCE,
        pace: PACE,
    }
    .during(what, done, total, work)
}

/// Where the line stands, and when.
struct Line<W> {
    out: W,
    patience: Duration,
    pace: Duration,
}

impl<W: Write + Send> Line<W> {
    fn during<T>(
        self,
        what: &str,
        done: &AtomicUsize,
        total: usize,
        work: impl FnOnce() -> T,
    ) -> T {
        thread::scope(|scope| {
            // Dropped when the work is done, also by a panic.
            let (_working, end) = mpsc::channel::<()>();
            scope.spawn(move || self.show(what, done, total, &end));
            work()
        })
    }

    /// Shows the line until the work is done. A terminal that can't be written to misses it.
    fn show(mut self, what: &str, done: &AtomicUsize, total: usize, end: &mpsc::Receiver<()>) {
        let mut wait = self.patience;
        let mut shown = false;
        while end.recv_timeout(wait) == Err(mpsc::RecvTimeoutError::Timeout) {
            let (now, all) = (done.load(Ordering::Relaxed), total);
            let (now, all) = (count(now.min(all) as u64), count(all as u64));
            let _ = write!(self.out, "{CLEAR}memspy: {what}: {now} of {all}");
            let _ = self.out.flush();
            shown = true;
            wait = self.pace;
        }
        if shown {
            let _ = write!(self.out, "{CLEAR}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::sync::{Arc, Condvar, Mutex};

    /// A terminal for tests: what was written, and a way to wait for it.
    #[derive(Clone, Default)]
    struct Screen(Arc<(Mutex<String>, Condvar)>);

    impl Screen {
        fn text(&self) -> String {
            self.0.0.lock().unwrap().clone()
        }

        fn wait_for(&self, text: &str) {
            let (written, changed) = &*self.0;
            let shown = written.lock().unwrap();
            let shown = changed.wait_while(shown, |shown| !shown.contains(text));
            assert!(shown.unwrap().contains(text));
        }
    }

    impl Write for Screen {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let (written, changed) = &*self.0;
            written
                .lock()
                .unwrap()
                .push_str(std::str::from_utf8(bytes).unwrap());
            changed.notify_all();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn line(screen: &Screen, patience: Duration) -> Line<Screen> {
        Line {
            out: screen.clone(),
            patience,
            pace: Duration::from_millis(1),
        }
    }

    #[test]
    fn long_work_is_counted_in_one_line_that_is_gone_at_the_end() {
        let screen = Screen::default();
        let done = AtomicUsize::new(0);
        let answer = line(&screen, Duration::ZERO).during("naming", &done, 2000, || {
            screen.wait_for("memspy: naming: 0 of 2,000");
            done.store(1500, Ordering::Relaxed);
            screen.wait_for("memspy: naming: 1,500 of 2,000");
            7
        });
        assert_eq!(answer, 7);
        assert!(screen.text().ends_with(CLEAR));
        assert!(!screen.text().contains('\n'));
    }

    #[test]
    fn short_work_shows_nothing() {
        let screen = Screen::default();
        let done = AtomicUsize::new(0);
        line(&screen, Duration::from_secs(3600)).during("naming", &done, 1, || ());
        assert_eq!(screen.text(), "");
    }
}
