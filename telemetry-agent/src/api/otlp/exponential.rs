//! Exponential histograms: their buckets added, and as native histograms.

use telemetry_model::STALE_MARKER;
use telemetry_model::native::{Buckets as Native, CUSTOM_SCHEMA, NativeHistogram, SCHEMA_MAX, SCHEMA_MIN};

use super::message::{Buckets, ExponentialPoint, HistogramPoint};

/// What Prometheus takes for the width of the zero bucket, whatever the point says.
const ZERO_THRESHOLD: f64 = 1e-128;
/// Buckets of one side after an addition; more are made coarser, as the collector does.
const MERGED_BUCKETS_MAX: i64 = 160;
/// Buckets of one point: many times what SDKs keep.
pub(super) const BUCKETS_MAX: usize = 4096;
/// Says that a point has no value.
const NO_RECORDED_VALUE: u32 = 1;

pub(super) fn has_value(flags: u32) -> bool {
    flags & NO_RECORDED_VALUE == 0
}

/// The sample that says that a series has ended.
fn stale() -> NativeHistogram {
    NativeHistogram { sum: STALE_MARKER, ..NativeHistogram::default() }
}

/// An exponential histogram as a native one. An index of ours is the bucket's upper end, of theirs the lower.
pub(super) fn native(point: &ExponentialPoint) -> Result<NativeHistogram, String> {
    if point.scale < i32::from(SCHEMA_MIN) {
        return Err(format!("scale {} of an exponential histogram is below {SCHEMA_MIN}", point.scale));
    }
    let schema = i8::try_from(point.scale).unwrap_or(SCHEMA_MAX).min(SCHEMA_MAX);
    if !has_value(point.flags) {
        return Ok(NativeHistogram { schema, zero_threshold: ZERO_THRESHOLD, ..stale() });
    }
    let down = i64::from(point.scale) - i64::from(schema);
    let side = |buckets: &Option<Buckets>| {
        buckets.as_ref().map_or(Ok(Native::default()), |side| indexed(side, down))
    };
    let made = NativeHistogram {
        schema,
        zero_threshold: ZERO_THRESHOLD,
        zero_count: telemetry_model::float(point.zero_count),
        count: telemetry_model::float(point.count),
        sum: point.sum.unwrap_or(0.0),
        positive: side(&point.positive)?,
        negative: side(&point.negative)?,
        ..NativeHistogram::default()
    };
    let counts =
        [&point.positive, &point.negative].into_iter().flatten().map(|side| total(&side.bucket_counts));
    balance(counts.fold(point.zero_count, u64::saturating_add), point.count, made.sum)?;
    Ok(made)
}

/// A histogram with bounds of its own as a native one with these bounds.
pub(super) fn custom(point: &HistogramPoint) -> Result<NativeHistogram, String> {
    let bounds = &point.explicit_bounds;
    let made =
        NativeHistogram { schema: CUSTOM_SCHEMA, custom_bounds: Some(bounds.clone().into()), ..stale() };
    check_bounds(point)?;
    if !has_value(point.flags) {
        return Ok(made);
    }
    let counts = point.bucket_counts.iter().zip(0i32..).filter(|(count, _)| **count > 0);
    let sum = point.sum.unwrap_or(0.0);
    balance(total(&point.bucket_counts), point.count, sum)?;
    Ok(NativeHistogram {
        sum,
        count: telemetry_model::float(point.count),
        positive: counts.map(|(count, index)| (index, telemetry_model::float(*count))).collect(),
        ..made
    })
}

/// Bounds that grow, and no more buckets than they make.
pub(super) fn check_bounds(point: &HistogramPoint) -> Result<(), String> {
    let bounds = &point.explicit_bounds;
    if bounds.len() > BUCKETS_MAX || point.bucket_counts.len() > bounds.len() + 1 {
        return Err("a histogram has more buckets than bounds".to_owned());
    }
    if !bounds.is_sorted_by(|a, b| a < b) || bounds.iter().any(|bound| !bound.is_finite()) {
        return Err("bounds of a histogram do not grow".to_owned());
    }
    Ok(())
}

fn total(counts: &[u64]) -> u64 {
    counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
}

/// A count is what its buckets hold; observations of NaN, which lie in none, make the sum NaN.
fn balance(buckets: u64, count: u64, sum: f64) -> Result<(), String> {
    let is_right = if sum.is_nan() { buckets <= count } else { buckets == count };
    if is_right { Ok(()) } else { Err(format!("a histogram counts {count} and its buckets hold {buckets}")) }
}

