//! The history as the query engine asks for it: which of the store's ways to answer fits what is computed.
//!
//! Tiers answer where raw samples are gone, and where the windows of a query are whole intervals of a tier, so that
//! folding rows says what folding samples would. A file that cannot be read fails the query: no answer rather than a
//! wrong one. The store keeps no start timestamps, so none are told.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use telemetry_model::{MatchOp, Matcher, NativeHistogram};
use telemetry_promql::budget::Budget;
use telemetry_promql::labels::{Labels, NAME};
use telemetry_promql::resets;
use telemetry_promql::source::{
    Column, Exemplar, ExemplarSeries, Hints, Reader, Select, Selection, Source, SourceError,
};
use telemetry_tsdb::db::{self, Db, Stretch, Want};
use telemetry_tsdb::index::SeriesId;

/// Lengths of the tiers' intervals, milliseconds, each a multiple of the one before.
const TIERS_MS: [i64; 3] = [60_000, 300_000, 3_600_000];
/// The store takes a tier if a step has four of its intervals.
const INTERVALS_MIN: i64 = 4;
/// A rate does not see how a counter grew before the first row of a window. It shall miss no more than a twentieth of
/// the window where raw samples are there: five times as many intervals as the store asks for.
const RATE_FACTOR: i64 = 5;
/// How far before a range a histogram is looked for that the first one may go on from: as far as a sample counts.
const BEFORE_MS: i64 = 300_000;

/// The store, as a source of series.
#[derive(Clone)]
pub struct History {
    db: Arc<Db>,
}

/// A moment of the store.
struct Moment<'s> {
    db: &'s Db,
    matchers: Vec<Matcher>,
    found: db::Selection,
    labels: Vec<Labels>,
    range: (i64, i64),
    want: Want,
    /// What stands just before the range; asked for only where histograms are.
    before: OnceLock<Option<db::Selection>>,
}

/// Reads series of a moment.
struct MomentReader<'a> {
    moment: &'a Moment<'a>,
    reader: db::Reader,
    /// Of what stands just before.
    before: Option<db::Reader>,
}

/// A histogram and its time.
type Timed = (i64, Arc<NativeHistogram>);

// === impl History ===

impl History {
    /// Of a store.
    #[must_use]
    pub fn new(db: Arc<Db>) -> Self {
        Self { db }
    }

    /// Ids and labels of the series that match.
    fn labels_by_id(
        &self,
        selectors: &[&[Matcher]],
        from: i64,
        to: i64,
    ) -> Result<BTreeMap<SeriesId, Labels>, SourceError> {
        let mut all = BTreeMap::new();
        for matchers in selectors {
            let found = self.db.select(matchers, from, to).map_err(failed)?;
            for series in found.series() {
                let labels = Labels::shared(series.labels());
                all.extend(series.ids().iter().map(|id| (*id, labels.clone())));
            }
        }
        Ok(all)
    }

    /// Whether a selector may find counters, of whose intervals a tier keeps the last value and no other.
    fn may_count(&self, matchers: &[Matcher]) -> bool {
        let mut names = matchers.iter().filter(|matcher| matcher.name == NAME);
        let (Some(name), None) = (names.next().filter(|name| name.op == MatchOp::Equal), names.next()) else {
            return true;
        };
        let known = self.db.metadata();
        let parts = ["", "_total", "_bucket", "_count", "_sum"];
        let families = parts.iter().filter_map(|part| name.value.strip_suffix(part));
        let kinds = families.filter_map(|family| {
            let at = known.binary_search_by(|(known, _)| (**known).cmp(family)).ok()?;
            known.get(at).map(|(_, metadata)| &*metadata.kind)
        });
        kinds.into_iter().any(|kind| !matches!(kind, "gauge" | "info" | "stateset" | "" | "unknown"))
    }
}

