//! Numbers as Prometheus' own client library prints them: the shortest digits that read back as the same value, with
//! an exponent below 1e-4 and from 1e6 on (Go's `strconv.FormatFloat(value, 'g', -1, 64)`).

use std::io::Write as _;

/// Integers below this are exact in a float, so their digits without trailing zeros are the shortest: 2^53.
const EXACT_INTEGER_MAX: f64 = 9_007_199_254_740_992.0;

/// Longest exponential form: sign, 17 digits, point, `e-308`.
const EXPONENTIAL_LEN_MAX: usize = 32;

/// Appends a sample value of the text format.
pub(crate) fn push(value: f64, out: &mut Vec<u8>) {
    let magnitude = value.abs();
    if value.is_nan() {
        out.extend_from_slice(b"NaN");
    } else if value.is_infinite() {
        out.extend_from_slice(if value > 0.0 { b"+Inf" } else { b"-Inf" });
    } else if magnitude == 0.0 {
        // The client library prints negative zero so as well.
        out.push(b'0');
    } else if magnitude < EXACT_INTEGER_MAX && magnitude.fract() == 0.0 {
        push_integer(value, out);
    } else if (1e-4..1e6).contains(&magnitude) {
        // Writing to a Vec cannot fail.
        let _ = write!(out, "{value}");
    } else {
        push_exponential(value, out);
    }
}

/// Appends a float of OpenMetrics: never mistaken for an integer.
pub(super) fn push_float(value: f64, out: &mut Vec<u8>) {
    let start = out.len();
    push(value, out);
    let is_integer = out.iter().skip(start).all(|byte| byte.is_ascii_digit() || *byte == b'-');
    if is_integer {
        out.extend_from_slice(b".0");
    }
}

/// Appends an integer.
pub(super) fn push_count(mut count: u64, out: &mut Vec<u8>) {
    let mut digits = [0_u8; 20];
    let mut used = 0;
    for slot in digits.iter_mut().rev() {
        *slot = digit(count);
        count /= 10;
        used += 1;
        if count == 0 {
            break;
        }
    }
    let first = digits.len() - used;
    out.extend_from_slice(digits.get(first..).unwrap_or_default());
}

fn digit(count: u64) -> u8 {
    b'0' + (count % 10) as u8
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the caller has checked that it is an integer below 2^53, and its sign is printed apart"
)]
fn push_integer(value: f64, out: &mut Vec<u8>) {
    if value < 0.0 {
        out.push(b'-');
    }
    let integer = value.abs() as u64;
    if integer < 1_000_000 {
        return push_count(integer, out);
    }
    let mut digits = Vec::with_capacity(20);
    push_count(integer, &mut digits);
    let exponent = digits.len() - 1;
    while digits.last() == Some(&b'0') {
        digits.pop();
    }
    push_scientific(&digits, i64::try_from(exponent).unwrap_or(i64::MAX), out);
}

fn push_exponential(value: f64, out: &mut Vec<u8>) {
    let mut buffer = [0_u8; EXPONENTIAL_LEN_MAX];
    let mut rest = buffer.as_mut_slice();
    // The longest form fits the buffer, so this cannot fail.
    let _ = write!(rest, "{value:e}");
    let unused = rest.len();
    let written = buffer.get(..EXPONENTIAL_LEN_MAX - unused).unwrap_or_default();
    let text = std::str::from_utf8(written).unwrap_or_default();
    let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
    out.extend_from_slice(mantissa.as_bytes());
    push_exponent(exponent.parse().unwrap_or(0), out);
}

/// Digits as `d.ddde+xx`.
fn push_scientific(digits: &[u8], exponent: i64, out: &mut Vec<u8>) {
    if let Some((first, rest)) = digits.split_first() {
        out.push(*first);
        if !rest.is_empty() {
            out.push(b'.');
            out.extend_from_slice(rest);
        }
    }
    push_exponent(exponent, out);
}

