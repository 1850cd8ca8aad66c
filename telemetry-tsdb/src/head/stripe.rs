//! Thirty rows turned into columns and packed, one run of bytes a slot.

use std::sync::Arc;

use telemetry_model::NativeHistogram;

use super::row::Row;
use crate::codec::{Bits, Cells, CodecError, Decoded, Effort, Encoder, decode_cells, decode_plain};

/// Slots transposed together: eight `f64` are one cache line of each row.
const LANES: usize = 8;

/// An immutable run of packed rows.
#[derive(Debug)]
pub struct Stripe {
    times: Box<[i64]>,
    /// Where each slot's bytes end in `data`; an absent slot ends where the one before does.
    ends: Box<[u32]>,
    data: Box<[u8]>,
    /// Cells that are there.
    samples: usize,
}

/// The scratch space of packing, kept between stripes.
#[derive(Default)]
pub struct Packer {
    encoder: Encoder,
    data: Vec<u8>,
    tile: Vec<f64>,
}

/// Histogram cells of the rows being packed, in the order of slot and row.
type HistogramCells<'a> = Vec<(u32, u32, &'a NativeHistogram)>;

// === impl Stripe ===

impl Stripe {
    /// Times of the rows.
    #[must_use]
    pub fn times(&self) -> &[i64] {
        &self.times
    }

    /// How many slots it knows.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.ends.len()
    }

    /// How many cells are there.
    #[must_use]
    pub fn samples(&self) -> usize {
        self.samples
    }

    /// Memory of the stripe.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.data.len() + self.ends.len() * 4 + self.times.len() * 8
    }

    /// The packed cells of a slot; empty if it is absent in all rows.
    #[must_use]
    pub fn cells(&self, slot: u32) -> &[u8] {
        let at = slot as usize;
        let end = self.ends.get(at).copied().unwrap_or(0) as usize;
        let begin = at.checked_sub(1).and_then(|at| self.ends.get(at)).copied().unwrap_or(0) as usize;
        self.data.get(begin..end).unwrap_or(&[])
    }

    /// The rows that were packed. What cannot be decoded is absent.
    #[must_use]
    pub fn rows(&self) -> Vec<Row> {
        let slots = self.slots();
        let mut rows: Vec<Row> = self.times.iter().map(|t| Row::new(*t, slots)).collect();
        let mut cells = Decoded::default();
        for slot in (0u32..).take(slots) {
            cells.clear();
            if self.read(slot, &mut cells).is_err() {
                continue;
            }
            let mut histograms = cells.histograms.iter().peekable();
            for (at, row) in rows.iter_mut().enumerate().filter(|(at, _)| cells.has(*at)) {
                match histograms.next_if(|(of, _)| *of as usize == at) {
                    Some((_, histogram)) => row.set_histogram(slot, Arc::clone(histogram)),
                    None => row.set(slot, cells.values.get(at).copied().unwrap_or(0.0)),
                }
            }
        }
        rows
    }

    /// Appends the cells of a slot: one a row, absent ones too.
    ///
    /// # Errors
    /// If the bytes are not what the codec wrote: memory was damaged.
    pub fn read(&self, slot: u32, out: &mut Decoded) -> Result<(), CodecError> {
        let cells = self.cells(slot);
        if cells.is_empty() {
            out.push_absent(self.times.len());
            return Ok(());
        }
        decode_cells(cells, self.times.len(), out)
    }

    /// Appends the values of a slot if they are numbers alone, none absent.
    ///
    /// # Errors
    /// As [`Stripe::read`].
    pub fn read_plain(&self, slot: u32, out: &mut Vec<f64>) -> Result<bool, CodecError> {
        decode_plain(self.cells(slot), self.times.len(), out)
    }
}

// === impl Packer ===

impl Packer {
    /// Packs rows; `slots` is the group's number of slots, at least that of any row.
    #[must_use]
    pub fn pack(&mut self, rows: &[Arc<Row>], slots: usize) -> Stripe {
        let mut full = Bits::new(slots);
        let mut some = Bits::new(slots);
        for slot in 0..slots {
            full.set(slot);
        }
        for row in rows {
            full.and(row.present());
            some.or(row.present());
        }
        let histograms = histogram_cells(rows);
        let mut rest = histograms.as_slice();
        let mut ends = Vec::with_capacity(slots);
        self.data.clear();
        let height = rows.len();
        let mut present = Bits::new(height);
        let mut own = Vec::new();
        for at in (0..slots).step_by(LANES) {
            self.transpose(rows, at);
            for lane in 0..LANES.min(slots - at) {
                let slot = at + lane;
                if some.get(slot) {
                    let values = self.tile.get(lane * height..(lane + 1) * height).unwrap_or(&[]);
                    let is_full = full.get(slot);
                    if !is_full {
                        presence(rows, slot, &mut present);
                    }
                    own.clear();
                    while let Some((first, others)) = rest.split_first()
                        && first.0 as usize <= slot
                    {
                        own.push((first.1, first.2));
                        rest = others;
                    }
                    let cells = Cells { values, present: (!is_full).then_some(&present), histograms: &own };
                    self.encoder.encode_cells(&cells, &mut self.data, Effort::Fast);
                }
                ends.push(u32::try_from(self.data.len()).unwrap_or(u32::MAX));
            }
        }
        Stripe {
            times: rows.iter().map(|row| row.t).collect(),
            ends: ends.into(),
            data: self.data.as_slice().into(),
            samples: rows.iter().map(|row| row.samples()).sum(),
        }
    }

    /// Columns of the eight slots from `at` on, one after the other.
    fn transpose(&mut self, rows: &[Arc<Row>], at: usize) {
        let height = rows.len();
        self.tile.clear();
        self.tile.resize(LANES * height, 0.0);
        for (y, row) in rows.iter().enumerate() {
            let end = row.values().len().min(at + LANES);
            let cells = row.values().get(at..end).unwrap_or(&[]);
            for (x, value) in cells.iter().enumerate() {
                if let Some(cell) = self.tile.get_mut(x * height + y) {
                    *cell = *value;
                }
            }
        }
    }
}

/// Which of the rows have a cell at `slot`.
fn presence(rows: &[Arc<Row>], slot: usize, out: &mut Bits) {
    for (y, row) in rows.iter().enumerate() {
        if slot < row.slots() && row.present().get(slot) {
            out.set(y);
        } else {
            out.clear(y);
        }
    }
}

fn histogram_cells(rows: &[Arc<Row>]) -> HistogramCells<'_> {
    let mut cells = Vec::new();
    for (y, row) in rows.iter().enumerate() {
        let y = u32::try_from(y).unwrap_or(u32::MAX);
        cells.extend(row.histograms().iter().map(|(slot, histogram)| (*slot, y, histogram.as_ref())));
    }
    cells.sort_by_key(|(slot, y, _)| (*slot, *y));
    cells
}
