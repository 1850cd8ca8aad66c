//! Native histograms as distributions: quantiles, fractions, variance, trimming, text.

use std::fmt::Write as _;

use telemetry_model::{Buckets, NativeHistogram};

use super::arithmetic::{Arithmetic, bound};
use super::kahan::Sum;
use crate::text;

/// NaN among the observations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NanRemark {
    QuantileIsNan,
    QuantileIsSkewed,
    FractionLeavesOut,
}

/// A bucket with its bounds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Bar {
    pub lower: f64,
    pub upper: f64,
    pub count: f64,
}

/// Which end of a histogram is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Upper,
    Lower,
}

/// Questions to a native histogram.
pub(crate) trait Distribution {
    /// All buckets from the lowest to the highest; the zero bucket if there is something in it.
    fn bars(&self) -> Vec<Bar>;
    /// The quantile.
    fn quantile(&self, q: f64) -> (f64, Option<NanRemark>);
    /// The share of observations between two values.
    fn fraction(&self, lower: f64, upper: f64) -> (f64, Option<NanRemark>);
    /// The variance, each observation taken to lie in the middle of its bucket.
    fn variance(&self) -> f64;
    /// Without the observations beyond a value.
    fn trim(&self, at: f64, end: End) -> NativeHistogram;
    /// As Prometheus prints it.
    fn to_text(&self) -> String;
}

// === impl Bar ===

impl Bar {
    /// The bucket of an index, on the positive side.
    fn of(histogram: &NativeHistogram, index: i32, count: f64) -> Self {
        let lower_index = index.saturating_sub(1);
        match &histogram.custom_bounds {
            Some(bounds) if histogram.has_custom_bounds() => {
                let at = |index: i32| usize::try_from(index).ok().map(|at| bounds.get(at).copied());
                let lower = at(lower_index).map_or(f64::NEG_INFINITY, |bound| bound.unwrap_or(f64::INFINITY));
                let upper = at(index).flatten().unwrap_or(f64::INFINITY);
                Self { lower, upper, count }
            }
            _ => Self {
                lower: bound(lower_index, histogram.schema),
                upper: bound(index, histogram.schema),
                count,
            },
        }
    }

    /// Whether its lower and its upper bound are in it. Bounds belong to the bucket that is nearer to zero; of custom
    /// buckets each has its upper one, and the first all that is below.
    pub fn has_bounds(&self, histogram: &NativeHistogram) -> (bool, bool) {
        if histogram.has_custom_bounds() {
            (self.lower == f64::NEG_INFINITY, true)
        } else {
            (self.lower < 0.0, self.upper > 0.0)
        }
    }

    fn mirrored(self) -> Self {
        Self { lower: -self.upper, upper: -self.lower, count: self.count }
    }

    fn zero(histogram: &NativeHistogram) -> Self {
        let threshold = histogram.zero_threshold;
        Self { lower: -threshold, upper: threshold, count: histogram.zero_count }
    }

    /// The share of its width below a value within.
    fn share_below(&self, value: f64, linear: bool) -> f64 {
        if linear {
            return (value - self.lower) / (self.upper - self.lower);
        }
        let (lower, upper) = (self.lower.abs().log2(), self.upper.abs().log2());
        let value_log = value.abs().log2();
        if value > 0.0 {
            (value_log - lower) / (upper - lower)
        } else {
            1.0 - (value_log - upper) / (lower - upper)
        }
    }
}

impl Distribution for NativeHistogram {
    fn bars(&self) -> Vec<Bar> {
        let threshold = self.zero_threshold;
        let mut bars = Vec::with_capacity(self.negative.len() + self.positive.len() + 1);
        for (index, count) in self.negative.iter().rev() {
            let mut bar = Bar::of(self, index, count).mirrored();
            if bar.upper < 0.0 && bar.upper > -threshold {
                bar.upper = -threshold;
            }
            bars.push(bar);
        }
        if self.zero_count > 0.0 && !self.has_custom_bounds() {
            bars.push(Bar::zero(self));
        }
        for (index, count) in self.positive.iter() {
            let mut bar = Bar::of(self, index, count);
            if bar.lower > 0.0 && bar.lower < threshold {
                bar.lower = threshold;
            }
            bars.push(bar);
        }
        bars
    }

