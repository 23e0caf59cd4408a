//! What every end-to-end test stands on: directories, the program and its shim, C programs, logs.
//!
//! Logs are read with serde_json alone, never with memspy's own reader: the reader is under test here too.

mod finished;
mod log;
mod own_stacks;
mod program;
mod test_dir;

pub(crate) use finished::{Finished, finish, finish_with_input};
pub(crate) use log::{Log, address};
pub(crate) use own_stacks::{OwnStacks, build_id};
pub(crate) use program::{compile, compile_with, musl_program, setuid_program};
pub(crate) use test_dir::TestDir;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// A command that runs `memspy`, in an environment without settings of memspy's.
pub(crate) fn memspy() -> Command {
    let mut command = clean(env!("CARGO_BIN_EXE_memspy"));
    command.env("XDG_CACHE_HOME", scratch().join("cache"));
    command
}

/// A command that runs `program` without memspy: the baseline of a comparison.
pub(crate) fn clean(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("MEMSPY_") {
            command.env_remove(name);
        }
    }
    command
        .env_remove("LD_PRELOAD")
        .env("NO_COLOR", "1")
        .env("LC_ALL", "C.UTF-8");
    command
}

/// A command that runs `program` with the shim preloaded by hand, its logs in `logs`.
pub(crate) fn preloaded(program: impl AsRef<std::ffi::OsStr>, logs: &TestDir) -> Command {
    let mut command = clean(program);
    let mut template = logs.path().as_os_str().to_owned();
    template.push("/");
    command
        .env("LD_PRELOAD", shim())
        .env("MEMSPY_LOG", template);
    command
}

/// The path of the shim under test: the one that `memspy` carries.
pub(crate) fn shim() -> &'static Path {
    static SHIM: OnceLock<PathBuf> = OnceLock::new();
    SHIM.get_or_init(|| {
        let answer = finish(memspy().arg("shim-path")).success();
        PathBuf::from(answer.stdout().trim_end())
    })
}

/// The repository.
pub(crate) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where tests keep files that all of them may share; cargo made it, beside the build.
fn scratch() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
}
