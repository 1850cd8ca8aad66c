//! A store as OpenMetrics text: families whole, with what is known of them; groups whole, in the order of time.
//!
//! Native histograms have no form in OpenMetrics 1.0: they are written as the classic series of their own bounds.
//! Stale markers end a series in the store and are not written.

use std::collections::{BTreeMap, HashSet};
use std::io::Write;

use telemetry_model::{NativeHistogram, ResetHint, is_stale};
use telemetry_tsdb::db::{Db, Exemplar, Metadata, Reader, Selected, Selection};

use super::openmetrics::Kind;
use super::openmetrics::write::{put_family, put_number, put_sample};
use super::{Exported, TransferError, Wanted, read};

/// Text gathered before it is written.
const BUFFER_BYTES: usize = 1 << 20;

/// A series' place in the text.
struct Place<'a> {
    family: &'a str,
    kind: Kind,
    /// Labels without the name and what tells samples of one metric apart.
    group: Vec<(&'a str, &'a str)>,
    /// What follows the family's name.
    suffix: &'a str,
    /// The bound or the quantile.
    own: f64,
    series: &'a Selected,
}

/// One line to be written.
struct Point<'a> {
    t: i64,
    rank: u8,
    own: f64,
    series: &'a Selected,
    what: What,
    exemplar: Option<Exemplar>,
}

enum What {
    Float(f64),
    Native(std::sync::Arc<NativeHistogram>),
}

/// Writes every sample that is wanted.
///
/// # Errors
/// If something is damaged, or nobody reads.
pub fn openmetrics(
    db: &Db,
    wanted: &Wanted,
    out: &mut dyn Write,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Exported, TransferError> {
    let selection = db.select(&wanted.matchers, wanted.from, wanted.to)?;
    let known: BTreeMap<Box<str>, Metadata> = db.metadata().into_iter().collect();
    let places = places(&selection, &known);
    let slices = wanted.slices(db);
    let mut writer =
        Writer { db, reader: selection.reader(), text: String::new(), done: Exported::default() };
    let total = u64::try_from(places.len()).unwrap_or(u64::MAX);
    let mut read = 0u64;
    for family in places.chunk_by(|a, b| a.family == b.family) {
        let mut is_first = true;
        for group in family.chunk_by(|a, b| a.group == b.group) {
            let mut written = vec![None; group.len()];
            for slice in &slices {
                writer.group(group, *slice, &known, &mut is_first, &mut written)?;
                if writer.text.len() > BUFFER_BYTES {
                    out.write_all(writer.text.as_bytes())?;
                    writer.text.clear();
                }
            }
            writer.done.series += written.iter().flatten().count() as u64;
            read += group.len() as u64;
            progress(read, total);
        }
    }
    writer.text.push_str("# EOF\n");
    out.write_all(writer.text.as_bytes())?;
    out.flush()?;
    Ok(writer.done)
}

/// All series, families together and in them groups.
fn places<'a>(selection: &'a Selection, known: &BTreeMap<Box<str>, Metadata>) -> Vec<Place<'a>> {
    let names: HashSet<&str> =
        selection.series().iter().map(|series| series.get("__name__").unwrap_or("")).collect();
    let place = |series: &'a Selected| {
        let name = series.get("__name__").unwrap_or("");
        let (family, kind, suffix) = family_of(name, series, &names, known);
        let own_name = match (kind, suffix) {
            (Kind::Histogram | Kind::GaugeHistogram, "_bucket") => "le",
            (Kind::Summary, "") => "quantile",
            (Kind::StateSet, _) => family,
            _ => "",
        };
        let own = series.get(own_name).and_then(|text| text.parse().ok()).unwrap_or(0.0);
        let labels = series.labels().iter().map(|(name, value)| (&**name, &**value));
        let group = labels.filter(|(name, _)| *name != "__name__" && *name != own_name).collect();
        Place { family, kind, group, suffix, own, series }
    };
    let mut places: Vec<Place<'a>> = selection.series().iter().map(place).collect();
    places.sort_by(|a, b| (a.family, &a.group).cmp(&(b.family, &b.group)));
    places
}

