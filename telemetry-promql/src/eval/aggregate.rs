//! Aggregations that make one series of a group. Series are folded in as they are read: what is held is groups times
//! steps, however many series there are.

use std::collections::HashMap;
use std::sync::Arc;

use super::Evaluator;
use super::frame::{Bits, CellRef, Column, Frame, Grid};
use super::histogram_sum::HistogramSum;
use super::kahan::{Mean, Sum};
use super::quantile::quantile;
use crate::annotations::{Kind, Operation};
use crate::ast::Aggregator;
use crate::error::QueryError;
use crate::labels::{Labels, NAME};
use crate::plan::AggregateNode;

/// How labels make groups.
pub(crate) struct Groups<'a> {
    pub names: &'a [String],
    pub without: bool,
    state: ahash::RandomState,
    places: HashMap<u64, Vec<usize>>,
    labels: Vec<Labels>,
}

/// A group so far.
struct Group {
    numbers: Numbers,
    seen: Bits,
    has_float: Bits,
    has_histogram: Bits,
    drop_name: Bits,
    histograms: Vec<Option<Box<HistogramSum>>>,
    /// Bytes of these that are accounted for.
    histogram_bytes: usize,
}

/// What is kept of the numbers of a group, a cell a step.
enum Numbers {
    Sums(Vec<Sum>),
    Means(Vec<Option<Mean>>),
    /// Least or greatest.
    Extremes(Vec<f64>),
    Counts(Vec<f64>),
    /// Count, mean and sum of squared differences.
    Variances(Vec<(f64, f64, f64)>),
    All(Vec<Vec<f64>>),
}

// === impl Groups ===

impl<'a> Groups<'a> {
    pub fn new(names: &'a [String], without: bool) -> Self {
        let state = ahash::RandomState::new();
        Self { names, without, state, places: HashMap::new(), labels: Vec::new() }
    }

    fn wants(&self, name: &str) -> bool {
        let is_named = self.names.iter().any(|known| known == name);
        if self.without { !is_named && name != NAME } else { is_named }
    }

    /// The place of a series' group; a new one if it is the first.
    pub fn place(&mut self, labels: &Labels) -> usize {
        if self.names.is_empty() && !self.without {
            if self.labels.is_empty() {
                self.labels.push(Labels::default());
            }
            return 0;
        }
        let signature = labels.signature(&self.state, |name| self.wants(name));
        let known = self.places.get(&signature).into_iter().flatten();
        for place in known {
            if self.labels.get(*place).is_some_and(|group| group.agrees(labels, |name| self.wants(name))) {
                return *place;
            }
        }
        let place = self.labels.len();
        self.labels.push(labels.keep(|name| self.wants(name)));
        self.places.entry(signature).or_default().push(place);
        place
    }

    /// The groups' labels, in the order of their first series.
    pub fn labels(self) -> Vec<Labels> {
        self.labels
    }

    pub fn len(&self) -> usize {
        self.labels.len()
    }
}

// === impl Evaluator ===

impl Evaluator<'_> {
    /// Any aggregation.
    pub fn aggregate(&self, node: &AggregateNode, position: usize, grid: Grid) -> Result<Frame, QueryError> {
        use Aggregator as A;
        match node.op {
            A::TopK | A::BottomK | A::LimitK | A::LimitRatio => self.pick(node, position, grid),
            A::CountValues => self.count_values(node, grid),
            _ => self.fold(node, grid),
        }
    }

    fn fold(&self, node: &AggregateNode, grid: Grid) -> Result<Frame, QueryError> {
        let param = match &node.param {
            Some(param) => self.eval(param, grid)?.numbers(),
            None => Vec::new(),
        };
        if node.op == Aggregator::Quantile {
            self.check_quantile(node, &param);
        }
        let mut places = Groups::new(&node.grouping, node.without);
        let mut groups: Vec<Group> = Vec::new();
        self.stream(&node.expr, grid, &mut |column| {
            let place = places.place(&column.labels);
            if place == groups.len() {
                self.grow(Group::bytes_of(grid.count).saturating_add(column.labels.bytes()))?;
                groups.push(Group::new(node.op, grid.count));
            }
            match groups.get_mut(place) {
                Some(group) => group.fold(self, node, &column),
                None => Ok(()),
            }
        })?;
        let mut columns = Vec::with_capacity(groups.len());
        for (labels, group) in places.labels().into_iter().zip(groups) {
            self.budget.check()?;
            let column = group.finish(self, node, labels, &param);
            if column.present.any() {
                columns.push(column);
            }
        }
        Ok(Frame::Vector(columns))
    }

    fn check_quantile(&self, node: &AggregateNode, param: &[f64]) {
        let position = node.param.as_ref().map_or(0, |param| param.position);
        let most = param.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let least = param.iter().copied().fold(f64::INFINITY, f64::min);
        if param.iter().any(|q| q.is_nan()) {
            // Neither greatest nor least is one then.
            return self.note(Kind::InvalidQuantile(f64::NAN.into()), position);
        }
        if most > 1.0 {
            self.note(Kind::InvalidQuantile(most.into()), position);
        }
        if least < 0.0 {
            self.note(Kind::InvalidQuantile(least.into()), position);
        }
    }
}

