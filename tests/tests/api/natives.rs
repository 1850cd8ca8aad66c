//! Native histograms, exponential and with bounds of their own, beside Prometheus.

use anyhow::Result;
use telemetry_tests::host::kernel_test;
use telemetry_tests::prometheus::percent;
use telemetry_tests::remote_write::{Native, Request};

use super::beside::{LabelSet, Pair, now_ms};

/// Ticks of the pushed series, and their distance.
const TICKS: u32 = 60;
const STEP_MS: i64 = 15_000;

/// What is asked of them, besides errors.
const QUERIES: &[&str] = &[
    "latency",
    "rate(latency[5m])",
    "increase(latency[5m])",
    "irate(latency[1m])",
    "delta(latency[5m])",
    "sum(rate(latency[5m]))",
    "sum by (instance) (rate(latency[2m]))",
    "avg by (instance) (latency)",
    "histogram_quantile(0.5, latency)",
    "histogram_quantile(0.99, sum(rate(latency[5m])))",
    "histogram_quantile(0.9, sum by (instance) (rate(latency[5m])))",
    "histogram_quantile(0, latency)",
    "histogram_quantile(2, latency)",
    "histogram_fraction(0, 0.25, rate(latency[5m]))",
    "histogram_fraction(-1, +Inf, latency)",
    "histogram_count(rate(latency[5m]))",
    "histogram_sum(rate(latency[5m]))",
    "histogram_avg(latency)",
    "histogram_stddev(latency)",
    "histogram_stdvar(latency)",
    "histogram_count(sum(latency)) / count(latency)",
    "latency * 2",
    "2 * latency / 4",
    "latency + latency",
    "latency - latency offset 1m",
    "-latency",
    "latency == latency",
    "count_over_time(latency[5m])",
    "sum_over_time(latency[2m])",
    "avg_over_time(latency[2m])",
    "last_over_time(latency[2m])",
    "present_over_time(latency[2m])",
    "resets(latency[10m])",
    "changes(latency[10m])",
    "latency{instance=\"i1\"} offset 2m",
    "histogram_quantile(0.9, rate(sizes[5m]))",
    "sum(rate(sizes[5m]))",
    "sizes",
    "histogram_fraction(0, 100, sizes)",
    "topk(1, latency)",
    "max(latency)",
    "group(latency)",
    "count(latency)",
    "absent(latency)",
    "max_over_time(latency[5m])",
    "latency > 1",
    "timestamp(latency)",
    "rate(latency[5m]) or vector(1)",
    "histogram_quantile(0.5, {__name__=~\"latency|sizes\"})",
];

fn labels(name: &str, instance: &str) -> LabelSet {
    [("__name__", name), ("instance", instance), ("job", "test")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
}

/// A histogram that grows, with more and more buckets, and begins anew after 40 ticks.
fn latency(k: u64, tick: u32) -> Native {
    let tick = u64::from(tick % 40) + 1;
    let positive: Vec<u64> = (0..4 + tick / 8).map(|bucket| tick * (bucket % 5 + k)).collect();
    let sum = positive.iter().sum::<u64>() as f64 * 0.07;
    Native {
        // One has finer buckets than the others.
        schema: if k == 3 { 4 } else { 2 },
        sum,
        zeros: tick / 3,
        positive: (-6, positive),
        negative: if k == 2 { (1, vec![tick, tick * 2]) } else { (0, Vec::new()) },
        bounds: Vec::new(),
    }
}

/// One with bounds of its own.
fn sizes(k: u64, tick: u32) -> Native {
    let tick = u64::from(tick) + 1;
    let positive = vec![tick * k, tick * 3, tick / 2, tick];
    Native {
        schema: -53,
        sum: tick as f64 * 321.5,
        positive: (0, positive),
        bounds: vec![10.0, 100.0, 1000.5],
        ..Native::default()
    }
}

#[test]
fn native_histograms_give_the_same_answers_as_prometheus() {
    kernel_test(native_histograms);
}

fn native_histograms() -> Result<()> {
    let pair = Pair::start()?;
    let all: Vec<LabelSet> = ["latency", "sizes"]
        .into_iter()
        .flat_map(|name| ["i1", "i2", "i3"].map(|instance| labels(name, instance)))
        .collect();
    let mut request = Request::new(all.iter().map(Vec::as_slice));
    let start = now_ms()? / STEP_MS * STEP_MS - i64::from(TICKS) * STEP_MS;
    for tick in 0..TICKS {
        let natives: Vec<_> =
            (1..=3).map(|k| latency(k, tick)).chain((1..=3).map(|k| sizes(k, tick))).collect();
        for address in pair.addresses() {
            let t = start + i64::from(tick) * STEP_MS;
            request.send_natives(address.port(), "/api/v1/write", t, &natives)?;
        }
    }
    let (first, end) = (start / 1000 + 307, start / 1000 + i64::from(TICKS) * STEP_MS / 1000 - 8);
    for text in QUERIES {
        pair.agree(&format!("/api/v1/query?query={}&time={end}", percent(text)), false)?;
        let range = format!("query={}&start={first}&end={end}&step=30s", percent(text));
        pair.agree(&format!("/api/v1/query_range?{range}"), true)?;
    }
    Ok(())
}
