//! Histogram cells of a row, in the log: differences to the row before where the layout is the same.

use std::sync::Arc;

use telemetry_model::NativeHistogram;

use super::record::{get_histogram, put_histogram};
use crate::head::{GroupId, Row, Sample};
use crate::wire::{Malformed, Reader, put_count, put_i64, put_u64};

/// Counts above this are not sent as differences: beyond it floats are not exact integers.
const EXACT_MAX: f64 = 9e15;

/// Histogram cells of one row.
#[derive(Debug, PartialEq)]
pub struct Cells {
    /// Whose row.
    pub group: GroupId,
    /// Its time.
    pub t: i64,
    /// Slots, growing, and what they hold.
    pub cells: Vec<(u32, Arc<NativeHistogram>)>,
}

/// Appends the histogram cells of a row; `base` is the record of the row before and that row.
pub fn put_cells(out: &mut Vec<u8>, group: GroupId, row: &Row, base: Option<(u64, &Row)>) {
    put_u64(out, u64::from(group.0));
    put_i64(out, row.t);
    put_u64(out, base.map_or(0, |(sequence, _)| sequence + 1));
    put_count(out, row.histograms().len());
    for (slot, histogram) in row.histograms() {
        put_u64(out, u64::from(*slot));
        let before = base.and_then(|(_, last)| match last.get(*slot) {
            Some(Sample::Histogram(before)) => Some(before),
            _ => None,
        });
        match before.and_then(|before| difference(&before, histogram)) {
            Some(steps) => {
                out.push(1);
                put_difference(out, &steps, histogram);
            }
            None => {
                out.push(0);
                put_histogram(out, histogram);
            }
        }
    }
}

/// Which record the cells build upon, if any; `bytes` is the body.
///
/// # Errors
/// If the body is too short.
pub fn base_of(bytes: &[u8]) -> Result<Option<u64>, Malformed> {
    let mut r = Reader::new(bytes);
    r.u64()?;
    r.i64()?;
    Ok(r.u64()?.checked_sub(1))
}

/// The histogram cells of a row; `last` are those of the record it builds upon.
///
/// # Errors
/// If the body is malformed, or a difference has nothing to build upon.
pub fn get_cells(bytes: &[u8], last: &[(u32, Arc<NativeHistogram>)]) -> Result<Cells, Malformed> {
    let mut r = Reader::new(bytes);
    let (group, t) = (GroupId(r.u32()?), r.i64()?);
    r.u64()?;
    let n = r.count(2)?;
    let mut cells: Vec<(u32, Arc<NativeHistogram>)> = Vec::with_capacity(n);
    for _ in 0..n {
        let slot = r.u32()?;
        if cells.last().is_some_and(|before| before.0 >= slot) {
            return Err(Malformed("slots do not grow"));
        }
        let histogram = if r.u8()? == 0 {
            get_histogram(&mut r)?
        } else {
            let at = last.binary_search_by_key(&slot, |cell| cell.0).map_err(|_| Malformed("no base"))?;
            let before = last.get(at).ok_or(Malformed("no base"))?;
            get_difference(&mut r, &before.1)?
        };
        cells.push((slot, Arc::new(histogram)));
    }
    Ok(Cells { group, t, cells })
}

/// What was added since `before`.
struct Steps {
    zero: i64,
    count: i64,
    positive: Vec<(i32, i64)>,
    negative: Vec<(i32, i64)>,
}

fn difference(before: &NativeHistogram, now: &NativeHistogram) -> Option<Steps> {
    let same = before.schema == now.schema
        && before.zero_threshold.to_bits() == now.zero_threshold.to_bits()
        && before.reset == now.reset
        && before.custom_bounds == now.custom_bounds;
    if !same {
        return None;
    }
    Some(Steps {
        zero: whole_step(before.zero_count, now.zero_count)?,
        count: whole_step(before.count, now.count)?,
        positive: bucket_steps(&before.positive, &now.positive)?,
        negative: bucket_steps(&before.negative, &now.negative)?,
    })
}

/// The step between two whole counts.
#[expect(clippy::cast_possible_truncation, reason = "both are whole and below 2^53, as is checked")]
fn whole_step(before: f64, now: f64) -> Option<i64> {
    let exact = |x: f64| x.fract() == 0.0 && x.abs() < EXACT_MAX && !(x == 0.0 && x.is_sign_negative());
    (exact(before) && exact(now)).then_some((now - before) as i64)
}

