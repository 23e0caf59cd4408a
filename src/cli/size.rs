//! Sizes on the command line: bytes, optionally in units of powers of 1024.

/// Reads `4096`, `64K`, `16MiB`, `1G` as a number of bytes.
///
/// # Errors
/// A sentence for the user when the text is no size or more than 2^64-1.
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    let with_unit = |number: &&str| number.ends_with(['K', 'k', 'M', 'm', 'G', 'g']);
    let number = text.strip_suffix("iB").filter(with_unit).unwrap_or(text);
    let (digits, shift) = match number.char_indices().last() {
        Some((end, 'K' | 'k')) => (&number[..end], 10),
        Some((end, 'M' | 'm')) => (&number[..end], 20),
        Some((end, 'G' | 'g')) => (&number[..end], 30),
        _ => (number, 0),
    };
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let count: Option<u64> = if plain { digits.parse().ok() } else { None };
    let bytes = count.and_then(|count| count.checked_mul(1 << shift));
    bytes.ok_or_else(|| "not a size; write bytes or a number with K, M or G, like 64K".into())
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn units_are_powers_of_1024() {
        assert_eq!(parse("4096"), Ok(4096));
        assert_eq!(parse("64k"), Ok(65536));
        assert_eq!(parse("16MiB"), Ok(16 << 20));
        assert_eq!(parse("1G"), Ok(1 << 30));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "K",
            "-1",
            "1.5M",
            "1T",
            "0x10",
            "17179869184G",
            "+1",
            "é",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
