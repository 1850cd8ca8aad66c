//! Values of literals: numbers, durations and quoted text, with the errors Prometheus has for them.
//!
//! Apart from the lexer, which only finds where they end, so that the reader of test scripts can use them, too.

use crate::ast::Nanos;
use crate::quote::quoted;

/// Units of durations in their only order, with their nanoseconds.
const UNITS: [(&str, u64); 7] = [
    ("y", 365 * 24 * 3_600_000_000_000),
    ("w", 7 * 24 * 3_600_000_000_000),
    ("d", 24 * 3_600_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
];

/// The most nanoseconds a duration may have.
const MOST_NANOS: u64 = i64::MAX.unsigned_abs();

/// The value of a number: decimal, hexadecimal (`0x1f`), octal (`017`), with `_` between digits, `Inf`, `NaN`.
///
/// # Errors
///
/// The error's text, if it is none or has no value.
pub fn parse_number(text: &str) -> Result<f64, String> {
    if let Some(integer) = parse_integer(text) {
        #[expect(clippy::cast_precision_loss, reason = "the language's numbers are floats")]
        return Ok(integer as f64);
    }
    let error = |reason| Err(format!("strconv.ParseFloat: parsing {}: {reason}", quoted(text)));
    let lower = text.to_ascii_lowercase();
    match lower.as_str() {
        "inf" | "+inf" | "infinity" | "+infinity" => return Ok(f64::INFINITY),
        "-inf" | "-infinity" => return Ok(f64::NEG_INFINITY),
        "nan" => return Ok(f64::NAN),
        _ => {}
    }
    let decimal = lower.bytes().all(|byte| byte.is_ascii_digit() || b"+-._e".contains(&byte));
    if !decimal || !underscores_are_between_digits(&lower) {
        return error("invalid syntax");
    }
    match lower.replace('_', "").parse::<f64>() {
        Ok(value) if value.is_infinite() => error("value out of range"),
        Ok(value) => Ok(value),
        Err(_) => error("invalid syntax"),
    }
}

/// An integer with its base in its prefix, as Go's `ParseInt` with base 0.
fn parse_integer(text: &str) -> Option<i64> {
    if !underscores_are_between_digits(text) {
        return None;
    }
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, text.get(1..)?),
        b'+' => (false, text.get(1..)?),
        _ => (false, text),
    };
    let (radix, digits) = match digits.get(..2).map(str::to_ascii_lowercase).as_deref() {
        Some("0x") => (16, digits.get(2..)?),
        Some("0b") => (2, digits.get(2..)?),
        Some("0o") => (8, digits.get(2..)?),
        Some(other) if other.starts_with('0') => (8, digits.get(1..)?),
        _ => (10, digits),
    };
    let digits = if digits.contains('_') { digits.replace('_', "") } else { digits.to_owned() };
    if !digits.starts_with(|first: char| first.is_ascii_alphanumeric()) {
        return None;
    }
    let magnitude = i128::from(u64::from_str_radix(&digits, radix).ok()?);
    i64::try_from(if negative { -magnitude } else { magnitude }).ok()
}

/// Whether every `_` stands between two digits, or between a base's prefix and a digit.
fn underscores_are_between_digits(text: &str) -> bool {
    if !text.contains('_') {
        return true;
    }
    let text = text.strip_prefix(['+', '-']).unwrap_or(text);
    let prefix = text.get(..2).map(str::to_ascii_lowercase);
    let prefixed = matches!(prefix.as_deref(), Some("0x" | "0o" | "0b"));
    let hexadecimal = prefix.as_deref() == Some("0x");
    let mut last = if prefixed { '0' } else { '^' };
    for character in text.chars().skip(if prefixed { 2 } else { 0 }) {
        let digit = character.is_ascii_digit() || hexadecimal && character.is_ascii_hexdigit();
        match character {
            _ if digit => last = '0',
            '_' if last != '0' => return false,
            '_' => last = '_',
            _ if last == '_' => return false,
            _ => last = '!',
        }
    }
    last != '_'
}

