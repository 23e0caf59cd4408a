//! Symbol names: mangled by anybody, on their way to a person.

use memspy_analysis::printable;
use memspy_symbol::{Frame, demangled};

/// Demangles each line and makes it printable; neither may grow without bounds.
pub fn run(data: &[u8]) {
    for line in data.split(|byte| *byte == b'\n') {
        let name = demangled(&String::from_utf8_lossy(line));
        assert!(
            name.len() <= Frame::LONGEST_NAME + "…".len(),
            "{} bytes",
            name.len()
        );
        let shown = printable(name.as_bytes());
        assert!(!shown.contains(char::is_control), "{shown:?}");
        assert!(!printable(line).contains(char::is_control));
    }
}