/// Sign and at least two digits.
fn push_exponent(exponent: i64, out: &mut Vec<u8>) {
    out.extend_from_slice(if exponent < 0 { b"e-" } else { b"e+" });
    if exponent.unsigned_abs() < 10 {
        out.push(b'0');
    }
    push_count(exponent.unsigned_abs(), out);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn printed(value: f64, how: fn(f64, &mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        how(value, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn check(value: f64, text: &str, openmetrics: &str) {
        assert_eq!(printed(value, push), text);
        assert_eq!(printed(value, push_float), openmetrics);
    }

    #[test]
    fn numbers_look_as_the_client_library_prints_them() {
        check(0.0, "0", "0.0");
        check(-0.0, "0", "0.0");
        check(1.0, "1", "1.0");
        check(-1.0, "-1", "-1.0");
        check(12345.0, "12345", "12345.0");
        check(999_999.0, "999999", "999999.0");
        check(1e6, "1e+06", "1e+06");
        check(1_234_567.0, "1.234567e+06", "1.234567e+06");
        check(-16_664_629_248.0, "-1.6664629248e+10", "-1.6664629248e+10");
        check(9_007_199_254_740_991.0, "9.007199254740991e+15", "9.007199254740991e+15");
        check(1e21, "1e+21", "1e+21");
        check(0.5, "0.5", "0.5");
        check(0.1 + 0.2, "0.30000000000000004", "0.30000000000000004");
        check(123_456.789, "123456.789", "123456.789");
        check(1_234_567.891, "1.234567891e+06", "1.234567891e+06");
        check(0.0001, "0.0001", "0.0001");
        check(0.000_099_9, "9.99e-05", "9.99e-05");
        check(4_f64.powi(-10), "9.5367431640625e-07", "9.5367431640625e-07");
        check(4_f64.powi(-11), "2.384185791015625e-07", "2.384185791015625e-07");
        check(1024.0, "1024", "1024.0");
        check(5e-324, "5e-324", "5e-324");
        check(f64::MAX, "1.7976931348623157e+308", "1.7976931348623157e+308");
        check(-1.5e-300, "-1.5e-300", "-1.5e-300");
        check(1_520_879_607.789, "1.520879607789e+09", "1.520879607789e+09");
        check(f64::NAN, "NaN", "NaN");
        check(f64::INFINITY, "+Inf", "+Inf");
        check(f64::NEG_INFINITY, "-Inf", "-Inf");
    }

    #[test]
    fn counts_are_printed_whole() {
        for count in [0, 7, 10, 1_000_000, u64::MAX] {
            let mut out = Vec::new();
            push_count(count, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), count.to_string());
        }
    }

    /// The digits of a number without sign, point, exponent and padding.
    fn significant_digits(text: &str) -> String {
        let mantissa = text.split('e').next().unwrap_or_default();
        let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
        let digits = digits.trim_start_matches('0');
        if text.contains('.') || text.contains('e') {
            digits.into()
        } else {
            digits.trim_end_matches('0').into()
        }
    }

    proptest! {
        #[test]
        fn every_number_reads_back_as_itself(bits in any::<u64>()) {
            let value = f64::from_bits(bits);
            prop_assume!(value.is_finite());
            for text in [printed(value, push), printed(value, push_float)] {
                prop_assert_eq!(text.parse::<f64>().unwrap(), value, "{}", text);
            }
        }

        #[test]
        fn integers_have_the_shortest_digits(integer in 0_u64..(1 << 53)) {
            #[expect(clippy::cast_precision_loss, reason = "below 2^53")]
            let value = integer as f64;
            let text = printed(value, push);
            prop_assert_eq!(text.parse::<f64>().unwrap(), value, "{}", text);
            let shortest = format!("{value:e}");
            prop_assert_eq!(significant_digits(&text), significant_digits(&shortest));
        }
    }
}
