//! From a query to its answer.

use std::cell::{Cell as StdCell, RefCell};
use std::sync::{Arc, OnceLock};

use super::extended::extend;
use super::frame::{CellRef, Column, Frame, Grid, Twins, assemble, histogram_bytes};
use super::select::Weigh;
use super::shared::Shared;
use super::window::{Look, Samples};
use super::{Evaluator, Options};
use crate::annotations::Annotations;
use crate::ast::{Expr, Extended, ValueType};
use crate::budget::Budget;
use crate::error::QueryError;
use crate::labels::Labels;
use crate::plan::{Node, Op, Range, RangeOf, Times, lower};
use crate::source::{self, Source};
use crate::value::{Answer, Cell, Sample, Series, Value};

/// Threads that read for one query at most.
const THREADS_MAX: usize = 2;

/// Evaluates a query at one time, milliseconds.
///
/// # Errors
/// If it cannot be read or evaluated, or meets a limit.
pub fn instant(source: &dyn Source, query: &str, t: i64, options: &Options) -> Result<Answer, QueryError> {
    instant_expr(source, query, &read(query, options)?, t, options)
}

/// Evaluates a query at `start`, `start + step` and so on up to `end`, milliseconds.
///
/// # Errors
/// If it cannot be read or evaluated, or meets a limit.
pub fn range(
    source: &dyn Source,
    query: &str,
    times: (i64, i64, i64),
    options: &Options,
) -> Result<Answer, QueryError> {
    range_expr(source, query, &read(query, options)?, times, options)
}

fn read(query: &str, options: &Options) -> Result<Expr, QueryError> {
    crate::parse::parse(query, &options.language).map_err(|errors| QueryError::bad_data(errors.to_string()))
}

/// Evaluates a tree at one time, milliseconds; `query` is its text, for positions.
///
/// # Errors
/// If it cannot be evaluated, or meets a limit.
pub fn instant_expr(
    source: &dyn Source,
    query: &str,
    expr: &Expr,
    t: i64,
    options: &Options,
) -> Result<Answer, QueryError> {
    let times = Times { start: t, end: t, step: 0, subquery_step: options.subquery_step };
    let plan = lower(expr, times)?;
    let grid = Grid::one(t);
    answer(source, query, options, &plan, |evaluator| {
        if let Op::Range(range) = &plan.op {
            let mut series = evaluator.range_samples(range, grid)?;
            series.sort_by(|a, b| a.labels.cmp(&b.labels));
            return Ok(Value::Matrix(series));
        }
        Ok(match evaluator.finished(&plan, grid)? {
            Frame::Text(value) => Value::String { t, value: value.to_string() },
            Frame::Scalar(values) => Value::Scalar { t, value: values.first().copied().unwrap_or(f64::NAN) },
            Frame::Vector(columns) => Value::Vector(columns.iter().filter_map(|c| sample(c, t)).collect()),
        })
    })
}

