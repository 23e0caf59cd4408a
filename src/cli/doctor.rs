//! `memspy doctor`: can this program be recorded here, and if not, why not? Looks, and runs nothing of the program.

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::exit;
use crate::mount::Mount;
use crate::preflight::Program;
use crate::shim_file;
use crate::terminal::{self, clean, show};

mod glibc;

/// Less room than this for logs is worth a warning, in bytes: a minute of a busy program.
const ROOM_WANTED: u64 = 1 << 30;

/// Say whether a program can be recorded, and why not.
///
/// Nothing of the program is run. Each line is one thing that was looked at: ok, warning (the log will lack something)
/// or no (it can't be recorded).
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  memspy doctor -- /usr/bin/sudo ls
  memspy doctor --json -- ./server | jq -r '.checks[] | select(.verdict != \"ok\") | .text'

Exit code: 0 it can be recorded, 125 it can't, 126 it can't be executed, 127 there is no such program")]
pub(crate) struct Args {
    /// The directory that logs would go to
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    output: PathBuf,

    /// Print one JSON document
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    shim: shim_file::Choice,

    /// The program; its arguments are not looked at
    #[arg(required = true, trailing_var_arg = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// How one thing looks.
#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    Warning,
    No,
}

/// One thing that was looked at.
#[derive(Serialize)]
struct Check {
    name: &'static str,
    verdict: Verdict,
    text: String,
}

/// The answer of `--json`.
#[derive(Serialize)]
struct Report {
    schema: u32,
    recordable: bool,
    exit_code: u8,
    checks: Vec<Check>,
}

impl Report {
    fn add(&mut self, name: &'static str, verdict: Verdict, text: impl Into<String>) {
        self.checks.push(Check {
            name,
            verdict,
            text: text.into(),
        });
    }
}

/// Prints the answer on standard output.
pub(crate) fn run(args: &Args) -> anyhow::Result<u8> {
    let mut report = Report {
        schema: 1,
        recordable: true,
        exit_code: exit::OK,
        checks: Vec::new(),
    };
    let program = check_program(&mut report, args);
    let shim = match args.shim.path() {
        Ok(path) => {
            report.add("shim", Verdict::Ok, path.to_string_lossy());
            Some(path)
        }
        Err(error) => {
            report.add("shim", Verdict::No, format!("{error:#}"));
            None
        }
    };
    if let (Some(program), Some(shim)) = (&program, &shim) {
        check_loading(&mut report, program, shim);
    }
    check_cache(&mut report, shim.as_deref());
    check_log_directory(&mut report, &args.output);
    check_environment(&mut report);
    report.recordable = report
        .checks
        .iter()
        .all(|check| check.verdict != Verdict::No);
    if !report.recordable && report.exit_code == exit::OK {
        report.exit_code = exit::NOT_JUDGED;
    }
    let text = if args.json {
        terminal::document(&report)?
    } else {
        report.to_string()
    };
    io::stdout().write_all(text.as_bytes())?;
    Ok(report.exit_code)
}

/// What the program is; `None` when it can't even be executed, or the shim can't be loaded into it.
fn check_program(report: &mut Report, args: &Args) -> Option<Program> {
    let name = args.command.first()?;
    let program = match Program::find(name) {
        Ok(program) => program,
        Err(failure) => {
            report.exit_code = failure.code;
            report.add("program", Verdict::No, failure.to_string());
            return None;
        }
    };
    let mut text = program.path.to_string_lossy().into_owned();
    for interpreter in &program.interpreters {
        text += &format!(", run by {}", interpreter.to_string_lossy());
    }
    report.add("program", Verdict::Ok, text);
    if let Some(why) = &program.refusal {
        report.add("kind", Verdict::No, why.as_str());
        return None;
    }
    report.add(
        "kind",
        Verdict::Ok,
        "dynamically linked with glibc, x86-64, no raised privileges",
    );
    for warning in &program.warnings {
        report.add("allocator", Verdict::Warning, warning.as_str());
    }
    Some(program)
}

