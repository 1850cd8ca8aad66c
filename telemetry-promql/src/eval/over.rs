//! Functions of ranges: what is the same for all of them. Windows come from a selector or a subquery; each series is
//! read once, and the function is asked once a step.

use std::sync::Arc;

use telemetry_model::{NativeHistogram, ResetHint};

use super::Evaluator;
use super::frame::{Bits, Column, Frame, Grid, Twins, assemble};
use super::select::Worker;
use super::window::{Bounds, Look, Points, Samples, Window};
use super::{over_time, rate, regression};
use crate::annotations::Kind;
use crate::ast::Extended;
use crate::error::QueryError;
use crate::functions::FunctionId;
use crate::labels::{Labels, TYPE};
use crate::plan::{Over, RangeOf, Selector};
use crate::source;
use crate::value::Cell;

/// Functions that an anchored range can be given to.
const ANCHORED: &[FunctionId] =
    &[FunctionId::Changes, FunctionId::Delta, FunctionId::Increase, FunctionId::Rate, FunctionId::Resets];
/// Functions that a smoothed range can be given to.
const SMOOTHED: &[FunctionId] = &[FunctionId::Delta, FunctionId::Increase, FunctionId::Rate];

/// A function of a range, ready to be asked.
pub(crate) struct Job<'a> {
    pub function: FunctionId,
    /// Numbers beside the range, each a step.
    pub params: Vec<Vec<f64>>,
    /// Where remarks point to.
    pub position: usize,
    /// Milliseconds.
    pub window: i64,
    pub extended: Option<Extended>,
    /// When steps look, without what an extended range sees around it.
    pub look: Look,
    pub options: &'a super::Options,
}

/// A series that a subquery made.
pub(crate) struct SubSeries {
    pub labels: Labels,
    pub drop_name: bool,
    pub samples: Samples,
}

// === impl Job ===

impl Job<'_> {
    /// A number beside the range at a step.
    pub fn param(&self, at: usize, step: usize) -> f64 {
        self.params.get(at).and_then(|values| values.get(step)).copied().unwrap_or(f64::NAN)
    }

    /// Whether start timestamps matter to it.
    pub fn wants_starts(&self) -> bool {
        use FunctionId::{Increase, Irate, Rate, Resets};
        self.options.start_timestamps && matches!(self.function, Rate | Irate | Increase | Resets)
    }

    /// What steps see, more than the window if it is extended.
    fn seen(&self) -> Look {
        let lookback = self.options.lookback;
        match self.extended {
            None => self.look,
            Some(Extended::Anchored) => {
                Look { before: self.look.before.saturating_add(lookback), ..self.look }
            }
            Some(Extended::Smoothed) => {
                Look { before: self.look.before.saturating_add(lookback), after: lookback, ..self.look }
            }
        }
    }

    /// The function over all steps of one series.
    fn column(
        &self,
        worker: &mut Worker<'_>,
        labels: &Labels,
        samples: &Samples,
        floats: &Bounds,
    ) -> Result<Column, QueryError> {
        let grid = self.look.grid;
        let mut out = Column::empty(labels.clone(), grid.count);
        let is_plain = samples.histograms.times.is_empty()
            && samples.floats.starts.is_empty()
            && self.extended.is_none();
        if is_plain
            && (rate::all_steps(self, worker, &samples.floats, floats, &mut out)?
                || regression::all_steps(self, worker, &samples.floats, floats, &mut out)?)
        {
            return Ok(out);
        }
        let histograms = match samples.histograms.times.is_empty() {
            true => Bounds::default(),
            false => self.seen().bounds(&samples.histograms.times),
        };
        let name = labels.name();
        for step in 0..grid.count {
            let to = self.look.base(step);
            let window = Window {
                floats: samples.floats.view(floats.at(step)),
                histograms: samples.histograms.view(histograms.at(step)),
                t: grid.t(step),
                from: to.saturating_sub(self.window),
                to,
            };
            if window.is_empty() {
                continue;
            }
            worker.tick(window.len())?;
            worker.look(window.len());
            if let Some(cell) = self.cell(worker, name, &window, step)? {
                if let Cell::Histogram(histogram) = &cell {
                    worker.make(super::histogram_bytes(histogram))?;
                }
                out.put(step, cell);
            }
        }
        Ok(out)
    }

    fn cell(
        &self,
        worker: &mut Worker<'_>,
        name: &str,
        window: &Window<'_>,
        step: usize,
    ) -> Result<Option<Cell>, QueryError> {
        match self.function {
            FunctionId::Rate | FunctionId::Increase | FunctionId::Delta => {
                Ok(rate::window(self, worker, name, window))
            }
            FunctionId::Irate | FunctionId::Idelta => {
                Ok(super::instant_rate::window(self, worker, name, window))
            }
            FunctionId::Resets => Ok(super::changes::resets(self, window).map(Cell::Float)),
            FunctionId::Changes => Ok(super::changes::changes(self, window).map(Cell::Float)),
            _ => over_time::window(self, worker, name, window, step),
        }
    }
}

