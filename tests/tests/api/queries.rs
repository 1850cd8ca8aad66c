//! What dashboards ask, and the endpoints of labels and series; and a Prometheus that pushes what it scrapes.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;
use telemetry_tests::agent::Settings;
use telemetry_tests::host::{claim, eventually, kernel_test};
use telemetry_tests::prometheus::{Prometheus, percent, query};
use telemetry_tests::remote_write::Request;

use super::beside::{LabelSet, Pair, now_ms};

/// Ticks of the pushed series, and their distance.
const TICKS: i64 = 60;
const STEP_MS: i64 = 15_000;
/// A scrape and a push.
const PUSH_LIMIT: Duration = Duration::from_secs(30);

/// What dashboards ask: rates and sums, quantiles, joins, tops, windows, comparisons, subqueries, errors.
const QUERIES: &[&str] = &[
    "requests_total",
    "requests_total{code=~\"5..\"}",
    "requests_total{code!~\"5..\",instance=\"i1\"}",
    "sum by (code) (rate(requests_total[5m]))",
    "sum(rate(requests_total{code=\"500\"}[5m])) / sum(rate(requests_total[5m]))",
    "increase(requests_total[10m])",
    "irate(requests_total[2m])",
    "topk(2, sum by (instance) (rate(requests_total[5m])))",
    "histogram_quantile(0.99, sum by (le) (rate(duration_bucket[5m])))",
    "histogram_quantile(0.5, sum by (le, instance) (rate(duration_bucket[5m])))",
    "avg_over_time(memory[5m])",
    "max_over_time(memory[3m]) - min_over_time(memory[3m])",
    "stddev_over_time(memory[10m])",
    "quantile_over_time(0.9, memory[10m])",
    "predict_linear(memory[10m], 3600)",
    "deriv(memory[5m])",
    "delta(memory[5m])",
    "memory > 100",
    "memory > bool 100",
    "requests_total * on (instance) group_left (zone) info",
    "count by (zone) (info)",
    "count_values(\"v\", info)",
    "absent(nothing{a=\"b\"})",
    "absent_over_time(memory[1m])",
    "label_replace(memory, \"short\", \"$1\", \"instance\", \"i(.*)\")",
    "label_join(memory, \"both\", \"-\", \"instance\", \"job\")",
    "max_over_time(rate(requests_total[1m])[5m:30s])",
    "memory offset 3m",
    "clamp_min(memory, 120)",
    "sort_desc(memory)",
    "changes(memory[5m])",
    "resets(requests_total[10m])",
    "time() - timestamp(memory)",
    "vector(1) + scalar(sum(info))",
    "sum without (instance) (memory)",
    "quantile(0.5, memory)",
    "group(memory) unless on (instance) memory{instance=\"i1\"}",
    "memory and on (instance) info{zone=\"z0\"}",
    "memory or info",
    "round(memory / 7, 0.1)",
    "memory[1m]",
    "1 + 2 * 3",
    "requests_total + on (job) requests_total",
    "rate(requests_total)",
    "sum(",
];

/// The value of a series, by its number and the tick's.
type Course = fn(i64, i64) -> f64;

/// Label sets, sorted, and what each counts a tick.
fn series() -> Vec<(LabelSet, Course)> {
    let labels = |pairs: &[(&str, &str)]| {
        let mut pairs: LabelSet = pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        pairs.push(("job".to_owned(), "test".to_owned()));
        pairs.sort();
        pairs
    };
    let mut all: Vec<(LabelSet, Course)> = Vec::new();
    for instance in ["i0", "i1", "i2"] {
        for code in ["200", "404", "500"] {
            all.push((
                labels(&[("__name__", "requests_total"), ("instance", instance), ("code", code)]),
                // A counter that begins anew after 40 ticks.
                |k, tick| (tick % 40 * (k % 7 + 1)) as f64,
            ));
        }
        for le in ["0.1", "1", "+Inf"] {
            all.push((
                labels(&[("__name__", "duration_bucket"), ("instance", instance), ("le", le)]),
                |k, tick| (tick * (k % 3 + 2)) as f64,
            ));
        }
        all.push((labels(&[("__name__", "memory"), ("instance", instance)]), |k, tick| {
            100.0 + k as f64 + 10.0 * (tick as f64 / 5.0).sin()
        }));
        let zone = if instance == "i2" { "z1" } else { "z0" };
        all.push((labels(&[("__name__", "info"), ("instance", instance), ("zone", zone)]), |_, _| 1.0));
    }
    all
}

