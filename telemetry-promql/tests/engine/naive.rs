//! An evaluator written to be read: step by step, sample by sample, numbers only.

use std::collections::BTreeMap;

use telemetry_model::is_stale;
use telemetry_promql::ast::{Aggregator, BinaryOp, DurationValue, Expr, MatrixSelector, VectorSelector};
use telemetry_promql::functions::FunctionId;
use telemetry_promql::labels::{Labels, NAME};

use crate::memory::{Memory, matches};

const LOOKBACK: i64 = 300_000;

/// Series and their values at one time.
pub type Vector = BTreeMap<Labels, f64>;

/// The value of an expression at a time; an error where the engine must fail.
pub fn eval(source: &Memory, expr: &Expr, t: i64) -> Result<Vector, ()> {
    match expr {
        Expr::Number(number) => Ok(Vector::from([(Labels::default(), number.value)])),
        Expr::Paren(paren) => eval(source, &paren.expr, t),
        Expr::Vector(selector) => Ok(instant(source, selector, t)),
        Expr::Call(call) => {
            let Expr::Matrix(range) = &call.args[0] else { panic!("only ranges are generated") };
            unique(over(source, call.function.id, range, t))
        }
        Expr::Aggregate(aggregate) => {
            let inner = eval(source, &aggregate.expr, t)?;
            let keeps = |name: &str| {
                let named = aggregate.grouping.iter().any(|label| label == name);
                if aggregate.without { !named && name != NAME } else { named }
            };
            let mut groups: BTreeMap<Labels, Vec<f64>> = BTreeMap::new();
            for (labels, value) in inner {
                groups.entry(labels.keep(keeps)).or_default().push(value);
            }
            Ok(groups.into_iter().map(|(labels, values)| (labels, fold(aggregate.op, &values))).collect())
        }
        Expr::Binary(binary) => {
            let (lhs, rhs) = (eval(source, &binary.lhs, t)?, eval(source, &binary.rhs, t)?);
            match &binary.matching {
                None => {
                    // A number on the right.
                    let number = rhs[&Labels::default()];
                    unique(lhs.iter().filter_map(|(labels, value)| {
                        let made = operate(binary.op, *value, number)?;
                        let drops = !binary.op.is_comparison();
                        Some((if drops { labels.without_metadata() } else { labels.clone() }, made))
                    }))
                }
                Some(_) if binary.op.is_set() => Ok(sets(binary.op, &lhs, &rhs)),
                Some(_) => one_to_one(binary.op, &lhs, &rhs),
            }
        }
        other => panic!("not generated: {other:?}"),
    }
}

fn unique(pairs: impl IntoIterator<Item = (Labels, f64)>) -> Result<Vector, ()> {
    let mut out = Vector::new();
    for (labels, value) in pairs {
        if out.insert(labels, value).is_some() {
            return Err(());
        }
    }
    Ok(out)
}

fn offset(selector: &VectorSelector) -> i64 {
    match &selector.offset {
        None => 0,
        Some(DurationValue::Fixed(nanos)) => nanos.millis(),
        Some(DurationValue::Expr(_)) => panic!("not generated"),
    }
}

/// Samples of all series that are after `from` and not after `to`.
fn samples(source: &Memory, selector: &VectorSelector, from: i64, to: i64) -> Vec<(Labels, Vec<(i64, f64)>)> {
    let wanted =
        source.series.iter().filter(|(labels, _)| selector.matchers.iter().all(|m| matches(m, labels)));
    let within = wanted.map(|(labels, column)| {
        let all = column.times.iter().copied().zip(column.values.iter().copied());
        (labels.clone(), all.filter(|(t, _)| *t > from && *t <= to).collect())
    });
    within.collect()
}

fn instant(source: &Memory, selector: &VectorSelector, t: i64) -> Vector {
    let t = t - offset(selector);
    let all = samples(source, selector, t - LOOKBACK, t).into_iter();
    let last = all.filter_map(|(labels, samples)| Some((labels, samples.last()?.1)));
    last.filter(|(_, value)| !is_stale(*value)).collect()
}

fn over(source: &Memory, function: FunctionId, range: &MatrixSelector, t: i64) -> Vec<(Labels, f64)> {
    let DurationValue::Fixed(window) = &range.range else { panic!("not generated") };
    let (window, to) = (window.millis(), t - offset(&range.selector));
    let mut out = Vec::new();
    for (labels, mut samples) in samples(source, &range.selector, to - window, to) {
        samples.retain(|(_, value)| !is_stale(*value));
        let values: Vec<f64> = samples.iter().map(|sample| sample.1).collect();
        if values.is_empty() {
            continue;
        }
        let made = match function {
            FunctionId::SumOverTime => Some(values.iter().sum()),
            FunctionId::AvgOverTime => Some(values.iter().sum::<f64>() / values.len() as f64),
            FunctionId::MaxOverTime => values.iter().copied().reduce(f64::max),
            FunctionId::MinOverTime => values.iter().copied().reduce(f64::min),
            FunctionId::CountOverTime => Some(values.len() as f64),
            FunctionId::LastOverTime => values.last().copied(),
            FunctionId::Changes => Some(values.windows(2).filter(|pair| pair[0] != pair[1]).count() as f64),
            FunctionId::Resets => Some(values.windows(2).filter(|pair| pair[1] < pair[0]).count() as f64),
            FunctionId::Increase | FunctionId::Rate | FunctionId::Delta => {
                rate(&samples, (to - window, to), function)
            }
            other => panic!("not generated: {other:?}"),
        };
        let keeps = function == FunctionId::LastOverTime;
        let labels = if keeps { labels } else { labels.without_metadata() };
        out.extend(made.map(|made| (labels, made)));
    }
    out
}