// === impl Evaluator ===

impl Evaluator<'_> {
    /// A function of a range.
    pub fn over(&self, over: &Over, grid: Grid) -> Result<Frame, QueryError> {
        let mut columns = Vec::new();
        self.over_each(over, grid, &mut |column| {
            self.grow(column.bytes())?;
            columns.push(column);
            Ok(())
        })?;
        if over.function == FunctionId::AbsentOverTime {
            return Ok(self.absent_over_time(over, &columns, grid));
        }
        let twins = if self.options.delayed_name_removal { Twins::Leave } else { Twins::Refuse };
        Ok(Frame::Vector(assemble(columns, twins)?))
    }

    /// A function of a range, series by series.
    pub fn over_each(
        &self,
        over: &Over,
        grid: Grid,
        sink: &mut dyn FnMut(Column) -> Result<(), QueryError>,
    ) -> Result<(), QueryError> {
        let params = over.params.iter().map(|param| Ok(self.eval(param, grid)?.numbers()));
        let params: Vec<Vec<f64>> = params.collect::<Result<_, QueryError>>()?;
        let (at, offset, extended) = match &over.range.of {
            RangeOf::Selector(selector) => (selector.at, selector.offset, selector.extended),
            RangeOf::Subquery { at, offset, .. } => (*at, *offset, None),
        };
        check_extended(over, extended)?;
        let job = Job {
            function: over.function,
            params,
            position: over.range_position,
            window: over.range.window,
            extended,
            look: Look { grid, at, offset, before: over.range.window, after: 0 },
            options: self.options,
        };
        match &over.range.of {
            RangeOf::Selector(selector) => self.over_selector(&job, selector, sink),
            RangeOf::Subquery { inner, step, .. } => {
                for made in self.subquery(inner, &job.look, *step)? {
                    self.budget.check()?;
                    let mut worker = Worker::new(self.budget);
                    worker.make(Column::bytes_of(grid.count).saturating_add(grid.count.saturating_mul(8)))?;
                    let SubSeries { labels, drop_name, samples } = made;
                    let bounds = job.look.bounds(&samples.floats.times);
                    let made = job.column(&mut worker, &labels, &samples, &bounds)?;
                    self.remark_non_counter(&job, &mut worker, &labels, &made);
                    worker.tell();
                    self.note_all(worker.notes);
                    sink(self.named(&job, made, drop_name))?;
                }
                Ok(())
            }
        }
    }

    fn over_selector(
        &self,
        job: &Job<'_>,
        selector: &Selector,
        sink: &mut dyn FnMut(Column) -> Result<(), QueryError>,
    ) -> Result<(), QueryError> {
        let seen = job.seen();
        let selection = self.find(selector, &seen, job.window)?;
        let summed = Job { function: FunctionId::SumOverTime, params: Vec::new(), ..*job };
        let is_summed = job.function == FunctionId::CountOverTime && selection.are_counts();
        let job = if is_summed { &summed } else { job };
        let with_starts = job.wants_starts();
        let type_labels = self.options.type_and_unit_labels;
        let work = |worker: &mut Worker<'_>, labels: &Labels, column: source::Column| {
            let samples = Samples::of(column, with_starts);
            let bounds = worker.known.bounds(&seen, &samples.floats.times);
            let made = job.column(worker, labels, &samples, &bounds)?;
            remark_non_counter(job, worker, labels, &made, type_labels);
            Ok(made.present.any().then_some(made))
        };
        let steps = job.look.grid.count;
        self.each(selector, (&*selection, steps), &work, &mut |column| sink(self.named(job, column, false)))
    }

    /// Sees to the name of what a function of a range made.
    fn named(&self, job: &Job<'_>, mut column: Column, drop_name: bool) -> Column {
        let keeps = matches!(job.function, FunctionId::LastOverTime | FunctionId::FirstOverTime);
        if !keeps || drop_name {
            column = self.drop_name(column);
        }
        column
    }

    fn remark_non_counter(&self, job: &Job<'_>, worker: &mut Worker<'_>, labels: &Labels, made: &Column) {
        remark_non_counter(job, worker, labels, made, self.options.type_and_unit_labels);
    }

    /// The samples of a subquery, for windows.
    pub fn subquery(
        &self,
        inner: &crate::plan::Node,
        look: &Look,
        step: i64,
    ) -> Result<Vec<SubSeries>, QueryError> {
        let (from, to) =
            (look.base(0).saturating_sub(look.before), look.base(look.grid.count.saturating_sub(1)));
        let mut start = from / step * step;
        if start <= from {
            start = start.saturating_add(step);
        }
        let grid = Grid::new(start, to, step);
        if grid.count == 0 {
            return Ok(Vec::new());
        }
        // Each step is a sample at least.
        if grid.count as u64 > self.budget.limits().samples {
            return Err(QueryError::too_many_samples());
        }
        let columns = self.eval(inner, grid)?.columns();
        let times: Arc<[i64]> = grid.times().collect();
        self.grow(times.len().saturating_mul(8))?;
        let made = columns.into_iter().map(|column| {
            // Where values are missing, a series has times of its own.
            let is_whole = column.histograms.is_none() && column.present.count() == times.len();
            self.grow(if is_whole { 0 } else { column.present.count().saturating_mul(16) })?;
            Ok(SubSeries {
                labels: column.labels.clone(),
                drop_name: column.drop_name,
                samples: points(column, &times),
            })
        });
        made.collect()
    }

    fn absent_over_time(&self, over: &Over, columns: &[Column], grid: Grid) -> Frame {
        let mut present = Bits::none(grid.count);
        columns.iter().for_each(|column| present.or(&column.present));
        let mut out = Column::of(over.absent.clone(), vec![1.0; grid.count]);
        out.present.and_not(&present);
        out.drop_name = true;
        Frame::Vector(if out.present.any() { vec![out] } else { Vec::new() })
    }
}

