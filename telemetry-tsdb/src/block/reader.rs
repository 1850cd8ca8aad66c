//! Reading a file. Every frame's checksum is verified when it is read; a damaged one is an error for what it holds.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::frame::{self, kind};
use super::pages::{Page, Pages};
use super::rebuild::{read_header, rebuild};
use super::writer::{PageEntry, Table, TimesEntry, VERSION};
use super::{BlockMeta, GroupRef, keep};
use crate::codec::{Decoded, decode_cells, decode_plain, decode_times};
use crate::fs::{File, Storage};
use crate::index::{FileIndex, SeriesId};
use crate::wire::{Malformed, Reader};

/// Length of the last frame.
pub(super) const FOOTER_BYTES: usize = 16 + frame::OVERHEAD;
/// Timestamp columns a reader keeps: a day's, in steps of two hours.
const RECENT_TIMES: usize = 12;

/// Why something of a file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Damage {
    /// The system says so.
    #[error("{file}: {source}")]
    Io {
        /// Which file.
        file: PathBuf,
        /// What it says.
        source: io::Error,
    },
    /// Bytes are not what was written.
    #[error("{file}: damaged {what} at byte {offset}")]
    Frame {
        /// Which file.
        file: PathBuf,
        /// What they should be.
        what: &'static str,
        /// Where.
        offset: u64,
    },
    /// A later version wrote it.
    #[error("{file}: format version {version} is not known; this program knows {VERSION}")]
    Version {
        /// Which file.
        file: PathBuf,
        /// Its version.
        version: u64,
    },
}

/// An immutable file.
pub struct Block {
    pub(super) file: Arc<dyn File>,
    path: PathBuf,
    meta: BlockMeta,
    pub(super) table: Table,
    pub(super) bytes: u64,
    /// The header is not readable, or the table had to be rebuilt.
    pub(super) is_damaged: bool,
    index: Mutex<Weak<FileIndex>>,
    times: Vec<Mutex<Weak<[i64]>>>,
}

/// Where a chunk is, within the page that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkRef {
    /// Whose.
    pub series: SeriesId,
    /// Its rows.
    pub group: GroupRef,
    /// Which column of a downsampled series; 0 otherwise.
    pub column: u8,
    from: usize,
    to: usize,
}

/// Reads chunks of one file, series after series; keeps the page it is at and the timestamps it met last.
pub struct BlockReader {
    pub(super) block: Arc<Block>,
    pub(super) page: Option<(usize, Arc<Page>)>,
    shared: Option<Arc<Pages>>,
    recent: VecDeque<(GroupRef, Arc<[i64]>)>,
}

// === impl Block ===

impl Block {
    /// Opens a file. A damaged table is rebuilt by walking the frames.
    ///
    /// # Errors
    /// If it cannot be read, is of a later version, or has lost what only its table and index knew.
    pub fn open(storage: &dyn Storage, path: &Path) -> Result<Self, Damage> {
        let io = |source| Damage::Io { file: path.to_owned(), source };
        let file = storage.open(path).map_err(io)?;
        let bytes = file.len().map_err(io)?;
        let damaged = |what| Damage::Frame { file: path.to_owned(), what, offset: 0 };
        let header = read_header(&*file, bytes).map_err(io)?;
        let header = match header.map(|body| parse_header(&body)) {
            Some(Ok(Header::Known(meta))) => Some(meta),
            Some(Ok(Header::Later(version))) => {
                return Err(Damage::Version { file: path.to_owned(), version });
            }
            Some(Err(_)) | None => None,
        };
        let is_headless = header.is_none();
        let (meta, table, is_rebuilt) = match read_table(&*file, bytes) {
            Some((meta, table)) => (meta, table, false),
            None => {
                let (meta, table) = rebuild(&*file, bytes, header).ok_or_else(|| damaged("table"))?;
                (meta, table, true)
            }
        };
        let is_damaged = is_headless || is_rebuilt;
        let times = table.times.iter().map(|_| Mutex::new(Weak::<[i64; 0]>::new() as Weak<[i64]>)).collect();
        Ok(Self {
            file,
            path: path.to_owned(),
            meta,
            table,
            bytes,
            is_damaged,
            index: Mutex::default(),
            times,
        })
    }

