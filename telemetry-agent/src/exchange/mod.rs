//! Samples as files: OpenMetrics and Prometheus text in and out, blocks of Prometheus in, Parquet out. Knows the
//! store's series and no metric of ours; called by the command line.

pub mod export;
pub mod import;
pub mod openmetrics;
pub mod parquet;
pub mod prometheus;

#[cfg(test)]
mod tests;

use std::io;

use telemetry_model::Matcher;
use telemetry_tsdb::db::{Db, Error, Reader, Selected};

/// Why a transfer ended.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The store.
    #[error("{0}")]
    Store(#[from] Error),
    /// The file that is read.
    #[error("{0}")]
    Read(io::Error),
    /// The file that is written.
    #[error("{0}")]
    Write(#[from] io::Error),
    /// A line of a text.
    #[error("line {line}: {reason}")]
    Line {
        /// Its number, from 1.
        line: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// A block of Prometheus.
    #[error("{0}")]
    Block(#[from] prometheus::BlockError),
    /// The Parquet file.
    #[error("{0}")]
    Parquet(#[from] ::parquet::errors::ParquetError),
}

/// What was given out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exported {
    /// Series.
    pub series: u64,
    /// Samples.
    pub samples: u64,
    /// Samples that the format has no place for.
    pub skipped: u64,
}

/// Time is read in parts of so much, so that memory does not grow with history.
const SLICE_MS: i64 = 24 * 60 * 60 * 1000;
/// Days of one file that become parts; files of the store hold a day at most.
const DAYS_MAX: usize = 64;

/// Which samples are given out.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Of series that all of these want.
    pub matchers: Vec<Matcher>,
    /// First time.
    pub from: i64,
    /// Last time.
    pub to: i64,
}

// === impl Wanted ===

impl Wanted {
    /// The range in parts, in order: borders of the days that files have something of.
    fn slices(&self, db: &Db) -> Vec<(i64, i64)> {
        let mut borders = std::collections::BTreeSet::new();
        for block in db.blocks().iter() {
            let meta = block.meta();
            let days = meta.min_t.div_euclid(SLICE_MS)..=meta.max_t.div_euclid(SLICE_MS).saturating_add(1);
            borders.extend(days.take(DAYS_MAX).map(|day| day.saturating_mul(SLICE_MS)));
        }
        let mut slices = Vec::new();
        let mut low = self.from;
        for border in borders {
            if border > low && border <= self.to {
                slices.push((low, border - 1));
                low = border;
            }
        }
        slices.push((low, self.to));
        slices
    }
}

/// A sample of one series, in the words of the store.
fn read(
    reader: &mut Reader,
    series: &Selected,
    slice: (i64, i64),
) -> Result<telemetry_tsdb::db::Column, Error> {
    reader.read(series, slice.0, slice.1)
}
