//! `irate`, `idelta`: the last two samples of a window.

use std::sync::Arc;

use telemetry_model::{NativeHistogram, ResetHint};

use super::arithmetic::Arithmetic;
use super::over::Job;
use super::rate::is_start_reset;
use super::select::Worker;
use super::window::{View, Window};
use crate::annotations::{Kind, Operation};
use crate::functions::FunctionId;
use crate::plan::millis_to_seconds;
use crate::value::Cell;

/// A sample of either kind.
#[derive(Clone, Copy)]
struct Last<'a> {
    t: i64,
    start: i64,
    cell: LastCell<'a>,
}

#[derive(Clone, Copy)]
enum LastCell<'a> {
    Float(f64),
    Histogram(&'a Arc<NativeHistogram>),
}

/// One window.
pub(crate) fn window(
    job: &Job<'_>,
    worker: &mut Worker<'_>,
    name: &str,
    window: &Window<'_>,
) -> Option<Cell> {
    let is_rate = job.function == FunctionId::Irate;
    let mut lasts: Vec<Last<'_>> = Vec::with_capacity(4);
    last_two(&window.floats, |value| LastCell::Float(*value), &mut lasts);
    last_two(&window.histograms, LastCell::Histogram, &mut lasts);
    lasts.sort_by_key(|last| last.t);
    let [.., before, last] = lasts.as_slice() else { return None };
    let interval = last.t.saturating_sub(before.t);
    if interval == 0 {
        return None;
    }
    let seconds = millis_to_seconds(interval);
    let has_start_reset = is_start_reset((before.start, before.t), (last.start, last.t));
    match (before.cell, last.cell) {
        (LastCell::Float(before), LastCell::Float(last)) => {
            let is_reset = is_rate && (last < before || has_start_reset);
            let value = if is_reset { last } else { last - before };
            Some(Cell::Float(if is_rate { value / seconds } else { value }))
        }
        (LastCell::Histogram(before), LastCell::Histogram(last)) => {
            histograms(job, worker, name, (before, last), has_start_reset).map(|mut made| {
                if is_rate {
                    made.divide(seconds);
                }
                Cell::Histogram(Arc::new(made))
            })
        }
        _ => {
            worker.notes.add(Kind::MixedFloatsHistograms(name.to_owned()), job.position);
            None
        }
    }
}

fn last_two<'a, V>(view: &View<'a, V>, cell: impl Fn(&'a V) -> LastCell<'a>, out: &mut Vec<Last<'a>>) {
    let from = view.len().saturating_sub(2);
    for at in from..view.len() {
        if let Some((t, value)) = view.get(at) {
            out.push(Last { t, start: view.start(at), cell: cell(value) });
        }
    }
}

fn histograms(
    job: &Job<'_>,
    worker: &mut Worker<'_>,
    name: &str,
    (before, last): (&NativeHistogram, &NativeHistogram),
    has_start_reset: bool,
) -> Option<NativeHistogram> {
    let is_rate = job.function == FunctionId::Irate;
    let gauges = [before, last].iter().filter(|h| h.reset == ResetHint::Gauge).count();
    if is_rate && gauges > 0 {
        worker.notes.add(Kind::NotCounter(name.to_owned()), job.position);
    }
    if !is_rate && gauges < 2 {
        worker.notes.add(Kind::NotGauge(name.to_owned()), job.position);
    }
    let mut made = last.clone();
    if !is_rate || (!has_start_reset && !last.detect_reset(before)) {
        match made.sub(before) {
            Err(_) => {
                worker.notes.add(Kind::MixedExponentialCustom(name.to_owned()), job.position);
                return None;
            }
            Ok(outcome) if outcome.bounds_reconciled => {
                worker.notes.add(Kind::MismatchedCustomBuckets(Operation::Subtraction), job.position);
            }
            Ok(_) => {}
        }
    }
    made.reset = ResetHint::Gauge;
    made.compact();
    Some(made)
}
