//! A series and its values on one line: `metric{label="value"} 1 2 _ 3x4 5+1x3 stale {{count:1}}`.

use std::sync::Arc;

use telemetry_model::{MatchOp, NativeHistogram};

use super::cursor::Cursor;
use super::distribution;
use crate::eval::arithmetic::Arithmetic;
use crate::labels::{Labels, NAME};
use crate::lexer::parse_duration;
use crate::parse::{Options, parse_selector};

/// Values that one line may make.
const ITEMS_MAX: usize = 1_000_000;
/// The value that ends a series.
pub(crate) const STALE: f64 = f64::from_bits(0x7ff0_0000_0000_0002);

/// One place in a series.
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    /// No sample.
    Omitted,
    /// A number; a stale marker too.
    Float(f64),
    /// A native histogram.
    Histogram {
        /// The histogram.
        histogram: Arc<NativeHistogram>,
        /// Whether the line names its hint of resets, so that it is compared.
        hint_named: bool,
    },
}

/// A series as a line writes it.
#[derive(Clone, Debug)]
pub struct SeriesLine {
    /// The series.
    pub labels: Labels,
    /// Its values, a step apart.
    pub items: Vec<Item>,
}

/// Offsets of start timestamps from their samples, milliseconds; none where nobody said.
pub(crate) type Offsets = Vec<Option<i64>>;

/// A line of a series.
pub(crate) fn series(line: &str) -> Result<SeriesLine, String> {
    let (metric, values) = split_metric(line);
    Ok(SeriesLine { labels: labels(metric)?, items: items(values)? })
}

/// Offsets of start timestamps, milliseconds, of a line `metric{…}@st …`; nothing if it is no such line.
pub(crate) fn starts(line: &str) -> Result<Option<(Labels, Offsets)>, String> {
    let (metric, values) = split_metric(line);
    let Some(metric) = metric.trim_end().strip_suffix("@st") else { return Ok(None) };
    let mut offsets = Vec::new();
    for item in values.split_whitespace() {
        start_item(item, &mut offsets).map_err(|error| format!("invalid @st sequence: {item:?}: {error}"))?;
        if offsets.len() > ITEMS_MAX {
            return Err(too_many());
        }
    }
    Ok(Some((labels(metric)?, offsets)))
}

/// Where the labels end: at the first blank outside of braces and quotes, unless braces follow it.
fn split_metric(line: &str) -> (&str, &str) {
    let (mut quote, mut escaped, mut depth) = (None, false, 0_u32);
    for (at, character) in line.char_indices() {
        match (quote, character) {
            (Some(_), _) if escaped => escaped = false,
            (Some('"' | '\''), '\\') => escaped = true,
            (Some(open), close) if open == close => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'' | '`') => quote = Some(character),
            (None, '{') => depth += 1,
            (None, '}') => depth = depth.saturating_sub(1),
            (None, ' ' | '\t') if depth == 0 => return line.split_at_checked(at).unwrap_or((line, "")),
            (None, _) => {}
        }
    }
    (line, "")
}

/// The labels that a selector of equalities names.
fn labels(metric: &str) -> Result<Labels, String> {
    let matchers = parse_selector(metric, &Options::all()).map_err(|errors| errors.to_string())?;
    if let Some(odd) = matchers.iter().find(|matcher| matcher.op != MatchOp::Equal) {
        return Err(format!("a series has labels, not matchers: {}{}", odd.name, odd.op.symbol()));
    }
    let name = matchers.iter().filter(|matcher| matcher.name == NAME);
    let others = matchers.iter().filter(|matcher| matcher.name != NAME);
    Ok(Labels::from_texts(name.chain(others).map(|matcher| (&*matcher.name, &*matcher.value))))
}

fn too_many() -> String {
    format!("more than {ITEMS_MAX} values on one line")
}

