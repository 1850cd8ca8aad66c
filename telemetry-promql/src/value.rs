//! What a query answers: values, and what came with them.

use std::sync::Arc;

use telemetry_model::NativeHistogram;

use crate::eval::Distribution as _;
use crate::labels::Labels;

/// The answer to a query.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The value.
    pub value: Value,
    /// Warnings as text with positions, none twice; at most ten, then a line that says how many more.
    pub warnings: Vec<String>,
    /// Infos, likewise.
    pub infos: Vec<String>,
    /// What it took.
    pub stats: Stats,
}

/// The value of an expression.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// One number.
    Scalar {
        /// Evaluation time, milliseconds.
        t: i64,
        /// The number.
        value: f64,
    },
    /// A text.
    String {
        /// Evaluation time, milliseconds.
        t: i64,
        /// The text.
        value: String,
    },
    /// One sample of each series, in the order of evaluation (`sort` and `topk` order it).
    Vector(Vec<Sample>),
    /// Samples over time, sorted by labels.
    Matrix(Vec<Series>),
}

/// One value at one time.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// A number.
    Float(f64),
    /// A native histogram.
    Histogram(Arc<NativeHistogram>),
}

/// A series' value at the evaluation time.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The series.
    pub labels: Labels,
    /// Evaluation time, milliseconds.
    pub t: i64,
    /// Its value.
    pub cell: Cell,
}

/// A series over time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Series {
    /// The series.
    pub labels: Labels,
    /// Its numbers, times growing.
    pub floats: Vec<(i64, f64)>,
    /// Its native histograms, times growing; none at the time of a number.
    pub histograms: Vec<(i64, Arc<NativeHistogram>)>,
}

/// A bucket of a native histogram.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bucket {
    /// Where it begins.
    pub lower: f64,
    /// Where it ends.
    pub upper: f64,
    /// Whether an observation of exactly `lower` is in it.
    pub has_lower: bool,
    /// Whether an observation of exactly `upper` is in it.
    pub has_upper: bool,
    /// Observations.
    pub count: f64,
}

/// The buckets of a native histogram from the lowest to the highest, empty ones among them where they are stored.
#[must_use]
pub fn buckets(histogram: &NativeHistogram) -> Vec<Bucket> {
    let bars = histogram.bars().into_iter();
    bars.map(|bar| {
        let (has_lower, has_upper) = bar.has_bounds(histogram);
        Bucket { lower: bar.lower, upper: bar.upper, has_lower, has_upper, count: bar.count }
    })
    .collect()
}

/// What a query took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Samples looked at: a range's samples count once for each step.
    pub samples_total: u64,
    /// Samples read from the source.
    pub samples_read: u64,
    /// Most samples that were held at once, intermediate ones included.
    pub samples_peak: u64,
    /// Series read from the source.
    pub series_read: u64,
}

// === impl Value ===

impl Value {
    /// The type's name as the API says it.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Scalar { .. } => "scalar",
            Self::String { .. } => "string",
            Self::Vector(_) => "vector",
            Self::Matrix(_) => "matrix",
        }
    }
}