/// The length of a duration: `1h30m`. Units go from great to small, each at most once; a bare `0` needs none.
///
/// # Errors
///
/// The error's text, if it is none or does not fit.
pub fn parse_duration(text: &str) -> Result<Nanos, String> {
    match text {
        "0" => return Ok(Nanos(0)),
        "" => return Err("empty duration string".to_owned()),
        _ => {}
    }
    let invalid = || format!("not a valid duration string: {}", quoted(text));
    let (mut rest, mut total, mut units) = (text, 0u64, UNITS.as_slice());
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = rest.split_at_checked(digits).ok_or_else(invalid)?;
        let number: u64 = number.parse().map_err(|_| invalid())?;
        let letters = after.bytes().take_while(|byte| !byte.is_ascii_digit()).count();
        let (unit, after) = after.split_at_checked(letters).ok_or_else(invalid)?;
        if unit.is_empty() {
            return Err(invalid());
        }
        let Some((_, nanos)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err(format!("unknown unit {} in duration {}", quoted(unit), quoted(text)));
        };
        let at = units.iter().position(|(name, _)| *name == unit).ok_or_else(invalid)?;
        units = units.get(at + 1..).unwrap_or_default();
        total = number
            .checked_mul(*nanos)
            .and_then(|nanos| total.checked_add(nanos))
            .filter(|total| *total <= MOST_NANOS)
            .ok_or("duration out of range")?;
        rest = after;
    }
    Ok(Nanos(i64::try_from(total).unwrap_or(i64::MAX)))
}

/// A duration in nanoseconds as Prometheus prints it, to the millisecond: years and weeks only if nothing remains.
#[must_use]
pub fn print_duration(nanos: Nanos) -> String {
    let mut millis = nanos.millis().unsigned_abs();
    if millis == 0 {
        return "0s".to_owned();
    }
    let mut out = if nanos.0 < 0 { "-".to_owned() } else { String::new() };
    for (unit, nanos) in UNITS {
        let unit_millis = nanos / 1_000_000;
        let whole = matches!(unit, "y" | "w");
        if whole && !millis.is_multiple_of(unit_millis) || millis < unit_millis {
            continue;
        }
        out.push_str(&format!("{}{unit}", millis / unit_millis));
        millis %= unit_millis;
    }
    out
}

/// The text within a literal's quotes, escapes resolved; `None` if it is not well formed. Single and double quotes know
/// the same escapes, backquotes none. Escaped bytes that are no UTF-8 (`\xff`) become U+FFFD, since labels are UTF-8.
#[must_use]
pub fn unquote(literal: &str) -> Option<String> {
    let quote = literal.chars().next()?;
    let inner = literal.get(1..)?.strip_suffix(quote)?;
    match quote {
        '`' => return (!inner.contains('`')).then(|| inner.to_owned()),
        '"' | '\'' if inner.contains('\n') => return None,
        '"' | '\'' if !inner.contains(['\\', quote]) => return Some(inner.to_owned()),
        '"' | '\'' => {}
        _ => return None,
    }
    let mut bytes = Vec::with_capacity(inner.len());
    let mut rest = inner;
    while let Some(character) = rest.chars().next() {
        rest = rest.get(character.len_utf8()..)?;
        match character {
            '\\' => rest = unescape(rest, quote, &mut bytes)?,
            _ if character == quote => return None,
            _ => push_char(&mut bytes, character),
        }
    }
    Some(match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
    })
}

/// Resolves what stands behind a backslash; gives what follows it.
fn unescape<'a>(text: &'a str, quote: char, bytes: &mut Vec<u8>) -> Option<&'a str> {
    let character = text.chars().next()?;
    let rest = text.get(character.len_utf8()..)?;
    let (digits, radix) = match character {
        'x' => (2, 16),
        'u' => (4, 16),
        'U' => (8, 16),
        '0'..='7' => (3, 8),
        _ => {
            push_char(bytes, single_escape(character, quote)?);
            return Some(rest);
        }
    };
    let rest = if radix == 8 { text } else { rest };
    let (number, rest) = rest.split_at_checked(digits)?;
    if !number.chars().all(|digit| digit.is_digit(radix)) {
        return None;
    }
    let value = u32::from_str_radix(number, radix).ok()?;
    match character {
        'u' | 'U' => push_char(bytes, char::from_u32(value).unwrap_or(char::REPLACEMENT_CHARACTER)),
        _ => bytes.push(u8::try_from(value).ok()?),
    }
    Some(rest)
}

