//! Series in memory, as `load` lays them down.
//!
//! Histograms come back with the hint that Prometheus' store gives them: a sample that goes on from the one before says so,
//! the first of a chunk says nothing, whatever its producer said.

use std::collections::BTreeMap;
use std::sync::Arc;

use telemetry_model::{MatchOp, Matcher, NativeHistogram, ResetHint};

use crate::budget::Budget;
use crate::labels::Labels;
use crate::pattern::{self, Pattern};
use crate::resets;
use crate::source::{Column, InMemory, Select, Selection, Source, SourceError};
use crate::value::Cell;

/// A sample with its time, and the time its count began or 0.
pub type Stamped = (i64, i64, Cell);

/// Where scripts lay down what they load, and what their queries are asked of.
pub trait Store {
    /// Forgets everything.
    fn clear(&mut self);

    /// Takes in what one `load` says: each series once, its samples in the order of time.
    ///
    /// # Errors
    /// If a sample cannot be taken: what follows means little.
    fn load(&mut self, series: Vec<(Labels, Vec<Stamped>)>) -> Result<(), String>;

    /// What queries are asked of.
    fn source(&self) -> &dyn Source;
}

/// Series in memory.
#[derive(Debug, Default)]
pub struct Memory {
    series: BTreeMap<Labels, Stored>,
}

/// One series.
#[derive(Debug, Default)]
struct Stored {
    times: Vec<i64>,
    /// Its times stand beside it, where they can grow.
    column: Column,
}

/// A compiled matcher.
struct Test<'a> {
    matcher: &'a Matcher,
    regex: Option<Pattern>,
}

// === impl Memory ===

impl Memory {
    /// Adds a sample, at the end of its series. `start` is 0 where nobody said.
    ///
    /// # Errors
    /// If it is not later than the last one, or its histogram cannot be.
    pub fn append(&mut self, labels: &Labels, t: i64, start: i64, cell: Cell) -> Result<(), String> {
        let Stored { times, column } = self.series.entry(labels.clone()).or_default();
        if times.last().is_some_and(|last| *last >= t) {
            let last = times.len() - 1;
            let same = match &cell {
                Cell::Float(value) => {
                    column.values.get(last).is_some_and(|had| had.to_bits() == value.to_bits())
                }
                Cell::Histogram(_) => false,
            };
            return if same && times.last() == Some(&t) {
                Ok(())
            } else {
                Err("out of order sample".to_owned())
            };
        }
        if start != 0 || column.starts.is_some() {
            column.starts.get_or_insert_with(|| vec![0; times.len()]).push(start);
        }
        match cell {
            Cell::Float(value) => column.values.push(value),
            Cell::Histogram(histogram) => {
                validate(&histogram)?;
                let at = u32::try_from(times.len()).map_err(|error| error.to_string())?;
                let reset = hint(times, column, t, &histogram);
                column.histograms.push((at, Arc::new(NativeHistogram { reset, ..(*histogram).clone() })));
                column.values.push(0.0);
            }
        }
        times.push(t);
        Ok(())
    }

    /// Adds samples at the end of a series: time, start timestamp or 0, value.
    ///
    /// # Errors
    /// As [`Memory::append`].
    pub fn extend(
        &mut self,
        labels: &Labels,
        samples: impl IntoIterator<Item = (i64, i64, Cell)>,
    ) -> Result<(), String> {
        for (t, start, cell) in samples {
            self.append(labels, t, start, cell)?;
        }
        Ok(())
    }

    fn matching(&self, matchers: &[Matcher]) -> Result<Vec<(&Labels, &Stored)>, SourceError> {
        let tests = matchers.iter().map(Test::new).collect::<Result<Vec<_>, _>>()?;
        let wanted = |labels: &Labels| tests.iter().all(|test| test.holds(labels));
        Ok(self.series.iter().filter(|(labels, _)| wanted(labels)).collect())
    }
}

impl Store for Memory {
    fn clear(&mut self) {
        self.series.clear();
    }

    fn load(&mut self, series: Vec<(Labels, Vec<Stamped>)>) -> Result<(), String> {
        for (labels, samples) in series {
            self.extend(&labels, samples).map_err(|error| format!("{labels}: {error}"))?;
        }
        Ok(())
    }

    fn source(&self) -> &dyn Source {
        self
    }
}

impl Source for Memory {
    fn select<'s>(
        &'s self,
        request: &Select<'_>,
        budget: &Budget,
    ) -> Result<Box<dyn Selection + 's>, SourceError> {
        budget.check()?;
        let found = self.matching(request.matchers)?.into_iter();
        let cut = found.map(|(labels, stored)| (labels.clone(), part(stored, request.from, request.to)));
        Ok(Box::new(InMemory::new(cut.filter(|(_, column)| !column.times.is_empty()).collect())))
    }

    fn label_names(&self, matchers: &[Matcher], _from: i64, _to: i64) -> Result<Vec<Arc<str>>, SourceError> {
        let found = self.matching(matchers)?;
        let mut names: Vec<Arc<str>> = found
            .iter()
            .flat_map(|(labels, _)| labels.pairs().iter().map(|pair| Arc::clone(&pair.0)))
            .collect();
        names.sort();
        names.dedup();
        Ok(names)
    }

    fn label_values(
        &self,
        name: &str,
        matchers: &[Matcher],
        _from: i64,
        _to: i64,
    ) -> Result<Vec<Arc<str>>, SourceError> {
        let found = self.matching(matchers)?;
        let values = found.iter().map(|(labels, _)| labels.get(name)).filter(|value| !value.is_empty());
        let mut values: Vec<Arc<str>> = values.map(Arc::from).collect();
        values.sort();
        values.dedup();
        Ok(values)
    }
}

