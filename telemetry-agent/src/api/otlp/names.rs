//! Names of OpenTelemetry as names of Prometheus, by the rules of Prometheus' own translation.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// What becomes of names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Strategy {
    /// Characters that are no letter, digit or colon become `_`; units and kinds become suffixes.
    #[default]
    UnderscoreEscapingWithSuffixes,
    /// Characters become `_`; nothing is appended.
    UnderscoreEscapingWithoutSuffixes,
    /// Characters stay; units and kinds become suffixes.
    NoUTF8EscapingWithSuffixes,
    /// Names stay as they are.
    NoTranslation,
}

/// What a metric is, as far as its name says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Gauge,
    Counter,
    Other,
}

// === impl Strategy ===

impl Strategy {
    pub(super) fn escapes(self) -> bool {
        matches!(self, Self::UnderscoreEscapingWithSuffixes | Self::UnderscoreEscapingWithoutSuffixes)
    }

    fn has_suffixes(self) -> bool {
        matches!(self, Self::UnderscoreEscapingWithSuffixes | Self::NoUTF8EscapingWithSuffixes)
    }

    /// A metric's name; an error says why there is none.
    pub(super) fn metric(self, name: &str, unit: &str, kind: Kind) -> Result<String, String> {
        let made = match (self.escapes(), self.has_suffixes()) {
            (false, false) => name.to_owned(),
            (false, true) => suffixed(name, unit, kind),
            (true, true) => normalized(name, unit, kind),
            (true, false) => {
                let parts =
                    name.split(|c: char| !is_metric_char(c) && c != '_').filter(|part| !part.is_empty());
                led(parts.collect::<Vec<_>>().join("_"))
            }
        };
        if made.is_empty() {
            return Err(format!("metric {name:?} has no name"));
        }
        if made != name && made.bytes().all(|byte| byte == b'_') {
            return Err(format!("metric {name:?} would be named {made:?}"));
        }
        Ok(made)
    }

    /// A label's name.
    pub(super) fn label(self, name: &str) -> Result<Cow<'_, str>, String> {
        if name.is_empty() {
            return Err("an attribute has no name".to_owned());
        }
        let made = if self.escapes() { sanitized(name) } else { Cow::Borrowed(name) };
        if made.bytes().all(|byte| byte == b'_') {
            return Err(format!("attribute {name:?} would be a label named {made:?}"));
        }
        Ok(made)
    }
}

fn is_metric_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == ':'
}

/// A name does not begin with a digit.
fn led(name: String) -> String {
    if name.starts_with(|c: char| c.is_ascii_digit()) { format!("_{name}") } else { name }
}

fn normalized(name: &str, unit: &str, kind: Kind) -> String {
    let mut tokens: Vec<&str> =
        name.split(|c| !is_metric_char(c)).filter(|token| !token.is_empty()).collect();
    let (main, per) = units(unit);
    let (main, per) = (clean(&main), clean(&per));
    // What the name has already is not said twice.
    let per = if per == "per_" { "" } else { per.strip_suffix('_').unwrap_or(&per) };
    let per = if tokens.contains(&per) { "" } else { per };
    let main = if tokens.contains(&&*main) { "" } else { &main };
    let main = if per.is_empty() { main } else { main.strip_suffix('_').unwrap_or(main) };
    tokens.extend([main, per].into_iter().filter(|token| !token.is_empty()));
    let last = match kind {
        Kind::Counter => Some("total"),
        Kind::Gauge if unit == "1" => Some("ratio"),
        Kind::Gauge | Kind::Other => None,
    };
    if let Some(last) = last {
        tokens.retain(|token| *token != last);
        tokens.push(last);
    }
    led(tokens.join("_"))
}

fn suffixed(name: &str, unit: &str, kind: Kind) -> String {
    let (main, per) = units(unit);
    let last = match kind {
        Kind::Gauge if unit == "1" => "ratio",
        Kind::Counter => "total",
        Kind::Gauge | Kind::Other => "",
    };
    let mut made = trimmed(trimmed(name, last), &per).to_owned();
    if !main.is_empty() && !made.ends_with(&*main) {
        made = format!("{made}_{main}");
    }
    for suffix in [&*per, last] {
        if !suffix.is_empty() {
            made = format!("{made}_{suffix}");
        }
    }
    made
}

/// A name without its suffix and what stands before that.
fn trimmed<'a>(name: &'a str, suffix: &str) -> &'a str {
    if suffix.is_empty() || !name.ends_with(suffix) || name.len() <= suffix.len() + 1 {
        return name;
    }
    // A character of several bytes before the suffix is not cut in two.
    name.get(..name.len() - suffix.len() - 1).unwrap_or(name)
}

/// A unit as Prometheus' metadata has it.
pub(super) fn unit(unit: &str) -> String {
    let (main, per) = units(unit);
    let (main, per) = (clean(&main), clean(&per));
    let joined = match (main.is_empty(), per.is_empty()) {
        (false, false) => format!("{main}_{per}"),
        (false, true) => main,
        _ => per,
    };
    let joined = joined.strip_prefix('_').unwrap_or(&joined);
    joined.strip_suffix('_').unwrap_or(joined).to_owned()
}

/// A unit before its slash, and `per_` the one behind it. Annotations in braces are no units.
fn units(unit: &str) -> (Cow<'_, str>, Cow<'_, str>) {
    let (main, per) = unit.split_once('/').unwrap_or((unit, ""));
    let named = |unit: &str| !unit.is_empty() && !unit.contains(['{', '}']);
    let (main, per) = (main.trim(), per.trim());
    let main = if named(main) { main_unit(main) } else { "" };
    let per = if named(per) { format!("per_{}", per_unit(per)) } else { String::new() };
    (main.into(), per.into())
}

