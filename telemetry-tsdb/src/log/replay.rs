//! Reading the log back: every intact record in order, and an account of what is not.

use std::io;
use std::path::{Path, PathBuf};

use super::{BODY_MAX, DIR, HEADER, MAGIC, OVERHEAD, SEGMENT_BYTES_MAX, parse_name};
use crate::fs::{Storage, read_file};

/// No log gets so far: a higher number is no record's, and the next ones are counted on from what is read.
const SEQUENCE_MAX: u64 = 1 << 62;

/// One record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its number: one more than the record before it.
    pub sequence: u64,
    /// What its body is.
    pub kind: u8,
    /// The body.
    pub body: &'a [u8],
}

/// What a replay met besides records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Records read.
    pub records: u64,
    /// Records missing between two that were read; of a segment that could not be read, at most so many.
    pub lost_records: u64,
    /// Bytes passed over. A torn tail is among them: nobody was promised what it held.
    pub skipped_bytes: u64,
    /// Segments with bytes that were passed over, or that could not be read at all.
    pub damaged: Vec<PathBuf>,
    /// Those of them that were read and that records are missing from.
    pub lossy: Vec<PathBuf>,
    /// Those of them that could not be read: what they hold is not known.
    pub unread: Vec<PathBuf>,
    /// The number after the last record.
    pub next_sequence: u64,
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk::<N>().copied()
}

fn record_at(bytes: &[u8]) -> Option<(Record<'_>, usize)> {
    if !bytes.starts_with(&MAGIC) {
        return None;
    }
    let len = usize::try_from(u32::from_le_bytes(number(bytes, 4)?)).ok().filter(|len| *len <= BODY_MAX)?;
    let end = HEADER + len;
    let crc = u32::from_le_bytes(number(bytes, end)?);
    if crc32c::crc32c(bytes.get(4..end)?) != crc {
        return None;
    }
    let (kind, sequence) = (*bytes.get(8)?, u64::from_le_bytes(number(bytes, 9)?));
    if sequence > SEQUENCE_MAX {
        return None;
    }
    Some((Record { sequence, kind, body: bytes.get(HEADER..end)? }, OVERHEAD + len))
}

/// The position of the next magic, or the end.
fn next_magic(bytes: &[u8], from: usize) -> usize {
    let rest = bytes.get(from..).unwrap_or(&[]);
    rest.windows(MAGIC.len()).position(|window| window == MAGIC).map_or(bytes.len(), |at| from + at)
}

/// Every intact record in some bytes, in order; returns the bytes passed over. Zeros at the end are a file's unused
/// rest and no damage.
pub fn scan<'a>(bytes: &'a [u8], mut each: impl FnMut(Record<'a>)) -> u64 {
    let (mut at, mut skipped, mut from) = (0, 0, None);
    while at < bytes.len() {
        let Some((record, used)) = bytes.get(at..).and_then(record_at) else {
            from.get_or_insert(at);
            at = next_magic(bytes, at + 1);
            continue;
        };
        skipped += from.take().map_or(0, |from| at - from);
        each(record);
        at += used;
    }
    if let Some(from) = from {
        let rest = bytes.get(from..).unwrap_or(&[]);
        skipped += rest.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    }
    skipped as u64
}

/// Every intact record of the log, in order. A segment that cannot be read is passed over and named; a record that is
/// there twice, because it was written again after a sync failed, is given once.
///
/// # Errors
/// Only if the directory cannot be listed.
pub fn replay(storage: &dyn Storage, mut each: impl FnMut(Record<'_>)) -> io::Result<Report> {
    let mut report = Report::default();
    let names = storage.list(Path::new(DIR))?;
    let segments: Vec<_> =
        names.iter().filter_map(|name| Some((parse_name(name)?.0, Path::new(DIR).join(name)))).collect();
    // A segment is called by the number of its first record.
    let mut next = segments.first().map_or(0, |(first, _)| *first);
    for (at, (first, path)) in segments.iter().enumerate() {
        // A segment that was given up ends where the next one begins: what it holds beyond was written again there,
        // and may be there whole or torn.
        let end = segments.get(at + 1).map_or(u64::MAX, |(first, _)| *first);
        let bytes = match read_file(storage, path, SEGMENT_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(error) => {
                tracing::error!(segment = %path.display(), %error, "a segment of the log cannot be read");
                report.damaged.push(path.clone());
                report.unread.push(path.clone());
                if at + 1 == segments.len() {
                    // Its numbers are not had again: it may be readable at the next start.
                    next = next.max(first.saturating_add(records_max(storage, path)));
                }
                continue;
            }
        };
        let lost_before = report.lost_records;
        let skipped = scan(&bytes, |record| {
            if record.sequence >= end || record.sequence < next {
                return;
            }
            report.lost_records += record.sequence - next;
            next = record.sequence + 1;
            report.records += 1;
            each(record);
        });
        if skipped > 0 {
            report.skipped_bytes += skipped;
            report.damaged.push(path.clone());
            // A torn end is no loss: the next segment goes on with the number that it broke off at.
            let ends_short = end != u64::MAX && next < end;
            if report.lost_records > lost_before || ends_short {
                report.lossy.push(path.clone());
            }
        }
    }
    report.next_sequence = next;
    Ok(report)
}

/// More records than a segment can hold.
fn records_max(storage: &dyn Storage, path: &Path) -> u64 {
    let len = storage.open(path).and_then(|file| file.len()).unwrap_or(SEGMENT_BYTES_MAX);
    len.min(SEGMENT_BYTES_MAX) / OVERHEAD as u64 + 1
}

/// Brings to disk what a dead process wrote into the log and did not live to sync: a replay reads it from the page
/// cache, where a loss of power would take it.
///
/// # Errors
/// What the disk says; nothing of the log is known to be on disk then.
pub fn sync(storage: &dyn Storage) -> io::Result<()> {
    let dir = Path::new(DIR);
    let names = storage.list(dir)?;
    for name in names.iter().filter(|name| parse_name(name).is_some()) {
        storage.open(&dir.join(name))?.sync()?;
    }
    if names.is_empty() { Ok(()) } else { storage.sync_dir(dir) }
}
