//! Lines of a log, one after the other.

use memspy_analysis::decode::{first_line, line, version};

/// Decodes text line by line, and each line once more by the general decoder, which must agree.
pub fn run(data: &[u8]) {
    let mut rest = data;
    while !rest.is_empty() {
        let (event, len) = first_line(rest);
        assert!(
            len > 0 && len <= rest.len(),
            "a line of {len} of {} bytes",
            rest.len()
        );
        let text = &rest[..len];
        match (event, line(text)) {
            (Ok(event), Ok(general)) => assert_eq!(event, general),
            (Ok(event), Err(why)) => panic!("{event:?}, but by the general decoder {why}"),
            (Err(why), _) => {
                let said = why.to_string();
                assert!(!said.contains(char::is_control), "{said:?}");
            }
        }
        version(text);
        rest = &rest[len..];
    }
}
