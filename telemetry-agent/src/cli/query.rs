//! `telemetry-agent query`: asks a running agent, or any Prometheus, and shows the answer in the terminal.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::header::{CONTENT_TYPE, HOST};
use axum::http::{Request, Uri};
use clap::{Args, ValueEnum};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::text::printable;
use crate::{human_duration, sysexits};

/// What to ask, and how to show it.
#[derive(Args, Clone, Debug)]
pub struct Query {
    /// The PromQL expression.
    expression: String,
    /// The agent, or any server with Prometheus' HTTP API.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9632")]
    url: Uri,
    /// Evaluate at this time: seconds since 1970, or RFC 3339. [default: now]
    #[arg(long, value_name = "TIME")]
    time: Option<String>,
    /// Evaluate over this long, up to the time: `1h`.
    #[arg(long, value_name = "DURATION", value_parser = human_duration::parse)]
    range: Option<Duration>,
    /// Distance of evaluations over a range. [default: 60 of them]
    #[arg(long, value_name = "DURATION", value_parser = human_duration::parse, requires = "range")]
    step: Option<Duration>,
    /// How to show the answer. [default: table, and graph for a range]
    #[arg(short, long, value_enum)]
    output: Option<Output>,
}

/// How an answer is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Columns of text.
    Table,
    /// The server's answer as it came.
    Json,
    /// One line a sample: time, value, series.
    Csv,
    /// One line a series: its course, least, greatest and last value.
    Graph,
}

/// A series of an answer: labels as text, and its samples.
#[derive(Debug, Default, PartialEq)]
struct Series {
    labels: String,
    samples: Vec<(f64, String)>,
}

/// Evaluations over a range if no step is said: about what a terminal is wide enough for.
const POINTS: u32 = 60;
/// Bytes of an answer that are read.
const ANSWER_BYTES_MAX: usize = 256 << 20;
/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(120);
/// Heights of a graph's columns.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Asks and prints.
///
/// # Errors
/// An exit code and what is wrong, in one line.
pub fn run(query: &Query) -> Result<(), (u8, String)> {
    let (path, form) = query.request().map_err(|text| (sysexits::USAGE, text))?;
    let answer = fetch(&query.url, &path, form, PATIENCE)?;
    let text = String::from_utf8_lossy(&answer).into_owned();
    let unreadable = |reason: &dyn std::fmt::Display| {
        (sysexits::DATA_ERROR, format!("{}: no answer of Prometheus' API: {reason}", query.url))
    };
    let json: Value = serde_json::from_str(&text).map_err(|error| unreadable(&error))?;
    if json.get("status").and_then(Value::as_str) != Some("success") {
        let error = json.get("error").and_then(Value::as_str).unwrap_or("the query failed");
        return Err((sysexits::DATA_ERROR, printable(error)));
    }
    let output = query.output.unwrap_or(if query.range.is_some() { Output::Graph } else { Output::Table });
    let mut shown = match output {
        Output::Json => text + "\n",
        output => {
            let series = read(&json).ok_or_else(|| unreadable(&"unknown shape"))?;
            match output {
                Output::Csv => csv(&series),
                Output::Graph => graph(&series),
                Output::Table | Output::Json => table(&series),
            }
        }
    };
    if output != Output::Json {
        for key in ["warnings", "infos"] {
            for remark in json.get(key).and_then(Value::as_array).into_iter().flatten() {
                let _ = writeln!(shown, "# {}", printable(remark.as_str().unwrap_or_default()));
            }
        }
    }
    // A reader that has seen enough, as `head` has, is no error.
    let _ = std::io::stdout().lock().write_all(shown.as_bytes());
    Ok(())
}

// === impl Query ===

impl Query {
    /// The path below the server's, and the form.
    fn request(&self) -> Result<(String, String), String> {
        let base = self.url.path().trim_end_matches('/');
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("query", &self.expression);
        let Some(range) = self.range else {
            if let Some(time) = &self.time {
                form.append_pair("time", time);
            }
            return Ok((format!("{base}/api/v1/query"), form.finish()));
        };
        let end = match &self.time {
            Some(time) => time
                .parse::<f64>()
                .map_err(|_| format!("--time {time}: a range ends at seconds since 1970"))?,
            None => seconds_now(),
        };
        let step = self.step.unwrap_or(range / POINTS).max(Duration::from_millis(1));
        form.append_pair("start", &(end - range.as_secs_f64()).to_string());
        form.append_pair("end", &end.to_string());
        form.append_pair("step", &step.as_secs_f64().to_string());
        Ok((format!("{base}/api/v1/query_range"), form.finish()))
    }
}

