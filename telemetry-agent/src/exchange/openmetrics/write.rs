//! Lines of OpenMetrics, written so that they read back as the same, bit for bit but for the payload of a NaN.

use std::fmt::Write as _;

use super::Kind;

/// Appends what is known of a family. A unit that the name does not end in is none to the format.
pub fn put_family(out: &mut String, family: &str, kind: Kind, unit: &str, help: &str) {
    let has_unit = family.strip_suffix(unit).is_some_and(|rest| rest.ends_with('_'));
    out.push_str("# TYPE ");
    put_name(out, family);
    let _ = writeln!(out, " {}", kind.word());
    if has_unit && !unit.is_empty() && !matches!(kind, Kind::Info | Kind::StateSet) {
        out.push_str("# UNIT ");
        put_name(out, family);
        let _ = writeln!(out, " {unit}");
    }
    if !help.is_empty() {
        out.push_str("# HELP ");
        put_name(out, family);
        out.push(' ');
        put_escaped(out, help);
        out.push('\n');
    }
}

/// Labels, value and time of an exemplar to be written.
pub type Written<'a> = (&'a [(Box<str>, Box<str>)], f64, i64);

/// Appends a sample line: name, labels, value, seconds, and ` # …` for an exemplar.
pub fn put_sample<'a>(
    out: &mut String,
    labels: impl Iterator<Item = (&'a str, &'a str)> + Clone,
    value: f64,
    t: i64,
    exemplar: Option<Written<'_>>,
) {
    put_series(out, labels);
    out.push(' ');
    put_number(out, value);
    put_time(out, t);
    if let Some((labels, value, t)) = exemplar {
        out.push_str(" # {");
        for (at, (name, value)) in labels.iter().enumerate() {
            if at > 0 {
                out.push(',');
            }
            put_label(out, name, value);
        }
        out.push_str("} ");
        put_number(out, value);
        put_time(out, t);
    }
    out.push('\n');
}

/// `name{label="value"}`, or `{"a name",label="value"}`.
fn put_series<'a>(out: &mut String, labels: impl Iterator<Item = (&'a str, &'a str)> + Clone) {
    let name = labels.clone().find(|(name, _)| *name == "__name__").map_or("", |(_, value)| value);
    let name_is_plain = is_plain(name, true);
    let mut separator = '{';
    if name_is_plain {
        out.push_str(name);
    } else {
        out.push(separator);
        put_quoted(out, name);
        separator = ',';
    }
    for (label, text) in labels.filter(|(label, _)| *label != "__name__") {
        out.push(separator);
        separator = ',';
        put_label(out, label, text);
    }
    if separator == ',' {
        out.push('}');
    }
}

fn put_label(out: &mut String, name: &str, value: &str) {
    if is_plain(name, false) {
        out.push_str(name)
    } else {
        put_quoted(out, name)
    }
    out.push('=');
    put_quoted(out, value);
}

fn put_name(out: &mut String, name: &str) {
    if is_plain(name, true) { out.push_str(name) } else { put_quoted(out, name) }
}

fn is_plain(text: &str, colons: bool) -> bool {
    let is_part = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || (colons && b == b':');
    !text.is_empty() && !text.starts_with(|c: char| c.is_ascii_digit()) && text.bytes().all(is_part)
}

fn put_quoted(out: &mut String, text: &str) {
    out.push('"');
    put_escaped(out, text);
    out.push('"');
}

fn put_escaped(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
}

/// ` 1700000000.123`
fn put_time(out: &mut String, t: i64) {
    let (sign, size) = if t < 0 { ("-", t.unsigned_abs()) } else { ("", t.unsigned_abs()) };
    // Writing to a String cannot fail.
    let _ = write!(out, " {sign}{}.{:03}", size / 1000, size % 1000);
}

/// Appends the shortest number that reads back as the same.
pub fn put_number(out: &mut String, value: f64) {
    if value.is_nan() {
        out.push_str("NaN");
    } else if value.is_infinite() {
        out.push_str(if value > 0.0 { "+Inf" } else { "-Inf" });
    } else {
        let size = value.abs();
        let text = if size != 0.0 && !(1e-6..1e21).contains(&size) {
            format!("{value:e}")
        } else {
            value.to_string()
        };
        out.push_str(&text);
    }
}
