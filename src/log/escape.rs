//! JSON strings from bytes that need not be UTF-8.

/// Escapes `bytes` into `out` as the inside of a JSON string and answers the length, `None` when it does not fit.
///
/// Valid UTF-8 stays as it is. Quotes, backslashes and control characters are escaped; a byte outside valid UTF-8
/// becomes `\udcXX`, so that no byte is lost and the line stays valid JSON. Hook-safe: no allocation, no panic.
pub fn escape(bytes: &[u8], out: &mut [u8]) -> Option<usize> {
    let mut len = 0;
    for chunk in bytes.utf8_chunks() {
        for byte in chunk.valid().bytes() {
            match byte {
                b'"' | b'\\' => put(out, &mut len, &[b'\\', byte])?,
                0x20.. if byte != 0x7f => put(out, &mut len, &[byte])?,
                _ => put(out, &mut len, &unicode(b"00", byte))?,
            }
        }
        for byte in chunk.invalid() {
            put(out, &mut len, &unicode(b"dc", *byte))?;
        }
    }
    Some(len)
}

fn unicode(high: &[u8; 2], byte: u8) -> [u8; 6] {
    let digit = |nibble: u8| {
        if nibble < 10 {
            b'0' + nibble
        } else {
            b'a' + (nibble - 10)
        }
    };
    [
        b'\\',
        b'u',
        high[0],
        high[1],
        digit(byte >> 4),
        digit(byte & 15),
    ]
}

fn put(out: &mut [u8], len: &mut usize, piece: &[u8]) -> Option<()> {
    let end = len.checked_add(piece.len())?;
    out.get_mut(*len..end)?.copy_from_slice(piece);
    *len = end;
    Some(())
}

#[cfg(test)]
mod tests {
    use super::escape;
    use std::string::String;
    use std::vec::Vec;

    fn escaped(bytes: &[u8]) -> String {
        let mut out = [0; 256];
        let len = escape(bytes, &mut out).expect("fits");
        String::from_utf8(Vec::from(&out[..len])).expect("is UTF-8")
    }

    #[test]
    fn quotes_backslashes_and_controls_are_escaped() {
        assert_eq!(
            escaped(b"a\"b\\c\nd\x1b]52;\x7f"),
            "a\\\"b\\\\c\\u000ad\\u001b]52;\\u007f"
        );
    }

    #[test]
    fn bytes_outside_utf8_become_lone_surrogates() {
        assert_eq!(escaped(b"\xffabc\xc3\xa4\xc3"), "\\udcffabc\u{e4}\\udcc3");
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert_eq!(escape(b"abc", &mut [0; 2]), None);
        assert_eq!(escape(b"\n", &mut [0; 5]), None);
        assert_eq!(escape(b"", &mut []), Some(0));
    }
}
