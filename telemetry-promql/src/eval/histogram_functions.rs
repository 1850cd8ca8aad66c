//! Functions of histograms: of native ones one by one, and of classic ones, whose buckets are series, group by group.

use std::collections::HashMap;
use std::sync::Arc;

use telemetry_model::NativeHistogram;

use super::Evaluator;
use super::distribution::{Distribution, NanRemark};
use super::frame::{Bits, Column, Frame, Grid};
use super::quantile::{Bucket, bucket_fraction, bucket_quantile};
use crate::annotations::{Detail, Kind};
use crate::error::QueryError;
use crate::functions::FunctionId;
use crate::labels::{BUCKET, Labels};
use crate::plan::{Node, Op};
use crate::text;

/// Series of a vector, sorted into histograms.
struct Histograms {
    classics: Vec<Classic>,
    natives: Vec<Native>,
}

/// A classic histogram.
struct Classic {
    /// Without `le`.
    labels: Labels,
    drop_name: bool,
    buckets: Vec<(f64, Column)>,
}

/// A series with native histograms.
struct Native {
    column: Column,
    /// Steps with histograms that no classic one stands beside.
    steps: Bits,
}

/// What is asked of each histogram.
enum Question {
    Quantile { q: Arc<[f64]>, label: Option<(String, f64)> },
    Fraction { lower: Vec<f64>, upper: Vec<f64> },
}

/// `histogram_count` and its siblings.
pub(crate) fn of_natives(
    evaluator: &Evaluator<'_>,
    function: FunctionId,
    args: &[Node],
    grid: Grid,
) -> Result<Frame, QueryError> {
    use FunctionId as F;
    let value = |histogram: &NativeHistogram| match function {
        F::HistogramCount => histogram.count,
        F::HistogramSum => histogram.sum,
        F::HistogramAvg => histogram.sum / histogram.count,
        F::HistogramStddev => histogram.variance().sqrt(),
        _ => histogram.variance(),
    };
    let mut out = Vec::new();
    for column in evaluator.columns(args, 0, grid)? {
        evaluator.budget.check()?;
        evaluator.grow(Column::bytes_of(grid.count))?;
        let mut made = Column::empty(column.labels.clone(), grid.count);
        for step in column.histogram_bits().iter() {
            if let Some(histogram) = column.histogram(step) {
                made.set(step, value(histogram));
            }
        }
        // Type and unit stay: what these functions answer is still of the metric's kind for upstream.
        made.drop_name = true;
        if !evaluator.options.delayed_name_removal {
            made.labels = made.labels.keep(|name| name != crate::labels::NAME);
        }
        out.push(made);
    }
    evaluator.assembled(out, grid)
}

/// `histogram_quantile`, `histogram_quantiles`, `histogram_fraction`.
pub(crate) fn of_buckets(
    evaluator: &Evaluator<'_>,
    function: FunctionId,
    args: &[Node],
    grid: Grid,
) -> Result<Frame, QueryError> {
    let vector_at = match function {
        FunctionId::HistogramQuantiles => 0,
        FunctionId::HistogramQuantile => 1,
        _ => 2,
    };
    let position = args.get(vector_at).map_or(0, |arg| arg.position);
    let questions = questions(evaluator, function, args, grid)?;
    let columns = evaluator.columns(args, vector_at, grid)?;
    let histograms = Histograms::new(evaluator, columns, position, grid);
    let mut out = Vec::new();
    for question in &questions {
        for native in &histograms.natives {
            evaluator.budget.check()?;
            evaluator.grow(Column::bytes_of(grid.count) + question.bytes(&native.column.labels))?;
            out.push(native.answer(evaluator, question, position));
        }
        for classic in &histograms.classics {
            evaluator.budget.check()?;
            evaluator.grow(Column::bytes_of(grid.count) + question.bytes(&classic.labels))?;
            out.push(classic.answer(evaluator, question, position, grid));
        }
    }
    evaluator.assembled(out, grid)
}

