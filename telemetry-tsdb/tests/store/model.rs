//! A million operations against a naive model: rows, late and repeated samples, histograms, ends, deletions, retention,
//! tiers, names that come late, selectors, restarts. `TELEMETRY_MODEL_OPERATIONS` and `TELEMETRY_MODEL_SEED` choose
//! others than CI's: `cargo xtask soak --operations N` sets them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use telemetry_model::{MatchOp, Matcher, NativeHistogram, is_stale};
use telemetry_tsdb::db::{Column, Config, Db, Hints, Refused, Retention, SeriesRef, Want};
use telemetry_tsdb::fs::sim::{Rng, SimClock, SimStorage};
use telemetry_tsdb::head::Sample;
use telemetry_tsdb::index::OwnerRef;

const START: i64 = 1_699_920_000_000;
const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
const RAW_MS: i64 = 5 * HOUR;
const TIER_MS: i64 = 15 * HOUR;
/// Series of each of the two groups; the last one of each has an owner.
const SERIES: usize = 6;

type Bits = (u64, u64);
type Labels = BTreeMap<String, String>;

/// What a label set has had, and its places now.
#[derive(Default)]
struct Known {
    samples: BTreeMap<i64, Bits>,
    /// Deleted ranges, for tiers.
    deleted: Vec<(i64, i64)>,
    /// How many stored series stood behind it.
    lives: usize,
}

struct Live {
    labels: Labels,
    series: SeriesRef,
    owner: OwnerRef,
}

struct World {
    seed: u64,
    rng: Rng,
    disk: SimStorage,
    clock: Arc<SimClock>,
    now: i64,
    db: Option<Db>,
    live: Vec<Live>,
    known: BTreeMap<Labels, Known>,
    pods: u64,
}

fn config() -> Config {
    let retention =
        Retention { raw_ms: RAW_MS, minute_ms: TIER_MS, five_minutes_ms: TIER_MS, hour_ms: TIER_MS };
    Config { retention, free_floor_bytes: 0, ..Config::default() }
}

fn bits_of(sample: &Sample) -> Bits {
    match sample {
        Sample::Float(value) => (0, value.to_bits()),
        Sample::Histogram(h) => (1 + h.count.to_bits(), h.sum.to_bits()),
    }
}

fn column_bits(column: &Column) -> BTreeMap<i64, Bits> {
    let histograms: BTreeMap<usize, &Arc<NativeHistogram>> =
        column.histograms.iter().map(|(at, h)| (*at as usize, h)).collect();
    let bits = |at: usize| match histograms.get(&at) {
        Some(h) => bits_of(&Sample::Histogram(Arc::clone(h))),
        None => (0, column.values[at].to_bits()),
    };
    column.times.iter().enumerate().map(|(at, t)| (*t, bits(at))).collect()
}

fn labels_of(pairs: &[(Arc<str>, Arc<str>)]) -> Labels {
    pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
}

fn matches(labels: &Labels, matchers: &[Matcher]) -> bool {
    matchers.iter().all(|m| {
        let value = labels.get(&m.name).map_or("", String::as_str);
        // The expressions used here are alternations of plain words.
        let is_among = m.value.split('|').any(|word| word == value || (word == ".+" && !value.is_empty()));
        match m.op {
            MatchOp::Equal => value == m.value,
            MatchOp::NotEqual => value != m.value,
            MatchOp::Regex => is_among,
            MatchOp::NotRegex => !is_among,
        }
    })
}

// === impl World ===

impl World {
    fn new(seed: u64) -> Self {
        let mut world = Self {
            seed,
            rng: Rng::new(seed),
            disk: SimStorage::default(),
            clock: Arc::new(SimClock::at(START)),
            now: START,
            db: None,
            live: Vec::new(),
            known: BTreeMap::new(),
            pods: 0,
        };
        world.open();
        world
    }

    fn db(&self) -> &Db {
        self.db.as_ref().unwrap()
    }

