//! A calendar day, for entries that expire.

use std::fmt;

/// A day of the Gregorian calendar. Later days are greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Date {
    year: u16,
    month: u8,
    day: u8,
}

impl Date {
    /// The day that `2027-01-31` spells; `None` for anything that is no such day.
    pub fn parse(text: &str) -> Option<Date> {
        let mut parts = text.split('-');
        let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
        let digits = [year, month, day]
            .iter()
            .all(|p| p.bytes().all(|b| b.is_ascii_digit()));
        if parts.next().is_some() || !digits || (year.len(), month.len(), day.len()) != (4, 2, 2) {
            return None;
        }
        let date = Date {
            year: year.parse().ok()?,
            month: month.parse().ok()?,
            day: day.parse().ok()?,
        };
        (1..=12).contains(&date.month).then_some(())?;
        (1..=days_in_month(date.year, date.month))
            .contains(&date.day)
            .then_some(date)
    }

    /// The day (UTC) of a moment given in seconds since 1970. Saturates at the year 65535.
    pub fn from_unix_seconds(seconds: u64) -> Date {
        let mut days = seconds / 86_400;
        let mut year: u16 = 1970;
        while days >= days_in_year(year) {
            days -= days_in_year(year);
            match year.checked_add(1) {
                Some(next) => year = next,
                None => {
                    return Date {
                        year,
                        month: 12,
                        day: 31,
                    };
                }
            }
        }
        let mut month = 1;
        while days >= u64::from(days_in_month(year, month)) {
            days -= u64::from(days_in_month(year, month));
            month += 1;
        }
        Date {
            year,
            month,
            day: days as u8 + 1,
        }
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }
}

fn is_leap(year: u16) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn days_in_year(year: u16) -> u64 {
    if is_leap(year) { 366 } else { 365 }
}

fn days_in_month(year: u16, month: u8) -> u8 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if is_leap(year) => 29,
        2 => 28,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_become_the_day_that_date_prints() {
        // Witness: `date -u -d @N +%F`.
        for (seconds, day) in [
            (0, "1970-01-01"),
            (951_782_400, "2000-02-29"),
            (1_798_761_599, "2026-12-31"),
            (1_798_761_600, "2027-01-01"),
            (4_107_542_400, "2100-03-01"),
        ] {
            assert_eq!(Date::from_unix_seconds(seconds).to_string(), day);
        }
        assert_eq!(Date::from_unix_seconds(u64::MAX).to_string(), "65535-12-31");
    }

    #[test]
    fn only_days_that_exist_are_dates() {
        for text in [
            "2027-02-29",
            "2027-13-01",
            "2027-00-10",
            "2027-1-1",
            "27-01-01",
            "+027-01-01",
        ] {
            assert_eq!(Date::parse(text), None, "{text}");
        }
        assert!(Date::parse("2028-02-29") > Date::parse("2027-12-31"));
    }
}