/// What an escape of one character stands for.
fn single_escape(character: char, quote: char) -> Option<char> {
    Some(match character {
        'a' => '\u{7}',
        'b' => '\u{8}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\u{b}',
        '\\' => '\\',
        _ if character == quote => quote,
        _ => return None,
    })
}

/// Appends a character's UTF-8.
fn push_char(bytes: &mut Vec<u8>, character: char) {
    bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_values_go_gives_them() {
        let check = |text: &str, expected: f64| assert_eq!(parse_number(text), Ok(expected), "{text}");
        check("0", 0.0);
        check("5.", 5.0);
        check(".5", 0.5);
        check("1_000.5e0_1", 10005.0);
        check("0x_1f", 31.0);
        check("0XFF", 255.0);
        check("017", 15.0);
        check("08", 8.0);
        check("0755.5", 755.5);
        check("-017", -15.0);
        check("+Inf", f64::INFINITY);
        check("9223372036854775808", 9.223_372_036_854_776e18);
        assert!(parse_number("NaN").is_ok_and(f64::is_nan));
    }

    #[test]
    fn what_is_no_number_is_refused_with_gos_text() {
        let check = |text: &str, reason: &str| {
            assert_eq!(parse_number(text), Err(format!("strconv.ParseFloat: parsing \"{text}\": {reason}")));
        };
        check("1e999", "value out of range");
        check("1__0", "invalid syntax");
        check("1_", "invalid syntax");
        check("0xffffffffffffffffff", "invalid syntax");
        check("", "invalid syntax");
        check("0x", "invalid syntax");
    }

    #[test]
    fn durations_are_read_and_printed() {
        let check = |text: &str, millis: i64, printed: &str| {
            let nanos = parse_duration(text).expect(text);
            assert_eq!((nanos.millis(), print_duration(nanos).as_str()), (millis, printed), "{text}");
        };
        check("0", 0, "0s");
        check("5m", 300_000, "5m");
        check("1h30m", 5_400_000, "1h30m");
        check("60m", 3_600_000, "1h");
        check("1y", 31_536_000_000, "1y");
        check("2w", 1_209_600_000, "2w");
        check("90d", 7_776_000_000, "90d");
        check("1y2w3d4h5m6s7ms", 33_019_506_007, "382d4h5m6s7ms");
        assert_eq!(print_duration(Nanos(-90_000_000_000)), "-1m30s");
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        let check =
            |text: &str, error: &str| assert_eq!(parse_duration(text), Err(error.to_owned()), "{text}");
        check("", "empty duration string");
        check("5", "not a valid duration string: \"5\"");
        check("m", "not a valid duration string: \"m\"");
        check("5m1h", "not a valid duration string: \"5m1h\"");
        check("5m1m", "not a valid duration string: \"5m1m\"");
        check("5y1hs", "unknown unit \"hs\" in duration \"5y1hs\"");
        check("300y", "duration out of range");
        check("292y300000000s", "duration out of range");
    }

    #[test]
    fn quotes_and_escapes_are_resolved() {
        let check = |literal: &str, expected: Option<&str>| {
            assert_eq!(unquote(literal).as_deref(), expected, "{literal}");
        };
        check(r#""a\n\t\\\"'b""#, Some("a\n\t\\\"'b"));
        check(r#"'a\'"'"#, Some("a'\""));
        check(r"`a\n`", Some(r"a\n"));
        check(r#""\x41\101\u0041\U00000041""#, Some("AAAA"));
        check(r#""\xc3\xbc""#, Some("ü"));
        check(r#""\xff""#, Some("\u{fffd}"));
        check(r#""\'""#, None);
        check(r#""\x4""#, None);
        check(r#""\x+1""#, None);
        check(r#""\400""#, None);
        check("\"a", None);
        check("\"", None);
        check("", None);
    }
}
