//! Where series come from. The engine knows this trait and no store.
//!
//! A selection is a moment of the store; its series are read one by one, each by the thread that computes with it, so
//! that a query over ten thousand series never holds their samples at once.

use std::sync::Arc;

use telemetry_model::{Matcher, NativeHistogram};

use crate::budget::Budget;
use crate::error::QueryError;
use crate::labels::Labels;

/// What a selector asks for.
#[derive(Clone, Debug)]
pub struct Select<'a> {
    /// All must match. The metric's name is among them.
    pub matchers: &'a [Matcher],
    /// First millisecond of interest.
    pub from: i64,
    /// Last millisecond of interest, included.
    pub to: i64,
    /// What is computed from it, so that a source may read less.
    pub hints: Hints<'a>,
}

/// What is computed from a selection.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hints<'a> {
    /// Milliseconds between steps; 0 if there is one step.
    pub step: i64,
    /// Milliseconds of the range selector's window; 0 for an instant selector.
    pub window: i64,
    /// How far before a step samples count, milliseconds: the window, or how far an instant selector looks back.
    pub before: i64,
    /// The function or aggregation right above the selector; empty if there is none.
    pub function: &'a str,
    /// The labels that the aggregation above keeps (`by`) or drops (`without`).
    pub grouping: Option<(&'a [String], Grouping)>,
    /// Whether start timestamps are wanted.
    pub starts: bool,
}

/// Which way labels group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grouping {
    /// Only the named labels stay.
    By,
    /// All but the named labels stay.
    Without,
}

/// Where series come from.
pub trait Source: Sync {
    /// The series that match and may have samples in the range. Asks the budget between expressions that it compiles, and
    /// before it holds much for itself.
    ///
    /// # Errors
    /// If a matcher is malformed, a limit is met or the store fails.
    fn select<'s>(
        &'s self,
        request: &Select<'_>,
        budget: &Budget,
    ) -> Result<Box<dyn Selection + 's>, SourceError>;

    /// Names of labels of the series that match, sorted.
    ///
    /// # Errors
    /// As [`Source::select`].
    fn label_names(&self, matchers: &[Matcher], from: i64, to: i64) -> Result<Vec<Arc<str>>, SourceError>;

    /// Values of one label of the series that match, sorted.
    ///
    /// # Errors
    /// As [`Source::select`].
    fn label_values(
        &self,
        name: &str,
        matchers: &[Matcher],
        from: i64,
        to: i64,
    ) -> Result<Vec<Arc<str>>, SourceError>;

    /// Exemplars of the series that any of the selectors wants. A source without exemplars has none.
    ///
    /// # Errors
    /// As [`Source::select`].
    fn exemplars(
        &self,
        selectors: &[&[Matcher]],
        from: i64,
        to: i64,
    ) -> Result<Vec<ExemplarSeries>, SourceError> {
        let _ = (selectors, from, to);
        Ok(Vec::new())
    }
}

/// Series that were found.
pub trait Selection: Sync {
    /// Their label sets, in the order of the labels; none twice.
    fn series(&self) -> &[Labels];

    /// A reader of them, for one thread.
    fn reader(&self) -> Box<dyn Reader + '_>;

    /// Whether values are how many samples they stand for, so that `count_over_time` must add them up. Only a source
    /// that was asked for it by this function may say so.
    fn are_counts(&self) -> bool {
        false
    }
}

/// Reads series of a selection.
pub trait Reader {
    /// Samples of the series at this place, within the selection's range.
    ///
    /// # Errors
    /// If the store fails: no answer rather than a wrong one.
    fn read(&mut self, at: usize) -> Result<Column, SourceError>;
}

/// A series' samples in the order of time. Stale markers are values.
#[derive(Clone, Debug, Default)]
pub struct Column {
    /// Strictly growing milliseconds. Series that were collected together share the allocation.
    pub times: Arc<[i64]>,
    /// As many; what stands at a histogram means nothing.
    pub values: Vec<f64>,
    /// Histogram samples: position and value, growing. A stale marker of a histogram is its sum.
    pub histograms: Vec<(u32, Arc<NativeHistogram>)>,
    /// When each sample's count began, milliseconds, 0 where nobody said; `None` if nobody ever did.
    pub starts: Option<Vec<i64>>,
}

// === impl Column ===

impl Column {
    /// Bytes of memory, about; histograms that a source has, too, are not counted.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let histograms = self.histograms.iter().map(|(_, histogram)| {
            let is_own = Arc::strong_count(histogram) == 1;
            size_of::<(u32, Arc<NativeHistogram>)>()
                + if is_own { crate::eval::histogram_bytes(histogram) } else { 0 }
        });
        self.times.len() * 16
            + self.starts.as_ref().map_or(0, |starts| starts.len() * 8)
            + histograms.sum::<usize>()
    }
}

/// Exemplars of one series.
#[derive(Clone, Debug)]
pub struct ExemplarSeries {
    /// The series.
    pub labels: Labels,
    /// Its exemplars, in the order of time.
    pub exemplars: Vec<Exemplar>,
}

/// One observation and where to read about it.
#[derive(Clone, Debug)]
pub struct Exemplar {
    /// Its own labels, a trace's id among them.
    pub labels: Labels,
    /// The value observed.
    pub value: f64,
    /// When, milliseconds.
    pub t: i64,
}

/// Why series cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A matcher cannot be used.
    #[error("{0}")]
    Matcher(String),
    /// The store failed.
    #[error("{0}")]
    Read(String),
    /// The query's budget is used up.
    #[error(transparent)]
    Limit(#[from] QueryError),
}

/// Series in memory: the answer of a source that has them all at hand.
#[derive(Clone, Debug, Default)]
pub struct InMemory {
    labels: Vec<Labels>,
    columns: Vec<Column>,
}

/// Reads series in memory.
struct InMemoryReader<'a> {
    columns: &'a [Column],
}

// === impl InMemory ===

impl InMemory {
    /// Of any series, none twice.
    #[must_use]
    pub fn new(mut series: Vec<(Labels, Column)>) -> Self {
        series.sort_by(|a, b| a.0.cmp(&b.0));
        let (labels, columns) = series.into_iter().unzip();
        Self { labels, columns }
    }
}

impl Selection for InMemory {
    fn series(&self) -> &[Labels] {
        &self.labels
    }

    fn reader(&self) -> Box<dyn Reader + '_> {
        Box::new(InMemoryReader { columns: &self.columns })
    }
}

// === impl InMemoryReader ===

impl Reader for InMemoryReader<'_> {
    fn read(&mut self, at: usize) -> Result<Column, SourceError> {
        Ok(self.columns.get(at).cloned().unwrap_or_default())
    }
}