/// Whether ld.so really maps the shim into the program's address space, and whether their glibc versions fit.
fn check_loading(report: &mut Report, program: &Program, shim: &Path) {
    let floor = glibc::needed_by(shim);
    let Some(loader) = &program.loader else {
        report.add(
            "loading",
            Verdict::Warning,
            "the program is a loader itself: not tried",
        );
        return;
    };
    match glibc::trial(loader, program.elf_path(), shim) {
        Ok(trial) => {
            let floor = floor.map_or_else(|| "unknown".into(), |version| version.to_string());
            let libc = trial.libc_version();
            let libc = libc.map_or_else(|| "unknown".into(), |version| version.to_string());
            let fit = format!("libmemspy.so needs glibc {floor}, the program has {libc}");
            match trial.refusal() {
                Some(why) => report.add("loading", Verdict::No, format!("{fit}: {why}")),
                None => report.add(
                    "loading",
                    Verdict::Ok,
                    format!("ld.so maps the shim; {fit}"),
                ),
            }
        }
        Err(error) => report.add("loading", Verdict::Warning, format!("not tried: {error}")),
    }
}

/// Whether the shim had to go elsewhere than into the cache.
fn check_cache(report: &mut Report, shim: Option<&Path>) {
    let (Some(shim), Some(cache)) = (shim, shim_file::cache_directory()) else {
        return;
    };
    if shim.starts_with(&cache) {
        return;
    }
    let why = if shim_file::preloadable(&cache) {
        "is not used"
    } else {
        "can't be used (a blank, colon or $ in its name, or a noexec mount)"
    };
    let text = format!(
        "{} {why}; the shim lies in {}",
        cache.display(),
        shim.display()
    );
    report.add("cache", Verdict::Ok, text);
}

/// Whether logs can be written there, and how much.
fn check_log_directory(report: &mut Report, directory: &Path) {
    let name = "log directory";
    let absolute = fs::canonicalize(directory).unwrap_or_else(|_| directory.to_owned());
    let shown = absolute.display();
    match Mount::of(&absolute) {
        Err(error) => report.add(name, Verdict::No, format!("{shown}: {error}")),
        Ok(mount) => {
            let free = mount.free_bytes >> 20;
            let text = format!("{shown}: {}, {free} MiB free", mount.kind);
            let probe = absolute.exists().then(|| probe(&absolute));
            match probe {
                Some(Err(error)) => report.add(
                    name,
                    Verdict::No,
                    format!("{text}, can't be written: {error}"),
                ),
                _ if mount.is_remote() => {
                    let text = format!("{text}: not a local file system, recording may be slow");
                    report.add(name, Verdict::Warning, text);
                }
                _ if mount.free_bytes < ROOM_WANTED => {
                    let text =
                        format!("{text}: a long recording may fill it (the program would run on)");
                    report.add(name, Verdict::Warning, text);
                }
                _ => report.add(name, Verdict::Ok, text),
            }
        }
    }
}

/// Makes a file as the shim does, and removes it.
fn probe(directory: &Path) -> io::Result<()> {
    let path = directory.join(format!(".memspy-doctor-{}", std::process::id()));
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&path)?;
    fs::remove_file(&path)
}

/// What the surroundings change.
fn check_environment(report: &mut Report) {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let seccomp = status
        .lines()
        .find_map(|line| line.strip_prefix("Seccomp:"));
    match seccomp.map(str::trim) {
        Some("0") => report.add("seccomp", Verdict::Ok, "no filter"),
        Some(_) => report.add(
            "seccomp",
            Verdict::Warning,
            "a filter is active here (a container?); the shim tries its system calls at the start and \
             says in the log when one is forbidden",
        ),
        None => {}
    }
    let clock = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    if let Ok(source) = fs::read_to_string(clock) {
        let source = clean(source.trim());
        let text = match source.as_str() {
            "tsc" => "tsc: read directly".into(),
            _ => format!(
                "{source}: the processor's counter is not trusted, each event costs a clock_gettime"
            ),
        };
        report.add("clock", Verdict::Ok, text);
    }
    if let Some(value) = env::var_os("LD_PRELOAD").filter(|value| !value.is_empty()) {
        let text = format!(
            "LD_PRELOAD={} stays, before the shim",
            value.to_string_lossy()
        );
        report.add("preload", Verdict::Ok, text);
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for check in &self.checks {
            let verdict = match check.verdict {
                Verdict::Ok => "ok",
                Verdict::Warning => "warning",
                Verdict::No => "no",
            };
            writeln!(f, "{verdict:8}{:15}{}", check.name, show(&check.text))?;
        }
        let answer = if self.recordable {
            "can be recorded"
        } else {
            "can't be recorded"
        };
        writeln!(f, "\nThe program {answer}.")
    }
}
