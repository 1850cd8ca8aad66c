//! What an evaluation is expected to say and to answer, and the comparison with what it did.

use regex::Regex;

use super::compare::{almost_equal, same_histogram};
use super::distribution::print;
use super::notation::Item;
use crate::labels::Labels;
use crate::text::general;
use crate::value::{Cell, Sample, Series, Value};

/// A text that must match.
#[derive(Clone, Debug)]
pub(crate) enum Pattern {
    Any,
    Text(String),
    Regex(Regex),
}

/// What is expected of annotations of one level.
#[derive(Clone, Debug, Default)]
pub(crate) struct Remarks {
    /// `eval_warn`, `eval_info`: some.
    pub some: bool,
    /// `expect no_warn`, `expect no_info`.
    pub none: bool,
    /// Each must match one of those there are, and each of them one of these.
    pub patterns: Vec<Pattern>,
}

/// A series that is expected, at its place in the script.
#[derive(Clone, Debug)]
pub(crate) struct Expected {
    pub labels: Labels,
    /// Counted from one, among the lines of the expectation.
    pub position: usize,
    pub items: Vec<Item>,
}

/// The times of what is expected.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    pub start: i64,
    pub end: i64,
    pub step: i64,
}

/// All that is expected of an answer's value.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    pub ordered: bool,
    pub scalar: Option<f64>,
    pub string: String,
    pub series: Vec<Expected>,
}

// === impl Pattern ===

impl Pattern {
    pub fn matches(&self, text: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Text(wanted) => wanted == text,
            Self::Regex(regex) => regex.is_match(text),
        }
    }

    pub fn describe(&self) -> String {
        match self {
            Self::Any => "anything".to_owned(),
            Self::Text(text) => format!("{text:?}"),
            Self::Regex(regex) => format!("pattern {:?}", regex.as_str()),
        }
    }
}

// === impl Remarks ===

impl Remarks {
    /// # Errors
    /// What is missing or too much, in words.
    pub fn check(&self, level: &str, got: &[String]) -> Result<(), String> {
        if (self.some || !self.patterns.is_empty()) && got.is_empty() {
            return Err(format!("expected {level} annotations, got none"));
        }
        if self.none && !got.is_empty() {
            return Err(format!("expected no {level} annotations, got {got:?}"));
        }
        if self.patterns.is_empty() {
            return Ok(());
        }
        for pattern in &self.patterns {
            if !got.iter().any(|text| pattern.matches(text)) {
                return Err(format!("expected {level} annotation {}, got {got:?}", pattern.describe()));
            }
        }
        match got.iter().find(|text| !self.patterns.iter().any(|pattern| pattern.matches(text))) {
            Some(odd) => Err(format!("unexpected {level} annotation {odd:?}")),
            None => Ok(()),
        }
    }
}

// === impl Outcome ===

impl Outcome {
    /// Compares an answer's value.
    ///
    /// # Errors
    /// Expected and got, in words.
    pub fn check(&self, value: &Value, times: Times) -> Result<(), String> {
        match value {
            Value::Matrix(series) => self.check_matrix(series, times),
            Value::Vector(samples) => self.check_vector(samples),
            Value::Scalar { value, .. } => self.check_scalar(*value),
            Value::String { value, .. } if *value == self.string => Ok(()),
            Value::String { value, .. } => Err(format!("expected string {:?}, got {value:?}", self.string)),
        }
    }

    pub fn check_scalar(&self, value: f64) -> Result<(), String> {
        match self.scalar {
            None => Err(format!("expected vector or matrix, got scalar {}", general(value))),
            Some(expected) if almost_equal(expected, value) => Ok(()),
            Some(expected) => Err(format!("expected scalar {}, got {}", general(expected), general(value))),
        }
    }

    pub fn check_vector(&self, samples: &[Sample]) -> Result<(), String> {
        if let Some(expected) = self.scalar {
            return Err(format!("expected scalar {}, got a vector of {}", general(expected), samples.len()));
        }
        for (at, sample) in samples.iter().enumerate() {
            let got = print_cell(&sample.cell);
            let Some(expected) = self.find(&sample.labels) else {
                return Err(format!("expected no {}, got {got}", sample.labels));
            };
            if self.ordered && expected.position != at + 1 {
                return Err(format!(
                    "expected {} at position {}, got it at {}",
                    sample.labels,
                    expected.position,
                    at + 1
                ));
            }
            let item = expected.items.first();
            if !item.is_some_and(|item| same(item, &sample.cell)) {
                let item = item.map_or_else(|| "a value".to_owned(), print_item);
                return Err(format!("{}: expected {item}, got {got}", sample.labels));
            }
        }
        let missing =
            self.series.iter().find(|expected| samples.iter().all(|sample| sample.labels != expected.labels));
        missing.map_or(Ok(()), |missing| Err(format!("expected {}, got none", describe(missing))))
    }