    fn open(&mut self) {
        self.db = None;
        let (db, report) = Db::open(config(), Arc::new(self.disk.clone()), self.clock.clone()).unwrap();
        assert!(report.damaged.is_empty(), "seed {}: {:?}", self.seed, report.damaged);
        self.db = Some(db);
        self.live.clear();
        (0..2 * SERIES).for_each(|at| self.create(at));
    }

    fn create(&mut self, at: usize) {
        let group = self.db().group(["a", "b"][at / SERIES]).unwrap();
        let name = ["x_total", "y", "z"][at % 3];
        let mut labels: Labels = [("__name__", name), ("job", ["web", "db"][at / SERIES])]
            .map(|(k, v)| (k.into(), v.into()))
            .into();
        labels.insert("at".into(), (at % SERIES).to_string());
        let pairs: Vec<(&str, &str)> = labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let mut owner = OwnerRef(0);
        if at % SERIES == SERIES - 1 {
            self.pods += 1;
            owner = self.db().create_owner(&[("pod_uid", &self.pods.to_string())]);
        }
        let series = self.db().series(group, &pairs, owner).unwrap();
        if owner != OwnerRef(0) {
            labels.insert("pod_uid".into(), self.pods.to_string());
        }
        let is_there = self.live.iter().any(|live| live.labels == labels);
        assert!(!is_there, "seed {}", self.seed);
        self.known.entry(labels.clone()).or_default().lives += 1;
        self.live.push(Live { labels, series, owner });
    }

    fn pick(&mut self, n: usize) -> usize {
        self.rng.below(n as u64) as usize
    }

    fn sample(&mut self, labels: &Labels) -> Sample {
        if labels["__name__"] == "z" && self.rng.below(4) > 0 {
            let count = self.rng.below(90) as f64;
            return Sample::Histogram(Arc::new(NativeHistogram {
                schema: 3,
                count,
                sum: count / 4.0,
                positive: std::iter::once((2, count)).collect(),
                ..NativeHistogram::default()
            }));
        }
        Sample::Float(self.rng.below(4000) as f64 / 4.0)
    }

    /// One operation.
    fn step(&mut self) {
        match self.rng.below(10_000) {
            0..6000 => self.row(),
            6000..7600 => self.single(),
            7600..8100 => drop(self.db().commit().unwrap()),
            8100..9100 => drop(self.db().maintain()),
            9100..9150 => self.delete(),
            9150..9200 => self.check_labels(),
            9200..9280 => self.check_recent(),
            9280..9283 => self.check_raw(),
            9283..9330 => self.check_tier(),
            9330..9960 => self.row(),
            9960..9985 => self.replace(),
            9985..9995 => self.bind(),
            9995..9999 => self.now += 40 * MINUTE,
            _ => self.restart(),
        }
    }

    fn row(&mut self) {
        self.now += 1 + self.rng.below(20_000) as i64;
        self.clock.set(self.now);
        let group = self.pick(2);
        let group = self.db().group(["a", "b"][group]).unwrap();
        let mut cells = Vec::new();
        for at in 0..self.live.len() {
            if self.live[at].series.group == group && self.rng.below(12) > 0 {
                let labels = self.live[at].labels.clone();
                cells.push((at, self.sample(&labels)));
            }
        }
        let t = self.now;
        let out =
            self.db().append_row(group, t, cells.iter().map(|(at, s)| (self.live[*at].series, s.clone())));
        for (at, sample) in cells {
            let refused = out.refused.iter().find(|(series, _)| *series == self.live[at].series);
            match refused {
                None => self.take(at, t, &sample),
                // Silent for two windows: asked for again.
                Some((_, Refused::Gone)) => self.renew(at),
                Some((_, reason)) => panic!("seed {}: {reason} at {t}", self.seed),
            }
        }
    }

    fn renew(&mut self, at: usize) {
        let Live { labels, owner, series } = &self.live[at];
        let own = labels.iter().filter(|(name, _)| !name.starts_with("pod"));
        let pairs: Vec<(&str, &str)> = own.map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let series = self.db().series(series.group, &pairs, *owner).unwrap();
        self.known.get_mut(&self.live[at].labels).unwrap().lives += 1;
        self.live[at].series = series;
    }

