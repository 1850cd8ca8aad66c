//! `resets` and `changes`: walks over numbers and histograms in the order of time.

use std::sync::Arc;

use telemetry_model::NativeHistogram;

use super::arithmetic::Arithmetic;
use super::over::Job;
use super::rate::is_start_reset;
use super::window::Window;
use crate::ast::Extended;

/// A sample of either kind.
#[derive(Clone, Copy)]
enum Either<'a> {
    Float(f64),
    Histogram(&'a Arc<NativeHistogram>),
}

/// How often the count began anew.
pub(crate) fn resets(job: &Job<'_>, window: &Window<'_>) -> Option<f64> {
    count(job, window, |(before_start, before_t, before), (start, t, value)| match (before, value) {
        (Either::Float(before), Either::Float(value)) => {
            value < before || is_start_reset((before_start, before_t), (start, t))
        }
        (Either::Histogram(before), Either::Histogram(value)) => {
            is_start_reset((before_start, before_t), (start, t)) || value.detect_reset(before)
        }
        _ => true,
    })
}

/// How often the value changed.
pub(crate) fn changes(job: &Job<'_>, window: &Window<'_>) -> Option<f64> {
    count(job, window, |(_, _, before), (_, _, value)| match (before, value) {
        (Either::Float(before), Either::Float(value)) => {
            value != before && !(value.is_nan() && before.is_nan())
        }
        (Either::Histogram(before), Either::Histogram(value)) => !value.equals(before),
        _ => true,
    })
}

fn count<'a>(
    job: &Job<'_>,
    window: &Window<'a>,
    differs: impl Fn((i64, i64, Either<'a>), (i64, i64, Either<'a>)) -> bool,
) -> Option<f64> {
    let (mut float_at, mut histogram_at) = first_places(job, window)?;
    let (mut before, mut found) = (None, 0.0);
    loop {
        let float = window.floats.get(float_at);
        let histogram = window.histograms.get(histogram_at);
        let sample = match (float, histogram) {
            (Some((t, value)), other) if other.is_none_or(|(other_t, _)| t < other_t) => {
                let sample = (window.floats.start(float_at), t, Either::Float(*value));
                float_at += 1;
                sample
            }
            (_, Some((t, value))) => {
                let sample = (window.histograms.start(histogram_at), t, Either::Histogram(value));
                histogram_at += 1;
                sample
            }
            _ => return Some(found),
        };
        if before.is_some_and(|before| differs(before, sample)) {
            found += 1.0;
        }
        before = Some(sample);
    }
}

/// Where the walk begins: with an anchored range at the last sample before it, of either kind.
fn first_places(job: &Job<'_>, window: &Window<'_>) -> Option<(usize, usize)> {
    if job.extended != Some(Extended::Anchored) {
        return Some((0, 0));
    }
    let floats = window.floats.times.partition_point(|t| *t <= window.from);
    let histograms = window.histograms.times.partition_point(|t| *t <= window.from);
    if floats >= window.floats.len() && histograms >= window.histograms.len() {
        return None;
    }
    let time = |times: &[i64], after: usize| after.checked_sub(1).and_then(|at| times.get(at).copied());
    let (float_t, histogram_t) =
        (time(window.floats.times, floats), time(window.histograms.times, histograms));
    match (float_t, histogram_t) {
        (None, None) => Some((0, 0)),
        (Some(_), None) => Some((floats - 1, histograms)),
        (Some(float), Some(histogram)) if float >= histogram => Some((floats - 1, histograms)),
        _ => Some((floats, histograms - 1)),
    }
}