    fn check_matrix(&self, got: &[Series], times: Times) -> Result<(), String> {
        if self.ordered || self.scalar.is_some() {
            let wanted = if self.ordered { "an ordered result" } else { "a scalar" };
            return Err(format!("expected {wanted}, got a matrix of {}", got.len()));
        }
        assert_sorted(got)?;
        for series in got {
            let Some(expected) = self.find(&series.labels) else {
                return Err(format!("expected no {}, got {}", series.labels, print_series(series)));
            };
            check_series(expected, series, times)
                .map_err(|error| format!("{}: {error}; all: {}", series.labels, print_series(series)))?;
        }
        let missing =
            self.series.iter().find(|expected| got.iter().all(|series| series.labels != expected.labels));
        missing.map_or(Ok(()), |missing| Err(format!("expected {}, got none", describe(missing))))
    }

    /// The last line that names a series counts.
    fn find(&self, labels: &Labels) -> Option<&Expected> {
        self.series.iter().rev().find(|expected| expected.labels == *labels)
    }
}

/// Whether a range's answer is sorted by labels, as it must be.
pub(crate) fn assert_sorted(series: &[Series]) -> Result<(), String> {
    if series.is_sorted_by(|a, b| a.labels <= b.labels) {
        Ok(())
    } else {
        Err("expected series sorted by labels, got another order".to_owned())
    }
}

fn check_series(expected: &Expected, series: &Series, times: Times) -> Result<(), String> {
    let (mut floats, mut histograms) = (series.floats.iter(), series.histograms.iter());
    let mut t = times.start;
    for item in &expected.items {
        if t > times.end {
            return Err(format!("expected {} points, the range has fewer steps", expected.items.len()));
        }
        let (got_t, got) = match item {
            Item::Omitted => {
                t = t.saturating_add(times.step);
                continue;
            }
            Item::Float(_) => floats.next().map(|(t, value)| (*t, Cell::Float(*value))),
            Item::Histogram { .. } => {
                histograms.next().map(|(t, histogram)| (*t, Cell::Histogram(histogram.clone())))
            }
        }
        .ok_or_else(|| format!("expected {} at {t}, got none", print_item(item)))?;
        if got_t != t || !same(item, &got) {
            return Err(format!("expected {} at {t}, got {} at {got_t}", print_item(item), print_cell(&got)));
        }
        t = t.saturating_add(times.step);
    }
    match (floats.next(), histograms.next()) {
        (Some((t, value)), _) => Err(format!("expected no more, got {} at {t}", general(*value))),
        (_, Some((t, histogram))) => Err(format!("expected no more, got {} at {t}", print(histogram))),
        _ => Ok(()),
    }
}

fn same(item: &Item, cell: &Cell) -> bool {
    match (item, cell) {
        (Item::Float(expected), Cell::Float(got)) => almost_equal(*expected, *got),
        (Item::Omitted, Cell::Float(got)) => *got == 0.0,
        (Item::Histogram { histogram, hint_named }, Cell::Histogram(got)) => {
            same_histogram(histogram, got, *hint_named)
        }
        _ => false,
    }
}

fn print_item(item: &Item) -> String {
    match item {
        Item::Omitted => "_".to_owned(),
        Item::Float(value) => general(*value),
        Item::Histogram { histogram, .. } => print(histogram),
    }
}

fn print_cell(cell: &Cell) -> String {
    match cell {
        Cell::Float(value) => general(*value),
        Cell::Histogram(histogram) => print(histogram),
    }
}

fn print_series(series: &Series) -> String {
    let floats = series.floats.iter().map(|(t, value)| format!("{}@{t}", general(*value)));
    let histograms = series.histograms.iter().map(|(t, histogram)| format!("{}@{t}", print(histogram)));
    floats.chain(histograms).collect::<Vec<_>>().join(" ")
}

fn describe(expected: &Expected) -> String {
    let items: Vec<_> = expected.items.iter().map(print_item).collect();
    format!("{} {}", expected.labels, items.join(" "))
}
