//! Extended ranges: `anchored` windows begin with the last value before them, `smoothed` ones are interpolated at both
//! ends.

use std::sync::Arc;

use telemetry_model::{NativeHistogram, ResetHint};

use super::arithmetic::Arithmetic;
use super::frame::Column;
use super::over::Job;
use super::select::Worker;
use super::window::{Look, Samples, View, Window};
use crate::annotations::{Kind, Operation};
use crate::ast::Extended;
use crate::error::QueryError;
use crate::labels::Labels;
use crate::plan::millis_to_seconds;
use crate::source;
use crate::value::Cell;

/// The samples of a window and around it: positions of the first and the last that matter.
struct Ends {
    first: usize,
    last: usize,
}

/// Where to say what.
struct Notes<'w, 'a> {
    worker: &'w mut Worker<'a>,
    name: &'w str,
    position: usize,
}

// === impl Ends ===

impl Ends {
    /// None if no sample lies within.
    fn of(times: &[i64], (from, to): (i64, i64), smoothed: bool) -> Option<Self> {
        let most = times.len().checked_sub(1)?;
        let inner = times.get(..most).unwrap_or(&[]);
        let first = inner.partition_point(|t| *t <= from).saturating_sub(1);
        let last = if smoothed { inner.partition_point(|t| *t < to) } else { most };
        let time = |at: usize| times.get(at).copied().unwrap_or(i64::MIN);
        if time(last) <= from || smoothed && time(first) > to {
            return None;
        }
        Some(Self { first, last })
    }
}

// === impl Notes ===

impl Notes<'_, '_> {
    fn add(&mut self, kind: Kind) {
        self.worker.notes.add(kind, self.position);
    }

    fn mixed_schemas(&mut self) {
        self.add(Kind::MixedExponentialCustom(self.name.to_owned()));
    }

    /// `base` plus or minus `other`, with what there is to say about it.
    fn combine(
        &mut self,
        base: &mut NativeHistogram,
        other: &NativeHistogram,
        operation: Operation,
    ) -> Option<()> {
        let outcome = if operation == Operation::Subtraction { base.sub(other) } else { base.add(other) };
        match outcome {
            Err(_) => {
                self.mixed_schemas();
                None
            }
            Ok(outcome) => {
                if outcome.bounds_reconciled {
                    self.add(Kind::MismatchedCustomBuckets(operation));
                }
                Some(())
            }
        }
    }

    /// Between two histograms.
    fn between(
        &mut self,
        (t1, h1): (i64, &NativeHistogram),
        (t2, h2): (i64, &NativeHistogram),
        t: i64,
        is_counter: bool,
    ) -> Option<NativeHistogram> {
        if t == t1 {
            return Some(h1.clone());
        }
        if t == t2 {
            return Some(h2.clone());
        }
        let share = share(t1, t2, t);
        let mut made = h2.clone();
        if is_counter && h2.detect_reset(h1) {
            made.multiply(share);
            return Some(made);
        }
        self.combine(&mut made, h1, Operation::Subtraction)?;
        made.multiply(share);
        self.combine(&mut made, h1, Operation::Addition)?;
        Some(made)
    }
}

fn share(t1: i64, t2: i64, t: i64) -> f64 {
    millis_to_seconds(t.saturating_sub(t1)) / millis_to_seconds(t2.saturating_sub(t1))
}

/// Between two numbers; a counter that fell began at zero.
fn interpolate((t1, v1): (i64, f64), (t2, v2): (i64, f64), t: i64, is_counter: bool) -> f64 {
    let v1 = if is_counter && v2 < v1 { 0.0 } else { v1 };
    v1 + (v2 - v1) * share(t1, t2, t)
}

/// The values at both ends of a window.
fn float_ends(
    floats: &View<'_, f64>,
    ends: &Ends,
    (from, to): (i64, i64),
    smoothed: bool,
    is_counter: bool,
) -> Option<(f64, f64)> {
    let at = |place: usize| floats.get(place).map(|(t, value)| (t, *value));
    let (first, last) = (at(ends.first)?, at(ends.last)?);
    let left = if smoothed && first.0 < from {
        interpolate(first, at(ends.first + 1)?, from, is_counter)
    } else {
        first.1
    };
    let right = if smoothed && ends.last > 0 && last.0 > to {
        interpolate(at(ends.last - 1)?, last, to, is_counter)
    } else {
        last.1
    };
    Some((left, right))
}

