//! What other servers read of the agent: remote read in both kinds, and federation.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use telemetry_tests::agent::Settings;
use telemetry_tests::host::{claim, eventually, kernel_test};
use telemetry_tests::http;
use telemetry_tests::prometheus::{Prometheus, percent, query};
use telemetry_tests::remote_write::{Native, Request};

use super::beside::{LabelSet, Pair, now_ms, same};

const TICKS: u32 = 240;
const STEP_MS: i64 = 15_000;
/// A scrape of federation.
const SCRAPE_LIMIT: Duration = Duration::from_secs(30);

/// What a Prometheus that has nothing itself is asked; each reads another kind of samples.
const QUERIES: &[&str] = &[
    "steps_total",
    "sum by (instance) (rate(steps_total[5m]))",
    "temperature",
    "avg_over_time(temperature[10m])",
    "count_over_time(temperature[1h])",
    "histogram_quantile(0.9, rate(latency[5m]))",
    "latency",
    "histogram_count(sizes)",
    "sum(rate(sizes[5m]))",
    "resets(steps_total[30m])",
    "{job=\"read\",__name__!=\"steps_total\"}",
    "nothing",
];

fn labels(name: &str, instance: &str) -> LabelSet {
    [("__name__", name), ("instance", instance), ("job", "read")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
}

fn native(tick: u32, k: u64) -> Native {
    let tick = u64::from(tick % 100) + 1;
    Native {
        schema: 3,
        sum: tick as f64 * 1.5,
        zeros: tick / 5,
        positive: (-4, (0..3 + tick / 20).map(|bucket| tick * (bucket + k)).collect()),
        negative: (2, vec![tick]),
        bounds: Vec::new(),
    }
}

/// An agent with an hour of floats that change and begin anew, gaps, and native histograms; and its first millisecond.
fn fill(port: u16) -> Result<i64> {
    let start = now_ms()? / STEP_MS * STEP_MS - i64::from(TICKS) * STEP_MS;
    let floats: Vec<LabelSet> = ["steps_total", "temperature"]
        .iter()
        .flat_map(|name| [labels(name, "a"), labels(name, "b")])
        .collect();
    let natives = [labels("latency", "a"), labels("latency", "b"), labels("sizes", "a")];
    let mut float_request = Request::new(floats.iter().map(Vec::as_slice));
    let mut native_request = Request::new(natives.iter().map(Vec::as_slice));
    for tick in 0..TICKS {
        let t = start + i64::from(tick) * STEP_MS;
        let x = f64::from(tick);
        let gap = tick % 50 > 45;
        let values = [
            Some(x % 100.0 * 3.0),
            (!gap).then_some(x / 7.0),
            Some(20.0 + (x / 9.0).sin()),
            (!gap).then_some(-x),
        ];
        float_request.send(port, "/api/v1/write", t, &values)?;
        let sizes = Native {
            schema: -53,
            sum: x,
            positive: (0, vec![u64::from(tick), u64::from(tick) * 2]),
            bounds: vec![0.25, 1e9],
            ..Native::default()
        };
        native_request.send_natives(port, "/api/v1/write", t, &[native(tick, 1), native(tick, 2), sizes])?;
    }
    Ok(start)
}

#[test]
fn a_prometheus_that_reads_from_us_answers_as_we_do() {
    kernel_test(|| {
        let agent = Settings::new().start()?;
        let address = agent.address();
        let start = fill(address.port())?;
        let config = format!(
            "global: {{}}\nremote_read:\n- {{url: 'http://{address}/api/v1/read', read_recent: true}}\n"
        );
        let prometheus = Prometheus::start_newest(&config, &["--enable-feature=native-histograms"])?;
        let pair = Pair { agent, prometheus };
        let (first, end) = (start / 1000 + 1807, start / 1000 + i64::from(TICKS) * STEP_MS / 1000 - 8);
        for text in QUERIES {
            pair.agree(&format!("/api/v1/query?query={}&time={end}", percent(text)), false)?;
            let range = format!("query={}&start={first}&end={end}&step=30s", percent(text));
            pair.agree(&format!("/api/v1/query_range?{range}"), false)?;
        }
        let path = format!("/api/v1/series?match[]={}&start={start}&end={end}", percent("{job=\"read\"}"));
        pair.agree(&path.replace(&start.to_string(), &(start / 1000).to_string()), false)?;
        // What it has read without a question is that all of it came from us.
        let failed =
            pair.prometheus.query("sum(prometheus_remote_storage_read_queries_total{code!=\"200\"})")?;
        claim(failed.is_empty(), || format!("reads failed: {failed:?}"))
    });
}

/// Writes `prometheus.ReadRequest` for one name.
fn read_request(name: &str, from: i64, to: i64, accepted: Option<u8>) -> Vec<u8> {
    let text =
        |tag: u8, text: &str| [&[tag, u8::try_from(text.len()).unwrap_or(0)], text.as_bytes()].concat();
    let number = |tag: u8, mut value: u64| {
        let mut out = vec![tag];
        while value >= 0x80 {
            out.push(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        out.push(value.to_le_bytes()[0]);
        out
    };
    let matcher = [text(0x12, "__name__"), text(0x1a, name)].concat();
    let framed = |tag: u8, bytes: &[u8]| [number(tag, bytes.len() as u64), bytes.to_vec()].concat();
    let query =
        [number(0x08, from.cast_unsigned()), number(0x10, to.cast_unsigned()), framed(0x1a, &matcher)]
            .concat();
    let accepted = accepted.map(|kind| vec![0x10, kind]).unwrap_or_default();
    let body = [framed(0x0a, &query), accepted].concat();
    // One literal of snappy.
    [
        number(u8::try_from(body.len()).unwrap_or(0), 0)[..1].to_vec(),
        vec![60 << 2, u8::try_from(body.len() - 1).unwrap_or(0)],
        body,
    ]
    .concat()
}

#[test]
fn remote_read_refuses_what_it_cannot_answer() {
    kernel_test(|| {
        let agent = Settings::new().start()?;
        let ask = |body: &[u8]| {
            http::post(agent.address(), "/api/v1/read", &[("Content-Encoding", "snappy")], body)
        };
        let request =
            |accepted| read_request("telemetry_agent_ticks_total", 0, now_ms().unwrap_or(0), accepted);
        let whole = ask(&request(None))?;
        claim(whole.status == 200 && whole.header("content-encoding") == Some("snappy"), || {
            format!("{whole:?}")
        })?;
        let streamed = ask(&request(Some(1)))?;
        let is_streamed = streamed.header("content-type")
            == Some("application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse");
        claim(streamed.status == 200 && is_streamed && streamed.body.len() > 20, || format!("{streamed:?}"))?;
        for (body, status) in [
            (request(Some(9)), 400),
            (b"not snappy".to_vec(), 400),
            // A gigabyte when inflated, by its own word.
            (vec![0x80, 0x80, 0x80, 0x80, 0x04, 0, 0], 400),
            // Cut short.
            (request(None)[..12].to_vec(), 400),
            (vec![0; 300_000], 413),
        ] {
            let answer = ask(&body)?;
            let text = String::from_utf8_lossy(&answer.body).into_owned();
            claim(answer.status == status && !text.is_empty(), || format!("{status}: {answer:?}"))?;
        }
        let got = http::get(agent.address(), "/api/v1/read", &[])?;
        claim(got.status == 405, || format!("{got:?}"))
    });
}

#[test]
fn a_prometheus_scrapes_our_federation() {
    kernel_test(|| {
        let agent = Settings::new().start()?;
        let address = agent.address();
        fill(address.port())?;
        let config = format!(
            "global: {{scrape_interval: 1s}}\n\
             scrape_configs:\n\
             - job_name: federate\n  honor_labels: true\n  metrics_path: /federate\n  scrape_native_histograms: true\n\
             \x20 params: {{'match[]': ['{{job=\"read\"}}', 'telemetry_agent_ticks_total']}}\n\
             \x20 static_configs: [{{targets: ['{address}']}}]\n"
        );
        // Only the older one takes its histograms behind a flag alone.
        let config = config.replace("  scrape_native_histograms: true\n", "");
        let prometheus = Prometheus::start_newest(&config, &["--enable-feature=native-histograms"])?;
        eventually("it has scraped", SCRAPE_LIMIT, || {
            Ok(!prometheus.query("telemetry_agent_ticks_total")?.is_empty()
                && !prometheus.query("latency")?.is_empty())
        })
        .with_context(|| format!("{:?} {}", prometheus.query("up"), prometheus.log()))?;
        for name in ["steps_total", "temperature", "latency"] {
            let (ours, theirs) = (sorted(query(address, name)?), sorted(prometheus.query(name)?));
            claim(ours != serde_json::json!({}) && same(Some(&ours), Some(&theirs)), || {
                format!("{name}: {ours}, not {theirs}")
            })?;
        }
        // Without a type, so that a series without an instance stays without one.
        let ticks = prometheus.query("telemetry_agent_ticks_total")?;
        let instance = ticks.first().and_then(|series| series.pointer("/metric/instance"));
        claim(instance.is_none(), || format!("{ticks:?}"))?;
        for (path, status, text) in [
            ("/federate", 200, ""),
            ("/federate?match[]=up%7B", 400, "parse error"),
            ("/federate?match[]=%7Ba=~%22.*%22%7D", 400, "non-empty matcher"),
        ] {
            let answer = http::get(address, path, &[])?;
            let body = String::from_utf8_lossy(&answer.body).into_owned();
            claim(answer.status == status && body.contains(text), || format!("{path}: {answer:?}"))?;
        }
        Ok(())
    });
}

/// Values by label set; the times of two questions differ.
fn sorted(series: Vec<Value>) -> Value {
    let one = |series: Value| {
        let value = series.pointer("/value/1").or_else(|| series.pointer("/histogram/1")).cloned();
        (series.get("metric").map(Value::to_string).unwrap_or_default(), value.unwrap_or(Value::Null))
    };
    let by_labels: BTreeMap<String, Value> = series.into_iter().map(one).collect();
    Value::Object(by_labels.into_iter().collect())
}

/// Kept so that a failure of the helper is a failure of the test.
#[test]
fn a_read_request_is_written_as_the_protocol_says() -> Result<()> {
    let bytes = read_request("up", 1, 300, Some(1));
    let body = bytes.get(3..).context("too short")?;
    let expected = [
        0x0a, 21, 0x08, 1, 0x10, 0xac, 2, 0x1a, 14, 0x12, 8, b'_', b'_', b'n', b'a', b'm', b'e', b'_', b'_',
        0x1a, 2, b'u', b'p', 0x10, 1,
    ];
    if body != expected {
        bail!("{body:?}");
    }
    Ok(())
}
