//! A block's index: symbols, and series with their labels and the places of their chunks.

use std::fs::File;
use std::io::{self, BufReader, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::bits::unzigzag;
use super::{BlockError, Malformed};

const MAGIC: u32 = 0xBAAA_D700;
/// Series are referred to by sixteenths of their position since this version.
const VERSION: u8 = 2;
/// Symbols are held in memory; a block's are far below this.
const SYMBOLS_BYTES_MAX: u64 = 1 << 30;
/// One series with all its chunks.
const SERIES_BYTES_MAX: u64 = 64 << 20;
/// Table of contents: six references and a checksum.
const TOC_BYTES: u64 = TOC_LEN as u64;
const TOC_LEN: usize = 6 * 8 + 4;

/// An index, open.
pub struct Index {
    file: File,
    symbols: Vec<u8>,
    /// Where each symbol is.
    places: Vec<(u32, u32)>,
    /// Where series begin and end.
    series: (u64, u64),
}

/// One series.
#[derive(Debug, Default)]
pub struct Series {
    /// Its position in sixteenths: what tombstones call it.
    pub id: u64,
    /// Numbers of symbols: name and value.
    pub labels: Vec<(u32, u32)>,
    /// Its chunks, in the order of time.
    pub chunks: Vec<ChunkMeta>,
}

/// Where a chunk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkMeta {
    /// First time.
    pub min_t: i64,
    /// Last time.
    pub max_t: i64,
    /// File in the upper half, position in the lower.
    pub at: u64,
}

// === impl Index ===

impl Index {
    /// Opens an index and reads its symbols.
    ///
    /// # Errors
    /// If it cannot be read, or is damaged or of another version.
    pub fn open(path: &Path) -> Result<Self, BlockError> {
        let read = |source| BlockError::Io { file: path.to_owned(), source };
        let wrong = |Malformed(reason)| BlockError::Damaged { file: path.to_owned(), reason };
        let file = File::open(path).map_err(read)?;
        let len = file.metadata().map_err(read)?.len();
        let mut head = [0; 5];
        file.read_exact_at(&mut head, 0).map_err(read)?;
        let [magic @ .., version] = head;
        if u32::from_be_bytes(magic) != MAGIC {
            return Err(wrong(Malformed("not an index")));
        }
        if version != VERSION {
            return Err(wrong(Malformed("the index has a version that is not known; this program knows 2")));
        }
        let toc = toc(&file, len).map_err(read)?.map_err(wrong)?;
        let [symbols, series, ..] = toc;
        let symbols = section(&file, symbols, len, SYMBOLS_BYTES_MAX).map_err(read)?.map_err(wrong)?;
        let places = places(&symbols).map_err(wrong)?;
        let after = toc.into_iter().filter(|at| *at > series);
        let end = after.min().unwrap_or(len).min(len.saturating_sub(TOC_BYTES));
        Ok(Self { file, symbols, places, series: (series, end) })
    }

    /// A symbol by its number.
    ///
    /// # Errors
    /// If there is no such symbol, or it is no text.
    pub fn symbol(&self, number: u32) -> Result<&str, Malformed> {
        let place = self.places.get(number as usize).ok_or(Malformed("no such symbol"))?;
        let bytes = self.symbols.get(place.0 as usize..place.1 as usize).unwrap_or(&[]);
        std::str::from_utf8(bytes).map_err(|_| Malformed("a symbol that is no text"))
    }

    /// Calls `each` with every series, in order.
    ///
    /// # Errors
    /// If one is damaged, or what `each` says.
    pub fn each<E: From<io::Error> + From<Malformed>>(
        &self,
        mut each: impl FnMut(&Series) -> Result<(), E>,
    ) -> Result<(), E> {
        let (mut at, end) = self.series;
        let mut file = BufReader::with_capacity(1 << 16, &self.file);
        file.seek(SeekFrom::Start(at))?;
        let (mut body, mut series) = (Vec::new(), Series::default());
        while at < end {
            // Series begin at multiples of 16; what is between is zero.
            let pad = at.next_multiple_of(16) - at;
            io::copy(&mut file.by_ref().take(pad), &mut io::sink())?;
            at += pad;
            if at >= end {
                break;
            }
            let (len, width) = uvarint_of(&mut file)?;
            if len == 0 {
                at += width;
                continue;
            }
            if len > SERIES_BYTES_MAX || at + width + len + 4 > end {
                return Err(Malformed("a series reaches beyond its section").into());
            }
            body.clear();
            file.by_ref().take(len + 4).read_to_end(&mut body)?;
            series.id = at / 16;
            series.parse(checked(&body)?)?;
            each(&series)?;
            at += width + len + 4;
        }
        Ok(())
    }
}

