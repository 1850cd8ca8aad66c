//! Counters of which a tier says part: last values and growth become values that only grow.

use std::sync::Arc;

use telemetry_model::{NativeHistogram, ResetHint};

use super::Column;
use crate::block::{is_reset, minus, plus};

/// What a counter has grown to.
#[derive(Default)]
struct Floats {
    /// The value as it was, and as it is shown.
    last: Option<(f64, f64)>,
}

/// The same of a native histogram.
#[derive(Default)]
struct Histograms {
    last: Option<(Arc<NativeHistogram>, Arc<NativeHistogram>)>,
}

/// Makes resets good: `last` has the values as they were, `growth` by how much they grew where a tier knows.
pub fn grown(last: Column, growth: &Column) -> Column {
    let (mut floats, mut histograms) = (Floats::default(), Histograms::default());
    let mut out = Column { values: Vec::with_capacity(last.values.len()), ..Column::default() };
    let mut of_last = last.histograms.iter().peekable();
    let (mut said, mut said_histograms) = (0usize, growth.histograms.iter().peekable());
    for (at, (t, value)) in last.times.iter().zip(&last.values).enumerate() {
        let (mut by, mut by_histogram) = (None, None);
        while let Some(when) = growth.times.get(said).filter(|when| *when <= t) {
            let histogram = said_histograms.next_if(|(of, _)| *of as usize == said).map(|(_, h)| h);
            let value = growth.values.get(said).copied().filter(|_| histogram.is_none());
            if when == t {
                (by, by_histogram) = (value, histogram);
            }
            said += 1;
        }
        match of_last.next_if(|(of, _)| *of as usize == at) {
            Some((of, now)) => {
                out.histograms.push((*of, histograms.next(now, by_histogram)));
                out.values.push(0.0);
            }
            None => out.values.push(floats.next(*value, by)),
        }
    }
    out.times = last.times;
    out
}

// === impl Floats ===

impl Floats {
    fn next(&mut self, now: f64, by: Option<f64>) -> f64 {
        let Some((before, shown)) = self.last else {
            if !now.is_nan() {
                self.last = Some((now, now));
            }
            return now;
        };
        if now.is_nan() {
            self.last = Some((before, shown + by.unwrap_or(0.0)));
            return now;
        }
        let by = by.unwrap_or(if now >= before { now - before } else { now });
        let shown = shown + by;
        self.last = Some((now, shown));
        shown
    }
}

// === impl Histograms ===

impl Histograms {
    fn next(
        &mut self,
        now: &Arc<NativeHistogram>,
        by: Option<&Arc<NativeHistogram>>,
    ) -> Arc<NativeHistogram> {
        if now.reset == ResetHint::Gauge {
            return Arc::clone(now);
        }
        let Some((before, shown)) = &self.last else {
            self.last = Some((Arc::clone(now), Arc::clone(now)));
            return Arc::clone(now);
        };
        let by = match by {
            Some(by) => Some((**by).clone()),
            None if is_reset(now, before) => Some((**now).clone()),
            None => minus(now, before),
        };
        let sum = by.and_then(|by| plus(shown, &by));
        let shown = match sum {
            Some(sum) => Arc::new(NativeHistogram { reset: ResetHint::NotReset, ..sum }),
            // Layouts that have nothing in common: a new count.
            None => Arc::new(NativeHistogram { reset: ResetHint::Reset, ..(**now).clone() }),
        };
        self.last = Some((Arc::clone(now), Arc::clone(&shown)));
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use telemetry_model::STALE_MARKER;

    fn column(samples: &[(i64, f64)]) -> Column {
        let (times, values): (Vec<_>, Vec<_>) = samples.iter().copied().unzip();
        Column { times: times.into(), values, histograms: Vec::new() }
    }

    #[test]
    fn values_only_grow_by_what_the_tier_or_the_difference_says() {
        let last =
            column(&[(60, 10.0), (120, 4.0), (180, STALE_MARKER), (240, 9.0), (241, 11.0), (242, 1.0)]);
        let growth = column(&[(60, 3.0), (120, 7.0), (180, 2.0), (240, 5.0)]);
        let got = grown(last, &growth);
        assert_eq!(got.values[..2], [10.0, 17.0]);
        assert!(telemetry_model::is_stale(got.values[2]));
        assert_eq!(got.values[3..], [24.0, 26.0, 27.0]);
    }

    #[test]
    fn histograms_grow_alike_and_begin_anew_where_layouts_differ() {
        let of = |count: f64, schema: i8| {
            let custom_bounds = (schema == -53).then(|| Arc::from([1.0]));
            Arc::new(NativeHistogram { schema, count, custom_bounds, ..NativeHistogram::default() })
        };
        let histograms = vec![(0, of(5.0, 3)), (1, of(2.0, 3)), (2, of(4.0, 3)), (3, of(9.0, -53))];
        let last = Column { times: [60, 120, 121, 122].into(), values: vec![0.0; 4], histograms };
        let growth = Column { times: [120].into(), values: vec![0.0], histograms: vec![(0, of(6.0, 3))] };
        let got = grown(last, &growth);
        let counts: Vec<_> = got.histograms.iter().map(|(_, h)| (h.count, h.reset)).collect();
        use ResetHint::{NotReset, Reset, Unknown};
        assert_eq!(counts, [(5.0, Unknown), (11.0, NotReset), (13.0, NotReset), (9.0, Reset)]);
    }
}
