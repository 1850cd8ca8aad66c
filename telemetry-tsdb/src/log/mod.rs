//! The log: numbered, checksummed records in segments, and the rules of syncing them.
//!
//! A record is `magic (4) · length u32 · kind u8 · sequence u64 · body · CRC32C of all before it but the magic`,
//! little-endian. The magic only says where to look: after damage the reader goes on at the next magic whose checksum
//! holds, and missing sequence numbers say how many records were lost. Knows no series; called by [`crate::db`].

mod replay;
mod row;
mod writer;

#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};

use crate::fs::Storage;

pub use replay::{Record, Report, replay, scan, sync};
pub use row::{RowDecoder, RowEncoder, RowError};
pub use writer::{LogError, LogWriter};

/// Begins every record.
const MAGIC: [u8; 4] = *b"\xA7tl\x1F";
/// Bytes before the body.
const HEADER: usize = 4 + 4 + 1 + 8;
/// Bytes of a record beside its body.
const OVERHEAD: usize = HEADER + 4;
/// The longest body.
pub const BODY_MAX: usize = 32 << 20;
/// A segment is closed at this size.
pub const SEGMENT_BYTES: u64 = 32 << 20;
/// The longest segment that is read: one record may stand beyond the size at which segments are closed.
const SEGMENT_BYTES_MAX: u64 = SEGMENT_BYTES + BODY_MAX as u64 + OVERHEAD as u64;
/// Where segments are.
pub const DIR: &str = "log";

/// A segment's file: its first sequence number, so that names sort as they were written, and which segment of that
/// number it is: one that was given up is followed by another of the same number.
fn segment_path(first: u64, attempt: u32) -> PathBuf {
    Path::new(DIR).join(format!("{first:020}-{attempt:03}.seg"))
}

/// What [`segment_path`] made a name of.
fn parse_name(name: &Path) -> Option<(u64, u32)> {
    let (first, attempt) = name.to_str()?.strip_suffix(".seg")?.split_once('-')?;
    Some((first.parse().ok()?, attempt.parse().ok()?))
}

/// Segments that nothing is written to any more: all but the newest.
///
/// # Errors
/// What the system says.
pub fn closed(storage: &dyn Storage) -> io::Result<Vec<PathBuf>> {
    let mut segments: Vec<PathBuf> =
        storage.list(Path::new(DIR))?.into_iter().filter(|name| parse_name(name).is_some()).collect();
    segments.sort();
    segments.pop();
    Ok(segments.into_iter().map(|name| Path::new(DIR).join(name)).collect())
}

/// Appends a record.
fn put_record(out: &mut Vec<u8>, sequence: u64, kind: u8, body: &[u8]) {
    out.extend_from_slice(&MAGIC);
    let from = out.len();
    out.extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.push(kind);
    out.extend_from_slice(&sequence.to_le_bytes());
    out.extend_from_slice(body);
    let crc = crc32c::crc32c(out.get(from..).unwrap_or(&[]));
    out.extend_from_slice(&crc.to_le_bytes());
}
