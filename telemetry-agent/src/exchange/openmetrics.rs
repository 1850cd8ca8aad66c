//! OpenMetrics 1.0 and Prometheus text 0.0.4, line by line: samples, metadata, exemplars.
//!
//! Reads what `promtool tsdb dump-openmetrics`, exposition pages and our own dump write. Lines are bounded; a line
//! that is none of the format's is an error with its number. Timestamps are seconds with decimals in OpenMetrics and
//! milliseconds in 0.0.4; which one a text is, its `# EOF` or its reader says.

use std::borrow::Cow;

/// The longest line.
pub const LINE_BYTES_MAX: usize = 1 << 20;
/// Labels of one sample.
const LABELS_MAX: usize = 128;

/// A line that is not of the format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SyntaxError(pub &'static str);

/// Which of the two formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Timestamps in seconds.
    OpenMetrics,
    /// Timestamps in milliseconds.
    Text,
}

/// A line.
#[derive(Clone, Debug, PartialEq)]
pub enum Line<'a> {
    /// A sample.
    Sample(Sample<'a>),
    /// `# TYPE family kind`
    Type(Cow<'a, str>, &'a str),
    /// `# UNIT family unit`
    Unit(Cow<'a, str>, &'a str),
    /// `# HELP family text`
    Help(Cow<'a, str>, Cow<'a, str>),
    /// `# EOF`
    Eof,
    /// An empty line or any other comment.
    Nothing,
}

/// One sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample<'a> {
    /// All labels, `__name__` among them, in the order of their names.
    pub labels: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    /// The value.
    pub value: f64,
    /// Milliseconds since 1970, if it has a time.
    pub t: Option<i64>,
    /// Labels, value and time of its exemplar.
    pub exemplar: Option<Exemplar<'a>>,
}

/// What stands behind a sample's `#`.
#[derive(Clone, Debug, PartialEq)]
pub struct Exemplar<'a> {
    /// Its labels.
    pub labels: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    /// Its value.
    pub value: f64,
    /// Its time in milliseconds.
    pub t: Option<i64>,
}

/// Reads one line, without its end.
///
/// # Errors
/// If it is not of the format.
pub fn parse_line(line: &str, dialect: Dialect) -> Result<Line<'_>, SyntaxError> {
    if line.len() > LINE_BYTES_MAX {
        return Err(SyntaxError("line too long"));
    }
    if let Some(comment) = line.strip_prefix('#') {
        return parse_comment(comment, dialect);
    }
    if line.trim_matches([' ', '\t']).is_empty() {
        return Ok(Line::Nothing);
    }
    let mut cursor = Cursor(line.trim_start_matches([' ', '\t']));
    let mut labels = Vec::new();
    if !cursor.0.starts_with('{') {
        let name = cursor.name()?;
        labels.push((Cow::Borrowed("__name__"), Cow::Borrowed(name)));
        cursor.space();
    }
    if cursor.0.starts_with('{') {
        cursor.labels(&mut labels)?;
    }
    if !labels.iter().any(|(name, _)| name == "__name__") {
        return Err(SyntaxError("sample without a name"));
    }
    sort(&mut labels)?;
    let value = number(cursor.word()?)?;
    let mut t = None;
    if !cursor.0.is_empty() && !cursor.0.starts_with('#') {
        t = Some(time(cursor.word()?, dialect)?);
    }
    let exemplar = if cursor.0.starts_with('#') { Some(cursor.exemplar(dialect)?) } else { None };
    if cursor.0.is_empty() {
        Ok(Line::Sample(Sample { labels, value, t, exemplar }))
    } else {
        Err(SyntaxError("text after the sample"))
    }
}