impl Source for History {
    fn select<'s>(
        &'s self,
        request: &Select<'_>,
        budget: &Budget,
    ) -> Result<Box<dyn Selection + 's>, SourceError> {
        budget.check()?;
        let mut hints = hints(request);
        let is_extreme = matches!(hints.want, Want::Min | Want::Max | Want::Sum);
        if is_extreme && hints.step_ms > 0 && self.may_count(request.matchers) {
            hints.step_ms = 0;
        }
        let found = self.db.select_for(request.matchers, request.from, request.to, &hints).map_err(failed)?;
        let count = found.series().len();
        if count as u64 > budget.limits().series {
            // Before labels are copied; who asked counts them, too.
            budget.series(count)?;
        }
        let labels = found.series().iter().map(|series| Labels::shared(series.labels())).collect();
        Ok(Box::new(Moment {
            db: &self.db,
            matchers: request.matchers.to_vec(),
            found,
            labels,
            range: (request.from, request.to),
            want: hints.want,
            before: OnceLock::new(),
        }))
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
        let mut by_labels: BTreeMap<Labels, Vec<Exemplar>> = BTreeMap::new();
        for (id, labels) in self.labels_by_id(selectors, from, to)? {
            let kept = self.db.exemplars(id, from, to);
            let told = kept.iter().map(|exemplar| Exemplar {
                labels: Labels::from_texts(exemplar.labels.iter().map(|(name, value)| (&**name, &**value))),
                value: exemplar.value,
                t: exemplar.t,
            });
            by_labels.entry(labels).or_default().extend(told);
        }
        by_labels.retain(|_, exemplars| !exemplars.is_empty());
        let sorted = by_labels.into_iter().map(|(labels, mut exemplars)| {
            exemplars.sort_by_key(|exemplar| exemplar.t);
            ExemplarSeries { labels, exemplars }
        });
        Ok(sorted.collect())
    }
}

// === impl Moment ===

impl Selection for Moment<'_> {
    fn series(&self) -> &[Labels] {
        &self.labels
    }

    fn reader(&self) -> Box<dyn Reader + '_> {
        Box::new(MomentReader { moment: self, reader: self.found.reader(), before: None })
    }

    fn are_counts(&self) -> bool {
        self.want == Want::Count
    }
}

// === impl MomentReader ===

impl MomentReader<'_> {
    /// The sample just before the range, if it is a histogram.
    fn just_before(&mut self, at: usize) -> Result<Option<Timed>, SourceError> {
        let Moment { db, matchers, found, range, before, .. } = self.moment;
        let (from, to) = (range.0.saturating_sub(BEFORE_MS), range.0.saturating_sub(1));
        // What is told is a hint: a store that fails here fails for the range, too.
        let Some(found_before) = before.get_or_init(|| db.select(matchers, from, to).ok()) else {
            return Ok(None);
        };
        let Some(series) = found.series().get(at) else { return Ok(None) };
        let all = found_before.series();
        let Ok(at) = all.binary_search_by(|other| other.labels().cmp(series.labels())) else {
            return Ok(None);
        };
        let Some(series) = all.get(at) else { return Ok(None) };
        let reader = self.before.get_or_insert_with(|| found_before.reader());
        let column = reader.read(series, from, to).map_err(failed)?;
        let last = column.histograms.last().filter(|(at, _)| *at as usize + 1 == column.times.len());
        Ok(last.zip(column.times.last()).map(|((_, histogram), t)| (*t, Arc::clone(histogram))))
    }
}

impl Reader for MomentReader<'_> {
    fn read(&mut self, at: usize) -> Result<Column, SourceError> {
        let Moment { found, range, want, .. } = self.moment;
        let Some(series) = found.series().get(at) else { return Ok(Column::default()) };
        let mut column = self.reader.read(series, range.0, range.1).map_err(failed)?;
        let has_tier = found.stretches().iter().any(|stretch| stretch.tier_ms > 0);
        // Where a tier answers for what a counter grew by, values only grow and say so.
        let say_so = has_tier && *want == Want::Increase;
        if !column.histograms.is_empty() && !say_so {
            let starts_with_one = column.histograms.first().is_some_and(|(at, _)| *at == 0);
            let before = match starts_with_one && *want != Want::Increase {
                true => self.just_before(at)?,
                false => None,
            };
            mark_resets(&mut column, found.stretches(), before);
        }
        let db::Column { times, values, histograms } = column;
        Ok(Column { times, values, histograms, starts: None })
    }
}

