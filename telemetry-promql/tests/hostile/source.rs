//! Two thousand series as a fleet has them, read one by one as from a store.

use std::sync::Arc;

use telemetry_model::{Buckets, MatchOp, Matcher, NativeHistogram};
use telemetry_promql::budget::Budget;
use telemetry_promql::labels::Labels;
use telemetry_promql::source::{Column, Reader, Select, Selection, Source, SourceError};

/// First and last sample, milliseconds.
pub const START: i64 = 1_700_000_000_000;
/// Two hours.
pub const END: i64 = START + 2 * 3_600_000;
/// Milliseconds between samples.
const TICK: i64 = 10_000;

/// The series.
pub struct Fleet {
    series: Vec<(Labels, Column)>,
}

/// Series that were found.
struct Found<'a> {
    labels: Vec<Labels>,
    columns: Vec<&'a Column>,
    from: i64,
    to: i64,
}

// === impl Fleet ===

impl Fleet {
    /// Counters, classic histograms, native ones of both layouts, gauges with gaps, infos.
    pub fn new() -> Self {
        let times: Arc<[i64]> = (0..=(END - START) / TICK).map(|at| START + at * TICK).collect();
        let mut series = Vec::new();
        for k in 0..1000_u32 {
            let (pod, instance) = (format!("pod-{k}"), format!("node-{}", k % 50));
            let job = if k % 3 == 0 { "api" } else { "db" };
            let labels = [("__name__", "x_total"), ("job", job), ("instance", &instance), ("pod", &pod)];
            series.push((Labels::from_texts(labels), floats(&times, k)));
        }
        let bounds = ["0.01", "0.1", "0.5", "1", "2.5", "10", "100", "+Inf"];
        for k in 0..75_u32 {
            for (le, bound) in (0..).zip(bounds) {
                let instance = format!("node-{}", k % 50);
                let job = if k < 50 { "api" } else { "db" };
                let labels = [("__name__", "h_bucket"), ("job", job), ("instance", &instance), ("le", bound)];
                series.push((Labels::from_texts(labels), floats(&times, 100 + le)));
            }
        }
        for k in 0..120_u32 {
            let instance = format!("node-{}", k % 60);
            let name = if k < 60 { "n" } else { "c" };
            let labels = [("__name__", name), ("job", "api"), ("instance", &instance)];
            series.push((Labels::from_texts(labels), histograms(k, name == "c")));
        }
        for k in 0..200_u32 {
            let zone = format!("zone-{}", k % 7);
            let disk = format!("disk {k} \u{2764}");
            let labels = [("__name__", "gap"), ("zone", &zone), ("disk", &disk), ("job", "db")];
            series.push((Labels::from_texts(labels), gaps(&times, k)));
        }
        for k in 0..80_u32 {
            let (instance, version) = (format!("node-{}", k % 50), format!("v{k}"));
            let job = if k < 50 { "api" } else { "db" };
            let labels =
                [("__name__", "target_info"), ("job", job), ("instance", &instance), ("version", &version)];
            series.push((Labels::from_texts(labels), floats(&times, 0)));
        }
        series.sort_by(|a, b| a.0.cmp(&b.0));
        Self { series }
    }
}

fn floats(times: &Arc<[i64]>, k: u32) -> Column {
    let values = (0..times.len()).map(|at| (at as f64) * f64::from(k % 17 + 1) % 997.0).collect();
    Column { times: Arc::clone(times), values, ..Column::default() }
}

fn gaps(times: &[i64], k: u32) -> Column {
    let kept = |at: usize| (at / (7 + k as usize % 11)).is_multiple_of(2);
    let times: Arc<[i64]> = times.iter().enumerate().filter(|(at, _)| kept(*at)).map(|(_, t)| *t).collect();
    let values = times
        .iter()
        .enumerate()
        .map(|(at, _)| match at % 40 {
            39 => telemetry_model::STALE_MARKER,
            38 => f64::INFINITY,
            at => at as f64 - 20.0,
        })
        .collect();
    Column { times, values, ..Column::default() }
}

