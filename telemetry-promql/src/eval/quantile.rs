//! Quantiles: of values, and of classic buckets.

use std::cmp::Ordering;

/// Differences between counts of neighbouring buckets that are rounding and not observations, relative.
const TOLERANCE: f64 = 1e-12;

/// A bucket of a classic histogram: how many observations up to a bound.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Bucket {
    pub bound: f64,
    pub count: f64,
}

/// What had to be done to make counts grow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Forced {
    pub min_bucket: f64,
    pub max_bucket: f64,
    pub max_diff: f64,
}

/// The order of values, NaN first.
pub(crate) fn nan_first(a: &f64, b: &f64) -> Ordering {
    a.partial_cmp(b).unwrap_or_else(|| b.is_nan().cmp(&a.is_nan()))
}

/// The quantile of values, which are sorted by it.
pub(crate) fn quantile(q: f64, values: &mut [f64]) -> f64 {
    if values.is_empty() || q.is_nan() {
        return f64::NAN;
    }
    if q < 0.0 {
        return f64::NEG_INFINITY;
    }
    if q > 1.0 {
        return f64::INFINITY;
    }
    values.sort_unstable_by(nan_first);
    let most = telemetry_model::float(values.len() as u64 - 1);
    let rank = q * most;
    let below = rank.floor().max(0.0);
    let above = (below + 1.0).min(most);
    let weight = rank - rank.floor();
    at(values, below) * (1.0 - weight) + at(values, above) * weight
}

fn at(values: &[f64], place: f64) -> f64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a whole number between zero and the length"
    )]
    let place = place as usize;
    values.get(place).copied().unwrap_or(f64::NAN)
}

/// The quantile of classic buckets, and what had to be mended in them.
pub(crate) fn bucket_quantile(q: f64, buckets: &mut Vec<Bucket>) -> (f64, Option<Forced>) {
    if q.is_nan() {
        return (f64::NAN, None);
    }
    if q < 0.0 {
        return (f64::NEG_INFINITY, None);
    }
    if q > 1.0 {
        return (f64::INFINITY, None);
    }
    if !sorted_to_infinity(buckets) {
        return (f64::NAN, None);
    }
    let forced = make_monotonic(buckets);
    let Some(([.., last_but_one], last)) = buckets.split_last().map(|(last, rest)| (rest, last)) else {
        return (f64::NAN, forced);
    };
    let observations = last.count;
    if observations == 0.0 {
        return (f64::NAN, forced);
    }
    let rank = q * observations;
    let most = buckets.len() - 1;
    let found = buckets.iter().take(most).position(|bucket| bucket.count >= rank).unwrap_or(most);
    let Some(bucket) = buckets.get(found) else { return (f64::NAN, forced) };
    if found == most {
        return (last_but_one.bound, forced);
    }
    if found == 0 && bucket.bound <= 0.0 {
        return (bucket.bound, forced);
    }
    let below = found.checked_sub(1).and_then(|at| buckets.get(at));
    let below = below.copied().unwrap_or(Bucket { bound: 0.0, count: 0.0 });
    let share = (rank - below.count) / (bucket.count - below.count);
    (below.bound + (bucket.bound - below.bound) * share, forced)
}

/// The share of observations between two bounds.
pub(crate) fn bucket_fraction(lower: f64, upper: f64, buckets: &mut Vec<Bucket>) -> f64 {
    if !sorted_to_infinity(buckets) {
        return f64::NAN;
    }
    let count = buckets.last().map_or(0.0, |last| last.count);
    if count == 0.0 || lower.is_nan() || upper.is_nan() {
        return f64::NAN;
    }
    if lower >= upper {
        return 0.0;
    }
    let (lower, upper) = (rank_of(lower, buckets, count), rank_of(upper, buckets, count));
    (upper - lower) / count
}

/// How many observations lie below a value.
fn rank_of(value: f64, buckets: &[Bucket], count: f64) -> f64 {
    let first_is_positive = buckets.first().is_some_and(|first| first.bound > 0.0);
    let mut below = Bucket { bound: if first_is_positive { 0.0 } else { f64::NEG_INFINITY }, count: 0.0 };
    for bucket in buckets {
        if below.bound >= value {
            return below.count.min(count);
        }
        if bucket.bound > value {
            let rank = if below.bound == f64::NEG_INFINITY {
                bucket.count
            } else {
                let share = (value - below.bound) / (bucket.bound - below.bound);
                below.count + (bucket.count - below.count) * share
            };
            return rank.min(count);
        }
        below = *bucket;
    }
    count
}