/// As the documentation of `rate` tells it.
fn rate(samples: &[(i64, f64)], (from, to): (i64, i64), function: FunctionId) -> Option<f64> {
    let (first, last) = (samples.first()?, samples.last()?);
    if samples.len() < 2 {
        return None;
    }
    let is_counter = function != FunctionId::Delta;
    let mut increase = last.1 - first.1;
    if is_counter {
        increase +=
            samples.windows(2).filter(|pair| pair[1].1 < pair[0].1).map(|pair| pair[0].1).sum::<f64>();
    }
    let sampled = (last.0 - first.0) as f64;
    let average = sampled / (samples.len() - 1) as f64;
    let reach = |gap: f64| if gap < average * 1.1 { gap } else { average / 2.0 };
    let mut before = reach((first.0 - from) as f64);
    let after = reach((to - last.0) as f64);
    if is_counter && increase > 0.0 && first.1 >= 0.0 {
        before = before.min(sampled * first.1 / increase);
    }
    let whole = increase * (sampled + before + after) / sampled;
    Some(if function == FunctionId::Rate { whole / ((to - from) as f64 / 1000.0) } else { whole })
}

fn fold(op: Aggregator, values: &[f64]) -> f64 {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
    match op {
        Aggregator::Sum => values.iter().sum(),
        Aggregator::Avg => mean,
        Aggregator::Max => values.iter().copied().reduce(f64::max).unwrap(),
        Aggregator::Min => values.iter().copied().reduce(f64::min).unwrap(),
        Aggregator::Count => count,
        Aggregator::Group => 1.0,
        Aggregator::Stdvar => variance,
        Aggregator::Stddev => variance.sqrt(),
        other => panic!("not generated: {other:?}"),
    }
}

fn operate(op: BinaryOp, lhs: f64, rhs: f64) -> Option<f64> {
    match op {
        BinaryOp::Add => Some(lhs + rhs),
        BinaryOp::Sub => Some(lhs - rhs),
        BinaryOp::Mul => Some(lhs * rhs),
        BinaryOp::Greater => (lhs > rhs).then_some(lhs),
        BinaryOp::LessEqual => (lhs <= rhs).then_some(lhs),
        other => panic!("not generated: {other:?}"),
    }
}

fn signature(labels: &Labels) -> Labels {
    labels.keep(|name| name != NAME)
}

fn sets(op: BinaryOp, lhs: &Vector, rhs: &Vector) -> Vector {
    let has = |side: &Vector, labels: &Labels| side.keys().any(|other| signature(other) == signature(labels));
    let keep = |side: &Vector, wanted: &dyn Fn(&Labels) -> bool| -> Vector {
        side.iter()
            .filter(|(labels, _)| wanted(labels))
            .map(|(labels, value)| (labels.clone(), *value))
            .collect()
    };
    match op {
        BinaryOp::And => keep(lhs, &|labels| has(rhs, labels)),
        BinaryOp::Unless => keep(lhs, &|labels| !has(rhs, labels)),
        _ => {
            let mut out = keep(rhs, &|labels| !has(lhs, labels));
            out.extend(lhs.clone());
            out
        }
    }
}

fn one_to_one(op: BinaryOp, lhs: &Vector, rhs: &Vector) -> Result<Vector, ()> {
    let mut out = Vector::new();
    if lhs.is_empty() || rhs.is_empty() {
        return Ok(out);
    }
    let mut partners: BTreeMap<Labels, f64> = BTreeMap::new();
    for (labels, value) in rhs {
        if partners.insert(signature(labels), *value).is_some() {
            return Err(());
        }
    }
    let mut matched = Vec::new();
    for (labels, value) in lhs {
        let Some(other) = partners.get(&signature(labels)) else { continue };
        if matched.contains(&signature(labels)) {
            return Err(());
        }
        matched.push(signature(labels));
        if let Some(made) = operate(op, *value, *other) {
            let drops = !op.is_comparison();
            let labels = if drops { labels.without_metadata() } else { labels.clone() };
            if out.insert(labels, made).is_some() {
                return Err(());
            }
        }
    }
    Ok(out)
}
