//! OpenMetrics 1.0 and Prometheus text 0.0.4: lines read ([`mod@line`]), what lines mean together ([`check`]), lines
//! written ([`mod@write`]).
//!
//! OpenMetrics is read strictly: what its specification forbids is an error with its line's number. Two things are
//! taken beyond it, because stores are full of them: names in quotes (`{"a.b"}`), and several samples of one series,
//! in the order of time. Text 0.0.4 is read as Prometheus does: any white space, any comment. Lines, labels, families
//! and groups are bounded. Knows no store; called by [`super::import`] and [`super::export`].

pub mod check;
pub mod line;
pub mod write;

#[cfg(test)]
mod tests;

use std::borrow::Cow;

/// The longest line.
pub const LINE_BYTES_MAX: usize = 1 << 20;
/// Labels of one sample.
pub const LABELS_MAX: usize = 128;
/// Characters that an exemplar's labels may have together, as OpenMetrics says.
pub const EXEMPLAR_CHARS_MAX: usize = 128;

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SyntaxError(pub &'static str);

/// Which of the two formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// OpenMetrics 1.0: timestamps in seconds, `# EOF` at the end.
    OpenMetrics,
    /// Prometheus text 0.0.4: timestamps in milliseconds.
    Text,
}

/// A line.
#[derive(Clone, Debug, PartialEq)]
pub enum Line<'a> {
    /// A sample.
    Sample(Sample<'a>),
    /// `# TYPE family kind`
    Type(Cow<'a, str>, Kind),
    /// `# UNIT family unit`
    Unit(Cow<'a, str>, &'a str),
    /// `# HELP family text`
    Help(Cow<'a, str>, Cow<'a, str>),
    /// `# EOF`
    Eof,
    /// An empty line or a comment of text 0.0.4.
    Nothing,
}

/// What a family is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// Not said, or `untyped`.
    #[default]
    Unknown,
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Cumulative buckets.
    Histogram,
    /// Buckets that may fall.
    GaugeHistogram,
    /// One of several states.
    StateSet,
    /// Facts in labels.
    Info,
    /// Quantiles, count and sum.
    Summary,
}

/// A name or a value of a label, borrowed from its line where it has no escape.
pub type Pair<'a> = (Cow<'a, str>, Cow<'a, str>);

/// One sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample<'a> {
    /// All labels, `__name__` among them, in the order of their names.
    pub labels: Vec<Pair<'a>>,
    /// The value.
    pub value: f64,
    /// When, if it says.
    pub t: Option<Time>,
    /// Its exemplar.
    pub exemplar: Option<Exemplar<'a>>,
}

/// What stands behind a sample's `#`.
#[derive(Clone, Debug, PartialEq)]
pub struct Exemplar<'a> {
    /// Its labels.
    pub labels: Vec<Pair<'a>>,
    /// Its value.
    pub value: f64,
    /// When, if it says.
    pub t: Option<Time>,
}

/// Nanoseconds since 1970, exact as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub i128);

// === impl Time ===

impl Time {
    /// In the milliseconds that stores keep; what is finer is cut off. `None` before year 1 and after year 9999.
    #[must_use]
    pub fn millis(self) -> Option<i64> {
        const YEAR_1: i64 = -62_135_596_800_000;
        const YEAR_10000: i64 = 253_402_300_800_000;
        i64::try_from(self.0 / 1_000_000).ok().filter(|t| (YEAR_1..YEAR_10000).contains(t))
    }
}

// === impl Kind ===

impl Kind {
    /// By the word of a `# TYPE` line.
    #[must_use]
    pub fn of(word: &str, dialect: Dialect) -> Option<Self> {
        Some(match (word, dialect) {
            ("counter", _) => Self::Counter,
            ("gauge", _) => Self::Gauge,
            ("histogram", _) => Self::Histogram,
            ("summary", _) => Self::Summary,
            ("gaugehistogram", Dialect::OpenMetrics) => Self::GaugeHistogram,
            ("stateset", Dialect::OpenMetrics) => Self::StateSet,
            ("info", Dialect::OpenMetrics) => Self::Info,
            ("unknown", Dialect::OpenMetrics) | ("untyped", Dialect::Text) => Self::Unknown,
            _ => return None,
        })
    }

    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::GaugeHistogram => "gaugehistogram",
            Self::StateSet => "stateset",
            Self::Info => "info",
            Self::Summary => "summary",
        }
    }

    /// What may follow the family's name in the name of a sample.
    #[must_use]
    pub fn suffixes(self) -> &'static [&'static str] {
        match self {
            Self::Counter => &["_total", "_created"],
            Self::Histogram => &["_bucket", "_count", "_sum", "_created"],
            Self::GaugeHistogram => &["_bucket", "_gcount", "_gsum"],
            Self::Info => &["_info"],
            Self::Summary => &["", "_count", "_sum", "_created"],
            Self::Unknown | Self::Gauge | Self::StateSet => &[""],
        }
    }
}
