//! Text on its way to a person: names and paths from a log are hostile, numbers are long.

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

/// `1,234,567`.
pub fn count(count: u64) -> String {
    let digits = count.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `1 event`, `2,000 events`.
pub(crate) fn some(number: u64, noun: &str) -> String {
    let s = if number == 1 { "" } else { "s" };
    format!("{} {noun}{s}", count(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_have_separators_and_nouns_their_plural() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1000), "1,000");
        assert_eq!(count(u64::MAX), "18,446,744,073,709,551,615");
        assert_eq!(some(1, "event"), "1 event");
        assert_eq!(some(2000, "block"), "2,000 blocks");
    }

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