// === impl Group ===

impl Group {
    fn new(op: Aggregator, steps: usize) -> Self {
        use Aggregator as A;
        let numbers = match op {
            A::Sum => Numbers::Sums(vec![Sum::default(); steps]),
            A::Avg => Numbers::Means(vec![None; steps]),
            A::Min | A::Max => Numbers::Extremes(vec![f64::NAN; steps]),
            A::Stddev | A::Stdvar => Numbers::Variances(vec![(0.0, 0.0, 0.0); steps]),
            A::Quantile => Numbers::All(vec![Vec::new(); steps]),
            _ => Numbers::Counts(vec![0.0; steps]),
        };
        let none = Bits::none(steps);
        Self {
            numbers,
            seen: none.clone(),
            has_float: none.clone(),
            has_histogram: none.clone(),
            drop_name: none,
            histograms: Vec::new(),
            histogram_bytes: 0,
        }
    }

    /// Bytes of memory of a group of numbers over so many steps, about: the widest kind of cell, and what comes of it.
    fn bytes_of(steps: usize) -> usize {
        Column::bytes_of(steps).saturating_add(steps.saturating_mul(40))
    }

    fn fold(
        &mut self,
        evaluator: &Evaluator<'_>,
        node: &AggregateNode,
        column: &Column,
    ) -> Result<(), QueryError> {
        if column.drop_name {
            self.drop_name.or(&column.present);
        }
        if node.op == Aggregator::Quantile {
            // Lists grow by halves and more.
            evaluator.grow(column.present.count().saturating_mul(16))?;
        }
        if column.histograms.is_none() {
            self.has_float.or(&column.present);
            self.numbers.fold_all(node.op, column, &self.seen);
            self.seen.or(&column.present);
            return Ok(());
        }
        for step in column.present.iter() {
            match column.get(step) {
                None => {}
                Some(CellRef::Float(value)) => {
                    let is_first = !self.seen.get(step);
                    self.has_float.set(step);
                    self.numbers.fold(node.op, step, value, is_first);
                    self.seen.set(step);
                }
                Some(CellRef::Histogram(_)) => self.fold_histogram(evaluator, node, column, step),
            }
        }
        if !self.histograms.is_empty() {
            let sums = self.histograms.iter().flatten();
            let bytes = sums.map(|sum| sum.bytes()).sum::<usize>() + size_of_val(self.histograms.as_slice());
            evaluator.grow(bytes.saturating_sub(self.histogram_bytes))?;
            self.histogram_bytes = self.histogram_bytes.max(bytes);
        }
        Ok(())
    }

    fn fold_histogram(
        &mut self,
        evaluator: &Evaluator<'_>,
        node: &AggregateNode,
        column: &Column,
        step: usize,
    ) {
        use Aggregator as A;
        match node.op {
            A::Sum | A::Avg => {
                self.seen.set(step);
                self.has_histogram.set(step);
                if self.has_float.get(step) {
                    return;
                }
                let Some(histogram) = column.histogram(step) else { return };
                if self.histograms.is_empty() {
                    self.histograms.resize_with(self.seen.len(), || None);
                }
                let Some(cell) = self.histograms.get_mut(step) else { return };
                let outcome = match cell {
                    None => {
                        *cell = Some(Box::new(HistogramSum::of(histogram, node.op == A::Avg)));
                        return;
                    }
                    Some(sum) => sum.add(histogram),
                };
                let position = node.expr.position;
                if outcome.incompatible {
                    let name = column.labels.name().to_owned();
                    evaluator.note(Kind::MixedExponentialCustom(name), position);
                }
                if outcome.bounds_reconciled {
                    evaluator.note(Kind::MismatchedCustomBuckets(Operation::Aggregation), position);
                }
            }
            A::Count | A::Group => {
                let is_first = !self.seen.get(step);
                self.numbers.fold(node.op, step, 0.0, is_first);
                self.seen.set(step);
            }
            other => {
                evaluator.note(Kind::HistogramIgnoredInAggregation(other.name()), node.expr.position);
            }
        }
    }

