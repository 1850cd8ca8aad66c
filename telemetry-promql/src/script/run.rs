//! Runs a script through the engine.

use std::sync::Arc;

use super::expect::{Outcome, Pattern, assert_sorted};
use super::memory::{Memory, Store};
use super::nhcb::Collector;
use super::notation::{Item, STALE};
use super::read::{Command, Eval, Load, Script};
use crate::ast::{At, Expr};
use crate::error::QueryError;
use crate::eval::{Options, instant, range};
use crate::parse;
use crate::source::Source;
use crate::value::{Answer, Cell, Sample, Value};

/// A step of the range queries that an instant is checked with, milliseconds.
const MINUTE: i64 = 60_000;
/// What these answer depends on when they are asked, whatever their arguments' `@` says.
const UNSAFE: [&str; 15] = [
    "days_in_month",
    "day_of_month",
    "day_of_week",
    "day_of_year",
    "end",
    "hour",
    "minute",
    "month",
    "year",
    "predict_linear",
    "range",
    "start",
    "step",
    "time",
    "timestamp",
];

/// How a script went.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Evaluations that were asked for.
    pub evals: usize,
    /// Those that did not come out as expected.
    pub misses: Vec<Miss>,
    /// Data that could not be loaded: what follows means little.
    pub refused: Vec<Miss>,
}

/// What did not come out as expected.
#[derive(Clone, Debug)]
pub struct Miss {
    /// Line of the command, from 1.
    pub line: usize,
    /// The query.
    pub query: String,
    /// Expected and got, in words.
    pub reason: String,
}

// === impl Report ===

impl Report {
    /// Evaluations that came out as expected.
    #[must_use]
    pub fn passed(&self) -> usize {
        self.evals.saturating_sub(self.misses.len())
    }
}

/// The engine as Prometheus' own scripts need it: everything on.
#[must_use]
pub fn options() -> Options {
    Options {
        language: parse::Options::all(),
        delayed_name_removal: true,
        start_timestamps: true,
        ..Options::default()
    }
}

/// Runs a script from an empty memory on.
#[must_use]
pub fn run(script: &Script, options: &Options) -> Report {
    run_in(&mut Memory::default(), script, options)
}

/// Runs a script in a store that is empty.
pub fn run_in(store: &mut dyn Store, script: &Script, options: &Options) -> Report {
    let mut report = Report::default();
    for command in &script.commands {
        match command {
            Command::Clear => store.clear(),
            Command::Load(load) => {
                if let Err(reason) = lay_down(store, load) {
                    report.refused.push(Miss { line: load.line, query: "load".to_owned(), reason });
                }
            }
            Command::Eval(eval) => {
                report.evals += 1;
                if let Err(reason) = evaluate(store.source(), eval, options) {
                    report.misses.push(Miss { line: eval.line, query: eval.query.clone(), reason });
                }
            }
        }
    }
    report
}

fn lay_down(store: &mut dyn Store, load: &Load) -> Result<(), String> {
    let mut classic = Collector::default();
    let mut all = Vec::with_capacity(load.series.len());
    for (place, (series, offsets)) in load.series.iter().enumerate() {
        // As upstream: the last line of a series counts.
        let mut later = load.series.iter().skip(place + 1);
        if later.any(|(other, _)| other.labels == series.labels) {
            continue;
        }
        let mut t = 0_i64;
        let mut samples = Vec::with_capacity(series.items.len());
        for (at, item) in series.items.iter().enumerate() {
            let offset = offsets.as_ref().and_then(|offsets| offsets.get(at).copied().flatten());
            let start = offset.map_or(0, |offset| t.saturating_add(offset));
            match item {
                Item::Omitted => {}
                Item::Float(value) => {
                    samples.push((t, start, Cell::Float(*value)));
                    if load.with_nhcb && value.to_bits() != STALE.to_bits() {
                        classic.add(&series.labels, t, *value);
                    }
                }
                Item::Histogram { histogram, .. } => {
                    samples.push((t, start, Cell::Histogram(Arc::clone(histogram))));
                }
            }
            t = t.saturating_add(load.step);
        }
        all.push((series.labels.clone(), samples));
    }
    for (labels, histograms) in classic.finish()? {
        let samples = histograms.into_iter().map(|(t, made)| (t, 0, Cell::Histogram(Arc::new(made))));
        all.push((labels, samples.collect()));
    }
    store.load(all)
}