    /// What it is.
    #[must_use]
    pub fn meta(&self) -> &BlockMeta {
        &self.meta
    }

    /// Its length.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether its header or its table was damaged.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        self.is_damaged
    }

    /// Its file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn frame(&self, at: (u64, usize), kind: u8, what: &'static str) -> Result<Vec<u8>, Damage> {
        let bytes = frame::read(&*self.file, at.0, at.1)
            .map_err(|source| Damage::Io { file: self.path.clone(), source })?;
        if frame::parse(&bytes, kind).is_none() {
            return Err(self.damage(what, at.0));
        }
        Ok(bytes)
    }

    pub(super) fn damage(&self, what: &'static str, offset: u64) -> Damage {
        Damage::Frame { file: self.path.clone(), what, offset }
    }

    /// Its index: read when it is asked for, kept while somebody holds it and among those used last.
    ///
    /// # Errors
    /// If it is damaged.
    pub fn index(&self) -> Result<Arc<FileIndex>, Damage> {
        let mut kept = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = kept.upgrade() {
            keep::touch(&index);
            return Ok(index);
        }
        let at = self.table.index.ok_or_else(|| self.damage("index", 0))?;
        let bytes = self.frame(at, kind::INDEX, "index")?;
        let body = frame::parse(&bytes, kind::INDEX).unwrap_or(&[]);
        let index = keep::parse(body).map_err(|_| self.damage("index", at.0))?;
        *kept = Arc::downgrade(&index);
        Ok(index)
    }

    /// What is known of families, as [`crate::db`] wrote it.
    ///
    /// # Errors
    /// If it is damaged.
    pub fn metadata(&self) -> Result<Vec<u8>, Damage> {
        let Some(at) = self.table.metadata else { return Ok(Vec::new()) };
        let bytes = self.frame(at, kind::METADATA, "metadata")?;
        Ok(frame::parse(&bytes, kind::METADATA).unwrap_or(&[]).to_vec())
    }

    /// How many pages it has.
    #[must_use]
    pub fn pages(&self) -> usize {
        self.table.pages.len()
    }

    /// First and last time of a group; `None` for a group that is lost.
    #[must_use]
    pub fn bounds(&self, group: GroupRef) -> Option<(i64, i64)> {
        let entry = self.table.times.get(group.0 as usize).filter(|entry| entry.len > 0)?;
        Some((entry.min_t, entry.max_t))
    }

    /// The timestamp column of a group.
    ///
    /// # Errors
    /// If it is damaged.
    pub fn times(&self, group: GroupRef) -> Result<Arc<[i64]>, Damage> {
        let at = group.0 as usize;
        let entry = self.table.times.get(at).filter(|entry| entry.len > 0);
        let (Some(entry), Some(kept)) = (entry, self.times.get(at)) else {
            return Err(self.damage("group", 0));
        };
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(times) = kept.upgrade() {
            return Ok(times);
        }
        let bytes = self.frame((entry.offset, entry.len), kind::TIMES, "times")?;
        let body = frame::parse(&bytes, kind::TIMES).unwrap_or(&[]);
        let (found, times) = parse_times(body).map_err(|_| self.damage("times", entry.offset))?;
        if found != group || times.len() != entry.rows as usize {
            // Chunks would be read with as many cells as the table says.
            return Err(self.damage("times", entry.offset));
        }
        let times: Arc<[i64]> = times.into();
        *kept = Arc::downgrade(&times);
        Ok(times)
    }
}

pub(super) fn parse_times(body: &[u8]) -> Result<(GroupRef, Vec<i64>), Malformed> {
    let mut r = Reader::new(body);
    let group = GroupRef(r.u32()?);
    let rows = usize::try_from(r.u64()?).map_err(|_| Malformed("rows"))?;
    let mut times = Vec::new();
    decode_times(r.rest(), rows, &mut times).map_err(|_| Malformed("times"))?;
    Ok((group, times))
}