    fn finish(
        self,
        evaluator: &Evaluator<'_>,
        node: &AggregateNode,
        labels: Labels,
        param: &[f64],
    ) -> Column {
        let Self { numbers, seen, has_float, has_histogram, drop_name, mut histograms, .. } = self;
        let mut out = Column::of(labels, numbers.finish(node.op, param));
        out.drop_name = drop_name.any();
        out.present = seen;
        if !has_histogram.any() {
            return out;
        }
        let position = node.expr.position;
        for step in has_histogram.iter() {
            if has_float.get(step) {
                evaluator.note(Kind::MixedFloatsHistogramsAggregation, position);
                out.present.unset(step);
                continue;
            }
            out.present.unset(step);
            let Some(sum) = histograms.get_mut(step).and_then(Option::take) else { continue };
            let collides = sum.has_reset_collision();
            if let Some(total) = sum.finish() {
                if collides {
                    evaluator.note(Kind::CounterResetCollision(Operation::Aggregation), position);
                }
                out.set_histogram(step, Arc::new(total));
            }
        }
        out
    }
}

// === impl Numbers ===

impl Numbers {
    /// A column of numbers, the common case: no look at each step's kind.
    fn fold_all(&mut self, op: Aggregator, column: &Column, seen: &Bits) {
        if let Self::Sums(sums) = self
            && column.present.count() == sums.len()
        {
            sums.iter_mut().zip(&column.values).for_each(|(sum, value)| *sum = sum.plus(*value));
            return;
        }
        for step in column.present.iter() {
            if let Some(value) = column.values.get(step) {
                self.fold(op, step, *value, !seen.get(step));
            }
        }
    }

    fn fold(&mut self, op: Aggregator, step: usize, value: f64, is_first: bool) {
        match self {
            Self::Sums(sums) => {
                if let Some(sum) = sums.get_mut(step) {
                    *sum = if is_first { Sum::of(value) } else { sum.plus(value) };
                }
            }
            Self::Means(means) => match means.get_mut(step) {
                Some(Some(mean)) => mean.add(value),
                Some(none) => *none = Some(Mean::of(value)),
                None => {}
            },
            Self::Extremes(extremes) => {
                if let Some(best) = extremes.get_mut(step) {
                    let better = if op == Aggregator::Max { *best < value } else { *best > value };
                    if is_first || better || best.is_nan() {
                        *best = value;
                    }
                }
            }
            Self::Counts(counts) => {
                if let Some(count) = counts.get_mut(step) {
                    *count = if op == Aggregator::Group { 1.0 } else { *count + 1.0 };
                }
            }
            Self::Variances(cells) => {
                if let Some(cell) = cells.get_mut(step) {
                    add_variance(cell, value);
                }
            }
            Self::All(all) => {
                if let Some(values) = all.get_mut(step) {
                    values.push(value);
                }
            }
        }
    }

    fn finish(self, op: Aggregator, param: &[f64]) -> Vec<f64> {
        match self {
            Self::Sums(sums) => sums.into_iter().map(Sum::total).collect(),
            Self::Means(means) => means.into_iter().map(|mean| mean.map_or(0.0, Mean::total)).collect(),
            Self::Extremes(values) | Self::Counts(values) => values,
            Self::Variances(cells) => {
                let variances = cells.into_iter().map(|(count, _, squares)| squares / count);
                if op == Aggregator::Stddev {
                    variances.map(f64::sqrt).collect()
                } else {
                    variances.collect()
                }
            }
            Self::All(all) => {
                let numbered = all.into_iter().enumerate();
                let of = |(step, mut values): (usize, Vec<f64>)| {
                    quantile(param.get(step).copied().unwrap_or(f64::NAN), &mut values)
                };
                numbered.map(of).collect()
            }
        }
    }
}

/// Welford's step. A first value that is no finite number makes all NaN.
fn add_variance(cell: &mut (f64, f64, f64), value: f64) {
    let (count, mean, squares) = cell;
    *count += 1.0;
    if *count == 1.0 {
        *mean = value;
        *squares = if value.is_finite() { 0.0 } else { f64::NAN };
        return;
    }
    let delta = value - *mean;
    *mean += delta / *count;
    *squares += delta * (value - *mean);
}
