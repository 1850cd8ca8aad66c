//! What a file is.

use std::path::{Path, PathBuf};

use super::DIR;
use crate::wire::{Malformed, Reader, put_count, put_i64, put_u64};

/// What a file is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockMeta {
    /// Its number; a later file has a higher one.
    pub id: u64,
    /// 0 as the head wrote it, 1 joined to two hours, 2 to a day.
    pub level: u8,
    /// Distance of its samples if it is downsampled; 0 = as they came.
    pub tier_ms: i64,
    /// The range it stands for: first time.
    pub min_t: i64,
    /// Last time.
    pub max_t: i64,
    /// Cells that are there.
    pub samples: u64,
    /// Series.
    pub series: u64,
    /// Numbers of the files it was made of and replaces.
    pub sources: Vec<u64>,
    /// Late samples: beside what other files of the range have.
    pub out_of_order: bool,
}

// === impl BlockMeta ===

impl BlockMeta {
    /// Its file.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        Path::new(DIR).join(format!("{:012}.blk", self.id))
    }

    /// Its file while it is written.
    #[must_use]
    pub fn temporary_path(&self) -> PathBuf {
        Path::new(DIR).join(format!("{:012}.tmp", self.id))
    }

    /// Whether it has anything of a range.
    #[must_use]
    pub fn overlaps(&self, from: i64, to: i64) -> bool {
        self.min_t <= to && from <= self.max_t
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        put_u64(out, self.id);
        out.push(self.level);
        put_i64(out, self.tier_ms);
        put_i64(out, self.min_t);
        put_i64(out, self.max_t);
        put_u64(out, self.samples);
        put_u64(out, self.series);
        put_count(out, self.sources.len());
        self.sources.iter().for_each(|source| put_u64(out, *source));
        out.push(u8::from(self.out_of_order));
    }

    pub(super) fn get(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let (id, level) = (r.u64()?, r.u8()?);
        let (tier_ms, min_t, max_t) = (r.i64()?, r.i64()?, r.i64()?);
        let (samples, series) = (r.u64()?, r.u64()?);
        let n = r.count(1)?;
        let sources = (0..n).map(|_| r.u64()).collect::<Result<_, _>>()?;
        let out_of_order = r.u8()? != 0;
        Ok(Self { id, level, tier_ms, min_t, max_t, samples, series, sources, out_of_order })
    }
}
