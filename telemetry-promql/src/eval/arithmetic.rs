//! Arithmetic of native histograms: what is added must agree in schema and zero bucket first, the coarser wins.

use std::sync::Arc;

use telemetry_model::native::CUSTOM_SCHEMA;
use telemetry_model::{Buckets, NativeHistogram, ResetHint};

use super::compensated;
use super::kahan::Sum;

/// What there is to say about an addition or subtraction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// One said that its count began anew, the other that it did not.
    pub reset_collision: bool,
    /// Custom bounds differed; only those that both have stay.
    pub bounds_reconciled: bool,
}

/// Exponential and custom buckets do not go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Incompatible;

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sign {
    Plus,
    Minus,
}

/// Arithmetic of native histograms.
pub(crate) trait Arithmetic: Sized {
    /// Scales counts and sum. A negative factor makes a gauge of it.
    fn multiply(&mut self, by: f64);
    /// Scales counts and sum the other way; by zero it has no buckets left.
    fn divide(&mut self, by: f64);
    /// Adds another.
    fn add(&mut self, other: &Self) -> Result<Outcome, Incompatible>;
    /// Takes another away.
    fn sub(&mut self, other: &Self) -> Result<Outcome, Incompatible>;
    /// Adds another, and what rounding took to `rest`.
    fn kahan_add(&mut self, other: &Self, rest: &mut Option<Self>) -> Result<Outcome, Incompatible>;
    /// Takes empty buckets out.
    fn compact(&mut self);
    /// With buckets as coarse as a schema's.
    fn at_schema(&self, schema: i8) -> Self;
    /// Whether the count began anew since `before`.
    fn detect_reset(&self, before: &Self) -> bool;
    /// Whether they are the same, bit by bit; hints aside.
    fn equals(&self, other: &Self) -> bool;
    /// Whether something has become infinite.
    fn has_overflow(&self) -> bool;
}

/// The upper bound of an exponential bucket.
pub(crate) fn bound(index: i32, schema: i8) -> f64 {
    let power = f64::from(index) * f64::exp2(-f64::from(schema));
    // The last bucket ends at the greatest number, so that infinity has one of its own.
    if power == 1024.0 { f64::MAX } else { f64::exp2(power) }
}

impl Arithmetic for NativeHistogram {
    fn multiply(&mut self, by: f64) {
        each_count(self, |count| *count *= by);
        if by < 0.0 {
            self.reset = ResetHint::Gauge;
        }
    }

    fn divide(&mut self, by: f64) {
        each_count(self, |count| *count /= by);
        if by == 0.0 {
            self.positive = Buckets::default();
            self.negative = Buckets::default();
        } else if by < 0.0 {
            self.reset = ResetHint::Gauge;
        }
    }

    fn add(&mut self, other: &Self) -> Result<Outcome, Incompatible> {
        combine(self, other, Sign::Plus)
    }

    fn sub(&mut self, other: &Self) -> Result<Outcome, Incompatible> {
        combine(self, other, Sign::Minus)
    }

    fn kahan_add(&mut self, other: &Self, rest: &mut Option<Self>) -> Result<Outcome, Incompatible> {
        compensated::add(self, other, rest)
    }

    fn compact(&mut self) {
        for buckets in [&mut self.positive, &mut self.negative] {
            if buckets.counts.contains(&0.0) {
                *buckets = buckets.iter().filter(|(_, count)| *count != 0.0).collect();
            }
        }
    }

    fn at_schema(&self, schema: i8) -> Self {
        let mut made = self.clone();
        if schema < self.schema && !self.has_custom_bounds() {
            made.positive = coarser(&self.positive, self.schema, schema);
            made.negative = coarser(&self.negative, self.schema, schema);
            made.schema = schema;
            made.reset = ResetHint::Unknown;
        }
        made
    }

    fn detect_reset(&self, before: &Self) -> bool {
        match self.reset {
            ResetHint::Reset => return true,
            ResetHint::NotReset => return false,
            ResetHint::Unknown | ResetHint::Gauge => {}
        }
        if self.count < before.count {
            return true;
        }
        if self.has_custom_bounds() {
            if !before.has_custom_bounds() {
                return true;
            }
            if self.custom_bounds != before.custom_bounds {
                let bounds = common_bounds(self, before);
                return falls(&at_bounds(self, &bounds), &at_bounds(before, &bounds));
            }
        }
        if self.schema > before.schema || self.zero_threshold < before.zero_threshold {
            return true;
        }
        let (zero, threshold) = widened_zero(before, None, self.zero_threshold);
        if threshold != self.zero_threshold || self.zero_count < zero.value {
            return true;
        }
        let before_coarse = before.at_schema(self.schema);
        let outside = |buckets: &Buckets| outside(buckets, self.schema, self.zero_threshold);
        falls(&outside(&self.positive), &outside(&before_coarse.positive))
            || falls(&outside(&self.negative), &outside(&before_coarse.negative))
    }

