//! Lives and deaths from a seed. `TELEMETRY_SIM_CRASHES` says how many crashes (2,000), `TELEMETRY_SIM_SEED` the first
//! seed, `TELEMETRY_SIM_PROGRESS` asks for a line every few seconds: `cargo xtask soak` sets them.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use telemetry_model::{MatchOp, Matcher, NativeHistogram};
use telemetry_tsdb::db::{Config, Db, Retention, SeriesRef, Work};
use telemetry_tsdb::fs::sim::{Fault, Rng, SimClock, SimStorage};
use telemetry_tsdb::head::{GroupId, Sample};
use telemetry_tsdb::index::OwnerRef;

const START: i64 = 1_700_000_000_000;
const LIVES: u64 = 4;
const SERIES: u64 = 7;

/// What a sample is, in a form that can be compared.
type Bits = (u64, u64);

/// A sample of the model.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Known {
    bits: Bits,
    is_acknowledged: bool,
}

#[derive(Default)]
struct Model {
    samples: BTreeMap<String, BTreeMap<i64, Known>>,
    /// Deletions that were never acknowledged: their samples may be there.
    doubtful: BTreeMap<String, BTreeMap<i64, Bits>>,
    name_of_owner: BTreeMap<u32, String>,
}

/// What happened to stores in a run, to show that the simulation reaches it.
#[derive(Default)]
struct Met(Mutex<BTreeMap<&'static str, u64>>);

struct World<'a> {
    met: &'a Met,
    /// Everything the disk did and readers saw: equal for equal seeds.
    trace: DefaultHasher,
    seed: u64,
    rng: Rng,
    disk: SimStorage,
    clock: Arc<SimClock>,
    now: i64,
    model: Model,
    generation: u64,
    /// Windows that the store had given up when it was looked at last.
    given_up: u64,
}

fn bits_of(sample: &Sample) -> Bits {
    match sample {
        Sample::Float(value) => (0, value.to_bits()),
        Sample::Histogram(h) => (
            1 + h.count.to_bits(),
            h.sum.to_bits()
                ^ h.positive
                    .counts
                    .iter()
                    .filter(|c| **c != 0.0)
                    .fold(0u64, |a, c| a.rotate_left(7) ^ c.to_bits()),
        ),
    }
}

// === impl Met ===

impl Met {
    fn add(&self, what: &'static str, n: u64) {
        *self.0.lock().unwrap().entry(what).or_default() += n;
    }
}

// === impl World ===

impl<'a> World<'a> {
    fn new(seed: u64, met: &'a Met) -> Self {
        Self {
            met,
            trace: DefaultHasher::new(),
            seed,
            rng: Rng::new(seed),
            disk: SimStorage::default(),
            clock: Arc::new(SimClock::at(START)),
            now: START,
            model: Model::default(),
            generation: 0,
            given_up: 0,
        }
    }

    fn open(&self) -> Db {
        let storage = Arc::new(self.disk.clone());
        // No file goes, of age or to make room: a full disk refuses, and what was acknowledged stays.
        let retention = Retention { raw_ms: 40 * 24 * 3_600_000, ..Retention::default() };
        let config = Config {
            free_floor_bytes: 0,
            reserve_bytes: [0, 4096, 65_536][(self.seed % 3) as usize],
            waiting_windows_max: [24, 2][(self.seed % 2) as usize],
            retention,
            ..Config::default()
        };
        let (db, report) = loop {
            match Db::open(config.clone(), Arc::<SimStorage>::clone(&storage), self.clock.clone()) {
                Ok(opened) => break opened,
                // The process dies while it starts, or the disk refuses then: it is started again.
                Err(_) if self.disk.has_fault() => {
                    self.met.add("deaths while starting", 1);
                    self.disk.kill();
                }
                Err(error) => panic!("seed {}: {error}", self.seed),
            }
        };
        assert!(report.damaged.is_empty(), "seed {}: {:?}", self.seed, report.damaged);
        db
    }

