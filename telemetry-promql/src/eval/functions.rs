//! Functions of instant vectors and of numbers, value by value.

use std::cmp::Ordering;

use super::arithmetic::Arithmetic;
use super::dates::Date;
use super::frame::{Bits, CellRef, Column, Frame, Grid};
use super::quantile::nan_first;
use super::{Evaluator, histogram_functions, relabel};
use crate::annotations::Kind;
use crate::error::QueryError;
use crate::functions::FunctionId;
use crate::labels::Labels;
use crate::plan::{Node, Op, millis_to_seconds};

// === impl Evaluator ===

impl Evaluator<'_> {
    /// A call of a function that takes no range.
    pub fn call(
        &self,
        function: FunctionId,
        args: &[Node],
        position: usize,
        grid: Grid,
    ) -> Result<Frame, QueryError> {
        use FunctionId as F;
        match function {
            F::Time => Ok(Frame::Scalar(grid.times().map(millis_to_seconds).collect())),
            F::Pi => Ok(Frame::Scalar(vec![std::f64::consts::PI; grid.count])),
            F::MinOf | F::MaxOf => {
                let (a, b) = (self.numbers(args, 0, grid)?, self.numbers(args, 1, grid)?);
                let pick = if function == F::MinOf { go_min } else { go_max };
                Ok(Frame::Scalar(a.into_iter().zip(b).map(|(a, b)| pick(a, b)).collect()))
            }
            F::Vector => {
                let column = Column::of(Labels::default(), self.numbers(args, 0, grid)?);
                Ok(Frame::Vector(vec![column]))
            }
            F::Scalar => Ok(Frame::Scalar(scalar(&self.columns(args, 0, grid)?, grid))),
            F::Clamp | F::ClampMin | F::ClampMax => self.clamp(function, args, grid),
            F::Round => self.round(args, grid),
            F::Sort | F::SortDesc | F::SortByLabel | F::SortByLabelDesc => {
                self.sort(function, args, position, grid)
            }
            F::LabelReplace | F::LabelJoin => relabel::relabel(self, function, args, grid),
            F::HistogramQuantile | F::HistogramQuantiles | F::HistogramFraction => {
                histogram_functions::of_buckets(self, function, args, grid)
            }
            F::HistogramCount
            | F::HistogramSum
            | F::HistogramAvg
            | F::HistogramStddev
            | F::HistogramStdvar => histogram_functions::of_natives(self, function, args, grid),
            F::Timestamp => {
                let columns = self.columns(args, 0, grid)?.into_iter().map(|mut column| {
                    column.histograms = None;
                    column.values = grid.times().map(millis_to_seconds).collect();
                    self.drop_name(column)
                });
                self.assembled(columns.collect(), grid)
            }
            F::StartTimestamp => {
                self.columns(args, 0, grid)?;
                Ok(Frame::Vector(Vec::new()))
            }
            _ => self.date_or_math(function, args, grid),
        }
    }

    fn date_or_math(&self, function: FunctionId, args: &[Node], grid: Grid) -> Result<Frame, QueryError> {
        if let Some(date) = date_function(function) {
            if args.is_empty() {
                let values = grid.times().map(|t| date(&Date::of(t / 1000)));
                return Ok(Frame::Vector(vec![Column::of(Labels::default(), values.collect())]));
            }
            return self.map(args, grid, |value, _| date(&Date::of(whole(value))));
        }
        match math_function(function) {
            Some(math) => self.map(args, grid, |value, _| math(value)),
            None => Err(QueryError::internal("a function is not known to the engine")),
        }
    }

    /// The numbers of a scalar argument.
    pub fn numbers(&self, args: &[Node], at: usize, grid: Grid) -> Result<Vec<f64>, QueryError> {
        let arg = args.get(at).ok_or_else(|| QueryError::internal("an argument is missing"))?;
        Ok(self.eval(arg, grid)?.numbers())
    }

    /// The columns of a vector argument.
    pub fn columns(&self, args: &[Node], at: usize, grid: Grid) -> Result<Vec<Column>, QueryError> {
        let arg = args.get(at).ok_or_else(|| QueryError::internal("an argument is missing"))?;
        Ok(self.eval(arg, grid)?.columns())
    }

    /// A function of each number; histograms are left out.
    fn map(&self, args: &[Node], grid: Grid, f: impl Fn(f64, usize) -> f64) -> Result<Frame, QueryError> {
        let mut columns = self.columns(args, 0, grid)?;
        for column in &mut columns {
            self.budget.check()?;
            let taken = std::mem::replace(column, Column::empty(Labels::default(), 0));
            let mut floats = self.drop_name(taken.floats_only());
            for (step, value) in floats.values.iter_mut().enumerate() {
                *value = f(*value, step);
            }
            *column = floats;
        }
        self.assembled(columns, grid)
    }

    fn clamp(&self, function: FunctionId, args: &[Node], grid: Grid) -> Result<Frame, QueryError> {
        let none = |value: f64| vec![value; grid.count];
        let (min, max) = match function {
            FunctionId::ClampMin => (self.numbers(args, 1, grid)?, none(f64::INFINITY)),
            FunctionId::ClampMax => (none(f64::NEG_INFINITY), self.numbers(args, 1, grid)?),
            _ => (self.numbers(args, 1, grid)?, self.numbers(args, 2, grid)?),
        };
        let bound = |of: &[f64], step: usize| of.get(step).copied().unwrap_or(f64::NAN);
        let mut empty = Bits::none(grid.count);
        (0..grid.count)
            .filter(|step| bound(&max, *step) < bound(&min, *step))
            .for_each(|step| empty.set(step));
        let clamped =
            self.map(args, grid, |value, step| go_max(bound(&min, step), go_min(bound(&max, step), value)))?;
        let mut columns = clamped.columns();
        columns.iter_mut().for_each(|column| column.present.and_not(&empty));
        columns.retain(|column| column.present.any());
        Ok(Frame::Vector(columns))
    }

    fn round(&self, args: &[Node], grid: Grid) -> Result<Frame, QueryError> {
        let nearest = if args.len() > 1 { self.numbers(args, 1, grid)? } else { vec![1.0; grid.count] };
        self.map(args, grid, |value, step| {
            let inverse = 1.0 / nearest.get(step).copied().unwrap_or(1.0);
            (value * inverse + 0.5).floor() / inverse
        })
    }

    fn sort(
        &self,
        function: FunctionId,
        args: &[Node],
        position: usize,
        grid: Grid,
    ) -> Result<Frame, QueryError> {
        if !grid.is_instant() {
            self.note(Kind::SortInRangeQuery, position);
        }
        let mut columns = self.columns(args, 0, grid)?;
        if let FunctionId::SortByLabel | FunctionId::SortByLabelDesc = function {
            let names = args.iter().skip(1).filter_map(|arg| match &arg.op {
                Op::Text(name) => Some(&**name),
                _ => None,
            });
            let names: Vec<&str> = names.collect();
            columns.sort_by(|a, b| by_labels(&a.labels, &b.labels, &names));
            if function == FunctionId::SortByLabelDesc {
                columns.reverse();
            }
            return self.assembled(columns, grid);
        }
        let mut columns: Vec<Column> = columns.into_iter().map(Column::floats_only).collect();
        let key = |column: &Column| column.values.first().copied().unwrap_or(f64::NAN);
        if function == FunctionId::Sort {
            // NaN last, whichever way.
            columns.sort_by(|a, b| key(a).is_nan().cmp(&key(b).is_nan()).then(nan_first(&key(a), &key(b))));
        } else {
            columns.sort_by(|a, b| nan_first(&key(b), &key(a)));
        }
        self.assembled(columns, grid)
    }

    /// `absent`.
    pub fn absent(&self, arg: &Node, labels: &Labels, grid: Grid) -> Result<Frame, QueryError> {
        let columns = self.eval(arg, grid)?.columns();
        let mut out = Column::of(labels.clone(), vec![1.0; grid.count]);
        columns.iter().for_each(|column| out.present.and_not(&column.present));
        Ok(Frame::Vector(if out.present.any() { vec![out] } else { Vec::new() }))
    }

    /// A minus sign.
    pub fn negate(&self, inner: &Node, grid: Grid) -> Result<Frame, QueryError> {
        match self.eval(inner, grid)? {
            Frame::Scalar(values) => Ok(Frame::Scalar(values.into_iter().map(|value| -value).collect())),
            Frame::Text(text) => Ok(Frame::Text(text)),
            Frame::Vector(columns) => {
                let columns = columns.into_iter().map(|mut column| {
                    column.values.iter_mut().for_each(|value| *value = -*value);
                    for histogram in column.histograms.iter_mut().flatten().flatten() {
                        let negated = std::sync::Arc::make_mut(histogram);
                        negated.multiply(-1.0);
                    }
                    self.drop_name(column)
                });
                let twins = match self.options.delayed_name_removal {
                    true => super::frame::Twins::Leave,
                    false => super::frame::Twins::Join,
                };
                Ok(Frame::Vector(super::frame::assemble(columns.collect(), twins)?))
            }
        }
    }
}

