//! Chunk codecs: floats, integers, timestamps and native histograms as columns.
//!
//! Every float comes back bit for bit. A chunk's first byte names its codec; the number of cells is known outside.
//! Decoders trust nothing: every length is checked, an unknown code is an error, and memory is bounded by the number
//! of cells asked for. Knows no series, no file and no checksum. Called by the head, the files and the log.

mod bitmap;
mod bitstream;
mod cells;
mod floats;
mod histogram;
mod ints;
mod varint;
mod xor;

#[cfg(test)]
mod tests;

pub use bitmap::Bits;
pub use cells::{Cells, Decoded, Encoder, decode_cells, decode_plain};
pub use floats::{FloatCoder, decode_floats};
pub use ints::{decode_times, encode_times};
pub use varint::{get_varint, put_varint, unzigzag, zigzag};

/// The most cells one chunk may have: a day of seconds.
pub const CELLS_MAX: usize = 1 << 17;

/// Bytes that are not what an encoder wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The bytes end before the cells do.
    #[error("chunk is too short")]
    Short,
    /// No codec has this code.
    #[error("chunk has the unknown code {0:#04x}")]
    Code(u8),
    /// A number in it is impossible.
    #[error("chunk is malformed: {0}")]
    Malformed(&'static str),
}

/// How hard an encoder tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// Nanoseconds a value: the head and fresh files.
    Fast,
    /// Whatever is smallest: compaction of long columns.
    Long,
}