/// The family of a name, by what is known; a family of its own where nothing is, or where another has its name.
fn family_of<'a>(
    name: &'a str,
    series: &Selected,
    names: &HashSet<&str>,
    known: &BTreeMap<Box<str>, Metadata>,
) -> (&'a str, Kind, &'a str) {
    let kind = |name: &str| known.get(name).map(|metadata| kind_of(&metadata.kind));
    let cut = |suffix: &str| name.strip_suffix(suffix).filter(|family| !family.is_empty());
    let suffix = |family: &str| name.get(family.len()..).unwrap_or("");
    for (word, of) in [("_total", Kind::Counter), ("_info", Kind::Info)] {
        if let Some(family) = cut(word).filter(|family| kind(name) == Some(of) && !names.contains(family)) {
            return (family, of, suffix(family));
        }
    }
    for word in ["_bucket", "_count", "_sum", "_gcount", "_gsum"] {
        let Some(family) = cut(word) else { continue };
        let is_whole = word != "_bucket" || series.get("le").is_some();
        let of = kind(family).filter(|kind| is_whole && kind.suffixes().contains(&word));
        if let Some(of) = of {
            return (family, of, suffix(family));
        }
    }
    match kind(name) {
        Some(Kind::Gauge) => (name, Kind::Gauge, ""),
        Some(kind @ (Kind::Histogram | Kind::GaugeHistogram)) => (name, kind, ""),
        Some(Kind::Summary) if series.get("quantile").is_some() => (name, Kind::Summary, ""),
        Some(Kind::StateSet) if series.get(name).is_some() => (name, Kind::StateSet, ""),
        _ => (name, Kind::Unknown, ""),
    }
}

fn kind_of(word: &str) -> Kind {
    Kind::of(word, super::openmetrics::Dialect::OpenMetrics).unwrap_or_default()
}

struct Writer<'a> {
    db: &'a Db,
    reader: Reader,
    text: String,
    done: Exported,
}

// === impl Writer ===

impl Writer<'_> {
    /// One metric in one part of time.
    fn group(
        &mut self,
        group: &[Place<'_>],
        slice: (i64, i64),
        known: &BTreeMap<Box<str>, Metadata>,
        is_first: &mut bool,
        written: &mut [Option<i64>],
    ) -> Result<(), TransferError> {
        let mut points = Vec::new();
        for (place, last) in group.iter().zip(written) {
            let before = points.len();
            self.points(place, slice, *last, &mut points)?;
            if let Some(point) = points.get(before..).and_then(<[Point<'_>]>::last) {
                *last = Some(point.t);
            }
        }
        if points.is_empty() {
            return Ok(());
        }
        if let Some(place) = group.first().filter(|_| std::mem::take(is_first)) {
            self.family(place, known);
        }
        points.sort_by(|a, b| (a.t, a.rank).cmp(&(b.t, b.rank)).then(a.own.total_cmp(&b.own)));
        let kind = group.first().map_or(Kind::Unknown, |place| place.kind);
        for point in &points {
            let labels = point.series.labels().iter().map(|(name, value)| (&**name, &**value));
            match &point.what {
                What::Float(value) => {
                    let exemplar = point.exemplar.as_ref().map(|e| (&*e.labels, e.value, e.t));
                    put_sample(&mut self.text, labels, *value, point.t, exemplar);
                }
                What::Native(histogram) => put_classic(&mut self.text, labels, histogram, point.t, kind),
            }
            self.done.samples += 1;
        }
        Ok(())
    }

    fn family(&mut self, place: &Place<'_>, known: &BTreeMap<Box<str>, Metadata>) {
        let named = |suffix: &str| known.get(format!("{}{suffix}", place.family).as_str());
        let found = match place.kind {
            Kind::Counter => named("_total"),
            Kind::Info => named("_info"),
            _ => named(""),
        };
        if let Some(found) = found {
            put_family(&mut self.text, place.family, place.kind, &found.unit, &found.help);
        }
    }

    fn points<'a>(
        &mut self,
        place: &Place<'a>,
        slice: (i64, i64),
        last: Option<i64>,
        out: &mut Vec<Point<'a>>,
    ) -> Result<(), TransferError> {
        let column = read(&mut self.reader, place.series, slice)?;
        let may_have_exemplars = matches!(place.suffix, "_total" | "_bucket");
        let mut exemplars = Vec::new();
        if may_have_exemplars && !column.times.is_empty() {
            // One that is older than this part of time may belong to its first sample.
            let after = last.map_or(i64::MIN, |t| t.saturating_add(1));
            let of = |id: &u32| self.db.exemplars(*id, after, slice.1);
            exemplars = place.series.ids().iter().flat_map(of).collect();
            exemplars.sort_by_key(|exemplar: &Exemplar| std::cmp::Reverse(exemplar.t));
        }
        let rank = match place.suffix {
            "_count" | "_gcount" => 1,
            "_sum" | "_gsum" => 2,
            _ => 0,
        };
        let is_native =
            place.suffix.is_empty() && matches!(place.kind, Kind::Histogram | Kind::GaugeHistogram);
        let mut histograms = column.histograms.iter().peekable();
        for (at, (t, value)) in column.times.iter().zip(&column.values).enumerate() {
            let what = match histograms.next_if(|(of, _)| *of as usize == at) {
                Some((_, histogram)) => What::Native(std::sync::Arc::clone(histogram)),
                None if is_stale(*value) => continue,
                None if is_native => {
                    // A float under a histogram's own name has no place in the family.
                    self.done.skipped += 1;
                    continue;
                }
                None => What::Float(*value),
            };
            // An exemplar stands at the first sample that is not before it; of two there the younger is written.
            let mut exemplar = None;
            while let Some(next) = exemplars.pop_if(|exemplar| exemplar.t <= *t) {
                exemplar = Some(next);
            }
            out.push(Point { t: *t, rank, own: place.own, series: place.series, what, exemplar });
        }
        Ok(())
    }
}

