//! Numbers, sizes and times as people read and write them.

/// Milliseconds of a day.
const DAY_MS: i64 = 86_400_000;

/// `12,345,678`
#[must_use]
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `1 file`, `2 files`
#[must_use]
pub fn of(n: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(n), if n == 1 { one } else { many })
}

/// `14.2 MiB`
#[must_use]
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut value = telemetry_model::float(n);
    let mut unit = "B";
    for larger in UNITS {
        if value < 1024.0 {
            break;
        }
        (value, unit) = (value / 1024.0, larger);
    }
    if unit == "B" { format!("{n} B") } else { format!("{value:.1} {unit}") }
}

/// `2026-11-25T20:15:00Z`, with milliseconds where there are some.
#[must_use]
pub fn time(t: i64) -> String {
    let (days, ms) = (t.div_euclid(DAY_MS), t.rem_euclid(DAY_MS));
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
    let fraction = if ms % 1000 == 0 { String::new() } else { format!(".{:03}", ms % 1000) };
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
}

/// The day of the proleptic Gregorian calendar that is so many days after 1970-01-01.
fn civil(days: i64) -> (i64, i64, i64) {
    // Eras of 400 years, years that begin in March: the leap day is the last.
    let shifted = days.saturating_add(719_468);
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

/// The days after 1970-01-01 of a day of the calendar; `None` if there is no such day.
fn days_of(year: i64, month: i64, day: i64) -> Option<i64> {
    let shifted = year - i64::from(month <= 2);
    let (era, of_era) = (shifted.div_euclid(400), shifted.rem_euclid(400));
    let of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    (civil(days) == (year, month, day)).then_some(days)
}

/// A time in milliseconds: `2026-11-25T20:15:00Z` or `+01:00`, `2026-11-25`, seconds since 1970, or how long before
/// `now`: `2h`, `1d12h`.
///
/// # Errors
/// If it is none of these.
pub fn parse_time(text: &str, now: i64) -> Result<i64, String> {
    if let Ok(ago) = crate::human_duration::parse(text) {
        let ago = i64::try_from(ago.as_millis()).unwrap_or(i64::MAX);
        return Ok(now.saturating_sub(ago));
    }
    let is_number = text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'-'));
    if let Some(seconds) = text.parse::<f64>().ok().filter(|seconds| is_number && seconds.abs() < 9e12) {
        #[expect(clippy::cast_possible_truncation, reason = "within the range that is checked")]
        return Ok((seconds * 1e3).round() as i64);
    }
    calendar(text).ok_or_else(|| {
        format!("`{text}` is no time; write 2026-11-25T20:15:00Z, 2026-11-25, seconds since 1970, or 2h for 2 hours ago")
    })
}

fn calendar(text: &str) -> Option<i64> {
    let number = |from: usize, to: usize| -> Option<i64> {
        let digits = text.get(from..to)?;
        digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())?
    };
    let is = |at: usize, wanted: &str| text.get(at..at + 1).is_some_and(|found| wanted.contains(found));
    let date = is(4, "-") && is(7, "-");
    let days = days_of(number(0, 4)?, number(5, 7)?, number(8, 10)?).filter(|_| date)?;
    if text.len() == 10 {
        return days.checked_mul(DAY_MS);
    }
    let clock = is(10, "Tt ") && is(13, ":") && is(16, ":");
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    if !clock || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let rest = text.get(19..)?;
    let zone_at = rest.find(['Z', 'z', '+', '-'])?;
    let (fraction, zone) = rest.split_at(zone_at);
    let ms = match fraction.strip_prefix('.') {
        None if fraction.is_empty() => 0,
        Some(digits) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => {
            digits.chars().chain("000".chars()).take(3).collect::<String>().parse().ok()?
        }
        _ => return None,
    };
    let offset = match zone.get(1..)? {
        "" if zone.eq_ignore_ascii_case("z") => 0,
        clock => {
            let (hours, minutes) = clock.split_once(':').filter(|_| clock.len() == 5)?;
            let minutes =
                hours.parse::<u8>().ok().map(i64::from)? * 60 + minutes.parse::<u8>().ok().map(i64::from)?;
            if zone.starts_with('-') { -minutes } else { minutes }
        }
    };
    let seconds = days * 86_400 + hour * 3600 + minute * 60 + second - offset * 60;
    Some(seconds * 1000 + ms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_are_easy_to_read() {
        assert_eq!(
            [count(0), count(999), count(1000), count(12_345_678)],
            ["0", "999", "1,000", "12,345,678"]
        );
        assert_eq!(
            [bytes(0), bytes(1023), bytes(1536), bytes(u64::MAX)],
            ["0 B", "1023 B", "1.5 KiB", "16.0 EiB"]
        );
        assert_eq!([of(1, "file", "files"), of(2, "file", "files")], ["1 file", "2 files"]);
    }

    #[test]
    fn times_are_read_as_people_write_them() {
        let now = 1_800_000_000_000;
        let check = |text: &str, t: i64| assert_eq!(parse_time(text, now), Ok(t), "{text}");
        check("2h", now - 7_200_000);
        check("1700000000", 1_700_000_000_000);
        check("1700000000.25", 1_700_000_000_250);
        check("-1", -1000);
        check("1970-01-02", DAY_MS);
        check("2023-11-14T22:13:20Z", 1_700_000_000_000);
        check("2023-11-14T23:13:20.5+01:00", 1_700_000_000_500);
        check("2024-02-29 00:00:00z", 1_709_164_800_000);
        for bad in [
            "",
            "x",
            "2023-02-29",
            "2023-13-01",
            "2023-11-14T22:13:20",
            "2023-11-14T25:13:20Z",
            "1e9",
            "12:00",
        ] {
            assert!(parse_time(bad, now).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn times_come_back(t in -60_000_000_000_000i64..250_000_000_000_000) {
            prop_assert_eq!(parse_time(&time(t), 0), Ok(t));
        }

        #[test]
        fn any_text_is_a_time_or_an_error(text in "\\PC{0,30}|[0-9TZ:+. -]{0,30}") {
            let _ = parse_time(&text, 0);
        }
    }
}
