//! What is written: rows of several groups, floats and native histograms, late samples, owners that are named late,
//! series that end and come back, deletions. Every value follows from its series and time, so that a reader knows what
//! it must be; every step is told to a witness before and after.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use telemetry_model::{MatchOp, Matcher, NativeHistogram, STALE_MARKER};
use telemetry_tsdb::db::{Appended, Db, Retention, SeriesRef, Work};
use telemetry_tsdb::fs::sim::{Rng, SimClock};
use telemetry_tsdb::head::{GroupId, Sample};
use telemetry_tsdb::index::OwnerRef;

use crate::ledger::Note;

/// When the first life begins: the start of a day, so that every run meets the same borders of windows and days.
pub const START: i64 = 1_699_920_000_000;
const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
/// Raw samples are kept this long, so that files go within a run.
pub const RAW_KEPT: i64 = 4 * HOUR;
const SERIES: u64 = 12;
const GROUPS: u64 = 3;
/// Deletions end this long ago: later samples into a deleted range would be deleted as well.
const DELETED_BEFORE: i64 = 40 * MINUTE;

/// A load, in the middle of its work.
pub struct Load<'a> {
    db: &'a Db,
    clock: &'a SimClock,
    rng: Rng,
    now: i64,
    life: u64,
    groups: Vec<GroupId>,
    series: Vec<Member>,
    owner: OwnerRef,
    /// Ticks of this life.
    ticks: u64,
}

struct Member {
    name: String,
    series: SeriesRef,
    is_ended: bool,
}

/// Whom steps are told to, in order: an error ends the work.
pub type Witness<'a> = &'a mut dyn FnMut(&[Note]) -> Result<()>;

/// What a store under test is set to.
pub fn config() -> telemetry_tsdb::db::Config {
    telemetry_tsdb::db::Config {
        retention: Retention { raw_ms: RAW_KEPT, minute_ms: 2 * RAW_KEPT, ..Retention::default() },
        // Other tests fill the same disk.
        free_floor_bytes: 0,
        ..telemetry_tsdb::db::Config::default()
    }
}

/// The one value that a series can have at a time.
pub fn value(name: &str, t: i64) -> Sample {
    let hash = name
        .bytes()
        .fold(t.cast_unsigned(), |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3));
    let mut rng = Rng::new(hash);
    match name.bytes().next_back().map_or(0, |byte| byte % 5) {
        0 => Sample::Histogram(Arc::new(NativeHistogram {
            schema: 3,
            zero_threshold: 1e-9,
            zero_count: rng.below(3) as f64,
            count: (t / 1000) as f64,
            sum: rng.below(100_000) as f64 / 8.0,
            positive: [(1, 1.0 + rng.below(5) as f64), (2 + rng.below(4) as i32, (t / 1000) as f64)]
                .into_iter()
                .collect(),
            negative: [(rng.below(9) as i32 - 4, 2.0)].into_iter().collect(),
            ..NativeHistogram::default()
        })),
        1 => Sample::Float(f64::from_bits(rng.number())),
        2 => Sample::Float(5.0),
        3 => Sample::Float((t / 1000) as f64),
        _ => Sample::Float(rng.below(1_000_000) as f64 / 100.0),
    }
}

// === impl Load ===

impl<'a> Load<'a> {
    /// Begins: groups, series and an owner, all of them there already but in the first life.
    pub fn new(db: &'a Db, clock: &'a SimClock, life: u64, now: i64, witness: Witness<'_>) -> Result<Self> {
        witness(&[Note::Open { durable: db.durable_through() }])?;
        let groups: Vec<GroupId> = (0..GROUPS).filter_map(|at| db.group(&format!("group {at}"))).collect();
        let owner = db.create_owner(&[("pod_uid", &life.to_string())]);
        let rng = Rng::new(now.cast_unsigned() ^ life << 40);
        let mut load = Self { db, clock, rng, now, life, groups, series: Vec::new(), owner, ticks: 0 };
        for at in 0..SERIES {
            let name = format!("s{at}");
            let series = load.ask(&name, at)?;
            load.series.push(Member { name, series, is_ended: false });
        }
        let labels = [("__name__", "x"), ("job", "owned")];
        let series = db.series(load.group(life)?, &labels, owner).context("owned series")?;
        load.series.push(Member { name: format!("owned-{life}"), series, is_ended: false });
        Ok(load)
    }

