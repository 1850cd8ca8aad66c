//! A whole store as OpenMetrics text, and such text into a store.

use std::io::{self, BufRead, Read as _, Write};

use telemetry_model::{Matcher, NativeHistogram, is_stale};
use telemetry_tsdb::db::{Db, Error, Metadata};
use telemetry_tsdb::head::Sample;

use super::openmetrics::{Dialect, LINE_BYTES_MAX, Line, parse_line, put_sample};

/// Text gathered before it is written.
const BUFFER_BYTES: usize = 1 << 20;

/// Why a transfer ended.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The store.
    #[error("{0}")]
    Store(#[from] Error),
    /// The file.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// A line of the text.
    #[error("line {line}: {reason}")]
    Line {
        /// Its number, from 1.
        line: u64,
        /// What is wrong with it.
        reason: String,
    },
}

/// What was taken in or given out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transferred {
    /// Series.
    pub series: u64,
    /// Samples.
    pub samples: u64,
    /// Samples of a series and time that was there already.
    pub duplicates: u64,
    /// Series beyond a limit.
    pub refused_series: u64,
    /// Samples without a time: nobody can say when they were.
    pub untimed: u64,
}

/// Writes every sample of the series that match. Native histograms have no form in OpenMetrics 1.0: they are written
/// as the classic series of their own bounds. Stale markers end a series in the store and are not written.
///
/// # Errors
/// If something is damaged, or nobody reads.
pub fn export(
    db: &Db,
    matchers: &[Matcher],
    (from, to): (i64, i64),
    out: &mut dyn Write,
    mut progress: impl FnMut(u64, u64),
) -> Result<Transferred, TransferError> {
    let selection = db.select(matchers, from, to)?;
    let mut reader = selection.reader();
    let mut done = Transferred::default();
    let mut text = String::new();
    let metadata = db.metadata();
    let mut last_name = String::new();
    let total = u64::try_from(selection.series().len()).unwrap_or(u64::MAX);
    for series in selection.series() {
        let column = reader.read(series, from, to)?;
        if !column.times.is_empty() {
            done.series += 1;
        }
        let name = series.get("__name__").unwrap_or("");
        if name != last_name {
            name.clone_into(&mut last_name);
            if let Some((_, found)) = metadata.iter().find(|(family, _)| &**family == name) {
                put_metadata(&mut text, name, found);
            }
        }
        let labels = || series.labels().iter().map(|(name, value)| (&**name, &**value));
        let mut histograms = column.histograms.iter().peekable();
        for (at, (t, value)) in column.times.iter().zip(&column.values).enumerate() {
            match histograms.next_if(|(of, _)| *of as usize == at) {
                Some((_, histogram)) => put_classic(&mut text, labels(), histogram, *t),
                None if is_stale(*value) => continue,
                None => put_sample(&mut text, labels(), *value, *t),
            }
            done.samples += 1;
        }
        if text.len() > BUFFER_BYTES {
            out.write_all(text.as_bytes())?;
            text.clear();
        }
        progress(done.series, total);
    }
    text.push_str("# EOF\n");
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(done)
}

/// Names of counters end in `_total` in OpenMetrics; their family does not.
fn put_metadata(text: &mut String, name: &str, metadata: &Metadata) {
    let family =
        if &*metadata.kind == "counter" { name.strip_suffix("_total").unwrap_or(name) } else { name };
    let family = if &*metadata.kind == "info" { name.strip_suffix("_info").unwrap_or(name) } else { family };
    let help = metadata.help.replace('\\', "\\\\").replace('\n', "\\n");
    // Writing to a String cannot fail.
    let _ = std::fmt::Write::write_fmt(text, format_args!("# TYPE {family} {}\n", metadata.kind));
    if !metadata.unit.is_empty() && family.ends_with(&*metadata.unit) {
        let _ = std::fmt::Write::write_fmt(text, format_args!("# UNIT {family} {}\n", metadata.unit));
    }
    let _ = std::fmt::Write::write_fmt(text, format_args!("# HELP {family} {help}\n"));
}

