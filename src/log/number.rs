//! Digits of numbers, several at a time inside a word, without a branch for each.

/// Eight digits as bytes in a word, the first digit lowest. `value` < 10^8.
///
/// Splits 8 digits into 4+4, each into 2+2, each into 1+1 with multiplications by reciprocals: 10486/2^20 is exact for
/// n/100 below 10^4, 103/2^10 for n/10 below 100.
#[inline(always)]
fn spread(value: u32) -> u64 {
    let value = u64::from(value);
    let fours = (value / 10_000) | ((value % 10_000) << 32);
    let hundreds = ((fours * 10_486) >> 20) & 0x7f_0000_007f;
    let twos = hundreds | ((fours - 100 * hundreds) << 16);
    let tens = ((twos * 103) >> 10) & 0x000f_000f_000f_000f;
    tens | ((twos - 10 * tens) << 8)
}

/// The same with four digits. `value` < 10^4.
#[inline(always)]
fn spread4(value: u32) -> u32 {
    let hundreds = (value * 10_486) >> 20;
    let twos = hundreds | ((value - 100 * hundreds) << 16);
    let tens = ((twos * 103) >> 10) & 0x000f_000f;
    tens | ((twos - 10 * tens) << 8)
}

/// The digits of a number below 10^8 without leading zeros, and how many there are.
#[inline(always)]
pub(crate) fn upto8(value: u32) -> ([u8; 8], usize) {
    let word = spread(value);
    let zeros = ((word | 1 << 63).trailing_zeros() / 8).min(7);
    let digits = (word | 0x3030_3030_3030_3030) >> (8 * zeros);
    (digits.to_le_bytes(), 8 - zeros as usize)
}

/// The digits of a number below 10^4 without leading zeros, and how many there are.
#[inline(always)]
pub(crate) fn upto4(value: u32) -> ([u8; 4], usize) {
    let word = spread4(value);
    // The last digit's top bit is never set: so marked, it counts as one even if it is 0.
    let zeros = (word | 1 << 31).trailing_zeros() / 8;
    let digits = (word | 0x3030_3030) >> (8 * zeros);
    (digits.to_le_bytes(), 4 - zeros as usize)
}

/// Eight digits with leading zeros. `value` < 10^8.
#[inline(always)]
pub(crate) fn eight(value: u32) -> [u8; 8] {
    (spread(value) | 0x3030_3030_3030_3030).to_le_bytes()
}

/// Hexadecimal digits without leading zeros, and how many there are.
#[inline(always)]
pub(crate) fn hex(value: u64) -> ([u8; 16], usize) {
    let zeros = (value | 1).leading_zeros() / 4;
    let aligned = value << (4 * zeros);
    let high = u128::from(nibbles(aligned >> 32));
    let low = u128::from(nibbles(aligned & 0xffff_ffff));
    ((high | low << 64).to_le_bytes(), 16 - zeros as usize)
}

/// Eight hexadecimal digits as bytes in a word, the first digit lowest. `value` < 2^32.
#[inline(always)]
fn nibbles(value: u64) -> u64 {
    let x = (value << 16 | value) & 0x0000_ffff_0000_ffff;
    let x = (x << 8 | x) & 0x00ff_00ff_00ff_00ff;
    let x = (x << 4 | x) & 0x0f0f_0f0f_0f0f_0f0f;
    let letters = ((x + 0x0606_0606_0606_0606) >> 4) & 0x0101_0101_0101_0101;
    (x + 0x3030_3030_3030_3030 + letters * 0x27).swap_bytes()
}