    fn take(&mut self, at: usize, t: i64, sample: &Sample) {
        let known = self.known.get_mut(&self.live[at].labels).unwrap();
        let before = known.samples.insert(t, bits_of(sample));
        assert!(before.is_none_or(|bits| bits == bits_of(sample)), "seed {}: took another value", self.seed);
    }

    /// A late sample, or one that is there already, with its value or another one.
    fn single(&mut self) {
        let at = self.pick(self.live.len());
        let labels = self.live[at].labels.clone();
        let mut t = self.now - self.rng.below(35 * MINUTE as u64) as i64;
        let known = &self.known[&labels].samples;
        let is_repeated = self.rng.below(3) == 0;
        if is_repeated && let Some((there, _)) = known.range(..=t).next_back() {
            t = *there;
        }
        let there = known.get(&t).copied();
        let sample = match there {
            Some((0, bits)) if self.rng.below(2) == 0 => Sample::Float(f64::from_bits(bits)),
            _ => self.sample(&labels),
        };
        let out = self.db().append([(self.live[at].series, t, sample.clone())]);
        match (out.refused.first().map(|refused| refused.1), there) {
            (None, _) => self.take(at, t, &sample),
            (Some(Refused::Duplicate), Some(bits)) => {
                assert_ne!(bits, bits_of(&sample), "seed {}", self.seed)
            }
            (Some(Refused::Duplicate), None) => panic!("seed {}: nothing is there at {t}", self.seed),
            (Some(_), _) => {}
        }
    }

    fn delete(&mut self) {
        let at = self.pick(self.live.len());
        let labels = self.live[at].labels.clone();
        let to = self.now - 40 * MINUTE - self.rng.below(3 * HOUR as u64) as i64;
        let from = to - self.rng.below(30 * MINUTE as u64) as i64;
        // No label beside these: not the owner's other series.
        let absent = ["pod", "pod_uid"].into_iter().filter(|name| !labels.contains_key(*name));
        let matchers: Vec<Matcher> = labels
            .iter()
            .map(|(name, value)| Matcher::new(name.clone(), MatchOp::Equal, value.clone()))
            .chain(absent.map(|name| Matcher::new(name, MatchOp::Equal, "")))
            .collect();
        self.db().delete(&matchers, from, to).unwrap();
        let known = self.known.get_mut(&labels).unwrap();
        known.samples.retain(|t, _| *t < from || *t > to);
        known.deleted.push((from, to));
        if self.rng.below(3) == 0 {
            self.db().apply_deletions().unwrap();
        }
    }

    /// A series ends and another one of the same place begins; owned ones get a new owner.
    fn replace(&mut self) {
        let at = self.pick(self.live.len());
        let marker = Sample::Float(telemetry_model::STALE_MARKER);
        self.now += 1;
        self.clock.set(self.now);
        let out = self.db().append([(self.live[at].series, self.now, marker.clone())]);
        if out.refused.is_empty() {
            self.take(at, self.now, &marker);
        }
        self.db().end(&[self.live[at].series], self.now);
        let gone = self.live.remove(at);
        let place =
            SERIES * usize::from(gone.labels["job"] == "db") + gone.labels["at"].parse::<usize>().unwrap();
        self.create(place);
        // Places count from the front.
        let moved = self.live.pop().unwrap();
        self.live.insert(at, moved);
    }

    /// What a pod is called becomes known: its old samples bear the name, too.
    fn bind(&mut self) {
        let owned: Vec<usize> =
            (0..self.live.len()).filter(|at| self.live[*at].labels.contains_key("pod_uid")).collect();
        if owned.is_empty() {
            return;
        }
        let at = owned[self.pick(owned.len())];
        let uid = self.live[at].labels["pod_uid"].clone();
        assert!(self.db().bind_owner(self.live[at].owner, &[("pod", &uid)]), "seed {}", self.seed);
        let old = self.live[at].labels.clone();
        let known = self.known.remove(&old).unwrap();
        let mut labels = old;
        labels.remove("pod_uid");
        labels.insert("pod".into(), uid);
        self.known.insert(labels.clone(), known);
        self.live[at].labels = labels;
    }

