//! Every limit stops a query and says which it was.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use telemetry_promql::budget::Limits;
use telemetry_promql::error::{ErrorKind, QueryError};
use telemetry_promql::eval::{Options, instant, range};

use crate::memory::Memory;

fn many(series: usize, samples: i64) -> Memory {
    let all: Vec<(i64, f64)> = (0..samples).map(|at| (at * 1000, at as f64)).collect();
    (0..series).fold(Memory::default(), |memory, at| {
        memory.with(&[("__name__", "x"), ("at", &at.to_string())], &all)
    })
}

fn refused(query: &str, limits: Limits) -> QueryError {
    let options = Options { limits, ..Options::default() };
    range(&many(20, 100), query, (0, 99_000, 1000), &options).expect_err("the limit must be met")
}

#[test]
fn too_many_steps_are_refused_in_prometheus_words() {
    let error = range(&many(1, 1), "x", (0, 11_001_000, 1000), &Options::default()).unwrap_err();
    assert_eq!(error.kind, ErrorKind::BadData);
    assert_eq!(
        error.message,
        "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)"
    );
    assert!(
        range(&many(1, 1), "x", (0, 11_000_000, 1000), &Options::default()).is_ok(),
        "as Prometheus counts"
    );
}

#[test]
fn samples_series_bytes_and_points_are_bounded() {
    let error = refused("x", Limits { samples: 1999, ..Limits::default() });
    assert_eq!(error.message, "query processing would load too many samples into memory in query execution");
    let error = refused("x", Limits { series: 19, ..Limits::default() });
    assert_eq!(error.message, "query would read 20 series, more than 19");
    let error = refused("x + x", Limits { bytes: 10_000, ..Limits::default() });
    assert!(error.message.contains("bytes of intermediate values, more than 10000"), "{error}");
    let error = refused("x", Limits { points: 1999, ..Limits::default() });
    assert_eq!(error.message, "query would answer with 2000 points, more than 1999");
    let error = refused("max_over_time(time()[1y:1ms])", Limits::default());
    assert_eq!(error.kind, ErrorKind::BadData, "a number has no subquery: {error}");
    let error = refused("max_over_time(vector(1)[1y:1ms])", Limits::default());
    assert_eq!(error.kind, ErrorKind::Execution, "a subquery's steps are samples: {error}");
}

#[test]
fn aggregations_hold_groups_and_not_series() {
    // Their labels take a hundred and twenty thousand bytes, their columns would take six hundred thousand.
    let limits = Limits { bytes: 200_000, ..Limits::default() };
    let options = Options { limits, ..Options::default() };
    assert!(range(&many(500, 100), "sum(rate(x[10s]))", (0, 99_000, 1000), &options).is_ok());
}

#[test]
fn a_query_that_is_late_stops() {
    let error = refused("x", Limits { time: Duration::ZERO, ..Limits::default() });
    assert_eq!(
        (error.kind, error.message.as_str()),
        (ErrorKind::Timeout, "query timed out in expression evaluation")
    );
}

#[test]
fn a_canceled_query_stops_within_a_moment() {
    let memory = many(40, 20_000);
    let canceled = Arc::new(AtomicBool::new(false));
    let options = Options { canceled: Arc::clone(&canceled), ..Options::default() };
    let (error, stopped) = std::thread::scope(|scope| {
        let query = scope.spawn(|| {
            let times = (0, 20_000_000, 2000);
            // Hours of work: every step sorts thousands of samples.
            let result = range(&memory, "quantile_over_time(0.5, x[5h])", times, &options);
            (result.expect_err("it cannot be done before it is canceled"), Instant::now())
        });
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(100) {
            std::thread::yield_now();
        }
        canceled.store(true, Ordering::Relaxed);
        let asked = Instant::now();
        let (error, stopped) = query.join().unwrap();
        (error, stopped.saturating_duration_since(asked))
    });
    assert_eq!(
        (error.kind, error.message.as_str()),
        (ErrorKind::Canceled, "query was canceled in expression evaluation")
    );
    // The debug build sorts ten times slower than the one that ships.
    assert!(stopped < Duration::from_millis(200), "{stopped:?}");
}

#[test]
fn the_deepest_query_that_parses_is_evaluated() {
    let limits = telemetry_promql::parse::Limits::default();
    let options = Options::default();
    let memory = many(2, 10);
    let (chain, calls) = (vec!["x"; limits.height - 1].join(" + "), limits.nesting - 1);
    let nested = format!("{}x{}", "abs(".repeat(calls), ")".repeat(calls));
    for query in [chain, nested] {
        let ran = std::thread::Builder::new().stack_size(2 << 20).spawn({
            let (memory, options) = (memory.clone(), options.clone());
            move || instant(&memory, &query, 9000, &options).map(drop)
        });
        assert!(ran.unwrap().join().unwrap().is_ok(), "no stack of a thread is too small for it");
    }
}

#[test]
fn what_was_read_and_looked_at_is_counted() {
    let stats =
        |query: &str| range(&many(2, 100), query, (50_000, 99_000, 1000), &Options::default()).unwrap().stats;
    let (plain, ranged) = (stats("x"), stats("rate(x[10s])"));
    assert_eq!((plain.series_read, plain.samples_read, plain.samples_total), (2, 200, 100));
    assert_eq!((ranged.samples_read, ranged.samples_total), (2 * 59, 2 * 50 * 10), "windows count each step");
    assert!(plain.samples_peak >= 100);
}

#[test]
fn what_a_query_says_twice_is_read_once() {
    let read = |query: &str| {
        let answer = range(&many(20, 100), query, (0, 99_000, 1000), &Options::default()).unwrap();
        answer.stats.series_read
    };
    assert_eq!(read("x"), 20);
    assert_eq!(read("rate(x[10s]) / on (at) rate(x[10s]) + on (at) sum by (at) (rate(x[10s]))"), 20);
    assert_eq!(read("rate(x[10s]) / rate(x[20s])"), 40, "another window is another part");
}

#[test]
fn many_series_are_read_by_two_threads_to_the_same_answer() {
    let memory = many(1000, 50);
    let sum = |query: &str| instant(&memory, query, 49_000, &Options::default()).unwrap().value;
    assert_eq!(sum("sum(x)"), sum("sum(x + 0)"));
    assert_eq!(sum("count(rate(x[30s]))"), sum("count(x)"));
}