/// Go's `math.Max`: NaN wins, and so does +0 over -0.
fn go_max(a: f64, b: f64) -> f64 {
    if a == f64::INFINITY || b == f64::INFINITY {
        f64::INFINITY
    } else if a.is_nan() || b.is_nan() {
        f64::NAN
    } else {
        a.max(b)
    }
}

/// Go's `math.Min`.
fn go_min(a: f64, b: f64) -> f64 {
    -go_max(-a, -b)
}

/// The number of the only series with a number, else NaN.
fn scalar(columns: &[Column], grid: Grid) -> Vec<f64> {
    let mut found = vec![f64::NAN; grid.count];
    let (mut once, mut twice) = (Bits::none(grid.count), Bits::none(grid.count));
    for column in columns {
        for step in column.present.iter() {
            if let Some(CellRef::Float(value)) = column.get(step) {
                if once.get(step) {
                    twice.set(step);
                }
                once.set(step);
                if let Some(cell) = found.get_mut(step) {
                    *cell = if twice.get(step) { f64::NAN } else { value };
                }
            }
        }
    }
    found
}

/// A number of seconds as a whole one, cut as Go cuts it.
#[expect(clippy::cast_possible_truncation, reason = "saturates at the ends; NaN is zero")]
fn whole(value: f64) -> i64 {
    value as i64
}