/// What the first frame says.
enum Header {
    Known(BlockMeta),
    /// A version that is not known, and nothing else is.
    Later(u64),
}

fn parse_header(body: &[u8]) -> Result<Header, Malformed> {
    let mut r = Reader::new(body);
    match r.u64()? {
        VERSION => Ok(Header::Known(BlockMeta::get(&mut r)?)),
        other => Ok(Header::Later(other)),
    }
}

fn read_table(file: &dyn File, bytes: u64) -> Option<(BlockMeta, Table)> {
    let footer = bytes.checked_sub(FOOTER_BYTES as u64)?;
    let footer = frame::read(file, footer, FOOTER_BYTES).ok()?;
    let body = frame::parse(&footer, kind::FOOTER)?;
    let offset = u64::from_le_bytes(*body.first_chunk::<8>()?);
    let len = u64::from_le_bytes(*body.get(8..)?.first_chunk::<8>()?);
    if offset.checked_add(len)? > bytes {
        return None;
    }
    let frame = frame::read(file, offset, usize::try_from(len).ok()?).ok()?;
    parse_table(frame::parse(&frame, kind::TABLE)?).ok()
}

pub(super) fn parse_table(body: &[u8]) -> Result<(BlockMeta, Table), Malformed> {
    let mut r = Reader::new(body);
    if r.u64()? != VERSION {
        return Err(Malformed("version"));
    }
    let meta = BlockMeta::get(&mut r)?;
    let mut table = Table::default();
    let len = |r: &mut Reader<'_>| usize::try_from(r.u64()?).map_err(|_| Malformed("length"));
    for _ in 0..r.count(5)? {
        let (offset, len, rows) = (r.u64()?, len(&mut r)?, r.u32()?);
        let (min_t, max_t) = (r.i64()?, r.i64()?);
        table.times.push(TimesEntry { offset, len, rows, min_t, max_t });
    }
    for _ in 0..r.count(4)? {
        let (offset, len) = (r.u64()?, len(&mut r)?);
        table.pages.push(PageEntry { offset, len, first: r.u32()?, last: r.u32()? });
    }
    table.index = Some((r.u64()?, len(&mut r)?));
    table.metadata = Some((r.u64()?, len(&mut r)?));
    Ok((meta, table))
}

pub(super) fn parse_page(body: &[u8]) -> Result<Vec<ChunkRef>, Malformed> {
    let mut r = Reader::new(body);
    let mut series = r.u32()?;
    let mut chunks = Vec::new();
    while !r.is_empty() {
        series = series.checked_add(r.u32()?).ok_or(Malformed("series"))?;
        let (group, len) = (r.u64()?, r.count(1)?);
        let from = body.len() - r.rest().len();
        r.bytes(len)?;
        let column = u8::try_from(group & 7).map_err(|_| Malformed("column"))?;
        let group = GroupRef(u32::try_from(group >> 3).map_err(|_| Malformed("group"))?);
        chunks.push(ChunkRef { series, group, column, from, to: from + len });
    }
    Ok(chunks)
}

// === impl BlockReader ===

impl BlockReader {
    /// Reads a file.
    #[must_use]
    pub fn new(block: Arc<Block>) -> Self {
        Self { block, page: None, shared: None, recent: VecDeque::new() }
    }

    /// Reads a file together with others, who keep pages for each other.
    #[must_use]
    pub fn sharing(block: Arc<Block>, pages: Arc<Pages>) -> Self {
        Self { shared: Some(pages), ..Self::new(block) }
    }

    /// The file.
    #[must_use]
    pub fn block(&self) -> &Arc<Block> {
        &self.block
    }