    fn sample(&mut self, of: u64) -> Sample {
        match of % SERIES {
            0 => Sample::Histogram(Arc::new(NativeHistogram {
                schema: 3,
                count: self.now as f64 % 9973.0,
                sum: self.rng.below(1000) as f64 / 8.0,
                positive: [(1, 1.0 + self.rng.below(5) as f64), (4, self.now as f64 % 9973.0)]
                    .into_iter()
                    .collect(),
                ..Default::default()
            })),
            1 => Sample::Float(f64::from_bits(self.rng.number())),
            2 => Sample::Float(5.0),
            _ => Sample::Float(self.rng.below(1_000_000) as f64 / 100.0),
        }
    }

    /// Notes a sample that the store took.
    fn took(&mut self, name: &str, t: i64, sample: &Sample) {
        let known = Known { bits: bits_of(sample), is_acknowledged: false };
        let list = self.model.samples.entry(name.to_owned()).or_default();
        let before = list.entry(t).or_insert(known);
        assert_eq!(before.bits, known.bits, "seed {}: {name} took another value at {t}", self.seed);
    }

    /// A commit went well. What was given up before is no part of it.
    fn acknowledge(&mut self, db: &Db) {
        let given_up = dropped(db);
        if given_up > self.given_up {
            self.given_up = given_up;
            let got = self.read(db);
            for (name, list) in &mut self.model.samples {
                let there = |t: &i64| got.get(name).is_some_and(|got| got.contains_key(t));
                // A log may have it all the same, and a start show it again.
                let doubtful = self.model.doubtful.entry(name.clone()).or_default();
                let gone = list.extract_if(.., |t, known| !known.is_acknowledged && !there(t));
                doubtful.extend(gone.map(|(t, known)| (t, known.bits)));
            }
        }
        self.model
            .samples
            .values_mut()
            .flat_map(|list| list.values_mut())
            .for_each(|k| k.is_acknowledged = true);
    }

    /// One life: ticks, late samples, ends, deletions, house keeping.
    fn live(&mut self, db: &Db) {
        let groups: Vec<GroupId> = ["a", "b"].iter().map(|key| db.group(key).unwrap()).collect();
        let owner = db.create_owner(&[("pod_uid", &self.generation.to_string())]);
        let mut series: Vec<(String, SeriesRef)> = Vec::new();
        for at in 0..SERIES {
            series.push(self.create(db, groups[(at % 2) as usize], at, OwnerRef(0)));
        }
        let bound_name = format!("owned-{}", self.generation);
        series.push(self.create(db, groups[0], 3, owner));
        self.model.name_of_owner.insert(owner.0, bound_name.clone());
        for tick in 0..20 + self.rng.below(60) {
            self.now += 20_000 + self.rng.below(60_000) as i64;
            if self.rng.below(50) == 0 {
                // The machine slept.
                self.now += 2 * 3_600_000;
            }
            self.clock.set(self.now);
            match self.rng.below(60) {
                0 => self.fill_disk(),
                1..8 => self.disk.set_capacity(u64::MAX),
                _ => {}
            }
            for (at, group) in groups.iter().enumerate() {
                self.row(db, *group, at, &mut series);
            }
            if self.rng.below(4) == 0 {
                self.late(db, &series);
            }
            if tick == 9 {
                self.rename(db, owner, &bound_name, &mut series);
            }
            if self.rng.below(25) == 0 {
                self.delete(db);
            }
            if self.rng.below(20) == 0 {
                let at = self.rng.below(series.len() as u64) as usize;
                if !series[at].0.starts_with("owned") {
                    self.end(db, &mut series, at, &groups);
                }
            }
            if self.rng.below(3) > 0 && db.commit().is_ok() {
                self.acknowledge(db);
            }
            for _ in 0..1 + self.rng.below(4) {
                if db.maintain() == Work::Nothing {
                    break;
                }
            }
            if self.rng.below(12) == 0 {
                self.check_alive(db);
            }
            if self.rng.below(30) == 0 {
                self.disk.refuse(None);
            }
        }
    }

    fn fill_disk(&mut self) {
        let used: usize = self.disk.files().iter().map(|(_, len)| len).sum();
        self.disk.set_capacity(used as u64 + self.rng.below(8000));
        self.met.add("full disks", 1);
    }

