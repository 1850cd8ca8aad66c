//! Sets of series behind one label value. Most values of a label with many belong to one series: that one is kept as
//! a number, not as a bitmap.

use roaring::RoaringBitmap;

use super::SeriesId;

/// A set of series that is not empty.
#[derive(Clone, Debug)]
pub enum Posting {
    /// One.
    One(SeriesId),
    /// More.
    Many(Box<RoaringBitmap>),
}

// === impl Posting ===

impl Posting {
    pub fn insert(&mut self, id: SeriesId) {
        match self {
            Self::One(known) if *known == id => {}
            Self::One(known) => *self = Self::Many(Box::new([*known, id].into_iter().collect())),
            Self::Many(set) => {
                set.insert(id);
            }
        }
    }

    /// Takes a series out; true if none is left.
    pub fn remove(&mut self, id: SeriesId) -> bool {
        match self {
            Self::One(known) => *known == id,
            Self::Many(set) => {
                set.remove(id);
                set.is_empty()
            }
        }
    }

    pub fn len(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Many(set) => usize::try_from(set.len()).unwrap_or(usize::MAX),
        }
    }

    pub fn add_to(&self, all: &mut RoaringBitmap) {
        match self {
            Self::One(id) => {
                all.insert(*id);
            }
            Self::Many(set) => *all |= &**set,
        }
    }

    pub fn intersects(&self, with: &RoaringBitmap) -> bool {
        match self {
            Self::One(id) => with.contains(*id),
            Self::Many(set) => !set.is_disjoint(with),
        }
    }

    /// Memory, about.
    pub fn bytes(&self) -> usize {
        match self {
            Self::One(_) => 0,
            Self::Many(set) => 64 + set.serialized_size() + 48,
        }
    }
}
