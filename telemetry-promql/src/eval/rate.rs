//! `rate`, `increase`, `delta`: the slope between the first and the last sample of a window, resets of counters added,
//! extrapolated to the window's ends.

use super::frame::Column;
use super::over::Job;
use super::select::Worker;
use super::window::{Bounds, Points, View, Window};
use super::{extended, histogram_rate};
use crate::annotations::{Detail, Kind};
use crate::error::QueryError;
use crate::functions::FunctionId;
use crate::plan::millis_to_seconds;
use crate::value::Cell;

/// What extrapolation needs to know of a window's samples.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent {
    pub first_t: i64,
    pub last_t: i64,
    /// Samples less one.
    pub gaps: usize,
    /// Start of the first sample's count; 0 if nobody said.
    pub start: i64,
}

/// How a window's difference grows.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Factor {
    /// Times this.
    Times(f64),
    /// Times this, after the first sample itself was added: its count began within the window.
    FirstToo(f64),
}

/// Numbers of a series without start timestamps, at all steps in one pass. Whether the function is one of these.
pub(crate) fn all_steps(
    job: &Job<'_>,
    worker: &mut Worker<'_>,
    floats: &Points<f64>,
    bounds: &Bounds,
    out: &mut Column,
) -> Result<bool, QueryError> {
    let (is_counter, is_rate) = match job.function {
        FunctionId::Rate => (true, true),
        FunctionId::Increase => (true, false),
        FunctionId::Delta => (false, false),
        _ => return Ok(false),
    };
    let resets = if is_counter { reset_places(&floats.values) } else { Vec::new() };
    let (mut reset_lo, mut reset_hi) = (0, 0);
    for step in 0..job.look.grid.count {
        let at = bounds.at(step);
        worker.tick(2)?;
        worker.look(at.len());
        if at.len() < 2 {
            continue;
        }
        let last = at.end - 1;
        let (Some(first_v), Some(last_v)) = (floats.values.get(at.start), floats.values.get(last)) else {
            continue;
        };
        let (Some(first_t), Some(last_t)) = (floats.times.get(at.start), floats.times.get(last)) else {
            continue;
        };
        let mut difference = last_v - first_v;
        if !resets.is_empty() {
            while resets.get(reset_lo).is_some_and(|place| *place <= at.start) {
                reset_lo += 1;
            }
            while resets.get(reset_hi).is_some_and(|place| *place <= last) {
                reset_hi += 1;
            }
            for place in resets.get(reset_lo..reset_hi).unwrap_or(&[]) {
                difference += floats.values.get(place - 1).copied().unwrap_or(0.0);
            }
        }
        let to = job.look.base(step);
        let extent = Extent { first_t: *first_t, last_t: *last_t, gaps: at.len() - 1, start: 0 };
        let zero = (difference > 0.0 && *first_v >= 0.0).then(|| first_v / difference);
        let zero = zero.filter(|_| is_counter);
        if let Some(Factor::Times(factor)) =
            factor(extent, (to.saturating_sub(job.window), to), zero, is_rate.then_some(job.window))
        {
            out.set(step, difference * factor);
        }
    }
    Ok(true)
}

/// Where values fall: each position holds less than the one before.
fn reset_places(values: &[f64]) -> Vec<usize> {
    let pairs = values.windows(2).enumerate();
    pairs
        .filter(|(_, pair)| matches!(pair, [before, after] if after < before))
        .map(|(at, _)| at + 1)
        .collect()
}

