//! Floats: values that are whole multiples of a power of ten become integers; anything else is XORed. At compaction
//! pco competes. Exact for every bit pattern.

use super::ints::{IntPacker, unpack};
use super::varint::{put_varint, take, take_varint};
use super::{CELLS_MAX, CodecError, Effort, unzigzag, xor, zigzag};

/// Powers of ten by the code's scale.
const POWERS: [f64; 10] = [1.0, 10.0, 100.0, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];
/// Scales that are tried: whole numbers, tenths to thousandths, micro and nano.
const SCALES: [u8; 6] = [0, 1, 2, 3, 6, 9];
/// Integers of this size and above are left to XOR.
const WHOLE_MAX: f64 = 9e15;
/// Beyond so many bytes a value the packed form is compared with XOR.
const XOR_FROM: usize = 5;
/// Columns shorter than this are not worth pco's header.
const PCO_FROM: usize = 256;
/// pco's level: beyond it the gain is below a hundredth of a byte.
const PCO_LEVEL: usize = 4;

const ZERO: u8 = 0xF0;
const RAW: u8 = 0xF1;
const WHOLE: u8 = 0xF2;
const XOR: u8 = 0xF3;
const PCO: u8 = 0xF4;
/// pco over the integers of a decimal column; the scale follows.
const PCO_DECIMAL: u8 = 0xF5;

/// Encodes float columns; keeps its scratch space.
#[derive(Default)]
pub struct FloatCoder {
    packer: IntPacker,
    whole: Vec<i64>,
    other: Vec<u8>,
}

// === impl FloatCoder ===

impl FloatCoder {
    /// Appends a column; an empty one is no bytes.
    pub fn encode(&mut self, values: &[f64], out: &mut Vec<u8>, effort: Effort) {
        let Some(first) = values.first() else { return };
        let bits = first.to_bits();
        if values.iter().all(|x| x.to_bits() == bits) {
            constant(*first, out);
            return;
        }
        let from = out.len();
        let scale = SCALES.into_iter().find(|scale| scaled(values, power(*scale), &mut self.whole));
        match scale {
            Some(scale) => {
                out.push(0);
                let form = self.packer.pack(&self.whole, out);
                if let Some(code) = out.get_mut(from) {
                    *code = scale << 2 | form as u8;
                }
                if out.len() - from > values.len() * XOR_FROM {
                    self.try_xor(values, out, from);
                }
            }
            None => {
                out.push(XOR);
                xor::encode(values, out);
            }
        }
        if effort == Effort::Long && values.len() >= PCO_FROM {
            self.try_pco(values, scale, out, from);
        }
    }

    fn try_xor(&mut self, values: &[f64], out: &mut Vec<u8>, from: usize) {
        self.other.clear();
        self.other.push(XOR);
        xor::encode(values, &mut self.other);
        if self.other.len() < out.len() - from {
            out.truncate(from);
            out.extend_from_slice(&self.other);
        }
    }

    fn try_pco(&mut self, values: &[f64], scale: Option<u8>, out: &mut Vec<u8>, from: usize) {
        let config = pco::ChunkConfig::default().with_compression_level(PCO_LEVEL);
        self.other.clear();
        let packed = match scale {
            Some(scale) => {
                self.other.extend([PCO_DECIMAL, scale]);
                pco::standalone::simple_compress(&self.whole, &config)
            }
            None => {
                self.other.push(PCO);
                pco::standalone::simple_compress(values, &config)
            }
        };
        let Ok(packed) = packed else { return };
        if self.other.len() + packed.len() < out.len() - from {
            out.truncate(from);
            out.extend_from_slice(&self.other);
            out.extend_from_slice(&packed);
        }
    }
}

fn power(scale: u8) -> f64 {
    POWERS.get(usize::from(scale)).copied().unwrap_or(1.0)
}

/// A column of one value.
#[expect(clippy::cast_possible_truncation, reason = "a whole number below 9e15")]
fn constant(value: f64, out: &mut Vec<u8>) {
    let bits = value.to_bits();
    if bits == 0 {
        out.push(ZERO);
    } else if value.fract() == 0.0 && value.abs() < WHOLE_MAX && bits != (-0.0f64).to_bits() {
        out.push(WHOLE);
        put_varint(out, zigzag(value as i64));
    } else {
        out.push(RAW);
        out.extend_from_slice(&bits.to_le_bytes());
    }
}

/// The integers behind the values, if each is exactly one divided by `scale`.
#[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "below 9e15, so exact")]
fn scaled(values: &[f64], scale: f64, whole: &mut Vec<i64>) -> bool {
    whole.clear();
    for x in values {
        let r = (x * scale).round_ties_even();
        // NaN fails the comparison; -0.0 comes back as 0.0 and fails the other.
        if r.abs() < WHOLE_MAX && ((r as i64) as f64 / scale).to_bits() == x.to_bits() {
            whole.push(r as i64);
        } else {
            return false;
        }
    }
    true
}

/// Appends the `n` values of a column.
///
/// # Errors
/// If the bytes are not a column of `n` values.
#[expect(clippy::cast_precision_loss, reason = "the encoder took only integers that are exact")]
pub fn decode_floats(bytes: &[u8], n: usize, out: &mut Vec<f64>) -> Result<(), CodecError> {
    if n > CELLS_MAX {
        return Err(CodecError::Malformed("too many cells"));
    }
    if n == 0 {
        return Ok(());
    }
    let (code, mut rest) = bytes.split_first().ok_or(CodecError::Short)?;
    match *code {
        ZERO => out.resize(out.len() + n, 0.0),
        RAW => {
            let bits = take(&mut rest, 8)?.first_chunk::<8>().ok_or(CodecError::Short)?;
            out.resize(out.len() + n, f64::from_bits(u64::from_le_bytes(*bits)));
        }
        WHOLE => out.resize(out.len() + n, unzigzag(take_varint(&mut rest)?) as f64),
        XOR => xor::decode(rest, n, out)?,
        PCO => {
            let from = out.len();
            out.resize(from + n, 0.0);
            inflate(rest, out.get_mut(from..).unwrap_or_default())?;
        }
        PCO_DECIMAL => {
            let scale = take(&mut rest, 1)?.first().copied().unwrap_or(0);
            let scale = *POWERS.get(usize::from(scale)).ok_or(CodecError::Code(scale))?;
            let mut whole = vec![0i64; n];
            inflate(rest, &mut whole)?;
            out.extend(whole.iter().map(|x| *x as f64 / scale));
        }
        code => {
            let scale = *POWERS.get(usize::from(code >> 2)).ok_or(CodecError::Code(code))?;
            out.reserve(n);
            // Most columns are whole numbers: a division less.
            if code >> 2 == 0 {
                unpack(rest, n, code & 3, |x| out.push(x as f64))?;
            } else {
                unpack(rest, n, code & 3, |x| out.push(x as f64 / scale))?;
            }
        }
    }
    Ok(())
}

fn inflate<T: pco::data_types::Number>(bytes: &[u8], out: &mut [T]) -> Result<(), CodecError> {
    let progress = pco::standalone::simple_decompress_into(bytes, out)
        .map_err(|_| CodecError::Malformed("pco column"))?;
    if progress.n_processed == out.len() && progress.finished { Ok(()) } else { Err(CodecError::Short) }
}
