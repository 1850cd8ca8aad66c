//! What an interval keeps of the samples in it.
//!
//! A counter keeps its last value. What it grew by since the last value of the interval before is the difference of the
//! two, unless it was reset in between or there was none before: then the growth is written beside it. So the growth
//! over any whole intervals is that of all samples.

use std::sync::Arc;

use telemetry_model::{NativeHistogram, ResetHint, is_stale};

use super::native::{is_reset, minus, plus};
use super::{Kind, TierColumn};
use crate::codec::{Bits, Decoded};

/// A sample on its way into an interval.
#[derive(Clone, Copy)]
pub enum Sample<'a> {
    /// A float, maybe a stale marker.
    Float(f64),
    /// A native histogram.
    Histogram(&'a Arc<NativeHistogram>),
}

/// The columns of one series, one row an interval.
pub struct Columns {
    rows: usize,
    cells: [Decoded; 6],
}

/// The interval that is open, and what counters are compared with.
pub struct Interval {
    kind: Kind,
    row: Option<usize>,
    last: Option<Last>,
    count: f64,
    gauge: Gauge,
    counter: Counter,
    native: NativeCounter,
    native_sum: Option<NativeHistogram>,
}

#[derive(Clone)]
enum Last {
    Float(f64),
    Histogram(Arc<NativeHistogram>),
}

#[derive(Default)]
struct Gauge {
    is_there: bool,
    min: f64,
    max: f64,
    sum: f64,
    /// What the sum's roundings left out.
    rest: f64,
}

/// A float counter.
#[derive(Default)]
struct Counter {
    /// Where the growth is counted from.
    base: f64,
    /// The newest value.
    now: Option<f64>,
    /// Growth up to resets in the interval.
    closed: f64,
    /// The growth is more than a difference of last values.
    is_said: bool,
    is_counted: bool,
    /// The value in the row before.
    written: Option<f64>,
}

/// A native histogram that counts.
#[derive(Default)]
struct NativeCounter {
    base: Option<Arc<NativeHistogram>>,
    now: Option<Arc<NativeHistogram>>,
    closed: Option<NativeHistogram>,
    is_said: bool,
    was_reset: bool,
    is_counted: bool,
    written: Option<Arc<NativeHistogram>>,
}

// === impl Columns ===

impl Columns {
    /// Columns of so many rows, without a cell.
    pub fn new(rows: usize) -> Self {
        let mut columns = Self { rows, cells: Default::default() };
        columns.clear();
        columns
    }

    /// Forgets all cells.
    pub fn clear(&mut self) {
        for cells in &mut self.cells {
            cells.clear();
            cells.values.resize(self.rows, 0.0);
            cells.present = Some(Bits::new(self.rows));
        }
    }

    /// Columns with cells, and how many cells they have.
    pub fn iter(&self) -> impl Iterator<Item = (u8, &Decoded, usize)> {
        let counted = (0u8..).zip(&self.cells).map(|(column, cells)| {
            let count = cells.present.as_ref().map_or(0, Bits::count);
            (column, cells, count)
        });
        counted.filter(|(_, _, count)| *count > 0)
    }

    fn cell(&mut self, column: TierColumn, row: usize) -> Option<&mut Decoded> {
        let cells = self.cells.get_mut(column as usize)?;
        cells.present.as_mut()?.set(row);
        Some(cells)
    }

    fn put(&mut self, column: TierColumn, row: usize, value: f64) {
        if let Some(cell) = self.cell(column, row).and_then(|cells| cells.values.get_mut(row)) {
            *cell = value;
        }
    }

    fn put_histogram(&mut self, column: TierColumn, row: usize, histogram: NativeHistogram) {
        if let Some(cells) = self.cell(column, row)
            && let Ok(row) = u32::try_from(row)
        {
            cells.histograms.push((row, Arc::new(histogram)));
        }
    }
}

// === impl Interval ===

impl Interval {
    /// Before the first sample.
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            row: None,
            last: None,
            count: 0.0,
            gauge: Gauge::default(),
            counter: Counter::default(),
            native: NativeCounter::default(),
            native_sum: None,
        }
    }

    /// A sample from before the first interval: what counters go on from.
    pub fn before(&mut self, sample: Sample<'_>) {
        match sample {
            Sample::Float(value) if value.is_nan() => {}
            Sample::Float(value) => self.counter.start(value),
            Sample::Histogram(histogram) => self.native.start(histogram),
        }
    }

    /// A sample of the interval of this row; rows grow.
    pub fn add(&mut self, row: usize, sample: Sample<'_>, out: &mut Columns) {
        if self.row != Some(row) {
            self.close(out);
            self.row = Some(row);
        }
        match sample {
            Sample::Float(value) => {
                self.last = Some(Last::Float(value));
                if is_stale(value) {
                    return;
                }
                self.count += 1.0;
                self.gauge.add(value);
                self.counter.add(value);
            }
            Sample::Histogram(histogram) => {
                self.last = Some(Last::Histogram(Arc::clone(histogram)));
                self.count += 1.0;
                if self.kind == Kind::Gauge || histogram.reset == ResetHint::Gauge {
                    let sum = self.native_sum.take();
                    let sum = sum.map_or_else(|| Some((**histogram).clone()), |sum| plus(&sum, histogram));
                    self.native_sum = sum;
                } else {
                    self.native.add(histogram);
                }
            }
        }
    }

    /// Writes the row of the open interval, if there is one.
    pub fn close(&mut self, out: &mut Columns) {
        let Some(row) = self.row.take() else { return };
        let last = self.last.take();
        let value = if let Some(Last::Float(value)) = last { Some(value) } else { None };
        let (gauge, count) = (std::mem::take(&mut self.gauge), std::mem::take(&mut self.count));
        if count > 0.0 {
            out.put(TierColumn::Count, row, count);
        }
        if gauge.is_there && self.kind != Kind::Counter {
            out.put(TierColumn::Min, row, gauge.min);
            out.put(TierColumn::Max, row, gauge.max);
            out.put(TierColumn::Sum, row, gauge.total());
        }
        if let Some(sum) = self.native_sum.take() {
            out.put_histogram(TierColumn::Sum, row, sum);
        }
        if let Some(growth) = self.counter.close(value)
            && self.kind != Kind::Gauge
        {
            out.put(TierColumn::Increase, row, growth);
        }
        let whole = if let Some(Last::Histogram(histogram)) = &last { Some(histogram) } else { None };
        let (growth, hint) = self.native.close(whole);
        if let Some(growth) = growth {
            out.put_histogram(TierColumn::Increase, row, growth);
        }
        match last {
            Some(Last::Float(value)) => out.put(TierColumn::Last, row, value),
            Some(Last::Histogram(histogram)) => {
                let mut histogram = (*histogram).clone();
                if histogram.reset != ResetHint::Gauge {
                    histogram.reset = hint;
                }
                out.put_histogram(TierColumn::Last, row, histogram);
            }
            None => {}
        }
    }
}

