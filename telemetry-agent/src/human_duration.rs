//! Durations as people write them: `250ms`, `5s`, `1m30s`, `2h`. Whole numbers with a unit, largest unit first.
//!
//! A serde `with` module; knows nothing of ours, so that every part's configuration can use it.

use std::time::Duration;

use serde::{Deserialize as _, Deserializer, Serializer, de};

/// The units, largest first, with their milliseconds.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Why a text is no duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Nothing at all.
    #[error("is empty; write a number and a unit, such as \"5s\"")]
    Empty,
    /// A number with nothing behind it.
    #[error("`{0}` has no unit; write one of ms, s, m, h, d behind the number")]
    NoUnit(String),
    /// A unit that is none.
    #[error("`{0}` is no unit of time; write one of ms, s, m, h, d")]
    UnknownUnit(String),
    /// No number where one must stand: a sign, a point, a blank.
    #[error("`{0}` does not begin with a whole number; write 1500ms instead of 1.5s")]
    NoNumber(String),
    /// A unit twice, or a smaller one before a larger.
    #[error("the unit `{0}` is out of order; write each unit once, the largest first")]
    Order(String),
    /// More than can be counted.
    #[error("is too long")]
    TooLong,
}

/// Reads a duration.
///
/// # Errors
/// Where it is anything but whole numbers with units, the largest first.
pub fn parse(text: &str) -> Result<Duration, Error> {
    if text.is_empty() {
        return Err(Error::Empty);
    }
    let mut rest = text;
    let mut millis = 0_u64;
    let mut units = UNITS.as_slice();
    while !rest.is_empty() {
        let digits = rest.find(|character: char| !character.is_ascii_digit()).unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        if number.is_empty() {
            return Err(Error::NoNumber(rest.to_owned()));
        }
        let letters = after.find(|character: char| !character.is_alphabetic()).unwrap_or(after.len());
        let (unit, next) = after.split_at(letters);
        if unit.is_empty() {
            // A point or blank behind the number is the number's fault, the end of the text the missing unit's.
            return Err(if next.is_empty() {
                Error::NoUnit(rest.to_owned())
            } else {
                Error::NoNumber(rest.to_owned())
            });
        }
        if !UNITS.iter().any(|(name, _)| *name == unit) {
            return Err(Error::UnknownUnit(unit.to_owned()));
        }
        let at =
            units.iter().position(|(name, _)| *name == unit).ok_or_else(|| Error::Order(unit.to_owned()))?;
        let (used, smaller) = units.split_at(at + 1);
        let each = used.last().map_or(0, |(_, millis)| *millis);
        units = smaller;
        let part =
            number.parse::<u64>().ok().and_then(|number| number.checked_mul(each)).ok_or(Error::TooLong)?;
        millis = millis.checked_add(part).ok_or(Error::TooLong)?;
        rest = next;
    }
    Ok(Duration::from_millis(millis))
}

/// Writes a duration as [`parse`] reads it. What is finer than a millisecond is cut off.
#[must_use]
pub fn format(duration: Duration) -> String {
    let mut millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut text = String::new();
    for (unit, each) in UNITS {
        if millis >= each {
            text.push_str(&(millis / each).to_string());
            text.push_str(unit);
            millis %= each;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// Writes a duration as a string.
///
/// # Errors
/// Where the format takes no strings.
pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format(*duration))
}

/// Reads a duration from a string. Zero is read too: only a key's own bounds can tell whether it makes sense there.
///
/// # Errors
/// Where it is no string, or no duration.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    parse(&String::deserialize(deserializer)?).map_err(de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(text: &str, millis: u64) {
        assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
    }

    #[test]
    fn whole_numbers_with_units_are_read() {
        check("5s", 5_000);
        check("250ms", 250);
        check("1m30s", 90_000);
        check("2h", 7_200_000);
        check("1d2h3m4s5ms", 93_784_005);
        check("90m", 5_400_000);
        check("0s", 0);
    }

    fn refuse(text: &str, error: Error) {
        assert_eq!(parse(text), Err(error), "{text:?}");
    }

    #[test]
    fn what_could_be_misread_is_refused() {
        refuse("", Error::Empty);
        refuse("5", Error::NoUnit("5".into()));
        refuse("1m30", Error::NoUnit("30".into()));
        refuse("1.5s", Error::NoNumber("1.5s".into()));
        refuse("-5s", Error::NoNumber("-5s".into()));
        refuse("5 s", Error::NoNumber("5 s".into()));
        refuse("s", Error::NoNumber("s".into()));
        refuse("5min", Error::UnknownUnit("min".into()));
        refuse("5M", Error::UnknownUnit("M".into()));
        refuse("30s1m", Error::Order("m".into()));
        refuse("1s1s", Error::Order("s".into()));
        refuse("99999999999999999999s", Error::TooLong);
        refuse("999999999999999d", Error::TooLong);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(millis in any::<u64>()) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(parse(&format(duration)), Ok(duration));
        }

        #[test]
        fn any_text_is_read_without_a_panic(text in ".{0,24}") {
            let _ = parse(&text);
        }
    }
}
