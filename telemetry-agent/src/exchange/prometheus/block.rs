//! One block: which samples it has, slice by slice of time.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use telemetry_tsdb::head::Sample;

use super::index::{ChunkMeta, Index, checked, uvarint, varint};
use super::{BlockError, Malformed, decode};

const CHUNKS_MAGIC: u32 = 0x85BD_40DD;
const CHUNKS_VERSION: u8 = 1;
const TOMBSTONES_MAGIC: u32 = 0x0130_BA30;
/// One chunk; Prometheus cuts its own at some KiB.
const CHUNK_BYTES_MAX: u64 = 16 << 20;
/// Tombstones are few.
const TOMBSTONES_BYTES_MAX: u64 = 256 << 20;
/// Blocks of one directory.
const BLOCKS_MAX: usize = 65_536;
/// What is read of a chunk at first: most are shorter.
const GUESS_BYTES: usize = 2048;

/// A block, open.
pub struct Block {
    dir: PathBuf,
    meta: Meta,
    index: Index,
    segments: Vec<Segment>,
    deleted: HashMap<u64, Vec<(i64, i64)>>,
}

struct Segment {
    path: PathBuf,
    file: File,
    len: u64,
}

/// What `meta.json` says, as far as it is of use here.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meta {
    min_time: i64,
    /// Not included.
    max_time: i64,
    version: u64,
    #[serde(default)]
    stats: Stats,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Stats {
    num_samples: u64,
}

/// A chunk that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damaged {
    /// Its file.
    pub file: PathBuf,
    /// Where in it.
    pub offset: u64,
    /// What is wrong.
    pub reason: String,
    /// The time it covers.
    pub range: (i64, i64),
}

/// The directories of blocks that a path means: its own, or those below it.
///
/// # Errors
/// If there are none.
pub fn find(path: &Path) -> Result<Vec<PathBuf>, BlockError> {
    if path.join("meta.json").is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let io = |source| BlockError::Io { file: path.to_owned(), source };
    let mut found = Vec::new();
    for entry in fs::read_dir(path).map_err(io)? {
        let dir = entry.map_err(io)?.path();
        // Blocks that are being made or removed have names with an ending.
        if dir.extension().is_none() && dir.join("meta.json").is_file() && found.len() < BLOCKS_MAX {
            found.push(dir);
        }
    }
    found.sort();
    if found.is_empty() { Err(BlockError::NoBlock(path.to_owned())) } else { Ok(found) }
}

// === impl Block ===

impl Block {
    /// Opens a block.
    ///
    /// # Errors
    /// If a file of it is missing, damaged or of another version.
    pub fn open(dir: &Path) -> Result<Self, BlockError> {
        let path = dir.join("meta.json");
        let text = fs::read(&path).map_err(io_of(&path))?;
        let meta: Meta = serde_json::from_slice(&text)
            .map_err(|_| BlockError::Damaged { file: path.clone(), reason: "not the JSON of a block" })?;
        if meta.version != 1 || meta.min_time > meta.max_time {
            return Err(BlockError::Damaged {
                file: path,
                reason: "not version 1, or an impossible time range",
            });
        }
        let index = Index::open(&dir.join("index"))?;
        let segments = segments(&dir.join("chunks"))?;
        let deleted = tombstones(&dir.join("tombstones"))?;
        Ok(Self { dir: dir.to_owned(), meta, index, segments, deleted })
    }

    /// Its directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The time it covers: first, and first behind it.
    #[must_use]
    pub fn range(&self) -> (i64, i64) {
        (self.meta.min_time, self.meta.max_time)
    }

    /// How many samples it says it has.
    #[must_use]
    pub fn samples(&self) -> u64 {
        self.meta.stats.num_samples
    }

    /// Calls `each` with labels and samples, `from` to `to` included, of every series that has some; what is deleted
    /// is left out. A chunk that cannot be read goes to `damaged`.
    ///
    /// # Errors
    /// If the index is damaged, or what `each` says.
    pub fn read<E: From<BlockError>>(
        &self,
        (from, to): (i64, i64),
        mut damaged: impl FnMut(Damaged),
        mut each: impl FnMut(&[(&str, &str)], &mut Vec<(i64, Sample)>) -> Result<(), E>,
    ) -> Result<(), E> {
        let (mut samples, mut buffer) = (Vec::new(), Vec::new());
        let path = self.dir.join("index");
        let walked = self.index.each(|series| {
            samples.clear();
            let wanted = |chunk: &&ChunkMeta| chunk.min_t <= to && from <= chunk.max_t;
            for chunk in series.chunks.iter().filter(wanted) {
                let before = samples.len();
                if let Err(reason) = self.chunk(chunk, &mut buffer, &mut samples) {
                    samples.truncate(before);
                    damaged(self.damage(chunk, reason, (from, to)));
                }
            }
            let deleted = self.deleted.get(&series.id).map_or(&[][..], Vec::as_slice);
            samples.retain(|(t, _)| {
                (from..=to).contains(t) && !deleted.iter().any(|(low, high)| (*low..=*high).contains(t))
            });
            if samples.is_empty() {
                return Ok(());
            }
            let symbol = |n: u32| self.index.symbol(n).map_err(Walk::Malformed);
            let labels = series.labels.iter().map(|(name, value)| Ok((symbol(*name)?, symbol(*value)?)));
            let labels = labels.collect::<Result<Vec<_>, Walk<E>>>()?;
            each(&labels, &mut samples).map_err(Walk::Caller)
        });
        walked.map_err(|error| match error {
            Walk::Caller(error) => error,
            Walk::Io(source) => BlockError::Io { file: path, source }.into(),
            Walk::Malformed(Malformed(reason)) => BlockError::Damaged { file: path, reason }.into(),
        })
    }

