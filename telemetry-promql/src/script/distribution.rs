//! Native histograms in the notation of test scripts: `{{schema:1 count:3 sum:5 buckets:[1 2] offset:-3}}`.

use std::fmt::Write as _;
use std::sync::Arc;

use telemetry_model::native::CUSTOM_SCHEMA;
use telemetry_model::{Buckets, NativeHistogram, ResetHint};

use super::cursor::Cursor;
use crate::text;

/// How far from 1 buckets may begin: the finest schema's last index is 2^18, lists are far shorter than the rest.
const OFFSET_MAX: i32 = 1 << 24;
/// How many buckets are printed with the empty ones between them.
const PRINTED_MAX: usize = 1024;

/// The histogram between `{{` and `}}`, and whether its hint of resets was named.
///
/// # Errors
/// What is wrong, in words.
pub fn parse(body: &str) -> Result<(NativeHistogram, bool), String> {
    let mut histogram = NativeHistogram::default();
    let (mut offset, mut negative_offset) = (0, 0);
    let (mut counts, mut negative_counts) = (Vec::new(), Vec::new());
    let mut hint_named = false;
    let mut cursor = Cursor::new(body.trim());
    while !cursor.is_done() {
        let key = cursor.take(|character| character.is_ascii_alphanumeric() || character == '_');
        if !cursor.eat(":") {
            return Err(format!("histogram: expected \"key:value\" at {:?}", cursor.rest()));
        }
        match key {
            "schema" => {
                histogram.schema =
                    i8::try_from(whole(&mut cursor, key)?).map_err(|error| error.to_string())?;
            }
            "sum" => histogram.sum = number(&mut cursor, key)?,
            "count" => histogram.count = number(&mut cursor, key)?,
            "z_bucket" => histogram.zero_count = number(&mut cursor, key)?,
            "z_bucket_w" => histogram.zero_threshold = number(&mut cursor, key)?,
            "offset" => offset = whole(&mut cursor, key)?,
            "n_offset" => negative_offset = whole(&mut cursor, key)?,
            "buckets" => counts = list(&mut cursor, key)?,
            "n_buckets" => negative_counts = list(&mut cursor, key)?,
            "custom_values" => histogram.custom_bounds = Some(list(&mut cursor, key)?.into()),
            "counter_reset_hint" => {
                histogram.reset = hint(cursor.take(|character| !character.is_whitespace()))?;
                hint_named = true;
            }
            _ => return Err(format!("histogram: unknown key {key:?}")),
        }
        if !cursor.spaces() && !cursor.is_done() {
            return Err(format!("histogram: unexpected {:?}", cursor.rest()));
        }
    }
    if histogram.schema == CUSTOM_SCHEMA && histogram.custom_bounds.is_none() {
        histogram.custom_bounds = Some(Arc::default());
    }
    if offset.saturating_abs().max(negative_offset.saturating_abs()) > OFFSET_MAX {
        return Err(format!("histogram: an offset beyond {OFFSET_MAX}"));
    }
    histogram.positive = (offset..).zip(counts).collect();
    histogram.negative = (negative_offset..).zip(negative_counts).collect();
    Ok((histogram, hint_named))
}

fn number(cursor: &mut Cursor<'_>, key: &str) -> Result<f64, String> {
    let rest = cursor.rest();
    cursor.signed_number().ok_or_else(|| format!("histogram: {key}: no number at {rest:?}"))
}

fn whole(cursor: &mut Cursor<'_>, key: &str) -> Result<i32, String> {
    let text = cursor.take(|character| character.is_ascii_digit() || character == '-');
    text.parse().map_err(|error| format!("histogram: {key}: {error}: {text:?}"))
}

fn list(cursor: &mut Cursor<'_>, key: &str) -> Result<Vec<f64>, String> {
    let unclosed = || format!("histogram: {key}: expected a list in brackets");
    if !cursor.eat("[") {
        return Err(unclosed());
    }
    let mut inside = Cursor::new(cursor.until("]").ok_or_else(unclosed)?.trim());
    let mut numbers = Vec::new();
    while !inside.is_done() {
        numbers.push(number(&mut inside, key)?);
        if !inside.spaces() && !inside.is_done() {
            return Err(format!("histogram: {key}: unexpected {:?}", inside.rest()));
        }
    }
    Ok(numbers)
}

