//! Points as samples of series, as Prometheus translates them.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Instant;

use telemetry_model::{STALE_MARKER, float};
use telemetry_tsdb::head::Sample;

use super::attributes::{self, Context, Labels, text};
use super::delta::{Deltas, Dropped, Key, Point};
use super::exponential::{check_bounds, custom, has_value, native};
use super::message::{
    Exemplar, HistogramPoint, KeyValue, Metric, NumberPoint, Request, ResourceMetrics, SummaryPoint,
};
use super::names::{self, Kind};
use super::{Config, Family};

const DELTA: i32 = 1;
const CUMULATIVE: i32 = 2;
/// Distance of the samples of `target_info` within a push: half of the usual lookback, so that none is missed.
const TARGET_STEP_MS: i64 = 150_000;
/// Samples of `target_info` of one push; older times have none.
const TARGET_SAMPLES_MAX: i64 = 100;
/// Characters of an exemplar's labels, as OpenMetrics bounds them. Beyond it only its trace is kept.
const EXEMPLAR_CHARS_MAX: usize = 128;

/// What takes the samples.
pub(super) trait Sink {
    /// A sample of point `point`.
    fn sample(&mut self, point: u64, labels: &Labels, t: i64, value: Sample, exemplars: &[Exemplified]);
    /// What a family is.
    fn family(&mut self, family: Family<'_>);
    /// A point that has no sample.
    fn reject(&mut self, points: u64, reason: &str);
    /// A difference that could not be added.
    fn dropped(&mut self, reason: Dropped);
}

/// An exemplar of a series.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Exemplified {
    pub(super) labels: Vec<(String, String)>,
    pub(super) value: f64,
    pub(super) t: i64,
}

/// A push on its way.
pub(super) struct Translator<'a, S> {
    pub(super) config: &'a Config,
    pub(super) deltas: &'a mut Deltas,
    pub(super) hashers: &'a [RandomState; 2],
    pub(super) now: Instant,
    pub(super) sink: S,
    /// Points so far.
    pub(super) points: u64,
}

/// What is the same for all points of a metric.
struct Around<'a> {
    context: &'a Context,
    scope: &'a Labels,
    name: String,
    /// What tells its streams apart.
    identity: String,
    is_delta: bool,
}

type Told<T> = Result<T, String>;

// === impl Translator ===

