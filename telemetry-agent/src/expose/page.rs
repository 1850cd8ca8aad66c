//! Writes a snapshot as a page, family by family.
//!
//! A page carries no timestamps: the scraper's own are better than ours, and with ours Prometheus would not mark a
//! series stale when it goes.

use telemetry_model::clock::Timestamp;
use telemetry_model::{Desc, Family, Histogram, Kind, Labels, Layout, Series, Snapshot, Value};

use super::number;

/// Bytes a line takes with the labels of an owner: 150 on a node with three signal families.
const LINE_LEN_GUESS: usize = 160;

/// How a format spells what the two have in common.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    Text,
    OpenMetrics,
}

/// Writes the series of one family.
struct Writer<'a> {
    out: &'a mut Vec<u8>,
    dialect: Dialect,
    /// The labels of the series at hand, escaped, without braces.
    labels: Vec<u8>,
    /// The `le` values of the family at hand, ready to print, and the layout they belong to.
    bounds: Option<(&'static Layout, Vec<Box<[u8]>>)>,
}

/// Appends the page of a snapshot.
pub(super) fn write(snapshot: &Snapshot, dialect: Dialect, out: &mut Vec<u8>) {
    out.reserve(snapshot.series_count() * LINE_LEN_GUESS);
    let mut writer = Writer { out, dialect, labels: Vec::new(), bounds: None };
    for family in &snapshot.families {
        writer.family(family);
    }
    if dialect == Dialect::OpenMetrics {
        writer.out.extend_from_slice(b"# EOF\n");
    }
}

// === impl Writer ===