fn seconds_now() -> f64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// Sends a form and reads the answer, as long as that takes `patience` at most.
///
/// # Errors
/// An exit code and what is wrong, in one line.
pub(super) fn fetch(
    url: &Uri,
    path: &str,
    form: String,
    patience: Duration,
) -> Result<Vec<u8>, (u8, String)> {
    let unavailable = |error: &dyn std::fmt::Display| {
        (sysexits::UNAVAILABLE, format!("{url}: {error}; is the agent running?"))
    };
    if url.scheme_str() != Some("http") {
        return Err((sysexits::USAGE, format!("--url {url}: only http:// is spoken")));
    }
    let host = url.host().unwrap_or_default().to_owned();
    let port = url.port_u16().unwrap_or(80);
    let request = Request::post(path)
        .header(HOST, url.authority().map_or("", |authority| authority.as_str()))
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Body::from(form))
        .map_err(|error| (sysexits::USAGE, error.to_string()))?;
    let exchange = async {
        let stream = TcpStream::connect((host.trim_matches(['[', ']']), port)).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        // Ends with the runtime.
        tokio::spawn(connection);
        let response = sender.send_request(request).await?;
        let body = to_bytes(Body::new(response.into_body()), ANSWER_BYTES_MAX).await?;
        Ok::<_, Box<dyn std::error::Error>>(body.to_vec())
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| (sysexits::OS_ERROR, error.to_string()))?;
    let answer = runtime.block_on(async { timeout(patience, exchange).await });
    answer.map_err(|_| unavailable(&"no answer in time"))?.map_err(|error| unavailable(&error))
}

/// The series of an answer; a scalar or text is one without labels.
fn read(json: &Value) -> Option<Vec<Series>> {
    let data = json.get("data")?;
    let result = data.get("result")?;
    if matches!(data.get("resultType")?.as_str()?, "scalar" | "string") {
        return Some(vec![Series { labels: String::new(), samples: vec![point(result)?] }]);
    }
    result
        .as_array()?
        .iter()
        .map(|series| {
            let one = ["value", "histogram"].iter().filter_map(|key| series.get(*key));
            let many =
                ["values", "histograms"].iter().filter_map(|key| series.get(*key)?.as_array()).flatten();
            let samples = one.chain(many).map(point).collect::<Option<Vec<_>>>()?;
            Some(Series { labels: labels(series.get("metric")?), samples })
        })
        .collect()
}

fn point(pair: &Value) -> Option<(f64, String)> {
    let value = pair.get(1)?;
    let text = match (value.as_str(), value.get("count"), value.get("sum")) {
        (Some(text), ..) => text.to_owned(),
        (None, Some(count), Some(sum)) => {
            format!("count={} sum={}", count.as_str().unwrap_or_default(), sum.as_str().unwrap_or_default())
        }
        _ => return None,
    };
    Some((pair.get(0)?.as_f64()?, printable(&text)))
}

fn labels(metric: &Value) -> String {
    let Some(all) = metric.as_object() else { return String::new() };
    let name = all.get("__name__").and_then(Value::as_str).unwrap_or_default();
    let pairs: Vec<String> = all
        .iter()
        .filter(|(name, _)| *name != "__name__")
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    if pairs.is_empty() && !name.is_empty() {
        printable(name)
    } else {
        printable(&format!("{name}{{{}}}", pairs.join(", ")))
    }
}

fn table(series: &[Series]) -> String {
    let mut out = String::new();
    if series.is_empty() {
        return "no series\n".to_owned();
    }
    let width = |text: &String| text.chars().count();
    let widest = series.iter().flat_map(|one| &one.samples).map(|(_, value)| width(value)).max().unwrap_or(0);
    for Series { labels, samples } in series {
        if let [(_, value)] = samples.as_slice() {
            let _ = writeln!(out, "{value:>widest$}  {labels}");
        } else {
            let _ = writeln!(out, "{labels}");
            for (t, value) in samples {
                let _ = writeln!(out, "{t:>15.3}  {value:>widest$}");
            }
        }
    }
    out
}

fn csv(series: &[Series]) -> String {
    let mut out = String::from("time,value,series\n");
    for Series { labels, samples } in series {
        let labels = labels.replace('"', "\"\"");
        for (t, value) in samples {
            let _ = writeln!(out, "{t},{value},\"{labels}\"");
        }
    }
    out
}