    fn quantile(&self, q: f64) -> (f64, Option<NanRemark>) {
        if q < 0.0 {
            return (f64::NEG_INFINITY, None);
        }
        if q > 1.0 {
            return (f64::INFINITY, None);
        }
        if self.count == 0.0 || q.is_nan() {
            return (f64::NAN, None);
        }
        quantile(self, q)
    }

    fn fraction(&self, lower: f64, upper: f64) -> (f64, Option<NanRemark>) {
        if self.count == 0.0 || lower.is_nan() || upper.is_nan() {
            return (f64::NAN, None);
        }
        if lower >= upper {
            return (0.0, None);
        }
        let bars = self.bars();
        let (mut count, mut remark) = (self.count, None);
        if self.sum.is_nan() {
            count = bars.iter().map(|bar| bar.count).sum();
            remark = (count < self.count).then_some(NanRemark::FractionLeavesOut);
        }
        let rank = |value: f64| rank_of(self, &bars, value).unwrap_or(count).min(count);
        ((rank(upper) - rank(lower)) / self.count, remark)
    }

    fn variance(&self) -> f64 {
        let mean = self.sum / self.count;
        let mut sum = Sum::default();
        for bar in self.bars().iter().filter(|bar| bar.count != 0.0) {
            let value = if self.has_custom_bounds() {
                (bar.upper + bar.lower) / 2.0
            } else if bar.lower <= 0.0 && bar.upper >= 0.0 {
                0.0
            } else {
                let middle = (bar.upper * bar.lower).sqrt();
                if bar.upper < 0.0 { -middle } else { middle }
            };
            let delta = value - mean;
            sum = sum.plus(bar.count * delta * delta);
        }
        sum.total() / self.count
    }

    fn trim(&self, at: f64, end: End) -> NativeHistogram {
        trim(self, at, end)
    }

    fn to_text(&self) -> String {
        let mut out = format!("{{count:{}, sum:{}", text::general(self.count), text::general(self.sum));
        let zero = (self.zero_count != 0.0).then(|| Bar::zero(self));
        let negative =
            self.negative.iter().rev().map(|(index, count)| Bar::of(self, index, count).mirrored());
        let positive = self.positive.iter().map(|(index, count)| Bar::of(self, index, count));
        for bar in negative.chain(zero).chain(positive).filter(|bar| bar.count != 0.0) {
            let (has_lower, has_upper) = bar.has_bounds(self);
            let (open, close) = (if has_lower { '[' } else { '(' }, if has_upper { ']' } else { ')' });
            let (lower, upper) = (text::general(bar.lower), text::general(bar.upper));
            let count = text::general(bar.count);
            // Writing to a String cannot fail.
            let _ = write!(out, ", {open}{lower},{upper}{close}:{count}");
        }
        out.push('}');
        out
    }
}

fn quantile(histogram: &NativeHistogram, q: f64) -> (f64, Option<NanRemark>) {
    let mut bars = histogram.bars();
    // NaN observations count, but are in no bucket: only from below is it known how many are missing.
    let forward = histogram.sum.is_nan() || q < 0.5;
    let rank = if forward { q * histogram.count } else { (1.0 - q) * histogram.count };
    if !forward {
        bars.reverse();
    }
    let (mut bar, mut count, mut rest) = (Bar::default(), 0.0, bars.iter());
    for next in rest.by_ref() {
        bar = *next;
        if bar.count == 0.0 {
            continue;
        }
        count += bar.count;
        if count >= rank {
            break;
        }
    }
    let custom = histogram.has_custom_bounds();
    if custom {
        if bar.lower == f64::NEG_INFINITY {
            if bar.upper <= 0.0 {
                return (bar.upper, None);
            }
            bar.lower = 0.0;
        } else if bar.upper == f64::INFINITY {
            return (bar.lower, None);
        }
    } else if bar.lower < 0.0 && bar.upper > 0.0 {
        clip_zero(histogram, &mut bar);
    }
    count = count.min(histogram.count);
    if count < rank {
        return match histogram.sum.is_nan() {
            true => (f64::NAN, Some(NanRemark::QuantileIsNan)),
            false => (bar.upper, None),
        };
    }
    let within = if forward { rank - (count - bar.count) } else { count - rank };
    let mut remark = None;
    if histogram.sum.is_nan() {
        let all = count + rest.map(|bar| bar.count).sum::<f64>();
        remark = (all < histogram.count).then_some(NanRemark::QuantileIsSkewed);
    }
    let share = within / bar.count;
    if custom || bar.lower <= 0.0 && bar.upper >= 0.0 {
        return (bar.lower + (bar.upper - bar.lower) * share, remark);
    }
    let (lower, upper) = (bar.lower.abs().log2(), bar.upper.abs().log2());
    if bar.lower > 0.0 {
        return (f64::exp2(lower + (upper - lower) * share), remark);
    }
    (-f64::exp2(upper + (lower - upper) * (1.0 - share)), remark)
}