#[test]
fn the_same_samples_give_the_same_answers_as_prometheus() {
    kernel_test(|| {
        let pair = Pair::start()?;
        let all = series();
        let mut request = Request::new(all.iter().map(|(labels, _)| labels.as_slice()));
        let start = now_ms()? / STEP_MS * STEP_MS - TICKS * STEP_MS;
        for tick in 0..TICKS {
            let values: Vec<_> = (0i64..).zip(&all).map(|(k, (_, value))| Some(value(k, tick))).collect();
            for address in pair.addresses() {
                request.send(address.port(), "/api/v1/write", start + tick * STEP_MS, &values)?;
            }
        }
        // Between two samples, whole seconds.
        let (first, end) = (start / 1000 + 307, start / 1000 + TICKS * STEP_MS / 1000 - 8);
        let found = query(pair.prometheus.address(), "sum(count_over_time(requests_total[15m]))")?;
        let count = found.first().and_then(|sum| sum.pointer("/value/1")).and_then(Value::as_str);
        claim(count.is_some_and(|count| count != "0"), || format!("the peer has nothing: {found:?}"))?;
        for text in QUERIES {
            let is_ordered = text.starts_with("sort") || text.starts_with("topk");
            pair.agree(&format!("/api/v1/query?query={}&time={end}", percent(text)), is_ordered)?;
            let range = format!("query={}&start={first}&end={end}&step=30s", percent(text));
            pair.agree(&format!("/api/v1/query_range?{range}"), true)?;
        }
        let only = percent("{job=\"test\"}");
        for path in [
            format!("labels?match[]={only}"),
            format!("label/instance/values?match[]={only}"),
            format!("label/__name__/values?match[]={only}&start={first}&end={end}"),
            format!("series?match[]={only}"),
            "series".to_owned(),
            "labels?match[]=".to_owned(),
            "query?query=up&time=x".to_owned(),
            "query_range?query=up&start=1&end=0&step=1".to_owned(),
            format!("format_query?query={}", percent("sum(rate(a[5m]))by(b)")),
        ] {
            pair.agree(&format!("/api/v1/{path}"), false)?;
        }
        Ok(())
    });
}

/// A Prometheus that scrapes the agent and pushes what it scraped back to it.
fn pushes(remote_write: &str, path: &str) -> Result<()> {
    let agent = Settings::new().start()?;
    let address = agent.address();
    let prometheus = Prometheus::start_newest(
        &format!(
            "global: {{scrape_interval: 1s}}\n\
             scrape_configs:\n- {{job_name: agent, static_configs: [{{targets: ['{address}']}}]}}\n\
             remote_write:\n- {{url: 'http://{address}{path}'{remote_write}}}\n"
        ),
        &["--enable-feature=metadata-wal-records"],
    )?;
    eventually("pushed samples can be asked for", PUSH_LIMIT, || {
        Ok(query(address, "up{job=\"agent\"} == 1").is_ok_and(|found| !found.is_empty()))
    })
    .with_context(|| prometheus.log())?;
    let pushed = query(address, "telemetry_agent_ticks_total{job=\"agent\"}")?;
    let own = query(address, "telemetry_agent_ticks_total{job=\"\"}")?;
    claim(pushed.len() == 1 && own.len() == 1, || format!("{pushed:?} {own:?}"))?;
    for name in ["failed", "retried", "dropped"] {
        let found = prometheus.query(&format!("prometheus_remote_storage_samples_{name}_total > 0"))?;
        claim(found.is_empty(), || format!("samples {name}: {found:?}"))?;
    }
    let refused = agent.fresh()?.sum("telemetry_agent_remote_write_refused_total", &[]);
    claim(refused < 0.5, || format!("{refused} were refused"))
}

#[test]
fn a_prometheus_pushes_what_it_scrapes() {
    kernel_test(|| pushes("", "/api/v1/write"));
}

#[test]
fn a_prometheus_pushes_by_the_second_version_too() {
    kernel_test(|| pushes(", protobuf_message: 'io.prometheus.write.v2.Request'", "/write"));
}
