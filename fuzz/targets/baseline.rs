//! Baseline files.

use memspy_analysis::verdict::Baseline;

/// Parses; what is accepted must come back from its own text.
pub fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match Baseline::parse(&text) {
        Ok(baseline) => {
            let again = Baseline::parse(&baseline.to_text()).expect("memspy reads what it writes");
            assert_eq!(again.len(), baseline.len());
            assert_eq!(again.to_text(), baseline.to_text());
        }
        Err(why) => drop(why.to_string()),
    }
}