/// The zero bucket of a histogram with observations on one side only reaches to that side only.
fn clip_zero(histogram: &NativeHistogram, bar: &mut Bar) {
    if histogram.negative.is_empty() && !histogram.positive.is_empty() {
        bar.lower = 0.0;
    } else if histogram.positive.is_empty() && !histogram.negative.is_empty() {
        bar.upper = 0.0;
    }
}

/// How many observations lie below a value; none said if it is beyond all buckets.
fn rank_of(histogram: &NativeHistogram, bars: &[Bar], value: f64) -> Option<f64> {
    let mut rank = 0.0;
    for bar in bars {
        let mut bar = *bar;
        let is_zero = bar.lower <= 0.0 && bar.upper >= 0.0;
        if is_zero {
            clip_zero(histogram, &mut bar);
        }
        if bar.lower >= value {
            return Some(rank);
        }
        if bar.upper > value {
            let linear = histogram.has_custom_bounds() || is_zero;
            if linear && bar.lower == f64::NEG_INFINITY {
                return Some(bar.count);
            }
            return Some(rank + bar.count * bar.share_below(value, linear));
        }
        rank += bar.count;
    }
    None
}

/// What trimming leaves of a histogram.
struct Trimmed {
    count: f64,
    sum: f64,
    changed: bool,
}

fn trim(histogram: &NativeHistogram, at: f64, end: End) -> NativeHistogram {
    let custom = histogram.has_custom_bounds();
    let mut out = histogram.clone();
    let mut kept = Trimmed { count: 0.0, sum: 0.0, changed: false };
    let sides = [(&mut out.positive, true), (&mut out.negative, false)];
    let mut has = [false, false];
    for ((buckets, positive), has) in sides.into_iter().zip(&mut has) {
        let Buckets { indexes, counts } = buckets;
        for (index, count) in indexes.iter().zip(counts.iter_mut()).filter(|(_, count)| **count != 0.0) {
            *has = true;
            let bar = Bar::of(histogram, *index, *count);
            let bar = if positive { bar } else { bar.mirrored() };
            let (keep, middle) = trim_bar(bar, at, end, positive, custom);
            kept.count += keep;
            kept.sum += if keep == 0.0 { 0.0 } else { middle * keep };
            if *count != keep {
                *count = keep;
                kept.changed = true;
            }
        }
    }
    if histogram.zero_count > 0.0 {
        let (keep, middle) = trim_zero(Bar::zero(histogram), at, end, has);
        if histogram.zero_count != keep {
            out.zero_count = keep;
            kept.changed = true;
        }
        kept.count += keep;
        kept.sum += middle * keep;
    }
    if kept.changed {
        (out.count, out.sum) = (kept.count, kept.sum);
        out.compact();
    }
    out
}

/// How many observations of a bucket stay, and where their middle is.
fn trim_bar(bar: Bar, at: f64, end: End, positive: bool, linear: bool) -> (f64, f64) {
    let (whole, none) = match end {
        End::Upper => (bar.upper <= at, bar.lower >= at),
        End::Lower => (bar.lower >= at, bar.upper <= at),
    };
    if whole {
        return (bar.count, middle(bar.lower, bar.upper, positive, linear));
    }
    // A comparison with NaN keeps nothing.
    if none || at.is_nan() {
        return (0.0, 0.0);
    }
    if bar.lower == f64::NEG_INFINITY || bar.upper == f64::INFINITY {
        return trim_infinite(bar, at, end);
    }
    let below = bar.count * bar.share_below(at, linear);
    match end {
        End::Upper => (below, middle(bar.lower, at, positive, linear)),
        End::Lower => (bar.count - below, middle(at, bar.upper, positive, linear)),
    }
}

