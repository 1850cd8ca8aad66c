//! One row: what all series of a group said at one time.

use std::borrow::Cow;
use std::sync::Arc;

use telemetry_model::NativeHistogram;

use crate::codec::Bits;

/// A value as a series holds it.
#[derive(Clone, Debug, PartialEq)]
pub enum Sample {
    /// A float; counters, gauges, and the stale marker.
    Float(f64),
    /// A native histogram.
    Histogram(Arc<NativeHistogram>),
}

/// The cells of one time. A slot beyond the row's end is absent in it.
#[derive(Clone, Debug)]
pub struct Row {
    /// Milliseconds since the epoch.
    pub t: i64,
    values: Vec<f64>,
    present: Bits,
    histograms: Vec<(u32, Arc<NativeHistogram>)>,
}

// === impl Sample ===

impl Sample {
    /// Whether both say the same, bit for bit. A bucket without an observation is no bucket: chunks do not keep it.
    #[must_use]
    pub fn same_bits(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Float(a), Self::Float(b)) => a.to_bits() == b.to_bits(),
            (Self::Histogram(a), Self::Histogram(b)) => {
                a.sum.to_bits() == b.sum.to_bits() && {
                    let (mut a, mut b) = ((**a).clone(), (**b).clone());
                    for histogram in [&mut a, &mut b] {
                        histogram.sum = 0.0;
                        for buckets in [&mut histogram.positive, &mut histogram.negative] {
                            *buckets = buckets.iter().filter(|(_, count)| *count != 0.0).collect();
                        }
                    }
                    a == b
                }
            }
            _ => false,
        }
    }
}

// === impl Row ===

impl Row {
    /// A row with room for `slots` cells, all absent.
    #[must_use]
    pub fn new(t: i64, slots: usize) -> Self {
        Self { t, values: vec![0.0; slots], present: Bits::new(slots), histograms: Vec::new() }
    }

    /// A row of floats; absent cells hold zero.
    #[must_use]
    pub fn from_parts(t: i64, values: Vec<f64>, present: Bits) -> Self {
        debug_assert_eq!(values.len(), present.len(), "a bit a cell");
        Self { t, values, present, histograms: Vec::new() }
    }

    /// How many slots the row has room for.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.values.len()
    }

    /// Sets a cell to a float.
    pub fn set(&mut self, slot: u32, value: f64) {
        self.grow(slot);
        if let Some(cell) = self.values.get_mut(slot as usize) {
            *cell = value;
        }
        if !self.histograms.is_empty()
            && let Ok(at) = self.histograms.binary_search_by_key(&slot, |h| h.0)
        {
            self.histograms.remove(at);
        }
        self.present.set(slot as usize);
    }

    /// Sets a cell to a histogram.
    pub fn set_histogram(&mut self, slot: u32, histogram: Arc<NativeHistogram>) {
        self.set(slot, 0.0);
        match self.histograms.binary_search_by_key(&slot, |h| h.0) {
            Ok(at) => {
                if let Some(cell) = self.histograms.get_mut(at) {
                    cell.1 = histogram;
                }
            }
            Err(at) => self.histograms.insert(at, (slot, histogram)),
        }
    }

    /// Sets a cell to either.
    pub fn set_sample(&mut self, slot: u32, sample: Sample) {
        match sample {
            Sample::Float(value) => self.set(slot, value),
            Sample::Histogram(histogram) => self.set_histogram(slot, histogram),
        }
    }

    /// Makes a cell absent.
    pub fn clear(&mut self, slot: u32) {
        if (slot as usize) < self.values.len() {
            self.present.clear(slot as usize);
            self.histograms.retain(|(of, _)| *of != slot);
        }
    }

    /// The cell of a slot.
    #[must_use]
    pub fn get(&self, slot: u32) -> Option<Sample> {
        if slot as usize >= self.values.len() || !self.present.get(slot as usize) {
            return None;
        }
        if !self.histograms.is_empty()
            && let Ok(at) = self.histograms.binary_search_by_key(&slot, |h| h.0)
        {
            return self.histograms.get(at).map(|h| Sample::Histogram(Arc::clone(&h.1)));
        }
        self.values.get(slot as usize).map(|value| Sample::Float(*value))
    }

    /// All float cells; what stands in an absent cell or a histogram's means nothing.
    #[must_use]
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// Which cells are there.
    #[must_use]
    pub fn present(&self) -> &Bits {
        &self.present
    }

    /// Which cells are there and floats.
    #[must_use]
    pub fn floats(&self) -> Cow<'_, Bits> {
        if self.histograms.is_empty() {
            return Cow::Borrowed(&self.present);
        }
        let mut floats = self.present.clone();
        self.histograms.iter().for_each(|(slot, _)| floats.clear(*slot as usize));
        Cow::Owned(floats)
    }

    /// Histogram cells in the order of their slots.
    #[must_use]
    pub fn histograms(&self) -> &[(u32, Arc<NativeHistogram>)] {
        &self.histograms
    }

    /// How many cells are there.
    #[must_use]
    pub fn samples(&self) -> usize {
        self.present.count()
    }

    fn grow(&mut self, slot: u32) {
        let slots = slot as usize + 1;
        if slots > self.values.len() {
            self.values.resize(slots, 0.0);
            self.present.resize(slots);
        }
    }
}
