//! The latest values of every series, shared between the pipeline that writes and the consumers that read.
//!
//! A reader takes the whole snapshot of one tick and keeps it as long as it likes; the writer never waits for it.

use std::sync::{Arc, PoisonError, RwLock};

use telemetry_model::{Roster, Snapshot};

use super::recorder::Queue;

/// The latest snapshot.
#[derive(Default)]
pub struct Latest {
    snapshot: RwLock<Arc<Snapshot>>,
    roster: RwLock<Arc<Roster>>,
    queue: Option<Queue>,
}

// === impl Latest ===

impl Latest {
    /// Latest values that are recorded, too.
    #[must_use]
    pub fn recorded(queue: Queue) -> Self {
        Self { snapshot: RwLock::default(), roster: RwLock::default(), queue: Some(queue) }
    }

    /// The values of the newest tick; empty before the first.
    #[must_use]
    pub fn get(&self) -> Arc<Snapshot> {
        // A panic while the lock was held cannot have left half a snapshot: only the pointer changes.
        Arc::clone(&self.snapshot.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The owners as they were known when they changed last.
    #[must_use]
    pub fn roster(&self) -> Arc<Roster> {
        Arc::clone(&self.roster.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Publishes the owners, when they are others than before.
    pub fn publish_roster(&self, roster: Roster) {
        *self.roster.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(roster);
    }

    /// Publishes a tick, and gives it to the store.
    pub fn publish(&self, snapshot: Snapshot) {
        let snapshot = Arc::new(snapshot);
        *self.snapshot.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&snapshot);
        if let Some(queue) = &self.queue {
            queue.push(snapshot);
        }
    }
}
