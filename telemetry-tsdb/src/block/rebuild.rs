//! A file's table made anew by walking its frames, when the table itself is damaged.
//!
//! Where frames are missing between two pages, the series in between are marked as lost: reading them is an error and
//! never an empty answer.

use std::io;

use super::frame::{self, kind};
use super::reader::{parse_page, parse_table, parse_times};
use super::writer::{PageEntry, Table, TimesEntry};
use super::{BlockMeta, GroupRef};
use crate::fs::File;
use crate::index::SeriesId;

/// What is read at once while looking for the next frame.
const WINDOW_BYTES: usize = 64 << 10;
/// The least a timestamp column takes.
const TIMES_BYTES_MIN: u64 = frame::OVERHEAD as u64 + 3;

/// Steps from frame to frame.
struct Walk<'a> {
    file: &'a dyn File,
    bytes: u64,
    at: u64,
    /// What may still be read: frames that begin well and end badly could be many.
    budget: u64,
}

/// A frame whose checksum is right.
struct Whole {
    kind: u8,
    at: u64,
    bytes: Vec<u8>,
    /// Something that is no frame lay before it.
    is_gap: bool,
}

/// What the frames told.
#[derive(Default)]
struct Found {
    table: Table,
    meta: Option<BlockMeta>,
    /// Bytes that are no frame came before, and pages may have been among them.
    is_gap: bool,
}

/// The table and what the file is, as its frames tell.
pub fn rebuild(file: &dyn File, bytes: u64, header: Option<BlockMeta>) -> Option<(BlockMeta, Table)> {
    let mut walk = Walk { file, bytes, at: 0, budget: bytes.saturating_mul(4).saturating_add(64 << 20) };
    let mut found = Found { meta: header, ..Found::default() };
    let groups_max = bytes / TIMES_BYTES_MIN;
    while let Some(whole) = walk.next().ok()? {
        let body = frame::parse(&whole.bytes, whole.kind)?;
        found.is_gap |= whole.is_gap && found.table.index.is_none();
        found.take(whole.kind, (whole.at, whole.bytes.len()), body, groups_max);
    }
    found.table.index?;
    Some((found.meta?, found.table))
}

// === impl Walk ===

impl Walk<'_> {
    /// The next whole frame.
    fn next(&mut self) -> io::Result<Option<Whole>> {
        let mut is_gap = false;
        while self.at < self.bytes {
            if let Some((kind, bytes)) = self.whole()? {
                let at = self.at;
                self.at += bytes.len() as u64;
                return Ok(Some(Whole { kind, at, bytes, is_gap }));
            }
            is_gap = true;
            self.at += 1;
            self.seek()?;
        }
        Ok(None)
    }

    fn read(&mut self, len: u64) -> io::Result<Vec<u8>> {
        self.budget = self.budget.checked_sub(len).ok_or(io::ErrorKind::QuotaExceeded)?;
        let mut bytes = vec![0; usize::try_from(len).map_err(io::Error::other)?];
        self.file.read_at(&mut bytes, self.at)?;
        Ok(bytes)
    }

    /// The frame that begins here, if it is whole.
    fn whole(&mut self) -> io::Result<Option<(u8, Vec<u8>)>> {
        let left = self.bytes - self.at;
        let header = self.read(left.min(frame::HEADER as u64))?;
        let Some((kind, len)) = frame::peek(&header).filter(|(_, len)| *len as u64 <= left) else {
            return Ok(None);
        };
        let bytes = self.read(len as u64)?;
        Ok(frame::parse(&bytes, kind).is_some().then_some((kind, bytes)))
    }

    /// Moves to where the next frame may begin.
    fn seek(&mut self) -> io::Result<()> {
        while self.at < self.bytes {
            let window = self.read((self.bytes - self.at).min(WINDOW_BYTES as u64))?;
            let at = frame::next_magic(&window, 0);
            if at < window.len() {
                self.at += at as u64;
                return Ok(());
            }
            let is_last = self.at + window.len() as u64 == self.bytes;
            // A magic may lie across the border of two windows.
            self.at = if is_last { self.bytes } else { self.at + window.len() as u64 - 3 };
        }
        Ok(())
    }
}

// === impl Found ===

impl Found {
    fn take(&mut self, kind: u8, at: (u64, usize), body: &[u8], groups_max: u64) {
        match kind {
            kind::TIMES => {
                if let Ok((group, times)) = parse_times(body)
                    && u64::from(group.0) < groups_max
                {
                    self.put_times(group, at, &times);
                }
            }
            kind::CHUNKS => match parse_page(body) {
                Ok(chunks) => {
                    if let (Some(first), Some(last)) = (chunks.first(), chunks.last()) {
                        self.mark_lost(first.series);
                        let (first, last) = (first.series, last.series);
                        self.table.pages.push(PageEntry { offset: at.0, len: at.1, first, last });
                    }
                }
                Err(_) => self.is_gap = true,
            },
            kind::INDEX => {
                self.mark_lost(SeriesId::MAX);
                self.table.index = Some(at);
            }
            kind::METADATA => self.table.metadata = Some(at),
            kind::TABLE => {
                if let Ok((meta, _)) = parse_table(body) {
                    self.meta = Some(meta);
                }
            }
            _ => {}
        }
    }

    fn put_times(&mut self, group: GroupRef, at: (u64, usize), times: &[i64]) {
        let (Some(min_t), Some(max_t)) = (times.first(), times.last()) else { return };
        let rows = u32::try_from(times.len()).unwrap_or(u32::MAX);
        let entry = TimesEntry { offset: at.0, len: at.1, rows, min_t: *min_t, max_t: *max_t };
        let lost = TimesEntry { offset: 0, len: 0, rows: 0, min_t: i64::MAX, max_t: i64::MIN };
        let number = group.0 as usize;
        if self.table.times.len() <= number {
            self.table.times.resize(number + 1, lost);
        }
        if let Some(cell) = self.table.times.get_mut(number) {
            *cell = entry;
        }
    }

    /// After a gap: series from the last one read to `next` may have had chunks in it.
    fn mark_lost(&mut self, next: SeriesId) {
        if std::mem::take(&mut self.is_gap) {
            let first = self.table.pages.last().map_or(0, |page| page.last);
            self.table.pages.push(PageEntry { offset: 0, len: 0, first, last: next });
        }
    }
}

/// What the first frame says: the version, and what the file is if the version is known.
pub fn read_header(file: &dyn File, bytes: u64) -> io::Result<Option<Vec<u8>>> {
    let mut start = vec![0; usize::try_from(bytes).unwrap_or(usize::MAX).min(frame::HEADER)];
    file.read_at(&mut start, 0)?;
    let Some((kind::HEADER, len)) = frame::peek(&start).filter(|(_, len)| *len as u64 <= bytes) else {
        return Ok(None);
    };
    let frame = frame::read(file, 0, len)?;
    Ok(frame::parse(&frame, kind::HEADER).map(<[u8]>::to_vec))
}