// === impl Test ===

impl<'a> Test<'a> {
    fn new(matcher: &'a Matcher) -> Result<Self, SourceError> {
        let regex = matches!(matcher.op, MatchOp::Regex | MatchOp::NotRegex)
            .then(|| pattern::compile(&matcher.value))
            .transpose()
            .map_err(SourceError::Matcher)?;
        Ok(Self { matcher, regex })
    }

    fn holds(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.matcher.name);
        let matches = self.regex.as_ref().map_or(value == self.matcher.value, |regex| regex.is_match(value));
        matches == matches!(self.matcher.op, MatchOp::Equal | MatchOp::Regex)
    }
}

/// The samples of a column within a range, both ends included.
fn part(Stored { times, column }: &Stored, from: i64, to: i64) -> Column {
    let first = times.partition_point(|t| *t < from);
    let end = times.partition_point(|t| *t <= to).max(first);
    let within = |at: u32| usize::try_from(at).ok().filter(|at| (first..end).contains(at));
    let moved = |at: usize| u32::try_from(at - first).ok();
    let histograms = column.histograms.iter();
    Column {
        times: times.get(first..end).unwrap_or_default().into(),
        values: column.values.get(first..end).unwrap_or_default().to_vec(),
        histograms: histograms
            .filter_map(|(at, histogram)| Some((moved(within(*at)?)?, Arc::clone(histogram))))
            .collect(),
        starts: column.starts.as_ref().map(|starts| starts.get(first..end).unwrap_or_default().to_vec()),
    }
}

/// What a read says about resets since the sample before.
fn hint(times: &[i64], column: &Column, t: i64, histogram: &NativeHistogram) -> ResetHint {
    let before = times
        .last()
        .zip(column.histograms.last())
        .filter(|(_, (at, _))| usize::try_from(*at).is_ok_and(|at| at + 1 == times.len()));
    resets::hint(before.map(|(then, (_, before))| (*then, &**before)), t, histogram)
}

/// What no store would take.
fn validate(histogram: &NativeHistogram) -> Result<(), String> {
    let negative = |value: &f64| *value < 0.0;
    let buckets = histogram.positive.counts.iter().chain(&histogram.negative.counts);
    if negative(&histogram.count) || negative(&histogram.zero_count) || buckets.into_iter().any(negative) {
        return Err("histogram has a negative count".to_owned());
    }
    if !histogram.has_custom_bounds() {
        return match histogram.schema {
            telemetry_model::native::SCHEMA_MIN..=telemetry_model::native::SCHEMA_MAX => Ok(()),
            schema => {
                Err(format!("histogram has an invalid schema, which must be between -4 and 8: {schema}"))
            }
        };
    }
    let bounds = histogram.custom_bounds.as_deref().unwrap_or_default();
    if !bounds.is_sorted_by(|a, b| a < b) {
        return Err("custom buckets: histogram custom bounds must be in strictly increasing order".to_owned());
    }
    let last = histogram.positive.indexes.last().copied().unwrap_or(0);
    if usize::try_from(last).is_ok_and(|last| last > bounds.len()) {
        return Err("custom buckets: more buckets than custom bounds".to_owned());
    }
    if histogram.zero_count != 0.0 || histogram.zero_threshold != 0.0 || !histogram.negative.is_empty() {
        return Err("custom buckets: must not have zero bucket or negative buckets".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(counts: &[f64], reset: ResetHint) -> Cell {
        let positive: telemetry_model::Buckets = (0..).zip(counts.iter().copied()).collect();
        let count = counts.iter().sum();
        Cell::Histogram(Arc::new(NativeHistogram { count, reset, positive, ..NativeHistogram::default() }))
    }

    #[test]
    fn hints_are_those_of_a_store() {
        use ResetHint::{Gauge, NotReset, Reset, Unknown};
        let mut memory = Memory::default();
        let labels = Labels::from_texts([("__name__", "x")]);
        let samples = [
            (histogram(&[1.0], Reset), Unknown),
            (histogram(&[2.0], Unknown), NotReset),
            (histogram(&[1.0, 2.0], Unknown), Unknown),
            (histogram(&[1.0, 2.0], Reset), Unknown),
            (Cell::Float(1.0), Unknown),
            (histogram(&[1.0, 2.0], NotReset), Unknown),
            (histogram(&[1.0], Gauge), Gauge),
            (histogram(&[1.0], Unknown), Unknown),
        ];
        let expected: Vec<_> = samples
            .iter()
            .filter(|(cell, _)| matches!(cell, Cell::Histogram(_)))
            .map(|(_, hint)| *hint)
            .collect();
        memory.extend(&labels, (0..).zip(samples).map(|(t, (cell, _))| (t, 0, cell))).unwrap();
        let column = &memory.series[&labels].column;
        let got: Vec<_> = column.histograms.iter().map(|(_, histogram)| histogram.reset).collect();
        assert_eq!(got, expected);
    }

    #[test]
    fn samples_come_in_the_order_of_time() {
        let mut memory = Memory::default();
        let labels = Labels::from_texts([("__name__", "x")]);
        memory.append(&labels, 10, 0, Cell::Float(1.0)).unwrap();
        assert!(memory.append(&labels, 10, 0, Cell::Float(1.0)).is_ok(), "the same again is nothing");
        assert!(memory.append(&labels, 10, 0, Cell::Float(2.0)).is_err());
        assert!(memory.append(&labels, 9, 0, Cell::Float(2.0)).is_err());
    }
}
