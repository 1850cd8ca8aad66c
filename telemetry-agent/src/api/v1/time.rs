//! Times as `/v1` takes and tells them: RFC 3339, and seconds since 1970 when read.

use std::time::{SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// What RFC 3339 can say: years 0 to 9999.
const MIN_MS: i64 = -62_167_219_200_000;
const MAX_MS: i64 = 253_402_300_799_999;

/// Milliseconds since 1970. What is beyond RFC 3339's years means the nearest of them.
pub(super) fn parse(text: &str) -> Option<i64> {
    if let Ok(seconds) = text.parse::<f64>() {
        // Words that Rust takes for numbers are none here.
        let is_number = seconds.is_finite() && !text.starts_with('+');
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a cast of what is out of bounds gives the bound"
        )]
        return is_number.then_some(((seconds * 1e3).round() as i64).clamp(MIN_MS, MAX_MS));
    }
    let at = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    i64::try_from(at.unix_timestamp_nanos().div_euclid(1_000_000)).ok().map(|ms| ms.clamp(MIN_MS, MAX_MS))
}

/// RFC 3339 in UTC, with milliseconds where there are some.
pub(super) fn format(ms: i64) -> String {
    let nanos = i128::from(ms.clamp(MIN_MS, MAX_MS)) * 1_000_000;
    OffsetDateTime::from_unix_timestamp_nanos(nanos)
        .ok()
        .and_then(|at| at.format(&Rfc3339).ok())
        .unwrap_or_default()
}

/// A system time in milliseconds.
pub(super) fn millis(at: SystemTime) -> i64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_told() {
        for (text, ms) in [
            ("0", Some(0)),
            ("1795373370.5", Some(1_795_373_370_500)),
            ("1e300", Some(MAX_MS)),
            ("2015-06-03T14:21:58.555+01:00", Some(1_433_337_718_555)),
            ("", None),
            ("now", None),
            ("NaN", None),
            ("inf", None),
        ] {
            assert_eq!(parse(text), ms, "{text}");
        }
        assert_eq!(format(1_433_337_718_555), "2015-06-03T13:21:58.555Z");
        assert_eq!(format(0), "1970-01-01T00:00:00Z");
        assert_eq!(parse(&format(i64::MIN)), Some(MIN_MS));
    }
}
