//! Writing a file, front to back, in pages; nobody sees it until all of it is on disk.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::frame::{self, kind};
use super::{BlockMeta, DIR, GroupRef, PAGE_BYTES};
use crate::codec::encode_times;
use crate::fs::{File, Storage};
use crate::index::SeriesId;
use crate::wire::{put_count, put_i64, put_u64};

/// The format's version, in every file's first frame.
pub const VERSION: u64 = 1;
/// Bytes gathered before they are written.
const BUFFER_BYTES: usize = 1 << 20;

/// A file being written. Dropped before its end it takes its `.tmp` away, so that attempts on a full disk leave nothing
/// that fills it further; what a dead process left, the next start removes.
pub struct BlockWriter {
    is_finished: bool,
    storage: Arc<dyn Storage>,
    file: Arc<dyn File>,
    meta: BlockMeta,
    buffer: Vec<u8>,
    /// Where the buffer's first byte goes.
    offset: u64,
    pub(super) table: Table,
    page: Vec<u8>,
    page_first: SeriesId,
    page_last: SeriesId,
    before: Option<SeriesId>,
}

/// Where everything in a file is.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// Timestamp columns.
    pub times: Vec<TimesEntry>,
    /// Pages of chunks, in the order of their series.
    pub pages: Vec<PageEntry>,
    /// The index.
    pub index: Option<(u64, usize)>,
    /// What families are.
    pub metadata: Option<(u64, usize)>,
}

/// Where a timestamp column is.
#[derive(Clone, Copy, Debug)]
pub struct TimesEntry {
    /// Position of the frame.
    pub offset: u64,
    /// Its length.
    pub len: usize,
    /// Rows.
    pub rows: u32,
    /// First time.
    pub min_t: i64,
    /// Last time.
    pub max_t: i64,
}

/// Where a page is.
#[derive(Clone, Copy, Debug)]
pub struct PageEntry {
    /// Position of the frame.
    pub offset: u64,
    /// Its length.
    pub len: usize,
    /// First series in it.
    pub first: SeriesId,
    /// Last.
    pub last: SeriesId,
}

// === impl BlockWriter ===

