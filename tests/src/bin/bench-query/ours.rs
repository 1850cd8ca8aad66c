//! Our store: filled by one process, asked by another.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use telemetry_agent::api::prometheus::write_value;
use telemetry_agent::store::History;
use telemetry_promql::eval::{Options, range};
use telemetry_tests::{figure, own, proc};
use telemetry_tsdb::db::{Config, Db, Metadata, SeriesRef, Work};
use telemetry_tsdb::fs::sim::SimClock;
use telemetry_tsdb::fs::{RealStorage, Storage};
use telemetry_tsdb::head::Sample;
use telemetry_tsdb::index::{Limits, OwnerRef};

use super::answer::{Measured, points};
use super::data::{self, END};
use super::shapes::{SHAPES, Shape};

/// Answers of which the quickest counts.
const ROUNDS: usize = 9;
/// How long a profiler has.
const AGAIN: Duration = Duration::from_secs(3);
/// Rows between two syncs of the log.
const COMMIT_ROWS: usize = 60;

fn open(dir: &Path, now: i64) -> Result<(Db, Arc<SimClock>)> {
    std::fs::create_dir_all(dir)?;
    let clock = Arc::new(SimClock::at(now));
    let limits = Limits { series: 1 << 20, series_per_family: 1 << 20, ..Limits::default() };
    let storage: Arc<dyn Storage> = Arc::new(RealStorage::open(dir)?);
    let config = Config { limits, free_floor_bytes: 0, ..Config::default() };
    let (db, _) = Db::open(config, storage, clock.clone())?;
    Ok((db, clock))
}

/// Fills the store as the agent does: rows, syncs, housekeeping.
pub fn fill(dir: &Path) -> Result<()> {
    let [mut long, mut short] = data::parts();
    let (db, clock) = open(dir, data::LONG_START)?;
    for (family, kind) in [("long_total", "counter"), ("long_level", "gauge")] {
        let metadata = Metadata { kind: kind.into(), unit: "".into(), help: "".into() };
        db.set_metadata(family, metadata);
    }
    for (key, part) in [("long", &mut long), ("short", &mut short)] {
        let group = db.group(key).context("group")?;
        let series = part.series.iter().map(|labels| {
            let pairs: Vec<(&str, &str)> = labels.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            db.series(group, &pairs, OwnerRef(0)).context("series")
        });
        let series: Vec<SeriesRef> = series.collect::<Result<_>>()?;
        data::chunks(part, COMMIT_ROWS, |_, rows| {
            for (t, values) in rows {
                clock.set(*t);
                let cells = series.iter().zip(values).map(|(series, value)| (*series, Sample::Float(*value)));
                let taken = db.append_row(group, *t, cells).taken;
                anyhow::ensure!(taken == series.len(), "{taken} samples were taken");
            }
            db.commit()?;
            while !matches!(db.maintain(), Work::Nothing | Work::Failed) {}
            Ok(())
        })?;
    }
    Ok(())
}

/// Asks every shape and writes what came of it beside the store.
pub fn ask(dir: &Path) -> Result<()> {
    let (db, _) = open(dir, END)?;
    let history = History::new(Arc::new(db));
    let all: Result<Vec<_>> = SHAPES.iter().map(|shape| measure(&history, shape)).collect();
    Measured::write(&all?, &dir.with_extension("answers"))
}

/// Asks one shape again and again.
pub fn again(dir: &Path, name: &str) -> Result<()> {
    let shape = SHAPES.iter().find(|shape| shape.name.starts_with(name)).context("there is no such shape")?;
    let (db, _) = open(dir, END)?;
    let history = History::new(Arc::new(db));
    let begun = Instant::now();
    while begun.elapsed() < AGAIN {
        let measured = measure(&history, shape)?;
        figure::print("query", shape.name, measured.cpu_ms, "ms", None, "", ROUNDS)?;
    }
    Ok(())
}

fn measure(history: &History, shape: &Shape) -> Result<Measured> {
    let options = Options::default();
    let times = (shape.start, shape.end, shape.step);
    let failed = |error| anyhow::anyhow!("{}: {error}", shape.name);
    let mut out = Measured { cpu_ms: f64::INFINITY, wall_ms: f64::INFINITY, ..Measured::default() };
    out.points = points(&range(history, shape.query, times, &options).map_err(failed)?.value)?;
    proc::reset_peak("self")?;
    let mut text = Vec::new();
    for _ in 0..ROUNDS {
        let (cpu, begun) = (own::cpu_seconds(), Instant::now());
        text.clear();
        write_value(&mut text, &range(history, shape.query, times, &options).map_err(failed)?.value)?;
        out.cpu_ms = out.cpu_ms.min((own::cpu_seconds() - cpu) * 1e3);
        out.wall_ms = out.wall_ms.min(begun.elapsed().as_secs_f64() * 1e3);
    }
    out.peak_bytes = proc::peak_bytes("self")?;
    Ok(out)
}
