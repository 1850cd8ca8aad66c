//! Native histograms as samples: sparse buckets, exponential or with bounds of their own.
//!
//! What the store keeps, the query language computes with and the wire formats carry. Counts are floats: integers stay
//! exact to 2^53, and what a query makes of histograms need not be whole.

use std::sync::Arc;

/// The schema whose buckets have the bounds that [`NativeHistogram::custom_bounds`] names.
pub const CUSTOM_SCHEMA: i8 = -53;
/// The coarsest exponential schema: each bucket is 2^16 times as wide as the one before.
pub const SCHEMA_MIN: i8 = -4;
/// The finest exponential schema: 256 buckets a power of two.
pub const SCHEMA_MAX: i8 = 8;

/// One sample of a native histogram.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NativeHistogram {
    /// [`SCHEMA_MIN`]..=[`SCHEMA_MAX`], or [`CUSTOM_SCHEMA`].
    pub schema: i8,
    /// What is known about resets since the sample before.
    pub reset: ResetHint,
    /// Observations of at most this size lie in the zero bucket.
    pub zero_threshold: f64,
    /// Observations in the zero bucket.
    pub zero_count: f64,
    /// All observations, NaN among them.
    pub count: f64,
    /// Sum of all observations.
    pub sum: f64,
    /// Positive buckets. With custom bounds: bucket i is `(bound[i-1], bound[i]]`.
    pub positive: Buckets,
    /// Negative buckets; none with custom bounds.
    pub negative: Buckets,
    /// Upper bounds of custom buckets, growing, without +Inf; empty for exponential schemas.
    pub custom_bounds: Option<Arc<[f64]>>,
}

/// Sparse buckets: `counts[k]` observations in the bucket of index `indexes[k]`. Exponential bucket i of schema s is
/// `(2^((i-1)·2^-s), 2^(i·2^-s)]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Buckets {
    /// Strictly growing.
    pub indexes: Vec<i32>,
    /// As many as indexes.
    pub counts: Vec<f64>,
}

/// What the producer says about counter resets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ResetHint {
    /// Nobody said: compare.
    #[default]
    Unknown,
    /// This sample begins a new count.
    Reset,
    /// It goes on from the sample before.
    NotReset,
    /// Not a counter: buckets may fall.
    Gauge,
}

// === impl NativeHistogram ===

impl NativeHistogram {
    /// Whether the buckets have bounds of their own.
    #[must_use]
    pub fn has_custom_bounds(&self) -> bool {
        self.schema == CUSTOM_SCHEMA
    }
}

// === impl Buckets ===

impl Buckets {
    /// Pairs of index and count.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (i32, f64)> + '_ {
        self.indexes.iter().copied().zip(self.counts.iter().copied())
    }

    /// Whether there is no bucket.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.indexes.is_empty()
    }

    /// How many buckets are stored.
    #[must_use]
    pub fn len(&self) -> usize {
        self.indexes.len()
    }
}

impl FromIterator<(i32, f64)> for Buckets {
    /// The pairs must come in strictly growing order of their indexes.
    fn from_iter<I: IntoIterator<Item = (i32, f64)>>(pairs: I) -> Self {
        let (indexes, counts): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
        debug_assert!(indexes.is_sorted_by(|a, b| a < b), "bucket indexes grow");
        Self { indexes, counts }
    }
}