fn main_unit(unit: &str) -> &str {
    match unit {
        "d" => "days",
        "h" => "hours",
        "min" => "minutes",
        "s" => "seconds",
        "ms" => "milliseconds",
        "us" => "microseconds",
        "ns" => "nanoseconds",
        "By" => "bytes",
        "KiBy" => "kibibytes",
        "MiBy" => "mebibytes",
        "GiBy" => "gibibytes",
        "TiBy" => "tibibytes",
        "KBy" => "kilobytes",
        "MBy" => "megabytes",
        "GBy" => "gigabytes",
        "TBy" => "terabytes",
        "m" => "meters",
        "V" => "volts",
        "A" => "amperes",
        "J" => "joules",
        "W" => "watts",
        "g" => "grams",
        "Cel" => "celsius",
        "Hz" => "hertz",
        "1" => "",
        "%" => "percent",
        other => other,
    }
}

fn per_unit(unit: &str) -> &str {
    match unit {
        "s" => "second",
        "m" => "minute",
        "h" => "hour",
        "d" => "day",
        "w" => "week",
        "mo" => "month",
        "y" => "year",
        other => other,
    }
}

/// A unit of letters, digits, colons and single underscores, none of them first.
fn clean(unit: &str) -> String {
    let mut made = String::with_capacity(unit.len());
    for c in unit.chars().map(|c| if is_metric_char(c) { c } else { '_' }) {
        if c != '_' || !(made.is_empty() || made.ends_with('_')) {
            made.push(c);
        }
    }
    made
}

/// Letters, digits and single underscores; the four of a reserved name stay.
fn sanitized(name: &str) -> Cow<'_, str> {
    let inner = name.strip_prefix("__").and_then(|rest| rest.strip_suffix("__"));
    let wrap = if inner.is_some() { "__" } else { "" };
    let mut made = String::with_capacity(name.len());
    made.push_str(wrap);
    let mut is_after_underscore = false;
    for c in inner.unwrap_or(name).chars() {
        let is_kept = c.is_ascii_alphanumeric();
        if is_kept || !is_after_underscore {
            made.push(if is_kept { c } else { '_' });
        }
        is_after_underscore = !is_kept;
    }
    made.push_str(wrap);
    if made.starts_with(|c: char| c.is_ascii_digit()) {
        made.insert_str(0, "key_");
    }
    if made == name { Cow::Borrowed(name) } else { Cow::Owned(made) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_named_as_prometheus_names_them() {
        use Kind::{Counter, Gauge, Other};
        let name = |name, unit, kind| Strategy::default().metric(name, unit, kind).unwrap();
        assert_eq!(name("http.server.duration", "ms", Other), "http_server_duration_milliseconds");
        assert_eq!(name("requests", "1", Counter), "requests_total");
        assert_eq!(name("requests.total.count", "{request}", Counter), "requests_count_total");
        assert_eq!(name("memory.utilization", "1", Gauge), "memory_utilization_ratio");
        assert_eq!(name("speed", "m/s", Gauge), "speed_meters_per_second");
        assert_eq!(name("bytes_per_second_read", "By/s", Gauge), "bytes_per_second_read_per_second");
        assert_eq!(name("disk.bytes", "By", Gauge), "disk_bytes");
        assert_eq!(name("2x", "", Gauge), "_2x");
        assert_eq!(name("a__b:c", "%", Gauge), "a_b:c_percent");
        assert_eq!(name("x", "foo__bar/baz!", Gauge), "x_foo_bar_per_baz");
        assert!(Strategy::default().metric("....", "", Gauge).is_err());
        assert!(Strategy::default().metric("", "", Gauge).is_err());
    }

    #[test]
    fn other_strategies_change_less() {
        use Kind::{Counter, Gauge};
        let plain = Strategy::UnderscoreEscapingWithoutSuffixes;
        assert_eq!(plain.metric("a.b__c.", "s", Counter).unwrap(), "a_b__c");
        let utf8 = Strategy::NoUTF8EscapingWithSuffixes;
        assert_eq!(utf8.metric("a.b", "By/s", Counter).unwrap(), "a.b_bytes_per_second_total");
        assert_eq!(utf8.metric("a.total", "", Counter).unwrap(), "a_total");
        assert_eq!(utf8.metric("load.ratio", "1", Gauge).unwrap(), "load_ratio");
        assert_eq!(Strategy::NoTranslation.metric("a.b", "By", Counter).unwrap(), "a.b");
        assert_eq!(Strategy::NoTranslation.label("é.x").unwrap(), "é.x");
    }

    #[test]
    fn labels_are_named_as_prometheus_names_them() {
        let label = |name| Strategy::default().label(name).map(Cow::into_owned);
        assert_eq!(label("http.status_code").unwrap(), "http_status_code");
        assert_eq!(label("a__b..c").unwrap(), "a_b_c");
        assert_eq!(label("__a.b__").unwrap(), "__a_b__");
        assert_eq!(label("1st").unwrap(), "key_1st");
        assert_eq!(label("_x").unwrap(), "_x");
        assert!(label("").is_err() && label("..").is_err() && label("____").is_err());
    }

    #[test]
    fn units_of_metadata() {
        assert_eq!(unit("By/s"), "bytes_per_second");
        assert_eq!(unit("1"), "");
        assert_eq!(unit("{x}/s"), "per_second");
    }
}
