//! Twenty minutes of one group, complete: what goes into a file.

use std::sync::Arc;

use super::{GroupId, Stripe};
use crate::codec::{CodecError, Decoded};
use crate::index::SeriesId;

/// The rows of one group in one window, packed.
#[derive(Clone, Debug)]
pub struct Window {
    /// Whose.
    pub group: GroupId,
    /// Which: see [`super::window_of`].
    pub number: i64,
    /// Packed rows in the order of time.
    pub stripes: Vec<Arc<Stripe>>,
    /// The series of each slot. A slot belongs to one series for a whole window.
    pub series: Arc<[SeriesId]>,
}

// === impl Window ===

impl Window {
    /// Times of all rows.
    #[must_use]
    pub fn times(&self) -> Vec<i64> {
        self.stripes.iter().flat_map(|stripe| stripe.times().iter().copied()).collect()
    }

    /// How many rows it has.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.stripes.iter().map(|stripe| stripe.times().len()).sum()
    }

    /// How many cells are there.
    #[must_use]
    pub fn samples(&self) -> usize {
        self.stripes.iter().map(|stripe| stripe.samples()).sum()
    }

    /// Memory of the window.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.series.len() * 4 + self.stripes.iter().map(|stripe| stripe.bytes()).sum::<usize>()
    }

    /// Whether the slot has a cell in any row.
    #[must_use]
    pub fn has(&self, slot: u32) -> bool {
        self.stripes.iter().any(|stripe| !stripe.cells(slot).is_empty())
    }

    /// Appends the cells of a slot, one a row.
    ///
    /// # Errors
    /// If memory was damaged.
    pub fn read(&self, slot: u32, out: &mut Decoded) -> Result<(), CodecError> {
        self.stripes.iter().try_for_each(|stripe| stripe.read(slot, out))
    }
}