fn questions(
    evaluator: &Evaluator<'_>,
    function: FunctionId,
    args: &[Node],
    grid: Grid,
) -> Result<Vec<Question>, QueryError> {
    let check = |values: &[f64], at: usize| {
        let position = args.get(at).map_or(0, |arg| arg.position);
        for q in values.iter().filter(|q| q.is_nan() || !(0.0..=1.0).contains(*q)) {
            evaluator.note(Kind::InvalidQuantile((*q).into()), position);
        }
    };
    match function {
        FunctionId::HistogramFraction => {
            let (lower, upper) = (evaluator.numbers(args, 0, grid)?, evaluator.numbers(args, 1, grid)?);
            Ok(vec![Question::Fraction { lower, upper }])
        }
        FunctionId::HistogramQuantile => {
            let q: Arc<[f64]> = evaluator.numbers(args, 0, grid)?.into();
            check(&q, 0);
            Ok(vec![Question::Quantile { q, label: None }])
        }
        _ => {
            let label = match args.get(1).map(|arg| &arg.op) {
                Some(Op::Text(label)) => label.to_string(),
                _ => String::new(),
            };
            let mut all = Vec::new();
            for at in 2..args.len() {
                let values: Arc<[f64]> = evaluator.numbers(args, at, grid)?.into();
                check(&values, at);
                // A quantile that changes from step to step is another series at each.
                let mut seen: Vec<f64> = Vec::new();
                for q in &*values {
                    if seen.iter().any(|known| known.to_bits() == q.to_bits()) {
                        continue;
                    }
                    evaluator.budget.check()?;
                    seen.push(*q);
                    all.push(Question::Quantile { q: Arc::clone(&values), label: Some((label.clone(), *q)) });
                }
            }
            Ok(all)
        }
    }
}

// === impl Question ===

impl Question {
    /// The labels of the answer about a histogram.
    fn labels(&self, labels: &Labels) -> Labels {
        match self {
            Self::Quantile { label: Some((name, q)), .. } => labels.with(name, &text::label(*q)),
            _ => labels.clone(),
        }
    }

    /// Bytes of these labels, about, where they are not the histogram's own.
    fn bytes(&self, labels: &Labels) -> usize {
        match self {
            Self::Quantile { label: Some((name, _)), .. } => 128 + name.len() + size_of_val(labels.pairs()),
            _ => 0,
        }
    }

    /// Whether the step is asked about at all.
    fn asks(&self, step: usize) -> bool {
        match self {
            Self::Quantile { q, label: Some((_, only)) } => {
                q.get(step).is_some_and(|q| q.to_bits() == only.to_bits())
            }
            _ => true,
        }
    }
}

// === impl Histograms ===

impl Histograms {
    fn new(evaluator: &Evaluator<'_>, columns: Vec<Column>, position: usize, grid: Grid) -> Self {
        let delayed = evaluator.options.delayed_name_removal;
        let named = |labels: &Labels| if delayed { labels.name().to_owned() } else { String::new() };
        let mut all = Self { classics: Vec::new(), natives: Vec::new() };
        let mut places: HashMap<Labels, usize, ahash::RandomState> = HashMap::default();
        for mut column in columns {
            let steps = column.histogram_bits();
            let mut floats = column.present.clone();
            floats.and_not(&steps);
            if floats.any() {
                let label = column.labels.get(BUCKET).to_owned();
                match parse_bound(&label) {
                    None => {
                        let metric = named(&column.labels);
                        evaluator.note(Kind::BadBucketLabel { metric, label }, position);
                    }
                    Some(bound) => {
                        let labels = column.labels.with(BUCKET, "");
                        let place = *places.entry(labels.clone()).or_insert(all.classics.len());
                        if place == all.classics.len() {
                            let drop_name = column.drop_name;
                            all.classics.push(Classic { labels, drop_name, buckets: Vec::new() });
                        }
                        if let Some(classic) = all.classics.get_mut(place) {
                            let values = match steps.any() {
                                true => column.values.clone(),
                                false => std::mem::take(&mut column.values),
                            };
                            let bucket = Column::of(Labels::default(), values);
                            classic.buckets.push((bound, Column { present: floats, ..bucket }));
                        }
                    }
                }
            }
            if steps.any() {
                all.natives.push(Native { column, steps });
            }
        }
        for native in &mut all.natives {
            let Some(place) = places.get(&native.column.labels) else { continue };
            let Some(classic) = all.classics.get_mut(*place) else { continue };
            let mut clash = Bits::none(grid.count);
            classic.buckets.iter().for_each(|(_, bucket)| clash.or(&bucket.present));
            clash.and(&native.steps);
            if clash.any() {
                evaluator.note(Kind::MixedClassicNative(named(&native.column.labels)), position);
                native.steps.and_not(&clash);
                classic.buckets.iter_mut().for_each(|(_, bucket)| bucket.present.and_not(&clash));
            }
        }
        all
    }
}