    fn create(&mut self, db: &Db, group: GroupId, at: u64, owner: OwnerRef) -> (String, SeriesRef) {
        let label = format!("{at}");
        let series = db.series(group, &[("__name__", "x"), ("at", &label)], owner).unwrap();
        let name = if owner == OwnerRef(0) { format!("{at}") } else { format!("owned-{}", self.generation) };
        (name, series)
    }

    fn row(&mut self, db: &Db, group: GroupId, at: usize, series: &mut [(String, SeriesRef)]) {
        let mut cells = Vec::new();
        let mut noted = Vec::new();
        for (name, series) in series.iter().filter(|(_, s)| s.group == group) {
            if self.rng.below(10) > 0 {
                let sample = self.sample(name.parse().unwrap_or(3));
                noted.push((*series, name.clone(), sample.clone()));
                cells.push((*series, sample));
            }
        }
        let t = self.now + at as i64;
        let out = db.append_row(group, t, cells);
        for (series, name, sample) in noted {
            if !out.refused.iter().any(|(refused, _)| *refused == series) {
                self.took(&name, t, &sample);
            }
        }
        // A series that ended because it was silent for two windows is asked for again.
        for (refused, _) in &out.refused {
            assert!(series.iter().any(|(_, s)| s == refused), "seed {}", self.seed);
        }
    }

    fn late(&mut self, db: &Db, series: &[(String, SeriesRef)]) {
        let mut batch = Vec::new();
        for _ in 0..1 + self.rng.below(5) {
            let (name, series) = series[self.rng.below(series.len() as u64) as usize].clone();
            let t = self.now - self.rng.below(25 * 60_000) as i64;
            batch.push((name.clone(), series, t, self.sample(name.parse().unwrap_or(3))));
        }
        for (name, series, t, sample) in batch {
            let out = db.append([(series, t, sample.clone())]);
            if out.refused.is_empty() {
                self.took(&name, t, &sample);
            }
        }
    }

    fn rename(&mut self, db: &Db, owner: OwnerRef, name: &str, _series: &mut [(String, SeriesRef)]) {
        assert!(db.bind_owner(owner, &[("pod", name)]), "seed {}", self.seed);
    }

    fn end(&mut self, db: &Db, series: &mut Vec<(String, SeriesRef)>, at: usize, groups: &[GroupId]) {
        let (name, gone) = series[at].clone();
        let t = self.now + 2;
        let marker = Sample::Float(telemetry_model::STALE_MARKER);
        let out = db.append([(gone, t, marker.clone())]);
        if out.refused.is_empty() {
            self.took(&name, t, &marker);
        }
        db.end(&[gone], t);
        series.remove(at);
        let _ = groups;
    }

    fn delete(&mut self, db: &Db) {
        let at = self.rng.below(SERIES).to_string();
        let to = self.now - 32 * 60_000 - self.rng.below(30 * 60_000) as i64;
        let from = to - self.rng.below(10 * 60_000) as i64;
        let matchers = [
            Matcher::new("at", MatchOp::Equal, at.clone()),
            Matcher::new("pod", MatchOp::Equal, ""),
            Matcher::new("pod_uid", MatchOp::Equal, ""),
        ];
        if db.delete(&matchers, from, to).is_err() {
            return;
        }
        let is_acknowledged = db.commit().is_ok();
        if is_acknowledged {
            self.acknowledge(db);
        }
        let Some(list) = self.model.samples.get_mut(&at) else { return };
        let gone: Vec<_> = list.range(from..=to).map(|(t, k)| (*t, k.bits)).collect();
        for (t, bits) in gone {
            list.remove(&t);
            if !is_acknowledged {
                self.model.doubtful.entry(at.clone()).or_default().insert(t, bits);
            }
        }
    }

