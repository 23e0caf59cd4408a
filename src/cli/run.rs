//! `memspy run`: records a program and everything that it starts, then says where the logs are.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write as _};
use std::path::PathBuf;

use clap::ValueEnum;

use crate::colour::Colour;
use crate::exit::{self, Failure};
use crate::launch::{Ended, Launch};
use crate::log_dir::LogDir;
use crate::preflight::Program;
use crate::recorded::Recorded;
use crate::shim_file;
use crate::summary;
use crate::survivors::{survivors, without_log};
use crate::terminal::{say, show};
use crate::untraced::untraced;

/// Logs larger than this, all together, are not summarised at the end of a run, in bytes: nobody asked to wait.
const SUMMARY_MAX: u64 = 128 << 20;

/// Record a program and the processes that it starts.
///
/// The program runs as it would without memspy: its input, output, signals and exit status are its own. Each process
/// writes its own log into one directory; a short summary follows on standard error.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  memspy run -- cat README.md
  memspy run -o logs -- make -j2 test
  memspy run --stacks off --no-follow -- python3 script.py

Exit code: the program's own. When it dies of a signal, memspy dies of the same signal.
  125 memspy can't record it, 126 it can't be executed, 127 there is no such program")]
pub(crate) struct Args {
    /// Directory for the logs, made if missing [default: memspy.<program>.<pid>.d]
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,

    /// Record only the program itself, not the processes that it starts
    #[arg(long, overrides_with = "follow")]
    no_follow: bool,

    /// Record the processes that the program starts too (the default)
    #[arg(long, overrides_with = "no_follow")]
    follow: bool,

    /// Print nothing when the program has ended well
    #[arg(short, long)]
    quiet: bool,

    #[command(flatten)]
    settings: Settings,

    #[command(flatten)]
    shim: shim_file::Choice,

    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// What the shim records. Each option is one `MEMSPY_*` variable; without the option the variable passes through.
#[derive(clap::Args)]
pub(crate) struct Settings {
    /// What to record: every call, the blocks that are live at the end, or both
    #[arg(long, value_name = "MODE")]
    mode: Option<Mode>,

    /// Call stacks: unwound fully, by frame pointers only, or none
    #[arg(long, value_name = "HOW")]
    stacks: Option<Stacks>,

    /// The most frames of a call stack
    #[arg(long, value_name = "FRAMES")]
    stack_depth: Option<u32>,

    /// Take call stacks of releasing calls too
    #[arg(long)]
    free_stacks: bool,

    /// Snapshots of the address space at start and end
    #[arg(long, value_name = "ON|OFF")]
    maps: Option<Switch>,

    /// The most memory for events that are not written yet: bytes, or with K, M, G
    #[arg(long, value_name = "SIZE", value_parser = crate::size::parse)]
    buffer: Option<u64>,

    /// A signal that the program leaves alone, such as USR2: by it memspy snapshot reaches an idle process
    #[arg(long, value_name = "SIGNAL")]
    signal: Option<String>,
}

/// `MEMSPY_MODE`.
#[derive(Clone, Copy, ValueEnum)]
enum Mode {
    /// Every call, one line each
    Events,
    /// No events; at the end the live blocks, sorted by kind of leak
    Leaks,
    /// Both
    Full,
    /// Nothing
    Off,
}

/// `MEMSPY_STACKS`.
#[derive(Clone, Copy, ValueEnum)]
enum Stacks {
    /// By unwind tables
    Full,
    /// By frame pointers: cheaper, and only right for programs that keep them
    Fp,
    /// None
    Off,
}

/// `on` or `off`.
#[derive(Clone, Copy, ValueEnum)]
enum Switch {
    On,
    Off,
}

impl Settings {
    /// Whether the logs will hold calls.
    fn has_events(&self) -> bool {
        let mode = self.mode.as_ref().map(word).map(OsString::from);
        mode.or_else(|| std::env::var_os("MEMSPY_MODE"))
            .is_none_or(|mode| mode != "leaks")
    }