fn items(text: &str) -> Result<Vec<Item>, String> {
    let mut items = Vec::new();
    let mut cursor = Cursor::new(text.trim());
    while !cursor.is_done() {
        let here = cursor.rest();
        if cursor.eat("{{") {
            histograms(&mut cursor, &mut items)?;
        } else if cursor.eat("_") {
            let count = if cursor.eat("x") { repeats(&mut cursor)? } else { 1 };
            items.extend(std::iter::repeat_n(Item::Omitted, count));
        } else if cursor.eat("stale") {
            let count = if cursor.eat("x") { repeats(&mut cursor)? + 1 } else { 1 };
            items.extend(std::iter::repeat_n(Item::Float(STALE), count));
        } else {
            let no_value = || format!("series values: expected number or \"stale\" at {here:?}");
            let value = cursor.signed_number().ok_or_else(no_value)?;
            floats(&mut cursor, value, &mut items)?;
        }
        if !cursor.spaces() && !cursor.is_done() {
            return Err(format!("series values: unexpected {:?} in {here:?}", cursor.rest()));
        }
        if items.len() > ITEMS_MAX {
            return Err(too_many());
        }
    }
    Ok(items)
}

fn repeats(cursor: &mut Cursor<'_>) -> Result<usize, String> {
    let rest = cursor.rest();
    let count = cursor.count().ok_or_else(|| format!("series values: no count after \"x\" at {rest:?}"))?;
    if count > ITEMS_MAX { Err(too_many()) } else { Ok(count) }
}

/// `value`, `valuexN`, `value+growthxN`: N times more than once.
fn floats(cursor: &mut Cursor<'_>, mut value: f64, items: &mut Vec<Item>) -> Result<(), String> {
    if cursor.eat("x") {
        let count = repeats(cursor)?;
        items.extend(std::iter::repeat_n(Item::Float(value), count + 1));
        return Ok(());
    }
    if !cursor.rest().starts_with(['+', '-']) {
        items.push(Item::Float(value));
        return Ok(());
    }
    let growth = cursor.signed_number().ok_or("series values: no number after the sign")?;
    if !cursor.eat("x") {
        return Err("series values: expected \"x\" and a count after the growth".to_owned());
    }
    for _ in 0..=repeats(cursor)? {
        items.push(Item::Float(value));
        value += growth;
    }
    Ok(())
}

fn histograms(cursor: &mut Cursor<'_>, items: &mut Vec<Item>) -> Result<(), String> {
    let (histogram, hint_named) = braced(cursor)?;
    let item = |histogram: &NativeHistogram, hint_named| Item::Histogram {
        histogram: Arc::new(histogram.clone()),
        hint_named,
    };
    if cursor.eat("x") {
        let count = repeats(cursor)?;
        items.extend(std::iter::repeat_n(item(&histogram, hint_named), count + 1));
        return Ok(());
    }
    let falls = cursor.rest().starts_with('-');
    if !falls && !cursor.rest().starts_with('+') {
        items.push(item(&histogram, hint_named));
        return Ok(());
    }
    if !cursor.eat("+{{") && !cursor.eat("-{{") {
        return Err("series values: expected a histogram after the sign".to_owned());
    }
    // Prometheus goes by the hint of what is added.
    let (growth, hint_named) = braced(cursor)?;
    if !cursor.eat("x") {
        return Err("series values: expected \"x\" and a count after the growth".to_owned());
    }
    let count = repeats(cursor)?;
    let mut value = histogram;
    items.push(item(&value, hint_named));
    for _ in 0..count {
        if value.schema > growth.schema {
            return Err(format!(
                "error combining histograms: cannot merge from schema {} to {}",
                growth.schema, value.schema
            ));
        }
        let outcome = if falls { value.sub(&growth) } else { value.add(&growth) };
        outcome.map_err(|_| "cannot combine exponential and custom buckets".to_owned())?;
        items.push(item(&value, hint_named));
    }
    Ok(())
}

fn braced(cursor: &mut Cursor<'_>) -> Result<(NativeHistogram, bool), String> {
    let body = cursor.until("}}").ok_or("histogram: no }} after {{")?;
    distribution::parse(body)
}