/// Evaluates a tree at `start`, `start + step` and so on up to `end`, milliseconds.
///
/// # Errors
/// If it cannot be evaluated, or meets a limit.
pub fn range_expr(
    source: &dyn Source,
    query: &str,
    expr: &Expr,
    (start, end, step): (i64, i64, i64),
    options: &Options,
) -> Result<Answer, QueryError> {
    let value_type = expr.value_type();
    if !matches!(value_type, ValueType::Scalar | ValueType::Vector) {
        return Err(QueryError::bad_data(format!(
            "invalid expression type \"{}\" for range query, must be Scalar or instant Vector",
            value_type.documented()
        )));
    }
    if step <= 0 {
        return Err(QueryError::bad_data(
            "zero or negative query resolution step widths are not accepted. Try a positive integer",
        ));
    }
    if end < start {
        return Err(QueryError::bad_data("end timestamp must not be before start time"));
    }
    let grid = Grid::new(start, end, step);
    let limit = options.limits.steps;
    if grid.count as u64 > limit.saturating_add(1) {
        return Err(QueryError::bad_data(format!(
            "exceeded maximum resolution of {} points per timeseries. Try decreasing the query resolution (?step=XX)",
            thousands(limit)
        )));
    }
    let plan = lower(expr, Times { start, end, step, subquery_step: options.subquery_step })?;
    answer(source, query, options, &plan, |evaluator| {
        let columns = match evaluator.finished(&plan, grid)? {
            Frame::Scalar(values) => vec![Column::of(Labels::default(), values)],
            Frame::Vector(columns) => columns,
            Frame::Text(_) => Vec::new(),
        };
        evaluator.check_points(columns.iter().map(|column| column.present.count()).sum())?;
        let mut series = Vec::with_capacity(columns.len());
        let mut left: usize = columns.iter().map(Column::bytes).sum();
        let mut made = 0_usize;
        for column in columns {
            let bytes = column.bytes();
            made = made.saturating_add(column.labels.bytes() + point_bytes(column.present.count()));
            evaluator.hold(left.saturating_add(made))?;
            left = left.saturating_sub(bytes);
            series.push(over_time(&column, grid));
        }
        series.sort_by(|a, b| a.labels.cmp(&b.labels));
        Ok(Value::Matrix(series))
    })
}

/// Bytes of a series of so many points in an answer, about, without its labels.
fn point_bytes(points: usize) -> usize {
    points.saturating_mul(size_of::<(i64, f64)>()).saturating_add(2 * size_of::<Series>())
}

fn thousands(number: u64) -> String {
    if number < 1000 { number.to_string() } else { format!("{},{:03}", number / 1000, number % 1000) }
}

fn answer(
    source: &dyn Source,
    query: &str,
    options: &Options,
    plan: &Node,
    run: impl FnOnce(&Evaluator<'_>) -> Result<Value, QueryError>,
) -> Result<Answer, QueryError> {
    let budget = Budget::new(options.limits, Arc::clone(&options.canceled));
    // Asked once: it reads files of the cgroup, which takes longer than a small query.
    static PROCESSORS: OnceLock<usize> = OnceLock::new();
    let processors =
        PROCESSORS.get_or_init(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get));
    let evaluator = Evaluator {
        source,
        options,
        budget: &budget,
        threads: (*processors).min(THREADS_MAX),
        notes: RefCell::new(Annotations::default()),
        held: StdCell::new(0),
        shared: Shared::new(plan),
    };
    let value = run(&evaluator)?;
    let (warnings, infos) = evaluator.notes.borrow().texts(query);
    Ok(Answer { value, warnings, infos, stats: budget.stats() })
}

fn sample(column: &Column, t: i64) -> Option<Sample> {
    let cell = match column.get(0)? {
        CellRef::Float(value) => Cell::Float(value),
        CellRef::Histogram(histogram) => Cell::Histogram(Arc::clone(histogram)),
    };
    Some(Sample { labels: column.labels.clone(), t, cell })
}

fn over_time(column: &Column, grid: Grid) -> Series {
    let mut series = Series { labels: column.labels.clone(), ..Series::default() };
    if column.histograms.is_none() {
        series.floats.reserve(column.present.count());
    }
    for step in column.present.iter() {
        match column.get(step) {
            None => {}
            Some(CellRef::Float(value)) => series.floats.push((grid.t(step), value)),
            Some(CellRef::Histogram(histogram)) => {
                series.histograms.push((grid.t(step), Arc::clone(histogram)));
            }
        }
    }
    series
}

// === impl Series ===

impl Weigh for Series {
    fn weight(&self) -> usize {
        let histograms = self.histograms.iter().filter(|(_, histogram)| Arc::strong_count(histogram) == 1);
        let buckets = histograms.map(|(_, histogram)| histogram_bytes(histogram)).sum::<usize>();
        point_bytes(self.floats.len() + self.histograms.len()).saturating_add(buckets)
    }
}

// === impl Evaluator ===

