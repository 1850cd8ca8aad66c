//! Tiers: one row an interval instead of one a sample.
//!
//! An interval that ends at E has the samples of (E - tier, E], and its row stands at E. So the rows in a window
//! (t - range, t] whose ends are whole intervals have just the samples of that window. What a row keeps is
//! [`TierColumn`]; how counters are kept exact, [`interval`] says.

mod interval;
mod native;
mod read;

#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;

use super::compact::{Merged, index_of, series_of, sorted_readers};
use super::reader::{Block, BlockReader, Damage};
use super::writer::BlockWriter;
use super::{BlockMeta, Deleted, OwnerOf, encode};
use crate::codec::{CELLS_MAX, Effort, Encoder};
use crate::fs::Storage;
use crate::index::NAME;

use interval::{Columns, Interval, Sample};

pub use native::{is_reset, minus, plus};
pub use read::{TierCells, TierReader};

/// How far before the first interval a counter's last sample may lie for its growth to be counted from there.
const LOOKBACK_MS: i64 = 60 * 60 * 1000;

/// What a family's floats are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// They only grow, but for resets.
    Counter,
    /// They go up and down.
    Gauge,
    /// Nobody said: kept as both.
    Unknown,
}

/// What a row of a tier keeps. The numbers are those of the file format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TierColumn {
    /// The last sample, a stale marker if that was it.
    Last = 0,
    /// By how much a counter grew since the last sample before the interval, resets made good.
    Increase = 1,
    /// The least value.
    Min = 2,
    /// The greatest value.
    Max = 3,
    /// The sum of all values.
    Sum = 4,
    /// How many samples there were, stale markers left out.
    Count = 5,
}

/// What to make.
#[derive(Clone, Debug)]
pub struct Downsampled {
    /// Number, level and sources of the new file; its range and tier are those below.
    pub meta: BlockMeta,
    /// Length of an interval.
    pub tier_ms: i64,
    /// End of the interval before the first; a multiple of the length.
    pub from: i64,
    /// End of the last; another.
    pub to: i64,
}

// === impl Downsampled ===

impl Downsampled {
    /// The ends of all intervals.
    fn grid(&self) -> Result<Vec<i64>, Damage> {
        let is_whole = self.tier_ms > 0 && self.from % self.tier_ms == 0 && self.to % self.tier_ms == 0;
        let rows = self.to.checked_sub(self.from).filter(|_| is_whole).map_or(0, |len| len / self.tier_ms);
        let rows = usize::try_from(rows).unwrap_or(0);
        if rows == 0 || rows > CELLS_MAX {
            let source =
                io::Error::new(io::ErrorKind::InvalidInput, "the range is no number of whole intervals");
            return Err(Damage::Io { file: self.meta.path(), source });
        }
        let ends =
            std::iter::successors(self.from.checked_add(self.tier_ms), |t| t.checked_add(self.tier_ms));
        Ok(ends.take(rows).collect())
    }

    /// The row of a time in the range.
    fn row(&self, t: i64) -> usize {
        usize::try_from((t - self.from - 1).div_euclid(self.tier_ms)).unwrap_or(0)
    }
}

/// Makes a file of a tier from raw files. `inputs` are all that have samples of (from, to], the sample at `to` among
/// them, which is the first of the next window; and those of the hour before, so that counters go on.
///
/// # Errors
/// If an input is damaged, the disk refuses, or the range is no number of whole intervals; there is no output then.
pub fn downsample(
    storage: &Arc<dyn Storage>,
    wanted: &Downsampled,
    inputs: &[Arc<Block>],
    kind: &dyn Fn(&str) -> Kind,
    deleted: Deleted<'_>,
    owner: OwnerOf<'_>,
) -> Result<BlockMeta, Damage> {
    let grid = wanted.grid()?;
    let (series, owners) = series_of(inputs)?;
    let meta = BlockMeta {
        tier_ms: wanted.tier_ms,
        min_t: wanted.from.saturating_add(1),
        max_t: wanted.to,
        ..wanted.meta.clone()
    };
    let path = meta.temporary_path();
    let io = |source| Damage::Io { file: path.clone(), source };
    let mut file = BlockWriter::new(Arc::clone(storage), meta).map_err(io)?;
    let group = file.add_group(&grid).map_err(io)?;
    let mut readers = sorted_readers(inputs);
    let (mut merged, mut columns) = (Merged::default(), Columns::new(grid.len()));
    let (mut encoder, mut bytes, mut kept) = (Encoder::default(), Vec::new(), Vec::new());
    for (id, (_, labels)) in &series {
        let range = (wanted.from.saturating_sub(LOOKBACK_MS), wanted.to);
        merged.clear();
        for reader in &mut readers {
            let is_late = reader.block().meta().out_of_order;
            reader.chunks(*id, range, |reader: &mut BlockReader, chunk| {
                merged.add(&reader.times(&chunk)?, is_late, |out| reader.read(&chunk, out))
            })?;
        }
        merged.finish(&deleted(*id));
        let name = labels.iter().find(|(name, _)| &**name == NAME).map_or("", |(_, value)| value);
        columns.clear();
        fold(&merged, wanted, kind(name), &mut columns);
        for (column, cells, count) in columns.iter() {
            bytes.clear();
            encode(&mut encoder, cells, &mut bytes, Effort::Long);
            file.add_chunk(*id, group, column, &bytes).map_err(io)?;
            file.count_samples(count);
            if kept.last() != Some(id) {
                kept.push(*id);
            }
        }
    }
    let metadata = inputs.last().map_or(Ok(Vec::new()), |input| input.metadata())?;
    file.finish(&index_of(&series, &kept, &owners, owner), &metadata).map_err(io)
}

/// Brings the samples of one series into its columns.
fn fold(merged: &Merged, wanted: &Downsampled, kind: Kind, columns: &mut Columns) {
    let mut interval = Interval::new(kind);
    let mut histograms = merged.cells.histograms.iter().peekable();
    for (at, t) in merged.times.iter().enumerate() {
        let histogram = histograms.next_if(|(cell, _)| *cell as usize == at).map(|(_, histogram)| histogram);
        if !merged.cells.has(at) || *t > wanted.to {
            continue;
        }
        let value = merged.cells.values.get(at).copied().unwrap_or(0.0);
        let sample = histogram.map_or(Sample::Float(value), Sample::Histogram);
        if *t > wanted.from {
            interval.add(wanted.row(*t), sample, columns);
        } else if *t > wanted.from.saturating_sub(LOOKBACK_MS) {
            interval.before(sample);
        }
    }
    interval.close(columns);
}
