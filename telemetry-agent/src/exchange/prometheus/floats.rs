//! Chunks of floats: XOR, and XOR2 with its start timestamps.

use telemetry_model::STALE_MARKER;
use telemetry_tsdb::head::Sample;

use super::Malformed;
use super::bits::{Bits, Zeros, signed};

/// Start timestamps: which samples have one. They are read past; the store has no place for them.
pub struct StartTimes {
    has_first: bool,
    changes_from: u16,
}

// === impl StartTimes ===

impl StartTimes {
    /// By the byte that says so.
    #[must_use]
    pub fn of(header: u8) -> Self {
        Self { has_first: header & 0x80 != 0, changes_from: u16::from(header & 0x7f) }
    }

    /// Reads past what belongs to the sample of this number.
    ///
    /// # Errors
    /// If it is cut off.
    pub fn skip(&self, number: u16, bits: &mut Bits<'_>) -> Result<(), Malformed> {
        if number == 0 {
            return if self.has_first { bits.varint().map(|_| ()) } else { Ok(()) };
        }
        let has = self.changes_from > 0 && number >= self.changes_from;
        if has { bits.varbit_int().map(|_| ()) } else { Ok(()) }
    }
}

/// The samples of an XOR chunk.
///
/// # Errors
/// If it is malformed.
pub fn xor(data: &[u8], out: &mut Vec<(i64, Sample)>) -> Result<(), Malformed> {
    let (count, data) = data.split_first_chunk::<2>().ok_or(Malformed("chunk cut off"))?;
    let mut bits = Bits::new(data);
    let mut zeros = Zeros::default();
    let (mut t, mut step, mut value) = (0i64, 0i64, 0f64);
    for number in 0..u16::from_be_bytes(*count) {
        match number {
            0 => (t, value) = (bits.varint()?, bits.f64()?),
            1 => step = bits.uvarint()?.cast_signed(),
            _ => {
                let change = match bits.ones(4)? {
                    0 => 0,
                    1 => signed(bits.get(14)?, 14, 1),
                    2 => signed(bits.get(17)?, 17, 1),
                    3 => signed(bits.get(20)?, 20, 1),
                    _ => bits.get(64)?.cast_signed(),
                };
                step = step.wrapping_add(change);
            }
        }
        if number > 0 {
            t = t.wrapping_add(step);
            value = bits.xor(value, &mut zeros)?;
        }
        out.push((t, Sample::Float(value)));
    }
    Ok(())
}

/// The samples of an XOR2 chunk. Stale markers stand outside the chain of values.
///
/// # Errors
/// If it is malformed.
pub fn xor2(data: &[u8], out: &mut Vec<(i64, Sample)>) -> Result<(), Malformed> {
    let (head, data) = data.split_first_chunk::<3>().ok_or(Malformed("chunk cut off"))?;
    let [high, low, starts] = *head;
    let starts = StartTimes::of(starts);
    let mut bits = Bits::new(data);
    let mut zeros = Zeros::default();
    let (mut t, mut step, mut chain) = (0i64, 0i64, 0f64);
    for number in 0..u16::from_be_bytes([high, low]) {
        let value = match number {
            0 => {
                t = bits.varint()?;
                let first = bits.f64()?;
                if !telemetry_model::is_stale(first) {
                    chain = first;
                }
                first
            }
            1 => {
                step = bits.uvarint()?.cast_signed();
                changed(&mut bits, &mut chain, &mut zeros)?
            }
            _ => match bits.ones(5)? {
                0 => chain,
                1 => {
                    chain = if bits.get(1)? == 0 {
                        bits.xor_within(chain, zeros)?
                    } else {
                        bits.xor_anew(chain, &mut zeros)?
                    };
                    chain
                }
                5 => STALE_MARKER,
                ones => {
                    let width = match ones {
                        2 => 13,
                        3 => 20,
                        _ => 64,
                    };
                    step = step.wrapping_add(signed(bits.get(width)?, width, 0));
                    changed(&mut bits, &mut chain, &mut zeros)?
                }
            },
        };
        if number > 0 {
            t = t.wrapping_add(step);
        }
        starts.skip(number, &mut bits)?;
        out.push((t, Sample::Float(value)));
    }
    Ok(())
}

/// The value where the timestamp does not say that it stays.
fn changed(bits: &mut Bits<'_>, chain: &mut f64, zeros: &mut Zeros) -> Result<f64, Malformed> {
    *chain = match bits.ones(3)? {
        0 => *chain,
        1 => bits.xor_within(*chain, *zeros)?,
        2 => bits.xor_anew(*chain, zeros)?,
        _ => return Ok(STALE_MARKER),
    };
    Ok(*chain)
}
