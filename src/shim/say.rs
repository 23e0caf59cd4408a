//! The shim's only words to the person: one line on standard error, at the start and nowhere else.
//!
//! Later, descriptor 2 may be a file of the host's.

use crate::sys;

/// Writes `memspy: ` and the parts as one line. Control bytes become `?`, what is too long is cut.
pub(crate) fn say(parts: &[&[u8]]) {
    let mut line = [0u8; 512];
    let mut len = 0;
    for part in [&b"memspy: "[..]].iter().chain(parts) {
        for byte in *part {
            if let Some(place) = line.get_mut(len).filter(|_| len < 511) {
                *place = if byte.is_ascii_control() { b'?' } else { *byte };
                len += 1;
            }
        }
    }
    if let Some(place) = line.get_mut(len) {
        *place = b'\n';
        let _ = sys::write(2, line.get(..=len).unwrap_or_default());
    }
}
