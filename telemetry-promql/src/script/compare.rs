//! When an answer counts as the expected one.

use telemetry_model::NativeHistogram;

use super::notation::STALE;

/// The relative difference that is allowed.
const TOLERANCE: f64 = 1e-6;

/// Whether two numbers differ by less than a millionth. NaN is NaN; a stale marker only itself.
#[must_use]
pub fn almost_equal(a: f64, b: f64) -> bool {
    let is_stale = |value: f64| value.to_bits() == STALE.to_bits();
    if is_stale(a) || is_stale(b) {
        return is_stale(a) && is_stale(b);
    }
    if a.is_nan() && b.is_nan() || a == b {
        return true;
    }
    let (sum, difference) = (a.abs() + b.abs(), (a - b).abs());
    if a == 0.0 || b == 0.0 || sum < f64::MIN_POSITIVE {
        return difference < TOLERANCE * f64::MIN_POSITIVE;
    }
    difference / sum.min(f64::MAX) < TOLERANCE
}

/// Whether two histograms are the same within the tolerance, empty buckets aside.
pub(crate) fn same_histogram(expected: &NativeHistogram, got: &NativeHistogram, with_hint: bool) -> bool {
    let bounds = |histogram: &NativeHistogram| histogram.custom_bounds.clone().unwrap_or_default();
    let used = |histogram: &NativeHistogram, negative: bool| {
        let buckets = if negative { &histogram.negative } else { &histogram.positive };
        buckets.iter().filter(|(_, count)| *count != 0.0).collect::<Vec<_>>()
    };
    let same_buckets = |negative: bool| {
        let (a, b) = (used(expected, negative), used(got, negative));
        a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| a.0 == b.0 && almost_equal(a.1, b.1))
    };
    expected.schema == got.schema
        && almost_equal(expected.count, got.count)
        && almost_equal(expected.sum, got.sum)
        && (!expected.has_custom_bounds() || bounds(expected) == bounds(got))
        && expected.zero_threshold == got.zero_threshold
        && almost_equal(expected.zero_count, got.zero_count)
        && same_buckets(true)
        && same_buckets(false)
        && (!with_hint || expected.reset == got.reset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_millionth_more_or_less_is_the_same() {
        assert!(almost_equal(1.0, 1.000_001) && !almost_equal(1.0, 1.000_01));
        assert!(
            almost_equal(f64::NAN, f64::NAN) && !almost_equal(f64::NAN, STALE) && almost_equal(STALE, STALE)
        );
        assert!(!almost_equal(0.0, 1e-300) && almost_equal(0.0, -0.0));
        assert!(almost_equal(f64::INFINITY, f64::INFINITY) && !almost_equal(f64::INFINITY, f64::MAX));
    }

    #[test]
    fn empty_buckets_and_unnamed_hints_are_not_compared() {
        let of = |counts: &[f64], reset| NativeHistogram {
            reset,
            positive: (0..).zip(counts.iter().copied()).collect(),
            ..NativeHistogram::default()
        };
        use telemetry_model::ResetHint::{Gauge, Unknown};
        assert!(same_histogram(&of(&[1.0, 0.0, 2.0], Unknown), &of(&[1.0, 0.0, 2.0, 0.0], Gauge), false));
        assert!(!same_histogram(&of(&[1.0], Unknown), &of(&[1.0], Gauge), true), "a named hint is compared");
        assert!(!same_histogram(&of(&[1.0, 2.0], Unknown), &of(&[1.0, 0.0, 2.0], Unknown), false));
    }
}