/// What to ask the store for.
fn hints(request: &Select<'_>) -> db::Hints {
    let Hints { step, window, before, function, .. } = request.hints;
    let want = want(function, window);
    let step_ms = step.min(finest_not_whole(request.to, step, before).saturating_mul(INTERVALS_MIN) - 1);
    let window_ms = if want == Want::Increase { before / RATE_FACTOR } else { before };
    db::Hints { step_ms, window_ms, want }
}

/// The shortest interval of which the windows of a query are not made up, so that a tier of it would see other samples
/// than they do.
fn finest_not_whole(end: i64, step: i64, window: i64) -> i64 {
    let is_whole = |tier: &i64| [end, step, window].iter().all(|length| length % tier == 0);
    TIERS_MS.iter().copied().find(|tier| !is_whole(tier)).unwrap_or(i64::MAX)
}

/// What a function wants to know of samples. What is not named here wants them all.
fn want(function: &str, window: i64) -> Want {
    match (window, function) {
        (0, "timestamp" | "start_timestamp") => Want::Every,
        (0, _) => Want::Last,
        (_, "rate" | "increase") => Want::Increase,
        (_, "last_over_time" | "present_over_time" | "absent_over_time" | "delta") => Want::Last,
        (_, "min_over_time") => Want::Min,
        (_, "max_over_time") => Want::Max,
        (_, "sum_over_time") => Want::Sum,
        (_, "count_over_time") => Want::Count,
        _ => Want::Every,
    }
}

/// Says of each histogram that came as it is whether it goes on from the one before; rows of tiers say so themselves.
fn mark_resets(column: &mut db::Column, stretches: &[Stretch], before: Option<Timed>) {
    let is_raw = |t: i64| {
        let at = stretches.partition_point(|stretch| stretch.to < t);
        stretches.get(at).is_none_or(|stretch| stretch.tier_ms == 0)
    };
    // The histogram that was last, and the place after it.
    let mut last = before.map(|before| (0, before));
    for (at, histogram) in &mut column.histograms {
        let Some(t) = column.times.get(*at as usize).copied() else { continue };
        if !is_raw(t) {
            last = None;
            continue;
        }
        let came = Arc::clone(histogram);
        let before =
            last.as_ref().filter(|(next, _)| next == at).map(|(_, (then, before))| (*then, &**before));
        let hint = resets::hint(before, t, &came);
        if hint != came.reset {
            *histogram = Arc::new(NativeHistogram { reset: hint, ..(*came).clone() });
        }
        last = Some((*at + 1, (t, came)));
    }
}

fn failed(error: db::Error) -> SourceError {
    match error {
        db::Error::Matcher(error) => SourceError::Matcher(error.to_string()),
        other => SourceError::Read(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000;

    fn check(to: i64, step: i64, before: i64, expected: (i64, i64)) {
        let hints = Hints { step, window: before, before, function: "max_over_time", ..Hints::default() };
        let got = super::hints(&Select { matchers: &[], from: to - 10 * step - before, to, hints });
        assert_eq!((got.step_ms, got.window_ms), expected, "to {to}, step {step}, window {before}");
    }

    #[test]
    fn a_tier_is_taken_only_where_windows_are_made_of_its_intervals() {
        let hour = 60 * MINUTE;
        // Whole hours, then whole five minutes, whole minutes, and none.
        check(10 * hour, 4 * hour, 5 * hour, (4 * hour, 5 * hour));
        check(10 * hour + 5 * MINUTE, 4 * hour, 5 * hour, (4 * hour - 1, 5 * hour));
        check(10 * hour + MINUTE, hour, hour, (20 * MINUTE - 1, hour));
        check(10 * hour + 1000, hour, hour, (4 * MINUTE - 1, hour));
        check(10 * hour, 5 * MINUTE, 90_000, (4 * MINUTE - 1, 90_000));
    }

    #[test]
    fn functions_ask_for_what_they_compute_with() {
        assert_eq!(want("sum", 0), Want::Last);
        assert_eq!(want("timestamp", 0), Want::Every);
        assert_eq!(want("rate", 1), Want::Increase);
        assert_eq!(want("quantile_over_time", 1), Want::Every);
    }
}
