//! A source in memory.

use std::sync::Arc;

use regex::Regex;
use telemetry_model::{MatchOp, Matcher, NativeHistogram};
use telemetry_promql::budget::Budget;
use telemetry_promql::labels::Labels;
use telemetry_promql::source::{Column, InMemory, Select, Selection, Source, SourceError};

/// Series and all their samples.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    pub series: Vec<(Labels, Column)>,
}

// === impl Memory ===

impl Memory {
    /// With a series of numbers.
    pub fn with(mut self, labels: &[(&str, &str)], samples: &[(i64, f64)]) -> Self {
        let (times, values): (Vec<i64>, Vec<f64>) = samples.iter().copied().unzip();
        let column = Column { times: times.into(), values, ..Column::default() };
        self.series.push((Labels::from_texts(labels.iter().copied()), column));
        self
    }

    /// With a series of histograms.
    pub fn with_histograms(mut self, labels: &[(&str, &str)], samples: &[(i64, NativeHistogram)]) -> Self {
        let numbered = samples.iter().zip(0..);
        let column = Column {
            times: samples.iter().map(|sample| sample.0).collect(),
            values: vec![0.0; samples.len()],
            histograms: numbered.map(|((_, histogram), at)| (at, Arc::new(histogram.clone()))).collect(),
            starts: None,
        };
        self.series.push((Labels::from_texts(labels.iter().copied()), column));
        self
    }
}

/// Whether a series' labels are what a matcher wants.
pub fn matches(matcher: &Matcher, labels: &Labels) -> bool {
    let value = labels.get(&matcher.name);
    let found = || Regex::new(&matcher.expression().unwrap().anchored()).unwrap().is_match(value);
    match matcher.op {
        MatchOp::Equal => value == matcher.value,
        MatchOp::NotEqual => value != matcher.value,
        MatchOp::Regex => found(),
        MatchOp::NotRegex => !found(),
    }
}

impl Source for Memory {
    fn select<'s>(
        &'s self,
        request: &Select<'_>,
        _: &Budget,
    ) -> Result<Box<dyn Selection + 's>, SourceError> {
        let wanted = |labels: &Labels| request.matchers.iter().all(|matcher| matches(matcher, labels));
        let mut found = Vec::new();
        for (labels, column) in self.series.iter().filter(|(labels, _)| wanted(labels)) {
            let from = column.times.partition_point(|t| *t < request.from);
            let to = column.times.partition_point(|t| *t <= request.to);
            let row = |at: u32| (from..to).contains(&(at as usize));
            let shifted = |at: u32| at - u32::try_from(from).unwrap();
            let histograms = column.histograms.iter().filter(|(at, _)| row(*at));
            found.push((
                labels.clone(),
                Column {
                    times: column.times[from..to].into(),
                    values: column.values[from..to].to_vec(),
                    histograms: histograms.map(|(at, h)| (shifted(*at), Arc::clone(h))).collect(),
                    starts: None,
                },
            ));
        }
        Ok(Box::new(InMemory::new(found)))
    }

    fn label_names(&self, _: &[Matcher], _: i64, _: i64) -> Result<Vec<Arc<str>>, SourceError> {
        Ok(Vec::new())
    }

    fn label_values(&self, _: &str, _: &[Matcher], _: i64, _: i64) -> Result<Vec<Arc<str>>, SourceError> {
        Ok(Vec::new())
    }
}