fn parse_comment(comment: &str, dialect: Dialect) -> Result<Line<'_>, SyntaxError> {
    let rest = comment.trim_start_matches([' ', '\t']);
    if rest == "EOF" && dialect == Dialect::OpenMetrics {
        return Ok(Line::Eof);
    }
    let Some((word, rest)) = rest.split_once([' ', '\t']) else { return Ok(Line::Nothing) };
    if !matches!(word, "TYPE" | "UNIT" | "HELP") {
        return Ok(Line::Nothing);
    }
    let mut cursor = Cursor(rest.trim_start_matches([' ', '\t']));
    let family = if cursor.0.starts_with('"') { cursor.quoted()? } else { Cow::Borrowed(cursor.name()?) };
    let text = cursor.0.trim_start_matches([' ', '\t']);
    Ok(match word {
        "TYPE" => Line::Type(family, text.trim_end()),
        "UNIT" => Line::Unit(family, text.trim_end()),
        _ => Line::Help(family, unescape(text)),
    })
}

/// A number as the formats write it.
fn number(word: &str) -> Result<f64, SyntaxError> {
    match word {
        "+Inf" | "Inf" | "inf" | "+inf" => return Ok(f64::INFINITY),
        "-Inf" | "-inf" => return Ok(f64::NEG_INFINITY),
        "NaN" | "nan" => return Ok(f64::NAN),
        _ => {}
    }
    let is_number = word.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'+' | b'e' | b'E'));
    if is_number {
        word.parse().map_err(|_| SyntaxError("bad number"))
    } else {
        Err(SyntaxError("bad number"))
    }
}

/// A timestamp in milliseconds: exact, whatever a float would make of it.
fn time(word: &str, dialect: Dialect) -> Result<i64, SyntaxError> {
    let bad = SyntaxError("bad timestamp");
    if dialect == Dialect::Text {
        return word.parse().map_err(|_| bad);
    }
    let (whole, part) = word.split_once('.').unwrap_or((word, ""));
    let is_plain = part.bytes().all(|b| b.is_ascii_digit());
    if let (Ok(seconds), true) = (whole.parse::<i64>(), is_plain) {
        let digits: String = part.chars().chain("000".chars()).take(3).collect();
        let millis: i64 = digits.parse().map_err(|_| bad.clone())?;
        let signed = if whole.starts_with('-') { -millis } else { millis };
        return seconds.checked_mul(1000).and_then(|t| t.checked_add(signed)).ok_or(bad);
    }
    let seconds = number(word)?;
    #[expect(clippy::cast_possible_truncation, reason = "within the range that is checked")]
    if seconds.abs() < 9e15 { Ok((seconds * 1e3).round() as i64) } else { Err(bad) }
}

fn sort(labels: &mut [(Cow<'_, str>, Cow<'_, str>)]) -> Result<(), SyntaxError> {
    labels.sort_by(|a, b| a.0.cmp(&b.0));
    let twice = labels.iter().zip(labels.iter().skip(1)).any(|(a, b)| a.0 == b.0);
    if twice { Err(SyntaxError("label given twice")) } else { Ok(()) }
}

fn unescape(text: &str) -> Cow<'_, str> {
    if !text.contains('\\') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => out.push('\n'),
            Some(c @ ('\\' | '"')) => out.push(c),
            // Not an escape: the backslash is itself.
            other => {
                out.push('\\');
                out.extend(other);
            }
        }
    }
    Cow::Owned(out)
}

struct Cursor<'a>(&'a str);

// === impl Cursor ===

impl<'a> Cursor<'a> {
    fn space(&mut self) {
        self.0 = self.0.trim_start_matches([' ', '\t']);
    }