impl BlockWriter {
    /// Begins a file.
    ///
    /// # Errors
    /// What the disk says.
    pub fn new(storage: Arc<dyn Storage>, meta: BlockMeta) -> io::Result<Self> {
        storage.create_dir(Path::new(DIR))?;
        let path = meta.temporary_path();
        match storage.remove(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = storage.create(&path)?;
        let mut buffer = Vec::with_capacity(BUFFER_BYTES + PAGE_BYTES);
        let mut header = Vec::new();
        put_u64(&mut header, VERSION);
        meta.put(&mut header);
        frame::put(&mut buffer, kind::HEADER, &header);
        Ok(Self {
            is_finished: false,
            storage,
            file,
            meta,
            buffer,
            offset: 0,
            table: Table::default(),
            page: Vec::new(),
            page_first: 0,
            page_last: 0,
            before: None,
        })
    }

    fn put(&mut self, kind: u8, body: &[u8]) -> io::Result<(u64, usize)> {
        let offset = self.offset + self.buffer.len() as u64;
        frame::put(&mut self.buffer, kind, body);
        if self.buffer.len() >= BUFFER_BYTES {
            self.write()?;
        }
        Ok((offset, body.len() + frame::OVERHEAD))
    }

    fn write(&mut self) -> io::Result<()> {
        self.file.write_at(&self.buffer, self.offset)?;
        self.offset += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Adds a timestamp column.
    ///
    /// # Errors
    /// What the disk says.
    pub fn add_group(&mut self, times: &[i64]) -> io::Result<GroupRef> {
        let group = GroupRef(u32::try_from(self.table.times.len()).map_err(io::Error::other)?);
        let rows = u32::try_from(times.len()).map_err(io::Error::other)?;
        let mut body = Vec::new();
        put_u64(&mut body, u64::from(group.0));
        put_u64(&mut body, u64::from(rows));
        encode_times(times, &mut body);
        let (min_t, max_t) =
            (times.first().copied().unwrap_or(i64::MAX), times.last().copied().unwrap_or(i64::MIN));
        let (offset, len) = self.put(kind::TIMES, &body)?;
        self.table.times.push(TimesEntry { offset, len, rows, min_t, max_t });
        Ok(group)
    }

    /// Adds a chunk: the cells of a series at all rows of a group, as the codec packed them. Series come in the order
    /// of their numbers, the chunks of one in the order of time.
    ///
    /// # Errors
    /// What the disk says.
    pub fn add_chunk(
        &mut self,
        series: SeriesId,
        group: GroupRef,
        column: u8,
        bytes: &[u8],
    ) -> io::Result<()> {
        debug_assert!(self.before.is_none_or(|before| before <= series), "series come in order");
        if self.before != Some(series) {
            self.meta.series += 1;
        }
        self.before = Some(series);
        if self.page.len() >= PAGE_BYTES {
            self.end_page()?;
        }
        if self.page.is_empty() {
            self.page_first = series;
            self.page_last = series;
            put_u64(&mut self.page, u64::from(series));
        }
        put_u64(&mut self.page, u64::from(series - self.page_last));
        self.page_last = series;
        put_u64(&mut self.page, u64::from(group.0) << 3 | u64::from(column & 7));
        put_count(&mut self.page, bytes.len());
        self.page.extend_from_slice(bytes);
        Ok(())
    }

    /// Counts cells that a chunk holds.
    pub fn count_samples(&mut self, samples: usize) {
        self.meta.samples += samples as u64;
    }

    /// The name that the file will have.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.meta.path()
    }

    fn end_page(&mut self) -> io::Result<()> {
        if self.page.is_empty() {
            return Ok(());
        }
        let page = std::mem::take(&mut self.page);
        let (offset, len) = self.put(kind::CHUNKS, &page)?;
        self.table.pages.push(PageEntry { offset, len, first: self.page_first, last: self.page_last });
        self.page = page;
        self.page.clear();
        Ok(())
    }

    /// Ends the file and brings it to disk under its name.
    ///
    /// # Errors
    /// What the disk says. There may be such a file all the same: its name may be there and not be synced.
    pub fn finish(mut self, index: &[u8], metadata: &[u8]) -> io::Result<BlockMeta> {
        self.end_page()?;
        self.table.index = Some(self.put(kind::INDEX, index)?);
        self.table.metadata = Some(self.put(kind::METADATA, metadata)?);
        let mut body = Vec::new();
        put_u64(&mut body, VERSION);
        self.meta.put(&mut body);
        self.table.put(&mut body);
        let (offset, len) = self.put(kind::TABLE, &body)?;
        let mut footer = offset.to_le_bytes().to_vec();
        footer.extend_from_slice(&(len as u64).to_le_bytes());
        self.put(kind::FOOTER, &footer)?;
        self.write()?;
        self.file.sync()?;
        self.storage.rename(&self.meta.temporary_path(), &self.meta.path())?;
        self.is_finished = true;
        self.storage.sync_dir(Path::new(DIR))?;
        Ok(std::mem::take(&mut self.meta))
    }
}

impl Drop for BlockWriter {
    fn drop(&mut self) {
        if !self.is_finished {
            // If that fails too, the next start removes it.
            let _ = self.storage.remove(&self.meta.temporary_path());
        }
    }
}

// === impl Table ===

impl Table {
    fn put(&self, out: &mut Vec<u8>) {
        put_count(out, self.times.len());
        for entry in &self.times {
            put_u64(out, entry.offset);
            put_count(out, entry.len);
            put_u64(out, u64::from(entry.rows));
            put_i64(out, entry.min_t);
            put_i64(out, entry.max_t);
        }
        put_count(out, self.pages.len());
        for entry in &self.pages {
            put_u64(out, entry.offset);
            put_count(out, entry.len);
            put_u64(out, u64::from(entry.first));
            put_u64(out, u64::from(entry.last));
        }
        for (offset, len) in [self.index.unwrap_or_default(), self.metadata.unwrap_or_default()] {
            put_u64(out, offset);
            put_count(out, len);
        }
    }
}