/// A native histogram as cumulative buckets, count and sum. The format has no sum beside negative buckets.
fn put_classic<'a>(
    text: &mut String,
    labels: impl Iterator<Item = (&'a str, &'a str)> + Clone,
    histogram: &NativeHistogram,
    t: i64,
    kind: Kind,
) {
    let name = labels.clone().find(|(name, _)| *name == "__name__").map_or("", |(_, value)| value);
    let mut put = |suffix: &str, le: Option<f64>, value: f64| {
        let named = format!("{name}{suffix}");
        let mut bound = String::new();
        let mut all: Vec<(&str, &str)> = labels.clone().filter(|(name, _)| *name != "__name__").collect();
        all.push(("__name__", &named));
        if let Some(le) = le {
            put_number(&mut bound, le);
            all.push(("le", &bound));
        }
        all.sort_unstable();
        put_sample(text, all.iter().copied(), value, t, None);
    };
    let upper = |index: i32| match &histogram.custom_bounds {
        Some(bounds) => {
            usize::try_from(index).ok().and_then(|at| bounds.get(at)).copied().unwrap_or(f64::INFINITY)
        }
        None => (f64::from(index) / f64::from(i32::from(histogram.schema)).exp2()).exp2(),
    };
    let mut below = 0.0;
    for (index, count) in histogram.negative.iter().rev() {
        below += count;
        put("_bucket", Some(-upper(index.saturating_sub(1))), below);
    }
    below += histogram.zero_count;
    if histogram.custom_bounds.is_none() && histogram.zero_count != 0.0 {
        put("_bucket", Some(histogram.zero_threshold), below);
    }
    for (index, count) in histogram.positive.iter() {
        below += count;
        if upper(index).is_finite() {
            put("_bucket", Some(upper(index)), below);
        }
    }
    put("_bucket", Some(f64::INFINITY), histogram.count);
    let is_gauge =
        kind == Kind::GaugeHistogram || histogram.reset == ResetHint::Gauge && kind != Kind::Histogram;
    let (count, sum) = if is_gauge { ("_gcount", "_gsum") } else { ("_count", "_sum") };
    if is_gauge || histogram.negative.is_empty() {
        put(count, None, histogram.count);
        put(sum, None, histogram.sum);
    }
}
