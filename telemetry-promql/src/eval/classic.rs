//! Virtual classic series: `x_bucket`, `x_sum` and `x_count` of a native histogram `x`, for queries written before it
//! was one. Bounds are powers of four, which are bounds of every exponential schema from -1 up, so that counts are
//! exact. Stored series of the name win: these are made only where there is none.

use std::sync::Arc;

use telemetry_model::{MatchOp, Matcher, NativeHistogram, is_stale};

use super::arithmetic::bound;
use crate::budget::Budget;
use crate::error::QueryError;
use crate::labels::{BUCKET, Labels, NAME};
use crate::pattern;
use crate::source::{Column, Hints, Reader, Select, Selection, Source, SourceError};
use crate::text;

/// Buckets of a virtual histogram at most, +Inf among them.
const BOUNDS_MAX: usize = 20;
/// Powers of four that may be bounds: from about 0.2 µs to 4^15.
const POWERS: std::ops::RangeInclusive<i32> = -11..=15;

/// What of a histogram a series shows.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Part {
    Count,
    Sum,
    /// Observations up to a bound.
    Bucket(f64),
}

/// The suffixes and what they stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Suffix {
    Bucket,
    Sum,
    Count,
}

/// Series made of a selection of native ones.
struct Virtual<'s> {
    natives: Box<dyn Selection + 's>,
    labels: Vec<Labels>,
    /// Which native series each is made of, and what of it.
    parts: Vec<(usize, Part)>,
}

struct VirtualReader<'v> {
    natives: Box<dyn Reader + 'v>,
    parts: &'v [(usize, Part)],
    /// The native series that was read last: its buckets come one after another.
    last: Option<(usize, Column)>,
}

/// The virtual series that a request asks for, if it asks for such and there are native ones.
pub(crate) fn select<'s>(
    source: &'s dyn Source,
    request: &Select<'_>,
    budget: &Budget,
) -> Result<Option<Box<dyn Selection + 's>>, QueryError> {
    let Some((name, base, suffix)) = virtual_name(request.matchers) else { return Ok(None) };
    let is_bound = |matcher: &&Matcher| matcher.name == BUCKET && suffix == Suffix::Bucket;
    let bounds: Vec<&Matcher> = request.matchers.iter().filter(is_bound).collect();
    let others = request.matchers.iter().filter(|matcher| matcher.name != NAME && !is_bound(matcher));
    let mut matchers: Vec<Matcher> = others.cloned().collect();
    matchers.push(Matcher::new(NAME, MatchOp::Equal, base));
    // What is asked of the numbers is asked of the histograms only where it is the same for both.
    let is_same = request.hints.window == 0 || matches!(request.hints.function, "rate" | "increase");
    let function = if is_same { request.hints.function } else { "" };
    let hints = Hints { function, ..request.hints };
    let natives = source.select(&Select { matchers: &matchers, hints, ..request.clone() }, budget)?;
    if natives.series().is_empty() {
        return Ok(None);
    }
    let wanted = compile(&bounds)?;
    let mut made: Vec<(Labels, (usize, Part))> = Vec::new();
    let spans = if suffix == Suffix::Bucket { spans(&*natives, budget)? } else { Vec::new() };
    let shared = bounds_of(&spans);
    for (at, labels) in natives.series().iter().enumerate() {
        let renamed = labels.with(NAME, name);
        let own = spans.get(at).map_or(&[][..], |span| &span.custom);
        match suffix {
            Suffix::Sum => made.push((renamed, (at, Part::Sum))),
            Suffix::Count => made.push((renamed, (at, Part::Count))),
            Suffix::Bucket => {
                let bounds = if own.is_empty() { &shared } else { own };
                for bound in bounds.iter().copied().chain([f64::INFINITY]) {
                    let value = text::general(bound);
                    if wanted.iter().all(|matches| matches(&value)) {
                        made.push((renamed.with(BUCKET, &value), (at, Part::Bucket(bound))));
                    }
                }
            }
        }
    }
    made.sort_by(|a, b| a.0.cmp(&b.0));
    let (labels, parts) = made.into_iter().unzip();
    Ok(Some(Box::new(Virtual { natives, labels, parts })))
}