    /// So much of everything, then a commit and housekeeping; `housekeeping` is told when it begins and ends.
    pub fn tick(&mut self, witness: Witness<'_>, housekeeping: &dyn Fn(bool)) -> Result<()> {
        self.ticks += 1;
        // Lives with many rows a window, so that rows are packed in between, and lives with many windows, by turns.
        let pace: u64 = if self.life.is_multiple_of(3) { 2000 } else { 8000 };
        // Rows come at tens of milliseconds; late samples, stale markers and rows never share a time.
        self.now += (pace + self.rng.below(pace)) as i64 * 10;
        self.clock.set(self.now);
        witness(&[Note::Now { t: self.now }])?;
        for at in 0..self.groups.len() {
            self.row(at, witness)?;
        }
        match self.rng.below(40) {
            0..10 => self.late(witness)?,
            10..12 => self.end_one(witness)?,
            12 => self.delete(witness)?,
            _ => {}
        }
        if self.ticks == 7 {
            let uid = self.life.to_string();
            self.db.bind_owner(self.owner, &[("pod", &format!("pod-{uid}")), ("pod_uid", &uid)]);
            witness(&[Note::Bound { life: self.life }])?;
        }
        if self.rng.below(2) == 0 && self.db.commit().is_ok() {
            witness(&[Note::Acknowledged])?;
        }
        housekeeping(true);
        for _ in 0..4 {
            if matches!(self.db.maintain(), Work::Nothing | Work::Failed) {
                break;
            }
        }
        housekeeping(false);
        Ok(())
    }

    fn group(&self, at: u64) -> Result<GroupId> {
        self.groups.get((at % GROUPS) as usize).copied().context("group")
    }

    fn ask(&self, name: &str, at: u64) -> Result<SeriesRef> {
        let labels = [("__name__", "x"), ("name", name)];
        self.db.series(self.group(at)?, &labels, OwnerRef(0)).context("series")
    }

    fn row(&mut self, at: usize, witness: Witness<'_>) -> Result<()> {
        let group = self.groups[at];
        let t = self.now + at as i64;
        let mut cells: Vec<(usize, SeriesRef)> = Vec::new();
        for (of, member) in self.series.iter().enumerate() {
            if member.series.group == group && !member.is_ended && self.rng.below(10) > 0 {
                cells.push((of, member.series));
            }
        }
        let notes: Vec<Note> = cells.iter().map(|(of, _)| Note::sent(&self.series[*of].name, t)).collect();
        witness(&notes)?;
        let samples = cells.iter().map(|(of, series)| (*series, value(&self.series[*of].name, t)));
        let out = self.db.append_row(group, t, samples.collect::<Vec<_>>());
        witness(&self.taken(&cells, t, &out))?;
        // A series that was let go is asked for again, and now and then one that ended.
        for of in 0..SERIES as usize {
            let is_gone = out.refused.iter().any(|(series, _)| *series == self.series[of].series);
            if is_gone || (self.series[of].is_ended && self.rng.below(30) == 0) {
                self.series[of].series = self.ask(&self.series[of].name, of as u64)?;
                self.series[of].is_ended = false;
            }
        }
        Ok(())
    }

    fn taken(&self, cells: &[(usize, SeriesRef)], t: i64, out: &Appended) -> Vec<Note> {
        let is_in = |series: &SeriesRef| !out.refused.iter().any(|(refused, _)| refused == series);
        let taken = cells.iter().filter(|(_, series)| is_in(series));
        taken.map(|(of, _)| Note::taken(&self.series[*of].name, t)).collect()
    }

    fn late(&mut self, witness: Witness<'_>) -> Result<()> {
        for _ in 0..1 + self.rng.below(5) {
            let of = self.rng.below(self.series.len() as u64) as usize;
            let t = self.now - self.rng.below(25 * 6000) as i64 * 10 - 3;
            let (name, series) = (self.series[of].name.clone(), self.series[of].series);
            witness(&[Note::sent(&name, t)])?;
            let out = self.db.append([(series, t, value(&name, t))]);
            witness(&self.taken(&[(of, series)], t, &out))?;
        }
        Ok(())
    }

    fn end_one(&mut self, witness: Witness<'_>) -> Result<()> {
        let of = self.rng.below(SERIES) as usize;
        if self.series[of].is_ended {
            return Ok(());
        }
        let (name, series, t) = (self.series[of].name.clone(), self.series[of].series, self.now + 5);
        witness(&[Note::Sent { name: name.clone(), t, is_stale: true }])?;
        let out = self.db.append([(series, t, Sample::Float(STALE_MARKER))]);
        if out.refused.is_empty() {
            witness(&[Note::Taken { name, t, is_stale: true }])?;
        }
        self.db.end(&[series], t);
        self.series[of].is_ended = true;
        Ok(())
    }

    fn delete(&mut self, witness: Witness<'_>) -> Result<()> {
        let name = format!("s{}", self.rng.below(SERIES));
        let to = self.now - DELETED_BEFORE - self.rng.below(30 * MINUTE as u64) as i64;
        let from = to - self.rng.below(10 * MINUTE as u64) as i64;
        witness(&[Note::Deleting { name: name.clone(), from, to }])?;
        match self.db.delete(&[Matcher::new("name", MatchOp::Equal, name)], from, to) {
            Ok(_) => witness(&[Note::Deleted]),
            // The disk is gone; whoever took it away looks after the rest.
            Err(_) => Ok(()),
        }
    }
}
