//! The latest values of every series, shared between the pipeline that writes and the consumers that read.
//!
//! A reader takes the whole snapshot of one tick and keeps it as long as it likes; the writer never waits for it.

use std::sync::{Arc, PoisonError, RwLock};

use telemetry_model::Snapshot;

/// The latest snapshot.
#[derive(Debug, Default)]
pub struct Latest(RwLock<Arc<Snapshot>>);

// === impl Latest ===

impl Latest {
    /// The values of the newest tick; empty before the first.
    #[must_use]
    pub fn get(&self) -> Arc<Snapshot> {
        // A panic while the lock was held cannot have left half a snapshot: only the pointer changes.
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Publishes a tick.
    pub fn publish(&self, snapshot: Snapshot) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(snapshot);
    }
}
