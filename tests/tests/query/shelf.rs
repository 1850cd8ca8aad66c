//! A store as scripts fill it, asked through the agent's own source of series.

use std::collections::BTreeMap;
use std::sync::Arc;

use telemetry_agent::store::History;
use telemetry_promql::labels::Labels;
use telemetry_promql::script::{Stamped, Store};
use telemetry_promql::source::Source;
use telemetry_promql::value::Cell;
use telemetry_tsdb::db::{Config, Db, SeriesRef, Work};
use telemetry_tsdb::fs::sim::{SimClock, SimStorage};
use telemetry_tsdb::head::Sample;
use telemetry_tsdb::index::OwnerRef;

const DAY: i64 = 24 * 3_600_000;
/// Beyond all times of any script.
const NOW: i64 = 100 * 365 * DAY;

/// Where samples are when they are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In rows and stripes.
    Memory,
    /// In files of the size they are first written in.
    Files,
    /// In files that were joined.
    Joined,
}

/// A store and how it is filled.
pub struct Shelf {
    place: Place,
    db: Arc<Db>,
    history: History,
    loads: usize,
}

/// Everything is kept; nothing is downsampled unless asked for.
pub fn config(place: Place) -> Config {
    let mut config = Config { compaction: place == Place::Joined, ..Config::default() };
    config.retention.raw_ms = 2 * NOW;
    config
}

impl Shelf {
    pub fn new(place: Place) -> Self {
        let clock = Arc::new(SimClock::at(NOW));
        let opened = Db::open(config(place), Arc::new(SimStorage::default()), clock);
        let db = Arc::new(opened.unwrap().0);
        Self { place, history: History::new(Arc::clone(&db)), db, loads: 0 }
    }

    /// Rows in the order of time, in a group of their own.
    fn load_rows(&mut self, series: &[(Labels, Vec<Stamped>)]) -> Result<(), String> {
        self.loads += 1;
        let group = self.db.group(&format!("load {}", self.loads)).ok_or("no group")?;
        let mut rows: BTreeMap<i64, Vec<(SeriesRef, Sample)>> = BTreeMap::new();
        for (labels, samples) in series {
            let pairs: Vec<(&str, &str)> = labels.iter().collect();
            let found = self.db.series(group, &pairs, OwnerRef(0)).ok_or("no series")?;
            for (t, _, cell) in samples {
                rows.entry(*t).or_default().push((found, sample(cell)));
            }
        }
        for (t, cells) in rows {
            let appended = self.db.append_row(group, t, cells);
            if let Some((_, refused)) = appended.refused.first() {
                return Err(format!("at {t}: {refused}"));
            }
        }
        Ok(())
    }

    fn load_files(&mut self, series: &[(Labels, Vec<Stamped>)]) -> Result<(), String> {
        let mut bulk = self.db.bulk();
        for (labels, samples) in series {
            let pairs: Vec<(&str, &str)> = labels.iter().collect();
            let samples = samples.iter().map(|(t, _, cell)| (*t, sample(cell)));
            bulk.add(&pairs, samples).map_err(|error| error.to_string())?;
        }
        let counts = bulk.finish().map_err(|error| error.to_string())?;
        if counts.conflicts + counts.refused > 0 {
            return Err(format!("{counts:?}"));
        }
        if self.place == Place::Joined {
            while !matches!(self.db.maintain(), Work::Nothing | Work::Failed) {}
        }
        Ok(())
    }
}

impl Store for Shelf {
    fn clear(&mut self) {
        *self = Self::new(self.place);
    }

    fn load(&mut self, series: Vec<(Labels, Vec<Stamped>)>) -> Result<(), String> {
        match self.place {
            Place::Memory => self.load_rows(&series),
            Place::Files | Place::Joined => self.load_files(&series),
        }
    }

    fn source(&self) -> &dyn Source {
        &self.history
    }
}

pub fn sample(cell: &Cell) -> Sample {
    match cell {
        Cell::Float(value) => Sample::Float(*value),
        Cell::Histogram(histogram) => Sample::Histogram(Arc::clone(histogram)),
    }
}