    fn damage(&self, chunk: &ChunkMeta, reason: String, (from, to): (i64, i64)) -> Damaged {
        let (segment, offset) = place(chunk.at);
        let file = self.segments.get(segment).map_or_else(|| self.dir.join("chunks"), |s| s.path.clone());
        Damaged { file, offset, reason, range: (chunk.min_t.max(from), chunk.max_t.min(to)) }
    }

    fn chunk(
        &self,
        chunk: &ChunkMeta,
        buffer: &mut Vec<u8>,
        out: &mut Vec<(i64, Sample)>,
    ) -> Result<(), String> {
        let (segment, offset) = place(chunk.at);
        let segment = self.segments.get(segment).ok_or("no such file")?;
        let left = segment.len.saturating_sub(offset);
        let guess = usize::try_from(left).unwrap_or(usize::MAX).min(GUESS_BYTES);
        buffer.resize(guess, 0);
        segment.file.read_exact_at(buffer, offset).map_err(|error| error.to_string())?;
        let mut rest = buffer.as_slice();
        let len = uvarint(&mut rest).map_err(|error| error.to_string())?;
        let head = buffer.len() - rest.len();
        // Encoding before, checksum behind.
        let whole = len.saturating_add(5);
        if len > CHUNK_BYTES_MAX || whole.saturating_add(head as u64) > left {
            return Err("a chunk reaches beyond its file".into());
        }
        let whole = usize::try_from(whole).map_err(|error| error.to_string())?;
        if rest.len() < whole {
            buffer.resize(head + whole, 0);
            segment.file.read_exact_at(buffer, offset).map_err(|error| error.to_string())?;
        }
        let bytes = buffer.get(head..head + whole).unwrap_or(&[]);
        let body = checked(bytes).map_err(|error| error.to_string())?;
        let (encoding, data) = body.split_first().ok_or("an empty chunk")?;
        decode(*encoding, data, out).map_err(|error| error.to_string())
    }
}

/// Why a walk over the index ended.
enum Walk<E> {
    Caller(E),
    Io(io::Error),
    Malformed(Malformed),
}

// === impl Walk ===

impl<E> From<io::Error> for Walk<E> {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl<E> From<Malformed> for Walk<E> {
    fn from(error: Malformed) -> Self {
        Self::Malformed(error)
    }
}

/// File and position of a chunk.
fn place(at: u64) -> (usize, u64) {
    (usize::try_from(at >> 32).unwrap_or(usize::MAX), at & 0xffff_ffff)
}

fn io_of(path: &Path) -> impl Fn(io::Error) -> BlockError {
    let file = path.to_owned();
    move |source| BlockError::Io { file: file.clone(), source }
}

/// The files of chunks, in the order of their numbers.
fn segments(dir: &Path) -> Result<Vec<Segment>, BlockError> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir).map_err(io_of(dir))? {
        let path = entry.map_err(io_of(dir))?.path();
        let is_numbered =
            path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.parse::<u32>().is_ok());
        if is_numbered {
            paths.push(path);
        }
    }
    paths.sort();
    let open = |path: PathBuf| {
        let file = File::open(&path).map_err(io_of(&path))?;
        let len = file.metadata().map_err(io_of(&path))?.len();
        let mut head = [0; 5];
        file.read_exact_at(&mut head, 0).map_err(io_of(&path))?;
        let [magic @ .., version] = head;
        if u32::from_be_bytes(magic) != CHUNKS_MAGIC || version != CHUNKS_VERSION {
            return Err(BlockError::Damaged { file: path, reason: "not a file of chunks of version 1" });
        }
        Ok(Segment { path, file, len })
    };
    paths.into_iter().map(open).collect()
}

/// What is deleted, by series. No file: nothing.
fn tombstones(path: &Path) -> Result<HashMap<u64, Vec<(i64, i64)>>, BlockError> {
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(HashMap::new()),
        Err(error) => return Err(io_of(path)(error)),
        Ok(meta) if meta.len() > TOMBSTONES_BYTES_MAX => {
            return Err(BlockError::Damaged { file: path.to_owned(), reason: "too large" });
        }
        Ok(_) => {}
    }
    let bytes = fs::read(path).map_err(io_of(path))?;
    parse_tombstones(&bytes)
        .map_err(|Malformed(reason)| BlockError::Damaged { file: path.to_owned(), reason })
}

/// What a file of tombstones says.
///
/// # Errors
/// If it is malformed.
pub(super) fn parse_tombstones(bytes: &[u8]) -> Result<HashMap<u64, Vec<(i64, i64)>>, Malformed> {
    let (head, rest) = bytes.split_first_chunk::<5>().ok_or(Malformed("cut off"))?;
    let [magic @ .., version] = *head;
    if u32::from_be_bytes(magic) != TOMBSTONES_MAGIC || version != 1 {
        return Err(Malformed("not tombstones of version 1"));
    }
    let mut body = checked(rest)?;
    let mut deleted: HashMap<u64, Vec<(i64, i64)>> = HashMap::new();
    while !body.is_empty() {
        let (series, from, to) = (uvarint(&mut body)?, varint(&mut body)?, varint(&mut body)?);
        deleted.entry(series).or_default().push((from, to));
    }
    Ok(deleted)
}