/// `rate`, `increase`, `delta` of an extended window, which is of one kind.
pub(crate) fn window(
    job: &Job<'_>,
    worker: &mut Worker<'_>,
    name: &str,
    window: &Window<'_>,
    is_counter: bool,
    is_rate: bool,
) -> Option<Cell> {
    let smoothed = job.extended == Some(Extended::Smoothed);
    let range = (window.from, window.to);
    if !window.histograms.is_empty() {
        let mut notes = Notes { worker, name, position: job.position };
        let mut made = histogram_window(&mut notes, &window.histograms, range, smoothed, is_counter)?;
        if is_rate {
            made.divide(millis_to_seconds(job.window));
        }
        made.reset = ResetHint::Gauge;
        made.compact();
        return Some(Cell::Histogram(Arc::new(made)));
    }
    let floats = &window.floats;
    let mut ends = Ends::of(floats.times, range, smoothed)?;
    let (left, right) = float_ends(floats, &ends, range, smoothed, is_counter)?;
    let mut difference = right - left;
    if is_counter {
        if floats.get(ends.first)?.0 <= window.from {
            ends.first += 1;
        }
        let end = if floats.get(ends.last)?.0 >= window.to { ends.last } else { ends.last + 1 };
        let mut before = left;
        for value in floats.values.get(ends.first..end).unwrap_or(&[]).iter().chain([&right]) {
            if *value < before {
                difference += before;
            }
            before = *value;
        }
    }
    if is_rate {
        difference /= millis_to_seconds(job.window);
    }
    Some(Cell::Float(difference))
}

fn histogram_window(
    notes: &mut Notes<'_, '_>,
    histograms: &View<'_, Arc<NativeHistogram>>,
    (from, to): (i64, i64),
    smoothed: bool,
    is_counter: bool,
) -> Option<NativeHistogram> {
    let ends = Ends::of(histograms.times, (from, to), smoothed)?;
    let part = histograms.values.get(ends.first..=ends.last)?;
    let custom = part.first()?.has_custom_bounds();
    for histogram in part {
        if histogram.has_custom_bounds() != custom {
            notes.mixed_schemas();
            return None;
        }
        if is_counter && histogram.reset == ResetHint::Gauge {
            notes.add(Kind::NotCounter(notes.name.to_owned()));
        }
    }
    let at = |place: usize| histograms.get(place).map(|(t, histogram)| (t, &**histogram));
    let (first, last) = (at(ends.first)?, at(ends.last)?);
    let left = if smoothed && first.0 < from {
        notes.between(first, at(ends.first + 1)?, from, is_counter)?
    } else {
        first.1.clone()
    };
    let right = if smoothed && ends.last > 0 && last.0 > to {
        notes.between(at(ends.last - 1)?, last, to, is_counter)?
    } else {
        last.1.clone()
    };
    if !is_counter && (left.reset != ResetHint::Gauge || right.reset != ResetHint::Gauge) {
        notes.add(Kind::NotGauge(notes.name.to_owned()));
    }
    let mut made = right.clone();
    notes.combine(&mut made, &left, Operation::Subtraction)?;
    if is_counter {
        let spans_reset = smoothed
            && first.0 < from
            && at(ends.first + 1).is_some_and(|second| second.1.detect_reset(first.1));
        if let Some(more) = histogram_corrections(notes, histograms, &ends, (&left, &right), spans_reset)? {
            notes.combine(&mut made, &more, Operation::Addition)?;
        }
    }
    Some(made)
}

/// What resets took away, the outer `None` if histograms do not fit together. With `spans_reset` the left end was
/// interpolated over a reset, which counts no more.
#[expect(clippy::option_option, reason = "nothing to correct, and nothing to say, are different answers")]
fn histogram_corrections(
    notes: &mut Notes<'_, '_>,
    histograms: &View<'_, Arc<NativeHistogram>>,
    ends: &Ends,
    (left, right): (&NativeHistogram, &NativeHistogram),
    spans_reset: bool,
) -> Option<Option<NativeHistogram>> {
    let mut first = ends.first + 1;
    let mut before = left;
    if spans_reset {
        before = histograms.values.get(first)?;
        first += 1;
    }
    // The last sample is the right end, or inherited by it.
    if first > ends.last {
        return Some(None);
    }
    let mut correction: Option<NativeHistogram> = None;
    let inner = histograms.values.get(first..ends.last).unwrap_or(&[]);
    for histogram in inner.iter().map(|histogram| &**histogram).chain([right]) {
        if histogram.detect_reset(before) {
            match &mut correction {
                None => correction = Some(before.clone()),
                Some(correction) => notes.combine(correction, before, Operation::Addition)?,
            }
        }
        before = histogram;
    }
    Some(correction)
}

