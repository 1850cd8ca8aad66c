//! One series' cells over the rows of a chunk: absent, float or histogram.
//!
//! A chunk of nothing but floats is the float column itself. Any other begins with `0xE0` and its parts: bit 0 a
//! presence bitmap, bit 1 histograms, bit 2 which of the present cells are histograms.

use std::sync::Arc;

use telemetry_model::NativeHistogram;

use super::bitmap::Bits;
use super::floats::{FloatCoder, decode_floats};
use super::histogram::{decode_histograms, encode_histograms};
use super::varint::{put_varint, take, take_varint};
use super::{CELLS_MAX, CodecError, Effort};

const MIXED: u8 = 0xE0;
const HAS_PRESENCE: u8 = 1;
const HAS_HISTOGRAMS: u8 = 2;
const HAS_FLOATS_TOO: u8 = 4;

/// Cells to encode.
#[derive(Clone, Copy, Debug)]
pub struct Cells<'a> {
    /// A value a row; what stands at an absent cell or a histogram is not looked at.
    pub values: &'a [f64],
    /// Which rows have a cell; `None` = all.
    pub present: Option<&'a Bits>,
    /// Row and histogram, rows growing.
    pub histograms: &'a [(u32, &'a NativeHistogram)],
}

/// Cells as they are decoded: several chunks one after the other.
#[derive(Clone, Debug, Default)]
pub struct Decoded {
    /// A value a row.
    pub values: Vec<f64>,
    /// Which rows have a cell; `None` = all.
    pub present: Option<Bits>,
    /// Position among `values` and histogram, growing.
    pub histograms: Vec<(u32, Arc<NativeHistogram>)>,
}

/// Encodes cells; keeps its scratch space.
#[derive(Default)]
pub struct Encoder {
    floats: FloatCoder,
    dense: Vec<f64>,
}

// === impl Decoded ===

impl Decoded {
    /// Forgets everything but its memory.
    pub fn clear(&mut self) {
        self.values.clear();
        self.present = None;
        self.histograms.clear();
    }

    /// Appends rows without a cell.
    pub fn push_absent(&mut self, n: usize) {
        let len = self.values.len();
        self.presence();
        self.values.resize(len + n, 0.0);
        if let Some(present) = &mut self.present {
            present.resize(len + n);
        }
    }

    /// Takes rows without a cell out.
    pub fn drop_absent(&mut self) {
        let Some(present) = self.present.take() else { return };
        let mut histograms = std::mem::take(&mut self.histograms).into_iter().peekable();
        let mut values = Vec::with_capacity(present.count());
        for at in present.iter().take_while(|at| *at < self.values.len()) {
            // Histograms stand at cells that are there.
            if let Some((_, histogram)) = histograms.next_if(|(of, _)| *of as usize == at)
                && let Ok(to) = u32::try_from(values.len())
            {
                self.histograms.push((to, histogram));
            }
            values.extend(self.values.get(at));
        }
        self.values = values;
    }

    /// Whether the row has a cell.
    #[must_use]
    pub fn has(&self, at: usize) -> bool {
        at < self.values.len() && self.present.as_ref().is_none_or(|present| present.get(at))
    }

    /// The bitmap, made if all were present so far.
    fn presence(&mut self) -> &mut Bits {
        let len = self.values.len();
        self.present.get_or_insert_with(|| {
            let mut bits = Bits::new(len);
            bits.fill(len);
            bits
        })
    }
}

// === impl Encoder ===

impl Encoder {
    /// Appends a chunk.
    pub fn encode_cells(&mut self, cells: &Cells<'_>, out: &mut Vec<u8>, effort: Effort) {
        let rows = cells.values.len();
        let present = cells.present.filter(|present| present.count() < rows);
        if present.is_none() && cells.histograms.is_empty() {
            self.floats.encode(cells.values, out, effort);
            return;
        }
        let count = present.map_or(rows, Bits::count);
        let has_floats = count > cells.histograms.len();
        let mut flags = MIXED;
        flags |= if present.is_some() { HAS_PRESENCE } else { 0 };
        flags |= if cells.histograms.is_empty() { 0 } else { HAS_HISTOGRAMS };
        flags |= if has_floats && !cells.histograms.is_empty() { HAS_FLOATS_TOO } else { 0 };
        out.push(flags);
        if let Some(present) = present {
            put_runs(present, rows, out);
        }
        let is_histogram = |row: usize| cells.histograms.binary_search_by_key(&row, |h| h.0 as usize).is_ok();
        self.dense.clear();
        if has_floats {
            let there = (0..rows).filter(|row| present.is_none_or(|present| present.get(*row)));
            let floats = there.filter(|row| cells.histograms.is_empty() || !is_histogram(*row));
            self.dense.extend(floats.filter_map(|row| cells.values.get(row)));
        }
        if cells.histograms.is_empty() {
            self.floats.encode(&self.dense, out, effort);
            return;
        }
        if has_floats {
            let mut kinds = Bits::new(rows);
            cells.histograms.iter().for_each(|(row, _)| kinds.set(*row as usize));
            put_runs(&kinds, rows, out);
            let mut packed = Vec::new();
            self.floats.encode(&self.dense, &mut packed, effort);
            put_varint(out, packed.len() as u64);
            out.extend_from_slice(&packed);
        }
        encode_histograms(&mut self.floats, cells.histograms, out, effort);
    }
}