    pub(super) fn turn_to(&mut self, page: usize) -> Result<(), Damage> {
        if self.page.as_ref().is_some_and(|(at, _)| *at == page) {
            return Ok(());
        }
        if let Some(kept) = self.shared.as_ref().and_then(|shared| shared.get(page)) {
            self.page = Some((page, Arc::clone(kept)));
            return Ok(());
        }
        self.page = None;
        let entry = self.block.table.pages.get(page).filter(|entry| entry.len > 0);
        let entry = *entry.ok_or_else(|| self.block.damage("page", 0))?;
        let bytes = self.block.frame((entry.offset, entry.len), kind::CHUNKS, "page")?;
        let body = frame::parse(&bytes, kind::CHUNKS).unwrap_or(&[]);
        let chunks = parse_page(body).map_err(|_| self.block.damage("page", entry.offset))?;
        let read = Arc::new(Page { bytes, chunks });
        if let Some(shared) = &self.shared {
            shared.keep(page, &read);
        }
        self.page = Some((page, read));
        Ok(())
    }

    /// Calls `each` with the chunks of a series that may have something of a range, in the order of time.
    ///
    /// # Errors
    /// If a page or a chunk is damaged, or what `each` says.
    pub fn chunks<E: From<Damage>>(
        &mut self,
        series: SeriesId,
        (from, to): (i64, i64),
        mut each: impl FnMut(&mut Self, ChunkRef) -> Result<(), E>,
    ) -> Result<(), E> {
        let pages = &self.block.table.pages;
        let first = pages.partition_point(|page| page.last < series);
        let count = pages.iter().skip(first).take_while(|page| page.first <= series).count();
        for page in first..first + count {
            self.turn_to(page)?;
            let Some((_, read)) = &self.page else { continue };
            let read = Arc::clone(read);
            let low = read.chunks.partition_point(|chunk| chunk.series < series);
            let its = read.chunks.iter().skip(low).take_while(|chunk| chunk.series == series);
            for chunk in its.copied() {
                let (min_t, max_t) =
                    self.block.bounds(chunk.group).ok_or_else(|| self.block.damage("group", 0))?;
                if min_t <= to && from <= max_t {
                    each(self, chunk)?;
                }
            }
        }
        Ok(())
    }

    /// Appends the cells of a chunk of the page that was read last.
    ///
    /// # Errors
    /// If it is damaged.
    pub fn read(&self, chunk: &ChunkRef, out: &mut Decoded) -> Result<(), Damage> {
        let rows = self.block.table.times.get(chunk.group.0 as usize).map_or(0, |entry| entry.rows);
        let bytes = self.packed(chunk).ok_or_else(|| self.block.damage("chunk", 0))?;
        decode_cells(bytes, rows as usize, out).map_err(|_| self.block.damage("chunk", 0))
    }

    /// Appends the values of a chunk of the page that was read last if it is one of numbers alone, without a gap.
    ///
    /// # Errors
    /// If it is damaged.
    pub fn read_plain(&self, chunk: &ChunkRef, out: &mut Vec<f64>) -> Result<bool, Damage> {
        let rows = self.block.table.times.get(chunk.group.0 as usize).map_or(0, |entry| entry.rows);
        let bytes = self.packed(chunk).ok_or_else(|| self.block.damage("chunk", 0))?;
        decode_plain(bytes, rows as usize, out).map_err(|_| self.block.damage("chunk", 0))
    }

    /// The bytes of a chunk of the page that was read last.
    #[must_use]
    pub fn packed(&self, chunk: &ChunkRef) -> Option<&[u8]> {
        let (_, page) = self.page.as_ref()?;
        frame::parse_unchecked(&page.bytes)?.get(chunk.from..chunk.to)
    }

    /// The timestamp column of a chunk.
    ///
    /// # Errors
    /// If it is damaged.
    pub fn times(&mut self, chunk: &ChunkRef) -> Result<Arc<[i64]>, Damage> {
        if let Some((_, times)) = self.recent.iter().find(|(group, _)| *group == chunk.group) {
            return Ok(Arc::clone(times));
        }
        let times = self.block.times(chunk.group)?;
        if self.recent.len() >= RECENT_TIMES {
            self.recent.pop_back();
        }
        self.recent.push_front((chunk.group, Arc::clone(&times)));
        Ok(times)
    }
}
