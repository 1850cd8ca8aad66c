//! Warnings and infos that come with an answer, in Prometheus' words.
//!
//! Each is a kind, a position in the query and, for two kinds, figures that are merged when the same text comes again.
//! They are told apart by their text without position, as upstream does: kinds are equal when their texts are.

use std::collections::BTreeMap;

use crate::text::{general, quoted};

/// Most warnings, and most infos, in an answer; what is left out is counted.
pub const SHOWN_MAX: usize = 10;

/// A histogram operation that may need a remark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// `+`
    Addition,
    /// `-`
    Subtraction,
    /// `sum`, `avg` and their siblings over time.
    Aggregation,
}

/// What there is to say. Metric names may be empty where upstream leaves them out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "each variant's text is below; a second wording would only drift")]
pub enum Kind {
    InvalidRatio { got: Bits, to: Bits },
    InvalidQuantile(Bits),
    BadBucketLabel { metric: String, label: String },
    MixedFloatsHistograms(String),
    MixedFloatsHistogramsAggregation,
    MixedClassicNative(String),
    NotCounter(String),
    NotGauge(String),
    MixedExponentialCustom(String),
    IncompatibleBucketLayout(&'static str),
    SortInRangeQuery,
    CounterResetCollision(Operation),
    StartTimeOverlap(String),
    PossibleNonCounter(String),
    PossibleNonCounterLabel { metric: String, label: String },
    ForcedMonotonicity(String),
    IncompatibleTypes { left: &'static str, operator: &'static str, right: &'static str },
    HistogramIgnoredInAggregation(&'static str),
    HistogramIgnoredInMixedRange(String),
    QuantileNanResult(String),
    QuantileNanSkew(String),
    FractionNan(String),
    MismatchedCustomBuckets(Operation),
}

/// A number as a key: equal if its bits are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bits(u64);

/// Figures of the kinds that carry some.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Detail {
    /// None.
    Plain,
    /// Buckets that had to be made monotonic.
    Forced {
        /// First evaluation time, milliseconds.
        min_t: i64,
        /// Last evaluation time, milliseconds.
        max_t: i64,
        /// Lowest bound of a bucket that was changed.
        min_bucket: f64,
        /// Highest bound of a bucket that was changed.
        max_bucket: f64,
        /// Largest change.
        max_diff: f64,
        /// Times that it came again.
        count: u64,
    },
    /// Start times that overlap.
    Overlap {
        /// How many series' windows.
        count: u64,
    },
}

/// Remarks of one query.
#[derive(Clone, Debug, Default)]
pub struct Annotations {
    entries: BTreeMap<Kind, (usize, Detail)>,
}

// === impl Bits ===

impl From<f64> for Bits {
    fn from(value: f64) -> Self {
        // All NaNs print alike.
        Self(if value.is_nan() { f64::NAN.to_bits() } else { value.to_bits() })
    }
}

// === impl Operation ===

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Self::Addition => "addition",
            Self::Subtraction => "subtraction",
            Self::Aggregation => "aggregation",
        }
    }
}

// === impl Kind ===

impl Kind {
    /// Whether it is an info and not a warning.
    #[must_use]
    pub fn is_info(&self) -> bool {
        matches!(
            self,
            Self::PossibleNonCounter(_)
                | Self::PossibleNonCounterLabel { .. }
                | Self::ForcedMonotonicity(_)
                | Self::IncompatibleTypes { .. }
                | Self::HistogramIgnoredInAggregation(_)
                | Self::HistogramIgnoredInMixedRange(_)
                | Self::QuantileNanResult(_)
                | Self::QuantileNanSkew(_)
                | Self::FractionNan(_)
                | Self::MismatchedCustomBuckets(_)
        )
    }

    /// The text without position.
    #[must_use]
    pub fn text(&self) -> String {
        let level = if self.is_info() { "PromQL info" } else { "PromQL warning" };
        format!("{level}: {}", self.message())
    }