/// Appends a bitmap as lengths of runs, set and not set in turn, the first set.
fn put_runs(bits: &Bits, rows: usize, out: &mut Vec<u8>) {
    let (mut is_set, mut from) = (true, 0);
    for at in 0..=rows {
        if at == rows || bits.get(at) != is_set {
            put_varint(out, (at - from) as u64);
            (is_set, from) = (!is_set, at);
        }
    }
}

fn get_runs(bytes: &mut &[u8], rows: usize) -> Result<Bits, CodecError> {
    let mut bits = Bits::new(rows);
    let (mut is_set, mut at) = (true, 0usize);
    while at < rows {
        let run = usize::try_from(take_varint(bytes)?).map_err(|_| CodecError::Malformed("run"))?;
        let end = at.checked_add(run).filter(|end| *end <= rows).ok_or(CodecError::Malformed("run"))?;
        if run == 0 && at > 0 {
            return Err(CodecError::Malformed("empty run"));
        }
        if is_set {
            (at..end).for_each(|at| bits.set(at));
        }
        (is_set, at) = (!is_set, end);
    }
    Ok(bits)
}

/// Appends the `n` cells of a chunk.
///
/// # Errors
/// If the bytes are not a chunk of `n` cells.
pub fn decode_cells(mut bytes: &[u8], n: usize, out: &mut Decoded) -> Result<(), CodecError> {
    if n > CELLS_MAX {
        return Err(CodecError::Malformed("too many cells"));
    }
    let code = *bytes.first().ok_or(CodecError::Short)?;
    let from = out.values.len();
    if code & 0xF8 != MIXED {
        if let Err(error) = decode_floats(bytes, n, &mut out.values) {
            out.values.truncate(from);
            return Err(error);
        }
        if let Some(present) = &mut out.present {
            present.resize(from + n);
            (from..from + n).for_each(|at| present.set(at));
        }
        return Ok(());
    }
    take(&mut bytes, 1)?;
    let present = if code & HAS_PRESENCE != 0 { Some(get_runs(&mut bytes, n)?) } else { None };
    let mut values = Vec::new();
    let mut histograms = Vec::new();
    let count = present.as_ref().map_or(n, Bits::count);
    let mut kinds = None;
    if code & HAS_HISTOGRAMS == 0 {
        decode_floats(bytes, count, &mut values)?;
    } else {
        if code & HAS_FLOATS_TOO != 0 {
            let which = get_runs(&mut bytes, n)?;
            let floats = count.checked_sub(which.count()).ok_or(CodecError::Malformed("kinds"))?;
            let len = usize::try_from(take_varint(&mut bytes)?).map_err(|_| CodecError::Short)?;
            decode_floats(take(&mut bytes, len)?, floats, &mut values)?;
            kinds = Some(which);
        }
        let wanted = kinds.as_ref().map_or(count, Bits::count);
        decode_histograms(bytes, wanted, &mut histograms)?;
    }
    let is_mixed = code & HAS_HISTOGRAMS != 0;
    let kind = |row: usize| is_mixed && kinds.as_ref().is_none_or(|kinds| kinds.get(row));
    scatter(out, n, present.as_ref(), &values, histograms, kind);
    Ok(())
}

/// Appends the `n` values of a chunk of floats alone, none absent; another is left as it is, and the answer is no.
///
/// # Errors
/// If the bytes are not a chunk of `n` cells.
pub fn decode_plain(bytes: &[u8], n: usize, out: &mut Vec<f64>) -> Result<bool, CodecError> {
    if bytes.first().is_none_or(|code| code & 0xF8 == MIXED) {
        return Ok(false);
    }
    let from = out.len();
    let decoded = decode_floats(bytes, n, out);
    if decoded.is_err() {
        out.truncate(from);
    }
    decoded.map(|()| true)
}

/// Puts dense values and histograms at their rows.
fn scatter(
    out: &mut Decoded,
    n: usize,
    present: Option<&Bits>,
    values: &[f64],
    histograms: Vec<NativeHistogram>,
    is_histogram: impl Fn(usize) -> bool,
) {
    let from = out.values.len();
    let (mut floats, mut others) = (values.iter(), histograms.into_iter());
    if present.is_some() {
        out.presence();
    }
    out.values.resize(from + n, 0.0);
    if let Some(all) = &mut out.present {
        all.resize(from + n);
    }
    for row in (0..n).filter(|row| present.is_none_or(|present| present.get(*row))) {
        let at = from + row;
        if is_histogram(row) {
            if let (Some(histogram), Ok(at)) = (others.next(), u32::try_from(at)) {
                out.histograms.push((at, Arc::new(histogram)));
            }
        } else if let (Some(value), Some(cell)) = (floats.next(), out.values.get_mut(at)) {
            *cell = *value;
        }
        if let Some(all) = &mut out.present {
            all.set(at);
        }
    }
}