fn indexed(buckets: &Buckets, down: i64) -> Result<Native, String> {
    if buckets.bucket_counts.len() > BUCKETS_MAX {
        return Err(format!("an exponential histogram has more than {BUCKETS_MAX} buckets"));
    }
    let mut made = Native::default();
    for (count, at) in buckets.bucket_counts.iter().zip(i64::from(buckets.offset)..) {
        if *count == 0 {
            continue;
        }
        let index = i32::try_from(shifted(at, down) + 1);
        let index = index.map_err(|_| "a bucket of an exponential histogram is out of range".to_owned())?;
        match (made.indexes.last(), made.counts.last_mut()) {
            (Some(last), Some(held)) if *last == index => *held += telemetry_model::float(*count),
            _ => {
                made.indexes.push(index);
                made.counts.push(telemetry_model::float(*count));
            }
        }
    }
    Ok(made)
}

/// An index at a scale coarser by `down`.
fn shifted(at: i64, down: i64) -> i64 {
    at >> down.clamp(0, 63)
}

/// Adds the buckets and the zero bucket of `added` to `sum`, at the finest scale that holds both.
pub(super) fn add(sum: &mut ExponentialPoint, added: &mut ExponentialPoint) {
    let scale = sum.scale.min(added.scale);
    coarsen(sum, scale);
    coarsen(added, scale);
    let down = excess(&sum.positive, &added.positive).max(excess(&sum.negative, &added.negative));
    if down > 0 {
        coarsen(sum, scale.saturating_sub(down));
        coarsen(added, scale.saturating_sub(down));
    }
    let width = sum.zero_threshold.max(added.zero_threshold);
    for side in [&mut *sum, added] {
        if side.zero_threshold < width {
            widen(side, width);
        }
    }
    merge(&mut sum.positive, &added.positive);
    merge(&mut sum.negative, &added.negative);
    sum.zero_count = sum.zero_count.saturating_add(added.zero_count);
}

fn range(buckets: &Option<Buckets>) -> Option<(i64, i64)> {
    let buckets = buckets.as_ref()?;
    let first = buckets.bucket_counts.iter().position(|count| *count > 0)?;
    let last = buckets.bucket_counts.iter().rposition(|count| *count > 0)?;
    let at = |index: usize| i64::from(buckets.offset) + i64::try_from(index).unwrap_or(i64::MAX / 2);
    Some((at(first), at(last) + 1))
}

/// By how many scales both have to become coarser to have few buckets together.
fn excess(a: &Option<Buckets>, b: &Option<Buckets>) -> i32 {
    let (mut low, mut high) = match (range(a), range(b)) {
        (Some(a), Some(b)) => (a.0.min(b.0), a.1.max(b.1)),
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => return 0,
    };
    let mut down = 0;
    while high - low > MERGED_BUCKETS_MAX {
        (low, high) = (low >> 1, high >> 1);
        down += 1;
    }
    down
}

fn coarsen(point: &mut ExponentialPoint, scale: i32) {
    let down = i64::from(point.scale) - i64::from(scale);
    if down <= 0 {
        return;
    }
    for buckets in [&mut point.positive, &mut point.negative] {
        let Some((low, high)) = range(buckets) else {
            *buckets = None;
            continue;
        };
        let moved = buckets.take().unwrap_or_default();
        *buckets = Some(placed(shifted(low, down), shifted(high - 1, down) + 1, [(&moved, down)]));
    }
    point.scale = scale;
}

fn merge(sum: &mut Option<Buckets>, added: &Option<Buckets>) {
    let Some(other) = added else { return };
    let Some((low, high)) = range(added) else { return };
    let (from, to) = range(sum).unwrap_or((low, high));
    let own = sum.take().unwrap_or_default();
    *sum = Some(placed(from.min(low), to.max(high), [(&own, 0), (other, 0)]));
}

/// Buckets from `low` to before `high`, with the counts of all these.
fn placed<const N: usize>(low: i64, high: i64, all: [(&Buckets, i64); N]) -> Buckets {
    let mut counts = vec![0u64; usize::try_from(high - low).unwrap_or(0)];
    for (buckets, down) in all {
        for (count, at) in buckets.bucket_counts.iter().zip(i64::from(buckets.offset)..) {
            let place = usize::try_from(shifted(at, down) - low).ok().and_then(|index| counts.get_mut(index));
            if let Some(place) = place {
                *place = place.saturating_add(*count);
            }
        }
    }
    // A shifted offset is nearer to zero than the one that it was.
    Buckets { offset: i32::try_from(low).unwrap_or(0), bucket_counts: counts }
}