/// One item of offsets: `_`, `_x3`, `-1m`, `-1mx3`, `-1m+10sx3`.
fn start_item(item: &str, offsets: &mut Vec<Option<i64>>) -> Result<(), String> {
    let mut cursor = Cursor::new(item);
    if cursor.eat("_") {
        let count = if cursor.eat("x") { repeats(&mut cursor)? } else { 1 };
        offsets.extend(std::iter::repeat_n(None, count));
        return Ok(());
    }
    let negative = cursor.eat("-");
    if !negative {
        cursor.eat("+");
    }
    let mut offset = duration(&mut cursor)?;
    if negative {
        offset = -offset;
    }
    if cursor.is_done() {
        offsets.push(Some(offset));
        return Ok(());
    }
    let growth = match (cursor.eat("+"), cursor.rest().starts_with('-')) {
        (true, _) => duration(&mut cursor)?,
        (false, true) => {
            cursor.eat("-");
            -duration(&mut cursor)?
        }
        (false, false) => 0,
    };
    if !cursor.eat("x") {
        return Err(format!("unexpected {:?}", cursor.rest()));
    }
    for _ in 0..=repeats(&mut cursor)? {
        offsets.push(Some(offset));
        offset = offset.saturating_add(growth);
    }
    Ok(())
}

fn duration(cursor: &mut Cursor<'_>) -> Result<i64, String> {
    // A number and one unit, as Prometheus reads them here.
    let rest = cursor.rest();
    cursor.take(|character| character.is_ascii_digit());
    cursor.take(|character| character.is_ascii_alphabetic() && character != 'x');
    let text = rest.get(..rest.len() - cursor.rest().len()).unwrap_or(rest);
    parse_duration(text).map(crate::ast::Nanos::millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn floats(line: &str) -> Vec<f64> {
        let items = series(line).unwrap_or_else(|error| panic!("{line}: {error}")).items;
        let value = |item: &Item| match item {
            Item::Float(value) => *value,
            Item::Omitted => -999.0,
            Item::Histogram { histogram, .. } => histogram.count,
        };
        items.iter().map(value).collect()
    }

    #[test]
    fn values_are_repeated_and_grow() {
        assert_eq!(floats("m 1 2.5 _ -3"), [1.0, 2.5, -999.0, -3.0]);
        assert_eq!(floats("m 1x2 _x2 3"), [1.0, 1.0, 1.0, -999.0, -999.0, 3.0]);
        assert_eq!(floats("m 1+2x3"), [1.0, 3.0, 5.0, 7.0]);
        assert_eq!(floats("m -2-0.5x2"), [-2.0, -2.5, -3.0]);
        assert_eq!(
            floats("m 0x1 1e+3 1e2x1 Inf -inf"),
            [0.0, 0.0, 1e3, 1e2, 1e2, f64::INFINITY, -f64::INFINITY]
        );
        assert_eq!(floats("m {{count:1}}+{{count:2}}x2 {{count:5}}x1"), [1.0, 3.0, 5.0, 5.0, 5.0]);
        assert_eq!(floats("m {{count:5}}-{{count:2}}x1"), [5.0, 3.0]);
    }

    #[test]
    fn labels_may_hold_blanks_and_quoted_names() {
        let line = r#"{"odd.name", a="b } c", d='e"'} 1"#;
        let parsed = series(line).unwrap();
        assert_eq!(parsed.labels.name(), "odd.name");
        assert_eq!((parsed.labels.get("a"), parsed.labels.get("d")), ("b } c", "e\""));
        assert_eq!(series("{} 1").unwrap().labels, Labels::default());
    }

    #[test]
    fn malformed_lines_are_refused() {
        for line in
            ["m 1 x", "m 1+2", "m 1x", "m 1x9999999999", "m {{count:1}", "m{a=~\"b\"} 1", "m 1,2", "m{a 1"]
        {
            assert!(series(line).is_err(), "{line}");
        }
    }

    #[test]
    fn start_timestamps_are_offsets() {
        let (labels, offsets) = starts("m{a=\"b\"}@st -1m _ 0s+10sx2 _x2").unwrap().unwrap();
        assert_eq!(labels.name(), "m");
        assert_eq!(offsets, [Some(-60_000), None, Some(0), Some(10_000), Some(20_000), None, None]);
        assert!(starts("m 1 2").unwrap().is_none());
        assert!(starts("m@st 5").is_err());
    }
}
