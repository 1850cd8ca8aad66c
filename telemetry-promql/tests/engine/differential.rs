//! Random queries over random series: the engine must answer as the naive evaluator does, at every step.

use std::collections::BTreeMap;

use proptest::prelude::*;
use telemetry_model::STALE_MARKER;
use telemetry_promql::eval::{Options, instant, range};
use telemetry_promql::labels::Labels;
use telemetry_promql::parse;
use telemetry_promql::value::{Cell, Value};

use crate::memory::Memory;
use crate::naive;

fn selector() -> impl Strategy<Value = String> {
    let plain = prop::sample::select(vec!["a", "b", "a{job=\"x\"}", "b{zone!=\"2\"}", "{__name__=~\"a|b\"}"]);
    let offset = prop::sample::select(vec!["", " offset 40s", " offset -30s"]);
    (plain, offset).prop_map(|(plain, offset)| format!("{plain}{offset}"))
}

fn ranged() -> impl Strategy<Value = String> {
    let function = prop::sample::select(vec![
        "rate",
        "increase",
        "delta",
        "sum_over_time",
        "avg_over_time",
        "max_over_time",
        "min_over_time",
        "count_over_time",
        "last_over_time",
        "changes",
        "resets",
    ]);
    let name = prop::sample::select(vec!["a", "b{job=\"x\"}"]);
    let window = prop::sample::select(vec!["30s", "1m", "5m", "1h"]);
    (function, name, window).prop_map(|(function, name, window)| format!("{function}({name}[{window}])"))
}

fn query() -> impl Strategy<Value = String> {
    prop_oneof![selector(), ranged()].prop_recursive(3, 12, 2, |inner| {
        let aggregator =
            prop::sample::select(vec!["sum", "avg", "max", "min", "count", "group", "stddev", "stdvar"]);
        let grouping = prop::sample::select(vec!["", " by (job)", " without (zone)", " by (zone, job)"]);
        let arithmetic = prop::sample::select(vec!["+", "-", "*", ">", "<=", "and", "or", "unless"]);
        let with_number = prop::sample::select(vec!["+ 2", "* 3", "> 1", "<= 5"]);
        prop_oneof![
            (aggregator, grouping, inner.clone()).prop_map(|(a, g, q)| format!("{a}{g} ({q})")),
            (inner.clone(), arithmetic, inner.clone()).prop_map(|(l, op, r)| format!("({l}) {op} ({r})")),
            (inner, with_number).prop_map(|(q, op)| format!("({q}) {op}")),
        ]
    })
}

fn series() -> impl Strategy<Value = Vec<(i64, f64)>> {
    let value = prop_oneof![8 => (0_u8..20).prop_map(f64::from), 1 => Just(STALE_MARKER)];
    let gap = prop_oneof![6 => Just(15_000_i64), 1 => 1_i64..400_000];
    prop::collection::vec((gap, value), 0..60).prop_map(|steps| {
        let mut t = 0;
        let timed = steps.into_iter().map(|(gap, value)| {
            t += gap;
            (t, value)
        });
        timed.collect()
    })
}

fn memory() -> impl Strategy<Value = Memory> {
    let names = [("a", "x", "1"), ("a", "x", "2"), ("a", "y", "1"), ("b", "x", "1"), ("b", "y", "2")];
    prop::collection::vec(series(), names.len()).prop_map(move |all| {
        names.iter().zip(all).fold(Memory::default(), |memory, ((name, job, zone), samples)| {
            memory.with(&[("__name__", name), ("job", job), ("zone", zone)], &samples)
        })
    })
}

fn almost(a: f64, b: f64) -> bool {
    a == b || a.is_nan() && b.is_nan() || (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1.0)
}

fn same(ours: &BTreeMap<Labels, f64>, naive: &naive::Vector) -> bool {
    ours.len() == naive.len() && ours.iter().zip(naive).all(|((l, v), (nl, nv))| l == nl && almost(*v, *nv))
}

/// The answer at each step; none if the query failed.
fn ours(
    memory: &Memory,
    query: &str,
    times: (i64, i64, i64),
) -> Option<BTreeMap<i64, BTreeMap<Labels, f64>>> {
    let Value::Matrix(series) = range(memory, query, times, &Options::default()).ok()?.value else {
        panic!("a range query answers a matrix")
    };
    let mut steps: BTreeMap<i64, BTreeMap<Labels, f64>> = BTreeMap::new();
    for one in series {
        for (t, value) in one.floats {
            steps.entry(t).or_default().insert(one.labels.clone(), value);
        }
    }
    Some(steps)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn range_queries_are_what_the_naive_evaluator_says(memory in memory(), query in query()) {
        let expr = parse::parse(&query, &parse::Options::stable()).unwrap();
        let times = (60_000, 1_260_000, 47_000);
        let expected: Result<Vec<_>, ()> = (times.0..=times.1)
            .step_by(47_000)
            .map(|t| Ok((t, naive::eval(&memory, &expr, t)?)))
            .collect();
        // The engine refuses twins over the whole of a range function's answer, the naive one at each step.
        let (Ok(expected), Some(ours)) = (expected, ours(&memory, &query, times)) else { return Ok(()) };
        let empty = BTreeMap::new();
        for (t, expected) in expected {
            let found = ours.get(&t).unwrap_or(&empty);
            prop_assert!(same(found, &expected), "{query} at {t}: {found:?}, not {expected:?}");
        }
    }

    #[test]
    fn instant_queries_are_one_step_of_range_queries(memory in memory(), query in query()) {
        let Ok(answer) = instant(&memory, &query, 600_000, &Options::default()) else { return Ok(()) };
        let Value::Vector(samples) = answer.value else { return Ok(()) };
        let found: BTreeMap<Labels, f64> = samples
            .into_iter()
            .filter_map(|sample| match sample.cell {
                Cell::Float(value) => Some((sample.labels, value)),
                Cell::Histogram(_) => None,
            })
            .collect();
        if let Some(steps) = ours(&memory, &query, (540_000, 660_000, 60_000)) {
            let middle = steps.get(&600_000).cloned().unwrap_or_default();
            prop_assert!(same(&found, &middle), "{query}: {found:?}, not {middle:?}");
        }
    }

    #[test]
    fn no_time_and_no_text_makes_it_panic(
        text in "[a-z0-9(){}\\[\\]:@+*/, =~\"<>^%-]{0,40}",
        query in query(),
        t in any::<i64>(),
        step in 1..i64::MAX,
    ) {
        let memory = Memory::default().with(&[("__name__", "a")], &[(i64::MIN, 1.0), (0, 2.0), (i64::MAX, 3.0)]);
        let options = Options { language: parse::Options::all(), ..Options::default() };
        for query in [text, query] {
            let _ = instant(&memory, &query, t, &options);
            let _ = range(&memory, &query, (t, t.saturating_add(step.saturating_mul(5)), step), &options);
        }
    }
}
