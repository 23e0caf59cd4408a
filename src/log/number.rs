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

/// The digits of a number below 10^8 without leading zeros, and how many there are.
#[inline(always)]
pub(crate) fn upto8(value: u32) -> ([u8; 8], usize) {
    let word = spread(value);
    let zeros = ((word | 1 << 63).trailing_zeros() / 8).min(7);
    let digits = (word | 0x3030_3030_3030_3030) >> (8 * zeros);
    (digits.to_le_bytes(), 8 - zeros as usize)
}

/// The numbers below 1000 as three digits, the first digit lowest. Bits 28 and 29 are the number of leading zeros that
/// a number alone would not have; in a byte of digits they would change nothing, for every digit has both.
static THREE: [u32; 1024] = {
    let mut table = [0; 1024];
    let mut value = 0;
    while value < 1000 {
        let digits = value / 100 + ((value / 10 % 10) << 8) + ((value % 10) << 16) + 0x30_3030;
        let zeros = (value < 100) as u32 + (value < 10) as u32;
        table[value as usize] = digits | zeros << 28;
        value += 1;
    }
    table
};

#[inline(always)]
fn three(value: u32) -> u32 {
    THREE[value as usize % THREE.len()]
}

/// The digits of a number below 1000 without leading zeros, and how many there are.
#[inline(always)]
pub(crate) fn upto3(value: u32) -> ([u8; 4], usize) {
    let entry = three(value);
    let zeros = entry >> 28;
    ((entry >> (8 * zeros)).to_le_bytes(), 3 - zeros as usize)
}

/// Eight digits with leading zeros. `value` < 10^8.
///
/// By table: the shortest way from a number that is not there yet (a clock's) to its digits.
#[inline(always)]
pub(crate) fn eight(value: u32) -> [u8; 8] {
    let [first, middle, last] = [value / 1_000_000, value / 1000 % 1000, value % 1000].map(three);
    let word = u64::from(first >> 8) | u64::from(middle) << 16 | u64::from(last) << 40;
    word.to_le_bytes()
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
