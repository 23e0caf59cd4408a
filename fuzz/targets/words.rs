//! Words of the command line that the analysis reads: dates, counts, kinds, fingerprints.

use memspy_analysis::verdict::suppression::Date;
use memspy_analysis::verdict::{Fingerprint, KindSet, parse_count};

/// Reads each line as each of them; what is written back must be read as the same.
pub fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for word in text.lines() {
        if let Some(date) = Date::parse(word) {
            assert_eq!(Date::parse(&date.to_string()), Some(date), "{word:?}");
        }
        if let Some(fingerprint) = Fingerprint::parse(word) {
            assert_eq!(
                Fingerprint::parse(&fingerprint.to_string()),
                Some(fingerprint),
                "{word:?}"
            );
        }
        if let Ok(count) = parse_count(word) {
            assert_eq!(parse_count(&count.to_string()), Ok(count), "{word:?}");
        }
        let _ = word.parse::<KindSet>().map_err(|why| why.to_string());
    }
}
