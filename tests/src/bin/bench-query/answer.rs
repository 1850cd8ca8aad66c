//! What a store answered and what it took.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Value as Json, json};
use telemetry_promql::value::{Series, Value};

/// Points by series, in the order of labels.
pub type Points = BTreeMap<Vec<(String, String)>, Vec<(i64, f64)>>;

/// A series as it is written: JSON has no NaN.
type Told = (Vec<(String, String)>, Vec<(i64, Option<f64>)>);

/// One shape, asked of one store.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// CPU milliseconds an answer: the least of some rounds.
    pub cpu_ms: f64,
    /// Milliseconds from the question to the end of the answer: the least of some rounds.
    pub wall_ms: f64,
    /// Most resident bytes of the process while it answered.
    pub peak_bytes: f64,
    /// The answer.
    pub points: Points,
}

// === impl Measured ===

impl Measured {
    /// Writes what was measured of all shapes.
    pub fn write(all: &[Self], file: &Path) -> Result<()> {
        let json = |one: &Self| {
            let points: Vec<_> = one.points.iter().map(|(labels, points)| json!([labels, points])).collect();
            json!({"cpu": one.cpu_ms, "wall": one.wall_ms, "peak": one.peak_bytes, "points": points})
        };
        let all: Vec<Json> = all.iter().map(json).collect();
        std::fs::write(file, serde_json::to_vec(&all)?).with_context(|| file.display().to_string())
    }

    /// Reads it again.
    pub fn read(file: &Path) -> Result<Vec<Self>> {
        let bytes = std::fs::read(file).with_context(|| file.display().to_string())?;
        let all: Vec<Json> = serde_json::from_slice(&bytes)?;
        let one = |json: &Json| {
            let number = |name: &str| json.get(name).and_then(Json::as_f64).context("number");
            let points = json.get("points").context("points")?;
            let points: Vec<Told> = serde_json::from_value(points.clone())?;
            let points = points.into_iter().map(|(labels, points)| {
                (labels, points.into_iter().map(|(t, value)| (t, value.unwrap_or(f64::NAN))).collect())
            });
            Ok(Self {
                cpu_ms: number("cpu")?,
                wall_ms: number("wall")?,
                peak_bytes: number("peak")?,
                points: points.collect(),
            })
        };
        all.iter().map(one).collect()
    }
}

/// An answer of ours as points.
pub fn points(value: &Value) -> Result<Points> {
    let Value::Matrix(matrix) = value else { anyhow::bail!("a matrix was expected") };
    let owned = |series: &Series| {
        let labels = series.labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
        (labels.collect(), series.floats.clone())
    };
    Ok(matrix.iter().map(owned).collect())
}

/// An answer of the HTTP API as points.
pub fn parse(body: &[u8]) -> Result<Points> {
    let json: Json = serde_json::from_slice(body)?;
    let result = json.pointer("/data/result").and_then(Json::as_array);
    let result =
        result.with_context(|| String::from_utf8_lossy(body).chars().take(300).collect::<String>())?;
    let mut points = Points::new();
    for series in result {
        let labels = series.get("metric").and_then(Json::as_object).context("metric")?;
        let labels = labels.iter().map(|(name, value)| {
            let value = value.as_str().context("label")?;
            Ok((name.clone(), value.to_owned()))
        });
        let labels: Result<Vec<_>> = labels.collect();
        let values = series.get("values").and_then(Json::as_array).context("values")?;
        let point = |pair: &Json| {
            let t = pair.get(0).and_then(Json::as_f64).context("time")?;
            let value: f64 = pair.get(1).and_then(Json::as_str).context("value")?.parse()?;
            #[expect(clippy::cast_possible_truncation, reason = "milliseconds of this century")]
            let t = (t * 1000.0).round() as i64;
            Ok((t, value))
        };
        let values: Result<Vec<_>> = values.iter().map(point).collect();
        let mut labels = labels?;
        labels.sort();
        points.insert(labels, values?);
    }
    Ok(points)
}

/// How two answers differ in words; nothing if they do not by more than 1e-9 of their values.
pub fn difference(ours: &Points, theirs: &Points) -> Option<String> {
    if ours.len() != theirs.len() {
        return Some(format!("{} series and {}", ours.len(), theirs.len()));
    }
    for (labels, points) in ours {
        let Some(others) = theirs.get(labels) else { return Some(format!("{labels:?} is in one alone")) };
        if points.len() != others.len() {
            return Some(format!("{labels:?}: {} points and {}", points.len(), others.len()));
        }
        for ((t, value), (other_t, other)) in points.iter().zip(others) {
            let near = (value - other).abs() <= 1e-9 * value.abs().max(other.abs());
            if t != other_t || !(near || value == other || value.is_nan() && other.is_nan()) {
                return Some(format!("{labels:?} at {t}: {value} and {other} at {other_t}"));
            }
        }
    }
    None
}