impl Writer<'_> {
    fn family(&mut self, family: &Family) {
        self.metadata(family.desc);
        for series in &family.series {
            self.labels.clear();
            push_labels(&series.labels, &mut self.labels);
            match (&series.value, family.desc.kind) {
                (Value::Number(value), Kind::Counter | Kind::Gauge | Kind::Info) => {
                    self.number(family.desc, series, *value);
                }
                (Value::Histogram(histogram), Kind::Histogram) => {
                    self.histogram(family.desc, series, histogram)
                }
                (Value::Number(_), Kind::Histogram) | (Value::Histogram(_), _) => {
                    debug_assert!(false, "a value of {} is not of the family's kind", family.desc.name);
                }
            }
        }
    }

    fn metadata(&mut self, desc: &Desc) {
        let name = self.declared_name(desc);
        self.extend(&[b"# HELP ", name.as_bytes(), b" "]);
        match self.dialect {
            Dialect::Text => push_escaped(desc.help, Quotes::Plain, self.out),
            Dialect::OpenMetrics => push_escaped(desc.help, Quotes::Escaped, self.out),
        }
        let kind = match (desc.kind, self.dialect) {
            (Kind::Counter, _) => "counter",
            (Kind::Gauge, _) | (Kind::Info, Dialect::Text) => "gauge",
            (Kind::Info, Dialect::OpenMetrics) => "info",
            (Kind::Histogram, _) => "histogram",
        };
        self.extend(&[b"\n# TYPE ", name.as_bytes(), b" ", kind.as_bytes(), b"\n"]);
        // OpenMetrics wants a unit to be the name's last word.
        let unit = desc.unit.word();
        let ends_in_unit = name.strip_suffix(unit).is_some_and(|rest| rest.ends_with('_'));
        if self.dialect == Dialect::OpenMetrics && !unit.is_empty() && ends_in_unit {
            self.extend(&[b"# UNIT ", name.as_bytes(), b" ", unit.as_bytes(), b"\n"]);
        }
    }

    /// The name that metadata is about.
    fn declared_name(&self, desc: &Desc) -> &'static str {
        match self.dialect {
            Dialect::Text => desc.name,
            Dialect::OpenMetrics => desc.family_name(),
        }
    }

    fn number(&mut self, desc: &Desc, series: &Series, value: f64) {
        match (self.dialect, desc.kind) {
            (Dialect::OpenMetrics, Kind::Counter) => self.sample_name(desc.family_name(), "_total"),
            (Dialect::OpenMetrics, Kind::Info) => self.sample_name(desc.family_name(), "_info"),
            _ => self.sample_name(desc.name, ""),
        }
        self.close_labels();
        self.float(value);
        if desc.kind == Kind::Counter {
            self.created(desc, series.created);
        }
    }

    fn histogram(&mut self, desc: &Desc, series: &Series, histogram: &Histogram) {
        let bounds = self.bounds_of(histogram);
        for (bucket, bound) in histogram.classic().zip(&bounds) {
            self.sample_name(desc.name, "_bucket");
            let separator: &[u8] = if self.labels.is_empty() { b"{" } else { b"," };
            self.extend(&[separator, b"le=\"", bound, b"\"} "]);
            self.count(bucket.cumulative);
        }
        self.bounds = Some((histogram.layout(), bounds));
        self.sample_name(desc.name, "_sum");
        self.close_labels();
        self.float(histogram.sum());
        self.sample_name(desc.name, "_count");
        self.close_labels();
        self.count(histogram.count());
        self.created(desc, series.created);
    }

    /// Bounds are printed once for all series of a layout: printing floats is what a page costs most.
    fn bounds_of(&mut self, histogram: &Histogram) -> Vec<Box<[u8]>> {
        if let Some((layout, bounds)) = self.bounds.take()
            && std::ptr::eq(layout, histogram.layout())
        {
            return bounds;
        }
        let mut bounds = Vec::new();
        for bucket in histogram.classic() {
            let mut bound = Vec::new();
            match self.dialect {
                Dialect::Text => number::push(bucket.le, &mut bound),
                Dialect::OpenMetrics => number::push_float(bucket.le, &mut bound),
            }
            bounds.push(bound.into());
        }
        bounds
    }

    /// When the series began, which only OpenMetrics has a line for.
    fn created(&mut self, desc: &Desc, created: Option<Timestamp>) {
        if let (Dialect::OpenMetrics, Some(created)) = (self.dialect, created) {
            self.sample_name(desc.family_name(), "_created");
            self.close_labels();
            self.float(created.seconds());
        }
    }

    /// Name and labels; the brace stays open.
    fn sample_name(&mut self, name: &str, suffix: &str) {
        self.extend(&[name.as_bytes(), suffix.as_bytes()]);
        if !self.labels.is_empty() {
            self.out.push(b'{');
            self.out.extend_from_slice(&self.labels);
        }
    }

    fn close_labels(&mut self) {
        self.out.extend_from_slice(if self.labels.is_empty() { b" " } else { b"} " });
    }

    fn float(&mut self, value: f64) {
        match self.dialect {
            Dialect::Text => number::push(value, self.out),
            Dialect::OpenMetrics => number::push_float(value, self.out),
        }
        self.out.push(b'\n');
    }

    /// A number of observations: an integer in OpenMetrics, a float like any other in the text format.
    fn count(&mut self, count: u64) {
        match self.dialect {
            Dialect::Text => number::push(telemetry_model::float(count), self.out),
            Dialect::OpenMetrics => number::push_count(count, self.out),
        }
        self.out.push(b'\n');
    }

    fn extend(&mut self, parts: &[&[u8]]) {
        for part in parts {
            self.out.extend_from_slice(part);
        }
    }
}

/// What becomes of a quotation mark: help lines of the text format keep it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Quotes {
    Plain,
    Escaped,
}

fn push_labels(labels: &Labels, out: &mut Vec<u8>) {
    for label in labels {
        if !out.is_empty() {
            out.push(b',');
        }
        out.extend_from_slice(label.name.as_bytes());
        out.extend_from_slice(b"=\"");
        push_escaped(&label.value, Quotes::Escaped, out);
        out.push(b'"');
    }
}

fn push_escaped(text: &str, quotes: Quotes, out: &mut Vec<u8>) {
    for byte in text.bytes() {
        match byte {
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'"' if quotes == Quotes::Escaped => out.extend_from_slice(b"\\\""),
            _ => out.push(byte),
        }
    }
}
