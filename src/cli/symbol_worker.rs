//! `memspy symbol-worker`: the process in which executables and debug files are read. Not for people.
//!
//! It may crash or be killed over a bad file; the report that started it goes on. So it may not take
//! the machine's memory with it either.
#![allow(unsafe_code)]

use std::ffi::OsString;
use std::io::{BufWriter, stdin, stdout};
use std::sync::atomic::AtomicUsize;
use std::thread;
use std::time::Duration;

use memspy_symbol::{Finder, Options, Worker};

use crate::exit;

/// The name of the hidden subcommand.
const NAME: &str = "symbol-worker";

/// How long a worker may be silent over one address. The first one of a file includes indexing its
/// debug information: seconds for a gigabyte.
const PATIENCE: Duration = Duration::from_secs(60);

/// More workers than this gain nothing: most of a report's addresses are in a few modules.
const MOST_WORKERS: usize = 8;

/// Read executables and debug files for another memspy.
#[derive(clap::Args)]
#[command(hide = true)]
pub(crate) struct Args {}

/// Serves requests on standard input until it ends.
pub(crate) fn run(_: &Args) -> anyhow::Result<u8> {
    limit_memory();
    memspy_symbol::worker::serve(stdin().lock(), BufWriter::new(stdout().lock()))?;
    Ok(exit::OK)
}

/// A finder of names for so many addresses, whose workers are this program.
pub(crate) fn finder(options: Options, addresses: usize) -> Finder {
    // Asking for the processors reads half a dozen files: not for nothing.
    let processors = || thread::available_parallelism().map_or(1, usize::from);
    let workers = match addresses {
        0 | 1 => 1,
        _ => processors().min(MOST_WORKERS),
    };
    Finder {
        worker: Worker {
            // Not by its path: that may be a newer program by now.
            program: OsString::from("/proc/self/exe"),
            args: vec![OsString::from(NAME)],
        },
        options,
        workers,
        patience: PATIENCE,
        named: AtomicUsize::new(0),
    }
}

/// Leaves three quarters of the machine's memory to others. Mapped files do not count.
fn limit_memory() {
    // SAFETY: sysconf takes a number and touches no memory of ours.
    let (pages, page) = unsafe {
        (
            libc::sysconf(libc::_SC_PHYS_PAGES),
            libc::sysconf(libc::_SC_PAGESIZE),
        )
    };
    let (Ok(pages), Ok(page)) = (u64::try_from(pages), u64::try_from(page)) else {
        return;
    };
    let most = pages.saturating_mul(page) / 4;
    let limit = libc::rlimit {
        rlim_cur: most,
        rlim_max: most,
    };
    // SAFETY: `limit` is initialised and live. A refusal leaves the old limit, which is as good.
    unsafe { libc::setrlimit(libc::RLIMIT_DATA, &raw const limit) };
}
