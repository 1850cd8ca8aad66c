//! What `top` asks an agent, and what the answers say: the growth of every owner's counters between its two newest
//! ticks, over the time between them. Nothing is extrapolated or averaged over a window.
//!
//! Knows the query API's answers; nothing of terminals.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use axum::http::Uri;
use serde::Deserialize;

use super::usage::{NO_NAMESPACE, OWNER_LABELS, Row, Usage, owner_name};
use crate::cli::query;
use crate::cli::text::printable;
use crate::sysexits;

/// Longest wait for one answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Whose series: the agent's own. What was pushed to it has a job or an instance.
const OWN: &str = r#"job="",instance="""#;
/// How far back the two newest ticks are looked for: first where they usually are, then as far as a tick may be long.
const TICKS_WITHIN: [&str; 2] = ["20s", "15m"];

/// What all owners did between two ticks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// When the newer tick was, in milliseconds since 1970, by the agent's clock.
    pub at_ms: i64,
    /// The time between the two ticks.
    pub over: Duration,
    /// One row an owner.
    pub owners: Vec<Row>,
    /// One row a namespace; what has none has one together.
    pub namespaces: Vec<Row>,
    /// The node: the sum over all owners.
    pub node: Usage,
}

/// An answer of the query API, as far as it is read.
#[derive(Deserialize)]
struct Answer {
    status: String,
    #[serde(default)]
    error: String,
    data: Option<Data>,
}

#[derive(Deserialize)]
struct Data {
    result: Vec<Series>,
}

#[derive(Deserialize)]
struct Series {
    #[serde(default)]
    metric: BTreeMap<String, String>,
    value: Option<(f64, String)>,
    #[serde(default)]
    values: Vec<(f64, String)>,
}

/// Two ticks that follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ticks {
    at_ms: i64,
    over_ms: i64,
}

/// Rows on their way, by what they are grouped by.
struct Rows {
    by: &'static [&'static str],
    rows: HashMap<Vec<String>, Usage>,
}