fn hint(name: &str) -> Result<ResetHint, String> {
    match name {
        "unknown" => Ok(ResetHint::Unknown),
        "reset" => Ok(ResetHint::Reset),
        "not_reset" => Ok(ResetHint::NotReset),
        "gauge" => Ok(ResetHint::Gauge),
        _ => Err(format!("histogram: unknown counter_reset_hint {name:?}")),
    }
}

/// In the notation of test scripts, which [`parse`] reads.
#[must_use]
pub fn print(histogram: &NativeHistogram) -> String {
    let mut parts = Vec::new();
    if histogram.schema != 0 {
        parts.push(format!("schema:{}", histogram.schema));
    }
    let numbers = [
        ("count", histogram.count),
        ("sum", histogram.sum),
        ("z_bucket", histogram.zero_count),
        ("z_bucket_w", histogram.zero_threshold),
    ];
    let named = numbers.into_iter().filter(|(_, value)| *value != 0.0);
    parts.extend(named.map(|(key, value)| format!("{key}:{}", text::general(value))));
    if histogram.has_custom_bounds() {
        let bounds = histogram.custom_bounds.as_deref().unwrap_or_default();
        parts.push(format!("custom_values:[{}]", joined(bounds.iter().copied())));
    }
    match histogram.reset {
        ResetHint::Unknown => {}
        ResetHint::Reset => parts.push("counter_reset_hint:reset".into()),
        ResetHint::NotReset => parts.push("counter_reset_hint:not_reset".into()),
        ResetHint::Gauge => parts.push("counter_reset_hint:gauge".into()),
    }
    print_buckets(&mut parts, ("offset", "buckets"), &histogram.positive);
    print_buckets(&mut parts, ("n_offset", "n_buckets"), &histogram.negative);
    format!("{{{{{}}}}}", parts.join(" "))
}

fn print_buckets(parts: &mut Vec<String>, (offset_key, key): (&str, &str), buckets: &Buckets) {
    let mut used = buckets.iter().filter(|(_, count)| *count != 0.0).peekable();
    let Some((first, _)) = used.peek().copied() else { return };
    if first != 0 {
        parts.push(format!("{offset_key}:{first}"));
    }
    let mut counts = Vec::new();
    let mut next = first;
    for (index, count) in used {
        while next < index && counts.len() < PRINTED_MAX {
            counts.push(0.0);
            next = next.saturating_add(1);
        }
        counts.push(count);
        next = index.saturating_add(1);
    }
    parts.push(format!("{key}:[{}]", joined(counts.into_iter())));
}

fn joined(numbers: impl Iterator<Item = f64>) -> String {
    let mut out = String::new();
    for (at, number) in numbers.enumerate() {
        let blank = if at == 0 { "" } else { " " };
        // Writing to a String cannot fail.
        let _ = write!(out, "{blank}{}", text::general(number));
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_part_is_read_and_printed() {
        let text = "schema:1 count:3.1 sum:-0.3 z_bucket:7.1 z_bucket_w:0.05 counter_reset_hint:gauge offset:-3 buckets:[5.1 10 7] n_offset:-5 n_buckets:[4.1 5]";
        let (histogram, named) = parse(text).unwrap();
        assert!(named, "the hint was named");
        assert_eq!(histogram.positive.indexes, [-3, -2, -1]);
        assert_eq!(histogram.negative.counts, [4.1, 5.0]);
        assert_eq!(print(&histogram), format!("{{{{{text}}}}}"));
        let custom = "schema:-53 count:3 sum:5 custom_values:[5 10] buckets:[1 0 2]";
        assert_eq!(print(&parse(custom).unwrap().0), format!("{{{{{custom}}}}}"));
    }

    #[test]
    fn what_is_not_a_histogram_is_refused() {
        for text in [
            "schema",
            "schema:x",
            "what:1",
            "buckets:[1 2",
            "buckets:1",
            "counter_reset_hint:no",
            "sum:1,count:2",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back(
            schema in -4_i8..=8, sum in -1e9_f64..1e9, count in 0.0_f64..1e9, offset in -50_i32..50,
            counts in prop::collection::vec(0.5_f64..1e6, 0..20),
        ) {
            let positive = (offset..).zip(counts).collect();
            let histogram = NativeHistogram { schema, sum, count, positive, ..NativeHistogram::default() };
            let printed = print(&histogram);
            let body = printed.trim_start_matches('{').trim_end_matches('}');
            prop_assert_eq!(parse(body).unwrap(), (histogram, false));
        }
    }
}