fn histograms(k: u32, custom: bool) -> Column {
    let times: Arc<[i64]> = (0..=(END - START) / 30_000).map(|at| START + at * 30_000).collect();
    let made = times.iter().zip(0_u32..).map(|(_, at)| {
        let positive: Buckets =
            (0..20).map(|index| (index + i32::try_from(k % 3).unwrap(), f64::from(at + 1))).collect();
        let bounds = (0..24 + k % 2).map(|bound| f64::from(bound) * 0.5).collect::<Vec<f64>>();
        let histogram = NativeHistogram {
            schema: if custom { telemetry_model::native::CUSTOM_SCHEMA } else { (k % 4) as i8 },
            count: 20.0 * f64::from(at + 1),
            sum: f64::from(at),
            positive,
            custom_bounds: custom.then(|| bounds.into()),
            ..NativeHistogram::default()
        };
        (at, Arc::new(histogram))
    });
    let histograms: Vec<(u32, Arc<NativeHistogram>)> = made.collect();
    Column { values: vec![0.0; times.len()], times, histograms, starts: None }
}

impl Source for Fleet {
    fn select<'s>(
        &'s self,
        request: &Select<'_>,
        budget: &Budget,
    ) -> Result<Box<dyn Selection + 's>, SourceError> {
        let mut regexes = Vec::new();
        for matcher in request.matchers {
            // Some take milliseconds to compile.
            budget.check()?;
            let regex = match matcher.op {
                MatchOp::Equal | MatchOp::NotEqual => None,
                MatchOp::Regex | MatchOp::NotRegex => Some(expression(matcher)?),
            };
            regexes.push((matcher, regex));
        }
        let wanted = |labels: &Labels| {
            regexes.iter().all(|(matcher, regex)| {
                let value = labels.get(&matcher.name);
                let found =
                    regex.as_ref().map_or_else(|| value == matcher.value, |regex| regex.is_match(value));
                found == matches!(matcher.op, MatchOp::Equal | MatchOp::Regex)
            })
        };
        let found = self.series.iter().filter(|(labels, _)| wanted(labels));
        let (labels, columns) = found.map(|(labels, column)| (labels.clone(), column)).unzip();
        Ok(Box::new(Found { labels, columns, from: request.from, to: request.to }))
    }

    fn label_names(&self, _: &[Matcher], _: i64, _: i64) -> Result<Vec<Arc<str>>, SourceError> {
        Ok(Vec::new())
    }

    fn label_values(&self, _: &str, _: &[Matcher], _: i64, _: i64) -> Result<Vec<Arc<str>>, SourceError> {
        Ok(Vec::new())
    }
}

fn expression(matcher: &Matcher) -> Result<regex::Regex, SourceError> {
    let fail = |error: &dyn std::fmt::Display| SourceError::Matcher(error.to_string());
    let expression = matcher.expression().map_err(|error| fail(&error))?;
    regex::RegexBuilder::new(&expression.anchored())
        .size_limit(1 << 20)
        .dfa_size_limit(256 << 10)
        .build()
        .map_err(|error| fail(&error))
}

impl Selection for Found<'_> {
    fn series(&self) -> &[Labels] {
        &self.labels
    }

    fn reader(&self) -> Box<dyn Reader + '_> {
        Box::new(self)
    }
}

impl Reader for &Found<'_> {
    fn read(&mut self, at: usize) -> Result<Column, SourceError> {
        let column = self.columns[at];
        let first = column.times.partition_point(|t| *t < self.from);
        let end = column.times.partition_point(|t| *t <= self.to).max(first);
        if (first, end) == (0, column.times.len()) {
            return Ok(column.clone());
        }
        let moved = |(at, histogram): &(u32, Arc<NativeHistogram>)| {
            let at = (first..end).contains(&(*at as usize)).then(|| *at - u32::try_from(first).unwrap())?;
            Some((at, Arc::clone(histogram)))
        };
        Ok(Column {
            times: column.times[first..end].into(),
            values: column.values[first..end].to_vec(),
            histograms: column.histograms.iter().filter_map(moved).collect(),
            starts: None,
        })
    }
}
