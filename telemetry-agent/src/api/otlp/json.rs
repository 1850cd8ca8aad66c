//! What Protocol Buffers' JSON writes otherwise than JSON does: long numbers as text, floats by name, bytes as hex or
//! base64.

use serde::de::{Deserialize, Deserializer, Error};
use serde_json::Value;

/// A number that may stand in quotes.
pub(super) trait Number: Sized {
    fn read(value: &Value) -> Option<Self>;
}

impl Number for u64 {
    fn read(value: &Value) -> Option<Self> {
        value.as_u64().or_else(|| value.as_str()?.parse().ok())
    }
}

impl Number for i64 {
    fn read(value: &Value) -> Option<Self> {
        value.as_i64().or_else(|| value.as_str()?.parse().ok())
    }
}

impl Number for f64 {
    fn read(value: &Value) -> Option<Self> {
        value.as_f64().or_else(|| match value.as_str()? {
            "NaN" => Some(Self::NAN),
            "Infinity" => Some(Self::INFINITY),
            "-Infinity" => Some(Self::NEG_INFINITY),
            // The words that Rust knows beyond those have letters other than of an exponent.
            text if text
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E')) =>
            {
                text.parse().ok()
            }
            _ => None,
        })
    }
}

pub(super) fn number<'de, T: Number, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
    T::read(&Value::deserialize(from)?).ok_or_else(|| D::Error::custom("a number was expected"))
}

pub(super) fn some<'de, T: Number, D: Deserializer<'de>>(from: D) -> Result<Option<T>, D::Error> {
    number(from).map(Some)
}

pub(super) fn numbers<'de, T: Number, D: Deserializer<'de>>(from: D) -> Result<Vec<T>, D::Error> {
    let values = Vec::<Value>::deserialize(from)?;
    let read = values.iter().map(T::read).collect::<Option<_>>();
    read.ok_or_else(|| D::Error::custom("a list of numbers was expected"))
}

/// `AggregationTemporality`, by number or by name.
pub(super) fn temporality<'de, D: Deserializer<'de>>(from: D) -> Result<i32, D::Error> {
    let value = Value::deserialize(from)?;
    let number = match value.as_str() {
        Some("AGGREGATION_TEMPORALITY_UNSPECIFIED") => Some(0),
        Some("AGGREGATION_TEMPORALITY_DELTA") => Some(1),
        Some("AGGREGATION_TEMPORALITY_CUMULATIVE") => Some(2),
        Some(_) => None,
        None => value.as_i64().and_then(|number| i32::try_from(number).ok()),
    };
    number.ok_or_else(|| D::Error::custom("an aggregation temporality was expected"))
}

/// Identifiers of traces and spans.
pub(super) fn hex<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(from)?;
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let bytes =
        pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect::<Option<_>>();
    bytes.filter(|_| rest.is_empty()).ok_or_else(|| D::Error::custom("hexadecimal digits were expected"))
}

/// Other bytes; both alphabets, with or without padding.
pub(super) fn base64<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<u8>>, D::Error> {
    let text = String::deserialize(from)?;
    let (mut out, mut held, mut bits) = (Vec::with_capacity(text.len() * 3 / 4), 0u32, 0);
    for byte in text.trim_end_matches('=').bytes() {
        let code = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return Err(D::Error::custom("base64 was expected")),
        };
        held = held << 6 | u32::from(code);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            out.extend(u8::try_from(held >> bits & 0xff));
            held &= (1 << bits) - 1;
        }
    }
    Ok(Some(out))
}
