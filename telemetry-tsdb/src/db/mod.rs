//! The store as a whole: open, append, commit, query, delete, keep house.
//!
//! One writer at a time (a mutex), any number of readers (immutable views). What is acknowledged by [`Db::commit`] is
//! on disk; what is not can be read at once all the same. Nothing here starts a thread: the agent calls
//! [`Db::maintain`] from one of its own.

mod append;
mod bulk;
mod checkpoint;
mod config;
mod delete;
mod flush;
mod health;
mod histograms;
mod maintain;
mod open;
mod query;
pub mod record;
mod refused;
mod replay;
mod series;
mod snapshot;
mod strays;
mod tiers;
mod writer;

use std::sync::atomic::{AtomicBool, AtomicI64};
use std::sync::{Arc, Mutex, RwLock};

use arc_swap::ArcSwap;

use crate::block::Block;
use crate::fs::{Clock, Storage};
use crate::head::LateSamples;
use crate::index::{HeadIndex, Owners};

pub use append::{Appended, Refused};
pub use bulk::{Bulk, Imported};
pub use config::{Config, Retention};
pub use health::{Counters, Health, Mode, Stats};
pub use maintain::{BUCKET_MS, Work};
pub use open::OpenReport;
pub use query::{Column, Hints, Reader, Selected, Selection, Stretch, Want};
pub use record::{Exemplar, Metadata, Tombstone};
pub use series::SeriesRef;
pub use snapshot::Snapshot;

use writer::Writer;

/// An embedded time-series store.
pub struct Db {
    config: Config,
    storage: Option<Arc<dyn Storage>>,
    clock: Arc<dyn Clock>,
    index: Arc<HeadIndex>,
    owners: Arc<Owners>,
    writer: Mutex<Writer>,
    groups: RwLock<Arc<Vec<series::GroupHandle>>>,
    places: series::Places,
    late: LateSamples,
    blocks: ArcSwap<Vec<Arc<Block>>>,
    tombstones: ArcSwap<Vec<Tombstone>>,
    strays: strays::Strays,
    exemplars: Mutex<std::collections::VecDeque<Exemplar>>,
    metadata: RwLock<std::collections::BTreeMap<Box<str>, Metadata>>,
    health: Health,
    durable_through: AtomicI64,
    /// The reserve is there.
    has_reserve: AtomicBool,
    housekeeping: Mutex<maintain::House>,
}

/// What can go wrong with a store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory is another process's.
    #[error("open {0}: another process has this store open")]
    Locked(std::path::PathBuf),
    /// The disk refused.
    #[error("{operation}: {source}")]
    Io {
        /// What was tried.
        operation: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// What is on disk cannot be read.
    #[error("{file}: {reason}")]
    Damaged {
        /// Which file.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The log does not take what is written.
    #[error("log: {0}")]
    Log(#[from] crate::log::LogError),
    /// A matcher cannot be used.
    #[error("{0}")]
    Matcher(#[from] crate::index::MatcherError),
    /// The store is read-only.
    #[error("the store is open for reading only")]
    ReadOnly,
    /// As many deletions as there may be are not yet applied to all files.
    #[error(
        "{0} deletions wait to be applied: files of what is deleted must be joined, or go, before there are more"
    )]
    Deletions(usize),
}

// === impl Error ===

impl Error {
    /// Whether there was no room: a state of the disk that passes.
    #[must_use]
    pub fn is_full(&self) -> bool {
        match self {
            Self::Log(error) => error.is_full(),
            Self::Io { source, .. } => crate::fs::is_full(source),
            _ => false,
        }
    }
}
