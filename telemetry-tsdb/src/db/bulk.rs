//! Taking in history: samples of any age, straight into files.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use telemetry_model::{MatchOp, Matcher, is_stale};

use super::flush::{add_own_times, io};
use super::maintain::bucket_of;
use super::query::{Column, Reader, Selection};
use super::{Db, Error};
use crate::block::BlockWriter;
use crate::codec::Encoder;
use crate::head::Sample;
use crate::index::{LabelPairs, LimitExceeded, NAME, OwnerRef, SeriesId};

/// Floats that are gathered before files are written; a histogram counts as its buckets. About 200 MiB at most.
const GATHERED_MAX: usize = 4 << 20;

/// An import under way.
pub struct Bulk<'a> {
    db: &'a Db,
    buckets: BTreeMap<i64, BTreeMap<SeriesId, Vec<(i64, Sample)>>>,
    gathered: usize,
    gathered_max: usize,
    created: Vec<SeriesId>,
    older_than: i64,
    counts: Imported,
}

/// What became of the samples of an import.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Samples written.
    pub samples: u64,
    /// Samples that were there already, with the same value.
    pub duplicates: u64,
    /// Samples that another value of the same series and time kept out.
    pub conflicts: u64,
    /// Samples of series beyond a limit.
    pub refused: u64,
    /// Of those written, how many are older than [`Bulk::count_older_than`] says.
    pub older: u64,
    /// Files written.
    pub files: u64,
}

// === impl Db ===

impl Db {
    /// Begins an import. The samples can be read once [`Bulk::finish`] has returned. What is in the store stays: a
    /// sample of a series and time that is there already is not taken, so that the same import twice changes nothing.
    #[must_use]
    pub fn bulk(&self) -> Bulk<'_> {
        Bulk {
            db: self,
            buckets: BTreeMap::new(),
            gathered: 0,
            gathered_max: GATHERED_MAX,
            created: Vec::new(),
            older_than: i64::MIN,
            counts: Imported::default(),
        }
    }
}

// === impl Bulk ===

