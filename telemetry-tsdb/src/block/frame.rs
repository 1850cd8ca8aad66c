//! Frames: `magic (4) · kind u8 · length u32 · body · CRC32C of kind, length and body`, little-endian.

use std::io;

use crate::fs::{File, again};

/// Begins every frame.
const MAGIC: [u8; 4] = *b"\xA7tb\x1F";
/// Bytes before the body.
pub const HEADER: usize = 9;
/// Bytes of a frame beside its body.
pub const OVERHEAD: usize = HEADER + 4;
/// The longest body.
pub const BODY_MAX: usize = 256 << 20;

/// What a frame holds.
pub mod kind {
    /// Version of the format, first in every file.
    pub const HEADER: u8 = 1;
    /// A timestamp column.
    pub const TIMES: u8 = 2;
    /// Chunks.
    pub const CHUNKS: u8 = 3;
    /// Series and owners.
    pub const INDEX: u8 = 4;
    /// What families are.
    pub const METADATA: u8 = 5;
    /// Where everything is, and what the file is.
    pub const TABLE: u8 = 6;
    /// Where the table is: last, of fixed length.
    pub const FOOTER: u8 = 7;
}

/// Appends a frame.
pub fn put(out: &mut Vec<u8>, kind: u8, body: &[u8]) {
    out.extend_from_slice(&MAGIC);
    let from = out.len();
    out.push(kind);
    out.extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(body);
    let crc = crc32c::crc32c(out.get(from..).unwrap_or(&[]));
    out.extend_from_slice(&crc.to_le_bytes());
}

/// The body of the frame that these bytes are, if they are one of this kind.
pub fn parse(bytes: &[u8], kind: u8) -> Option<&[u8]> {
    let rest = bytes.strip_prefix(&MAGIC)?;
    let (body, crc) = rest.split_last_chunk::<4>()?;
    if crc32c::crc32c(body) != u32::from_le_bytes(*crc) || *body.first()? != kind {
        return None;
    }
    let len = u32::from_le_bytes(*body.get(1..)?.first_chunk::<4>()?);
    let body = body.get(5..)?;
    (usize::try_from(len).ok()? == body.len()).then_some(body)
}

/// Kind and length of the frame that begins here, by its header alone.
pub fn peek(bytes: &[u8]) -> Option<(u8, usize)> {
    let rest = bytes.strip_prefix(&MAGIC)?;
    let len = usize::try_from(u32::from_le_bytes(*rest.get(1..)?.first_chunk::<4>()?)).ok()?;
    (len <= BODY_MAX).then_some((*rest.first()?, len + OVERHEAD))
}

/// Position of the next magic from `from` on, or the end.
pub fn next_magic(bytes: &[u8], from: usize) -> usize {
    let rest = bytes.get(from..).unwrap_or(&[]);
    rest.windows(MAGIC.len()).position(|window| window == MAGIC).map_or(bytes.len(), |at| from + at)
}

/// Reads a frame, again if the disk refuses.
pub fn read(file: &dyn File, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    if len > BODY_MAX + OVERHEAD {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = vec![0; len];
    again(|| file.read_at(&mut bytes, offset))?;
    Ok(bytes)
}

/// The body of a frame whose checksum was verified when it was read.
pub fn parse_unchecked(bytes: &[u8]) -> Option<&[u8]> {
    bytes.get(HEADER..bytes.len().checked_sub(4)?)
}