fn evaluate(source: &dyn Source, eval: &Eval, options: &Options) -> Result<(), String> {
    if eval.is_range {
        let times = (eval.times.start, eval.times.end, eval.times.step);
        let Some(answer) = answered(eval, range(source, &eval.query, times, options))? else { return Ok(()) };
        remarks(eval, &answer)?;
        return eval.outcome.check(&answer.value, eval.times);
    }
    at_instant(source, eval, &eval.query, eval.at, options)?;
    let Ok(mut expr) = parse::parse(&eval.query, &options.language) else { return Ok(()) };
    if calls_any(&expr, &UNSAFE) {
        return Ok(());
    }
    pin(&mut expr, eval.at);
    let pinned = expr.to_string();
    let at = eval.at;
    let times = if at == 0 { vec![-1000, 0, 1000] } else { vec![-10 * at, 0, at / 5, at, 10 * at] };
    for t in times {
        at_instant(source, eval, &pinned, t, options)
            .map_err(|error| format!("as {pinned} at {t}: {error}"))?;
    }
    Ok(())
}

/// The answer if there is one and shall be one; nothing if it failed as it should.
fn answered(eval: &Eval, result: Result<Answer, QueryError>) -> Result<Option<Answer>, String> {
    match (result, &eval.fail) {
        (Ok(answer), None) => Ok(Some(answer)),
        (Ok(_), Some(pattern)) => {
            Err(format!("expected an error like {}, got an answer", pattern.describe()))
        }
        (Err(error), None) => Err(format!("expected an answer, got error: {error}")),
        (Err(error), Some(pattern)) if pattern.matches(&error.to_string()) => Ok(None),
        (Err(error), Some(pattern)) => {
            Err(format!("expected error {}, got: {error}", Pattern::describe(pattern)))
        }
    }
}

fn remarks(eval: &Eval, answer: &Answer) -> Result<(), String> {
    eval.warnings.check("warn", &answer.warnings)?;
    eval.infos.check("info", &answer.infos)
}

fn at_instant(
    source: &dyn Source,
    eval: &Eval,
    query: &str,
    t: i64,
    options: &Options,
) -> Result<(), String> {
    let Some(answer) = answered(eval, instant(source, query, t, options))? else { return Ok(()) };
    remarks(eval, &answer)?;
    eval.outcome.check(&answer.value, eval.times)?;
    let expr = parse::parse(query, &options.language).map_err(|errors| errors.to_string())?;
    if eval.instant_only || calls_any(&expr, &["range", "step", "start", "end"]) || names_ends(query) {
        return Ok(());
    }
    as_step(source, &eval.outcome, query, t, matches!(answer.value, Value::Scalar { .. }), options)
        .map_err(|error| format!("in a range: {error}"))
}

/// `@ start()` and `@ end()` mean something else in a range.
fn names_ends(query: &str) -> bool {
    ["start()", "end()", "range()", "step()"].iter().any(|text| query.contains(text))
}

/// The same as the middle step of three.
fn as_step(
    source: &dyn Source,
    outcome: &Outcome,
    query: &str,
    t: i64,
    is_scalar: bool,
    options: &Options,
) -> Result<(), String> {
    let times = (t - MINUTE, t + MINUTE, MINUTE);
    let answer = range(source, query, times, options).map_err(|error| error.to_string())?;
    let Value::Matrix(matrix) = answer.value else { return Err("expected a matrix".to_owned()) };
    if outcome.ordered {
        return Ok(());
    }
    assert_sorted(&matrix)?;
    let mut samples = Vec::with_capacity(matrix.len());
    for series in matrix {
        let float = series.floats.iter().find(|(at, _)| *at == t).map(|(_, value)| Cell::Float(*value));
        let histogram = series.histograms.iter().find(|(at, _)| *at == t);
        let histogram = histogram.map(|(_, histogram)| Cell::Histogram(Arc::clone(histogram)));
        let cells = float.into_iter().chain(histogram);
        samples.extend(cells.map(|cell| Sample { labels: series.labels.clone(), t, cell }));
    }
    match (is_scalar, samples.first().map(|sample| &sample.cell)) {
        (true, Some(Cell::Float(value))) => outcome.check_scalar(*value),
        (true, _) => Err("expected a scalar, got none".to_owned()),
        (false, _) => outcome.check_vector(&samples),
    }
}

