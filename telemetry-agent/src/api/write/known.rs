//! Series that senders have sent before: found again by a hash of what stands in the request, without reading it. A sender
//! repeats the labels of every series with every sample.
//!
//! Two hashes of 64 bits under keys of this process: that two label sets have both is as likely as a disk that lies.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hash, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ahash::RandomState;
use telemetry_tsdb::db::SeriesRef;

/// Series that are remembered; of more, all are forgotten and found anew.
const SERIES_MAX: usize = 1 << 18;

/// What labels are known by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Key([u64; 2]);

/// The two hashes.
pub(super) struct Hashes([RandomState; 2]);

/// The series of all senders.
#[derive(Default)]
pub(super) struct Known {
    pub(super) hashes: Hashes,
    series: Mutex<HashMap<Key, SeriesRef, Plain>>,
}

/// Hashes what is a hash already.
#[derive(Clone, Copy, Default)]
struct Plain;

#[derive(Default)]
struct PlainHasher(u64);

// === impl Key ===

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0[0]);
    }
}

// === impl Hashes ===

impl Default for Hashes {
    fn default() -> Self {
        Self([RandomState::new(), RandomState::new()])
    }
}

impl Hashes {
    /// Of bytes.
    pub(super) fn of(&self, bytes: &[u8]) -> Key {
        Key([self.0[0].hash_one(bytes), self.0[1].hash_one(bytes)])
    }

    /// Of a list of others.
    pub(super) fn of_keys(&self, keys: &[Key]) -> Key {
        let one = |state: &RandomState| {
            let mut hasher = state.build_hasher();
            for key in keys {
                hasher.write_u64(key.0[0]);
                hasher.write_u64(key.0[1]);
            }
            hasher.finish()
        };
        Key([one(&self.0[0]), one(&self.0[1])])
    }
}

// === impl Known ===

impl Known {
    pub(super) fn get(&self, key: Key) -> Option<SeriesRef> {
        self.series().get(&key).copied()
    }

    pub(super) fn put(&self, key: Key, series: SeriesRef) {
        let mut all = self.series();
        if all.len() >= SERIES_MAX {
            all.clear();
        }
        all.insert(key, series);
    }

    fn series(&self) -> MutexGuard<'_, HashMap<Key, SeriesRef, Plain>> {
        // Nothing can leave the map half changed.
        self.series.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Plain ===

impl std::hash::BuildHasher for Plain {
    type Hasher = PlainHasher;

    fn build_hasher(&self) -> PlainHasher {
        PlainHasher::default()
    }
}

// === impl PlainHasher ===

impl Hasher for PlainHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}
