//! `sum_over_time` and `avg_over_time` of native histograms.

use std::sync::Arc;

use telemetry_model::NativeHistogram;

use super::histogram_sum::HistogramSum;
use super::over::Job;
use super::select::Worker;
use crate::annotations::{Kind, Operation};

/// The sum or the mean of histograms.
pub(crate) fn sum_or_mean(
    job: &Job<'_>,
    worker: &mut Worker<'_>,
    name: &str,
    histograms: &[Arc<NativeHistogram>],
    is_mean: bool,
) -> Option<Arc<NativeHistogram>> {
    let (first, rest) = histograms.split_first()?;
    let mut sum = HistogramSum::of(first, is_mean);
    let mut bounds_reconciled = false;
    for histogram in rest {
        let outcome = sum.add(histogram);
        if outcome.incompatible {
            worker.notes.add(Kind::MixedExponentialCustom(name.to_owned()), job.position);
            return None;
        }
        bounds_reconciled |= outcome.bounds_reconciled;
    }
    if sum.has_reset_collision() {
        worker.notes.add(Kind::CounterResetCollision(Operation::Aggregation), job.position);
    }
    if bounds_reconciled {
        worker.notes.add(Kind::MismatchedCustomBuckets(Operation::Aggregation), job.position);
    }
    sum.finish().map(Arc::new)
}
