//! `rate`, `increase`, `delta` of native histograms.

use std::sync::Arc;

use telemetry_model::{NativeHistogram, ResetHint};

use super::arithmetic::Arithmetic;
use super::over::Job;
use super::rate::{Extent, Factor, factor, is_start_reset, starts_overlap};
use super::select::Worker;
use super::window::{View, Window};
use crate::annotations::{Detail, Kind, Operation};

/// The difference over a window's histograms, extrapolated.
pub(crate) fn extrapolated(
    job: &Job<'_>,
    worker: &mut Worker<'_>,
    name: &str,
    window: &Window<'_>,
    is_counter: bool,
    per: Option<i64>,
) -> Option<Arc<NativeHistogram>> {
    let histograms = &window.histograms;
    let ((first_t, first), (last_t, _)) = (histograms.first()?, histograms.last()?);
    let mut made = None;
    if histograms.len() > 1 {
        made = Some(difference(job, worker, name, histograms, is_counter)?);
    }
    let start = if is_counter { histograms.start(0) } else { 0 };
    let extent = Extent { first_t, last_t, gaps: histograms.len() - 1, start };
    let zero = made.as_ref().filter(|made| is_counter && made.count > 0.0 && first.count >= 0.0);
    let zero = zero.map(|made| first.count / made.count);
    let (mut made, factor) = match (factor(extent, (window.from, window.to), zero, per)?, made) {
        (Factor::Times(factor), Some(made)) => (made, factor),
        (Factor::Times(_), None) => return None,
        (Factor::FirstToo(factor), None) => (NativeHistogram::clone(first), factor),
        (Factor::FirstToo(factor), Some(mut made)) => {
            combine(job, worker, name, &mut made, first, Operation::Addition)?;
            (made, factor)
        }
    };
    made.multiply(factor);
    Some(Arc::new(made))
}

fn mixed(job: &Job<'_>, worker: &mut Worker<'_>, name: &str) {
    worker.notes.add(Kind::MixedExponentialCustom(name.to_owned()), job.position);
}

fn combine(
    job: &Job<'_>,
    worker: &mut Worker<'_>,
    name: &str,
    base: &mut NativeHistogram,
    other: &NativeHistogram,
    operation: Operation,
) -> Option<()> {
    let outcome = match operation {
        Operation::Subtraction => base.sub(other),
        Operation::Addition | Operation::Aggregation => base.add(other),
    };
    match outcome {
        Err(_) => {
            mixed(job, worker, name);
            None
        }
        Ok(outcome) => {
            if outcome.bounds_reconciled {
                worker.notes.add(Kind::MismatchedCustomBuckets(operation), job.position);
            }
            Some(())
        }
    }
}

/// Last less first, resets added; at least two histograms.
fn difference(
    job: &Job<'_>,
    worker: &mut Worker<'_>,
    name: &str,
    histograms: &View<'_, Arc<NativeHistogram>>,
    is_counter: bool,
) -> Option<NativeHistogram> {
    let [first, second, ..] = histograms.values else { return None };
    let last = histograms.values.last()?;
    let is_gauge = |histogram: &NativeHistogram| histogram.reset == ResetHint::Gauge;
    if is_counter && (is_gauge(first) || is_gauge(last)) {
        worker.notes.add(Kind::NotCounter(name.to_owned()), job.position);
    }
    // What a reset right after the first hides, need not fit to the others.
    let empty;
    let mut before: &NativeHistogram = first;
    let pair = |at: usize| {
        let time = |at: usize| histograms.times.get(at).copied().unwrap_or(0);
        ((histograms.start(at - 1), time(at - 1)), (histograms.start(at), time(at)))
    };
    let start_reset = |at: usize| {
        let (before, now) = pair(at);
        is_start_reset(before, now)
    };
    if is_counter && (start_reset(1) || second.detect_reset(first)) {
        empty = NativeHistogram {
            schema: second.schema,
            custom_bounds: second.custom_bounds.clone(),
            ..NativeHistogram::default()
        };
        before = &empty;
    }
    let custom = before.has_custom_bounds();
    if last.has_custom_bounds() != custom {
        mixed(job, worker, name);
        return None;
    }
    let mut schema = last.schema.min(before.schema);
    if is_counter {
        let inner = histograms.values.get(1..histograms.len() - 1).unwrap_or(&[]);
        for histogram in inner {
            if is_gauge(histogram) {
                worker.notes.add(Kind::NotCounter(name.to_owned()), job.position);
            }
            schema = schema.min(histogram.schema);
            if histogram.has_custom_bounds() != custom {
                mixed(job, worker, name);
                return None;
            }
        }
    }
    let mut made = last.at_schema(schema);
    combine(job, worker, name, &mut made, before, Operation::Subtraction)?;
    if is_counter {
        let mut overlap = false;
        for (at, histogram) in histograms.values.iter().enumerate().skip(1) {
            let ((before_start, before_t), (start, _)) = pair(at);
            if !overlap && starts_overlap(before_start, before_t, start) {
                overlap = true;
                let kind = Kind::StartTimeOverlap(name.to_owned());
                worker.notes.add_detail(kind, job.position, Detail::Overlap { count: 1 });
            }
            if start_reset(at) || histogram.detect_reset(before) {
                combine(job, worker, name, &mut made, before, Operation::Addition)?;
            }
            before = histogram;
        }
    } else if !is_gauge(first) || !is_gauge(last) {
        worker.notes.add(Kind::NotGauge(name.to_owned()), job.position);
    }
    made.reset = ResetHint::Gauge;
    made.compact();
    Some(made)
}