    fn name(&mut self) -> Result<&'a str, SyntaxError> {
        let end = self
            .0
            .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'))
            .unwrap_or(self.0.len());
        let (name, rest) = self.0.split_at(end);
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(SyntaxError("bad name"));
        }
        self.0 = rest;
        Ok(name)
    }

    fn word(&mut self) -> Result<&'a str, SyntaxError> {
        self.space();
        let end = self.0.find([' ', '\t']).unwrap_or(self.0.len());
        let (word, rest) = self.0.split_at(end);
        self.0 = rest;
        self.space();
        if word.is_empty() { Err(SyntaxError("value missing")) } else { Ok(word) }
    }

    fn quoted(&mut self) -> Result<Cow<'a, str>, SyntaxError> {
        let rest = self.0.strip_prefix('"').ok_or(SyntaxError("quote missing"))?;
        let mut escaped = false;
        let end = rest.char_indices().find(|(_, c)| {
            let ends = *c == '"' && !escaped;
            escaped = *c == '\\' && !escaped;
            ends
        });
        let (end, _) = end.ok_or(SyntaxError("quote not closed"))?;
        let (text, after) = rest.split_at(end);
        self.0 = after.get(1..).unwrap_or("");
        Ok(unescape(text))
    }

    /// `{a="b",c="d"}`; a quoted string alone is the metric's name.
    fn labels(&mut self, out: &mut Vec<(Cow<'a, str>, Cow<'a, str>)>) -> Result<(), SyntaxError> {
        self.0 = self.0.strip_prefix('{').ok_or(SyntaxError("brace missing"))?;
        loop {
            self.space();
            if let Some(rest) = self.0.strip_prefix('}') {
                self.0 = rest;
                self.space();
                return Ok(());
            }
            if out.len() > LABELS_MAX {
                return Err(SyntaxError("too many labels"));
            }
            let name = if self.0.starts_with('"') { self.quoted()? } else { Cow::Borrowed(self.name()?) };
            self.space();
            if let Some(rest) = self.0.strip_prefix('=') {
                self.0 = rest;
                self.space();
                let value = self.quoted()?;
                out.push((name, value));
            } else {
                out.push((Cow::Borrowed("__name__"), name));
            }
            self.space();
            match self.0.strip_prefix(',') {
                Some(rest) => self.0 = rest,
                None if self.0.starts_with('}') => {}
                None => return Err(SyntaxError("comma missing")),
            }
        }
    }

    fn exemplar(&mut self, dialect: Dialect) -> Result<Exemplar<'a>, SyntaxError> {
        self.0 = self.0.strip_prefix('#').unwrap_or(self.0);
        self.space();
        let mut labels = Vec::new();
        self.labels(&mut labels)?;
        sort(&mut labels)?;
        let value = number(self.word()?)?;
        let t = if self.0.is_empty() { None } else { Some(time(self.word()?, dialect)?) };
        Ok(Exemplar { labels, value, t })
    }
}

/// Appends a sample line: name, labels, value, seconds.
pub fn put_sample<'a>(
    out: &mut String,
    labels: impl Iterator<Item = (&'a str, &'a str)> + Clone,
    value: f64,
    t: i64,
) {
    let name = labels.clone().find(|(name, _)| *name == "__name__").map_or("", |(_, value)| value);
    let is_plain = |text: &str| {
        !text.starts_with(|c: char| c.is_ascii_digit())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b':'))
    };
    let quote = |out: &mut String, text: &str| {
        out.push('"');
        for c in text.chars() {
            match c {
                '\\' => out.push_str("\\\\"),
                '"' => out.push_str("\\\""),
                '\n' => out.push_str("\\n"),
                c => out.push(c),
            }
        }
        out.push('"');
    };
    let name_is_plain = is_plain(name) && !name.is_empty();
    if name_is_plain {
        out.push_str(name);
    }
    let mut separator = '{';
    if !name_is_plain {
        out.push(separator);
        quote(out, name);
        separator = ',';
    }
    for (label, text) in labels.filter(|(label, _)| *label != "__name__") {
        out.push(separator);
        separator = ',';
        if is_plain(label) && !label.contains(':') {
            out.push_str(label)
        } else {
            quote(out, label)
        }
        out.push('=');
        quote(out, text);
    }
    if separator == ',' {
        out.push('}');
    }
    out.push(' ');
    put_number(out, value);
    let (sign, size) = if t < 0 { ("-", t.unsigned_abs()) } else { ("", t.unsigned_abs()) };
    // Writing to a String cannot fail.
    let _ = std::fmt::Write::write_fmt(out, format_args!(" {sign}{}.{:03}\n", size / 1000, size % 1000));
}

