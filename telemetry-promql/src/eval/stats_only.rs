//! Histograms of which only counts and sums are asked for: their buckets are dropped as soon as they are read. Resets,
//! which could be seen in the buckets only, are looked for before and noted in the hint.

use std::sync::Arc;

use telemetry_model::{NativeHistogram, ResetHint, is_stale};

use super::arithmetic::Arithmetic;
use crate::source::Column;

/// Drops the buckets of a column's histograms.
pub(crate) fn reduce(column: &mut Column) {
    let mut before: Option<Arc<NativeHistogram>> = None;
    for (_, histogram) in &mut column.histograms {
        if is_stale(histogram.sum) {
            continue;
        }
        let reset = match (histogram.reset, &before) {
            (ResetHint::Unknown, Some(before)) => {
                if histogram.detect_reset(before) {
                    ResetHint::Reset
                } else {
                    ResetHint::NotReset
                }
            }
            (hint, _) => hint,
        };
        let made = NativeHistogram {
            schema: histogram.schema,
            count: histogram.count,
            sum: histogram.sum,
            reset,
            ..NativeHistogram::default()
        };
        before = Some(std::mem::replace(histogram, Arc::new(made)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resets_are_noted_before_buckets_are_dropped() {
        let histogram = |index: i32, count: f64| {
            let positive = [(index, count)].into_iter().collect();
            Arc::new(NativeHistogram { count, positive, ..NativeHistogram::default() })
        };
        let histograms = vec![(0, histogram(1, 1.0)), (1, histogram(1, 2.0)), (2, histogram(2, 2.0))];
        let mut column = Column { times: Arc::from([1, 2, 3]), histograms, ..Column::default() };
        reduce(&mut column);
        let hints: Vec<ResetHint> = column.histograms.iter().map(|(_, h)| h.reset).collect();
        assert_eq!(hints, [ResetHint::Unknown, ResetHint::NotReset, ResetHint::Reset]);
        assert!(column.histograms.iter().all(|(_, h)| h.positive.is_empty()));
    }
}
