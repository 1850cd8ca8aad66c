//! Several files become one: short columns become long ones, late samples find their place, deleted ones go.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;

use telemetry_model::NativeHistogram;

use super::reader::{Block, BlockReader, Damage};
use super::writer::BlockWriter;
use super::{BlockMeta, GroupRef};
use crate::codec::{Bits, Cells, Decoded, Effort, Encoder};
use crate::fs::Storage;
use crate::index::{FileIndex, LabelPairs, OwnerRef, SeriesId};

/// Ranges of a series that are deleted.
pub type Deleted<'a> = &'a dyn Fn(SeriesId) -> Vec<(i64, i64)>;

/// What is known of an owner: whether it is bound, and its labels.
pub type OwnerOf<'a> = &'a dyn Fn(OwnerRef) -> Option<(bool, LabelPairs)>;

/// An encoder and where its bytes go.
pub struct Coder {
    encoder: Encoder,
    effort: Effort,
    bytes: Vec<u8>,
}

/// Timestamp columns that the file has already.
#[derive(Default)]
pub struct Groups {
    known: HashMap<u64, Vec<Known>>,
    hasher: ahash::RandomState,
}

/// A column and its times.
type Known = (GroupRef, Arc<[i64]>);

/// Series of several files, each with its labels and owner.
pub type SeriesSet = BTreeMap<SeriesId, (OwnerRef, LabelPairs)>;

/// What files know of owners.
pub type OwnerSet = BTreeMap<OwnerRef, (bool, LabelPairs)>;

/// A series with a cell in fewer than one of so many rows gets times of its own: a bit for each row it is not in would
/// cost more than its times, which other series mostly share.
const ROWS_PER_CELL_MAX: usize = 8;

// === impl Groups ===

impl Groups {
    /// Adds the cells of a series: in the rows they came in, or, if it misses most of them, with times of its own.
    pub fn add_series(
        &mut self,
        file: &mut BlockWriter,
        coder: &mut Coder,
        id: SeriesId,
        (times, cells): (&[i64], &mut Decoded),
    ) -> io::Result<()> {
        let samples = cells.present.as_ref().map_or(times.len(), Bits::count);
        let is_sparse = samples * ROWS_PER_CELL_MAX < times.len();
        let own: Option<Vec<i64>> = cells.present.as_ref().filter(|_| is_sparse).map(|present| {
            times.iter().enumerate().filter(|(at, _)| present.get(*at)).map(|(_, t)| *t).collect()
        });
        if own.is_some() {
            cells.drop_absent();
        }
        let group = self.get(file, own.as_deref().unwrap_or(times))?;
        coder.bytes.clear();
        encode(&mut coder.encoder, cells, &mut coder.bytes, coder.effort);
        file.count_samples(samples);
        file.add_chunk(id, group, 0, &coder.bytes)
    }

    /// The column with these times, added to the file if it is new.
    pub fn get(&mut self, file: &mut BlockWriter, times: &[i64]) -> io::Result<GroupRef> {
        let same = self.known.entry(self.hasher.hash_one(times)).or_default();
        if let Some((group, _)) = same.iter().find(|(_, known)| known.as_ref() == times) {
            return Ok(*group);
        }
        let group = file.add_group(times)?;
        same.push((group, times.into()));
        Ok(group)
    }
}

// === impl Coder ===

impl Coder {
    /// One that tries so hard.
    pub fn new(effort: Effort) -> Self {
        Self { encoder: Encoder::default(), effort, bytes: Vec::new() }
    }
}

/// The series of all inputs.
///
/// # Errors
/// If an index is damaged.
pub fn series_of(inputs: &[Arc<Block>]) -> Result<(SeriesSet, OwnerSet), Damage> {
    let (mut series, mut owners) = (SeriesSet::new(), BTreeMap::new());
    for input in inputs {
        let index = input.index()?;
        for (id, owner, labels) in index.series() {
            series.entry(id).or_insert((owner, labels));
        }
        for (owner, is_bound, labels) in index.owners() {
            let known = owners.entry(owner).or_insert_with(|| (is_bound, labels.clone()));
            if is_bound && !known.0 {
                *known = (true, labels.clone());
            }
        }
    }
    Ok((series, owners))
}

/// The index of a file with these series.
pub fn index_of(series: &SeriesSet, kept: &[SeriesId], owners: &OwnerSet, now: OwnerOf<'_>) -> Vec<u8> {
    let entries = kept.iter().filter_map(|id| {
        let (owner, labels) = series.get(id)?;
        Some((*id, *owner, labels.clone()))
    });
    // What is bound now is what it was or more.
    FileIndex::encode(entries, |owner| now(owner).or_else(|| owners.get(&owner).cloned()))
}

