//! The curves as a picture.

use std::fmt::Write as _;

use memspy_analysis::printable;
use memspy_analysis::space::Timeline;

use crate::amount::bytes;
use crate::drawing::{STYLE, shorten, xml};
use crate::one_log::time;

const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 470.0;
const LEFT: f64 = 90.0;
const RIGHT: f64 = 980.0;
const TOP: f64 = 110.0;
const BOTTOM: f64 = 430.0;
/// Horizontal room of a mark's label; a label without it is left to the tooltip.
const LABEL: f64 = 110.0;

/// A curve: its name, colour, and points of time and bytes.
struct Curve {
    name: &'static str,
    colour: &'static str,
    /// Whether the log knows the size at its points only: a call changes the other ones.
    sampled: bool,
    points: Vec<(u64, u64)>,
}

/// The picture as an SVG document.
pub(super) fn draw(title: &str, line: &Timeline) -> String {
    let curves = curves(line);
    let all = curves.iter().flat_map(|curve| &curve.points);
    let largest = all.map(|(_, bytes)| *bytes).max().unwrap_or(0).max(1);
    let paper = Paper {
        end: line.end.max(1),
        step: round_step(largest),
        steps: largest.div_ceil(round_step(largest)),
    };
    let mut body = String::new();
    label(
        &mut body,
        20.0,
        28.0,
        "title",
        &format!("{title}: memory over {}", time(line.end)),
    );
    legend(&mut body, &curves);
    paper.grid(&mut body);
    for curve in &curves {
        paper.curve(&mut body, curve);
    }
    paper.marks(&mut body, line);
    paper.peak(&mut body, line);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" \
         height=\"{HEIGHT}\">\n<style>{STYLE}</style>\n{body}</svg>\n"
    )
}

fn curves(line: &Timeline) -> Vec<Curve> {
    let curve = |name, colour, value: fn(&memspy_analysis::space::Point) -> u64| Curve {
        name,
        colour,
        sampled: false,
        points: line
            .points
            .iter()
            .map(|point| (point.t, value(point)))
            .collect(),
    };
    vec![
        curve("live blocks", "#e15759", |point| point.in_use),
        curve("held by malloc", "#f28e2b", |point| point.held),
        curve("mapped by the program", "#4e79a7", |point| point.mapped),
        Curve {
            name: "in memory, of everything (where known)",
            colour: "#59a14f",
            sampled: true,
            points: line.resident.clone(),
        },
    ]
}

/// 1, 2 or 5 times a power of two's unit, so that at most six lines fit.
fn round_step(largest: u64) -> u64 {
    let mut unit = 1u64;
    while unit < largest / 1024 {
        unit = unit.saturating_mul(1024);
    }
    let steps = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1024];
    let fits = steps.iter().map(|step| unit.saturating_mul(*step));
    fits.into_iter()
        .find(|step| largest.div_ceil(*step) <= 6)
        .unwrap_or(largest)
}

/// 1, 2 or 5 times a power of ten, nanoseconds, so that at most seven ticks fit.
fn round_time(end: u64) -> u64 {
    let tens = std::iter::successors(Some(1u64), |ten| ten.checked_mul(10));
    let mut steps = tens.flat_map(|ten| [1, 2, 5].map(|step| ten.saturating_mul(step)));
    steps.find(|step| end / step < 7).unwrap_or(u64::MAX)
}

/// A time in the unit that fits the whole.
fn tick(t: u64, end: u64) -> String {
    let (unit, name) = match end {
        0..1_000_000 => (1e3, "\u{b5}s"),
        1_000_000..1_000_000_000 => (1e6, "ms"),
        _ => (1e9, "s"),
    };
    match t {
        0 => "0".to_string(),
        _ => format!("{} {name}", t as f64 / unit),
    }
}

fn label(out: &mut String, x: f64, y: f64, class: &str, text: &str) {
    // Writing to a String can't fail.
    let _ = writeln!(
        out,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\">{}</text>",
        xml(text)
    );
}

fn legend(out: &mut String, curves: &[Curve]) {
    let mut x = 20.0;
    for curve in curves {
        let _ = writeln!(
            out,
            "<rect x=\"{x}\" y=\"44\" width=\"12\" height=\"12\" fill=\"{}\"/>",
            curve.colour
        );
        label(out, x + 18.0, 55.0, "", curve.name);
        x += 45.0 + 7.5 * curve.name.len() as f64;
    }
}

/// Where times and sizes lie.
struct Paper {
    end: u64,
    step: u64,
    steps: u64,
}

impl Paper {
    fn x(&self, t: u64) -> f64 {
        LEFT + (RIGHT - LEFT) * t.min(self.end) as f64 / self.end as f64
    }

    fn y(&self, bytes: u64) -> f64 {
        let whole = self.step as f64 * self.steps as f64;
        BOTTOM - (BOTTOM - TOP) * bytes as f64 / whole
    }

