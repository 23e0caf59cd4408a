//! Numbers from text, eight digits at a time inside a 64-bit word.

/// Reads decimal digits at the start of `text`: the value and how many there are.
///
/// `None` for no digit, a leading zero (which JSON forbids) or a value above 2^64-1.
#[inline(always)]
pub(super) fn decimal(text: &[u8]) -> Option<(u64, usize)> {
    let (value, len) = decimal8(text)?;
    let first = text.first()?;
    if len == 0 || (*first == b'0' && len > 1) {
        return None;
    }
    if len < 8 {
        return Some((value, len));
    }
    let (middle, more) = decimal8(text.get(8..)?)?;
    let both = value * TENS[more] + middle;
    if more < 8 {
        return Some((both, 8 + more));
    }
    let (low, last) = decimal8(text.get(16..)?)?;
    if last > 4 {
        return None;
    }
    let all = both.checked_mul(TENS[last])?.checked_add(low)?;
    Some((all, 16 + last))
}

/// Reads lower-case hexadecimal digits at the start of `text`: the value and how many there are.
///
/// `None` for no digit or more than 16.
#[inline(always)]
pub(super) fn hexadecimal(text: &[u8]) -> Option<(u64, usize)> {
    let (high, len) = hexadecimal8(text)?;
    match len {
        0 => None,
        1..8 => Some((high, len)),
        _ => {
            let (low, more) = hexadecimal8(text.get(8..)?)?;
            if more == 8 && is_hexadecimal(*text.get(16)?) {
                return None;
            }
            Some((shift(high, 4 * more as u32) | low, 8 + more))
        }
    }
}

const TENS: [u64; 9] = [
    1,
    10,
    100,
    1_000,
    10_000,
    100_000,
    1_000_000,
    10_000_000,
    100_000_000,
];

const LOW: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// Up to eight decimal digits. `None` when `text` is shorter than eight bytes.
#[inline(always)]
fn decimal8(text: &[u8]) -> Option<(u64, usize)> {
    let word = u64::from_le_bytes(*text.first_chunk()?);
    // A byte is a digit when its high nibble is 3 and adding 6 keeps it so.
    let wrong = (word ^ (LOW * 0x30)) | (word.wrapping_add(LOW * 6) ^ (LOW * 0x30));
    let len = first_marked(wrong & (LOW * 0xf0));
    // The digits move to the top; zeros come in below, which read as leading zeros.
    let digits = shift(word & (LOW * 0x0f), 64 - 8 * len as u32);
    // 8 digits to 4 pairs, 2 fours, 1 eight: each multiplication adds neighbours.
    let pairs = (digits * 10 + (digits >> 8)) & 0x00ff_00ff_00ff_00ff;
    let fours = (pairs * 100 + (pairs >> 16)) & 0x0000_ffff_0000_ffff;
    let eight = (fours * 10_000 + (fours >> 32)) & 0xffff_ffff;
    Some((eight, len))
}

/// Up to eight hexadecimal digits. `None` when `text` is shorter than eight bytes.
#[inline(always)]
fn hexadecimal8(text: &[u8]) -> Option<(u64, usize)> {
    let word = u64::from_le_bytes(*text.first_chunk()?);
    let plain = word & !HIGH;
    // The top bit of each byte tells: not below '0', not above '9', not below 'a', not above 'f'.
    let decimal = (plain + LOW * (0x80 - 0x30)) & !(plain + LOW * (0x80 - 0x3a));
    let letter = (plain + LOW * (0x80 - 0x61)) & !(plain + LOW * (0x80 - 0x67));
    let len = first_marked(!((decimal | letter) & !word) & HIGH);
    let nibbles = (word & (LOW * 0x0f)) + ((letter & HIGH) >> 7) * 9;
    let digits = shift(nibbles, 64 - 8 * len as u32);
    let pairs = (digits << 4 | digits >> 8) & 0x00ff_00ff_00ff_00ff;
    let fours = (pairs << 8 | pairs >> 16) & 0x0000_ffff_0000_ffff;
    let eight = (fours << 16 | fours >> 32) & 0xffff_ffff;
    Some((eight, len))
}

/// The number of the first byte that has a bit set, 8 for none.
#[inline(always)]
fn first_marked(word: u64) -> usize {
    (word.trailing_zeros() / 8) as usize
}

/// A shift to the left that may be one by 64.
#[inline(always)]
fn shift(word: u64, by: u32) -> u64 {
    word.checked_shl(by).unwrap_or(0)
}

#[inline(always)]
fn is_hexadecimal(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const REST: &str = "\"}\n                ";

    proptest! {
        #[test]
        fn every_number_is_read_to_its_end(value: u64, cut in 0..64u32) {
            let value = value >> cut;
            let decimal_text = format!("{value}{REST}");
            let hex_text = format!("{value:x}{REST}");
            prop_assert_eq!(
                decimal(decimal_text.as_bytes()),
                Some((value, decimal_text.len() - REST.len()))
            );
            prop_assert_eq!(
                hexadecimal(hex_text.as_bytes()),
                Some((value, hex_text.len() - REST.len()))
            );
        }

        #[test]
        fn every_byte_that_is_no_digit_ends_the_number(before in 0..=9usize, byte: u8) {
            let mut text = vec![b'7'; before];
            text.push(byte);
            text.extend([b' '; 24]);
            let expected = |digit: bool| before + usize::from(digit);
            let found = |read: Option<(u64, usize)>| read.map_or(0, |(_, len)| len);
            prop_assert_eq!(
                found(decimal(&text)),
                if before == 0 && byte == b'0' { 1 } else { expected(byte.is_ascii_digit()) }
            );
            prop_assert_eq!(found(hexadecimal(&text)), expected(is_hexadecimal(byte)));
        }
    }

    #[test]
    fn numbers_that_json_or_64_bits_forbid_are_refused() {
        for text in [
            "",
            "x",
            "01",
            "18446744073709551616",
            "99999999999999999999",
            "184467440737095516150",
        ] {
            assert_eq!(decimal(format!("{text}{REST}").as_bytes()), None, "{text}");
        }
        assert_eq!(
            decimal(format!("18446744073709551615{REST}").as_bytes()),
            Some((u64::MAX, 20))
        );
        for text in ["", "g", "11112222333344445"] {
            assert_eq!(
                hexadecimal(format!("{text}{REST}").as_bytes()),
                None,
                "{text}"
            );
        }
    }
}
