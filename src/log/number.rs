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

/// The numbers below 1000: their digits without leading zeros, the first one lowest, and in the upper byte how many.
///
/// Not a static: the one of another crate would be reached through a table of addresses.
const THREE: &[u32; 1024] = &{
    let mut table = [0; 1024];
    let mut value = 0;
    while value < 1000 {
        let digits = value / 100 + ((value / 10 % 10) << 8) + ((value % 10) << 16) + 0x30_3030;
        let zeros = (value < 100) as u32 + (value < 10) as u32;
        table[value as usize] = digits >> (8 * zeros) | (3 - zeros) << 24;
        value += 1;
    }
    table
};

/// The digits of a number below 1000 without leading zeros, and how many there are.
#[inline(always)]
pub(crate) fn upto3(value: u32) -> ([u8; 4], usize) {
    let entry = THREE[value as usize % THREE.len()];
    (entry.to_le_bytes(), (entry >> 24) as usize)
}

/// The numbers below 100 as two digits, the first one lowest.
const TWO: &[u16; 128] = &{
    let mut table = [0; 128];
    let mut value = 0;
    while value < 100 {
        table[value as usize] = value / 10 + ((value % 10) << 8) + 0x3030;
        value += 1;
    }
    table
};

/// Four digits with leading zeros. `value` < 10^4.
#[inline(always)]
pub(crate) fn four(value: u32) -> [u8; 4] {
    let high = value / 100;
    let [first, last] = [high, value - 100 * high].map(|two| TWO[two as usize % TWO.len()]);
    (u32::from(first) | u32::from(last) << 16).to_le_bytes()
}

/// Eight digits with leading zeros. `value` < 10^8.
#[inline(always)]
pub(crate) fn eight(value: u32) -> [u8; 8] {
    (spread(value) | 0x3030_3030_3030_3030).to_le_bytes()
}

/// Sixteen hexadecimal digits, the highest first, each counted from the character in its place of `zero`: that is `'0'`,
/// but for digits that are known to be 0, of which it makes something else.
#[inline(always)]
pub(crate) fn hex16(value: u64, zero: [u8; 16]) -> [u8; 16] {
    let digits = u128::from(nibbles(value >> 32)) | u128::from(nibbles(value & 0xffff_ffff)) << 64;
    // No byte of the sum is carried into the next, so neither is a borrow on the way.
    digits
        .wrapping_add(u128::from_le_bytes(zero))
        .wrapping_sub(u128::from_le_bytes([b'0'; 16]))
        .to_le_bytes()
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