/// A bound as Go reads numbers.
fn parse_bound(text: &str) -> Option<f64> {
    match text.to_ascii_lowercase().as_str() {
        "+inf" | "inf" | "+infinity" | "infinity" => Some(f64::INFINITY),
        "-inf" | "-infinity" => Some(f64::NEG_INFINITY),
        "" => None,
        other => other.parse().ok(),
    }
}

// === impl Native ===

impl Native {
    fn answer(&self, evaluator: &Evaluator<'_>, question: &Question, position: usize) -> Column {
        let steps = self.column.values.len();
        let name = self.column.labels.name();
        // Without delayed removal upstream has dropped the name before it remarks.
        let name = if evaluator.options.delayed_name_removal { name } else { "" };
        let mut out = Column::empty(question.labels(&self.column.labels), steps);
        let number = |of: &[f64], step: usize| of.get(step).copied().unwrap_or(f64::NAN);
        for step in self.steps.iter().filter(|step| question.asks(*step)) {
            let Some(histogram) = self.column.histogram(step) else { continue };
            let (value, remark) = match question {
                Question::Quantile { q, .. } => histogram.quantile(number(q, step)),
                Question::Fraction { lower, upper } => {
                    histogram.fraction(number(lower, step), number(upper, step))
                }
            };
            out.set(step, value);
            let kind = match remark {
                None => continue,
                Some(NanRemark::QuantileIsNan) => Kind::QuantileNanResult(name.to_owned()),
                Some(NanRemark::QuantileIsSkewed) => Kind::QuantileNanSkew(name.to_owned()),
                Some(NanRemark::FractionLeavesOut) => Kind::FractionNan(name.to_owned()),
            };
            evaluator.note(kind, position);
        }
        evaluator.drop_name(out)
    }
}

// === impl Classic ===

impl Classic {
    fn answer(&self, evaluator: &Evaluator<'_>, question: &Question, position: usize, grid: Grid) -> Column {
        let mut out = Column::empty(question.labels(&self.labels), grid.count);
        let number = |of: &[f64], step: usize| of.get(step).copied().unwrap_or(f64::NAN);
        let delayed = evaluator.options.delayed_name_removal;
        let mut buckets: Vec<Bucket> = Vec::with_capacity(self.buckets.len());
        for step in (0..grid.count).filter(|step| question.asks(*step)) {
            buckets.clear();
            let present = self.buckets.iter().filter(|(_, column)| column.present.get(step));
            buckets.extend(present.filter_map(|(bound, column)| {
                Some(Bucket { bound: *bound, count: *column.values.get(step)? })
            }));
            if buckets.is_empty() {
                continue;
            }
            let (value, forced) = match question {
                Question::Quantile { q, .. } => bucket_quantile(number(q, step), &mut buckets),
                Question::Fraction { lower, upper } => {
                    (bucket_fraction(number(lower, step), number(upper, step), &mut buckets), None)
                }
            };
            out.set(step, value);
            if let Some(forced) = forced {
                let name = if delayed { self.labels.name().to_owned() } else { String::new() };
                let t = grid.t(step);
                let detail = Detail::Forced {
                    min_t: t,
                    max_t: t,
                    min_bucket: forced.min_bucket,
                    max_bucket: forced.max_bucket,
                    max_diff: forced.max_diff,
                    count: 0,
                };
                evaluator.notes.borrow_mut().add_detail(Kind::ForcedMonotonicity(name), position, detail);
            }
        }
        out.drop_name = self.drop_name;
        evaluator.drop_name(out)
    }
}
