//! speedscope's own file format: shared frames, and one sampled profile for each measure.
//! <https://www.speedscope.app/file-format-schema.json>

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::profile::{Measure, Profile, function};

/// The document; `name` is what the tab shows.
pub(crate) fn document(profile: &Profile, name: &str) -> Value {
    let mut frames = Frames::default();
    let stacks: Vec<Vec<usize>> = profile
        .samples
        .iter()
        .map(|sample| frames.of(profile, sample))
        .collect();
    let measures = [
        Measure::Bytes,
        Measure::Count,
        Measure::Peak,
        Measure::Leaked,
    ];
    let profiles: Vec<Value> = measures
        .into_iter()
        .map(|measure| {
            let weights: Vec<u64> = profile.samples.iter().map(|it| measure.of(it)).collect();
            let shown = || {
                weights
                    .iter()
                    .zip(&stacks)
                    .filter(|(weight, _)| **weight > 0)
            };
            json!({
                "type": "sampled",
                "name": measure.title(profile.kind),
                "unit": if measure == Measure::Count { "none" } else { "bytes" },
                "startValue": 0,
                "endValue": weights.iter().fold(0, |sum: u64, weight| sum.saturating_add(*weight)),
                "samples": shown().map(|(_, stack)| stack).collect::<Vec<_>>(),
                "weights": shown().map(|(weight, _)| weight).collect::<Vec<_>>(),
            })
        })
        .collect();
    json!({
        "$schema": "https://www.speedscope.app/file-format-schema.json",
        "exporter": concat!("memspy@", env!("CARGO_PKG_VERSION")),
        "name": name,
        "activeProfileIndex": 0,
        "shared": { "frames": frames.list },
        "profiles": profiles,
    })
}

/// The table of distinct frames.
#[derive(Default)]
struct Frames {
    list: Vec<Value>,
    known: HashMap<String, usize>,
}

impl Frames {
    /// A sample's frames as indices, outermost first.
    fn of(&mut self, profile: &Profile, sample: &crate::profile::Sample) -> Vec<usize> {
        let frames = profile.frames(sample);
        frames
            .map(|frame| {
                let mut entry = json!({ "name": function(frame) });
                if let Some(file) = &frame.file {
                    entry["file"] = json!(file);
                }
                if let Some(line) = frame.line {
                    entry["line"] = json!(line);
                }
                *self.known.entry(entry.to_string()).or_insert_with(|| {
                    self.list.push(entry);
                    self.list.len() - 1
                })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::example;

    #[test]
    fn samples_are_outermost_first_and_weigh_what_the_sites_weigh() {
        let document = document(&example::profile(), "example");
        let names: Vec<&str> = document["shared"]["frames"]
            .as_array()
            .unwrap()
            .iter()
            .map(|frame| frame["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["main", "grow", "push", "keep"]);
        let bytes = &document["profiles"][0];
        assert_eq!(bytes["samples"], json!([[0, 1, 2], [0, 3]]));
        assert_eq!(bytes["weights"], json!([400, 50]));
        assert_eq!(bytes["endValue"], json!(450));
    }

    #[test]
    fn a_sample_without_weight_is_left_out() {
        let document = document(&example::profile(), "example");
        let leaked = &document["profiles"][3];
        assert_eq!(leaked["samples"], json!([[0, 3]]));
        assert_eq!(leaked["weights"], json!([50]));
    }
}