/// A column as samples. Hints about resets are forgotten: samples between were left out, or come twice.
fn points(column: Column, times: &Arc<[i64]>) -> Samples {
    let has_histograms = column.histograms.is_some();
    if !has_histograms && column.present.count() == times.len() {
        let floats = Points { times: Arc::clone(times), values: column.values, starts: Vec::new() };
        return Samples { floats, histograms: Points::default() };
    }
    let histogram_bits = column.histogram_bits();
    let mut float_bits = column.present.clone();
    float_bits.and_not(&histogram_bits);
    let at = |bits: &Bits| bits.iter().filter_map(|at| times.get(at).copied()).collect::<Vec<i64>>();
    let floats = Points {
        times: at(&float_bits).into(),
        values: float_bits.iter().filter_map(|at| column.values.get(at).copied()).collect(),
        starts: Vec::new(),
    };
    let values = histogram_bits.iter().filter_map(|at| column.histogram(at)).map(forget_resets).collect();
    let histograms = Points { times: at(&histogram_bits).into(), values, starts: Vec::new() };
    Samples { floats, histograms }
}

fn forget_resets(histogram: &Arc<NativeHistogram>) -> Arc<NativeHistogram> {
    match histogram.reset {
        ResetHint::Unknown | ResetHint::Gauge => Arc::clone(histogram),
        ResetHint::Reset | ResetHint::NotReset => {
            let mut changed = NativeHistogram::clone(histogram);
            changed.reset = ResetHint::Unknown;
            Arc::new(changed)
        }
    }
}

fn check_extended(over: &Over, extended: Option<Extended>) -> Result<(), QueryError> {
    let (word, allowed) = match extended {
        None => return Ok(()),
        Some(Extended::Anchored) => ("anchored", ANCHORED),
        Some(Extended::Smoothed) => ("smoothed", SMOOTHED),
    };
    if allowed.contains(&over.function) {
        return Ok(());
    }
    let names = crate::functions::FUNCTIONS.iter().filter(|entry| allowed.contains(&entry.id));
    let names: Vec<&str> = names.map(|entry| entry.name).collect();
    Err(QueryError::execution(format!(
        "{word} modifier can only be used with: {} - not with {}",
        names.join(", "),
        over.name
    )))
}

/// Says so if a rate was taken of what its name, or its type, does not call a counter.
fn remark_non_counter(
    job: &Job<'_>,
    worker: &mut Worker<'_>,
    labels: &Labels,
    made: &Column,
    type_labels: bool,
) {
    let name = labels.name();
    let is_rate = matches!(job.function, FunctionId::Rate | FunctionId::Increase);
    if !is_rate || name.is_empty() {
        return;
    }
    let kind = if type_labels {
        let label = labels.get(TYPE);
        if label == "counter" || label == "histogram" {
            return;
        }
        Kind::PossibleNonCounterLabel { metric: name.to_owned(), label: label.to_owned() }
    } else {
        if ["_total", "_sum", "_count", "_bucket"].iter().any(|suffix| name.ends_with(suffix)) {
            return;
        }
        Kind::PossibleNonCounter(name.to_owned())
    };
    let has_floats = match &made.histograms {
        None => made.present.any(),
        Some(_) => made.present.iter().any(|step| made.float(step).is_some()),
    };
    if has_floats {
        worker.notes.add(kind, job.position);
    }
}
