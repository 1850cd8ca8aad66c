//! The calendar: UTC, proleptic Gregorian.

/// A moment in the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Date {
    /// Year, may be negative.
    pub year: i64,
    /// 1 to 12.
    pub month: i64,
    /// 1 to 31.
    pub day: i64,
    days: i64,
    second_of_day: i64,
}

// === impl Date ===

impl Date {
    /// The date of a Unix time in seconds.
    #[must_use]
    pub fn of(seconds: i64) -> Self {
        let days = seconds.div_euclid(86_400);
        // Years begin in March here, so that the leap day is the last of its year; eras have 400 years.
        let shifted = days.saturating_add(719_468);
        let era = shifted.div_euclid(146_097);
        let day_of_era = shifted.rem_euclid(146_097);
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month + 2) / 5 + 1;
        let month = if month < 10 { month + 3 } else { month - 9 };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        Self { year, month, day, days, second_of_day: seconds.rem_euclid(86_400) }
    }

    /// Hour, minute, second.
    #[must_use]
    pub fn clock(&self) -> (i64, i64, i64) {
        (self.second_of_day / 3600, self.second_of_day / 60 % 60, self.second_of_day % 60)
    }

    /// 0 is Sunday.
    #[must_use]
    pub fn day_of_week(&self) -> i64 {
        self.days.saturating_add(4).rem_euclid(7)
    }

    /// From 1.
    #[must_use]
    pub fn day_of_year(&self) -> i64 {
        let leap = i64::from(self.month > 2 && is_leap(self.year));
        let before = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
        let at = usize::try_from(self.month - 1).unwrap_or(0);
        before.get(at).copied().unwrap_or(0) + leap + self.day
    }

    /// 28 to 31.
    #[must_use]
    pub fn days_in_month(&self) -> i64 {
        match self.month {
            2 => 28 + i64::from(is_leap(self.year)),
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        }
    }
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(seconds: i64, expected: (i64, i64, i64), weekday: i64, day_of_year: i64) {
        let date = Date::of(seconds);
        assert_eq!((date.year, date.month, date.day), expected);
        assert_eq!((date.day_of_week(), date.day_of_year()), (weekday, day_of_year));
    }

    #[test]
    fn dates_are_what_the_calendar_says() {
        check(0, (1970, 1, 1), 4, 1);
        check(1_709_164_800, (2024, 2, 29), 4, 60);
        check(1_456_790_399, (2016, 2, 29), 1, 60);
        check(-1, (1969, 12, 31), 3, 365);
        check(4_107_542_400, (2100, 3, 1), 1, 60);
        assert_eq!(Date::of(1_456_790_399).clock(), (23, 59, 59));
        assert_eq!(Date::of(1_709_164_800).days_in_month(), 29);
        assert_eq!(Date::of(i64::MAX).clock().2, i64::MAX % 60, "no time overflows");
    }
}