    fn equals(&self, other: &Self) -> bool {
        let same = |a: f64, b: f64| a.to_bits() == b.to_bits();
        let same_buckets = |a: &Buckets, b: &Buckets| {
            a.indexes == b.indexes && a.counts.iter().zip(&b.counts).all(|(a, b)| same(*a, *b))
        };
        self.schema == other.schema
            && same(self.count, other.count)
            && same(self.sum, other.sum)
            && (!self.has_custom_bounds() || self.custom_bounds == other.custom_bounds)
            && self.zero_threshold == other.zero_threshold
            && same(self.zero_count, other.zero_count)
            && same_buckets(&self.negative, &other.negative)
            && same_buckets(&self.positive, &other.positive)
    }

    fn has_overflow(&self) -> bool {
        let buckets = self.positive.counts.iter().chain(&self.negative.counts);
        buckets.chain([&self.zero_count, &self.count, &self.sum]).any(|value| value.is_infinite())
    }
}

fn each_count(histogram: &mut NativeHistogram, f: impl Fn(&mut f64)) {
    let buckets = histogram.positive.counts.iter_mut().chain(&mut histogram.negative.counts);
    let others = [&mut histogram.zero_count, &mut histogram.count, &mut histogram.sum];
    buckets.chain(others).for_each(f);
}

fn combine(
    histogram: &mut NativeHistogram,
    other: &NativeHistogram,
    sign: Sign,
) -> Result<Outcome, Incompatible> {
    if histogram.has_custom_bounds() != other.has_custom_bounds() {
        return Err(Incompatible);
    }
    let mut outcome = Outcome { reset_collision: merge_hints(histogram, other), bounds_reconciled: false };
    let signed = |value: f64| if sign == Sign::Plus { value } else { -value };
    if histogram.has_custom_bounds() {
        histogram.count += signed(other.count);
        histogram.sum += signed(other.sum);
        if histogram.custom_bounds == other.custom_bounds {
            histogram.positive = added(&histogram.positive, &other.positive, sign);
        } else {
            let bounds = common_bounds(histogram, other);
            let (ours, theirs) = (at_bounds(histogram, &bounds), at_bounds(other, &bounds));
            histogram.positive = added(&ours, &theirs, sign);
            histogram.custom_bounds = Some(bounds);
            histogram.compact();
            outcome.bounds_reconciled = true;
        }
        return Ok(outcome);
    }
    let zero = reconcile_zero(histogram, None, other);
    histogram.zero_count += signed(zero.value);
    histogram.count += signed(other.count);
    histogram.sum += signed(other.sum);
    let schema = histogram.schema.min(other.schema);
    if schema < histogram.schema {
        histogram.positive = coarser(&histogram.positive, histogram.schema, schema);
        histogram.negative = coarser(&histogram.negative, histogram.schema, schema);
        histogram.schema = schema;
    }
    let threshold = histogram.zero_threshold;
    // Before they are made coarser: what the zero bucket took must not come again within a coarser bucket that reaches beyond.
    let theirs =
        |buckets: &Buckets| coarser(&outside(buckets, other.schema, threshold), other.schema, schema);
    histogram.positive = added(&histogram.positive, &theirs(&other.positive), sign);
    histogram.negative = added(&histogram.negative, &theirs(&other.negative), sign);
    Ok(outcome)
}

/// What is known about resets of the two together; whether they contradict each other.
pub(super) fn merge_hints(histogram: &mut NativeHistogram, other: &NativeHistogram) -> bool {
    use ResetHint::{Gauge, Unknown};
    match (histogram.reset, other.reset) {
        (ours, theirs) if ours == theirs => {}
        (Gauge, _) => {}
        (_, Gauge) => histogram.reset = Gauge,
        (Unknown, _) => {}
        (_, Unknown) => histogram.reset = Unknown,
        _ => {
            histogram.reset = Unknown;
            return true;
        }
    }
    false
}

