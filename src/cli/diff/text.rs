//! The comparison for people.

use std::fmt::Write as _;

use memspy_analysis::site::Figures;

use super::change::Change;
use super::{Report, Side};
use crate::amount::{bytes, count};
use crate::site_kind::Words;
use crate::sites::Sort;

/// The whole report.
pub(super) fn text(report: &Report) -> String {
    let mut out = String::new();
    // Writing to a String can't fail.
    let _ = head(&mut out, report);
    for (rank, change) in report.sites.iter().enumerate() {
        let _ = site(&mut out, report, rank + 1, change);
    }
    let _ = foot(&mut out, report);
    out
}

fn head(out: &mut String, report: &Report) -> std::fmt::Result {
    for (word, side) in [("old", &report.old), ("new", &report.new)] {
        let state = if side.complete { "" } else { ", INCOMPLETE" };
        writeln!(out, "{word}  {}{state}", side.programs)?;
    }
    writeln!(
        out,
        "\n{:<20}{:>14}{:>14}{:>14}",
        "", "old", "new", "change"
    )?;
    for (figure, words) in figures(report) {
        let of = |side: &Side| figure.of(&side.total);
        let (old, new) = (of(&report.old), of(&report.new));
        if figure == Sort::Failures && (old, new) == (0, 0) {
            continue;
        }
        let line = format!(
            "{words:<20}{:>14}{:>14}{:>14}  {}",
            amount(figure, old),
            amount(figure, new),
            signed(figure, old, new),
            relative(old, new),
        );
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

fn site(out: &mut String, report: &Report, rank: usize, change: &Change) -> std::fmt::Result {
    let figure = report.sort;
    let (old, new) = (figure.of(&change.old), figure.of(&change.new));
    writeln!(
        out,
        "\n#{rank:<3} {:>11}  {}: {} → {}",
        signed(figure, old, new),
        relative(old, new),
        amount(figure, old),
        amount(figure, new),
    )?;
    let details = details(report, &change.old, &change.new);
    if !details.is_empty() {
        writeln!(out, "     {details}")?;
    }
    let depth = if report.depth == 0 {
        change.site.len()
    } else {
        report.depth
    };
    for function in change.site.iter().take(depth) {
        writeln!(out, "       {function}")?;
    }
    let deeper = change.site.len().saturating_sub(depth);
    if deeper > 0 {
        writeln!(
            out,
            "       … {} more; --depth 0 shows all",
            count(deeper as u64)
        )?;
    }
    Ok(())
}

/// What is compared, with its words.
fn figures(report: &Report) -> [(Sort, &'static str); 5] {
    let words = Words::of(report.kind);
    [
        (Sort::Count, words.many_calls()),
        (Sort::Bytes, words.took),
        (Sort::Peak, "at the peak"),
        (Sort::Live, words.live),
        (Sort::Failures, "failed calls"),
    ]
}

/// What else has changed at a site.
fn details(report: &Report, old: &Figures, new: &Figures) -> String {
    let shown = report.sort;
    let others = figures(report)
        .into_iter()
        .filter(|(figure, _)| *figure != shown);
    let changed = others.filter(|(figure, _)| figure.of(old) != figure.of(new));
    let told: Vec<String> = changed
        .map(|(figure, words)| {
            format!("{words} {}", signed(figure, figure.of(old), figure.of(new)))
        })
        .collect();
    told.join(", ")
}

fn foot(out: &mut String, report: &Report) -> std::fmt::Result {
    let otherwise = report.changed_otherwise;
    let alike = report.unchanged - otherwise;
    let mut rest = Vec::new();
    if report.sites.is_empty() {
        let figures = figures(report);
        let shown = figures.iter().find(|(figure, _)| *figure == report.sort);
        let shown = shown.map_or("short-lived", |(_, words)| words);
        rest.push(match otherwise {
            0 => "No site has changed".to_string(),
            _ => format!("No site has changed in what is compared ({shown})"),
        });
    }
    if report.left_out > 0 {
        rest.push(format!(
            "{} more not shown (--top 0 shows all)",
            count(report.left_out as u64)
        ));
    }
    if otherwise > 0 {
        rest.push(format!(
            "{} changed in another figure alone (--sort)",
            count(otherwise as u64)
        ));
    }
    if alike > 0 {
        rest.push(format!("{} alike in both", count(alike as u64)));
    }
    if !rest.is_empty() {
        writeln!(out, "\n{}", rest.join(", "))?;
    }
    if !report.notes.is_empty() {
        writeln!(out, "\nNames are missing or poor:")?;
        for note in &report.notes {
            writeln!(out, "  {note}")?;
        }
    }
    Ok(())
}

/// A figure with its unit.
fn amount(figure: Sort, value: u64) -> String {
    match figure {
        Sort::Bytes | Sort::Peak | Sort::Live => bytes(value),
        Sort::Count | Sort::Short | Sort::Failures => count(value),
    }
}

/// The change of a figure: `+1.2 MiB`, `-3`, `0`.
fn signed(figure: Sort, old: u64, new: u64) -> String {
    let sign = match old.cmp(&new) {
        std::cmp::Ordering::Less => "+",
        std::cmp::Ordering::Equal => return "0".to_string(),
        std::cmp::Ordering::Greater => "-",
    };
    format!("{sign}{}", amount(figure, old.abs_diff(new)))
}

/// The change in relation to what was: `+8.3%`, `new`, `gone`.
fn relative(old: u64, new: u64) -> String {
    match (old, new) {
        _ if old == new => String::new(),
        (0, _) => "new".to_string(),
        (_, 0) => "gone".to_string(),
        _ => format!("{:+.1}%", (new as f64 - old as f64) * 100.0 / old as f64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_have_a_sign_a_unit_and_a_share() {
        assert_eq!(signed(Sort::Bytes, 1024, 4096), "+3.0 KiB");
        assert_eq!(signed(Sort::Count, 5000, 0), "-5,000");
        assert_eq!(signed(Sort::Live, 7, 7), "0");
        assert_eq!(relative(200, 250), "+25.0%");
        assert_eq!(relative(200, 50), "-75.0%");
        assert_eq!(relative(0, 1), "new");
        assert_eq!(relative(1, 0), "gone");
        assert_eq!(relative(7, 7), "");
    }
}
