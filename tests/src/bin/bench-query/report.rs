//! The table and the bars: every shape three times, the shape in the middle five times cheaper than Prometheus, less
//! memory than Prometheus, and the same answers.

use anyhow::Result;
use telemetry_tests::figure;
use telemetry_tests::peer::Kind;

use super::answer::{Measured, difference};
use super::shapes::{SHAPES, Shape};

/// Prometheus' CPU by ours, of every shape.
const RATIO_MIN: f64 = 3.0;
/// The same of the shape in the middle.
const RATIO_MEDIAN: f64 = 5.0;

/// All that was measured.
pub struct Table {
    ours: Vec<Measured>,
    peers: Vec<(Kind, String, Vec<Measured>)>,
    missed: Vec<String>,
}

// === impl Table ===

impl Table {
    /// With our side of it.
    pub fn new(ours: Vec<Measured>) -> Self {
        Self { ours, peers: Vec::new(), missed: Vec::new() }
    }

    /// Adds a peer's side.
    pub fn add(&mut self, kind: Kind, version: String, measured: Vec<Measured>) {
        self.peers.push((kind, version, measured));
    }

    /// Prints all figures.
    ///
    /// # Errors
    /// If a bar was missed: after the last figure.
    pub fn print(mut self) -> Result<()> {
        let (ours, peers) = (std::mem::take(&mut self.ours), std::mem::take(&mut self.peers));
        for (shape, measured) in SHAPES.iter().zip(&ours) {
            let name = format!("{}: CPU, ours", shape.name);
            self.at_most(&name, measured.cpu_ms, "ms", shape.cpu_ms)?;
            self.at_most(&format!("{}: time, ours", shape.name), measured.wall_ms, "ms", None)?;
        }
        for (kind, version, measured) in &peers {
            self.peer(*kind, version, &ours, measured)?;
        }
        anyhow::ensure!(self.missed.is_empty(), "missed: {}", self.missed.join(", "));
        Ok(())
    }

    fn peer(&mut self, kind: Kind, version: &str, ours: &[Measured], theirs: &[Measured]) -> Result<()> {
        let is_bar = kind == Kind::Prometheus;
        let mut ratios = Vec::new();
        for ((shape, our), their) in SHAPES.iter().zip(ours).zip(theirs) {
            self.at_most(&format!("{}: CPU, {version}", shape.name), their.cpu_ms, "ms", None)?;
            self.at_most(&format!("{}: time, {version}", shape.name), their.wall_ms, "ms", None)?;
            let ratio = their.cpu_ms / our.cpu_ms;
            ratios.push(ratio);
            let name = format!("{}: CPU of {version} by ours", shape.name);
            self.at_least(&name, ratio, is_bar.then_some(RATIO_MIN))?;
            self.same(shape, kind, version, our, their)?;
        }
        let median = figure::median(&ratios)?;
        self.at_least(&format!("median: CPU of {version} by ours"), median, is_bar.then_some(RATIO_MEDIAN))?;
        let peak = |all: &[Measured]| all.iter().map(|one| one.peak_bytes / 1e6).fold(0.0, f64::max);
        self.at_most(&format!("most memory, {version}"), peak(theirs), "MB", None)?;
        self.at_most(
            &format!("most memory, ours, beside {version}"),
            peak(ours),
            "MB",
            is_bar.then(|| peak(theirs)),
        )
    }

    /// Whether the answers are the same. VictoriaMetrics means other things by look-back and rate, so it only says so.
    fn same(
        &mut self,
        shape: &Shape,
        kind: Kind,
        version: &str,
        our: &Measured,
        their: &Measured,
    ) -> Result<()> {
        let difference = difference(&our.points, &their.points);
        let unit = difference.as_deref().unwrap_or("same").replace('"', "'").replace('\\', "");
        let is_held = kind == Kind::Prometheus && shape.is_exact;
        let name = format!("{}: answers unlike {version}", shape.name);
        let count = if difference.is_some() { 1.0 } else { 0.0 };
        self.at_most(&name, count, &unit, is_held.then_some(0.0))
    }

    fn at_most(&mut self, name: &str, value: f64, unit: &str, bar: Option<f64>) -> Result<()> {
        if bar.is_some_and(|bar| value > bar) {
            self.missed.push(name.to_owned());
        }
        figure::print("query", name, value, unit, bar, "", 1)
    }

    fn at_least(&mut self, name: &str, value: f64, bar: Option<f64>) -> Result<()> {
        let Some(bar) = bar else { return figure::print("query", name, value, "x", None, "", 1) };
        if value < bar {
            self.missed.push(name.to_owned());
        }
        figure::print_at_least("query", name, value, "x", bar, 1)
    }
}

/// Says that a peer was not measured.
pub fn not_measured(kind: Kind, error: &anyhow::Error) -> Result<()> {
    let unit = format!("not measured: {error:#}").replace('"', "'");
    figure::print("query", kind.name(), f64::NAN, &unit, None, "", 1)
}