fn toc(file: &File, len: u64) -> io::Result<Result<[u64; 6], Malformed>> {
    let mut bytes = [0; TOC_LEN];
    let Some(at) = len.checked_sub(TOC_BYTES) else { return Ok(Err(Malformed("cut off"))) };
    file.read_exact_at(&mut bytes, at)?;
    Ok(checked(&bytes).map(|body| {
        let mut refs = [0; 6];
        for (out, bytes) in refs.iter_mut().zip(body.as_chunks::<8>().0) {
            *out = u64::from_be_bytes(*bytes);
        }
        refs
    }))
}

/// A section with its length before and its checksum behind it.
fn section(file: &File, at: u64, end: u64, max: u64) -> io::Result<Result<Vec<u8>, Malformed>> {
    let mut len = [0; 4];
    if at.checked_add(8).is_none_or(|least| least > end) {
        return Ok(Err(Malformed("a section beyond the end")));
    }
    file.read_exact_at(&mut len, at)?;
    let len = u64::from(u32::from_be_bytes(len));
    if len > max || at + 4 + len + 4 > end {
        return Ok(Err(Malformed("a section beyond the end")));
    }
    let mut bytes = vec![0; usize::try_from(len + 4).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, at + 4)?;
    let is_whole = checked(&bytes).map(|_| ());
    bytes.truncate(bytes.len() - 4);
    Ok(is_whole.map(|()| bytes))
}

/// The body before a checksum that holds.
pub(super) fn checked(bytes: &[u8]) -> Result<&[u8], Malformed> {
    let (body, sum) = bytes.split_last_chunk::<4>().ok_or(Malformed("cut off"))?;
    if crc32c::crc32c(body) == u32::from_be_bytes(*sum) { Ok(body) } else { Err(Malformed("checksum")) }
}

/// Where each symbol is.
pub(super) fn places(body: &[u8]) -> Result<Vec<(u32, u32)>, Malformed> {
    let bad = Malformed("symbols");
    let (count, mut rest) = body.split_first_chunk::<4>().ok_or(bad)?;
    let count = u32::from_be_bytes(*count) as usize;
    if count > rest.len() {
        return Err(bad);
    }
    let mut places = Vec::with_capacity(count);
    for _ in 0..count {
        let len = usize::try_from(uvarint(&mut rest)?).map_err(|_| bad)?;
        let from = body.len() - rest.len();
        rest = rest.get(len..).ok_or(bad)?;
        let place = |at: usize| u32::try_from(at).map_err(|_| bad);
        places.push((place(from)?, place(from + len)?));
    }
    Ok(places)
}

/// The next number in steps of seven bits.
pub(super) fn uvarint(bytes: &mut &[u8]) -> Result<u64, Malformed> {
    let mut value = 0u64;
    for shift in (0..70).step_by(7) {
        let (byte, rest) = bytes.split_first().ok_or(Malformed("cut off"))?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
        if *byte < 0x80 {
            return Ok(value);
        }
    }
    Err(Malformed("number too long"))
}

pub(super) fn varint(bytes: &mut &[u8]) -> Result<i64, Malformed> {
    uvarint(bytes).map(unzigzag)
}

fn uvarint_of(file: &mut impl io::Read) -> Result<(u64, u64), io::Error> {
    let (mut value, mut width) = (0u64, 0u32);
    let mut byte = [0];
    loop {
        file.read_exact(&mut byte)?;
        let [read] = byte;
        value |= u64::from(read & 0x7f).checked_shl(7 * width).unwrap_or(0);
        width += 1;
        if read < 0x80 || width >= 10 {
            return Ok((value, u64::from(width)));
        }
    }
}

// === impl Series ===

impl Series {
    /// Reads labels and chunks.
    ///
    /// # Errors
    /// If they are malformed.
    pub fn parse(&mut self, mut body: &[u8]) -> Result<(), Malformed> {
        self.labels.clear();
        self.chunks.clear();
        let bad = Malformed("series");
        let bytes = &mut body;
        let symbol = |bytes: &mut &[u8]| u32::try_from(uvarint(bytes)?).map_err(|_| bad);
        for _ in 0..uvarint(bytes)? {
            let pair = (symbol(bytes)?, symbol(bytes)?);
            self.labels.push(pair);
        }
        let mut last: Option<ChunkMeta> = None;
        for _ in 0..uvarint(bytes)? {
            let (min_t, at) = match last {
                None => (varint(bytes)?, None),
                Some(last) => (last.max_t.checked_add_unsigned(uvarint(bytes)?).ok_or(bad)?, Some(last.at)),
            };
            let max_t = min_t.checked_add_unsigned(uvarint(bytes)?).ok_or(bad)?;
            let at = match at {
                None => uvarint(bytes)?,
                Some(at) => at.checked_add_signed(varint(bytes)?).ok_or(bad)?,
            };
            let chunk = ChunkMeta { min_t, max_t, at };
            self.chunks.push(chunk);
            last = Some(chunk);
        }
        Ok(())
    }
}
