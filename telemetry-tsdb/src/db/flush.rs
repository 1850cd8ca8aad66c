//! Complete windows become files; then, and only then, the log lets go of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::append::window_end;
use super::maintain::bucket_of;
use super::record::put_metadata;
use super::{Db, Error, Mode};
use crate::block::{Block, BlockMeta, BlockWriter, Coder, Groups, encode};
use crate::codec::{Decoded, Effort, Encoder};
use crate::head::{LateSeries, Sample, Window};
use crate::index::{FileIndex, SeriesId};
use crate::wire::put_count;

// === impl Db ===

impl Db {
    /// Writes all windows up to `number` that wait in memory.
    ///
    /// # Errors
    /// If the disk refuses; the windows stay in memory and readable.
    pub fn flush(&self, number: i64) -> Result<usize, Error> {
        let (windows, late, cut) = {
            let mut writer = self.writer();
            writer.freeze(number);
            let mut windows: Vec<Arc<Window>> =
                writer.groups.iter().flat_map(|group| group.frozen(number).cloned()).collect();
            windows.sort_by_key(|window| (window.number, window.group));
            if let Some(newest) = windows.last() {
                // A file says that its window is complete, for all groups: a replay passes its rows over.
                writer.groups.iter_mut().for_each(|group| group.close_through(newest.number));
            }
            (windows, self.late.freeze(), writer.cut_before(number))
        };
        if self.storage.is_none() {
            // Memory is all there is: windows stay where they are until retention takes them.
            return Ok(0);
        }
        let mut count = self.flush_late(&late)?;
        // Each window leaves memory as its file is there: when a later one fails, an attempt that follows must not
        // write it again.
        for numbered in windows.chunk_by(|a, b| a.number == b.number) {
            self.add_blocks(vec![self.write_windows(numbered)?]);
            count += 1;
            self.health.counters.windows_written.fetch_add(1, Relaxed);
            self.release(numbered.first().map_or(number, |window| window.number));
        }
        self.release(number);
        if let Some(sequence) = cut
            && let Some(log) = self.writer().log.as_mut()
        {
            log.remove_before(sequence)?;
        }
        Ok(count)
    }

    /// Writes late samples, all of them or none: they leave memory together. Returns how many files they took.
    fn flush_late(&self, late: &BTreeMap<SeriesId, LateSeries>) -> Result<usize, Error> {
        let mut written = Vec::new();
        for part in by_bucket(late) {
            match self.write_late(&part) {
                Ok(block) => written.push(block),
                Err(error) => {
                    self.disown(written.iter().map(|block: &Arc<Block>| block.path().to_owned()));
                    return Err(error);
                }
            }
        }
        let count = written.len();
        self.add_blocks(written);
        self.late.release();
        self.health.counters.windows_written.fetch_add(count as u64, Relaxed);
        Ok(count)
    }

    /// Windows up to `number` leave memory, and with them the series that ended there.
    pub(super) fn release(&self, number: i64) {
        let mut writer = self.writer();
        let mut gone = Vec::new();
        for group in &mut writer.groups {
            let ended = group.release(number, |series| self.late.has_open(series));
            gone.extend(ended.into_iter().map(|ended| ended.series));
        }
        self.places.remove(gone.iter().copied());
        self.index.remove(&gone);
    }

    pub(super) fn new_meta(&self, from: i64, to: i64, is_late: bool) -> BlockMeta {
        let mut writer = self.writer();
        writer.next_block += 1;
        BlockMeta {
            id: writer.next_block,
            min_t: from,
            max_t: to,
            out_of_order: is_late,
            ..BlockMeta::default()
        }
    }

    /// One file of all groups in one window.
    fn write_windows(&self, windows: &[Arc<Window>]) -> Result<Arc<Block>, Error> {
        let number = windows.first().map_or(0, |window| window.number);
        let meta = self.new_meta(window_end(number - 1), window_end(number) - 1, false);
        let mut file = BlockWriter::new(self.storage()?, meta).map_err(io("write a window"))?;
        let (mut places, mut times) = (Vec::new(), Vec::new());
        for (at, window) in windows.iter().enumerate() {
            times.push(window.times());
            let slots = (0u32..).zip(window.series.iter());
            places.extend(slots.filter(|(slot, _)| window.has(*slot)).map(|(slot, id)| (*id, at, slot)));
        }
        places.sort_unstable_by_key(|place| (place.0, place.1));
        let (mut groups, mut coder, mut decoded) =
            (Groups::default(), Coder::new(Effort::Fast), Decoded::default());
        for (id, at, slot) in &places {
            let (Some(window), Some(times)) = (windows.get(*at), times.get(*at)) else { continue };
            decoded.clear();
            if window.read(*slot, &mut decoded).is_err() {
                self.health.counters.read_failures.fetch_add(1, Relaxed);
                continue;
            }
            groups
                .add_series(&mut file, &mut coder, *id, (times, &mut decoded))
                .map_err(io("write a chunk"))?;
        }
        places.dedup_by_key(|place| place.0);
        self.finish(file, places.iter().map(|place| place.0))
    }