    /// The variables for the program's environment.
    pub(crate) fn variables(&self) -> Vec<(&'static str, OsString)> {
        let numbers = [
            ("MEMSPY_STACK_DEPTH", self.stack_depth.map(u64::from)),
            ("MEMSPY_BUFFER", self.buffer),
        ];
        let words = [
            ("MEMSPY_MODE", self.mode.as_ref().map(word)),
            ("MEMSPY_STACKS", self.stacks.as_ref().map(word)),
            ("MEMSPY_FREE_STACKS", self.free_stacks.then(|| "on".into())),
            ("MEMSPY_MAPS", self.maps.as_ref().map(word)),
            ("MEMSPY_SIGNAL", self.signal.clone()),
        ];
        let numbers = numbers.map(|(name, value)| (name, value.map(|number| number.to_string())));
        let all = words.into_iter().chain(numbers);
        all.filter_map(|(name, value)| Some((name, OsString::from(value?))))
            .collect()
    }
}

/// The word of a choice, the same on the command line and in the environment.
fn word(choice: &impl ValueEnum) -> String {
    choice
        .to_possible_value()
        .map_or_else(String::new, |value| value.get_name().to_owned())
}

/// Records the program and ends as it ended.
pub(crate) fn run(args: Args) -> anyhow::Result<u8> {
    let program = Program::find(
        args.command
            .first()
            .map_or("".as_ref(), OsString::as_os_str),
    )?;
    if let Some(why) = &program.refusal {
        return Err(Failure::new(exit::NOT_JUDGED, why.as_str()).into());
    }
    for warning in &program.warnings {
        say(&format!("warning: {warning}"));
    }
    let shim = args.shim.path()?;
    let directory = match &args.output {
        Some(path) => LogDir::open(path)?,
        None => LogDir::create(&program.path)?,
    };
    let mut settings = args.settings.variables();
    settings.push(("MEMSPY_LOG", directory.template()));
    let follow = args.follow || !args.no_follow;
    if !follow {
        settings.push(("MEMSPY_PARENT", std::process::id().to_string().into()));
    }
    let launch = Launch {
        program: &program,
        command: &args.command,
        shim: &shim,
        settings,
    };
    let ended = launch.run().inspect_err(|_| directory.remove_if_empty())?;
    report(&directory, &ended, &args, follow);
    Ok(ended.pass_on())
}

/// Says what was recorded and where.
fn report(directory: &LogDir, ended: &Ended, args: &Args, follow: bool) {
    let survivors = if follow {
        survivors(directory)
    } else {
        Vec::new()
    };
    let logs = match directory.new_logs() {
        Ok(logs) => logs,
        Err(error) => {
            say(&format!(
                "can't read the logs in {}: {error}",
                show(directory.shown())
            ));
            return;
        }
    };
    let summarise = !args.quiet && args.settings.has_events() && are_short(&logs);
    let recorded = Recorded::read(&logs, summarise);
    for sentence in untraced(&recorded.images, ended.pid, follow) {
        say(&format!("warning: {sentence}"));
    }
    let has_log = |pid| recorded.images.iter().any(|image| image.pid == pid);
    for sentence in without_log(survivors, has_log) {
        say(&format!("warning: {sentence}"));
    }
    if logs.is_empty() {
        directory.remove_if_empty();
    } else if !args.quiet {
        let place = show(directory.shown());
        let noun = if logs.len() == 1 { "log" } else { "logs" };
        say(&format!(
            "{}, {} {noun} in {place}",
            ended.words(),
            logs.len()
        ));
        match recorded.summaries {
            _ if !args.settings.has_events() => say(&format!(
                "see what was not freed with: memspy leaks {place}"
            )),
            None => say(&format!("long logs; see them with: memspy summary {place}")),
            Some(Ok(summaries)) => {
                let text = summary::report(&summaries, Colour::of_stderr());
                // Standard error may be closed or full; the logs are there all the same.
                let _ = io::stderr().write_all(format!("\n{text}").as_bytes());
            }
            Some(Err(error)) => say(&format!("can't summarise: {error}")),
        }
    }
}

/// Whether the logs can be summarised in a moment.
fn are_short(logs: &[PathBuf]) -> bool {
    let bytes = logs
        .iter()
        .filter_map(|log| fs::metadata(log).ok())
        .map(|log| log.len());
    bytes.sum::<u64>() <= SUMMARY_MAX
}