    fn message(&self) -> String {
        match self {
            Self::InvalidRatio { got, to } => format!(
                "ratio value should be between -1 and 1, got {}, capping to {}",
                general(f64::from_bits(got.0)),
                general(f64::from_bits(to.0))
            ),
            Self::InvalidQuantile(got) => {
                format!("quantile value should be between 0 and 1, got {}", general(f64::from_bits(got.0)))
            }
            Self::BadBucketLabel { metric, label } => named(
                format!("bucket label \"le\" is missing or has a malformed value of {}", quoted(label)),
                metric,
            ),
            Self::MixedFloatsHistograms(metric) => {
                format!("encountered a mix of histograms and floats for metric name {}", quoted(metric))
            }
            Self::MixedFloatsHistogramsAggregation => {
                "encountered a mix of histograms and floats for aggregation".into()
            }
            Self::MixedClassicNative(metric) => {
                named("vector contains a mix of classic and native histograms".into(), metric)
            }
            Self::NotCounter(metric) => {
                format!("this native histogram metric is not a counter: {}", quoted(metric))
            }
            Self::NotGauge(metric) => {
                format!("this native histogram metric is not a gauge: {}", quoted(metric))
            }
            Self::MixedExponentialCustom(metric) => format!(
                "vector contains a mix of histograms with exponential and custom buckets schemas for metric name {}",
                quoted(metric)
            ),
            Self::IncompatibleBucketLayout(operator) => {
                format!("incompatible bucket layout encountered for binary operator {operator}")
            }
            Self::SortInRangeQuery => {
                "sort is ineffective for range queries since results are always ordered by labels".into()
            }
            Self::CounterResetCollision(operation) => {
                format!("conflicting counter resets during histogram {}", operation.name())
            }
            Self::StartTimeOverlap(metric) => format!(
                "sample has start time that overlaps with previous sample timestamp for metric {}",
                quoted(metric)
            ),
            other => other.info(),
        }
    }

    fn info(&self) -> String {
        match self {
            Self::PossibleNonCounter(metric) => format!(
                "metric might not be a counter, name does not end in _total/_sum/_count/_bucket: {}",
                quoted(metric)
            ),
            Self::PossibleNonCounterLabel { metric, label } => format!(
                "metric might not be a counter, __type__ label is not set to \"counter\" or \"histogram\", got {}: {}",
                quoted(label),
                quoted(metric)
            ),
            Self::ForcedMonotonicity(metric) => named(
                "input to histogram_quantile needed to be fixed for monotonicity (see \
                 https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile)"
                    .into(),
                metric,
            ),
            Self::IncompatibleTypes { left, operator, right } => format!(
                "incompatible sample types encountered for binary operator {}: {left} {operator} {right}",
                quoted(operator)
            ),
            Self::HistogramIgnoredInAggregation(name) => {
                format!("ignored histogram in {name} aggregation")
            }
            Self::HistogramIgnoredInMixedRange(metric) => format!(
                "ignored histograms in a range containing both floats and histograms for metric name {}",
                quoted(metric)
            ),
            Self::QuantileNanResult(metric) => {
                named("input to histogram_quantile has NaN observations, result is NaN".into(), metric)
            }
            Self::QuantileNanSkew(metric) => named(
                "input to histogram_quantile has NaN observations, result is skewed higher".into(),
                metric,
            ),
            Self::FractionNan(metric) => named(
                "input to histogram_fraction has NaN observations, which are excluded from all fractions"
                    .into(),
                metric,
            ),
            Self::MismatchedCustomBuckets(operation) => {
                format!("mismatched custom buckets were reconciled during {}", operation.name())
            }
            _ => String::new(),
        }
    }
}

fn named(text: String, metric: &str) -> String {
    if metric.is_empty() { text } else { format!("{text} for metric name {}", quoted(metric)) }
}

// === impl Detail ===

impl Detail {
    fn merge(self, old: Self) -> Self {
        match (self, old) {
            (
                Self::Forced { min_t, max_t, min_bucket, max_bucket, max_diff, count },
                Self::Forced {
                    min_t: old_min_t,
                    max_t: old_max_t,
                    min_bucket: old_min_bucket,
                    max_bucket: old_max_bucket,
                    max_diff: old_max_diff,
                    count: old_count,
                },
            ) => Self::Forced {
                min_t: min_t.min(old_min_t),
                max_t: max_t.max(old_max_t),
                min_bucket: min_bucket.min(old_min_bucket),
                max_bucket: max_bucket.max(old_max_bucket),
                max_diff: max_diff.max(old_max_diff),
                count: count.saturating_add(old_count).saturating_add(1),
            },
            (Self::Overlap { count }, Self::Overlap { count: old }) => {
                Self::Overlap { count: count.saturating_add(old) }
            }
            (new, _) => new,
        }
    }

    fn text(self) -> String {
        match self {
            Self::Plain | Self::Overlap { count: 0 | 1 } => String::new(),
            Self::Overlap { count } => format!(" ({count} occurrences)"),
            Self::Forced { min_t, max_t, min_bucket, max_bucket, max_diff, count } => format!(
                ", from buckets {} to {}, with a max diff of {}, over {} samples from {} to {}",
                general(min_bucket),
                general(max_bucket),
                two_digits(max_diff),
                count.saturating_add(1),
                rfc3339(min_t),
                rfc3339(max_t)
            ),
        }
    }
}

