//! The store as the query engine sees it: series by their labels, samples column by column.

use std::sync::Arc;

use telemetry_model::{Matcher, NativeHistogram, ResetHint};
use telemetry_promql::budget::Budget;
use telemetry_promql::labels::Labels;
use telemetry_promql::source::{
    self, Column, ExemplarSeries, Reader, Select, Selection, Source, SourceError,
};
use telemetry_tsdb::db::{Db, Error, Hints, Reader as DbReader, Selection as DbSelection, Want};

/// How far an instant selector looks back unless it is told otherwise, milliseconds: what decides on a tier.
const LOOKBACK_MS: i64 = 5 * 60 * 1000;

/// The series of a store.
#[derive(Clone)]
pub struct History {
    db: Arc<Db>,
}

/// Series that were found, as they were at one moment.
struct Found {
    selection: DbSelection,
    labels: Vec<Labels>,
    range: (i64, i64),
}

/// Reads them.
struct FoundReader<'a> {
    found: &'a Found,
    reader: DbReader,
}

// === impl History ===

impl History {
    /// Those of this store.
    #[must_use]
    pub fn new(db: Arc<Db>) -> Self {
        Self { db }
    }
}

impl Source for History {
    fn select<'s>(
        &'s self,
        request: &Select<'_>,
        budget: &Budget,
    ) -> Result<Box<dyn Selection + 's>, SourceError> {
        budget.check()?;
        let hints = hints(&request.hints);
        let selection = self.db.select_for(request.matchers, request.from, request.to, &hints);
        let selection = selection.map_err(failed)?;
        let labels = selection.series().iter().map(|series| Labels::new(series.labels().clone())).collect();
        Ok(Box::new(Found { selection, labels, range: (request.from, request.to) }))
    }

    fn label_names(&self, matchers: &[Matcher], from: i64, to: i64) -> Result<Vec<Arc<str>>, SourceError> {
        self.db.label_names(matchers, from, to).map_err(failed)
    }

    fn label_values(
        &self,
        name: &str,
        matchers: &[Matcher],
        from: i64,
        to: i64,
    ) -> Result<Vec<Arc<str>>, SourceError> {
        self.db.label_values(name, matchers, from, to).map_err(failed)
    }

    fn exemplars(
        &self,
        selectors: &[&[Matcher]],
        from: i64,
        to: i64,
    ) -> Result<Vec<ExemplarSeries>, SourceError> {
        let mut found: Vec<ExemplarSeries> = Vec::new();
        for matchers in selectors {
            let selection = self.db.select(matchers, from, to).map_err(failed)?;
            for series in selection.series() {
                let mut exemplars: Vec<source::Exemplar> = series
                    .ids()
                    .iter()
                    .flat_map(|id| self.db.exemplars(*id, from, to))
                    .map(|exemplar| source::Exemplar {
                        labels: Labels::new(
                            exemplar
                                .labels
                                .into_iter()
                                .map(|(name, value)| (name.into(), value.into()))
                                .collect(),
                        ),
                        value: exemplar.value,
                        t: exemplar.t,
                    })
                    .collect();
                exemplars.sort_by_key(|exemplar| exemplar.t);
                if !exemplars.is_empty() {
                    found.push(ExemplarSeries { labels: Labels::new(series.labels().clone()), exemplars });
                }
            }
        }
        // A series that several selectors want comes once.
        found.sort_by(|a, b| a.labels.cmp(&b.labels));
        found.dedup_by(|later, first| later.labels == first.labels);
        Ok(found)
    }
}

// === impl Found ===

impl Selection for Found {
    fn series(&self) -> &[Labels] {
        &self.labels
    }

    fn reader(&self) -> Box<dyn Reader + '_> {
        Box::new(FoundReader { found: self, reader: self.selection.reader() })
    }
}

// === impl FoundReader ===

impl Reader for FoundReader<'_> {
    fn read(&mut self, at: usize) -> Result<Column, SourceError> {
        let Some(series) = self.found.selection.series().get(at) else { return Ok(Column::default()) };
        let (from, to) = self.found.range;
        let column = self.reader.read(series, from, to).map_err(failed)?;
        let histograms = column.histograms.into_iter().map(|(at, histogram)| (at, unclaimed(histogram)));
        Ok(Column {
            times: column.times,
            values: column.values,
            histograms: histograms.collect(),
            starts: None,
        })
    }
}

/// A producer's word that nothing was reset since the sample before holds for the sample that it knew, which may not be
/// the one before in this answer: compare.
fn unclaimed(histogram: Arc<NativeHistogram>) -> Arc<NativeHistogram> {
    if histogram.reset == ResetHint::NotReset {
        Arc::new(NativeHistogram { reset: ResetHint::Unknown, ..(*histogram).clone() })
    } else {
        histogram
    }
}

/// What the store is to know of a query, so that it can answer from a tier where that says the same.
fn hints(hints: &source::Hints<'_>) -> Hints {
    let want = match (hints.window, hints.function) {
        // The last before each step, whatever is made of it.
        (0, _) | (_, "last_over_time" | "present_over_time" | "delta") => Want::Last,
        (_, "rate" | "increase") => Want::Increase,
        (_, "min_over_time") => Want::Min,
        (_, "max_over_time") => Want::Max,
        (_, "sum_over_time") => Want::Sum,
        // What looks at samples one by one, or counts them.
        _ => Want::Every,
    };
    let window_ms = if hints.window == 0 { LOOKBACK_MS } else { hints.window };
    Hints { step_ms: hints.step, window_ms, want }
}

fn failed(error: Error) -> SourceError {
    match error {
        Error::Matcher(error) => SourceError::Matcher(error.to_string()),
        other => SourceError::Read(other.to_string()),
    }
}
