//! The address space as a picture: the kinds to scale, below them the ranges with gaps folded.

use std::fmt::Write as _;

use memspy_analysis::printable;
use memspy_analysis::space::{Kind, Moment, Picture, Row};

use super::moment_words;
use crate::amount::{bytes, count};
use crate::drawing::{STYLE, shorten, xml};

const WIDTH: u64 = 1000;
const LEFT: u64 = 20;
const LINE: u64 = 20;
/// The ranges' bars begin here; the addresses stand left of it.
const BARS: u64 = 260;
const BAR_WIDTH: u64 = 240;
/// More ranges than this make a picture that nobody reads; the smallest are folded.
const MOST_ROWS: usize = 400;

/// The picture as an SVG document.
pub(super) fn draw(title: &str, at: Moment, picture: &Picture) -> String {
    let mut body = String::new();
    let mut y = 30;
    let moment = moment_words(at, picture.t);
    text(
        &mut body,
        LEFT,
        y,
        "",
        &format!("{title}: the address space {moment}"),
    );
    y += 14;
    y = kinds(&mut body, y, picture);
    y = ranges(&mut body, y + 16, picture);
    let height = y + 10;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\">\n<style>{STYLE}</style>\n{body}</svg>\n"
    )
}

fn text(out: &mut String, x: u64, y: u64, class: &str, text: &str) {
    // Writing to a String can't fail.
    let _ = writeln!(
        out,
        "<text x=\"{x}\" y=\"{y}\" class=\"{class}\">{}</text>",
        xml(text)
    );
}

fn rect(out: &mut String, (x, y): (f64, u64), (width, height): (f64, u64), kind: Kind) {
    let _ = writeln!(
        out,
        "<rect x=\"{x:.2}\" y=\"{y}\" width=\"{width:.2}\" height=\"{height}\" fill=\"{}\"/>",
        colour(kind)
    );
}

/// A bar with each kind's share of what is mapped, to scale, and a legend below.
fn kinds(out: &mut String, mut y: u64, picture: &Picture) -> u64 {
    // Reserves have no memory behind them and would be all that one sees.
    let real = |kind: &Kind| !matches!(kind, Kind::ArenaReserve | Kind::Vsyscall);
    let totals: Vec<_> = picture.totals().into_iter().collect();
    let whole: u64 = totals
        .iter()
        .filter(|(kind, _)| real(kind))
        .map(|(_, total)| total.size)
        .sum();
    let room = (WIDTH - 2 * LEFT) as f64;
    let mut x = LEFT as f64;
    for (kind, total) in totals.iter().filter(|(kind, _)| real(kind)) {
        let width = room * total.size as f64 / whole.max(1) as f64;
        rect(out, (x, y), (width, 28), *kind);
        x += width;
    }
    y += 28 + LINE;
    for (number, (kind, total)) in totals.iter().enumerate() {
        let column = number as u64 % 2;
        let x = LEFT + column * (WIDTH - 2 * LEFT) / 2;
        rect(out, (x as f64, y - 11), (12.0, 12), *kind);
        let label = format!(
            "{}: {} in {} ranges, {} in memory",
            kind.words(),
            bytes(total.size),
            count(total.ranges),
            bytes(total.resident)
        );
        text(out, x + 18, y, "", &label);
        if column == 1 || number + 1 == totals.len() {
            y += LINE;
        }
    }
    y
}

/// One line for each range; the bar's length grows with the logarithm of its size.
fn ranges(out: &mut String, mut y: u64, picture: &Picture) -> u64 {
    let mut sizes: Vec<u64> = picture.rows.iter().map(|row| row.to - row.from).collect();
    let largest = sizes.iter().copied().max().unwrap_or(1);
    sizes.sort_unstable_by(|a, b| b.cmp(a));
    let smallest = sizes.get(MOST_ROWS).copied().unwrap_or(0);
    text(
        out,
        LEFT,
        y + 4,
        "dim",
        "ranges by address; bars grow with the logarithm of the size, the dark part is in memory",
    );
    y += LINE + 4;
    let mut end = None;
    let mut folded = 0u64;
    for row in &picture.rows {
        if row.to - row.from < smallest {
            folded += 1;
            continue;
        }
        if let Some(end) = end
            && row.from > end
        {
            let gap = format!("\u{22ee}  {} without a mapping", bytes(row.from - end));
            text(out, LEFT, y, "dim", &gap);
            y += LINE;
        }
        end = Some(row.to);
        range(out, y, row, largest);
        y += LINE;
    }
    if folded > 0 {
        let note = format!("{} smaller ranges are not drawn", count(folded));
        text(out, LEFT, y, "dim", &note);
        y += LINE;
    }
    y
}

fn range(out: &mut String, y: u64, row: &Row, largest: u64) {
    // From a page, the smallest range, to the largest.
    let scale = |size: u64| {
        let pages = |size: u64| (size as f64 / 4096.0).max(0.0) + 1.0;
        BAR_WIDTH as f64 * pages(size).log2() / pages(largest).log2()
    };
    let size = row.to - row.from;
    let _ = writeln!(
        out,
        "<g><title>{}</title>",
        xml(&format!("{} {}", row.perms.words(), printable(&row.path)))
    );
    text(out, LEFT, y, "dim", &format!("{:x}", row.from));
    text(out, LEFT + 135, y, "", &bytes(size));
    let bar = (BARS as f64, y - 12);
    let _ = writeln!(
        out,
        "<rect x=\"{}\" y=\"{}\" width=\"{:.2}\" height=\"15\" fill=\"{}\" fill-opacity=\"0.45\"/>",
        bar.0,
        bar.1,
        scale(size),
        colour(row.kind)
    );
    let resident = row.resident.map_or(0, |resident| resident.all);
    if resident > 0 {
        rect(
            out,
            bar,
            (scale(size) * resident as f64 / size as f64, 15),
            row.kind,
        );
    }
    let label = match row.path.first() {
        Some(b'/') => format!(
            "{}  {}  {}",
            row.perms,
            row.kind.words(),
            printable(&row.path)
        ),
        _ => format!("{}  {}", row.perms, row.kind.words()),
    };
    text(out, BARS + BAR_WIDTH + 10, y, "", &shorten(&label, 66));
    let _ = writeln!(out, "</g>");
}

/// Colours that keep apart on white and on black.
fn colour(kind: Kind) -> &'static str {
    match kind {
        Kind::Code => "#4e79a7",
        Kind::Constants => "#7fa8d1",
        Kind::Data => "#59a14f",
        Kind::Bss => "#8cd17d",
        Kind::Heap => "#e15759",
        Kind::MallocMapping => "#f28e2b",
        Kind::Arena => "#d37295",
        Kind::ArenaReserve => "#fabfd2",
        Kind::ProgramMapping => "#edc948",
        Kind::SharedMapping => "#b6992d",
        Kind::FileMapping => "#499894",
        Kind::Locale => "#86bcb6",
        Kind::ThreadStack => "#b07aa1",
        Kind::Guard => "#d4a6c8",
        Kind::MainStack => "#9d5fb0",
        Kind::Vvar | Kind::Vdso | Kind::Vsyscall => "#9c755f",
        Kind::Loader => "#79706e",
        Kind::Memspy => "#bab0ac",
        Kind::Unknown => "#ff3b30",
    }
}