/// A native histogram as cumulative buckets, count and sum.
fn put_classic<'a>(
    text: &mut String,
    labels: impl Iterator<Item = (&'a str, &'a str)> + Clone,
    histogram: &NativeHistogram,
    t: i64,
) {
    let name = labels.clone().find(|(name, _)| *name == "__name__").map_or("", |(_, value)| value);
    let mut put = |suffix: &str, le: Option<String>, value: f64| {
        let named = format!("{name}{suffix}");
        let mut all: Vec<(&str, &str)> = labels.clone().filter(|(name, _)| *name != "__name__").collect();
        all.push(("__name__", &named));
        if let Some(le) = &le {
            all.push(("le", le));
        }
        all.sort_unstable();
        put_sample(text, all.iter().copied(), value, t);
    };
    let bound = |index: i32| match &histogram.custom_bounds {
        Some(bounds) => {
            usize::try_from(index).ok().and_then(|at| bounds.get(at)).copied().unwrap_or(f64::INFINITY)
        }
        None => (f64::from(index) / f64::from(i32::from(histogram.schema)).exp2()).exp2(),
    };
    let mut below: f64 = histogram.negative.counts.iter().sum::<f64>() + histogram.zero_count;
    if histogram.custom_bounds.is_none() {
        put("_bucket", Some(histogram.zero_threshold.to_string()), below);
    }
    for (index, count) in histogram.positive.iter() {
        below += count;
        if bound(index).is_finite() {
            put("_bucket", Some(bound(index).to_string()), below);
        }
    }
    put("_bucket", Some("+Inf".into()), histogram.count);
    put("_count", None, histogram.count);
    put("_sum", None, histogram.sum);
}

/// Takes text into the store as history. Each sample must have a time.
///
/// # Errors
/// At the first line that is not of the format, or if the disk refuses; what was read before is in the store.
pub fn import(
    db: &Db,
    text: &mut dyn BufRead,
    dialect: Dialect,
    mut progress: impl FnMut(u64),
) -> Result<Transferred, TransferError> {
    let mut bulk = db.bulk();
    let mut done = Transferred::default();
    let mut families: std::collections::BTreeMap<String, Metadata> = std::collections::BTreeMap::new();
    let (mut line, mut number, mut bytes) = (String::new(), 0, 0);
    let mut ended = false;
    loop {
        line.clear();
        let read = text.take(LINE_BYTES_MAX as u64 + 2).read_line(&mut line)?;
        if read == 0 {
            break;
        }
        (number, bytes) = (number + 1, bytes + read as u64);
        let wrong = |reason: &str| TransferError::Line { line: number, reason: reason.to_owned() };
        if ended {
            return Err(wrong("text after # EOF"));
        }
        let parsed = parse_line(line.trim_end_matches(['\n', '\r']), dialect).map_err(|e| wrong(e.0))?;
        match parsed {
            Line::Sample(sample) => match sample.t {
                None => done.untimed += 1,
                Some(t) => {
                    let labels: Vec<(&str, &str)> = sample.labels.iter().map(|(n, v)| (&**n, &**v)).collect();
                    bulk.add(&labels, [(t, Sample::Float(sample.value))])?;
                }
            },
            Line::Type(family, kind) => families.entry(family.into_owned()).or_default().kind = kind.into(),
            Line::Unit(family, unit) => families.entry(family.into_owned()).or_default().unit = unit.into(),
            Line::Help(family, help) => {
                families.entry(family.into_owned()).or_default().help = help.as_ref().into()
            }
            Line::Eof => ended = true,
            Line::Nothing => {}
        }
        if number % 4096 == 0 {
            progress(bytes);
        }
    }
    (done.samples, done.duplicates, done.refused_series) = bulk.finish()?;
    for (family, metadata) in families {
        let suffix = match &*metadata.kind {
            "counter" if dialect == Dialect::OpenMetrics => "_total",
            "info" if dialect == Dialect::OpenMetrics => "_info",
            _ => "",
        };
        db.set_metadata(&format!("{family}{suffix}"), metadata);
    }
    db.commit()?;
    Ok(done)
}