/// One window of any samples.
pub(crate) fn window(
    job: &Job<'_>,
    worker: &mut Worker<'_>,
    name: &str,
    window: &Window<'_>,
) -> Option<Cell> {
    let is_counter = job.function != FunctionId::Delta;
    let is_rate = job.function == FunctionId::Rate;
    if window.is_mixed() {
        worker.notes.add(Kind::MixedFloatsHistograms(name.to_owned()), job.position);
        return None;
    }
    if job.extended.is_some() {
        return extended::window(job, worker, name, window, is_counter, is_rate);
    }
    let range = (window.from, window.to);
    let per = is_rate.then_some(job.window);
    if !window.histograms.is_empty() {
        return histogram_rate::extrapolated(job, worker, name, window, is_counter, per).map(Cell::Histogram);
    }
    let floats = &window.floats;
    let ((first_t, first), (last_t, last)) = (floats.first()?, floats.last()?);
    let mut difference = last - first;
    if is_counter {
        difference += corrections(job, worker, name, floats);
    }
    let start = if is_counter { floats.start(0) } else { 0 };
    let extent = Extent { first_t, last_t, gaps: floats.len() - 1, start };
    let zero = (is_counter && difference > 0.0 && *first >= 0.0).then(|| first / difference);
    match factor(extent, range, zero, per)? {
        Factor::Times(factor) => Some(Cell::Float(difference * factor)),
        Factor::FirstToo(factor) => Some(Cell::Float((difference + first) * factor)),
    }
}

/// What resets took away.
fn corrections(job: &Job<'_>, worker: &mut Worker<'_>, name: &str, floats: &View<'_, f64>) -> f64 {
    let (mut sum, mut overlap) = (0.0, false);
    for at in 1..floats.len() {
        let (Some((before_t, before)), Some((t, value))) = (floats.get(at - 1), floats.get(at)) else {
            break;
        };
        let (before_start, start) = (floats.start(at - 1), floats.start(at));
        if !overlap && starts_overlap(before_start, before_t, start) {
            overlap = true;
            worker.notes.add_detail(
                Kind::StartTimeOverlap(name.to_owned()),
                job.position,
                Detail::Overlap { count: 1 },
            );
        }
        if value < before || is_start_reset((before_start, before_t), (start, t)) {
            sum += before;
        }
    }
    sum
}

/// How a difference grows when it is extrapolated to the ends of `range`, and, with `per`, becomes a rate. `zero`: how
/// many of the difference lie between zero and the first sample. Nothing if it cannot be said.
pub(crate) fn factor(
    extent: Extent,
    (from, to): (i64, i64),
    zero: Option<f64>,
    per: Option<i64>,
) -> Option<Factor> {
    let Extent { first_t, last_t, gaps, start } = extent;
    let mut to_start = millis_to_seconds(first_t.saturating_sub(from));
    let mut to_end = millis_to_seconds(to.saturating_sub(last_t));
    let mut sampled = millis_to_seconds(last_t.saturating_sub(first_t));
    let average = if gaps > 0 { sampled / telemetry_model::float(gaps as u64) } else { 0.0 };
    let threshold = average * 1.1;
    let has_start = start != 0 && start > from && start < first_t;
    if has_start {
        to_start = 0.0;
        sampled = millis_to_seconds(last_t.saturating_sub(start));
    } else if gaps == 0 {
        return None;
    } else {
        if to_start >= threshold {
            to_start = average / 2.0;
        }
        if let Some(zero) = zero {
            let to_zero = sampled * zero;
            if to_zero < to_start {
                to_start = to_zero;
            }
        }
    }
    if to_end >= threshold {
        to_end = average / 2.0;
    }
    let mut factor = if sampled == 0.0 { 1.0 } else { (sampled + to_start + to_end) / sampled };
    if let Some(window) = per {
        factor /= millis_to_seconds(window);
    }
    Some(if has_start { Factor::FirstToo(factor) } else { Factor::Times(factor) })
}

/// Whether a count began anew between two samples, each given as the start of its count and its time.
pub(crate) fn is_start_reset((before_start, before_t): (i64, i64), (start, t): (i64, i64)) -> bool {
    if start == 0 || start >= t || start < before_t {
        return false;
    }
    if start > before_t {
        return true;
    }
    // The count begins at the sample before: so it does where samples are differences, but also where its true
    // beginning is unknown. The sample before tells which.
    before_start <= before_t && before_start != 0 && before_start != before_t
}

/// Whether a count began before the sample before, but not with its count.
pub(crate) fn starts_overlap(before_start: i64, before_t: i64, start: i64) -> bool {
    start != 0 && start < before_t && start != before_start
}