/// Walks two lists of buckets together.
pub(super) fn merged(a: &Buckets, b: &Buckets, mut f: impl FnMut(i32, Option<f64>, Option<f64>)) {
    let (mut ours, mut theirs) = (a.iter().peekable(), b.iter().peekable());
    loop {
        let (left, right) = (ours.peek().copied(), theirs.peek().copied());
        let index = match (left, right) {
            (None, None) => return,
            (Some((index, _)), None) | (None, Some((index, _))) => index,
            (Some((left, _)), Some((right, _))) => left.min(right),
        };
        let left = ours.next_if(|(at, _)| *at == index).map(|(_, count)| count);
        let right = theirs.next_if(|(at, _)| *at == index).map(|(_, count)| count);
        f(index, left, right);
    }
}

fn added(a: &Buckets, b: &Buckets, sign: Sign) -> Buckets {
    let mut out = Buckets::default();
    merged(a, b, |index, left, right| {
        let (left, right) = (left.unwrap_or(0.0), right.unwrap_or(0.0));
        out.indexes.push(index);
        out.counts.push(if sign == Sign::Plus { left + right } else { left - right });
    });
    out
}

/// The bucket of a coarser schema that a bucket lies in.
pub(super) fn coarser_index(index: i32, from: i8, to: i8) -> i32 {
    let shift = u32::try_from(i32::from(from) - i32::from(to)).unwrap_or(0).min(31);
    if shift == 0 { index } else { (index.saturating_sub(1) >> shift) + 1 }
}

/// Buckets of a coarser schema.
fn coarser(buckets: &Buckets, from: i8, to: i8) -> Buckets {
    if from <= to {
        return buckets.clone();
    }
    let mut out = Buckets::default();
    for (index, count) in buckets.iter() {
        let index = coarser_index(index, from, to);
        if out.indexes.last() == Some(&index) {
            if let Some(last) = out.counts.last_mut() {
                *last += count;
            }
        } else {
            out.indexes.push(index);
            out.counts.push(count);
        }
    }
    out
}

/// Buckets that do not lie within the zero bucket.
pub(super) fn outside(buckets: &Buckets, schema: i8, threshold: f64) -> Buckets {
    if schema == CUSTOM_SCHEMA || threshold == 0.0 {
        return buckets.clone();
    }
    buckets.iter().filter(|(index, _)| bound(*index, schema) > threshold).collect()
}

/// Whether a bucket holds less than it did.
fn falls(now: &Buckets, before: &Buckets) -> bool {
    let mut found = false;
    merged(now, before, |_, now, before| {
        if let Some(before) = before {
            found |= now.map_or(before != 0.0, |now| now < before);
        }
    });
    found
}

/// The zero bucket's count if it reached up to `threshold`, or to the end of a bucket in use that lies across it.
/// What rounding took from the histogram before is added.
fn widened_zero(
    histogram: &NativeHistogram,
    rest: Option<&NativeHistogram>,
    mut threshold: f64,
) -> (Sum, f64) {
    let zero = Sum { value: histogram.zero_count, rest: rest.map_or(0.0, |rest| rest.zero_count) };
    if threshold <= histogram.zero_threshold {
        return (zero, histogram.zero_threshold);
    }
    let sides = [
        (&histogram.positive, rest.map(|rest| &rest.positive)),
        (&histogram.negative, rest.map(|rest| &rest.negative)),
    ];
    let schema = histogram.schema;
    loop {
        let before = threshold;
        let mut sum = zero;
        for (buckets, rests) in sides {
            for (at, (index, count)) in buckets.iter().enumerate() {
                let (lower, upper) = (bound(index.saturating_sub(1), schema), bound(index, schema));
                if lower >= threshold {
                    break;
                }
                sum = sum.plus(count);
                if let Some(rest) = rests.and_then(|rests| rests.counts.get(at)) {
                    sum = sum.plus(*rest);
                }
                if upper > threshold {
                    if count != 0.0 {
                        threshold = upper;
                    }
                    break;
                }
            }
        }
        if threshold == before {
            return (sum, threshold);
        }
    }
}

/// Makes the zero bucket wide enough for both, of `rest` as well; what the other's would then hold.
pub(super) fn reconcile_zero(
    histogram: &mut NativeHistogram,
    mut rest: Option<&mut NativeHistogram>,
    other: &NativeHistogram,
) -> Sum {
    let (mut zero, mut threshold) = (Sum::of(other.zero_count), other.zero_threshold);
    while threshold != histogram.zero_threshold {
        if histogram.zero_threshold > threshold {
            (zero, threshold) = widened_zero(other, None, histogram.zero_threshold);
        }
        if threshold > histogram.zero_threshold {
            let (sum, wider) = widened_zero(histogram, rest.as_deref(), threshold);
            histogram.zero_count = sum.value;
            if let Some(rest) = rest.as_deref_mut() {
                rest.zero_count = sum.rest;
                widen(rest, wider);
            }
            widen(histogram, wider);
        }
        if threshold.is_nan() || histogram.zero_threshold.is_nan() {
            break;
        }
    }
    zero
}