/// All on one scale and one time axis, so that heights and columns compare.
fn graph(series: &[Series]) -> String {
    if series.is_empty() {
        return "no series\n".to_owned();
    }
    let number = |text: &String| text.parse::<f64>().ok().filter(|value| value.is_finite());
    let all: Vec<Vec<(f64, f64)>> = series
        .iter()
        .map(|one| one.samples.iter().filter_map(|(t, text)| Some((*t, number(text)?))).collect())
        .collect();
    let every = || all.iter().flatten();
    let low = every().map(|(_, value)| *value).fold(f64::INFINITY, f64::min).min(0.0);
    let high = every().map(|(_, value)| *value).fold(f64::NEG_INFINITY, f64::max);
    let start = every().map(|(t, _)| *t).fold(f64::INFINITY, f64::min);
    let end = every().map(|(t, _)| *t).fold(f64::NEG_INFINITY, f64::max);
    // A column a sample, so that a course has no gaps but those of the samples.
    let columns = all.iter().map(Vec::len).max().unwrap_or(0).clamp(2, POINTS as usize + 1);
    let mut out = String::new();
    for (one, values) in series.iter().zip(&all) {
        let mut course = vec![' '; columns];
        for (t, value) in values {
            let bar = BARS.get(place((*value - low) / (high - low), BARS.len())).copied();
            if let (Some(cell), Some(bar)) =
                (course.get_mut(place((*t - start) / (end - start), columns)), bar)
            {
                *cell = bar;
            }
        }
        let course: String = course.into_iter().collect();
        let of = |fold: fn(f64, f64) -> f64| values.iter().map(|(_, value)| *value).reduce(fold);
        let last = values.last().map(|(_, value)| *value);
        let _ = writeln!(
            out,
            "{course}  min {}  max {}  last {}  {}",
            figure(of(f64::min)),
            figure(of(f64::max)),
            figure(last),
            one.labels
        );
    }
    out
}

/// A value in a few digits, however small it is.
fn figure(value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(value) if value != 0.0 && value.abs() < 0.01 => format!("{value:.3e}"),
        Some(value) => format!("{value:.4}"),
    }
}

/// Which of `count` equal parts a share from 0 to 1 falls in.
fn place(share: f64, count: usize) -> usize {
    #[expect(clippy::cast_precision_loss, reason = "some tens")]
    let scaled = (share.clamp(0.0, 1.0) * (count - 1) as f64).round();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "from 0 to some tens; NaN is 0"
    )]
    let place = scaled as usize;
    place
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn query(range: Option<u64>) -> Query {
        Query {
            expression: "up{a=\"b\"}".into(),
            url: "http://host:1/base/".parse().unwrap(),
            time: Some("1000".into()),
            range: range.map(Duration::from_secs),
            step: None,
            output: None,
        }
    }

    #[test]
    fn the_form_says_what_was_asked() {
        let (path, form) = query(None).request().unwrap();
        assert_eq!((&*path, &*form), ("/base/api/v1/query", "query=up%7Ba%3D%22b%22%7D&time=1000"));
        let (path, form) = query(Some(600)).request().unwrap();
        assert_eq!(path, "/base/api/v1/query_range");
        assert_eq!(form, "query=up%7Ba%3D%22b%22%7D&start=400&end=1000&step=10");
    }

    #[test]
    fn a_vector_is_a_table_and_hostile_names_stay_on_their_line() {
        let json = json!({"data": {"resultType": "vector", "result": [
            {"metric": {"__name__": "up", "job": "a\u{1b}[2J"}, "value": [1, "1"]},
            {"metric": {}, "histogram": [1, {"count": "4", "sum": "2.5"}]},
        ]}});
        let shown = table(&read(&json).unwrap());
        assert_eq!(shown, "              1  up{job=\"a\\u001b[2J\"}\ncount=4 sum=2.5  {}\n");
        assert_eq!(csv(&read(&json).unwrap()).lines().count(), 3);
    }

    #[test]
    fn a_matrix_is_a_graph_on_one_scale() {
        let values: Vec<_> = (0..=60).map(|k| json!([k, k.to_string()])).collect();
        let json = json!({"data": {"resultType": "matrix", "result": [
            {"metric": {"__name__": "x"}, "values": values},
            {"metric": {"__name__": "y"}, "values": [[60, "30"]]},
        ]}});
        let shown = graph(&read(&json).unwrap());
        let lines: Vec<_> = shown.lines().collect();
        assert!(
            lines[0].starts_with("▁▁▁▁▁▂▂") && lines[0].ends_with("min 0.0000  max 60.0000  last 60.0000  x")
        );
        assert!(lines[1].contains("▅  min 30.0000"), "{shown}");
        assert_eq!(graph(&[]), "no series\n");
    }

    #[test]
    fn few_samples_leave_no_gaps_and_small_ones_keep_their_digits() {
        let json = json!({"data": {"resultType": "matrix", "result": [
            {"metric": {"__name__": "x"}, "values": [[0, "0.00002"], [2, "0.00004"], [4, "0.00004"]]},
        ]}});
        assert_eq!(graph(&read(&json).unwrap()), "▅██  min 2.000e-5  max 4.000e-5  last 4.000e-5  x\n");
    }
}
