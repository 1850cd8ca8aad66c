//! Native histograms added up without losing what rounding takes, whatever their layouts: Kahan's sum of each bucket.
//!
//! A sum is two histograms of one layout: what it is, and what rounding took from it. Before another is added, both are
//! brought to the layout that fits all, and what rounding takes there is kept, too.

use telemetry_model::{Buckets, NativeHistogram};

use super::arithmetic::{
    Incompatible, Outcome, coarser_index, common_bounds, common_place, merge_hints, merged, outside,
    reconcile_zero,
};
use super::kahan::Sum;

/// Adds `other` to `value`, and what rounding took to `rest`. Nothing is changed if they do not go together.
pub(super) fn add(
    value: &mut NativeHistogram,
    other: &NativeHistogram,
    rest: &mut Option<NativeHistogram>,
) -> Result<Outcome, Incompatible> {
    if value.has_custom_bounds() != other.has_custom_bounds() {
        return Err(Incompatible);
    }
    let reset_collision = merge_hints(value, other);
    let mut c = rest.take().unwrap_or_else(|| none_of(value));
    let mut outcome = Outcome { reset_collision, bounds_reconciled: false };
    if value.has_custom_bounds() {
        outcome.bounds_reconciled = value.custom_bounds != other.custom_bounds;
        add_custom(value, other, &mut c);
    } else {
        add_exponential(value, other, &mut c);
    }
    add_number(&mut value.count, &mut c.count, other.count);
    add_number(&mut value.sum, &mut c.sum, other.sum);
    c.reset = value.reset;
    *rest = Some(c);
    Ok(outcome)
}

/// What rounding took from a histogram that was not added to.
fn none_of(value: &NativeHistogram) -> NativeHistogram {
    let none = |buckets: &Buckets| buckets.iter().map(|(index, _)| (index, 0.0)).collect();
    NativeHistogram {
        zero_count: 0.0,
        count: 0.0,
        sum: 0.0,
        positive: none(&value.positive),
        negative: none(&value.negative),
        ..value.clone()
    }
}

fn add_number(value: &mut f64, rest: &mut f64, more: f64) {
    let sum = Sum { value: *value, rest: *rest }.plus(more);
    (*value, *rest) = (sum.value, sum.rest);
}

fn add_custom(value: &mut NativeHistogram, other: &NativeHistogram, c: &mut NativeHistogram) {
    if value.custom_bounds == other.custom_bounds {
        (value.positive, c.positive) = joined(&value.positive, &other.positive, &c.positive, None);
        return;
    }
    let bounds = common_bounds(value, other);
    let ours = regrouped(&value.positive, Some(&c.positive), |index| common_place(value, index, &bounds));
    let theirs = regrouped(&other.positive, None, |index| common_place(other, index, &bounds));
    let (values, rests) = joined(&ours.0, &theirs.0, &ours.1, Some(&theirs.1));
    let both = values.iter().zip(rests.iter());
    let used = both.filter(|((_, value), (_, rest))| *value != 0.0 || *rest != 0.0);
    let (values, rests): (Vec<_>, Vec<_>) = used.unzip();
    (value.positive, c.positive) = (values.into_iter().collect(), rests.into_iter().collect());
    value.custom_bounds = Some(bounds.clone());
    c.custom_bounds = Some(bounds);
}

fn add_exponential(value: &mut NativeHistogram, other: &NativeHistogram, c: &mut NativeHistogram) {
    let zero = reconcile_zero(value, Some(c), other);
    add_number(&mut value.zero_count, &mut c.zero_count, zero.value);
    add_number(&mut value.zero_count, &mut c.zero_count, zero.rest);
    let schema = value.schema.min(other.schema);
    if schema < value.schema {
        let place = |index| coarser_index(index, value.schema, schema);
        let positive = regrouped(&value.positive, Some(&c.positive), place);
        let negative = regrouped(&value.negative, Some(&c.negative), place);
        (value.positive, c.positive) = positive;
        (value.negative, c.negative) = negative;
        value.schema = schema;
    }
    let threshold = value.zero_threshold;
    let theirs = |buckets: &Buckets| {
        let left = outside(buckets, other.schema, threshold);
        regrouped(&left, None, |index| coarser_index(index, other.schema, schema))
    };
    let (positive, negative) = (theirs(&other.positive), theirs(&other.negative));
    (value.positive, c.positive) = joined(&value.positive, &positive.0, &c.positive, Some(&positive.1));
    (value.negative, c.negative) = joined(&value.negative, &negative.0, &c.negative, Some(&negative.1));
    (c.schema, c.zero_threshold) = (value.schema, value.zero_threshold);
}

/// Buckets put together as `place` says, which never falls; and what rounding took, beside what it had taken before.
fn regrouped(buckets: &Buckets, rests: Option<&Buckets>, place: impl Fn(i32) -> i32) -> (Buckets, Buckets) {
    let (mut values, mut taken) = (Buckets::default(), Buckets::default());
    for (index, count) in buckets.iter() {
        let rest = rests.map_or(0.0, |rests| at(rests, index));
        let index = place(index);
        if values.indexes.last() == Some(&index)
            && let (Some(value), Some(rest_so_far)) = (values.counts.last_mut(), taken.counts.last_mut())
        {
            add_number(value, rest_so_far, count);
            add_number(value, rest_so_far, rest);
            continue;
        }
        values.indexes.push(index);
        values.counts.push(count);
        taken.indexes.push(index);
        taken.counts.push(rest);
    }
    (values, taken)
}

/// Buckets of one layout added up.
fn joined(a: &Buckets, b: &Buckets, a_rest: &Buckets, b_rest: Option<&Buckets>) -> (Buckets, Buckets) {
    let (mut values, mut rests) = (Buckets::default(), Buckets::default());
    merged(a, b, |index, left, right| {
        let mut sum = Sum { value: left.unwrap_or(0.0), rest: at(a_rest, index) };
        if let Some(more) = right {
            sum = sum.plus(more);
        }
        if let Some(rest) = b_rest.map(|rest| at(rest, index)).filter(|rest| *rest != 0.0) {
            sum = sum.plus(rest);
        }
        values.indexes.push(index);
        values.counts.push(sum.value);
        rests.indexes.push(index);
        rests.counts.push(sum.rest);
    });
    (values, rests)
}

/// The count of a bucket.
fn at(buckets: &Buckets, index: i32) -> f64 {
    let found = buckets.indexes.binary_search(&index).ok();
    found.and_then(|at| buckets.counts.get(at)).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod properties;
