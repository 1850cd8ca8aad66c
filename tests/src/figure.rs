//! One measured figure as one JSON line, and the statistics that make one of many samples.

use std::io::Write as _;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

/// What a figure is held to: at most this.
pub type Bar = Option<f64>;

/// Rounds of every interleaved comparison; `TELEMETRY_BENCH_ROUNDS` overrides.
pub fn rounds(usual: usize) -> usize {
    std::env::var("TELEMETRY_BENCH_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(usual).max(1)
}

/// Prints a figure.
///
/// # Errors
/// If nobody reads.
pub fn print(
    bench: &str,
    name: &str,
    value: f64,
    unit: &str,
    bar: Bar,
    peer: &str,
    samples: usize,
) -> Result<()> {
    let is_met = bar.is_none_or(|bar| value <= bar);
    line(bench, name, value, unit, (bar, is_met), peer, samples)
}

/// Prints a figure that is held to at least its bar.
///
/// # Errors
/// If nobody reads.
pub fn print_at_least(
    bench: &str,
    name: &str,
    value: f64,
    unit: &str,
    bar: f64,
    samples: usize,
) -> Result<()> {
    let unit = format!("{unit}, at least");
    line(bench, name, value, &unit, (Some(bar), value >= bar), "", samples)
}

fn line(
    bench: &str,
    name: &str,
    value: f64,
    unit: &str,
    (bar, is_met): (Bar, bool),
    peer: &str,
    samples: usize,
) -> Result<()> {
    let bar = bar.map_or(Value::Null, |bar| json!(bar));
    let (value, peer) = (json!(rounded(value)), json!(peer));
    // By hand, because this order is the one that people read.
    writeln!(
        std::io::stdout(),
        "{{\"bench\":\"{bench}\",\"name\":\"{name}\",\"value\":{value},\"unit\":\"{unit}\",\"bar\":{bar},\"ok\":{is_met},\
         \"peer\":{peer},\"samples\":{samples}}}"
    )
    .context("print")
}

/// The quietest of the samples: noise only ever adds.
///
/// # Errors
/// If there are none.
pub fn least(samples: &[f64]) -> Result<f64> {
    samples.iter().copied().min_by(f64::total_cmp).context("no samples")
}

/// The one in the middle.
///
/// # Errors
/// If there are none.
pub fn median(samples: &[f64]) -> Result<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().context("no samples")
}

/// Four digits that matter: no timing has more.
fn rounded(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    let scale = 10_f64.powf(3.0 - value.abs().log10().floor());
    (value * scale).round() / scale
}