    fn read(&self, db: &Db) -> BTreeMap<String, BTreeMap<i64, Bits>> {
        let matchers = [Matcher::new("__name__", MatchOp::Equal, "x")];
        let selection =
            db.select(&matchers, i64::MIN, i64::MAX).unwrap_or_else(|e| panic!("seed {}: {e}", self.seed));
        let mut reader = selection.reader();
        let mut all: BTreeMap<String, BTreeMap<i64, Bits>> = BTreeMap::new();
        for series in selection.series() {
            let column =
                reader.read(series, i64::MIN, i64::MAX).unwrap_or_else(|e| panic!("seed {}: {e}", self.seed));
            assert!(column.times.is_sorted_by(|a, b| a < b), "seed {}: one sample a time", self.seed);
            let name = match (series.get("pod"), series.get("pod_uid"), series.get("lost_owner")) {
                (Some(pod), ..) => pod.to_owned(),
                (None, Some(uid), _) => format!("owned-{uid}"),
                // Power went before its record was durable, and what came behind that was kept.
                (None, None, Some(number)) => self.model.name_of_owner[&number.parse().unwrap()].clone(),
                _ => series.get("at").unwrap().to_owned(),
            };
            let mut histograms = column.histograms.iter();
            let mut next = histograms.next();
            for (at, t) in column.times.iter().enumerate() {
                let bits = match next.filter(|(of, _)| *of as usize == at) {
                    Some((_, h)) => {
                        next = histograms.next();
                        bits_of(&Sample::Histogram(Arc::clone(h)))
                    }
                    None => bits_of(&Sample::Float(column.values[at])),
                };
                let before = all.entry(name.clone()).or_default().insert(*t, bits);
                assert!(before.is_none(), "seed {}: {name} has two samples at {t}", self.seed);
            }
        }
        all
    }

    /// While it lives, a store shows exactly what it took. If the disk refused for hours, it may have given up what was
    /// never acknowledged, and says so.
    fn check_alive(&self, db: &Db) {
        let got = self.read(db);
        let gave_up = dropped(db) > 0;
        for (name, list) in &self.model.samples {
            let got = got.get(name).cloned().unwrap_or_default();
            let is_sure = |t: &i64, k: &Known| k.is_acknowledged || !gave_up || got.contains_key(t);
            let expected: BTreeMap<i64, Bits> =
                list.iter().filter(|(t, k)| is_sure(t, k)).map(|(t, k)| (*t, k.bits)).collect();
            self.compare(name, &expected, &got);
        }
    }

    fn compare(&self, name: &str, expected: &BTreeMap<i64, Bits>, got: &BTreeMap<i64, Bits>) {
        for (t, bits) in expected {
            assert_eq!(
                got.get(t),
                Some(bits),
                "seed {}: series {name} at {t} ({} before now)",
                self.seed,
                self.now - t
            );
        }
        let doubtful = self.model.doubtful.get(name);
        for (t, bits) in got.iter().filter(|(t, _)| !expected.contains_key(t)) {
            let is_doubtful = doubtful.is_some_and(|list| list.get(t) == Some(bits));
            assert!(is_doubtful, "seed {}: series {name} has a sample at {t} that nobody wrote", self.seed);
        }
    }

    /// After a death: all that was acknowledged, and nothing that was not written.
    fn check_reborn(&mut self, db: &Db) {
        let got = self.read(db);
        for name in got.keys() {
            assert!(
                self.model.samples.contains_key(name) || self.model.doubtful.contains_key(name),
                "seed {}: {name}",
                self.seed
            );
        }
        let model = std::mem::take(&mut self.model.samples);
        for (name, list) in model {
            let found = got.get(&name).cloned().unwrap_or_default();
            let mut kept = BTreeMap::new();
            for (t, known) in list {
                match found.get(&t) {
                    Some(bits) => {
                        assert_eq!(
                            *bits, known.bits,
                            "seed {}: series {name} at {t}: a wrong value",
                            self.seed
                        );
                        kept.insert(t, Known { bits: *bits, is_acknowledged: true });
                    }
                    None => assert!(
                        !known.is_acknowledged,
                        "seed {}: series {name} at {t} ({} before now) was acknowledged",
                        self.seed,
                        self.now - t
                    ),
                }
            }
            let expected = kept.iter().map(|(t, k)| (*t, k.bits)).collect();
            self.compare(&name, &expected, &found);
            self.model.samples.insert(name, kept);
        }
        // What was doubtful is known now.
        for (name, list) in std::mem::take(&mut self.model.doubtful) {
            let found = got.get(&name).cloned().unwrap_or_default();
            for (t, bits) in list.into_iter().filter(|(t, bits)| found.get(t) == Some(bits)) {
                self.model
                    .samples
                    .entry(name.clone())
                    .or_default()
                    .insert(t, Known { bits, is_acknowledged: true });
            }
        }
    }