/// An extended range as it stands: with samples at both ends.
pub(crate) fn extend(floats: &[(i64, f64)], (from, to): (i64, i64), smoothed: bool) -> Vec<(i64, f64)> {
    let (times, values): (Vec<i64>, Vec<f64>) = floats.iter().copied().unzip();
    let view = View { times: &times, values: &values, starts: &[] };
    let Some(ends) = Ends::of(&times, (from, i64::MAX), false) else { return Vec::new() };
    let ends = match smoothed {
        false => ends,
        true => {
            let inner = times.get(..times.len().saturating_sub(1)).unwrap_or(&[]);
            let last = inner.partition_point(|t| *t < to);
            Ends { first: ends.first, last }
        }
    };
    if view.get(ends.last).is_none_or(|(t, _)| t <= from) {
        return Vec::new();
    }
    let Some((left, right)) = float_ends(&view, &ends, (from, to), smoothed, false) else {
        return Vec::new();
    };
    let mut out = vec![(from, left)];
    out.extend(floats.iter().filter(|(t, _)| *t > from && *t < to));
    out.push((to, right));
    out
}

/// A smoothed instant selector: at each step the value between the samples around it.
pub(crate) fn smooth(
    worker: &mut Worker<'_>,
    labels: &Labels,
    column: source::Column,
    look: &Look,
    position: usize,
) -> Result<Option<Column>, QueryError> {
    let samples = Samples::of(column, false);
    let floats = look.bounds(&samples.floats.times);
    let histograms = look.bounds(&samples.histograms.times);
    let mut out = Column::empty(labels.clone(), look.grid.count);
    for step in 0..look.grid.count {
        let t = look.base(step);
        let floats = samples.floats.view(floats.at(step));
        let histograms = samples.histograms.view(histograms.at(step));
        worker.tick(floats.len() + histograms.len())?;
        if !floats.is_empty() && !histograms.is_empty() {
            worker.notes.add(Kind::MixedFloatsHistograms(labels.name().to_owned()), position);
        } else if !histograms.is_empty() {
            let mut notes = Notes { worker, name: labels.name(), position };
            if let Some(made) = smooth_histogram(&mut notes, &histograms, t) {
                worker.make(super::histogram_bytes(&made))?;
                out.set_histogram(step, Arc::new(made));
            }
        } else if let Some(value) = smooth_float(&floats, t) {
            out.set(step, value);
        }
    }
    Ok(out.present.any().then_some(out))
}

fn smooth_float(floats: &View<'_, f64>, t: i64) -> Option<f64> {
    let after = floats.times.partition_point(|time| *time < t);
    let at = |place: usize| floats.get(place).map(|(t, value)| (t, *value));
    match (after.checked_sub(1).and_then(at), at(after)) {
        (_, Some((time, value))) if time == t => Some(value),
        (Some(before), Some(after)) => Some(interpolate(before, after, t, false)),
        (Some((_, value)), None) => Some(value),
        (None, _) => None,
    }
}

fn smooth_histogram(
    notes: &mut Notes<'_, '_>,
    histograms: &View<'_, Arc<NativeHistogram>>,
    t: i64,
) -> Option<NativeHistogram> {
    let after = histograms.times.partition_point(|time| *time < t);
    let at = |place: usize| histograms.get(place).map(|(t, histogram)| (t, &**histogram));
    match (after.checked_sub(1).and_then(at), at(after)) {
        (_, Some((time, histogram))) if time == t => Some(histogram.clone()),
        (Some(before), Some(after)) => {
            if before.1.has_custom_bounds() != after.1.has_custom_bounds() {
                notes.mixed_schemas();
                return None;
            }
            let both = [before.1.reset, after.1.reset];
            let is_counter = both.iter().any(|hint| *hint != ResetHint::Gauge);
            notes.between(before, after, t, is_counter)
        }
        (Some((_, histogram)), None) => {
            let mut made = histogram.clone();
            made.reset = ResetHint::Unknown;
            Some(made)
        }
        (None, _) => None,
    }
}
