//! Starts a program with the shim preloaded and waits for it.
//!
//! The program differs from one started by the shell in its environment only: same process group, terminal, signal
//! dispositions, mask, descriptors.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{self, ExitStatus};

use anyhow::Context as _;

use crate::exit::{self, Failure};
use crate::preflight::Program;
use crate::signal;
use crate::terminal::show;

/// A program to record.
pub(crate) struct Launch<'a> {
    /// What was found out about it.
    pub(crate) program: &'a Program,
    /// Its name and arguments, as the user gave them; not empty.
    pub(crate) command: &'a [OsString],
    /// The shim, fit for `LD_PRELOAD`.
    pub(crate) shim: &'a Path,
    /// Settings of the shim: `MEMSPY_*` variables.
    pub(crate) settings: Vec<(&'static str, OsString)>,
}

/// A program that has ended.
pub(crate) struct Ended {
    /// The process id that it had.
    pub(crate) pid: u32,
    /// How it ended.
    pub(crate) status: ExitStatus,
}

impl Launch<'_> {
    /// Runs the program to its end.
    ///
    /// # Errors
    /// A [`Failure`] with the shell's code when it can't be executed after all.
    pub(crate) fn run(self) -> anyhow::Result<Ended> {
        let (name, arguments) = self
            .command
            .split_first()
            .context("there is no program to run")?;
        let mut command = process::Command::new(name);
        command
            .args(arguments)
            .env("LD_PRELOAD", self.preload())
            .envs(self.settings);
        let state = signal::block();
        signal::restore_in(&mut command, &state);
        let child = command.spawn().map_err(|error| {
            let code = match error.kind() {
                io::ErrorKind::NotFound => exit::NOT_FOUND,
                _ => exit::NOT_EXECUTABLE,
            };
            Failure::new(code, format!("can't execute {}: {error}", show(name)))
        })?;
        let pid = child.id();
        let raw = signal::wait(pid.cast_signed()).context("can't wait for the program")?;
        state.restore();
        Ok(Ended {
            pid,
            status: ExitStatus::from_raw(raw),
        })
    }

    /// The value of `LD_PRELOAD`: sanitizer runtimes, what the user preloads, the shim.
    fn preload(&self) -> OsString {
        let first = self.program.preload_first.iter().map(OsString::from);
        let present = env::var_os("LD_PRELOAD").filter(|value| !value.is_empty());
        let shim = self.shim.as_os_str().to_owned();
        first
            .chain(present)
            .chain([shim])
            .collect::<Vec<_>>()
            .join(OsStr::new(":"))
    }
}

impl Ended {
    /// How it ended, in words: `exit status 3`, `killed by signal 9 (SIGKILL)`.
    pub(crate) fn words(&self) -> String {
        match (self.status.code(), self.status.signal()) {
            (Some(code), _) => format!("exit status {code}"),
            (None, Some(number)) => format!("killed by signal {number}"),
            (None, None) => "unknown status".into(),
        }
    }

    /// Ends memspy as the program ended: dies of the same signal, or returns the code to exit with.
    pub(crate) fn pass_on(&self) -> u8 {
        if let Some(number) = self.status.signal() {
            signal::die_of(number);
        }
        self.code()
    }

    /// The program's status as a shell's `$?`: its code, or 128 + the signal that killed it.
    pub(crate) fn code(&self) -> u8 {
        let signal = || {
            self.status
                .signal()
                .map_or(0, |number| i32::from(exit::SIGNAL_BASE) + number)
        };
        u8::try_from(self.status.code().unwrap_or_else(signal)).unwrap_or(u8::MAX)
    }
}
