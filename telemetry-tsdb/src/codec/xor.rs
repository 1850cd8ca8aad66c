//! Gorilla's scheme for floats that are no decimals: what differs from the value before, leading and trailing zeros
//! left out. Timestamps are not its business.

use super::CodecError;
use super::bitstream::{BitReader, BitWriter};

/// Appends the values; there is at least one.
pub fn encode(values: &[f64], out: &mut Vec<u8>) {
    let mut w = BitWriter::new(out);
    let (mut last, mut leading, mut significant) = (0u64, 65u32, 0u32);
    for (at, value) in values.iter().enumerate() {
        let bits = value.to_bits();
        let x = bits ^ last;
        last = bits;
        if at == 0 {
            w.put(bits, 64);
        } else if x == 0 {
            w.put(0, 1);
        } else {
            let (lead, trail) = (x.leading_zeros().min(31), x.trailing_zeros());
            let fits = leading <= 31 && lead >= leading && trail >= 64 - leading - significant;
            // A stored window of the bits before is used again while it costs less than saying a new one.
            if fits && significant <= 64 - lead - trail + 11 {
                w.put(0b10, 2);
                w.put(x >> (64 - leading - significant), significant);
            } else {
                (leading, significant) = (lead, 64 - lead - trail);
                w.put(0b11, 2);
                w.put(u64::from(leading), 5);
                w.put(u64::from(significant - 1), 6);
                w.put(x >> trail, significant);
            }
        }
    }
    w.finish();
}

/// Appends `n` values.
pub fn decode(bytes: &[u8], n: usize, out: &mut Vec<f64>) -> Result<(), CodecError> {
    let mut r = BitReader::new(bytes);
    let (mut last, mut leading, mut significant) = (0u64, 0u32, 0u32);
    for at in 0..n {
        if at == 0 {
            last = r.get(64);
        } else if r.get(1) == 1 {
            if r.get(1) == 1 {
                leading = low(r.get(5));
                significant = low(r.get(6)) + 1;
            }
            let shift = 64u32
                .checked_sub(leading + significant)
                .filter(|_| significant > 0)
                .ok_or(CodecError::Malformed("bits beyond the word"))?;
            last ^= r.get(significant) << shift;
        }
        out.push(f64::from_bits(last));
    }
    if r.is_overrun() { Err(CodecError::Short) } else { Ok(()) }
}

/// A number of a few bits.
#[expect(clippy::cast_possible_truncation, reason = "at most seven bits were read")]
fn low(v: u64) -> u32 {
    v as u32
}
