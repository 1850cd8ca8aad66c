//! What the agent remembers: the latest values for whoever scrapes, and the history in the embedded store.
//!
//! The pipeline publishes a snapshot a tick. Scrapes read it from memory, whatever the disk does; the recorder writes
//! it into the store on a thread of its own, so that a slow disk never slows a tick.

mod config;
mod latest;
mod metrics;
mod recorder;
mod source;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use telemetry_tsdb::db::{Config as DbConfig, Db, Error, OpenReport};
use telemetry_tsdb::fs::{RealStorage, Storage as _, SystemClock};

pub use config::Config;
pub use latest::Latest;
pub use metrics::{METRICS, families};
pub use recorder::{Queue, Recorder, native};
pub use source::History;

/// Where the store is, below the data directory.
pub const DIR: &str = "tsdb";

/// How often files are read anew while an agent changes them under the reader.
const READ_TRIES: u32 = 5;

/// Opens the store of an agent.
///
/// # Errors
/// If another process has it, or the directory cannot be used at all.
pub fn open(config: &Config, data_dir: &Path) -> Result<Db, Error> {
    let clock = Arc::new(SystemClock::default());
    let settings = config.settings();
    if config.memory_only {
        return Ok(Db::in_memory(settings, clock));
    }
    let dir = data_dir.join(DIR);
    let storage = storage(&dir)?;
    let (db, report) = Db::open(settings, Arc::new(storage), clock)?;
    let damaged = report.damaged.len();
    tracing::info!(
        dir = %dir.display(),
        files = report.blocks,
        samples = report.replayed_samples,
        damaged,
        lost_samples = report.lost_samples,
        "store open"
    );
    Ok(db)
}

/// Opens a store to be read, whether an agent writes it or not: what is on disk at one moment.
///
/// # Errors
/// If there is none, or it cannot be read.
pub fn open_read_only(settings: &DbConfig, dir: &Path) -> Result<(Db, OpenReport), Error> {
    let mut tries = 0;
    loop {
        let storage = RealStorage::open_unlocked(dir)
            .map_err(|source| Error::Io { operation: format!("open {}", dir.display()), source })?;
        let before = names(&storage);
        let found =
            Db::open_read_only(settings.clone(), Arc::new(storage), Arc::new(SystemClock::default()))?;
        let storage = RealStorage::open_unlocked(dir)
            .map_err(|source| Error::Io { operation: format!("open {}", dir.display()), source })?;
        tries += 1;
        // Between the reading of files and of the log a running agent may have moved samples from one to the other.
        if names(&storage) == before || tries >= READ_TRIES {
            return Ok(found);
        }
    }
}

/// Whether a process holds the store, an agent or an import.
#[must_use]
pub fn is_held(dir: &Path) -> bool {
    let lock = std::fs::File::open(dir.join("lock"));
    lock.is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(std::fs::TryLockError::WouldBlock)))
}

fn names(storage: &RealStorage) -> Vec<PathBuf> {
    let list = |dir: &str| storage.list(Path::new(dir)).unwrap_or_default();
    [list(telemetry_tsdb::block::DIR), list(telemetry_tsdb::log::DIR)].concat()
}

/// The directory, held by this process alone.
///
/// # Errors
/// If another process has it, or it cannot be made.
pub fn storage(dir: &Path) -> Result<RealStorage, Error> {
    RealStorage::open(dir).map_err(|source| match source.kind() {
        std::io::ErrorKind::WouldBlock => Error::Locked(dir.to_owned()),
        _ => Error::Io { operation: format!("open {}", dir.display()), source },
    })
}
