//! Processes of a recorded tree that outlive the program: a log alone does not tell of one that has made no call yet.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;

use crate::log_dir::LogDir;

/// A process that still runs.
pub(crate) struct Survivor {
    pid: u32,
    /// Its name, as the kernel has it.
    name: String,
}

/// What to say of the survivors that have no log, one sentence each.
pub(crate) fn without_log(
    survivors: Vec<Survivor>,
    has_log: impl Fn(u32) -> bool,
) -> impl Iterator<Item = String> {
    let silent = survivors.into_iter();
    let silent = silent.filter(move |survivor| !has_log(survivor.pid));
    silent.map(|Survivor { pid, name }| {
        format!(
            "process {pid} ({}) still runs and has no log: it has made no call yet, or libmemspy.so was not loaded into it",
            memspy_analysis::printable(name.as_bytes())
        )
    })
}

/// The processes that still run and were told to write their logs into `directory`, by the environment that they were
/// started with. Those of other users do not show theirs.
pub(crate) fn survivors(directory: &LogDir) -> Vec<Survivor> {
    let mut setting = b"MEMSPY_LOG=".to_vec();
    setting.extend_from_slice(directory.template().as_bytes());
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid: u32| {
        // A process that has ended but was not waited for has an empty environment.
        let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
        let mut settings = environment.split(|byte| *byte == 0);
        settings.any(|one| one == setting).then_some(())?;
        let name = fs::read(format!("/proc/{pid}/comm")).ok()?;
        let name = String::from_utf8_lossy(&name).trim_end().to_owned();
        Some(Survivor { pid, name })
    })
    .collect()
}
