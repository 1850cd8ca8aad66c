//! Blocks of Prometheus' store, read as its public format says: meta.json, index, chunks, tombstones; and chunks, written
//! for whoever reads them over the network.
//!
//! Every checksum is verified, every length is checked before it is used, and memory is bounded: symbols and one
//! series at a time. A damaged chunk costs itself and is named; a damaged index or tombstone file is an error. What
//! is not yet a block (write-ahead log, head chunks) is not read. Knows no store; called by [`super::import`].

pub mod bits;
pub mod block;
pub mod encode;
pub mod floats;
pub mod histograms;
pub mod index;

#[cfg(test)]
mod tests;

use std::path::PathBuf;

use telemetry_tsdb::head::Sample;

use histograms::WithStarts;

pub use block::{Block, Damaged, find};

/// Bytes that are not of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);

/// Why a block cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum BlockError {
    /// The system says so.
    #[error("{}: {source}", file.display())]
    Io {
        /// Which file.
        file: PathBuf,
        /// What it says.
        source: std::io::Error,
    },
    /// A file is not what was written, or never was of the format.
    #[error("{}: {reason}", file.display())]
    Damaged {
        /// Which file.
        file: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// There is nothing to read.
    #[error("{}: neither a block of Prometheus nor a directory of them", .0.display())]
    NoBlock(PathBuf),
}

/// The samples of a chunk, by its encoding's number.
///
/// # Errors
/// If the number is not known or the chunk is malformed.
pub fn decode(encoding: u8, data: &[u8], out: &mut Vec<(i64, Sample)>) -> Result<(), Malformed> {
    match encoding {
        1 => floats::xor(data, out),
        2 => histograms::integers(data, WithStarts::No, out),
        3 => histograms::floats(data, WithStarts::No, out),
        4 => floats::xor2(data, out),
        5 => histograms::integers(data, WithStarts::Yes, out),
        6 => histograms::floats(data, WithStarts::Yes, out),
        _ => Err(Malformed("an encoding of chunks that is not known")),
    }
}
