//! The address space as a picture: the kinds to scale, below them the ranges with gaps folded.

use std::fmt::Write as _;

use memspy_analysis::printable;
use memspy_analysis::space::{Kind, Moment, Picture, Row};

use super::{in_memory, moment_words};
use crate::amount::{bytes, count, ranges as range_count};
use crate::drawing::{STYLE, shorten, shorten_path, xml};

const WIDTH: u64 = 1000;
const LEFT: u64 = 20;
const LINE: u64 = 20;
/// The ranges' bars begin here; the addresses stand left of it.
const BARS: u64 = 260;
const BAR_WIDTH: u64 = 240;
/// The narrowest part of a bar that can be seen.
const LEAST: f64 = 1.5;
/// Letters of a range's description, for which there is room also in a wide font.
const LETTERS: usize = 60;
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
        "title",
        &format!("{title}: the address space {moment}"),
    );
    y += 26;
    let scale = "by kind, to scale, without the reserves of thread arenas";
    text(&mut body, LEFT, y, "dim", scale);
    y += 8;
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
            "{}: {} in {}, {} in memory",
            kind.words(),
            bytes(total.size),
            range_count(total.ranges),
            in_memory(total)
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
    let size = |row: &&Row| row.to - row.from;
    let mut shown: Vec<&Row> = picture.rows.iter().collect();
    shown.sort_by_key(|row| std::cmp::Reverse(size(row)));
    let largest = shown.first().map_or(1, size);
    let folded = shown.len().saturating_sub(MOST_ROWS);
    shown.truncate(MOST_ROWS);
    shown.sort_by_key(|row| row.from);
    text(
        out,
        LEFT,
        y + 4,
        "dim",
        "ranges by address; bars grow with the logarithm of the size, the strong part is in memory",
    );
    y += LINE + 4;
    let mut end = None;
    let mut mapped = picture.rows.iter().peekable();
    for row in shown {
        // What is not drawn between two that are is no gap.
        let mut between = 0;
        while let Some(other) = mapped.next_if(|other| other.from < row.from) {
            if end.is_some_and(|end| other.from >= end) {
                between += other.to - other.from;
            }
        }
        if let Some(end) = end
            && row.from > end + between
        {
            let gap = row.from - end - between;
            let gap = format!("\u{22ee}  {} without a mapping", bytes(gap));
            text(out, LEFT, y, "dim", &gap);
            y += LINE;
        }
        end = Some(row.to);
        range(out, y, row, largest);
        y += LINE;
    }
    if folded > 0 {
        let folded = count(folded as u64);
        let note = format!("{folded} more ranges, no larger than the smallest here, are not drawn");
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
        // A page of a large range is seen, too.
        let width = (scale(size) * resident as f64 / size as f64).max(LEAST);
        rect(out, bar, (width, 15), row.kind);
    }
    let label = match row.path.first() {
        Some(b'/') => format!(
            "{}  {}  {}",
            row.perms,
            row.kind.words(),
            shorten_path(
                &printable(&row.path),
                LETTERS.saturating_sub(row.kind.words().len() + 8)
            )
        ),
        _ => format!("{}  {}", row.perms, row.kind.words()),
    };
    text(out, BARS + BAR_WIDTH + 10, y, "", &shorten(&label, LETTERS));
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