/// A bucket without a bound: nothing is known of how its observations lie, but where it may begin at zero.
fn trim_infinite(bar: Bar, at: f64, end: End) -> (f64, f64) {
    let finite = |value: f64| if value.is_infinite() { 0.0 } else { value };
    if bar.lower == f64::NEG_INFINITY {
        let from_zero = bar.upper > 0.0 && bar.upper != f64::INFINITY;
        return match end {
            End::Upper if at > 0.0 && from_zero => (bar.count * at / bar.upper, at / 2.0),
            End::Upper if bar.upper <= 0.0 => (bar.count, at),
            End::Lower if at >= 0.0 && from_zero => {
                (bar.count * (1.0 - at / bar.upper), f64::midpoint(at, bar.upper))
            }
            _ => (0.0, finite(bar.upper)),
        };
    }
    match end {
        End::Lower if at >= bar.lower => (bar.count, at),
        _ => (0.0, finite(bar.lower)),
    }
}

fn trim_zero(bar: Bar, at: f64, end: End, [has_positive, has_negative]: [bool; 2]) -> (f64, f64) {
    let upper = if has_negative && !has_positive { 0.0 } else { bar.upper };
    let lower = if has_positive && !has_negative { 0.0 } else { bar.lower };
    let width = upper - lower;
    let whole = (bar.count, f64::midpoint(lower, upper));
    match end {
        End::Upper if at <= lower => (0.0, 0.0),
        End::Upper if at >= upper => whole,
        End::Upper => (bar.count * (at - lower) / width, f64::midpoint(lower, at)),
        End::Lower if at <= lower => whole,
        End::Lower if at >= upper => (0.0, 0.0),
        End::Lower => (bar.count * (upper - at) / width, f64::midpoint(at, upper)),
    }
}

/// The middle of an interval, geometric where buckets are exponential.
fn middle(lower: f64, upper: f64, positive: bool, linear: bool) -> f64 {
    if lower.is_infinite() {
        return match upper {
            _ if upper.is_infinite() => 0.0,
            _ if upper > 0.0 => upper / 2.0,
            _ => upper,
        };
    }
    if upper.is_infinite() {
        return lower;
    }
    if linear {
        return f64::midpoint(lower, upper);
    }
    let middle = (lower * upper).abs().sqrt();
    if positive { middle } else { -middle }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram() -> NativeHistogram {
        NativeHistogram {
            schema: 0,
            count: 12.0,
            sum: 30.0,
            zero_threshold: 0.001,
            zero_count: 2.0,
            positive: [(0, 2.0), (1, 3.0), (3, 5.0)].into_iter().collect(),
            ..NativeHistogram::default()
        }
    }

    #[test]
    fn quantiles_are_interpolated_on_a_logarithmic_scale() {
        // 10 of 12 lie below (4, 8]: the middle of that bucket's observations is at 4 * sqrt(2).
        let (value, remark) = histogram().quantile(9.5 / 12.0);
        assert!((value - 4.0 * f64::sqrt(2.0)).abs() < 1e-9 && remark.is_none(), "{value}");
        assert_eq!(histogram().quantile(0.0).0, 0.0, "the zero bucket begins at zero");
        assert_eq!(histogram().quantile(1.0).0, 8.0);
    }

    #[test]
    fn fractions_are_the_inverse_of_quantiles() {
        let value = histogram().quantile(0.7).0;
        assert!((histogram().fraction(f64::NEG_INFINITY, value).0 - 0.7).abs() < 1e-9);
    }

    #[test]
    fn both_parts_of_a_trimmed_histogram_are_the_whole() {
        let whole = histogram();
        for at in [0.0005, 0.7, 1.5, 5.0, 9.0] {
            let parts = whole.trim(at, End::Upper).count + whole.trim(at, End::Lower).count;
            assert!((parts - whole.count).abs() < 1e-9, "at {at}: {parts}");
        }
    }

    #[test]
    fn texts_are_those_of_prometheus() {
        assert_eq!(
            histogram().to_text(),
            "{count:12, sum:30, [-0.001,0.001]:2, (0.5,1]:2, (1,2]:3, (4,8]:5}"
        );
    }
}
