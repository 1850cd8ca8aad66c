//! Aggregations that pick series (`topk`, `bottomk`, `limitk`, `limit_ratio`) or make a series of each value
//! (`count_values`). They need all their input at once.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::Evaluator;
use super::aggregate::Groups;
use super::distribution::Distribution;
use super::frame::{CellRef, Column, Frame, Grid, Twins, assemble};
use super::quantile::nan_first;
use crate::annotations::Kind;
use crate::ast::Aggregator;
use crate::error::QueryError;
use crate::labels::Labels;
use crate::plan::{AggregateNode, Op};
use crate::text;

/// What a value's text takes, with its place in a map.
const TEXT_BYTES: usize = 128;

/// The least number that Go converts to a 64-bit integer, and the greatest.
const WHOLE: (f64, f64) = (-9_223_372_036_854_775_808.0, 9_223_372_036_854_774_784.0);

// === impl Evaluator ===

impl Evaluator<'_> {
    /// `topk` and its siblings.
    pub fn pick(&self, node: &AggregateNode, position: usize, grid: Grid) -> Result<Frame, QueryError> {
        let param = match &node.param {
            Some(param) => self.eval(param, grid)?.numbers(),
            None => Vec::new(),
        };
        let columns = self.eval(&node.expr, grid)?.columns();
        if !self.check_param(node, &param)? {
            return Ok(Frame::Vector(Vec::new()));
        }
        let mut groups = Groups::new(&node.grouping, node.without);
        let places: Vec<usize> = columns.iter().map(|column| groups.place(&column.labels)).collect();
        let empty = |column: &Column| Column {
            drop_name: column.drop_name,
            ..Column::empty(column.labels.clone(), grid.count)
        };
        self.grow(columns.len().saturating_mul(Column::bytes_of(grid.count)))?;
        let mut out: Vec<Column> = columns.iter().map(empty).collect();
        let mut order: Vec<usize> = Vec::new();
        for step in 0..grid.count {
            self.budget.check()?;
            let param = param.get(step).copied().unwrap_or(f64::NAN);
            let mut members: Vec<Vec<usize>> = vec![Vec::new(); groups.len()];
            for (at, (column, place)) in columns.iter().zip(&places).enumerate() {
                let Some(cell) = column.get(step) else { continue };
                let is_ranked = matches!(node.op, Aggregator::TopK | Aggregator::BottomK);
                if is_ranked && matches!(cell, CellRef::Histogram(_)) {
                    self.note(Kind::HistogramIgnoredInAggregation(node.op.name()), position);
                } else if let Some(members) = members.get_mut(*place) {
                    members.push(at);
                }
            }
            order.clear();
            for mut members in members {
                choose(node.op, param, &columns, step, &mut members);
                order.extend(members);
            }
            for at in &order {
                if let (Some(to), Some(from)) = (out.get_mut(*at), columns.get(*at)) {
                    to.copy(step, from);
                }
            }
        }
        if grid.is_instant() {
            out = order.iter().filter_map(|at| out.get(*at).cloned()).collect();
        }
        Ok(Frame::Vector(assemble(out, Twins::Leave)?))
    }

    /// Whether there is anything to pick.
    fn check_param(&self, node: &AggregateNode, param: &[f64]) -> Result<bool, QueryError> {
        let most = param.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let least = param.iter().copied().fold(f64::INFINITY, f64::min);
        let has_nan = param.iter().any(|value| value.is_nan());
        if node.op == Aggregator::LimitRatio {
            if most == 0.0 && least == 0.0 && !has_nan {
                return Ok(false);
            }
            if has_nan {
                return Err(QueryError::execution("Ratio value is NaN"));
            }
            let position = node.param.as_ref().map_or(0, |param| param.position);
            if most > 1.0 {
                self.note(Kind::InvalidRatio { got: most.into(), to: 1.0.into() }, position);
            }
            if least < -1.0 {
                self.note(Kind::InvalidRatio { got: least.into(), to: (-1.0).into() }, position);
            }
            return Ok(true);
        }
        if most < 1.0 && !has_nan {
            return Ok(false);
        }
        if has_nan {
            return Err(QueryError::execution("Parameter value is NaN"));
        }
        if least <= WHOLE.0 {
            let message = format!("Scalar value {} underflows int64", text::general(least));
            return Err(QueryError::execution(message));
        }
        if most >= WHOLE.1 {
            let message = format!("Scalar value {} overflows int64", text::general(most));
            return Err(QueryError::execution(message));
        }
        Ok(true)
    }

    /// `count_values`.
    pub fn count_values(&self, node: &AggregateNode, grid: Grid) -> Result<Frame, QueryError> {
        let label = match node.param.as_ref().map(|param| &param.op) {
            Some(Op::Text(label)) => label.to_string(),
            _ => String::new(),
        };
        if label.is_empty() {
            let shown = text::quoted(&label);
            return Err(QueryError::execution(format!("invalid label name {shown}")));
        }
        let mut names = node.grouping.clone();
        if !node.without {
            names.push(label.clone());
        }
        let mut groups = Groups::new(&names, node.without);
        let mut counts: Vec<Column> = Vec::new();
        let mut texts: HashMap<u64, String> = HashMap::new();
        self.stream(&node.expr, grid, &mut |column| {
            self.budget.check()?;
            let mut last: Option<(u64, usize)> = None;
            for step in column.present.iter() {
                let (key, value) = match column.get(step) {
                    None => continue,
                    Some(CellRef::Float(value)) => {
                        let text = match texts.entry(value.to_bits()) {
                            Entry::Occupied(known) => known.into_mut(),
                            Entry::Vacant(place) => {
                                self.grow(TEXT_BYTES)?;
                                place.insert(text::plain(value))
                            }
                        };
                        (Some(value.to_bits()), text.clone())
                    }
                    Some(CellRef::Histogram(histogram)) => (None, histogram.to_text()),
                };
                let place = match last {
                    Some((known, place)) if Some(known) == key => place,
                    _ => groups.place(&column.labels.with(&label, &value)),
                };
                last = key.map(|key| (key, place));
                if place >= counts.len() {
                    let bytes = Column::bytes_of(grid.count) + TEXT_BYTES + label.len() + value.len();
                    self.grow(bytes + size_of_val(column.labels.pairs()))?;
                    counts.resize_with(place + 1, || Column::empty(Labels::default(), grid.count));
                }
                if let Some(count) = counts.get_mut(place) {
                    let so_far = count.float(step).unwrap_or(0.0);
                    count.set(step, so_far + 1.0);
                }
            }
            Ok(())
        })?;
        let labelled = groups.labels().into_iter().zip(counts);
        let columns = labelled.map(|(labels, count)| Column { labels, ..count }).collect();
        self.assembled(columns, grid)
    }
}

