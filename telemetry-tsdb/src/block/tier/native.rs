//! Arithmetic of cumulative native histograms: whether one goes on from another, and what was added in between.

use std::borrow::Cow;

use telemetry_model::{Buckets, NativeHistogram, ResetHint};

/// Whether `now` cannot have grown out of `before`: what Prometheus calls a counter reset.
pub fn is_reset(now: &NativeHistogram, before: &NativeHistogram) -> bool {
    match now.reset {
        ResetHint::Reset => return true,
        ResetHint::NotReset => return false,
        ResetHint::Unknown | ResetHint::Gauge => {}
    }
    // A producer only ever makes its buckets coarser; finer ones are a new count.
    if now.count < before.count || now.schema > before.schema || now.zero_threshold < before.zero_threshold {
        return true;
    }
    let Some((now, before)) = align(now, before) else { return true };
    let is_less = |now: &Buckets, before: &Buckets| {
        before.iter().any(|(index, count)| {
            let at = now.indexes.binary_search(&index).ok();
            at.and_then(|at| now.counts.get(at)).copied().unwrap_or(0.0) < count
        })
    };
    now.zero_count < before.zero_count
        || is_less(&now.positive, &before.positive)
        || is_less(&now.negative, &before.negative)
}

/// `a - b`, in the coarser layout of the two. `None` if they have none in common.
pub fn minus(a: &NativeHistogram, b: &NativeHistogram) -> Option<NativeHistogram> {
    combine(a, b, -1.0)
}

/// `a + b`, likewise.
pub fn plus(a: &NativeHistogram, b: &NativeHistogram) -> Option<NativeHistogram> {
    combine(a, b, 1.0)
}

fn combine(a: &NativeHistogram, b: &NativeHistogram, sign: f64) -> Option<NativeHistogram> {
    let (a, b) = align(a, b)?;
    Some(NativeHistogram {
        schema: a.schema,
        // Differences and sums are no cumulative state: they may fall.
        reset: ResetHint::Gauge,
        zero_threshold: a.zero_threshold,
        zero_count: a.zero_count + sign * b.zero_count,
        count: a.count + sign * b.count,
        sum: a.sum + sign * b.sum,
        positive: merge(&a.positive, &b.positive, sign),
        negative: merge(&a.negative, &b.negative, sign),
        custom_bounds: a.custom_bounds.clone(),
    })
}

fn merge(a: &Buckets, b: &Buckets, sign: f64) -> Buckets {
    let (mut a, mut b) = (a.iter().peekable(), b.iter().peekable());
    let mut out = Buckets::default();
    loop {
        let (index, count) = match (a.peek().copied(), b.peek().copied()) {
            (None, None) => return out,
            (Some((i, x)), Some((j, y))) if i == j => {
                a.next();
                b.next();
                (i, x + sign * y)
            }
            (Some((i, x)), other) if other.is_none_or(|(j, _)| i < j) => {
                a.next();
                (i, x)
            }
            (_, Some((j, y))) => {
                b.next();
                (j, sign * y)
            }
            (Some(left), None) => {
                a.next();
                left
            }
        };
        if count != 0.0 {
            out.indexes.push(index);
            out.counts.push(count);
        }
    }
}

type Pair<'a> = (Cow<'a, NativeHistogram>, Cow<'a, NativeHistogram>);

/// Both in the coarser layout of the two.
fn align<'a>(a: &'a NativeHistogram, b: &'a NativeHistogram) -> Option<Pair<'a>> {
    if a.has_custom_bounds() || b.has_custom_bounds() {
        let bits = |h: &NativeHistogram| -> Option<Vec<u64>> {
            h.custom_bounds.as_ref().map(|bounds| bounds.iter().map(|bound| bound.to_bits()).collect())
        };
        let is_same = a.schema == b.schema && bits(a) == bits(b);
        return is_same.then_some((Cow::Borrowed(a), Cow::Borrowed(b)));
    }
    let schema = a.schema.min(b.schema);
    let (a, b) = (coarsen(a, schema), coarsen(b, schema));
    let threshold = a.zero_threshold.max(b.zero_threshold);
    Some((widen_zero(a, threshold)?, widen_zero(b, threshold)?))
}

fn coarsen(h: &NativeHistogram, schema: i8) -> Cow<'_, NativeHistogram> {
    if h.schema == schema {
        return Cow::Borrowed(h);
    }
    let shift = u32::from(h.schema.abs_diff(schema)).min(31);
    let fold = |buckets: &Buckets| {
        let mut out = Buckets::default();
        for (index, count) in buckets.iter() {
            let to = (index.wrapping_sub(1) >> shift).wrapping_add(1);
            match (out.indexes.last(), out.counts.last_mut()) {
                (Some(last), Some(sum)) if *last == to => *sum += count,
                _ => {
                    out.indexes.push(to);
                    out.counts.push(count);
                }
            }
        }
        out
    };
    let (positive, negative) = (fold(&h.positive), fold(&h.negative));
    Cow::Owned(NativeHistogram { schema, positive, negative, ..h.clone() })
}