// === impl Gauge ===

impl Gauge {
    fn add(&mut self, value: f64) {
        if !self.is_there {
            *self = Self { is_there: true, min: value, max: value, sum: value, rest: 0.0 };
            return;
        }
        // A number is less than NaN and more than NaN: NaN stays only where there is nothing else.
        if value < self.min || self.min.is_nan() {
            self.min = value;
        }
        if value > self.max || self.max.is_nan() {
            self.max = value;
        }
        let sum = self.sum + value;
        if sum.is_finite() {
            let (large, small) =
                if self.sum.abs() >= value.abs() { (self.sum, value) } else { (value, self.sum) };
            self.rest += (large - sum) + small;
        }
        self.sum = sum;
    }

    fn total(&self) -> f64 {
        if self.sum.is_finite() { self.sum + self.rest } else { self.sum }
    }
}

// === impl Counter ===

impl Counter {
    fn start(&mut self, value: f64) {
        (self.base, self.now) = (value, Some(value));
    }

    fn add(&mut self, value: f64) {
        if value.is_nan() {
            return;
        }
        self.is_counted = true;
        match self.now {
            None => (self.base, self.is_said) = (value, true),
            Some(now) if value < now => {
                self.closed += now - self.base;
                (self.base, self.is_said) = (0.0, true);
            }
            Some(_) => {}
        }
        self.now = Some(value);
    }

    /// The growth in the interval that ends, if it must be written; `last` is what the row says of the series.
    fn close(&mut self, last: Option<f64>) -> Option<f64> {
        let now = self.now.filter(|_| std::mem::take(&mut self.is_counted));
        let Some(now) = now else {
            self.written = None;
            return None;
        };
        let growth = std::mem::take(&mut self.closed) + (now - self.base);
        let is_last = last.is_some_and(|last| last.to_bits() == now.to_bits());
        let is_difference = self.written.is_some_and(|written| written.to_bits() == self.base.to_bits());
        let is_said = std::mem::take(&mut self.is_said) || !is_last || !is_difference;
        self.written = Some(now).filter(|_| is_last);
        self.base = now;
        is_said.then_some(growth)
    }
}

// === impl NativeCounter ===

impl NativeCounter {
    fn start(&mut self, histogram: &Arc<NativeHistogram>) {
        self.base = Some(Arc::clone(histogram));
        self.now = Some(Arc::clone(histogram));
    }

    fn add(&mut self, histogram: &Arc<NativeHistogram>) {
        self.is_counted = true;
        match &self.now {
            None => {
                self.base = Some(Arc::clone(histogram));
                self.is_said = true;
            }
            Some(now) if is_reset(histogram, now) => {
                self.closed = self.growth();
                self.base = None;
                (self.is_said, self.was_reset) = (true, true);
            }
            Some(_) => {}
        }
        self.now = Some(Arc::clone(histogram));
    }

    /// Growth so far: up to resets, and since. What stands before a reset and what stands after it may have no layout
    /// in common; then the newer is kept.
    fn growth(&self) -> Option<NativeHistogram> {
        let now = self.now.as_ref()?;
        let since = match &self.base {
            Some(base) => minus(now, base)?,
            None => NativeHistogram { reset: ResetHint::Gauge, ..(**now).clone() },
        };
        match &self.closed {
            Some(closed) => plus(closed, &since).or(Some(since)),
            None => Some(since),
        }
    }

    /// The growth in the interval that ends, if it must be written, and what is known of resets in it.
    fn close(&mut self, last: Option<&Arc<NativeHistogram>>) -> (Option<NativeHistogram>, ResetHint) {
        let same = |a: Option<&Arc<NativeHistogram>>, b: Option<&Arc<NativeHistogram>>| match (a, b) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            _ => false,
        };
        if !std::mem::take(&mut self.is_counted) {
            self.written = None;
            return (None, ResetHint::Unknown);
        }
        let is_difference = same(self.written.as_ref(), self.base.as_ref());
        let is_last = same(last, self.now.as_ref());
        let is_said = std::mem::take(&mut self.is_said) || !is_last || !is_difference;
        let growth = if is_said { self.growth() } else { None };
        let hint = match (std::mem::take(&mut self.was_reset), self.written.is_some()) {
            (true, _) => ResetHint::Reset,
            (false, true) => ResetHint::NotReset,
            (false, false) => ResetHint::Unknown,
        };
        self.closed = None;
        self.base.clone_from(&self.now);
        self.written = self.now.clone().filter(|_| is_last);
        (growth, hint)
    }
}
