//! Taking in history: samples of any age, straight into files.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::flush::{add_own_times, io};
use super::maintain::bucket_of;
use super::{Db, Error};
use crate::block::BlockWriter;
use crate::codec::Encoder;
use crate::head::Sample;
use crate::index::{OwnerRef, SeriesId};

/// Samples that are gathered before files are written.
const SAMPLES_MAX: usize = 8 << 20;

/// An import under way.
pub struct Bulk<'a> {
    db: &'a Db,
    buckets: BTreeMap<i64, BTreeMap<SeriesId, Vec<(i64, Sample)>>>,
    gathered: usize,
    created: Vec<SeriesId>,
    /// Samples written.
    pub samples: u64,
    /// Samples that another of the same series and time kept out.
    pub duplicates: u64,
    /// Series beyond a limit; their samples are not taken.
    pub refused_series: u64,
}

// === impl Db ===

impl Db {
    /// Begins an import. The samples can be read once [`Bulk::finish`] has returned.
    #[must_use]
    pub fn bulk(&self) -> Bulk<'_> {
        Bulk {
            db: self,
            buckets: BTreeMap::new(),
            gathered: 0,
            created: Vec::new(),
            samples: 0,
            duplicates: 0,
            refused_series: 0,
        }
    }
}

// === impl Bulk ===

impl Bulk<'_> {
    /// Takes samples of one series in, in any order.
    ///
    /// # Errors
    /// If files have to be written and the disk refuses.
    pub fn add(
        &mut self,
        labels: &[(&str, &str)],
        samples: impl IntoIterator<Item = (i64, Sample)>,
    ) -> Result<(), Error> {
        let Ok((id, is_new)) = self.db.index.get_or_create(labels, OwnerRef(0)) else {
            self.refused_series += 1;
            return Ok(());
        };
        if is_new {
            self.created.push(id);
        }
        for (t, sample) in samples {
            self.buckets.entry(bucket_of(t)).or_default().entry(id).or_default().push((t, sample));
            self.gathered += 1;
        }
        if self.gathered >= SAMPLES_MAX { self.write() } else { Ok(()) }
    }

    /// Writes what is left. Series that are only in files leave memory.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn finish(mut self) -> Result<(u64, u64, u64), Error> {
        self.write()?;
        self.created.retain(|id| self.db.places.get(*id).is_none());
        self.db.index.remove(&self.created);
        Ok((self.samples, self.duplicates, self.refused_series))
    }

    fn write(&mut self) -> Result<(), Error> {
        self.gathered = 0;
        for (_, mut series) in std::mem::take(&mut self.buckets) {
            let (mut from, mut to) = (i64::MAX, i64::MIN);
            for list in series.values_mut() {
                list.sort_by_key(|(t, _)| *t);
                let before = list.len();
                list.dedup_by_key(|(t, _)| *t);
                self.duplicates += (before - list.len()) as u64;
                self.samples += list.len() as u64;
                from = from.min(list.first().map_or(i64::MAX, |(t, _)| *t));
                to = to.max(list.last().map_or(i64::MIN, |(t, _)| *t));
            }
            let meta = self.db.new_meta(from, to, true);
            let mut file = BlockWriter::new(self.db.storage()?, meta).map_err(io("write an import"))?;
            let (mut encoder, mut bytes) = (Encoder::default(), Vec::new());
            for (id, list) in &series {
                add_own_times(&mut file, &mut encoder, &mut bytes, *id, list).map_err(io("write a chunk"))?;
            }
            let block = self.db.finish(file, series.keys().copied())?;
            self.db.add_blocks(vec![Arc::clone(&block)]);
        }
        Ok(())
    }
}