/// The upper bound of a bucket's size.
fn bound(index: i32, schema: i8) -> f64 {
    (f64::from(index) * (-f64::from(schema)).exp2()).exp2()
}

/// With a wider zero bucket. `None` if its border would cut a bucket with observations.
fn widen_zero(h: Cow<'_, NativeHistogram>, threshold: f64) -> Option<Cow<'_, NativeHistogram>> {
    if h.zero_threshold.to_bits() == threshold.to_bits() || h.zero_threshold >= threshold {
        return Some(h);
    }
    let mut wide = h.into_owned();
    let (mut moved, schema) = (0.0, wide.schema);
    for buckets in [&mut wide.positive, &mut wide.negative] {
        let inside = buckets.indexes.partition_point(|index| bound(*index, schema) <= threshold);
        let cut = buckets.indexes.get(inside).zip(buckets.counts.get(inside));
        if cut
            .is_some_and(|(index, count)| *count != 0.0 && bound(index.saturating_sub(1), schema) < threshold)
        {
            return None;
        }
        moved += buckets.counts.drain(..inside).sum::<f64>();
        buckets.indexes.drain(..inside);
    }
    wide.zero_count += moved;
    wide.zero_threshold = threshold;
    Some(Cow::Owned(wide))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(schema: i8, zero: (f64, f64), positive: &[(i32, f64)]) -> NativeHistogram {
        let count = zero.1 + positive.iter().map(|(_, count)| count).sum::<f64>();
        NativeHistogram {
            schema,
            zero_threshold: zero.0,
            zero_count: zero.1,
            count,
            sum: count,
            positive: positive.iter().copied().collect(),
            ..NativeHistogram::default()
        }
    }

    #[test]
    fn a_coarser_layout_goes_on_and_a_finer_one_is_a_reset() {
        let fine = of(1, (0.001, 1.0), &[(-1, 1.0), (0, 2.0), (1, 3.0), (2, 4.0), (5, 1.0)]);
        let coarse = of(0, (0.001, 1.0), &[(0, 4.0), (1, 7.0), (3, 1.0)]);
        assert!(!is_reset(&coarse, &fine) && is_reset(&fine, &coarse));
        let grown = minus(&coarse, &fine).unwrap();
        assert_eq!(
            (grown.schema, grown.count, grown.positive),
            (0, 1.0, std::iter::once((0, 1.0)).collect())
        );
        assert_eq!(
            plus(&fine, &coarse).unwrap().positive,
            [(0, 7.0), (1, 14.0), (3, 2.0)].into_iter().collect()
        );
    }

    #[test]
    fn a_wider_zero_bucket_takes_whole_buckets_in() {
        let narrow = of(0, (0.25, 1.0), &[(-1, 2.0), (0, 3.0), (1, 1.0)]);
        let wide = of(0, (0.5, 3.0), &[(0, 4.0), (1, 1.0)]);
        assert!(!is_reset(&wide, &narrow));
        let grown = minus(&wide, &narrow).unwrap();
        assert_eq!((grown.zero_count, grown.count), (0.0, 1.0));
        assert!(is_reset(&of(0, (0.3, 9.0), &[(0, 9.0), (1, 9.0)]), &narrow), "the border cuts a bucket");
    }

    #[test]
    fn falling_buckets_and_other_bounds_are_resets() {
        let before = of(0, (0.0, 0.0), &[(1, 5.0), (2, 5.0)]);
        assert!(is_reset(&of(0, (0.0, 0.0), &[(1, 4.0), (2, 9.0)]), &before));
        assert!(is_reset(&of(0, (0.0, 0.0), &[(2, 12.0)]), &before));
        assert!(!is_reset(&of(0, (0.0, 0.0), &[(1, 5.0), (2, 6.0), (9, 1.0)]), &before));
        let custom = |bounds: &[f64]| NativeHistogram {
            schema: telemetry_model::native::CUSTOM_SCHEMA,
            custom_bounds: Some(bounds.into()),
            ..of(0, (0.0, 0.0), &[(0, 5.0)])
        };
        assert!(
            is_reset(&custom(&[1.0, 2.0]), &custom(&[1.0])) && !is_reset(&custom(&[1.0]), &custom(&[1.0]))
        );
        assert!(minus(&custom(&[1.0]), &before).is_none());
    }
}
