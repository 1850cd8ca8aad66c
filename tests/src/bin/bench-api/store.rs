//! A data directory as the agent itself would have left it: rows, syncs, housekeeping, at the times that they have.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use telemetry_tests::datagen::Generator;
use telemetry_tsdb::db::{Config, Db, SeriesRef, Work};
use telemetry_tsdb::fs::RealStorage;
use telemetry_tsdb::fs::sim::SimClock;
use telemetry_tsdb::head::Sample;
use telemetry_tsdb::index::OwnerRef;

use super::{SERIES, STEP_MS, TICKS, labels};

/// Rows between two syncs of the log.
const COMMIT_ROWS: i64 = 60;

/// Makes it, its last sample at `end`.
pub fn fill(data_dir: &Path, end: i64) -> Result<()> {
    let dir = data_dir.join("tsdb");
    std::fs::create_dir_all(&dir)?;
    let clock = Arc::new(SimClock::at(end - TICKS * STEP_MS));
    let config = Config { free_floor_bytes: 0, ..Config::default() };
    let (db, _) = Db::open(config, Arc::new(RealStorage::open(&dir)?), Arc::<SimClock>::clone(&clock))?;
    let group = db.group("filled").context("group")?;
    let series: Result<Vec<SeriesRef>> = labels()
        .iter()
        .map(|labels| {
            let pairs: Vec<_> = labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            db.series(group, &pairs, OwnerRef(0)).context("series")
        })
        .collect();
    let series = series?;
    let mut data = Generator::new(SERIES);
    for k in 0..TICKS {
        let t = end - (TICKS - 1 - k) * STEP_MS;
        clock.set(t);
        let cells = series.iter().zip(data.tick()).map(|(series, value)| (*series, Sample::Float(*value)));
        let taken = db.append_row(group, t, cells).taken;
        anyhow::ensure!(taken == series.len(), "{taken} samples were taken");
        if k % COMMIT_ROWS == 0 {
            db.commit()?;
        }
        while !matches!(db.maintain(), Work::Nothing | Work::Failed) {}
    }
    db.commit()?;
    Ok(())
}