    /// One file of late samples, each series with times of its own.
    fn write_late(&self, late: &BTreeMap<SeriesId, LateSeries>) -> Result<Arc<Block>, Error> {
        let times = || late.values().flat_map(|list| list.iter().map(|entry| entry.0));
        let (from, to) = (times().min().unwrap_or(0), times().max().unwrap_or(0));
        let mut file = BlockWriter::new(self.storage()?, self.new_meta(from, to, true))
            .map_err(io("write late samples"))?;
        let (mut encoder, mut bytes) = (Encoder::default(), Vec::new());
        for (id, list) in late {
            add_own_times(&mut file, &mut encoder, &mut bytes, *id, list).map_err(io("write a chunk"))?;
        }
        self.finish(file, late.keys().copied())
    }

    /// Ends a file with the index of its series, and opens it.
    pub(super) fn finish(
        &self,
        file: BlockWriter,
        series: impl Iterator<Item = SeriesId>,
    ) -> Result<Arc<Block>, Error> {
        let (index, path) = (self.file_index(series), file.path());
        let made = file.finish(&index, &self.metadata_body()).map_err(io("finish a file"));
        self.adopt(path, made).map(Arc::new)
    }

    /// The index of a file with these series.
    pub(super) fn file_index(&self, series: impl Iterator<Item = SeriesId>) -> Vec<u8> {
        let owners: std::collections::HashMap<_, _> = self
            .owners
            .all()
            .into_iter()
            .map(|(owner, is_bound, labels)| (owner, (is_bound, labels)))
            .collect();
        let entries = series.filter_map(|id| {
            let (labels, owner) = self.index.own_labels(id)?;
            Some((id, owner, labels))
        });
        FileIndex::encode(entries, |owner| {
            owners.get(&owner).map(|(bound, labels)| (*bound, labels.to_vec()))
        })
    }

    /// What is known of families, as files have it.
    pub(super) fn metadata_body(&self) -> Vec<u8> {
        let all = self.metadata();
        let mut body = Vec::new();
        put_count(&mut body, all.len());
        all.iter().for_each(|(family, metadata)| put_metadata(&mut body, family, metadata));
        body
    }

    pub(super) fn storage(&self) -> Result<Arc<dyn crate::fs::Storage>, Error> {
        self.storage.clone().ok_or(Error::ReadOnly)
    }

    /// Shows readers new files.
    pub(super) fn add_blocks(&self, new: Vec<Arc<Block>>) {
        self.blocks.rcu(|old| {
            let mut all: Vec<_> = old.iter().chain(new.iter()).cloned().collect();
            all.sort_by_key(|block| (block.meta().min_t, block.meta().id));
            all
        });
    }

    /// Whether the disk takes what is written.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.health.mode()
    }
}

/// Adds a series whose times are its own.
pub(super) fn add_own_times(
    file: &mut BlockWriter,
    encoder: &mut Encoder,
    bytes: &mut Vec<u8>,
    id: SeriesId,
    samples: &[(i64, Sample)],
) -> std::io::Result<()> {
    let times: Vec<i64> = samples.iter().map(|entry| entry.0).collect();
    let group = file.add_group(&times)?;
    let mut decoded = Decoded::default();
    for (row, (_, sample)) in (0u32..).zip(samples) {
        match sample {
            Sample::Float(value) => decoded.values.push(*value),
            Sample::Histogram(histogram) => {
                decoded.values.push(0.0);
                decoded.histograms.push((row, Arc::clone(histogram)));
            }
        }
    }
    bytes.clear();
    encode(encoder, &decoded, bytes, Effort::Fast);
    file.count_samples(times.len());
    file.add_chunk(id, group, 0, bytes)
}

/// Late samples by the two hours they lie in: a file never reaches over the border that compaction joins within.
fn by_bucket(late: &BTreeMap<SeriesId, LateSeries>) -> Vec<BTreeMap<SeriesId, LateSeries>> {
    let mut parts: BTreeMap<i64, BTreeMap<SeriesId, LateSeries>> = BTreeMap::new();
    for (id, list) in late {
        for run in list.chunk_by(|a, b| bucket_of(a.0) == bucket_of(b.0)) {
            let bucket = run.first().map_or(0, |(t, _)| bucket_of(*t));
            // Nearly every list is whole, and is not copied.
            let run = if run.len() == list.len() { Arc::clone(list) } else { Arc::new(run.to_vec()) };
            parts.entry(bucket).or_default().insert(*id, run);
        }
    }
    parts.into_values().collect()
}

/// Names what was tried.
pub(super) fn io(operation: &'static str) -> impl Fn(std::io::Error) -> Error {
    move |source| Error::Io { operation: operation.to_owned(), source }
}