/// Two significant digits, Go's `%.2g`.
fn two_digits(value: f64) -> String {
    let rounded = format!("{value:.1e}").parse().unwrap_or(value);
    let exponent = if rounded == 0.0 { 0.0 } else { f64::abs(rounded).log10().floor() };
    if (-4.0..2.0).contains(&exponent) {
        return crate::text::plain(rounded);
    }
    let text = format!("{rounded:e}");
    let Some((digits, power)) = text.split_once('e') else { return text };
    let power: i32 = power.parse().unwrap_or(0);
    format!("{digits}e{}{:02}", if power < 0 { '-' } else { '+' }, power.unsigned_abs())
}

/// A time in whole seconds, UTC.
fn rfc3339(t: i64) -> String {
    let date = crate::eval::dates::Date::of(t.div_euclid(1000));
    let (hour, minute, second) = date.clock();
    format!("{:04}-{:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z", date.year, date.month, date.day)
}

// === impl Annotations ===

impl Annotations {
    /// Adds a remark about what begins at the byte `position` of the query. Of two with one text the later stays.
    pub fn add(&mut self, kind: Kind, position: usize) {
        self.add_detail(kind, position, Detail::Plain);
    }

    /// Adds a remark with figures, which are merged with those of a remark of the same text.
    pub fn add_detail(&mut self, kind: Kind, position: usize, detail: Detail) {
        let entry = self.entries.entry(kind).or_insert((position, Detail::Plain));
        *entry = (position, detail.merge(entry.1));
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: Self) {
        for (kind, (position, detail)) in other.entries {
            self.add_detail(kind, position, detail);
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Warnings and infos with their positions in `query`.
    #[must_use]
    pub fn texts(&self, query: &str) -> (Vec<String>, Vec<String>) {
        let (mut warnings, mut infos) = (Vec::new(), Vec::new());
        let (mut more_warnings, mut more_infos) = (0_usize, 0_usize);
        for (kind, (position, detail)) in &self.entries {
            let (list, more) = match kind.is_info() {
                true => (&mut infos, &mut more_infos),
                false => (&mut warnings, &mut more_warnings),
            };
            if list.len() < SHOWN_MAX {
                list.push(format!("{}{} ({})", kind.text(), detail.text(), place(query, *position)));
            } else {
                *more += 1;
            }
        }
        if more_warnings > 0 {
            warnings.push(format!("{more_warnings} more warning annotations omitted"));
        }
        if more_infos > 0 {
            infos.push(format!("{more_infos} more info annotations omitted"));
        }
        (warnings, infos)
    }
}

/// Line and column of a byte, both from one.
fn place(query: &str, position: usize) -> String {
    let Some(before) = query.as_bytes().get(..position) else { return "invalid position".into() };
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let column = before.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
    format!("{line}:{column}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_carry_positions_and_come_once() {
        let mut all = Annotations::default();
        all.add(Kind::InvalidQuantile(2.5.into()), 3);
        all.add(Kind::InvalidQuantile(2.5.into()), 9);
        all.add(Kind::PossibleNonCounter("up".into()), 0);
        let (warnings, infos) = all.texts("rate(\nup)");
        assert_eq!(warnings, ["PromQL warning: quantile value should be between 0 and 1, got 2.5 (2:4)"]);
        assert_eq!(
            infos,
            [
                "PromQL info: metric might not be a counter, name does not end in _total/_sum/_count/_bucket: \"up\" (1:1)"
            ]
        );
    }

    #[test]
    fn figures_are_merged_and_the_eleventh_is_counted() {
        let mut all = Annotations::default();
        for t in [120_000, 60_000] {
            let detail = Detail::Forced {
                min_t: t,
                max_t: t,
                min_bucket: 1.0,
                max_bucket: 2.0,
                max_diff: 0.123,
                count: 0,
            };
            all.add_detail(Kind::ForcedMonotonicity(String::new()), 0, detail);
        }
        let (_, infos) = all.texts("x");
        let expected = ", from buckets 1 to 2, with a max diff of 0.12, over 2 samples from \
                        1970-01-01T00:01:00Z to 1970-01-01T00:02:00Z (1:1)";
        assert!(infos[0].ends_with(expected), "{infos:?}");
        for at in 0..12 {
            all.add(Kind::NotGauge(at.to_string()), 0);
        }
        let (warnings, _) = all.texts("x");
        assert_eq!((warnings.len(), warnings[10].as_str()), (11, "2 more warning annotations omitted"));
    }
}