impl<S: Sink> Translator<'_, S> {
    pub(super) fn translate(&mut self, request: &mut Request) {
        let mut targets = HashSet::new();
        for resource in &mut request.resource_metrics {
            self.resource(resource, &mut targets);
        }
    }

    fn resource(&mut self, metrics: &mut ResourceMetrics, targets: &mut HashSet<(Labels, i64)>) {
        let resource = metrics.resource.take().unwrap_or_default();
        let context = match Context::new(&resource.attributes, self.config) {
            Ok(context) => context,
            Err(reason) => {
                let all = metrics.scope_metrics.iter().flat_map(|scope| &scope.metrics).map(len).sum();
                return self.sink.reject(all, &reason);
            }
        };
        let mut identity = String::new();
        identify(&mut identity, &resource.attributes);
        let identity_len = identity.len();
        let mut times: Option<(i64, i64)> = None;
        for scope in &mut metrics.scope_metrics {
            let labels = match attributes::scope(scope, self.config) {
                Ok(labels) => labels,
                Err(reason) => {
                    self.sink.reject(scope.metrics.iter().map(len).sum(), &reason);
                    continue;
                }
            };
            identity.truncate(identity_len);
            if let Some(scope) = &scope.scope {
                put(&mut identity, &scope.name);
                put(&mut identity, &scope.version);
                identify(&mut identity, &scope.attributes);
            }
            for metric in &mut scope.metrics {
                for t in point_times(metric) {
                    let (first, last) = times.unwrap_or((t, t));
                    times = Some((first.min(t), last.max(t)));
                }
                self.metric(metric, &context, &labels, &identity);
            }
        }
        if let Some(times) = times
            && let Err(reason) = self.target(&context, &resource, times, targets)
        {
            self.sink.reject(0, &reason);
        }
    }

    fn target(
        &mut self,
        context: &Context,
        resource: &super::message::Resource,
        (first, last): (i64, i64),
        seen: &mut HashSet<(Labels, i64)>,
    ) -> Told<()> {
        let Some(labels) = context.target(resource, self.config)? else { return Ok(()) };
        self.sink.family(Family { name: "target_info", kind: "gauge", help: "Target metadata", unit: "" });
        let first = first.max(last.saturating_sub(TARGET_SAMPLES_MAX * TARGET_STEP_MS));
        let mut t = first;
        loop {
            let at = t.min(last);
            if seen.insert((labels.clone(), at)) {
                self.sink.sample(u64::MAX, &labels, at, Sample::Float(1.0), &[]);
            }
            if at == last {
                return Ok(());
            }
            t = t.saturating_add(TARGET_STEP_MS);
        }
    }

    fn metric(&mut self, metric: &mut Metric, context: &Context, scope: &Labels, identity: &str) {
        let count = len(metric);
        if count == 0 {
            return;
        }
        let temporality = [
            metric.sum.as_ref().map(|sum| sum.aggregation_temporality),
            metric.histogram.as_ref().map(|histogram| histogram.aggregation_temporality),
            metric.exponential_histogram.as_ref().map(|histogram| histogram.aggregation_temporality),
        ];
        let temporality = temporality.into_iter().flatten().next().unwrap_or(CUMULATIVE);
        if temporality != DELTA && temporality != CUMULATIVE {
            let reason = format!("metric {:?} has no valid aggregation temporality", metric.name);
            return self.sink.reject(count, &reason);
        }
        let is_monotonic = metric.sum.as_ref().is_some_and(|sum| sum.is_monotonic);
        let (kind, word) = match metric {
            Metric { gauge: Some(_), .. } => (Kind::Gauge, "gauge"),
            Metric { sum: Some(_), .. } if is_monotonic => (Kind::Counter, "counter"),
            Metric { sum: Some(_), .. } => (Kind::Other, "gauge"),
            Metric { summary: Some(_), .. } => (Kind::Other, "summary"),
            _ => (Kind::Other, "histogram"),
        };
        let name = match self.config.translation.metric(&metric.name, &metric.unit, kind) {
            Ok(name) => name,
            Err(reason) => return self.sink.reject(count, &reason),
        };
        let unit = names::unit(&metric.unit);
        self.sink.family(Family { name: &name, kind: word, help: &metric.description, unit: &unit });
        let mut identity = identity.to_owned();
        for part in [&*metric.name, &metric.unit, word] {
            put(&mut identity, part);
        }
        let around = Around { context, scope, name, identity, is_delta: temporality == DELTA };
        for point in metric.gauge.iter_mut().flat_map(|gauge| &mut gauge.data_points) {
            // Prometheus keeps no exemplars of gauges.
            point.exemplars.clear();
            self.number(&around, point);
        }
        for point in metric.sum.iter_mut().flat_map(|sum| &mut sum.data_points) {
            if self.add_up(&around, point, |point| (&point.attributes, point.flags)) {
                self.number(&around, point);
            }
        }
        for point in metric.histogram.iter_mut().flat_map(|histogram| &mut histogram.data_points) {
            if let Err(reason) = check_bounds(point) {
                self.points += 1;
                self.sink.reject(1, &reason);
            } else if self.add_up(&around, point, |point| (&point.attributes, point.flags)) {
                self.histogram(&around, point);
            }
        }
        for point in metric.exponential_histogram.iter_mut().flat_map(|histogram| &mut histogram.data_points)
        {
            // What cannot be read is not added either.
            let read = native(point).map(drop);
            if let Err(reason) = read {
                self.points += 1;
                self.sink.reject(1, &reason);
            } else if self.add_up(&around, point, |point| (&point.attributes, point.flags)) {
                let made = native(point).map(|made| Sample::Histogram(Arc::new(made)));
                self.whole(&around, &point.attributes, point.time_unix_nano, made, &point.exemplars);
            }
        }
        for point in metric.summary.iter().flat_map(|summary| &summary.data_points) {
            self.summary(&around, point);
        }
    }

    /// Makes a count of a difference; whether there is one.
    fn add_up<P: Point>(
        &mut self,
        around: &Around<'_>,
        point: &mut P,
        said: impl Fn(&P) -> (&[KeyValue], u32),
    ) -> bool {
        let (attributes, flags) = said(point);
        if !around.is_delta || !has_value(flags) {
            return true;
        }
        let mut identity = around.identity.clone();
        identify(&mut identity, attributes);
        let [high, low] = self.hashers.each_ref().map(|hasher| Key::from(hasher.hash_one(&identity)));
        let Err(reason) = self.deltas.add(high << 64 | low, point, self.now) else { return true };
        self.points += 1;
        self.sink.dropped(reason);
        self.sink.reject(1, reason.as_str());
        false
    }

    fn number(&mut self, around: &Around<'_>, point: &NumberPoint) {
        let value = match (point.as_int, point.as_double) {
            _ if !has_value(point.flags) => STALE_MARKER,
            (_, Some(value)) => value,
            (Some(value), None) => int(value),
            (None, None) => 0.0,
        };
        let value = Ok(Sample::Float(value));
        self.whole(around, &point.attributes, point.time_unix_nano, value, &point.exemplars);
    }

    /// A point that is one sample.
    fn whole(
        &mut self,
        around: &Around<'_>,
        attributes: &[KeyValue],
        nanos: u64,
        value: Told<Sample>,
        exemplars: &[Exemplar],
    ) {
        self.points += 1;
        let labels = around.labels(attributes, self.config);
        match labels.and_then(|labels| Ok((labels, value?))) {
            Ok((mut labels, value)) => {
                labels.insert("__name__".to_owned(), around.name.clone());
                let exemplars: Vec<_> = exemplars.iter().map(Exemplified::new).collect();
                self.sink.sample(self.points, &labels, millis(nanos), value, &exemplars);
            }
            Err(reason) => self.sink.reject(1, &reason),
        }
    }

    fn histogram(&mut self, around: &Around<'_>, point: &HistogramPoint) {
        if self.config.convert_histograms_to_nhcb {
            let made = custom(point).map(|made| Sample::Histogram(Arc::new(made)));
            return self.whole(around, &point.attributes, point.time_unix_nano, made, &point.exemplars);
        }
        self.points += 1;
        let labels = match around.labels(&point.attributes, self.config) {
            Ok(labels) => labels,
            Err(reason) => return self.sink.reject(1, &reason),
        };
        let mut parts = Parts::new(around, labels, point.flags, point.time_unix_nano, self.points);
        if let Some(sum) = point.sum {
            parts.put(&mut self.sink, "_sum", None, sum, &[]);
        }
        parts.put(&mut self.sink, "_count", None, float(point.count), &[]);
        // Both they and the buckets come in growing order.
        let exemplars: Vec<_> = point.exemplars.iter().map(Exemplified::new).collect();
        let mut rest = &*exemplars;
        let mut sum = 0u64;
        for (bound, count) in point.explicit_bounds.iter().zip(&point.bucket_counts) {
            sum = sum.saturating_add(*count);
            let within = rest.iter().position(|exemplar| exemplar.value > *bound).unwrap_or(rest.len());
            let (own, behind) = rest.split_at_checked(within).unwrap_or((rest, &[]));
            rest = behind;
            parts.put(&mut self.sink, "_bucket", Some(("le", bound.to_string())), float(sum), own);
        }
        let last = Some(("le", "+Inf".to_owned()));
        parts.put(&mut self.sink, "_bucket", last, float(point.count), rest);
    }

    fn summary(&mut self, around: &Around<'_>, point: &SummaryPoint) {
        self.points += 1;
        let labels = match around.labels(&point.attributes, self.config) {
            Ok(labels) => labels,
            Err(reason) => return self.sink.reject(1, &reason),
        };
        let mut parts = Parts::new(around, labels, point.flags, point.time_unix_nano, self.points);
        parts.put(&mut self.sink, "_sum", None, point.sum, &[]);
        parts.put(&mut self.sink, "_count", None, float(point.count), &[]);
        for quantile in &point.quantile_values {
            let label = Some(("quantile", quantile.quantile.to_string()));
            parts.put(&mut self.sink, "", label, quantile.value, &[]);
        }
    }
}

