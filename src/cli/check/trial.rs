//! The trial: runs the program with leak checks or takes the logs as they are, and hears the
//! evidence of each.

use std::env;
use std::path::Path;

use anyhow::Context as _;
use memspy_analysis::log::Log;
use memspy_analysis::verdict::{Evidence, Measures, Window, doubt_lost_images, tree_peak};

use super::options::Args;
use crate::exit;
use crate::launch::{Ended, Launch};
use crate::log_dir::LogDir;
use crate::preflight::Program;
use crate::survivors::{survivors, without_log};
use crate::terminal::{say, show};

/// What the logs say, and what is known beside them.
pub(super) struct Trial {
    /// One for each log.
    pub(super) evidence: Vec<Evidence>,
    /// How the program ended; `None` when only logs are judged.
    pub(super) status: Option<Status>,
    /// Why the run as a whole can't be judged.
    pub(super) doubts: Vec<String>,
    /// Remarks that change no verdict.
    pub(super) notes: Vec<String>,
}

/// How the program ended.
#[derive(Clone, Copy, Debug)]
pub(super) enum Status {
    /// With this status.
    Exited(u8),
    /// By this signal.
    Killed(i32),
}

impl Status {
    /// The status as a shell's `$?`.
    pub(super) fn code(self) -> u8 {
        match self {
            Status::Exited(code) => code,
            Status::Killed(signal) => {
                u8::try_from(i32::from(exit::SIGNAL_BASE) + signal).unwrap_or(u8::MAX)
            }
        }
    }
}

impl Trial {
    /// Runs the program, or opens the logs.
    ///
    /// # Errors
    /// When the program can't be started, or a log that the user named can't be read.
    pub(super) fn hold(args: &Args) -> anyhow::Result<Trial> {
        let mut trial = if args.command.is_empty() {
            of_logs(args)?
        } else {
            of_program(args)?
        };
        doubt_lost_images(&mut trial.evidence);
        Ok(trial)
    }
}

fn of_logs(args: &Args) -> anyhow::Result<Trial> {
    let window = args.window.window();
    let read = Log::each(&args.logs)?.map(|log| Evidence::read(&log?, &window));
    let evidence = read.collect::<Result<_, _>>()?;
    Ok(Trial {
        evidence,
        status: None,
        doubts: Vec::new(),
        notes: Vec::new(),
    })
}

fn of_program(args: &Args) -> anyhow::Result<Trial> {
    let name = args
        .command
        .first()
        .context("there is no program to check")?;
    let program = Program::find(name)?;
    let mut trial = Trial {
        evidence: Vec::new(),
        status: None,
        // What the shim would not see can't be judged: a malloc of the program's own, for one.
        doubts: program.warnings.clone(),
        notes: Vec::new(),
    };
    if let Some(why) = &program.refusal {
        trial.doubts.insert(0, format!("{why}; it was not started"));
        return Ok(trial);
    }
    let shim = args.shim.path()?;
    let logs = Logs::new(args.logs_in.as_deref())?;
    let mut settings = args.settings.variables();
    if !settings.iter().any(|(name, _)| *name == "MEMSPY_MODE") {
        let mode = if args.budgets().need_events() {
            "full"
        } else {
            "leaks"
        };
        settings.push(("MEMSPY_MODE", mode.into()));
    }
    let said = |name| settings.iter().any(|(set, _)| *set == name) || env::var_os(name).is_some();
    if !logs.kept && !said("MEMSPY_MAPS") {
        // No verdict asks for pictures of the address space, and nobody else will read these logs.
        settings.push(("MEMSPY_MAPS", "off".into()));
    }
    settings.push(("MEMSPY_LOG", logs.directory.template()));
    let launch = Launch {
        program: &program,
        command: &args.command,
        shim: &shim,
        settings,
    };
    let ended = launch.run()?;
    // Before the logs are looked for: one that is begun in between is there, and says that its process runs.
    let survivors = survivors(&logs.directory);
    let paths = logs
        .directory
        .new_logs()
        .context("can't read the directory of the logs")?;
    trial.status = Some(status(&ended));
    let window = args.window.window();
    for path in paths {
        trial.hear(&path, &window);
    }
    let has_log = |pid| trial.evidence.iter().any(|one| one.process.pid == pid);
    trial.doubts.extend(without_log(survivors, has_log));
    if !trial
        .evidence
        .iter()
        .any(|one| one.process.pid == ended.pid)
    {
        let why = "the program left no log: libmemspy.so was not loaded into it (memspy doctor \
                   may say why)";
        trial.doubts.push(why.into());
    }
    Ok(trial)
}

/// Where the program's processes write their logs: kept where the user said, else removed.
struct Logs {
    directory: LogDir,
    kept: bool,
}

impl Logs {
    fn new(kept_in: Option<&Path>) -> anyhow::Result<Logs> {
        let directory = match kept_in {
            Some(path) => LogDir::open(path)?,
            None => LogDir::temporary()?,
        };
        Ok(Logs {
            directory,
            kept: kept_in.is_some(),
        })
    }
}

impl Drop for Logs {
    fn drop(&mut self) {
        if self.kept {
            self.directory.remove_if_empty();
        } else if let Err(error) = self.directory.remove() {
            let place = show(self.directory.shown());
            say(&format!("can't remove the logs in {place}: {error}"));
        }
    }
}

impl Trial {
    /// Takes in one log of the tree. One that can't be read is a process that can't be judged.
    fn hear(&mut self, path: &Path, window: &Window) {
        let read = Log::open(path).and_then(|log| Evidence::read(&log, window));
        match read {
            Ok(evidence) => self.evidence.push(evidence),
            Err(error) => self.doubts.push(format!("a log can't be read: {error}")),
        }
    }
}

fn status(ended: &Ended) -> Status {
    use std::os::unix::process::ExitStatusExt as _;
    match ended.status.signal() {
        Some(signal) => Status::Killed(signal),
        None => Status::Exited(ended.code()),
    }
}

/// What the tree as a whole counted; nothing where one process did not count.
pub(super) fn tree_measures(evidence: &[Evidence]) -> Measures {
    let judged = || evidence.iter().filter(|one| !one.process.skipped);
    let counted = judged().all(|one| one.process.measures.peak_bytes.is_some());
    let levels: Vec<_> = judged().map(|one| &one.levels).collect();
    let sum = |count: fn(&Measures) -> Option<u64>| {
        judged()
            .map(|one| count(&one.process.measures))
            .sum::<Option<u64>>()
    };
    if !counted || levels.is_empty() {
        return Measures::default();
    }
    Measures {
        peak_bytes: Some(tree_peak(&levels)),
        allocs: sum(|measures| measures.allocs),
        mmaps: sum(|measures| measures.mmaps),
    }
}