impl Bulk<'_> {
    /// Counts samples before this time: those that retention will take.
    pub fn count_older_than(&mut self, t: i64) {
        self.older_than = t;
    }

    /// What became of the samples so far; those that are gathered are not among them yet.
    #[must_use]
    pub fn counts(&self) -> Imported {
        self.counts
    }

    /// Takes samples of one series in, in any order. Labels are in the order of their names.
    ///
    /// # Errors
    /// If files have to be written and the disk refuses.
    pub fn add(
        &mut self,
        labels: &[(&str, &str)],
        samples: impl IntoIterator<Item = (i64, Sample)>,
    ) -> Result<(), Error> {
        let mut found = self.db.index.get_or_create(labels, OwnerRef(0));
        if let Err(LimitExceeded::Series(_) | LimitExceeded::Family(_)) = found {
            // Those of this import leave memory once their samples are in files; until then they keep their numbers.
            self.write()?;
            self.forget();
            found = self.db.index.get_or_create(labels, OwnerRef(0));
        }
        let Ok((id, is_new)) = found else {
            self.counts.refused += samples.into_iter().count() as u64;
            return Ok(());
        };
        if is_new {
            self.created.push(id);
        }
        for (t, sample) in samples {
            self.gathered += match &sample {
                Sample::Float(_) => 1,
                Sample::Histogram(histogram) => 8 + histogram.positive.len() + histogram.negative.len(),
            };
            self.buckets.entry(bucket_of(t)).or_default().entry(id).or_default().push((t, sample));
        }
        if self.gathered >= self.gathered_max { self.write() } else { Ok(()) }
    }

    /// Writes what is gathered, so that a later part of the same files' time begins files of its own.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn flush(&mut self) -> Result<(), Error> {
        self.write()
    }

    /// Writes what is left.
    ///
    /// # Errors
    /// If the disk refuses; what was written before is whole.
    pub fn finish(mut self) -> Result<Imported, Error> {
        self.write()?;
        self.forget();
        Ok(self.counts)
    }

    /// One file a bucket.
    fn write(&mut self) -> Result<(), Error> {
        self.gathered = 0;
        for (_, series) in std::mem::take(&mut self.buckets) {
            self.write_bucket(series)?;
        }
        Ok(())
    }

    /// Series that are only in files leave memory.
    fn forget(&mut self) {
        let mut created = std::mem::take(&mut self.created);
        created.retain(|id| self.db.places.get(*id).is_none());
        self.db.index.remove(&created);
    }

    fn write_bucket(&mut self, mut series: BTreeMap<SeriesId, Vec<(i64, Sample)>>) -> Result<(), Error> {
        for list in series.values_mut() {
            list.sort_by_key(|(t, _)| *t);
            list.dedup_by(|later, first| later.0 == first.0 && self.counts.note(&first.1, &later.1));
        }
        self.leave_out_known(&mut series)?;
        series.retain(|_, list| !list.is_empty());
        let (mut from, mut to) = (i64::MAX, i64::MIN);
        for list in series.values() {
            self.counts.samples += list.len() as u64;
            self.counts.older += list.partition_point(|(t, _)| *t < self.older_than) as u64;
            from = from.min(list.first().map_or(i64::MAX, |(t, _)| *t));
            to = to.max(list.last().map_or(i64::MIN, |(t, _)| *t));
        }
        if series.is_empty() {
            return Ok(());
        }
        let meta = self.db.new_meta(from, to, true);
        let mut file = BlockWriter::new(self.db.storage()?, meta).map_err(io("write an import"))?;
        let (mut encoder, mut bytes) = (Encoder::default(), Vec::new());
        for (id, list) in &series {
            add_own_times(&mut file, &mut encoder, &mut bytes, *id, list).map_err(io("write a chunk"))?;
        }
        let block = self.db.finish(file, series.keys().copied())?;
        self.db.add_blocks(vec![block]);
        self.counts.files += 1;
        Ok(())
    }

    /// Samples that the store has already are not taken again.
    fn leave_out_known(&mut self, series: &mut BTreeMap<SeriesId, Vec<(i64, Sample)>>) -> Result<(), Error> {
        let times = || series.values().flatten().map(|(t, _)| *t);
        let (from, to) = (times().min().unwrap_or(i64::MAX), times().max().unwrap_or(i64::MIN));
        let known = Known::new(self.db, from, to)?;
        let Some(mut known) = known else { return Ok(()) };
        for (id, list) in series {
            let (Some(first), Some(last)) = (list.first(), list.last()) else { continue };
            let Some(column) = known.column(self.db, *id, first.0, last.0)? else { continue };
            list.retain(|(t, sample)| match column.times.binary_search(t) {
                Ok(at) => !self.counts.note(&sample_of(&column, at), sample),
                Err(_) => true,
            });
        }
        Ok(())
    }
}

/// What the store has of a range, by labels.
struct Known {
    by_labels: HashMap<LabelPairs, usize>,
    selection: Selection,
    reader: Reader,
}

// === impl Known ===

impl Known {
    /// `None`: nothing.
    fn new(db: &Db, from: i64, to: i64) -> Result<Option<Self>, Error> {
        let all = Matcher::new(NAME, MatchOp::Regex, ".*");
        let selection = db.select(&[all], from, to)?;
        if selection.is_without_samples() {
            return Ok(None);
        }
        let by_labels = selection.series().iter().enumerate();
        let by_labels = by_labels.map(|(at, found)| (found.labels().to_vec(), at)).collect();
        let reader = selection.reader();
        Ok(Some(Self { by_labels, selection, reader }))
    }

    fn column(&mut self, db: &Db, id: SeriesId, from: i64, to: i64) -> Result<Option<Column>, Error> {
        let labels = db.index.own_labels(id).map(|(labels, _)| labels).unwrap_or_default();
        let found = self.by_labels.get(&labels).and_then(|at| self.selection.series().get(*at));
        found.map(|found| self.reader.read(found, from, to)).transpose()
    }
}