// === impl Around ===

impl Around<'_> {
    fn labels(&self, attributes: &[KeyValue], config: &Config) -> Told<Labels> {
        self.context.labels(attributes, self.scope, config)
    }
}

/// A point that is several samples.
struct Parts<'a> {
    name: &'a str,
    labels: Labels,
    t: i64,
    is_stale: bool,
    point: u64,
}

// === impl Parts ===

impl<'a> Parts<'a> {
    fn new(around: &'a Around<'_>, labels: Labels, flags: u32, nanos: u64, point: u64) -> Self {
        Self { name: &around.name, labels, t: millis(nanos), is_stale: !has_value(flags), point }
    }

    fn put(
        &mut self,
        sink: &mut impl Sink,
        suffix: &str,
        label: Option<(&'static str, String)>,
        value: f64,
        exemplars: &[Exemplified],
    ) {
        let mut labels = self.labels.clone();
        labels.insert("__name__".to_owned(), format!("{}{suffix}", self.name));
        if let Some((name, value)) = label {
            labels.insert(name.to_owned(), value);
        }
        let value = if self.is_stale { STALE_MARKER } else { value };
        sink.sample(self.point, &labels, self.t, Sample::Float(value), exemplars);
    }
}

// === impl Exemplified ===

impl Exemplified {
    fn new(exemplar: &Exemplar) -> Self {
        let mut labels = Vec::new();
        for (name, id) in [("trace_id", &exemplar.trace_id), ("span_id", &exemplar.span_id)] {
            if id.iter().any(|byte| *byte != 0) {
                labels.push((name.to_owned(), id.iter().map(|byte| format!("{byte:02x}")).collect()));
            }
        }
        let own = labels.len();
        labels.extend(exemplar.filtered_attributes.iter().map(|pair| (pair.key.clone(), text(&pair.value))));
        let chars: usize = labels
            .iter()
            .map(|(name, value): &(String, String)| name.chars().count() + value.chars().count())
            .sum();
        if chars > EXEMPLAR_CHARS_MAX {
            labels.truncate(own);
        }
        labels.sort();
        let value = exemplar.as_double.or(exemplar.as_int.map(int)).unwrap_or(0.0);
        Self { labels, value, t: millis(exemplar.time_unix_nano) }
    }
}

#[allow(clippy::cast_precision_loss, reason = "a sample is a float")]
fn int(value: i64) -> f64 {
    value as f64
}

fn millis(nanos: u64) -> i64 {
    i64::try_from(nanos / 1_000_000).unwrap_or(i64::MAX)
}

/// How many points a metric has.
fn len(metric: &Metric) -> u64 {
    let all = [
        metric.gauge.as_ref().map(|kind| kind.data_points.len()),
        metric.sum.as_ref().map(|kind| kind.data_points.len()),
        metric.histogram.as_ref().map(|kind| kind.data_points.len()),
        metric.exponential_histogram.as_ref().map(|kind| kind.data_points.len()),
        metric.summary.as_ref().map(|kind| kind.data_points.len()),
    ];
    all.into_iter().flatten().sum::<usize>() as u64
}

fn point_times(metric: &Metric) -> impl Iterator<Item = i64> + '_ {
    let numbers = metric.gauge.iter().map(|kind| &kind.data_points);
    let numbers = numbers.chain(metric.sum.iter().map(|kind| &kind.data_points));
    let numbers = numbers.flatten().map(|point| point.time_unix_nano);
    let classic =
        metric.histogram.iter().flat_map(|kind| &kind.data_points).map(|point| point.time_unix_nano);
    let native = metric
        .exponential_histogram
        .iter()
        .flat_map(|kind| &kind.data_points)
        .map(|point| point.time_unix_nano);
    let summaries =
        metric.summary.iter().flat_map(|kind| &kind.data_points).map(|point| point.time_unix_nano);
    numbers.chain(classic).chain(native).chain(summaries).map(millis)
}

/// A text with its length, so that no two lists of texts are one.
fn put(identity: &mut String, text: &str) {
    identity.push_str(&text.len().to_string());
    identity.push(':');
    identity.push_str(text);
}

/// Attributes, whatever order they come in.
fn identify(identity: &mut String, attributes: &[KeyValue]) {
    let mut sorted: Vec<(&str, String)> =
        attributes.iter().map(|pair| (&*pair.key, text(&pair.value))).collect();
    sorted.sort();
    identity.push('{');
    for (name, value) in sorted {
        put(identity, name);
        put(identity, &value);
    }
    identity.push('}');
}