impl Evaluator<'_> {
    /// Refuses an answer of too many points.
    fn check_points(&self, points: usize) -> Result<(), QueryError> {
        let limit = self.budget.limits().points;
        if points as u64 > limit {
            let message = format!("query would answer with {points} points, more than {limit}");
            return Err(QueryError::execution(message));
        }
        Ok(())
    }

    /// The plan's value, names dropped where they were to be.
    fn finished(&self, plan: &Node, grid: Grid) -> Result<Frame, QueryError> {
        let frame = self.eval(plan, grid)?;
        let Frame::Vector(mut columns) = frame else { return Ok(frame) };
        if !self.options.delayed_name_removal {
            return Ok(Frame::Vector(columns));
        }
        for column in columns.iter_mut().filter(|column| column.drop_name) {
            column.labels = column.labels.without_metadata();
        }
        Ok(Frame::Vector(assemble(columns, Twins::Join)?))
    }

    /// The samples of a range that stands alone.
    fn range_samples(&self, range: &Range, grid: Grid) -> Result<Vec<Series>, QueryError> {
        let selector = match &range.of {
            RangeOf::Selector(selector) => selector,
            RangeOf::Subquery { inner, step, at, offset } => {
                let look = Look { grid, at: *at, offset: *offset, before: range.window, after: 0 };
                let all = self.subquery(inner, &look, *step)?.into_iter();
                let mut points = 0_usize;
                let named = all.map(|made| {
                    let own = made.samples.floats.values.len() + made.samples.histograms.values.len();
                    points = points.saturating_add(own);
                    self.check_points(points)?;
                    self.grow(point_bytes(own))?;
                    let dropped = made.drop_name.then(|| made.labels.without_metadata());
                    Ok(raw(dropped.unwrap_or(made.labels), &made.samples))
                });
                return named.collect();
            }
        };
        let (before, after) = match selector.extended {
            None => (0, 0),
            Some(Extended::Anchored) => (self.options.lookback, 0),
            Some(Extended::Smoothed) => (self.options.lookback, self.options.lookback),
        };
        let look = Look {
            grid,
            at: selector.at,
            offset: selector.offset,
            before: range.window.saturating_add(before),
            after,
        };
        let ends = (look.base(0).saturating_sub(range.window), look.base(0));
        let selection = self.find(selector, &look, range.window)?;
        let extended = selector.extended;
        let work = |worker: &mut super::select::Worker<'_>, labels: &Labels, column: source::Column| {
            worker.make(point_bytes(column.times.len()))?;
            let samples = Samples::of(column, false);
            let floats = samples.floats.view(look.bounds(&samples.floats.times).at(0));
            let histograms = samples.histograms.view(look.bounds(&samples.histograms.times).at(0));
            let mut series = Series {
                labels: labels.clone(),
                floats: floats.iter().map(|(t, value)| (t, *value)).collect(),
                histograms: histograms.iter().map(|(t, value)| (t, Arc::clone(value))).collect(),
            };
            if let Some(extended) = extended {
                if !series.histograms.is_empty() {
                    let word = extended.name();
                    let message = format!("{word} modifier is not supported with histograms");
                    return Err(QueryError::execution(message));
                }
                series.floats = extend(&series.floats, ends, extended == Extended::Smoothed);
            }
            let is_empty = series.floats.is_empty() && series.histograms.is_empty();
            Ok((!is_empty).then_some(series))
        };
        let mut all = Vec::new();
        let mut points = 0_usize;
        self.each(selector, (&*selection, 0), &work, &mut |series| {
            points = points.saturating_add(series.floats.len() + series.histograms.len());
            self.check_points(points)?;
            self.grow(series.weight())?;
            all.push(series);
            Ok(())
        })?;
        Ok(all)
    }
}

fn raw(labels: Labels, samples: &Samples) -> Series {
    let (floats, histograms) = (&samples.floats, &samples.histograms);
    Series {
        labels,
        floats: floats.times.iter().copied().zip(floats.values.iter().copied()).collect(),
        histograms: histograms.times.iter().copied().zip(histograms.values.iter().cloned()).collect(),
    }
}
