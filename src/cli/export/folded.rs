//! Folded stacks: one line for each stack, `outermost;…;innermost value`, the format that Brendan
//! Gregg's FlameGraph scripts introduced and that inferno, speedscope and others read.

use std::collections::BTreeMap;

use crate::profile::{Measure, Profile, function};

/// The lines, without newlines, sorted; stacks of equal names are one line, empty ones left out.
pub(crate) fn lines(profile: &Profile, measure: Measure) -> Vec<String> {
    // Sorted frame by frame and not as text: a blank in a name comes before the `;`, and drawers
    // need stacks with the same beginning side by side.
    let mut folded = BTreeMap::<Vec<String>, u64>::new();
    for sample in &profile.samples {
        let value = measure.of(sample);
        if value == 0 {
            continue;
        }
        let names = profile
            .frames(sample)
            .map(|frame| plain(function(frame)))
            .collect();
        *folded.entry(names).or_default() += value;
    }
    folded
        .into_iter()
        .map(|(names, value)| format!("{} {value}", names.join(";")))
        .collect()
}

/// A name that can't be taken for the format's own signs: `;` parts frames, and a number after the
/// last blank is the value (two such are a difference).
fn plain(name: &str) -> String {
    let name = name.replace(';', ":");
    match name.rsplit_once(' ') {
        Some((head, tail)) if tail.parse::<f64>().is_ok() => format!("{head}_{tail}"),
        _ if name.is_empty() => "??".to_string(),
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::example;

    #[test]
    fn each_stack_is_a_line_with_inlined_functions_as_frames() {
        let profile = example::profile();
        assert_eq!(
            lines(&profile, Measure::Bytes),
            ["main;grow;push 400", "main;keep 50"]
        );
        assert_eq!(lines(&profile, Measure::Leaked), ["main;keep 50"]);
    }

    #[test]
    fn stacks_of_equal_names_are_added() {
        let mut profile = example::profile();
        profile.samples.push(profile.samples[1].clone());
        assert_eq!(
            lines(&profile, Measure::Count),
            ["main;grow;push 4", "main;keep 2"]
        );
    }

    #[test]
    fn names_cannot_break_the_format() {
        let mut profile = example::profile();
        profile.places[2].frames[0].function = Some("core::ptr::read::<[u8; 4]> 7".to_string());
        assert_eq!(
            lines(&profile, Measure::Leaked),
            ["main;core::ptr::read::<[u8: 4]>_7 50"]
        );
        assert_eq!(plain("line 12"), "line_12");
    }
}