/// Joins fresh files and late samples of one range into long columns.
///
/// # Errors
/// If an input is damaged or the disk refuses; there is no output then.
pub fn compact(
    storage: &Arc<dyn Storage>,
    meta: BlockMeta,
    inputs: &[Arc<Block>],
    deleted: Deleted<'_>,
    owner: OwnerOf<'_>,
) -> Result<BlockMeta, Damage> {
    let (series, owners) = series_of(inputs)?;
    let path = meta.temporary_path();
    let io = |source| Damage::Io { file: path.clone(), source };
    let mut file = BlockWriter::new(Arc::clone(storage), meta).map_err(io)?;
    let mut readers = sorted_readers(inputs);
    let (mut groups, mut merged) = (Groups::default(), Merged::default());
    let (mut coder, mut kept) = (Coder::new(Effort::Long), Vec::new());
    for id in series.keys() {
        merged.clear();
        for reader in &mut readers {
            let is_late = reader.block().meta().out_of_order;
            reader.chunks(*id, (i64::MIN, i64::MAX), |reader, chunk| {
                merged.add(&reader.times(&chunk)?, is_late, |out| reader.read(&chunk, out))
            })?;
        }
        merged.finish(&deleted(*id));
        let samples = merged.cells.present.as_ref().map_or(merged.times.len(), Bits::count);
        if samples == 0 {
            continue;
        }
        let cells = (merged.times.as_slice(), &mut merged.cells);
        groups.add_series(&mut file, &mut coder, *id, cells).map_err(io)?;
        kept.push(*id);
    }
    let metadata = inputs.last().map_or(Ok(Vec::new()), |input| input.metadata())?;
    file.finish(&index_of(&series, &kept, &owners, owner), &metadata).map_err(io)
}

/// Joins files of long columns: chunks and timestamps are taken over as they are.
///
/// # Errors
/// If an input is damaged or the disk refuses; there is no output then.
pub fn join(
    storage: &Arc<dyn Storage>,
    meta: BlockMeta,
    inputs: &[Arc<Block>],
    owner: OwnerOf<'_>,
) -> Result<BlockMeta, Damage> {
    let (series, owners) = series_of(inputs)?;
    let path = meta.temporary_path();
    let io = |source| Damage::Io { file: path.clone(), source };
    let mut file = BlockWriter::new(Arc::clone(storage), meta).map_err(io)?;
    let mut readers = sorted_readers(inputs);
    let mut groups = Groups::default();
    let mut bytes = Vec::new();
    for id in series.keys() {
        for reader in &mut readers {
            reader.chunks(*id, (i64::MIN, i64::MAX), |reader, chunk| -> Result<(), Damage> {
                let group = groups.get(&mut file, &reader.times(&chunk)?).map_err(io)?;
                bytes.clear();
                bytes.extend_from_slice(reader.packed(&chunk).unwrap_or(&[]));
                file.add_chunk(*id, group, chunk.column, &bytes).map_err(io)
            })?;
        }
    }
    let samples: u64 = inputs.iter().map(|input| input.meta().samples).sum();
    file.count_samples(usize::try_from(samples).unwrap_or(usize::MAX));
    let metadata = inputs.last().map_or(Ok(Vec::new()), |input| input.metadata())?;
    let kept: Vec<_> = series.keys().copied().collect();
    file.finish(&index_of(&series, &kept, &owners, owner), &metadata).map_err(io)
}

/// In order first, then late ones; each in the order of time.
pub(super) fn sorted_readers(inputs: &[Arc<Block>]) -> Vec<BlockReader> {
    let mut sorted: Vec<_> = inputs.iter().collect();
    sorted.sort_by_key(|input| (input.meta().out_of_order, input.meta().min_t, input.meta().id));
    sorted.into_iter().map(|input| BlockReader::new(Arc::clone(input))).collect()
}

/// Encodes decoded cells.
pub fn encode(encoder: &mut Encoder, cells: &Decoded, out: &mut Vec<u8>, effort: Effort) {
    let histograms: Vec<_> = cells.histograms.iter().map(|(row, h)| (*row, h.as_ref())).collect();
    let cells = Cells { values: &cells.values, present: cells.present.as_ref(), histograms: &histograms };
    encoder.encode_cells(&cells, out, effort);
}

/// The cells of one series from all files.
#[derive(Default)]
pub(super) struct Merged {
    pub times: Vec<i64>,
    pub cells: Decoded,
    /// Cells do not simply follow each other.
    is_mixed: bool,
}

// === impl Merged ===

impl Merged {
    pub fn clear(&mut self) {
        self.times.clear();
        self.cells.clear();
        self.is_mixed = false;
    }

    pub fn add(
        &mut self,
        times: &[i64],
        is_late: bool,
        read: impl FnOnce(&mut Decoded) -> Result<(), Damage>,
    ) -> Result<(), Damage> {
        self.is_mixed |= is_late || self.times.last().zip(times.first()).is_some_and(|(a, b)| a >= b);
        self.times.extend_from_slice(times);
        read(&mut self.cells)
    }

    /// Puts cells in order; of two at one time the first added stays, and deleted ones go.
    pub fn finish(&mut self, deleted: &[(i64, i64)]) {
        if !self.is_mixed && deleted.is_empty() {
            return;
        }
        let wanted = |t: i64| !deleted.iter().any(|(from, to)| (*from..=*to).contains(&t));
        let mut order: Vec<(i64, usize)> = self.times.iter().copied().zip(0..).collect();
        order.retain(|(t, at)| self.cells.has(*at) && wanted(*t));
        order.sort_by_key(|(t, _)| *t);
        order.dedup_by_key(|(t, _)| *t);
        let histograms: HashMap<u32, Arc<NativeHistogram>> = self.cells.histograms.drain(..).collect();
        let mut cells = Decoded::default();
        for (to, (_, at)) in (0u32..).zip(&order) {
            cells.values.push(self.cells.values.get(*at).copied().unwrap_or(0.0));
            let from = u32::try_from(*at).unwrap_or(u32::MAX);
            if let Some(histogram) = histograms.get(&from) {
                cells.histograms.push((to, Arc::clone(histogram)));
            }
        }
        self.times = order.into_iter().map(|(t, _)| t).collect();
        self.cells = cells;
    }
}