/// Asks for a reading of another tick than that of `known_ms`; `None` while there is none. Blocks.
///
/// # Errors
/// An exit code and what is wrong, in one line.
pub fn reading(url: &Uri, known_ms: Option<i64>) -> Result<Option<Reading>, (u8, String)> {
    // Not newer alone: the agent's clock may have been set back.
    let Some(ticks) = ticks(url)?.filter(|ticks| known_ms != Some(ticks.at_ms)) else { return Ok(None) };
    let mut owners = Rows { by: &OWNER_LABELS, rows: HashMap::new() };
    let mut namespaces = Rows { by: &["namespace"], rows: HashMap::new() };
    let mut node = Rows { by: &[], rows: HashMap::new() };
    let sums = [
        ("kernel_cpu_seconds_total", "", ""),
        ("kernel_sched_runqueue_latency_seconds_sum", "", ""),
        ("kernel_block_io_bytes_total", r#",op=~"read|write""#, "op"),
        ("kernel_network_bytes_total", "", "direction"),
    ];
    for (metric, more, kind) in sums {
        let growth = ticks.growth(&format!("{metric}{{{OWN}{more}}}"));
        for series in ask(url, &owners.sum(kind, &growth), Some(ticks.at_ms))? {
            let kind = series.metric.get(kind).map(String::as_str);
            let field: fn(&mut Usage) -> &mut f64 = match (metric, kind) {
                ("kernel_cpu_seconds_total", _) => |usage| &mut usage.cpu,
                ("kernel_sched_runqueue_latency_seconds_sum", _) => |usage| &mut usage.wait,
                (_, Some("read")) => |usage| &mut usage.read,
                (_, Some("write")) => |usage| &mut usage.write,
                (_, Some("receive")) => |usage| &mut usage.receive,
                (_, Some("transmit")) => |usage| &mut usage.transmit,
                _ => continue,
            };
            if let Some(value) = series.number() {
                *field(owners.of(&series)) += value;
            }
        }
    }
    let waits = ticks.growth(&format!("kernel_sched_runqueue_latency_seconds{{{OWN}}}"));
    for rows in [&mut owners, &mut namespaces, &mut node] {
        let expression = format!("histogram_quantile(0.99, {})", rows.sum("", &waits));
        for series in ask(url, &expression, Some(ticks.at_ms))? {
            rows.of(&series).wait_p99 = series.number();
        }
    }
    Ok(Some(ticks.reading(owners, namespaces, node)))
}

// === impl Ticks ===

impl Ticks {
    /// What a counter grew by between the two ticks, a second. One that began with the newer tick grew from nothing.
    fn growth(self, selector: &str) -> String {
        let Self { over_ms, .. } = self;
        // The window is open on the left: a millisecond more takes the older tick in.
        let window = over_ms + 1;
        format!(
            "(irate({selector}[{window}ms]) or ({selector} unless {selector} offset {over_ms}ms) * 1000 / {over_ms})"
        )
    }

    fn reading(self, owners: Rows, mut namespaces: Rows, mut node: Rows) -> Reading {
        let mut sum = Usage {
            wait_p99: node.rows.remove(&Vec::new()).and_then(|all| all.wait_p99),
            ..Usage::default()
        };
        let mut rows = Vec::with_capacity(owners.rows.len());
        for (values, usage) in owners.rows {
            sum.add(&usage);
            let namespace = values.first().cloned().unwrap_or_default();
            namespaces.rows.entry(vec![namespace.clone()]).or_default().add(&usage);
            let id = values.join("\u{0}");
            let name = <[String; 6]>::try_from(values).map(|values| owner_name(&values)).unwrap_or_default();
            rows.push(Row { id, name, namespace, usage });
        }
        let namespaces = namespaces.rows.into_iter().map(|(values, usage)| {
            let namespace = values.concat();
            let name = if namespace.is_empty() { NO_NAMESPACE.to_owned() } else { printable(&namespace) };
            Row { id: namespace.clone(), name, namespace, usage }
        });
        Reading {
            at_ms: self.at_ms,
            over: Duration::from_millis(self.over_ms.unsigned_abs()),
            owners: rows,
            namespaces: namespaces.collect(),
            node: sum,
        }
    }
}

// === impl Rows ===

impl Rows {
    /// The sum over everything but what the rows are told apart by, and one label more.
    fn sum(&self, label: &str, expression: &str) -> String {
        let labels: Vec<&str> =
            self.by.iter().copied().chain([label]).filter(|label| !label.is_empty()).collect();
        format!("sum by ({}) ({expression})", labels.join(", "))
    }

    fn of(&mut self, series: &Series) -> &mut Usage {
        let value = |label: &&str| series.metric.get(*label).cloned().unwrap_or_default();
        self.rows.entry(self.by.iter().map(value).collect()).or_default()
    }
}

// === impl Series ===

impl Series {
    /// Its value, where that is a number that can be counted with.
    fn number(&self) -> Option<f64> {
        self.value.as_ref()?.1.parse().ok().filter(|value: &f64| value.is_finite())
    }
}

/// The two newest ticks; `None` before there are two.
fn ticks(url: &Uri) -> Result<Option<Ticks>, (u8, String)> {
    for within in TICKS_WITHIN {
        let answer = ask(url, &format!("telemetry_agent_ticks_total{{{OWN}}}[{within}]"), None)?;
        if let Some(ticks) = newest(&answer) {
            return Ok(Some(ticks));
        }
    }
    Ok(None)
}

fn newest(answer: &[Series]) -> Option<Ticks> {
    let [.., (before, _), (at, _)] = answer.first()?.values.as_slice() else { return None };
    let (before, at_ms) = (milliseconds(*before)?, milliseconds(*at)?);
    let over_ms = at_ms.checked_sub(before).filter(|over_ms| *over_ms > 0)?;
    Some(Ticks { at_ms, over_ms })
}

/// Whole milliseconds, of a time that a calendar has.
fn milliseconds(seconds: f64) -> Option<i64> {
    let milliseconds = (seconds * 1e3).round();
    #[expect(clippy::cast_possible_truncation, reason = "within the range that is checked")]
    (0.0..9e15).contains(&milliseconds).then_some(milliseconds as i64)
}

/// The series of an expression, at a time or now.
fn ask(url: &Uri, expression: &str, at_ms: Option<i64>) -> Result<Vec<Series>, (u8, String)> {
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.append_pair("query", expression);
    if let Some(at_ms) = at_ms {
        form.append_pair("time", &format!("{}.{:03}", at_ms / 1000, at_ms % 1000));
    }
    let path = format!("{}/api/v1/query", url.path().trim_end_matches('/'));
    let answer = query::fetch(url, &path, form.finish(), PATIENCE)?;
    read(&answer).map_err(|error| (sysexits::DATA_ERROR, format!("{url}: {error}")))
}

fn read(answer: &[u8]) -> Result<Vec<Series>, String> {
    let answer: Answer =
        serde_json::from_slice(answer).map_err(|error| format!("no answer of Prometheus' API: {error}"))?;
    match answer.data {
        Some(data) if answer.status == "success" => Ok(data.result),
        _ if answer.error.is_empty() => Err("the query failed".to_owned()),
        _ => Err(printable(&answer.error)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn series(answer: &serde_json::Value) -> Vec<Series> {
        read(answer.to_string().as_bytes()).unwrap_or_default()
    }

    fn of_values(values: &serde_json::Value) -> Option<Ticks> {
        let result = json!([{"metric": {}, "values": values}]);
        newest(&series(&json!({"status": "success", "data": {"resultType": "matrix", "result": result}})))
    }

    #[test]
    fn the_two_newest_ticks_are_found() {
        let ticks = of_values(&json!([[95.001, "1"], [100.002, "2"], [105.004, "3"]]));
        assert_eq!(ticks, Some(Ticks { at_ms: 105_004, over_ms: 5002 }));
        assert_eq!(of_values(&json!([[95, "1"]])), None);
        assert_eq!(of_values(&json!([[95, "1"], [95, "1"]])), None);
        assert_eq!(of_values(&json!([[-1e300, "1"], [1e300, "1"]])), None);
        assert_eq!(newest(&[]), None);
    }

    #[test]
    fn a_refusal_is_said_and_harmless() {
        let error = |text: &str| read(text.as_bytes()).err().unwrap_or_default();
        assert_eq!(error(r#"{"status":"error","error":"too many\u001b[2J"}"#), "too many\u{fffd}[2J");
        assert_eq!(error(r#"{"status":"error"}"#), "the query failed");
        assert!(error("<html>").starts_with("no answer of Prometheus' API: "));
    }

    #[test]
    fn the_node_and_the_namespaces_are_sums_over_owners() {
        let mut owners = Rows { by: &OWNER_LABELS, rows: HashMap::new() };
        let result = json!([
            {"metric": {"namespace": "shop", "pod": "a", "container": "x"}, "value": [1, "0.5"]},
            {"metric": {"namespace": "shop", "pod": "b"}, "value": [1, "0.25"]},
            {"metric": {"unit": "kernel"}, "value": [1, "1"]},
            {"metric": {"unit": "odd"}, "value": [1, "NaN"]},
        ]);
        for series in
            series(&json!({"status": "success", "data": {"resultType": "vector", "result": result}}))
        {
            owners.of(&series).cpu += series.number().unwrap_or_default();
        }
        let rows = |by: &'static [&'static str]| Rows { by, rows: HashMap::new() };
        let mut reading = Ticks { at_ms: 7, over_ms: 5 }.reading(owners, rows(&["namespace"]), rows(&[]));
        reading.namespaces.sort_by(|a, b| a.id.cmp(&b.id));
        let namespaces: Vec<_> = reading.namespaces.iter().map(|row| (&*row.name, row.usage.cpu)).collect();
        assert_eq!(namespaces, [(NO_NAMESPACE, 1.0), ("shop", 0.75)]);
        assert_eq!((reading.node.cpu, reading.owners.len()), (1.75, 4));
    }
}
