//! Integers of a column: deltas, thirty at a time, packed at the width the widest needs. Timestamps, and what floats
//! become when they are decimals.

use super::bitstream::{BitReader, BitWriter};
use super::varint::{put_varint, take_varint};
use super::{CodecError, unzigzag, zigzag};

/// Deltas packed at one width.
const BLOCK: usize = 30;
/// All deltas are one: the timestamps of exact ticks.
const EVEN: u8 = 4;

/// How the deltas of a column are said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As they are.
    Delta = 0,
    /// By their differences.
    DeltaOfDelta = 1,
    /// Less the least of their block.
    AboveLeast = 2,
}

/// Scratch space of packing.
#[derive(Default)]
pub struct IntPacker {
    first: Vec<i64>,
    second: Vec<i64>,
}

fn width(v: u64) -> u32 {
    64 - v.leading_zeros()
}

fn or_width(block: &[i64]) -> u32 {
    width(block.iter().fold(0, |all, x| all | zigzag(*x)))
}

fn bounds(block: &[i64]) -> (i64, i64) {
    block.iter().fold((i64::MAX, i64::MIN), |(lo, hi), x| (lo.min(*x), hi.max(*x)))
}

/// The distance of two deltas; deltas are below 2^55 in size.
fn above(x: i64, least: i64) -> u64 {
    x.wrapping_sub(least).cast_unsigned()
}

// === impl IntPacker ===

impl IntPacker {
    /// Appends the first value and the packed deltas of a column that is not empty; returns how they are said. Values
    /// are below 2^54 in size.
    pub fn pack(&mut self, values: &[i64], out: &mut Vec<u8>) -> Form {
        let Some((first, _)) = values.split_first() else { return Form::Delta };
        self.first.clear();
        self.first.extend(values.iter().zip(values.iter().skip(1)).map(|(a, b)| b.wrapping_sub(*a)));
        self.second.clear();
        let mut before = 0i64;
        self.second.extend(self.first.iter().map(|d| {
            let step = d.wrapping_sub(before);
            before = *d;
            step
        }));
        let form = self.cheapest();
        put_varint(out, zigzag(*first));
        let mut w = BitWriter::new(out);
        let deltas = if form == Form::DeltaOfDelta { &self.second } else { &self.first };
        for block in deltas.chunks(BLOCK) {
            if form == Form::AboveLeast {
                let (lo, hi) = bounds(block);
                let (bits, least) = (width(above(hi, lo)), zigzag(lo));
                w.put(u64::from(bits), 7);
                w.put(u64::from(width(least)), 7);
                w.put(least, width(least));
                block.iter().for_each(|x| w.put(above(*x, lo), bits));
            } else {
                let bits = or_width(block);
                w.put(u64::from(bits), 7);
                block.iter().for_each(|x| w.put(zigzag(*x), bits));
            }
        }
        w.finish();
        form
    }

    fn cheapest(&self) -> Form {
        let plain = |deltas: &[i64]| -> u64 {
            deltas.chunks(BLOCK).map(|block| block.len() as u64 * u64::from(or_width(block)) + 7).sum()
        };
        let (first, second) = (plain(&self.first), plain(&self.second));
        let least: u64 = self
            .first
            .chunks(BLOCK)
            .map(|block| {
                let (lo, hi) = bounds(block);
                14 + u64::from(width(zigzag(lo))) + block.len() as u64 * u64::from(width(above(hi, lo)))
            })
            .sum();
        match (least < first && least < second, second < first) {
            (true, _) => Form::AboveLeast,
            (_, true) => Form::DeltaOfDelta,
            _ => Form::Delta,
        }
    }
}

/// Calls `each` with the `n` integers packed in `bytes`.
#[inline(always)]
pub fn unpack(mut bytes: &[u8], n: usize, form: u8, mut each: impl FnMut(i64)) -> Result<(), CodecError> {
    if n == 0 {
        return Ok(());
    }
    let mut x = unzigzag(take_varint(&mut bytes)?);
    let mut r = BitReader::new(bytes);
    each(x);
    let (mut left, mut delta) = (n - 1, 0i64);
    while left > 0 {
        let m = left.min(BLOCK);
        let bits = width_of(r.get(7))?;
        match form {
            2 => {
                let least_bits = width_of(r.get(7))?;
                let least = unzigzag(r.get(least_bits));
                for _ in 0..m {
                    x = x.wrapping_add(least).wrapping_add(r.get(bits).cast_signed());
                    each(x);
                }
            }
            1 => {
                for _ in 0..m {
                    delta = delta.wrapping_add(unzigzag(r.get(bits)));
                    x = x.wrapping_add(delta);
                    each(x);
                }
            }
            0 => {
                for _ in 0..m {
                    x = x.wrapping_add(unzigzag(r.get(bits)));
                    each(x);
                }
            }
            other => return Err(CodecError::Code(other)),
        }
        left -= m;
    }
    if r.is_overrun() { Err(CodecError::Short) } else { Ok(()) }
}

fn width_of(bits: u64) -> Result<u32, CodecError> {
    u32::try_from(bits).ok().filter(|bits| *bits <= 64).ok_or(CodecError::Malformed("width over 64 bits"))
}

/// Appends a column of times.
pub fn encode_times(times: &[i64], out: &mut Vec<u8>) {
    let mut steps = times.iter().zip(times.iter().skip(1)).map(|(a, b)| b.wrapping_sub(*a));
    let step = steps.next().unwrap_or(0);
    if steps.all(|other| other == step) {
        out.push(EVEN);
        put_varint(out, zigzag(times.first().copied().unwrap_or(0)));
        put_varint(out, zigzag(step));
        return;
    }
    let at = out.len();
    out.push(0);
    let form = IntPacker::default().pack(times, out);
    if let Some(code) = out.get_mut(at) {
        *code = form as u8;
    }
}

/// Appends `n` times.
///
/// # Errors
/// If the bytes are not a column of as many times, or they do not grow.
pub fn decode_times(mut bytes: &[u8], n: usize, out: &mut Vec<i64>) -> Result<(), CodecError> {
    if n > super::CELLS_MAX {
        return Err(CodecError::Malformed("too many rows"));
    }
    let (code, rest) = bytes.split_first().ok_or(CodecError::Short)?;
    bytes = rest;
    let from = out.len();
    if *code == EVEN {
        let (first, step) = (unzigzag(take_varint(&mut bytes)?), unzigzag(take_varint(&mut bytes)?));
        let mut t = first;
        for _ in 0..n {
            out.push(t);
            t = t.wrapping_add(step);
        }
    } else {
        unpack(bytes, n, *code, |t| out.push(t))?;
    }
    let grown = out.get(from..).unwrap_or(&[]);
    if grown.is_sorted_by(|a, b| a < b) { Ok(()) } else { Err(CodecError::Malformed("times do not grow")) }
}