fn bucket_steps(
    before: &telemetry_model::Buckets,
    now: &telemetry_model::Buckets,
) -> Option<Vec<(i32, i64)>> {
    let mut old = before.iter().peekable();
    let mut steps = Vec::new();
    for (index, count) in now.iter() {
        match old.peek().copied() {
            // A bucket that is no longer listed cannot be said by steps.
            Some((other, _)) if other < index => return None,
            Some((other, known)) if other == index => {
                old.next();
                let step = whole_step(known, count)?;
                if step != 0 {
                    steps.push((index, step));
                }
            }
            // A new bucket without observations would be lost by a step of zero.
            _ if count == 0.0 => return None,
            _ => steps.push((index, whole_step(0.0, count)?)),
        }
    }
    old.next().is_none().then_some(steps)
}

fn put_difference(out: &mut Vec<u8>, steps: &Steps, now: &NativeHistogram) {
    put_i64(out, steps.zero);
    put_i64(out, steps.count);
    out.extend_from_slice(&now.sum.to_le_bytes());
    for side in [&steps.positive, &steps.negative] {
        put_count(out, side.len());
        let mut last = 0;
        for (index, step) in side {
            put_i64(out, i64::from(*index) - last);
            last = i64::from(*index);
            put_i64(out, *step);
        }
    }
}

fn get_difference(r: &mut Reader<'_>, before: &NativeHistogram) -> Result<NativeHistogram, Malformed> {
    let mut now = before.clone();
    now.zero_count += exact_float(r.i64()?);
    now.count += exact_float(r.i64()?);
    now.sum = r.f64()?;
    for side in [&mut now.positive, &mut now.negative] {
        let n = r.count(2)?;
        let mut last = 0i64;
        for _ in 0..n {
            last = last.checked_add(r.i64()?).ok_or(Malformed("bucket index"))?;
            let index = i32::try_from(last).map_err(|_| Malformed("bucket index"))?;
            let step = exact_float(r.i64()?);
            match side.indexes.binary_search(&index) {
                Ok(at) => {
                    if let Some(count) = side.counts.get_mut(at) {
                        *count += step;
                    }
                }
                Err(at) => {
                    side.indexes.insert(at, index);
                    side.counts.insert(at, step);
                }
            }
        }
    }
    Ok(now)
}

/// A step as the writer had it: below 2^54 in size, so exact.
#[expect(clippy::cast_precision_loss, reason = "steps of exact counts are exact")]
fn exact_float(step: i64) -> f64 {
    step as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(counts: &[(i32, f64)], sum: f64) -> Arc<NativeHistogram> {
        Arc::new(NativeHistogram {
            schema: 3,
            count: counts.iter().map(|c| c.1).sum(),
            sum,
            positive: counts.iter().copied().collect(),
            ..Default::default()
        })
    }

    fn row(t: i64, cells: &[(u32, Arc<NativeHistogram>)]) -> Row {
        let mut row = Row::new(t, 4);
        cells.iter().for_each(|(slot, histogram)| row.set_histogram(*slot, Arc::clone(histogram)));
        row
    }

    #[test]
    fn cells_come_back_with_and_without_a_base() {
        let first = vec![(0, histogram(&[(1, 2.0), (5, 1.0)], 1.5)), (3, histogram(&[(2, 1.5)], 0.1))];
        let second = vec![
            (0, histogram(&[(1, 4.0), (3, 1.0), (5, 1.0)], 2.5)),
            (2, histogram(&[], 0.0)),
            (3, histogram(&[(7, 1.0)], -0.0)),
        ];
        let (before, now) = (row(10, &first), row(20, &second));
        let mut whole = Vec::new();
        put_cells(&mut whole, GroupId(3), &before, None);
        assert_eq!(base_of(&whole), Ok(None));
        assert_eq!(get_cells(&whole, &[]).unwrap().cells, first);
        let mut chained = Vec::new();
        put_cells(&mut chained, GroupId(3), &now, Some((41, &before)));
        assert_eq!(base_of(&chained), Ok(Some(41)));
        assert_eq!(get_cells(&chained, &first).unwrap(), Cells { group: GroupId(3), t: 20, cells: second });
        assert!(get_cells(&chained, &[]).is_err(), "a difference without a base is refused");
    }

    #[test]
    fn a_body_cut_anywhere_is_refused() {
        let mut whole = Vec::new();
        put_cells(&mut whole, GroupId(0), &row(1, &[(0, histogram(&[(1, 2.0)], 1.0))]), None);
        for end in 0..whole.len() {
            assert!(get_cells(&whole[..end], &[]).is_err(), "cut at {end}");
        }
    }
}
