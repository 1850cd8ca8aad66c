//! What the agent remembers: the latest values for whoever scrapes, and the history in the embedded store.
//!
//! The pipeline publishes a snapshot a tick. Scrapes read it from memory, whatever the disk does; the recorder writes
//! it into the store on a thread of its own, so that a slow disk never slows a tick.

mod config;
mod latest;
mod metrics;
mod recorder;

use std::path::Path;
use std::sync::Arc;

use telemetry_tsdb::db::{Config as DbConfig, Db, Error};
use telemetry_tsdb::fs::{RealStorage, SystemClock};

pub use config::Config;
pub use latest::Latest;
pub use metrics::{METRICS, families};
pub use recorder::{Queue, Recorder, native};

/// Where the store is, below the data directory.
pub const DIR: &str = "tsdb";

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

/// Opens the store of an agent that does not run, to be read.
///
/// # Errors
/// If there is none, or an agent is writing it.
pub fn open_read_only(settings: DbConfig, dir: &Path) -> Result<Db, Error> {
    if !dir.is_dir() {
        let source = std::io::Error::from(std::io::ErrorKind::NotFound);
        return Err(Error::Io { operation: format!("open {}", dir.display()), source });
    }
    let (db, _) = Db::open_read_only(settings, Arc::new(storage(dir)?), Arc::new(SystemClock::default()))?;
    Ok(db)
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
