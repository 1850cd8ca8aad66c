//! `*_over_time` and the other functions that look at a window's values only.

use std::sync::Arc;

use super::kahan::{Mean, Sum};
use super::over::Job;
use super::quantile::quantile;
use super::select::Worker;
use super::window::{View, Window};
use super::{histogram_over_time, regression};
use crate::annotations::Kind;
use crate::error::QueryError;
use crate::functions::FunctionId;
use crate::plan::millis_to_seconds;
use crate::value::Cell;

/// One window, which is not empty.
pub(crate) fn window(
    job: &Job<'_>,
    worker: &mut Worker<'_>,
    name: &str,
    window: &Window<'_>,
    step: usize,
) -> Result<Option<Cell>, QueryError> {
    use FunctionId as F;
    let float = match job.function {
        F::FirstOverTime => return Ok(first(window)),
        F::LastOverTime => return Ok(last(window)),
        F::SumOverTime | F::AvgOverTime => return Ok(sum_or_mean(job, worker, name, window)),
        F::CountOverTime => Some(telemetry_model::float(window.len() as u64)),
        F::PresentOverTime | F::AbsentOverTime => Some(1.0),
        F::TsOfFirstOverTime => {
            let times = [window.floats.first().map(|s| s.0), window.histograms.first().map(|s| s.0)];
            times.into_iter().flatten().min().map(millis_to_seconds)
        }
        F::TsOfLastOverTime => {
            let times = [window.floats.last().map(|s| s.0), window.histograms.last().map(|s| s.0)];
            times.into_iter().flatten().max().map(millis_to_seconds)
        }
        F::Deriv | F::PredictLinear | F::DoubleExponentialSmoothing => {
            let made = match job.function {
                F::DoubleExponentialSmoothing => smoothed(job, window, step)?,
                F::Deriv => regression::slope(&window.floats),
                _ => regression::predict(&window.floats, window.t, job.param(0, step)),
            };
            if !window.floats.is_empty() && !window.histograms.is_empty() {
                remark_mixed(job, worker, name);
            }
            made
        }
        _ => floats(job, worker, name, window, step),
    };
    Ok(float.map(Cell::Float))
}

fn remark_mixed(job: &Job<'_>, worker: &mut Worker<'_>, name: &str) {
    worker.notes.add(Kind::HistogramIgnoredInMixedRange(name.to_owned()), job.position);
}

/// Functions that ignore histograms beside numbers, and say so.
fn floats(
    job: &Job<'_>,
    worker: &mut Worker<'_>,
    name: &str,
    window: &Window<'_>,
    step: usize,
) -> Option<f64> {
    use FunctionId as F;
    let values = window.floats.values;
    let first = *values.first()?;
    if job.function == F::QuantileOverTime {
        let q = job.param(0, step);
        if q.is_nan() || !(0.0..=1.0).contains(&q) {
            worker.notes.add(Kind::InvalidQuantile(q.into()), job.position);
        }
    }
    if !window.histograms.is_empty() {
        remark_mixed(job, worker, name);
    }
    let value = match job.function {
        F::MinOverTime => values.iter().fold(first, |min, v| if *v < min || min.is_nan() { *v } else { min }),
        F::MaxOverTime => values.iter().fold(first, |max, v| if *v > max || max.is_nan() { *v } else { max }),
        F::TsOfMinOverTime => time_of(&window.floats, |v, min| v <= min || min.is_nan())?,
        F::TsOfMaxOverTime => time_of(&window.floats, |v, max| v >= max || max.is_nan())?,
        F::StddevOverTime => variance(values).sqrt(),
        F::StdvarOverTime => variance(values),
        F::QuantileOverTime => quantile(job.param(0, step), &mut values.to_vec()),
        F::MadOverTime => mad(values),
        _ => return None,
    };
    Some(value)
}

