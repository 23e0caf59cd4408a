//! Text from a log on its way to a person: names and paths are hostile.

/// The text with every control character and every byte that is not UTF-8 written as `\xNN`, and
/// with the characters that turn a line around (bidirectional controls) or are not seen as `\u{NNNN}`.
///
/// The result is safe on a terminal and stays on one line.
pub fn printable(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for letter in chunk.valid().chars() {
            match letter {
                '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{2069}'
                | '\u{feff}' => out.push_str(&format!("\\u{{{:x}}}", u32::from(letter))),
                _ if letter.is_control() => out.push_str(&format!("\\x{:02x}", u32::from(letter))),
                _ => out.push(letter),
            }
        }
        for byte in chunk.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn nothing_that_moves_a_terminal_gets_through() {
        assert_eq!(
            printable(b"a\x1b[2J\n\xff\xc3\xa4"),
            "a\\x1b[2J\\x0a\\xff\u{e4}"
        );
        assert_eq!(
            printable("\u{9b}1m\u{202e}x\u{200b}".as_bytes()),
            "\\x9b1m\\u{202e}x\\u{200b}"
        );
    }
}