    fn restart(&mut self) {
        self.db().commit().unwrap();
        let owned: Vec<Live> = self.live.drain(..).collect();
        self.db = None;
        if self.rng.below(2) == 0 {
            self.disk.crash(&mut self.rng);
        }
        self.open();
        // Owners of before are in the log; their series go on under them.
        for (at, old) in owned.into_iter().enumerate() {
            if old.owner == OwnerRef(0) {
                continue;
            }
            let made = &self.live[at];
            let known = self.known.remove(&made.labels);
            assert!(known.is_some_and(|known| known.samples.is_empty()), "seed {}", self.seed);
            self.live[at] = old;
            self.renew(at);
        }
        self.check_raw();
    }

    /// Model samples of a label set in a range that raw files must have.
    fn compare(&self, labels: &Labels, column: &Column, from: i64, to: i64) {
        let got = column_bits(column);
        let empty = BTreeMap::new();
        let samples = self.known.get(labels).map_or(&empty, |known| &known.samples);
        let sure = from.max(self.now - RAW_MS);
        if sure <= to {
            let expected: Vec<_> = samples.range(sure..=to).collect();
            let there: Vec<_> = got.range(sure..=to).collect();
            assert_eq!(there, expected, "seed {}: {labels:?} in {sure}..={to}, now {}", self.seed, self.now);
        }
        for (t, bits) in got {
            assert_eq!(samples.get(&t), Some(&bits), "seed {}: {labels:?} at {t}", self.seed);
        }
    }

    fn check_range(&self, matchers: &[Matcher], from: i64, to: i64) {
        let selection = self.db().select(matchers, from, to).unwrap();
        let mut reader = selection.reader();
        let mut found = BTreeSet::new();
        for series in selection.series() {
            let labels = labels_of(series.labels());
            assert!(matches(&labels, matchers), "seed {}: {labels:?} by {matchers:?}", self.seed);
            self.compare(&labels, &reader.read(series, from, to).unwrap(), from, to);
            assert!(found.insert(labels), "seed {}: a label set twice", self.seed);
        }
        let sure = from.max(self.now - RAW_MS);
        for (labels, known) in &self.known {
            let has = sure <= to && known.samples.range(sure..=to).next().is_some();
            if has && matches(labels, matchers) {
                assert!(
                    found.contains(labels),
                    "seed {}: {labels:?} is missing from {matchers:?}",
                    self.seed
                );
            }
        }
    }

    fn matcher(&mut self) -> Matcher {
        let (name, words): (&str, &[&str]) = match self.rng.below(5) {
            0 => ("__name__", &["x_total", "y", "z", "x_total|y", ".+"]),
            1 => ("job", &["web", "db", "web|db", "none", ""]),
            2 => ("at", &["0", "1", "2|3", "5", ".+"]),
            3 => ("pod", &["", ".+", "1|2|3"]),
            _ => ("pod_uid", &["", ".+"]),
        };
        let value = words[self.pick(words.len())];
        let op = match self.rng.below(4) {
            0 if value != ".+" && !value.contains('|') => MatchOp::NotEqual,
            1 if value != ".+" && !value.contains('|') => MatchOp::Equal,
            2 => MatchOp::NotRegex,
            _ => MatchOp::Regex,
        };
        Matcher::new(name, op, value)
    }

    fn check_labels(&mut self) {
        let count = 1 + self.pick(3);
        let matchers: Vec<Matcher> = (0..count).map(|_| self.matcher()).collect();
        let from = self.now - self.rng.below(30 * MINUTE as u64) as i64;
        self.check_range(&matchers, from, self.now);
        let values = self.db().label_values("at", &matchers, from, self.now).unwrap();
        let having = self.known.iter().filter(|(labels, known)| {
            matches(labels, &matchers) && known.samples.range(from..).next().is_some()
        });
        for (labels, _) in having {
            assert!(values.iter().any(|value| **value == labels["at"]), "seed {}: {matchers:?}", self.seed);
        }
    }