/// The name that is asked for, the native one behind it, and what of it.
fn virtual_name(matchers: &[Matcher]) -> Option<(&str, &str, Suffix)> {
    let mut names = matchers.iter().filter(|matcher| matcher.name == NAME);
    let (name, None) = (names.next()?, names.next()) else { return None };
    if name.op != MatchOp::Equal {
        return None;
    }
    let suffixes = [("_bucket", Suffix::Bucket), ("_sum", Suffix::Sum), ("_count", Suffix::Count)];
    suffixes.into_iter().find_map(|(text, suffix)| {
        let base = name.value.strip_suffix(text)?;
        (!base.is_empty()).then_some((name.value.as_str(), base, suffix))
    })
}

type Wanted = Box<dyn Fn(&str) -> bool>;

fn compile(matchers: &[&Matcher]) -> Result<Vec<Wanted>, QueryError> {
    let one = |matcher: &&Matcher| -> Result<Wanted, QueryError> {
        let value = matcher.value.clone();
        let regex = || pattern::compile(&matcher.value).map_err(QueryError::bad_data);
        Ok(match matcher.op {
            MatchOp::Equal => Box::new(move |le| le == value),
            MatchOp::NotEqual => Box::new(move |le| le != value),
            MatchOp::Regex => {
                let regex = regex()?;
                Box::new(move |le| regex.is_match(le))
            }
            MatchOp::NotRegex => {
                let regex = regex()?;
                Box::new(move |le| !regex.is_match(le))
            }
        })
    };
    matchers.iter().map(one).collect()
}

/// How far a native series' buckets reach.
struct Span {
    least: f64,
    most: f64,
    /// Its own bounds, if it has such.
    custom: Vec<f64>,
}

fn spans(natives: &dyn Selection, budget: &Budget) -> Result<Vec<Span>, QueryError> {
    let mut reader = natives.reader();
    let each = (0..natives.series().len()).map(|at| {
        budget.check()?;
        let column = reader.read(at)?;
        budget.samples(column.times.len())?;
        Ok(Span::of(&column))
    });
    each.collect()
}

/// The bounds that all series of a selection have, so that they can be added up: those around what was ever observed,
/// without +Inf.
fn bounds_of(spans: &[Span]) -> Vec<f64> {
    let least = spans.iter().map(|span| span.least).fold(f64::INFINITY, f64::min);
    let most = spans.iter().map(|span| span.most).fold(f64::NEG_INFINITY, f64::max);
    let mut bounds: Vec<f64> = POWERS.map(|power| f64::powi(4.0, power)).collect();
    bounds.truncate(bounds.partition_point(|bound| *bound < most).saturating_add(1));
    // The bound below all is where a quantile in the lowest bucket begins.
    let below = bounds.partition_point(|bound| *bound < least).saturating_sub(1);
    bounds.drain(..below.min(bounds.len()));
    bounds.drain(..bounds.len().saturating_sub(BOUNDS_MAX - 1));
    bounds
}

// === impl Span ===

impl Span {
    fn of(column: &Column) -> Self {
        let mut span = Self { least: f64::INFINITY, most: f64::NEG_INFINITY, custom: Vec::new() };
        for (_, histogram) in column.histograms.iter().filter(|(_, histogram)| !is_stale(histogram.sum)) {
            if let Some(bounds) = &histogram.custom_bounds {
                span.custom.extend(bounds.iter());
                continue;
            }
            let schema = histogram.schema;
            if let Some(first) = histogram.positive.indexes.first() {
                span.least = span.least.min(bound(first.saturating_sub(1), schema));
            }
            if let Some(last) = histogram.positive.indexes.last() {
                span.most = span.most.max(bound(*last, schema));
            }
            if histogram.zero_count > 0.0 || !histogram.negative.is_empty() {
                span.least = span.least.min(f64::powi(4.0, *POWERS.start()));
            }
        }
        span.custom.sort_by(f64::total_cmp);
        span.custom.dedup();
        span
    }
}

