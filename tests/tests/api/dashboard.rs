//! Every expression of the dashboard Node Exporter Full, over a page of node_exporter whose values go on from tick to
//! tick.

use std::collections::BTreeSet;

use serde_json::Value;
use telemetry_tests::host::{claim, kernel_test, oracle};
use telemetry_tests::prometheus::percent;
use telemetry_tests::remote_write::Request;

use super::beside::{LabelSet, Pair, now_ms};

/// Ticks, and their distance: half an hour of usual scrapes.
const TICKS: u32 = 60;
const STEP_MS: i64 = 30_000;
const INSTANCE: &str = "node-1:9100";
/// Expressions that find something on this page; fewer would mean that the page is not what they are about.
const ANSWERED_MIN: usize = 150;

/// One line of the page.
struct Line {
    labels: LabelSet,
    value: f64,
    is_counter: bool,
}

/// The lines of a page in the text format.
fn lines(page: &str) -> Vec<Line> {
    let mut counters = BTreeSet::new();
    let mut lines = Vec::new();
    for line in page.lines() {
        if let Some(words) = line.strip_prefix("# TYPE ") {
            if let Some((name, "counter" | "histogram" | "summary")) = words.split_once(' ') {
                counters.insert(name.to_owned());
            }
            continue;
        }
        let (Some((series, value)), false) = (line.rsplit_once(' '), line.starts_with('#')) else { continue };
        let (name, rest) = series.split_once('{').unwrap_or((series, "}"));
        let mut labels = vec![
            ("__name__".to_owned(), name.to_owned()),
            ("job".to_owned(), "node".to_owned()),
            ("instance".to_owned(), INSTANCE.to_owned()),
        ];
        labels.extend(pairs(rest.trim_end_matches('}')));
        labels.retain(|(_, value)| !value.is_empty());
        labels.sort();
        let family =
            ["_bucket", "_count", "_sum"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        let is_counter = counters.contains(name) || counters.contains(family);
        lines.extend(value.parse().ok().map(|value| Line { labels, value, is_counter }));
    }
    lines
}

/// `a="b",c="d"`.
fn pairs(text: &str) -> LabelSet {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some((name, behind)) = rest.split_once("=\"") {
        let mut value = String::new();
        let mut characters = behind.char_indices();
        let mut end = behind.len();
        while let Some((at, character)) = characters.next() {
            match character {
                '"' => {
                    end = at + 1;
                    break;
                }
                '\\' => {
                    value.extend(characters.next().map(|(_, next)| if next == 'n' { '\n' } else { next }))
                }
                other => value.push(other),
            }
        }
        out.push((name.trim_start_matches(',').to_owned(), value));
        rest = behind.get(end..).unwrap_or_default();
    }
    out
}

/// All expressions below a part of a dashboard.
fn expressions(part: &Value, out: &mut BTreeSet<String>) {
    match part {
        Value::Object(fields) => {
            out.extend(fields.get("expr").and_then(Value::as_str).map(str::to_owned));
            fields.values().for_each(|field| expressions(field, out));
        }
        Value::Array(items) => items.iter().for_each(|item| expressions(item, out)),
        _ => {}
    }
}

/// What Grafana puts in for its variables.
fn filled(expression: &str) -> String {
    [
        ("$__rate_interval", "2m"),
        ("$__interval", "30s"),
        ("$__range", "20m"),
        ("$nodename", "node-1"),
        ("$node", INSTANCE),
        ("$job", "node"),
    ]
    .iter()
    .fold(expression.to_owned(), |text, (variable, value)| text.replace(variable, value))
}

#[test]
fn every_expression_of_node_exporter_full_answers_as_prometheus_does() {
    kernel_test(|| {
        let page = std::fs::read_to_string(oracle("node_exporter/fixtures/e2e-output.txt")?)?;
        let board = std::fs::read(oracle("dashboards/node-exporter-full.json")?)?;
        let mut all = BTreeSet::new();
        expressions(&serde_json::from_slice(&board)?, &mut all);
        claim(all.len() > 250, || format!("only {} expressions", all.len()))?;
        // The page is of a machine that says nothing of itself.
        let lines = lines(&(page + "\nnode_uname_info{nodename=\"node-1\",sysname=\"Linux\"} 1\n"));

        let pair = Pair::start()?;
        let start = now_ms()? / STEP_MS * STEP_MS - i64::from(TICKS) * STEP_MS;
        let mut request = Request::new(lines.iter().map(|line| line.labels.as_slice()));
        for tick in 0..TICKS {
            let values: Vec<_> = (0u32..).zip(&lines).map(|(k, line)| Some(value(line, k, tick))).collect();
            for address in pair.addresses() {
                request.send(address.port(), "/api/v1/write", start + i64::from(tick) * STEP_MS, &values)?;
            }
        }
        let (first, end) = (start / 1000 + 607, start / 1000 + i64::from(TICKS) * STEP_MS / 1000 - 8);
        let mut answered = 0;
        for expression in &all {
            let text = percent(&filled(expression));
            let one = pair.agree(&format!("/api/v1/query?query={text}&time={end}"), false)?;
            let range = format!("query={text}&start={first}&end={end}&step=30s");
            pair.agree(&format!("/api/v1/query_range?{range}"), false)?;
            let series = one.pointer("/data/result").and_then(Value::as_array).map_or(0, Vec::len);
            answered += usize::from(series > 0);
        }
        println!("{answered} of {} expressions find something", all.len());
        claim(answered >= ANSWERED_MIN, || format!("{answered} of {} find something", all.len()))
    });
}

/// Counters grow, each at its own pace, and begin anew now and then; gauges swing.
fn value(line: &Line, k: u32, tick: u32) -> f64 {
    let (k, tick) = (f64::from(k % 13 + 1), f64::from(tick));
    match line.is_counter {
        true if k == 7.0 => (tick % 25.0) * k * 3.5,
        true => line.value + tick * k * 1.25,
        false => line.value * (1.0 + 0.01 * (tick * k / 5.0).sin()),
    }
}