#[expect(clippy::cast_precision_loss, reason = "calendar numbers are small")]
fn date_function(function: FunctionId) -> Option<fn(&Date) -> f64> {
    use FunctionId as F;
    Some(match function {
        F::DaysInMonth => |date| date.days_in_month() as f64,
        F::DayOfMonth => |date| date.day as f64,
        F::DayOfWeek => |date| date.day_of_week() as f64,
        F::DayOfYear => |date| date.day_of_year() as f64,
        F::Hour => |date| date.clock().0 as f64,
        F::Minute => |date| date.clock().1 as f64,
        F::Month => |date| date.month as f64,
        F::Year => |date| date.year as f64,
        _ => return None,
    })
}

fn math_function(function: FunctionId) -> Option<fn(f64) -> f64> {
    use FunctionId as F;
    Some(match function {
        F::Abs => f64::abs,
        F::Ceil => f64::ceil,
        F::Floor => f64::floor,
        F::Exp => f64::exp,
        F::Sqrt => f64::sqrt,
        F::Ln => f64::ln,
        F::Log2 => f64::log2,
        F::Log10 => f64::log10,
        F::Sin => f64::sin,
        F::Cos => f64::cos,
        F::Tan => f64::tan,
        F::Asin => f64::asin,
        F::Acos => f64::acos,
        F::Atan => f64::atan,
        F::Sinh => f64::sinh,
        F::Cosh => f64::cosh,
        F::Tanh => f64::tanh,
        F::Asinh => f64::asinh,
        F::Acosh => f64::acosh,
        F::Atanh => f64::atanh,
        F::Rad => |value| value * std::f64::consts::PI / 180.0,
        F::Deg => |value| value * 180.0 / std::f64::consts::PI,
        F::Sgn => |value| {
            if value < 0.0 {
                -1.0
            } else if value > 0.0 {
                1.0
            } else {
                value
            }
        },
        _ => return None,
    })
}

/// By the named labels, numbers in them by their size; then by all labels.
fn by_labels(a: &Labels, b: &Labels, names: &[&str]) -> Ordering {
    let named = names.iter().map(|name| natural(a.get(name), b.get(name))).find(|order| order.is_ne());
    named.unwrap_or_else(|| a.iter().cmp(b.iter()))
}

/// The order in which `x2` is before `x10`: runs of digits by their number, all else by its bytes.
fn natural(a: &str, b: &str) -> Ordering {
    if a == b {
        return Ordering::Equal;
    }
    let (mut left, mut right) = (chunks(a), chunks(b));
    loop {
        match (left.next(), right.next()) {
            (None, None) => return a.cmp(b),
            (None, Some(_)) => return Ordering::Less,
            (Some(_), None) => return Ordering::Greater,
            (Some(x), Some(y)) => {
                let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
                let order = if digits(x) && digits(y) {
                    let (x, y) = (x.trim_start_matches('0'), y.trim_start_matches('0'));
                    x.len().cmp(&y.len()).then(x.cmp(y))
                } else {
                    x.cmp(y)
                };
                if order.is_ne() {
                    return order;
                }
            }
        }
    }
}

/// Runs of digits and of other characters.
fn chunks(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let first = rest.chars().next()?.is_ascii_digit();
        let end = rest.find(|c: char| c.is_ascii_digit() != first).unwrap_or(rest.len());
        let (chunk, more) = rest.split_at(end);
        rest = more;
        Some(chunk)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_texts_are_ordered_by_size() {
        assert_eq!(natural("x2", "x10"), Ordering::Less);
        assert_eq!(natural("x02", "x2"), "x02".cmp("x2"));
        assert_eq!(natural("4m5", "4m1000"), Ordering::Less);
        assert_eq!(natural("a", "a1"), Ordering::Less);
    }

    #[test]
    fn nan_wins_over_a_bound() {
        assert!(go_max(f64::NAN, 1.0).is_nan() && go_min(1.0, f64::NAN).is_nan());
        assert_eq!((go_max(1.0, 2.0), go_min(1.0, 2.0)), (2.0, 1.0));
    }
}