/// Observations up to a bound. The bound is one of the buckets' bounds, or lies beyond them.
fn count_up_to(histogram: &NativeHistogram, bound: f64) -> f64 {
    if bound == f64::INFINITY {
        return histogram.count;
    }
    if let Some(bounds) = &histogram.custom_bounds {
        let last = bounds.partition_point(|known| *known <= bound);
        let within = histogram
            .positive
            .iter()
            .take_while(|(index, _)| usize::try_from(*index).is_ok_and(|index| index < last));
        return within.map(|(_, count)| count).sum();
    }
    // Bucket i ends at 2^(i / 2^schema): with a bound 4^k the last is 2k * 2^schema.
    let last = bound.log2() * f64::exp2(f64::from(histogram.schema));
    let positive = histogram.positive.iter().take_while(|(index, _)| f64::from(*index) <= last + 1e-6);
    let negative: f64 = histogram.negative.counts.iter().sum();
    let zero = if bound >= histogram.zero_threshold { histogram.zero_count } else { 0.0 };
    negative + zero + positive.map(|(_, count)| count).sum::<f64>()
}

// === impl Virtual ===

impl Selection for Virtual<'_> {
    fn series(&self) -> &[Labels] {
        &self.labels
    }

    fn reader(&self) -> Box<dyn Reader + '_> {
        Box::new(VirtualReader { natives: self.natives.reader(), parts: &self.parts, last: None })
    }
}

// === impl VirtualReader ===

impl Reader for VirtualReader<'_> {
    fn read(&mut self, at: usize) -> Result<Column, SourceError> {
        let Some((native, part)) = self.parts.get(at).copied() else { return Ok(Column::default()) };
        if self.last.as_ref().is_none_or(|(known, _)| *known != native) {
            self.last = Some((native, self.natives.read(native)?));
        }
        let Some((_, column)) = &self.last else { return Ok(Column::default()) };
        Ok(part_of(column, part))
    }
}

/// One number of each histogram. Numbers beside histograms are left out.
fn part_of(column: &Column, part: Part) -> Column {
    let shown = |histogram: &NativeHistogram| {
        if is_stale(histogram.sum) {
            return histogram.sum;
        }
        match part {
            Part::Count => histogram.count,
            Part::Sum => histogram.sum,
            Part::Bucket(bound) => count_up_to(histogram, bound),
        }
    };
    let values: Vec<f64> = column.histograms.iter().map(|(_, histogram)| shown(histogram)).collect();
    if values.len() == column.times.len() {
        let times = Arc::clone(&column.times);
        return Column { times, values, histograms: Vec::new(), starts: column.starts.clone() };
    }
    // Stale markers of numbers end a series of either kind.
    let mut out = (Vec::new(), Vec::new());
    let mut next = column.histograms.iter().zip(values).peekable();
    for (at, (t, value)) in column.times.iter().zip(&column.values).enumerate() {
        let own = next.next_if(|((row, _), _)| *row as usize == at).map(|(_, value)| value);
        if let Some(value) = own.or(is_stale(*value).then_some(*value)) {
            out.0.push(*t);
            out.1.push(value);
        }
    }
    Column { times: out.0.into(), values: out.1, histograms: Vec::new(), starts: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_up_to_powers_of_four_are_exact() {
        // Schema 1: bucket i is (2^((i-1)/2), 2^(i/2)]; (1, 1.41], (2.8, 4], (4, 5.6].
        let histogram = NativeHistogram {
            schema: 1,
            count: 7.0,
            zero_count: 1.0,
            positive: [(1, 1.0), (4, 2.0), (5, 3.0)].into_iter().collect(),
            ..NativeHistogram::default()
        };
        let counts = [0.25, 1.0, 4.0, 16.0, f64::INFINITY].map(|bound| count_up_to(&histogram, bound));
        assert_eq!(counts, [1.0, 1.0, 4.0, 7.0, 7.0]);
    }

    #[test]
    fn names_of_parts_are_known() {
        let named = |name: &str| [Matcher::new(NAME, MatchOp::Equal, name)];
        assert_eq!(virtual_name(&named("x_sum")), Some(("x_sum", "x", Suffix::Sum)));
        assert_eq!(virtual_name(&named("_sum")), None);
        assert_eq!(virtual_name(&named("x")), None);
    }
}