fn first(window: &Window<'_>) -> Option<Cell> {
    match (window.floats.first(), window.histograms.first()) {
        (Some((t, value)), other) if other.is_none_or(|(other_t, _)| t < other_t) => {
            Some(Cell::Float(*value))
        }
        (_, Some((_, histogram))) => Some(Cell::Histogram(Arc::clone(histogram))),
        _ => None,
    }
}

fn last(window: &Window<'_>) -> Option<Cell> {
    match (window.floats.last(), window.histograms.last()) {
        (Some((t, value)), other) if other.is_none_or(|(other_t, _)| other_t < t) => {
            Some(Cell::Float(*value))
        }
        (_, Some((_, histogram))) => Some(Cell::Histogram(Arc::clone(histogram))),
        _ => None,
    }
}

fn sum_or_mean(job: &Job<'_>, worker: &mut Worker<'_>, name: &str, window: &Window<'_>) -> Option<Cell> {
    if window.is_mixed() {
        worker.notes.add(Kind::MixedFloatsHistograms(name.to_owned()), job.position);
        return None;
    }
    let is_mean = job.function == FunctionId::AvgOverTime;
    let Some((first, rest)) = window.floats.values.split_first() else {
        let histograms = window.histograms.values;
        return histogram_over_time::sum_or_mean(job, worker, name, histograms, is_mean).map(Cell::Histogram);
    };
    if is_mean {
        let mut mean = Mean::of(*first);
        rest.iter().for_each(|value| mean.add(*value));
        return Some(Cell::Float(mean.total()));
    }
    let sum = window.floats.values.iter().fold(Sum::default(), |sum, value| sum.plus(*value));
    Some(Cell::Float(if sum.value.is_infinite() { sum.value } else { sum.total() }))
}

fn time_of(floats: &View<'_, f64>, takes: impl Fn(f64, f64) -> bool) -> Option<f64> {
    let (mut time, first) = floats.first()?;
    let mut best = *first;
    for (t, value) in floats.iter() {
        if takes(*value, best) {
            (time, best) = (t, *value);
        }
    }
    Some(millis_to_seconds(time))
}

fn variance(values: &[f64]) -> f64 {
    let (mut count, mut mean, mut squares) = (0.0, Sum::default(), Sum::default());
    for value in values {
        count += 1.0;
        let delta = value - mean.total();
        mean = mean.plus(delta / count);
        squares = squares.plus(delta * (value - mean.total()));
    }
    squares.total() / count
}

/// The median of the distances to the median.
fn mad(values: &[f64]) -> f64 {
    if values.iter().any(|value| value.is_nan()) {
        return f64::NAN;
    }
    let mut values = values.to_vec();
    let median = quantile(0.5, &mut values);
    values.iter_mut().for_each(|value| *value = (*value - median).abs());
    quantile(0.5, &mut values)
}

/// Double exponential smoothing (Holt): level and trend.
fn smoothed(job: &Job<'_>, window: &Window<'_>, step: usize) -> Result<Option<f64>, QueryError> {
    let (level, trend) = (job.param(0, step), job.param(1, step));
    // Go prints six decimals here.
    if level <= 0.0 || level >= 1.0 {
        return Err(QueryError::execution(format!(
            "invalid smoothing factor. Expected: 0 < sf < 1, got: {level:.6}"
        )));
    }
    if trend <= 0.0 || trend >= 1.0 {
        return Err(QueryError::execution(format!(
            "invalid trend factor. Expected: 0 < tf < 1, got: {trend:.6}"
        )));
    }
    let [first, second, ..] = window.floats.values else { return Ok(None) };
    let (mut before, mut now, mut slope) = (0.0, *first, second - first);
    for (at, value) in window.floats.values.iter().enumerate().skip(1) {
        let scaled = level * value;
        if at > 1 {
            slope = trend * (now - before) + (1.0 - trend) * slope;
        }
        let next = scaled + (1.0 - level) * (now + slope);
        (before, now) = (now, next);
    }
    Ok(Some(now))
}
