//! Classic histograms made native with custom buckets: what `load_with_nhcb` loads beside them.

use std::collections::BTreeMap;
use std::sync::Arc;

use telemetry_model::NativeHistogram;
use telemetry_model::native::CUSTOM_SCHEMA;

use crate::labels::{BUCKET, Labels, NAME};
use crate::lexer::parse_number;

/// A series of native histograms and their times.
type Converted = (Labels, Vec<(i64, NativeHistogram)>);

/// One moment of a classic histogram.
#[derive(Default)]
struct Classic {
    /// Bounds and cumulative counts.
    buckets: Vec<(f64, f64)>,
    count: Option<f64>,
    sum: f64,
}

/// Histograms by series and time.
#[derive(Default)]
pub(crate) struct Collector {
    found: BTreeMap<Labels, BTreeMap<i64, Classic>>,
}

// === impl Collector ===

impl Collector {
    /// Takes a classic series' number; others are not its business.
    pub fn add(&mut self, labels: &Labels, t: i64, value: f64) {
        let name = labels.name();
        let suffixes = ["_bucket", "_sum", "_count"];
        let Some((suffix, base)) =
            suffixes.iter().find_map(|suffix| Some((*suffix, name.strip_suffix(suffix)?)))
        else {
            return;
        };
        let bound = parse_number(labels.get(BUCKET)).ok().filter(|bound| !bound.is_nan());
        if suffix == "_bucket" && bound.is_none() {
            return;
        }
        let base = labels.with(NAME, base).with(BUCKET, "");
        let classic = self.found.entry(base).or_default().entry(t).or_default();
        match (suffix, bound) {
            ("_bucket", Some(bound)) => classic.buckets.push((bound, value)),
            ("_count", _) => classic.count = Some(value),
            _ => classic.sum = value,
        }
    }

    /// The native histograms, in the order of time.
    pub fn finish(self) -> Result<Vec<Converted>, String> {
        let mut series = Vec::new();
        for (labels, moments) in self.found {
            let moments = moments.into_iter().map(|(t, classic)| Ok((t, classic.native()?)));
            let histograms: Result<Vec<_>, String> = moments.collect();
            series.push((labels.clone(), histograms.map_err(|error| format!("{labels}: {error}"))?));
        }
        Ok(series)
    }
}

// === impl Classic ===

impl Classic {
    fn native(mut self) -> Result<NativeHistogram, String> {
        self.buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        self.buckets.dedup_by(|later, first| later.0 == first.0);
        if !self.buckets.is_sorted_by(|a, b| a.1 <= b.1) {
            return Err("count is not cumulative".to_owned());
        }
        let highest = self.buckets.last().copied();
        let count = self.count.or(highest.map(|(_, count)| count)).unwrap_or(0.0);
        match highest {
            Some((f64::INFINITY, highest)) if highest != count => {
                return Err(format!("count mismatch: count={count} != le=+Inf count={highest}"));
            }
            Some((f64::INFINITY, _)) => {}
            _ => self.buckets.push((f64::INFINITY, count)),
        }
        let bounds: Arc<[f64]> =
            self.buckets.iter().map(|(bound, _)| *bound).filter(|bound| *bound != f64::INFINITY).collect();
        let mut before = 0.0;
        let counts = self
            .buckets
            .iter()
            .map(|(_, cumulative)| cumulative - std::mem::replace(&mut before, *cumulative));
        Ok(NativeHistogram {
            schema: CUSTOM_SCHEMA,
            count,
            sum: self.sum,
            positive: (0..).zip(counts).collect(),
            custom_bounds: Some(bounds),
            ..NativeHistogram::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_differences_and_infinity_has_no_bound() {
        let mut collector = Collector::default();
        let of = |name: &str, le: &str| Labels::from_texts([(NAME, name), (BUCKET, le), ("job", "a")]);
        collector.add(&of("x_bucket", "+Inf"), 0, 7.0);
        collector.add(&of("x_bucket", "0.5"), 0, 2.0);
        collector.add(&of("x_bucket", "1"), 0, 3.0);
        collector.add(&of("x_sum", ""), 0, 9.5);
        collector.add(&of("x_total", ""), 0, 1.0);
        let made = collector.finish().unwrap();
        assert_eq!(made.len(), 1);
        assert_eq!(made[0].0, Labels::from_texts([(NAME, "x"), ("job", "a")]));
        let histogram = &made[0].1[0].1;
        assert_eq!((histogram.count, histogram.sum), (7.0, 9.5));
        assert_eq!(histogram.positive.counts, [2.0, 1.0, 4.0]);
        assert_eq!(histogram.custom_bounds.as_deref(), Some(&[0.5, 1.0][..]));
    }

    #[test]
    fn counts_that_fall_are_refused() {
        let mut collector = Collector::default();
        let of = |le: &str| Labels::from_texts([(NAME, "x_bucket"), (BUCKET, le)]);
        collector.add(&of("1"), 0, 3.0);
        collector.add(&of("2"), 0, 2.0);
        assert!(collector.finish().is_err());
    }
}
