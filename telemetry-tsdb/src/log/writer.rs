//! Writing the log. What `commit` has returned `Ok` for is on disk.
//!
//! A failed sync is never repeated on the same file: the kernel may have dropped the pages and say "fine" the next
//! time. The segment is given up, and everything that nobody has been promised yet is written again, from memory, into
//! a new one.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::{DIR, Report, SEGMENT_BYTES, parse_name, put_record, segment_path};
use crate::fs::{DAMAGED_DIR, File, Storage, is_full};

/// Unacknowledged bytes kept for writing again; beyond it records are refused.
const PENDING_BYTES_MAX: usize = 64 << 20;
/// Memory for pending records that is kept between commits.
const PENDING_KEPT: usize = 1 << 20;
/// Segments of one name.
const ATTEMPTS_MAX: u32 = 1000;
/// Damaged segments that are kept aside for whoever wants to look: 32 MiB each at most. More are removed as others are.
const ASIDE_MAX: usize = 8;

/// Why the log does not take what is written.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The disk refused, and a new segment as well.
    #[error("write segment {first}: {source}")]
    Write {
        /// First sequence number of the segment.
        first: u64,
        /// What the system said.
        source: io::Error,
    },
    /// A segment could not be begun.
    #[error("begin segment {first}: {source}")]
    Begin {
        /// First sequence number of the segment.
        first: u64,
        /// What the system said.
        source: io::Error,
    },
    /// More is waiting to be synced than memory is set aside for.
    #[error("{0} bytes wait to be synced")]
    Behind(usize),
}

// === impl LogError ===

impl LogError {
    /// Whether there was no room: a state of the disk that passes.
    #[must_use]
    pub fn is_full(&self) -> bool {
        match self {
            Self::Write { source, .. } | Self::Begin { source, .. } => is_full(source),
            Self::Behind(_) => false,
        }
    }
}

/// The end of the log.
pub struct LogWriter {
    storage: Arc<dyn Storage>,
    segments: Vec<Segment>,
    file: Option<Arc<dyn File>>,
    /// The last segment was made by this writer and holds nothing that was promised.
    is_fresh: bool,
    /// Where the next byte of the open segment goes.
    offset: u64,
    next: u64,
    /// Records since the last sync, as they go to disk, and the number of the first.
    pending: Vec<u8>,
    pending_first: u64,
    refused: usize,
    failures: u64,
}

#[derive(Clone, Copy, Debug)]
struct Segment {
    first: u64,
    attempt: u32,
    bytes: u64,
    state: Found,
}

/// What the last start made of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    /// It was read, or this process wrote it.
    Whole,
    /// Records are missing from it.
    Lossy,
    /// It could not be read: nobody knows what it holds.
    Unread,
}

// === impl LogWriter ===

impl LogWriter {
    /// Opens the log for writing behind what is there. The first segment is a new one: what a crash left of the last
    /// is read but not added to.
    ///
    /// # Errors
    /// If the directory cannot be made or listed.
    pub fn open(storage: Arc<dyn Storage>, next: u64) -> Result<Self, LogError> {
        let begin = |source| LogError::Begin { first: next, source };
        storage.create_dir(Path::new(DIR)).map_err(begin)?;
        let mut segments = Vec::new();
        for name in storage.list(Path::new(DIR)).map_err(begin)? {
            if let Some((first, attempt)) = parse_name(&name) {
                let bytes =
                    storage.open(&Path::new(DIR).join(&name)).and_then(|file| file.len()).unwrap_or(0);
                segments.push(Segment { first, attempt, bytes, state: Found::Whole });
            }
        }
        let next = segments.iter().map(|segment| segment.first).max().unwrap_or(0).max(next);
        Ok(Self {
            storage,
            segments,
            file: None,
            is_fresh: false,
            offset: 0,
            next,
            pending: Vec::new(),
            pending_first: next,
            refused: 0,
            failures: 0,
        })
    }

    /// Takes note of what a replay could not read: such segments are put aside and not removed when the log is cut.
    pub fn keep_damaged(&mut self, report: &Report) {
        for segment in &mut self.segments {
            let path = segment_path(segment.first, segment.attempt);
            if report.unread.contains(&path) {
                segment.state = Found::Unread;
            } else if report.lossy.contains(&path) {
                segment.state = Found::Lossy;
            }
        }
    }

    /// Adds a record; it is on disk after the next commit. Returns its number.
    pub fn append(&mut self, kind: u8, body: &[u8]) -> u64 {
        let sequence = self.next;
        self.next += 1;
        if self.pending.is_empty() {
            self.pending_first = sequence;
        }
        if self.pending.len() + body.len() > PENDING_BYTES_MAX {
            self.refused += body.len();
        } else {
            put_record(&mut self.pending, sequence, kind, body);
        }
        sequence
    }