/// Leaves only buckets beyond a zero bucket that reaches so far.
fn widen(histogram: &mut NativeHistogram, threshold: f64) {
    let schema = histogram.schema;
    let beyond = |buckets: &Buckets| {
        buckets.iter().filter(|(at, _)| bound(at.saturating_sub(1), schema) >= threshold).collect()
    };
    histogram.positive = beyond(&histogram.positive);
    histogram.negative = beyond(&histogram.negative);
    histogram.zero_threshold = threshold;
}

/// The custom bounds that both have.
pub(super) fn common_bounds(a: &NativeHistogram, b: &NativeHistogram) -> Arc<[f64]> {
    let theirs = b.custom_bounds.as_deref().unwrap_or(&[]);
    let ours = a.custom_bounds.as_deref().unwrap_or(&[]).iter().copied();
    ours.filter(|bound| theirs.contains(bound)).collect()
}

/// Where a custom bucket lies among fewer bounds.
pub(super) fn common_place(histogram: &NativeHistogram, index: i32, bounds: &[f64]) -> i32 {
    let own = histogram.custom_bounds.as_deref().unwrap_or(&[]);
    let upper = usize::try_from(index).ok().and_then(|at| own.get(at)).copied().unwrap_or(f64::INFINITY);
    i32::try_from(bounds.partition_point(|bound| *bound < upper)).unwrap_or(i32::MAX)
}

/// Custom buckets joined to fewer bounds.
fn at_bounds(histogram: &NativeHistogram, bounds: &[f64]) -> Buckets {
    let mut out = Buckets::default();
    for (index, count) in histogram.positive.iter() {
        let place = common_place(histogram, index, bounds);
        if out.indexes.last() == Some(&place) {
            if let Some(last) = out.counts.last_mut() {
                *last += count;
            }
        } else {
            out.indexes.push(place);
            out.counts.push(count);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(schema: i8, buckets: &[(i32, f64)]) -> NativeHistogram {
        let count = buckets.iter().map(|bucket| bucket.1).sum();
        NativeHistogram {
            schema,
            count,
            sum: 2.0 * count,
            positive: buckets.iter().copied().collect(),
            ..NativeHistogram::default()
        }
    }

    #[test]
    fn the_coarser_schema_wins() {
        let mut fine = histogram(1, &[(1, 1.0), (2, 2.0), (3, 4.0)]);
        fine.add(&histogram(0, &[(1, 8.0)])).unwrap();
        assert_eq!(fine.schema, 0);
        assert_eq!(fine.positive.iter().collect::<Vec<_>>(), [(1, 11.0), (2, 4.0)]);
    }

    #[test]
    fn a_wider_zero_bucket_swallows_buckets() {
        let mut narrow = histogram(0, &[(0, 1.0), (1, 2.0), (3, 4.0)]);
        let wide = NativeHistogram { zero_threshold: 1.5, zero_count: 5.0, count: 5.0, ..histogram(0, &[]) };
        narrow.add(&wide).unwrap();
        assert_eq!((narrow.zero_threshold, narrow.zero_count), (2.0, 8.0));
        assert_eq!(narrow.positive.iter().collect::<Vec<_>>(), [(3, 4.0)]);
    }

    #[test]
    fn resets_are_seen_in_buckets() {
        let before = histogram(0, &[(1, 2.0), (2, 2.0)]);
        assert!(!histogram(0, &[(1, 2.0), (2, 3.0)]).detect_reset(&before));
        assert!(histogram(0, &[(1, 1.0), (2, 9.0)]).detect_reset(&before));
        assert!(histogram(0, &[(2, 9.0)]).detect_reset(&before));
    }

    #[test]
    fn custom_bounds_are_joined_to_common_ones() {
        let custom = |bounds: &[f64], buckets: &[(i32, f64)]| NativeHistogram {
            custom_bounds: Some(bounds.into()),
            ..histogram(CUSTOM_SCHEMA, buckets)
        };
        let mut a = custom(&[1.0, 2.0, 3.0], &[(0, 1.0), (1, 2.0), (3, 4.0)]);
        let outcome = a.add(&custom(&[2.0, 3.0], &[(0, 8.0)])).unwrap();
        assert!(outcome.bounds_reconciled);
        assert_eq!(a.positive.iter().collect::<Vec<_>>(), [(0, 11.0), (2, 4.0)]);
        assert_eq!(a.add(&histogram(0, &[])), Err(Incompatible));
    }
}