    fn note(&mut self, db: &Db) {
        for (name, count) in db.health().counters.all() {
            self.met.add(name, count);
        }
        self.disk.operations().hash(&mut self.trace);
    }

    fn run(&mut self) {
        for life in 0..LIVES {
            self.generation = life;
            // A start that dies half-way, again and again, changes nothing.
            if self.rng.below(4) == 0 {
                self.disk.fail(1 + self.rng.below(8), Fault::Dies);
            }
            let db = self.open();
            self.given_up = 0;
            self.disk.heal();
            self.check_reborn(&db);
            if self.rng.below(8) == 0 {
                self.disk.refuse(Some(Path::new("blocks")));
                self.met.add("disks that took no windows", 1);
            }
            let fault = match self.rng.below(6) {
                0 => Some((Fault::Dies, "deaths within an operation")),
                1 => Some((Fault::Once, "operations that failed once")),
                2 => Some((Fault::SyncLies, "syncs that lied")),
                3 => Some((Fault::Broken, "disks that broke")),
                _ => None,
            };
            if let Some((fault, name)) = fault {
                self.disk.fail(1 + self.rng.below(300), fault);
                self.met.add(name, 1);
            }
            self.live(&db);
            self.note(&db);
            drop(db);
            self.disk.set_capacity(u64::MAX);
            self.disk.refuse(None);
            if self.rng.below(3) == 0 {
                self.disk.kill();
                self.met.add("kills", 1);
            } else {
                self.disk.crash(&mut self.rng);
                self.met.add("losses of power", 1);
            }
        }
        let db = self.open();
        self.check_reborn(&db);
        self.check_alive(&db);
        self.read(&db).hash(&mut self.trace);
    }
}

/// Windows that a store has given up.
fn dropped(db: &Db) -> u64 {
    db.health().counters.windows_dropped.load(Ordering::Relaxed)
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// Lives of these seeds, on two threads.
fn run_all(seeds: std::ops::Range<u64>, met: &Met) {
    let (next, done) = (AtomicU64::new(seeds.start), AtomicU64::new(0));
    let is_shown = std::env::var_os("TELEMETRY_SIM_PROGRESS").is_some();
    let (started, shown) = (Instant::now(), Mutex::new(Instant::now()));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            World::new(seed, met).run();
            let crashes = (done.fetch_add(1, Ordering::Relaxed) + 1) * LIVES;
            let mut last = shown.lock().unwrap();
            if is_shown && last.elapsed() > Duration::from_secs(5) {
                *last = Instant::now();
                let rate = crashes as f64 / started.elapsed().as_secs_f64();
                eprintln!("[soak] seed {seed}: {crashes} crashes, {rate:.0} a second");
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(work);
        work();
    });
}

#[test]
fn acknowledged_samples_survive_simulated_crashes() {
    let (first, crashes) = (number("TELEMETRY_SIM_SEED", 0), number("TELEMETRY_SIM_CRASHES", 2000));
    let met = Met::default();
    run_all(first..first + crashes.div_ceil(LIVES), &met);
    let met = met.0.into_inner().unwrap();
    if std::env::var_os("TELEMETRY_SIM_PROGRESS").is_some() {
        met.iter().for_each(|(what, count)| eprintln!("[soak] {count:>12} {what}"));
    }
    if crashes >= 2000 {
        for what in [
            "deaths while starting",
            "deaths within an operation",
            "operations that failed once",
            "syncs that lied",
            "disks that broke",
            "full disks",
            "disks that took no windows",
            "windows_dropped",
            "kills",
            "losses of power",
            "windows_written",
            "blocks_compacted",
            "tiers_written",
            "log_recoveries",
            "window_failures",
            "samples_out_of_order",
        ] {
            assert!(met.get(what).is_some_and(|count| *count > 0), "the simulation never met: {what}");
        }
    }
}

#[test]
fn a_seed_is_all_there_is_to_a_run() {
    for seed in 0..12 {
        let trace = || {
            let met = Met::default();
            let mut world = World::new(seed, &met);
            world.run();
            world.trace.finish()
        };
        assert_eq!(trace(), trace(), "seed {seed}");
    }
}
