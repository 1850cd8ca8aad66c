//! Virtual classic series of native histograms.

use telemetry_model::NativeHistogram;
use telemetry_promql::eval::{Options, instant};
use telemetry_promql::value::{Cell, Value};

use crate::memory::Memory;

/// Observations of 0.3, 3 and 30 in proportion 2 : 5 : 1, growing with time.
fn histogram(times: f64) -> NativeHistogram {
    NativeHistogram {
        schema: 3,
        zero_threshold: 1e-9,
        count: 8.0 * times,
        sum: 45.6 * times,
        positive: [(-13, 2.0 * times), (13, 5.0 * times), (40, times)].into_iter().collect(),
        ..NativeHistogram::default()
    }
}

fn memory() -> Memory {
    let samples: Vec<(i64, NativeHistogram)> =
        (1_u8..=10).map(|at| (i64::from(at) * 15_000, histogram(f64::from(at)))).collect();
    Memory::default().with_histograms(&[("__name__", "latency"), ("pod", "p")], &samples)
}

fn ask(memory: &Memory, query: &str) -> Vec<(String, f64)> {
    let Value::Vector(samples) = instant(memory, query, 150_000, &Options::default()).unwrap().value else {
        panic!("a vector was expected")
    };
    let floats = samples.into_iter().map(|sample| match sample.cell {
        Cell::Float(value) => (sample.labels.get("le").to_owned(), value),
        Cell::Histogram(_) => panic!("classic series are numbers"),
    });
    floats.collect()
}

#[test]
fn sums_counts_and_buckets_are_read_from_the_native_one() {
    let memory = memory();
    assert_eq!(ask(&memory, "latency_count"), [(String::new(), 80.0)]);
    assert_eq!(ask(&memory, "latency_sum{pod=\"p\"}"), [(String::new(), 456.0)]);
    let buckets = [("+Inf", 80.0), ("0.25", 0.0), ("1", 20.0), ("16", 70.0), ("4", 70.0), ("64", 80.0)];
    let expected: Vec<(String, f64)> = buckets.iter().map(|(le, count)| ((*le).to_owned(), *count)).collect();
    assert_eq!(ask(&memory, "latency_bucket"), expected);
    assert_eq!(ask(&memory, "latency_bucket{le=\"4\"}"), [("4".to_owned(), 70.0)]);
    assert_eq!(ask(&memory, "latency_bucket{pod=\"q\"}"), []);
}

#[test]
fn both_forms_have_quantiles_within_a_bucket() {
    let memory = memory();
    let native = ask(&memory, "histogram_quantile(0.5, rate(latency[1m]))")[0].1;
    let classic = ask(&memory, "histogram_quantile(0.5, rate(latency_bucket[1m]))")[0].1;
    assert!((1.0..=4.0).contains(&native) && (1.0..=4.0).contains(&classic), "{native} and {classic}");
}

#[test]
fn stored_series_of_the_name_win() {
    let memory = memory().with(&[("__name__", "latency_count"), ("pod", "p")], &[(150_000, 1.0)]);
    assert_eq!(ask(&memory, "latency_count"), [(String::new(), 1.0)]);
}
