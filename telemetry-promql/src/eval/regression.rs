//! `deriv` and `predict_linear`: least squares through the numbers of a window.

use super::frame::Column;
use super::kahan::{Sum, TwoSums};
use super::over::Job;
use super::select::Worker;
use super::window::{Bounds, Points, View};
use crate::error::QueryError;
use crate::functions::FunctionId;
use crate::plan::millis_to_seconds;

/// Sums over the times of a window, which are the same for all series that share them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct TimeSums {
    /// Of the times, in seconds.
    x: f64,
    /// Of their squares.
    xx: f64,
}

/// The slope, per second.
pub(crate) fn slope(floats: &View<'_, f64>) -> Option<f64> {
    let (first, _) = floats.first()?;
    // Times near zero keep their digits.
    (floats.len() >= 2).then(|| line(floats, first, None).0)
}

/// Where the line is, so many seconds after `t`.
pub(crate) fn predict(floats: &View<'_, f64>, t: i64, seconds: f64) -> Option<f64> {
    (floats.len() >= 2).then(|| {
        let (slope, at) = line(floats, t, None);
        slope * seconds + at
    })
}

/// Numbers of a series, at all steps in one pass. Whether the function is one of these.
pub(crate) fn all_steps(
    job: &Job<'_>,
    worker: &mut Worker<'_>,
    floats: &Points<f64>,
    bounds: &Bounds,
    out: &mut Column,
) -> Result<bool, QueryError> {
    let is_slope = match job.function {
        FunctionId::Deriv => true,
        FunctionId::PredictLinear => false,
        _ => return Ok(false),
    };
    let zero = |step: usize, view: &View<'_, f64>| match is_slope {
        true => view.times.first().copied().unwrap_or(0),
        false => job.look.grid.t(step),
    };
    if bounds.time_sums.get().is_none() {
        let mut all = Vec::with_capacity(job.look.grid.count);
        for step in 0..job.look.grid.count {
            let view = floats.view(bounds.at(step));
            worker.tick(view.len())?;
            all.push(time_sums(&view, zero(step, &view)));
        }
        // Who else was quicker has found the same.
        let _ = bounds.time_sums.set(all);
    }
    let time_sums = bounds.time_sums.get().map_or(&[][..], Vec::as_slice);
    for step in 0..job.look.grid.count {
        let view = floats.view(bounds.at(step));
        worker.tick(view.len())?;
        worker.look(view.len());
        if view.len() < 2 {
            continue;
        }
        let (slope, at) = line(&view, zero(step, &view), time_sums.get(step).copied());
        out.set(step, if is_slope { slope } else { slope * job.param(0, step) + at });
    }
    Ok(true)
}

/// Slope, and the line's value at `zero`.
fn line(floats: &View<'_, f64>, zero: i64, known: Option<TimeSums>) -> (f64, f64) {
    let first = floats.values.first().copied().unwrap_or(f64::NAN);
    if floats.values.iter().skip(1).all(|value| *value == first) {
        return if first.is_infinite() { (f64::NAN, f64::NAN) } else { (0.0, first) };
    }
    let n = floats.len() as f64;
    let TimeSums { x, xx } = known.unwrap_or_else(|| time_sums(floats, zero));
    let samples = floats.times.iter().zip(floats.values);
    let [y, xy] = sums(samples.map(|(t, value)| [*value, seconds_from(zero, *t) * value]));
    let covariance = xy - x * y / n;
    let variance = xx - x * x / n;
    let slope = covariance / variance;
    (slope, y / n - slope * x / n)
}

fn time_sums(floats: &View<'_, f64>, zero: i64) -> TimeSums {
    let seconds = floats.times.iter().map(|t| seconds_from(zero, *t));
    let [x, xx] = sums(seconds.map(|at| [at, at * at]));
    TimeSums { x, xx }
}

fn seconds_from(zero: i64, t: i64) -> f64 {
    millis_to_seconds(t.saturating_sub(zero))
}

/// Both sums; where something is infinite or no number, as sums one by one say it.
fn sums(terms: impl Iterator<Item = [f64; 2]> + Clone) -> [f64; 2] {
    let mut fast = TwoSums::default();
    terms.clone().for_each(|pair| fast.add(pair));
    let totals = fast.totals();
    if totals.iter().all(|total| total.is_finite()) {
        return totals;
    }
    let mut slow = [Sum::default(); 2];
    terms.for_each(|pair| slow.iter_mut().zip(pair).for_each(|(sum, term)| *sum = sum.plus(term)));
    slow.map(Sum::total)
}