    fn grid(&self, out: &mut String) {
        for number in 0..=self.steps {
            let size = self.step.saturating_mul(number);
            let y = self.y(size);
            let _ = writeln!(
                out,
                "<path d=\"M{LEFT} {y:.1}H{RIGHT}\" class=\"grid\" fill=\"none\"/>"
            );
            let _ = writeln!(
                out,
                "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\" class=\"dim\">{}</text>",
                LEFT - 8.0,
                y + 4.0,
                bytes(size)
            );
        }
        let step = round_time(self.end);
        for number in 0..=self.end / step {
            let t = step * number;
            let x = self.x(t);
            let _ = writeln!(
                out,
                "<path d=\"M{x:.1} {BOTTOM}v5\" class=\"axis\" fill=\"none\"/>\
                 <text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\" class=\"dim\">{}</text>",
                BOTTOM + 22.0,
                tick(t, self.end)
            );
        }
    }

    /// A step curve, for a size holds until a call changes it; of samples dots, and dashes between them.
    fn curve(&self, out: &mut String, curve: &Curve) {
        if curve.sampled {
            return self.samples(out, curve);
        }
        let Some((first, size)) = curve.points.first() else {
            return;
        };
        let mut path = format!("M{:.1} {:.1}", self.x(*first), self.y(*size));
        for (t, size) in &curve.points[1..] {
            let _ = write!(path, "H{:.1}V{:.1}", self.x(*t), self.y(*size));
        }
        let _ = write!(path, "H{RIGHT}");
        let _ = writeln!(
            out,
            "<path d=\"{path}\" fill=\"none\" stroke=\"{}\" stroke-width=\"2\" stroke-linejoin=\"round\"/>",
            curve.colour
        );
    }

    fn samples(&self, out: &mut String, curve: &Curve) {
        let colour = curve.colour;
        let mut path = String::new();
        for (t, size) in &curve.points {
            let (x, y) = (self.x(*t), self.y(*size));
            let _ = write!(
                path,
                "{}{x:.1} {y:.1}",
                if path.is_empty() { 'M' } else { 'L' }
            );
            let _ = writeln!(
                out,
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.5\" fill=\"{colour}\"/>"
            );
        }
        let _ = writeln!(
            out,
            "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\" \
             stroke-dasharray=\"5 4\"/>"
        );
    }

    fn marks(&self, out: &mut String, line: &Timeline) {
        let mut free = 0.0;
        for (t, name) in &line.marks {
            let (x, name) = (self.x(*t), printable(name));
            let _ = writeln!(
                out,
                "<g><title>{}</title><path d=\"M{x:.1} {TOP}V{BOTTOM}\" class=\"axis\" fill=\"none\" \
                 stroke-dasharray=\"4 3\"/></g>",
                xml(&format!("{name}, {}", time(*t)))
            );
            let left = x.min(RIGHT - LABEL);
            if left >= free {
                label(out, left, TOP - 28.0, "", &shorten(&name, 14));
                free = left + LABEL;
            }
        }
    }

    fn peak(&self, out: &mut String, line: &Timeline) {
        let size = line.peak.level.bytes;
        if size == 0 {
            return;
        }
        let (x, y) = (self.x(line.peak.t), self.y(size));
        let _ = writeln!(
            out,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"#e15759\"/>\
             <path d=\"M{x:.1} {TOP}V{y:.1}\" stroke=\"#e15759\" stroke-dasharray=\"2 3\" fill=\"none\"/>"
        );
        // Above the curves, in a line of its own.
        let anchor = if x > (LEFT + RIGHT) / 2.0 {
            "end"
        } else {
            "start"
        };
        let _ = writeln!(
            out,
            "<text x=\"{x:.1}\" y=\"{}\" text-anchor=\"{anchor}\">peak of live blocks: {}, {} after the start</text>",
            TOP - 8.0,
            bytes(size),
            time(line.peak.t)
        );
    }
}

#[cfg(test)]
mod tests {
    use super::{round_step, round_time, tick};

    #[test]
    fn at_most_seven_round_ticks_cover_every_time() {
        for end in [1, 9, 999, 68_010_000, 2_194_000_000, u64::MAX] {
            let step = round_time(end);
            assert!(end / step < 7, "{end} {step}");
        }
        assert_eq!(round_time(68_010_000), 10_000_000);
        assert_eq!(tick(30_000_000, 68_010_000), "30 ms");
        assert_eq!(tick(1_500_000_000, 2_194_000_000), "1.5 s");
    }

    #[test]
    fn at_most_six_lines_reach_every_size() {
        for largest in [1, 7, 1000, 4096, 139_264, 5 << 20, 3 << 40, u64::MAX] {
            let step = round_step(largest);
            assert!(step > 0 && largest.div_ceil(step) <= 6, "{largest} {step}");
        }
    }
}
