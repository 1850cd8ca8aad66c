//! A row of floats in the log: a bitmap of cells that changed, and by how much. A row that stands alone is written
//! against nothing; any other names the record it builds upon and is refused without it.

use crate::codec::{Bits, get_varint, put_varint, unzigzag, zigzag};

/// Slots of one row.
const SLOTS_MAX: usize = 1 << 22;
/// Differences beyond this are not exact in a float.
const STEP_MAX: f64 = 4.5e15;
/// A decimal's differences are said in these parts.
const PARTS: f64 = 1e6;

/// A row that is not what its writer wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("row of the log: {0}")]
pub struct RowError(&'static str);

/// Encodes rows; keeps its scratch space.
pub struct RowEncoder {
    body: Vec<u8>,
    zstd: Option<zstd::bulk::Compressor<'static>>,
}

/// Decodes rows; keeps its scratch space.
#[derive(Default)]
pub struct RowDecoder {
    body: Vec<u8>,
}

// === impl RowEncoder ===

impl Default for RowEncoder {
    fn default() -> Self {
        Self { body: Vec::new(), zstd: zstd::bulk::Compressor::new(1).ok() }
    }
}

/// What follows a changed cell's bit: the last three bits of the first varint say how the rest is meant.
const STEP: u64 = 0;
const RAW: u64 = 1;
const PART_STEP: u64 = 2;

impl RowEncoder {
    /// Appends the row `now`, as differences to `before` if there is one.
    pub fn encode(&mut self, before: Option<(&[f64], &Bits)>, now: (&[f64], &Bits), out: &mut Vec<u8>) {
        let (values, present) = now;
        let slots = values.len();
        let body = &mut self.body;
        body.clear();
        put_varint(body, slots as u64);
        let same_presence = before.is_some_and(|(_, bits)| bits == present);
        let full = !same_presence && present.count() == slots;
        body.push(if same_presence { 0 } else { 1 + u8::from(full) });
        if !same_presence && !full {
            put_bitmap(body, slots, |at| present.get(at));
        }
        let changed = body.len();
        body.resize(changed + slots.div_ceil(8), 0);
        let old = before.map_or(&[][..], |(old, _)| old);
        for (at, x) in values.iter().enumerate() {
            let p = old.get(at).copied().unwrap_or(0.0);
            if x.to_bits() == p.to_bits() || !present.get(at) {
                continue;
            }
            if let Some(byte) = body.get_mut(changed + at / 8) {
                *byte |= 1 << (at % 8);
            }
            put_step(body, p, *x);
        }
        let packed = self.zstd.as_mut().and_then(|zstd| zstd.compress(body).ok());
        match packed.filter(|packed| packed.len() < body.len()) {
            Some(packed) => {
                out.push(1);
                out.extend_from_slice(&packed);
            }
            None => {
                out.push(0);
                out.extend_from_slice(body);
            }
        }
    }
}

/// Appends the way from `p` to `x`: a whole step, a step of millionths, or the raw bits.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "steps are checked to be exact")]
fn put_step(body: &mut Vec<u8>, p: f64, x: f64) {
    let d = x - p;
    if d.abs() < STEP_MAX {
        if d.fract() == 0.0 && (p + d).to_bits() == x.to_bits() {
            put_varint(body, zigzag(d as i64) << 2 | STEP);
            return;
        }
        let parts = (x * PARTS).round_ties_even() - (p * PARTS).round_ties_even();
        if parts.abs() < STEP_MAX && part_step(p, parts as i64).to_bits() == x.to_bits() {
            put_varint(body, zigzag(parts as i64) << 2 | PART_STEP);
            return;
        }
    }
    body.push(low_byte(RAW));
    body.extend_from_slice(&x.to_le_bytes());
}

#[expect(clippy::cast_possible_truncation, reason = "a code below four")]
fn low_byte(code: u64) -> u8 {
    code as u8
}

/// `p` and so many millionths.
#[inline]
#[expect(clippy::cast_precision_loss, reason = "below 2^53, as the encoder checked by calling this")]
fn part_step(p: f64, parts: i64) -> f64 {
    ((p * PARTS).round_ties_even() + parts as f64) / PARTS
}

fn put_bitmap(body: &mut Vec<u8>, slots: usize, bit: impl Fn(usize) -> bool) {
    for byte in 0..slots.div_ceil(8) {
        let set = (0..8).filter(|k| byte * 8 + k < slots && bit(byte * 8 + k));
        body.push(set.fold(0, |byte, k| byte | 1 << k));
    }
}

fn bit_of(bitmap: &[u8], at: usize) -> bool {
    bitmap.get(at / 8).is_some_and(|byte| byte >> (at % 8) & 1 == 1)
}

// === impl RowDecoder ===

impl RowDecoder {
    /// The row in `bytes`, built upon `before`: values and presence. An absent cell holds zero,
    /// and must in what was encoded.
    ///
    /// # Errors
    /// If the bytes are not a row.
    pub fn decode(
        &mut self,
        bytes: &[u8],
        before: Option<(&[f64], &Bits)>,
    ) -> Result<(Vec<f64>, Bits), RowError> {
        let (flag, packed) = bytes.split_first().ok_or(RowError("empty"))?;
        let mut body = packed;
        if *flag == 1 {
            self.body.clear();
            let bound = zstd::zstd_safe::get_frame_content_size(packed).ok().flatten().unwrap_or(u64::MAX);
            let bound = usize::try_from(bound).ok().filter(|bound| *bound <= super::BODY_MAX);
            self.body = zstd::bulk::decompress(packed, bound.ok_or(RowError("size"))?)
                .map_err(|_| RowError("does not inflate"))?;
            body = &self.body;
        } else if *flag != 0 {
            return Err(RowError("unknown flag"));
        }
        let slots = usize::try_from(take(&mut body)?).ok().filter(|slots| *slots <= SLOTS_MAX);
        let slots = slots.ok_or(RowError("too many slots"))?;
        let bytes = slots.div_ceil(8);
        let presence = match take_bytes(&mut body, 1)?.first() {
            Some(0) => before.map(|(_, bits)| bits.clone()).filter(|bits| bits.len() == slots),
            Some(2) => {
                let mut bits = Bits::new(slots);
                bits.fill(slots);
                Some(bits)
            }
            _ => {
                let map = take_bytes(&mut body, bytes)?;
                let mut bits = Bits::new(slots);
                (0..slots).filter(|at| bit_of(map, *at)).for_each(|at| bits.set(at));
                Some(bits)
            }
        };
        let presence = presence.ok_or(RowError("no base"))?;
        let changed = take_bytes(&mut body, bytes)?;
        let mut values = before.map_or_else(Vec::new, |(old, _)| old.to_vec());
        values.resize(slots, 0.0);
        for (_, value) in values.iter_mut().enumerate().filter(|(at, _)| bit_of(changed, *at)) {
            *value = step(&mut body, *value)?;
        }
        // The writer's next row builds upon its own, where an absent cell holds zero.
        if presence.count() < slots {
            values
                .iter_mut()
                .enumerate()
                .filter(|(at, _)| !presence.get(*at))
                .for_each(|(_, value)| *value = 0.0);
        }
        Ok((values, presence))
    }
}

#[expect(clippy::cast_precision_loss, reason = "the encoder took only steps that are exact")]
fn step(body: &mut &[u8], p: f64) -> Result<f64, RowError> {
    let code = take(body)?;
    match code & 3 {
        STEP => Ok(p + unzigzag(code >> 2) as f64),
        PART_STEP => Ok(part_step(p, unzigzag(code >> 2))),
        RAW if code == RAW => {
            let bits = take_bytes(body, 8)?.first_chunk::<8>().ok_or(RowError("too short"))?;
            Ok(f64::from_le_bytes(*bits))
        }
        _ => Err(RowError("unknown step")),
    }
}

fn take(body: &mut &[u8]) -> Result<u64, RowError> {
    let (value, used) = get_varint(body).map_err(|_| RowError("varint"))?;
    *body = body.get(used..).unwrap_or(&[]);
    Ok(value)
}

fn take_bytes<'a>(body: &mut &'a [u8], n: usize) -> Result<&'a [u8], RowError> {
    let (head, rest) = body.split_at_checked(n).ok_or(RowError("too short"))?;
    *body = rest;
    Ok(head)
}