fn calls_any(expr: &Expr, names: &[&str]) -> bool {
    let mut found = false;
    expr.walk(&mut |expr| {
        if let Expr::Call(call) = expr {
            found |= names.contains(&call.function.name);
        }
    });
    found
}

/// Sets the time of all selectors that are not within a subquery, and of the subqueries.
fn pin(expr: &mut Expr, t: i64) {
    let set = |at: &mut Option<At>| {
        if !matches!(at, Some(At::Timestamp(_))) {
            *at = Some(At::Timestamp(t));
        }
    };
    match expr {
        Expr::Number(_) | Expr::String(_) => {}
        Expr::Vector(node) => set(&mut node.at),
        Expr::Matrix(node) => set(&mut node.selector.at),
        Expr::Subquery(node) => set(&mut node.at),
        Expr::Unary(node) => pin(&mut node.expr, t),
        Expr::Paren(node) => pin(&mut node.expr, t),
        Expr::Binary(node) => {
            pin(&mut node.lhs, t);
            pin(&mut node.rhs, t);
        }
        Expr::Aggregate(node) => {
            pin(&mut node.expr, t);
            if let Some(param) = &mut node.param {
                pin(param, t);
            }
        }
        Expr::Call(node) => node.args.iter_mut().for_each(|arg| pin(arg, t)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::read;

    fn run_text(text: &str) -> Report {
        run(&read(text).unwrap(), &options())
    }

    #[test]
    fn what_comes_out_as_expected_passes() {
        let report = run_text(
            "load 1m\n  up{job=\"a\"} 1 2 3\n  up{job=\"b\"} 5x2\n\n\
             eval instant at 2m sum(up)\n  {} 8\n\neval instant at 2m 1 + 1\n  2\n\n\
             eval range from 0 to 2m step 1m up{job=\"a\"}\n  up{job=\"a\"} 1 2 3\n\n\
             eval instant at 2m up +\n  expect fail\n\neval instant at 2m up[2m]\n  \
             expect range vector from 1m to 2m step 1m\n  up{job=\"a\"} 2 3\n  up{job=\"b\"} 5 5\n",
        );
        assert_eq!((report.evals, report.passed()), (5, 5), "{:?}", report.misses);
    }

    #[test]
    fn what_does_not_is_a_miss_that_says_why() {
        let report = run_text(
            "load 1m\n  up 1 2 3\n\neval instant at 2m up\n  up 4\n\neval instant at 2m up\n\n\
             eval instant at 2m up\n  up 3\n  down 3\n\neval instant at 2m up\n  expect fail\n\n\
             eval instant at 2m up\n  expect warn\n  up 3\n\neval range from 0 to 2m step 1m up\n  up 1 _ 3\n",
        );
        let lines: Vec<_> = report.misses.iter().map(|miss| miss.line).collect();
        assert_eq!(lines, [4, 7, 9, 13, 16, 20], "{:?}", report.misses);
        assert!(report.misses[0].reason.contains("expected 4, got 3"), "{}", report.misses[0].reason);
    }

    #[test]
    fn the_last_of_two_lines_of_a_series_counts() {
        let report = run_text("load 1m\n  up 1\n  up 2\n\neval instant at 0m up\n  up 2\n");
        assert_eq!((report.passed(), report.refused.len()), (1, 0), "{:?}", report.misses);
    }

    #[test]
    fn data_out_of_order_is_refused() {
        let report = run_text("load 1m\n  up 1 2 3\n\nload 1m\n  up 4\n");
        assert_eq!(report.refused.len(), 1);
    }
}