fn sample_of(column: &Column, at: usize) -> Sample {
    let position = u32::try_from(at).unwrap_or(u32::MAX);
    match column.histograms.binary_search_by_key(&position, |(of, _)| *of) {
        Ok(found) => match column.histograms.get(found) {
            Some((_, histogram)) => Sample::Histogram(Arc::clone(histogram)),
            None => Sample::Float(f64::NAN),
        },
        Err(_) => Sample::Float(column.values.get(at).copied().unwrap_or(f64::NAN)),
    }
}

// === impl Imported ===

impl Imported {
    /// Counts a sample that is not taken, beside the one that stays. Always true.
    fn note(&mut self, stays: &Sample, other: &Sample) -> bool {
        if is_same(stays, other) {
            self.duplicates += 1;
        } else {
            self.conflicts += 1;
        }
        true
    }
}

/// Bit for bit, but for the payload of a NaN that is no stale marker: texts have no place for it.
fn is_same(a: &Sample, b: &Sample) -> bool {
    let is_plain_nan = |x: f64| x.is_nan() && !is_stale(x);
    let same = |a: f64, b: f64| a.to_bits() == b.to_bits() || (is_plain_nan(a) && is_plain_nan(b));
    match (a, b) {
        (Sample::Float(a), Sample::Float(b)) => same(*a, *b),
        (Sample::Histogram(a), Sample::Histogram(b)) => {
            a.schema == b.schema
                && same(a.sum, b.sum)
                && same(a.count, b.count)
                && same(a.zero_count, b.zero_count)
                && same(a.zero_threshold, b.zero_threshold)
                && a.positive == b.positive
                && a.negative == b.negative
                && a.custom_bounds == b.custom_bounds
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::Config;
    use crate::fs::{RealStorage, SystemClock};

    fn open(dir: &std::path::Path) -> Db {
        let mut config = Config::default();
        config.limits.series_per_family = 3;
        let storage = Arc::new(RealStorage::open(dir).unwrap());
        Db::open(config, storage, Arc::new(SystemClock::default())).unwrap().0
    }

    fn import(db: &Db, max: usize) -> Imported {
        let mut bulk = db.bulk();
        bulk.gathered_max = max;
        bulk.count_older_than(1_000_000);
        for n in 0..10i32 {
            let label = n.to_string();
            let samples = (0..20i32)
                .map(|k| (i64::from(k) * 100_000, Sample::Float(f64::from(n * k))))
                .chain([(0, Sample::Float(-1.0)), (100_000, Sample::Float(f64::from(n)))]);
            bulk.add(&[(NAME, "a"), ("n", &label)], samples).unwrap();
        }
        bulk.finish().unwrap()
    }

    #[test]
    fn the_same_import_twice_changes_nothing_and_limits_hold_for_memory_alone() {
        let dir = tempfile::tempdir().unwrap();
        for max in [7, usize::MAX] {
            let dir = dir.path().join(max.to_string());
            let first = {
                let db = open(&dir);
                let first = import(&db, max);
                let again = import(&db, max);
                assert_eq!((again.samples, again.files, again.older), (0, 0, 0), "all was there");
                assert_eq!(again.duplicates + again.conflicts, 220);
                first
            };
            let counts = (first.samples, first.duplicates, first.conflicts, first.refused, first.older);
            assert_eq!(counts, (200, 10, 10, 0, 100), "{max}");
            let db = open(&dir);
            assert_eq!(import(&db, max).samples, 0, "nor after a start");
            let all = [Matcher::new(NAME, MatchOp::Equal, "a")];
            let selection = db.select(&all, i64::MIN, i64::MAX).unwrap();
            let mut reader = selection.reader();
            assert_eq!(selection.series().len(), 10);
            for found in selection.series() {
                let n: f64 = found.get("n").unwrap().parse().unwrap();
                let column = reader.read(found, i64::MIN, i64::MAX).unwrap();
                let expected: Vec<f64> = (0..20).map(|k| f64::from(k) * n).collect();
                assert_eq!(column.values, expected);
            }
        }
    }
}