/// Which of a group's series stay at a step, in the order in which they are answered.
fn choose(op: Aggregator, param: f64, columns: &[Column], step: usize, members: &mut Vec<usize>) {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked to fit; negative is none"
    )]
    let k = param.max(0.0) as usize;
    let value = |at: &usize| columns.get(*at).and_then(|column| column.float(step)).unwrap_or(f64::NAN);
    // NaN is least wanted, whichever way.
    let descending = |a: f64, b: f64| nan_first(&b, &a);
    let ascending = |a: f64, b: f64| match (a.is_nan(), b.is_nan()) {
        (false, false) => nan_first(&a, &b),
        (a, b) => a.cmp(&b),
    };
    if op == Aggregator::LimitRatio {
        members.retain(|at| {
            columns
                .get(*at)
                .is_some_and(|column| super::sample::is_in(&column.labels, param.clamp(-1.0, 1.0)))
        });
        return;
    }
    match op {
        Aggregator::TopK => first_of(members, k, value, descending),
        Aggregator::BottomK => first_of(members, k, value, ascending),
        _ => members.truncate(k),
    }
}

/// The first `k` in an order of their values, sorted; of equal ones the earlier series.
fn first_of(
    members: &mut Vec<usize>,
    k: usize,
    value: impl Fn(&usize) -> f64,
    order: impl Fn(f64, f64) -> Ordering,
) {
    let mut ranked: Vec<(f64, usize)> = members.iter().map(|at| (value(at), *at)).collect();
    let by = |a: &(f64, usize), b: &(f64, usize)| order(a.0, b.0).then(a.1.cmp(&b.1));
    if k < ranked.len() {
        ranked.select_nth_unstable_by(k, by);
        ranked.truncate(k);
    }
    ranked.sort_unstable_by(by);
    members.clear();
    members.extend(ranked.into_iter().map(|(_, at)| at));
}