    /// Brings everything to disk.
    ///
    /// # Errors
    /// If it cannot, in a new segment either. Nothing that was appended since the last commit is promised then, and
    /// the writer must not be used any more: open another.
    pub fn commit(&mut self) -> Result<(), LogError> {
        if self.refused > 0 {
            return Err(LogError::Behind(self.pending.len() + self.refused));
        }
        if self.pending.is_empty() {
            return Ok(());
        }
        if let Err(error) = self.write() {
            if self.is_fresh {
                tracing::debug!(%error, "a new segment of the log cannot be written");
            } else {
                tracing::warn!(%error, "the log's segment is given up and written again");
            }
            self.failures += 1;
            self.give_up();
            if let Err(error) = self.write() {
                self.give_up();
                return Err(error);
            }
        }
        self.is_fresh = false;
        self.pending.clear();
        // A checkpoint of many series must not stay in memory.
        self.pending.shrink_to(PENDING_KEPT);
        self.pending_first = self.next;
        if self.offset >= SEGMENT_BYTES {
            self.file = None;
        }
        Ok(())
    }

    /// Commits and begins a new segment. Returns the number of its first record.
    ///
    /// # Errors
    /// As [`LogWriter::commit`].
    pub fn rotate(&mut self) -> Result<u64, LogError> {
        self.commit()?;
        self.file = None;
        Ok(self.next)
    }

    /// Removes segments whose records all come before `sequence`; damaged ones are put aside.
    ///
    /// # Errors
    /// If the disk refuses; the rest is removed next time.
    pub fn remove_before(&mut self, sequence: u64) -> Result<(), LogError> {
        while let [oldest, second, ..] = self.segments.as_slice() {
            if second.first > sequence {
                break;
            }
            let (first, oldest) = (oldest.first, *oldest);
            match self.let_go(oldest) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(LogError::Write { first, source });
                }
                _ => self.segments.remove(0),
            };
        }
        self.storage.sync_dir(Path::new(DIR)).map_err(|source| LogError::Write { first: sequence, source })
    }

    fn let_go(&self, segment: Segment) -> io::Result<()> {
        let path = segment_path(segment.first, segment.attempt);
        let aside = Path::new(DAMAGED_DIR);
        let is_kept = match segment.state {
            Found::Whole => false,
            Found::Lossy => {
                let there = self.storage.list(aside)?;
                there.iter().filter(|name| parse_name(name).is_some()).count() < ASIDE_MAX
            }
            Found::Unread => true,
        };
        let Some(name) = path.file_name().filter(|_| is_kept) else { return self.storage.remove(&path) };
        self.storage.create_dir(aside)?;
        self.storage.rename(&path, &aside.join(name))?;
        tracing::warn!(segment = %path.display(), "a damaged segment of the log is put aside");
        Ok(())
    }

    /// Bytes on disk.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// Segments that were given up.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.failures
    }

    /// The number of the first record that is not promised. Who takes the log up after a failure goes on with it, so that
    /// no number is missing; what a segment that was given up holds from there on is not read.
    #[must_use]
    pub fn first_unpromised(&self) -> u64 {
        self.pending_first
    }

    /// The number of the next record.
    #[must_use]
    pub fn next_sequence(&self) -> u64 {
        self.next
    }

    /// Writes what is pending into the open segment, or a new one, and syncs it.
    fn write(&mut self) -> Result<(), LogError> {
        let file = match &self.file {
            Some(file) => Arc::clone(file),
            None => self.begin()?,
        };
        let first = self.segments.last().map_or(0, |segment| segment.first);
        let result = file.write_at(&self.pending, self.offset).and_then(|()| file.sync());
        result.map_err(|source| LogError::Write { first, source })?;
        self.offset += self.pending.len() as u64;
        if let Some(segment) = self.segments.last_mut() {
            segment.bytes = self.offset;
        }
        Ok(())
    }

    /// Lets go of the open segment. One that this writer made and in which nothing was promised yet is removed: on a
    /// full disk every attempt would leave one more, and take what room there is.
    fn give_up(&mut self) {
        self.file = None;
        if !std::mem::take(&mut self.is_fresh) {
            return;
        }
        if let Some(segment) = self.segments.last()
            && self.storage.remove(&segment_path(segment.first, segment.attempt)).is_ok()
        {
            self.segments.pop();
        }
    }

    fn begin(&mut self) -> Result<Arc<dyn File>, LogError> {
        let first = self.pending_first;
        let begin = |source| LogError::Begin { first, source };
        let (attempt, file) = self.create(first).map_err(begin)?;
        self.segments.push(Segment { first, attempt, bytes: 0, state: Found::Whole });
        self.is_fresh = true;
        self.storage.sync_dir(Path::new(DIR)).map_err(begin)?;
        self.offset = 0;
        self.file = Some(Arc::clone(&file));
        Ok(file)
    }

    /// Makes the file. A segment of the same name is one that was given up, or one that a crash left without a record.
    fn create(&self, first: u64) -> io::Result<(u32, Arc<dyn File>)> {
        for attempt in 0..ATTEMPTS_MAX {
            match self.storage.create(&segment_path(first, attempt)) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                other => return other.map(|file| (attempt, file)),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }
}
