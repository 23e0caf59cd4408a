//! Numbers for people: sizes with units, counts with separators, shares.

pub(crate) use memspy_analysis::count;

/// `4.1 KiB`: at most four digits and a unit; exact below 10,000 bytes of no unit.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut amount = bytes as f64;
    let mut unit = 0;
    amount /= 1024.0;
    // 1023.95 would be printed as 1024.0.
    while amount >= 1023.95 && unit + 1 < UNITS.len() {
        amount /= 1024.0;
        unit += 1;
    }
    format!("{amount:.1} {}", UNITS[unit])
}

/// `1 range`, `2,000 ranges`.
pub(crate) fn ranges(number: u64) -> String {
    let noun = if number == 1 { "range" } else { "ranges" };
    format!("{} {noun}", count(number))
}

/// `12.3%`; a dash where there is no whole.
pub(crate) fn percent(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "-".to_string();
    }
    format!("{:.1}%", part as f64 * 100.0 / whole as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_keep_four_digits_at_most() {
        let cases = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_048_570, "1.0 MiB"),
            (u64::MAX, "16.0 EiB"),
        ];
        for (size, shown) in cases {
            assert_eq!(bytes(size), shown);
        }
    }

    #[test]
    fn one_range_is_not_ranges() {
        assert_eq!([ranges(1), ranges(1000)], ["1 range", "1,000 ranges"]);
    }

    #[test]
    fn a_share_of_nothing_is_a_dash() {
        assert_eq!([percent(1, 3), percent(0, 0)], ["33.3%", "-"]);
    }
}