/// Takes the buckets below a width into the zero bucket.
fn widen(point: &mut ExponentialPoint, width: f64) {
    let base = (-f64::from(point.scale)).exp2();
    let mut moved = 0u64;
    for buckets in [&mut point.positive, &mut point.negative].into_iter().flatten() {
        for (count, at) in buckets.bucket_counts.iter_mut().zip(buckets.offset..) {
            // A bucket that the width cuts goes as a whole.
            if (f64::from(at) * base).exp2() < width {
                moved = moved.saturating_add(std::mem::take(count));
            }
        }
    }
    point.zero_count = point.zero_count.saturating_add(moved);
    point.zero_threshold = width;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(scale: i32, offset: i32, counts: &[u64]) -> ExponentialPoint {
        ExponentialPoint {
            scale,
            count: counts.iter().sum::<u64>() + 2,
            zero_count: 2,
            sum: Some(1.0),
            positive: Some(Buckets { offset, bucket_counts: counts.to_vec() }),
            ..ExponentialPoint::default()
        }
    }

    fn pairs(made: &NativeHistogram) -> Vec<(i32, f64)> {
        made.positive.iter().collect()
    }

    #[test]
    fn buckets_keep_their_bounds() {
        let made = native(&point(3, -1, &[1, 0, 2])).unwrap();
        assert_eq!((made.schema, made.count, made.zero_count), (3, 5.0, 2.0));
        assert_eq!(pairs(&made), [(0, 1.0), (2, 2.0)]);
        // Two scales finer than there is: four buckets are one.
        let made = native(&point(10, -2, &[1, 2, 3, 4, 5, 6, 7])).unwrap();
        assert_eq!((made.schema, pairs(&made)), (8, vec![(0, 3.0), (1, 18.0), (2, 7.0)]));
        assert!(native(&point(-5, 0, &[1])).is_err());
        let mut wrong = point(0, 0, &[1]);
        wrong.count = 9;
        assert!(native(&wrong).unwrap_err().contains("counts 9"));
        let mut stale = point(0, 0, &[1]);
        stale.flags = 1;
        assert_eq!(native(&stale).unwrap().sum.to_bits(), STALE_MARKER.to_bits());
    }

    #[test]
    fn sums_are_as_coarse_as_they_must_be() {
        let (mut sum, mut added) = (point(2, 0, &[1, 1, 1, 1]), point(1, 1, &[4]));
        add(&mut sum, &mut added);
        assert_eq!((sum.scale, sum.zero_count), (1, 4));
        assert_eq!(sum.positive, Some(Buckets { offset: 0, bucket_counts: vec![2, 6] }));
        let (mut low, mut high) = (point(0, -200, &[1]), point(0, 200, &[1]));
        add(&mut low, &mut high);
        let buckets = low.positive.unwrap();
        assert!(low.scale < 0 && buckets.bucket_counts.len() <= 160, "{}", low.scale);
        assert_eq!(buckets.bucket_counts.iter().sum::<u64>(), 2);
    }

    #[test]
    fn a_wider_zero_bucket_takes_what_is_below() {
        let (mut sum, mut added) = (point(0, -3, &[1, 2, 3, 4]), point(0, 0, &[1]));
        added.zero_threshold = 0.5;
        add(&mut sum, &mut added);
        // Buckets from 1/8 and 1/4 went; those from 1/2 and 1 stay.
        assert_eq!((sum.zero_count, sum.zero_threshold), (7, 0.5));
        assert_eq!(sum.positive, Some(Buckets { offset: -1, bucket_counts: vec![3, 5] }));
    }

    #[test]
    fn custom_buckets_are_the_histograms_own() {
        let point = HistogramPoint {
            count: 6,
            sum: Some(4.0),
            bucket_counts: vec![0, 2, 4],
            explicit_bounds: vec![1.0, 2.5],
            ..HistogramPoint::default()
        };
        let made = custom(&point).unwrap();
        assert_eq!((made.schema, made.custom_bounds.as_deref()), (CUSTOM_SCHEMA, Some(&[1.0, 2.5][..])));
        assert_eq!(pairs(&made), [(1, 2.0), (2, 4.0)]);
        let falling = HistogramPoint { explicit_bounds: vec![2.0, 1.0], ..point };
        assert!(custom(&falling).is_err());
    }
}
