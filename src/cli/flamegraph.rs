//! `memspy flamegraph`: allocation sites as a picture that a browser zooms and searches.

use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};

use inferno::flamegraph::color::{BasicPalette, Palette};
use inferno::flamegraph::{Direction, Options, TextTruncateDirection, from_lines};

use crate::amount::{bytes, count};
use crate::exit::{self, Failure};
use crate::export::{folded_lines, write_to};
use crate::naming::NameOptions;
use crate::profile::{Measure, Profile};
use crate::site_kind::SiteKind;
use crate::terminal::say;

/// Draw allocation sites as a flamegraph.
///
/// The wider a function, the more memory it and what it called asked for. Open the SVG in a browser to zoom and search.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  memspy flamegraph memspy.app.4711.jsonl -o app.svg
  memspy flamegraph --by leaked --reverse memspy.app.4711.jsonl -o leaks.svg
  memspy flamegraph --kind mappings memspy.app.4711.jsonl -o mapped.svg")]
pub(crate) struct Args {
    /// Logs, or directories of logs; `-` is standard input
    #[arg(required = true, value_name = "LOG")]
    logs: Vec<PathBuf>,

    /// The file to write; `-` is standard output
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    output: PathBuf,

    /// Which memory
    #[arg(long, value_enum, default_value_t)]
    kind: SiteKind,

    /// What the width of a function means
    #[arg(long, value_enum, default_value_t = Measure::Bytes)]
    by: Measure,

    /// Start with the functions that asked for memory instead of main: who calls them?
    #[arg(long)]
    reverse: bool,

    /// The title [default: the program and what is measured]
    #[arg(long)]
    title: Option<String>,

    #[command(flatten)]
    names: NameOptions,
}

/// Draws the picture.
pub(crate) fn run(args: &Args) -> anyhow::Result<u8> {
    if args.output == Path::new("-") && io::stdout().is_terminal() {
        let message =
            "an SVG is not for a terminal: name a file with -o, or send it on with `-o - | …`";
        return Err(Failure::new(exit::USAGE, message).into());
    }
    let profile = Profile::read(&args.logs, args.kind.into(), &args.names)?;
    let lines = folded_lines(&profile, args.by);
    if lines.is_empty() {
        let what = args.by.title(profile.kind);
        let message = format!("nothing to draw: no {what} in {}", profile.title);
        return Err(Failure::new(exit::ERROR, message).into());
    }
    let total = profile.samples.iter().map(|sample| args.by.of(sample));
    let total = total.fold(0, u64::saturating_add);
    let mut svg = Vec::new();
    from_lines(
        &mut options(args, &profile, total),
        lines.iter().map(String::as_str),
        &mut svg,
    )?;
    let svg = for_dark_too(&String::from_utf8_lossy(&svg));
    write_to(&args.output, |out| out.write_all(svg.as_bytes()))?;
    for note in &profile.notes {
        say(note);
    }
    Ok(exit::OK)
}

/// The picture, with a style sheet that follows the reader's light or dark setting; frames keep their bright colours.
fn for_dark_too(svg: &str) -> String {
    const DARK: &str = "@media (prefers-color-scheme:dark){svg>rect{fill:#16181c}\
        #title,#subtitle,#details,#unzoom,#search,#matched{fill:#e6e6e6}}\n</style>";
    svg.replacen("</style>", DARK, 1)
}

fn options(args: &Args, profile: &Profile, total: u64) -> Options<'static> {
    let mut options = Options::default();
    options.title = match &args.title {
        Some(title) => memspy_analysis::printable(title.as_bytes()),
        None => format!("{}: {}", profile.title, args.by.title(profile.kind)),
    };
    options.subtitle = Some(match args.by {
        Measure::Count => count(total),
        Measure::Bytes | Measure::Peak | Measure::Leaked => bytes(total),
    });
    options.count_name = args.by.unit(profile.kind).to_string();
    options.colors = Palette::Basic(BasicPalette::Mem);
    // The same function has the same colour in every picture.
    options.deterministic = true;
    options.text_truncate_direction = TextTruncateDirection::Right;
    if args.reverse {
        options.reverse_stack_order = true;
        options.direction = Direction::Inverted;
    }
    options
}