    fn check_recent(&mut self) {
        let matchers = [self.matcher()];
        let from = self.now - self.rng.below(HOUR as u64) as i64;
        let to = from + self.rng.below(20 * MINUTE as u64) as i64;
        self.check_range(&matchers, from, to);
    }

    /// Everything that is kept as it came.
    fn check_raw(&mut self) {
        self.check_range(&[Matcher::new("__name__", MatchOp::Regex, ".+")], i64::MIN, i64::MAX);
        let oldest = self.now - TIER_MS - 4 * HOUR;
        for known in self.known.values_mut() {
            known.samples = known.samples.split_off(&oldest);
            known.deleted.retain(|(_, to)| *to >= oldest);
        }
        let live: BTreeSet<&Labels> = self.live.iter().map(|live| &live.labels).collect();
        self.known.retain(|labels, known| !known.samples.is_empty() || live.contains(labels));
    }

    /// Whole hours that are in files, by rows of a tier.
    fn check_tier(&mut self) {
        let at = self.pick(self.live.len());
        let labels = self.live[at].labels.clone();
        let known = &self.known[&labels];
        let end = (self.now - 4 * HOUR) / HOUR * HOUR - HOUR * self.rng.below(6) as i64;
        let from = end - HOUR * (1 + self.rng.below(3) as i64);
        let is_deleted = known.deleted.iter().any(|(a, b)| *a <= end + HOUR && from - HOUR <= *b);
        // Where one of two series of the same labels ends in an interval, the younger one says all.
        if is_deleted || known.lives > 1 || labels["__name__"] == "z" || from < START {
            return;
        }
        let tier = [MINUTE, 5 * MINUTE, HOUR][self.rng.below(3) as usize];
        let want = [Want::Sum, Want::Count, Want::Min, Want::Max][self.rng.below(4) as usize];
        let matchers: Vec<Matcher> =
            labels.iter().map(|(n, v)| Matcher::new(n.clone(), MatchOp::Equal, v.clone())).collect();
        let hints = Hints { step_ms: 4 * tier, window_ms: 4 * tier, want };
        let selection = self.db().select_for(&matchers, from + 1, end, &hints).unwrap();
        let mut got = Vec::new();
        let mut reader = selection.reader();
        for series in selection.series().iter().filter(|series| labels_of(series.labels()) == labels) {
            let column = reader.read(series, from + 1, end).unwrap();
            got.extend(column.values.into_iter().filter(|value| !is_stale(*value)));
        }
        let all = known.samples.range(from + 1..=end).map(|(_, bits)| f64::from_bits(bits.1));
        let all: Vec<f64> = all.filter(|value| !is_stale(*value)).collect();
        let fold = |values: &[f64]| match want {
            Want::Min => values.iter().copied().fold(f64::INFINITY, f64::min),
            Want::Max => values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            _ => values.iter().sum(),
        };
        let expected = if want == Want::Count { all.len() as f64 } else { fold(&all) };
        assert_eq!(
            fold(&got),
            expected,
            "seed {}: {want:?} of {labels:?}, {from} to {end}, {tier}",
            self.seed
        );
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

#[test]
fn a_million_operations_are_what_a_naive_model_says() {
    let (seed, operations) =
        (number("TELEMETRY_MODEL_SEED", 0), number("TELEMETRY_MODEL_OPERATIONS", 1_000_000));
    let work = |seed: u64| {
        let mut world = World::new(seed);
        (0..operations / 2).for_each(|_| world.step());
        world.check_raw();
        let levels: BTreeSet<(i64, u8)> =
            world.db().blocks().iter().map(|b| (b.meta().tier_ms, b.meta().level)).collect();
        if operations >= 100_000 {
            let is_joined = |tier: i64| levels.iter().any(|(of, level)| *of == tier && *level > 0);
            assert!(is_joined(0) && is_joined(MINUTE) && is_joined(HOUR), "seed {seed}: {levels:?}");
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(move || work(2 * seed));
        work(2 * seed + 1);
    });
}