/// Appends the shortest number that reads back as the same.
fn put_number(out: &mut String, value: f64) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample(line: &str) -> Sample<'_> {
        match parse_line(line, Dialect::OpenMetrics) {
            Ok(Line::Sample(sample)) => sample,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn samples_are_read() {
        let s = sample(
            r#"http_requests_total{method="post",code="a\"b\\c\nd"} 1.5e3 1700000000.1234 # {trace_id="x"} 0.5 1700000001"#,
        );
        let labels: Vec<_> = s.labels.iter().map(|(n, v)| (n.as_ref(), v.as_ref())).collect();
        assert_eq!(labels, [("__name__", "http_requests_total"), ("code", "a\"b\\c\nd"), ("method", "post")]);
        assert_eq!((s.value, s.t), (1500.0, Some(1_700_000_000_123)));
        assert_eq!(s.exemplar.unwrap().t, Some(1_700_000_001_000));
        assert_eq!(sample(r#"{"a.b", "c d"="e"} +Inf"#).value, f64::INFINITY);
        assert_eq!(sample("a -0.5 -1.5").t, Some(-1500));
        assert_eq!(sample("a{} 1").labels.len(), 1);
        assert_eq!(sample("a{b=\"c\",} 1").labels.len(), 2);
        let text = parse_line("a 1 1700000000123", Dialect::Text);
        assert!(matches!(text, Ok(Line::Sample(Sample { t: Some(1_700_000_000_123), .. }))));
    }

    #[test]
    fn comments_are_read() {
        let line = |text| parse_line(text, Dialect::OpenMetrics).unwrap();
        assert_eq!(line("# TYPE a counter"), Line::Type("a".into(), "counter"));
        assert_eq!(line("# HELP a b\\nc"), Line::Help("a".into(), "b\nc".into()));
        assert_eq!(line("# UNIT a_seconds seconds"), Line::Unit("a_seconds".into(), "seconds"));
        assert_eq!(line("# EOF"), Line::Eof);
        assert_eq!(line("# anything"), Line::Nothing);
    }

    #[test]
    fn what_is_no_line_is_refused() {
        for bad in [
            "a",
            "a{",
            "a{b} x",
            "a{b=c} 1",
            "a{b=\"c} 1",
            "1a 2",
            "a 1 x",
            "a 1 2 3",
            "{b=\"c\"} 1",
            "a{b=\"1\",b=\"2\"} 1",
            "a 0x1p3",
            "a 1 # {",
            "a inFinity",
        ] {
            assert!(parse_line(bad, Dialect::OpenMetrics).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(name in "[a-zA-Z_:][a-zA-Z0-9_:]{0,8}|\\PC{1,8}", values in prop::collection::btree_map("[a-z]{1,4}|\\PC{1,5}", "\\PC{0,8}|[\\\\\"\n]{1,4}", 0..4), bits in any::<u64>(), t in -10_000_000_000_000i64..10_000_000_000_000) {
            let value = f64::from_bits(bits);
            let mut labels: Vec<(String, String)> = values.into_iter().filter(|(n, _)| n != "__name__").collect();
            labels.push(("__name__".into(), name));
            labels.sort();
            let mut out = String::new();
            put_sample(&mut out, labels.iter().map(|(n, v)| (n.as_str(), v.as_str())), value, t);
            let read = sample(out.trim_end_matches('\n'));
            let got: Vec<(String, String)> = read.labels.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
            prop_assert_eq!(got, labels);
            prop_assert!(read.value.to_bits() == value.to_bits() || (value.is_nan() && read.value.is_nan()));
            prop_assert_eq!(read.t, Some(t));
        }

        #[test]
        fn any_bytes_are_a_line_or_an_error(line in "\\PC{0,60}|[a-z{}=\",# \\\\0-9.]{0,40}") {
            let _ = parse_line(&line, Dialect::OpenMetrics);
            let _ = parse_line(&line, Dialect::Text);
        }
    }
}