/// Sorts, joins buckets of one bound; whether there is one without bound.
fn sorted_to_infinity(buckets: &mut Vec<Bucket>) -> bool {
    buckets.sort_by(|a, b| a.bound.partial_cmp(&b.bound).unwrap_or(Ordering::Equal));
    if buckets.last().is_none_or(|last| last.bound != f64::INFINITY) {
        return false;
    }
    buckets.dedup_by(|later, first| {
        let same = later.bound == first.bound;
        if same {
            first.count += later.count;
        }
        same
    });
    true
}

/// Counts never fall from bucket to bucket; small differences either way are rounding and levelled silently.
fn make_monotonic(buckets: &mut [Bucket]) -> Option<Forced> {
    let mut forced: Option<Forced> = None;
    let (first, rest) = buckets.split_first_mut()?;
    let mut before = first.count;
    for bucket in rest {
        let count = bucket.count;
        if count == before {
            continue;
        }
        if almost_equal(before, count) {
            bucket.count = before;
        } else if count < before {
            bucket.count = before;
            let none = Forced { min_bucket: f64::INFINITY, max_bucket: f64::NEG_INFINITY, max_diff: 0.0 };
            let so_far = forced.unwrap_or(none);
            forced = Some(Forced {
                min_bucket: so_far.min_bucket.min(bucket.bound),
                max_bucket: so_far.max_bucket.max(bucket.bound),
                max_diff: so_far.max_diff.max(before - count),
            });
        } else {
            before = count;
        }
    }
    forced
}

fn almost_equal(a: f64, b: f64) -> bool {
    if a.is_nan() && b.is_nan() || a == b {
        return true;
    }
    let (sum, difference) = (a.abs() + b.abs(), (a - b).abs());
    if a == 0.0 || b == 0.0 || sum < f64::MIN_POSITIVE {
        return difference < TOLERANCE * f64::MIN_POSITIVE;
    }
    difference / sum.min(f64::MAX) < TOLERANCE
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buckets(pairs: &[(f64, f64)]) -> Vec<Bucket> {
        pairs.iter().map(|(bound, count)| Bucket { bound: *bound, count: *count }).collect()
    }

    #[test]
    fn quantiles_of_values_are_interpolated() {
        assert_eq!(quantile(0.5, &mut [3.0, 1.0, 2.0]), 2.0);
        assert_eq!(quantile(0.25, &mut [1.0, 2.0]), 1.25);
        assert!(quantile(0.5, &mut []).is_nan());
        assert_eq!(quantile(2.0, &mut [1.0]), f64::INFINITY);
    }

    #[test]
    fn quantiles_of_buckets_are_interpolated_and_counts_mended() {
        let inf = f64::INFINITY;
        let (value, forced) = bucket_quantile(0.5, &mut buckets(&[(inf, 4.0), (1.0, 1.0), (2.0, 3.0)]));
        assert_eq!((value, forced), (1.5, None));
        assert!(bucket_quantile(0.5, &mut buckets(&[(1.0, 1.0)])).0.is_nan(), "no bucket without bound");
        assert!(bucket_quantile(0.5, &mut buckets(&[(inf, 1.0)])).0.is_nan(), "one bucket is none");
        let (_, forced) = bucket_quantile(0.5, &mut buckets(&[(1.0, 4.0), (2.0, 3.0), (inf, 5.0)]));
        assert_eq!(forced, Some(Forced { min_bucket: 2.0, max_bucket: 2.0, max_diff: 1.0 }));
    }

    #[test]
    fn fractions_of_buckets() {
        let mut all = buckets(&[(1.0, 2.0), (2.0, 6.0), (f64::INFINITY, 8.0)]);
        assert_eq!(bucket_fraction(0.0, 2.0, &mut all), 0.75);
        assert_eq!(bucket_fraction(0.5, 1.5, &mut all), 0.375);
        assert_eq!(bucket_fraction(3.0, 2.0, &mut all), 0.0);
    }
}
