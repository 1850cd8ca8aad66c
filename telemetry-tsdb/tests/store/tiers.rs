//! What tiers say is what raw samples said: over whole intervals, for every want, on every tier, across the borders
//! between them, and after raw samples are gone.

use std::collections::BTreeMap;
use std::sync::Arc;

use telemetry_model::{MatchOp, Matcher, NativeHistogram, STALE_MARKER, is_stale};
use telemetry_tsdb::db::{Column, Config, Db, Hints, Metadata, Retention, Want, Work};
use telemetry_tsdb::fs::sim::{Rng, SimClock, SimStorage};
use telemetry_tsdb::head::Sample;
use telemetry_tsdb::index::OwnerRef;

const HOUR: i64 = 3_600_000;
const TICK: i64 = 15_000;
/// A whole number of days.
const START: i64 = 1_699_920_000_000;
const HOURS: i64 = 85;

type Floats = BTreeMap<i64, f64>;

struct World {
    db: Db,
    disk: SimStorage,
    clock: Arc<SimClock>,
    floats: BTreeMap<&'static str, Floats>,
    /// Observations of the native histogram.
    observed: Floats,
}

fn config() -> Config {
    let retention = Retention {
        raw_ms: 6 * HOUR,
        minute_ms: 24 * HOUR,
        five_minutes_ms: 50 * HOUR,
        hour_ms: 1000 * HOUR,
    };
    Config { retention, ..Config::default() }
}

fn world() -> World {
    let (disk, clock) = (SimStorage::default(), Arc::new(SimClock::at(START)));
    let (db, _) = Db::open(config(), Arc::new(disk.clone()), clock.clone()).unwrap();
    let mut world = World { db, disk, clock, floats: BTreeMap::new(), observed: Floats::new() };
    let group = world.db.group("g").unwrap();
    for (family, kind) in [("c_total", "counter"), ("g", "gauge"), ("h", "histogram")] {
        world.db.set_metadata(family, Metadata { kind: kind.into(), ..Metadata::default() });
    }
    let series = |name: &str| world.db.series(group, &[("__name__", name)], OwnerRef(0)).unwrap();
    let (counter, gauge, histogram) = (series("c_total"), series("g"), series("h"));
    let (mut rng, mut count, mut state) = (Rng::new(11), 0.0, NativeHistogram::default());
    let mut floats: BTreeMap<&'static str, Floats> = BTreeMap::new();
    for tick in 0..HOURS * HOUR / TICK {
        let t = START + tick * TICK;
        world.clock.set(t);
        count = if rng.below(500) == 0 { 1.0 } else { count + rng.below(9) as f64 };
        // A gap at each end of a day, with its stale marker before it.
        let in_day = t.rem_euclid(24 * HOUR);
        let value = match in_day {
            _ if in_day == 23 * HOUR => STALE_MARKER,
            _ if in_day > 23 * HOUR => continue,
            _ => rng.below(1000) as f64 / 4.0,
        };
        if rng.below(700) == 0 {
            state = NativeHistogram::default();
        }
        state.count += 1.0;
        state.sum += 0.5;
        state.positive = std::iter::once((3, state.count)).collect();
        world.db.append_row(
            group,
            t,
            [
                (counter, Sample::Float(count)),
                (gauge, Sample::Float(value)),
                (histogram, Sample::Histogram(Arc::new(state.clone()))),
            ],
        );
        floats.entry("c_total").or_default().insert(t, count);
        floats.entry("g").or_default().insert(t, value);
        world.observed.insert(t, state.count);
        if tick % 4 == 0 {
            world.db.commit().unwrap();
            while world.db.maintain() != Work::Nothing {}
        }
    }
    world.floats = floats;
    world
}

// === impl World ===

impl World {
    fn column(&self, name: &str, from: i64, to: i64, hints: Hints) -> (Column, Vec<i64>) {
        let matchers = [Matcher::new("__name__", MatchOp::Equal, name)];
        let selection = self.db.select_for(&matchers, from, to, &hints).unwrap();
        let tiers = selection.stretches().iter().map(|stretch| stretch.tier_ms).collect();
        let mut reader = selection.reader();
        let Some(series) = selection.series().first() else { return (Column::default(), tiers) };
        (reader.read(series, from, to).unwrap(), tiers)
    }

    fn now(&self) -> i64 {
        START + HOURS * HOUR - TICK
    }
}

/// Values of a window, stale markers left out.
fn within(times: &[i64], values: &[f64], from: i64, to: i64) -> Vec<f64> {
    let cells = times.iter().zip(values).filter(|(t, v)| **t > from && **t <= to && !is_stale(**v));
    cells.map(|(_, v)| *v).collect()
}

fn all_within(samples: &Floats, from: i64, to: i64) -> Vec<f64> {
    samples.range(from + 1..=to).map(|(_, v)| *v).filter(|v| !is_stale(*v)).collect()
}

/// By how much a counter grew from its last sample at `from` or before to its last at `to` or before.
fn growth(samples: &Floats, from: i64, to: i64) -> f64 {
    let base = samples.range(..=from).next_back().map(|(t, _)| *t).unwrap_or(from + 1);
    let all: Vec<f64> = samples.range(base..=to).map(|(_, v)| *v).collect();
    all.windows(2).map(|w| if w[1] < w[0] { w[1] } else { w[1] - w[0] }).sum()
}

fn at_or_before(times: &[i64], values: impl Fn(usize) -> f64, t: i64) -> f64 {
    values(times.partition_point(|when| *when <= t).checked_sub(1).unwrap())
}

/// Every whole hour's windows of what was kept, and those of the hours around each border.
fn windows(from: i64, to: i64) -> impl Iterator<Item = (i64, i64)> {
    (from..to)
        .step_by(HOUR as usize)
        .flat_map(move |a| [(a, a + HOUR), (a, a + 4 * HOUR)])
        .filter(move |w| w.1 <= to)
}

#[test]
fn every_want_is_answered_by_tiers_as_by_all_samples() {
    let world = world();
    let to = START + (HOURS - 1) * HOUR;
    let kept: std::collections::BTreeSet<i64> = world.db.blocks().iter().map(|b| b.meta().tier_ms).collect();
    assert_eq!(kept.into_iter().collect::<Vec<_>>(), [0, 60_000, 300_000, HOUR], "all tiers have files");
    let levels: std::collections::BTreeSet<u8> =
        world.db.blocks().iter().filter(|b| b.meta().tier_ms > 0).map(|b| b.meta().level).collect();
    assert_eq!(levels.into_iter().collect::<Vec<_>>(), [1, 2], "two hours, a day");
    for step_ms in [TICK, 300_000, 1_200_000, 4 * HOUR] {
        // The first interval has no sample at its beginning.
        let from = START + HOUR;
        let hints = |want| Hints { step_ms, window_ms: step_ms, want };
        for name in ["c_total", "g"] {
            let model = &world.floats[name];
            let fold = |want: Want, fold: &dyn Fn(&[f64]) -> f64| {
                let (column, tiers) = world.column(name, from + 1, to, hints(want));
                assert!(tiers.len() > 1 || step_ms == 4 * HOUR, "{tiers:?}");
                for (a, b) in windows(from, to) {
                    let (got, expected) =
                        (within(&column.times, &column.values, a, b), all_within(model, a, b));
                    assert_eq!(got.is_empty(), expected.is_empty(), "{want:?} {name} ({a}, {b}]");
                    if !expected.is_empty() {
                        let expected =
                            if want == Want::Count { expected.len() as f64 } else { fold(&expected) };
                        assert_eq!(fold(&got), expected, "{want:?} of {name} in ({a}, {b}], step {step_ms}");
                    }
                }
            };
            let sum = |all: &[f64]| all.iter().sum::<f64>();
            let (column, _) = world.column(name, from, to, hints(Want::Last));
            for (a, b) in windows(from, to) {
                let got = at_or_before(&column.times, |at| column.values[at], b);
                let expected = *model.range(..=b).next_back().unwrap().1;
                assert_eq!(got.to_bits(), expected.to_bits(), "last of {name} in ({a}, {b}], step {step_ms}");
            }
            fold(Want::Count, &sum);
            if name == "g" {
                fold(Want::Sum, &sum);
                fold(Want::Min, &|all| all.iter().copied().fold(f64::INFINITY, f64::min));
                fold(Want::Max, &|all| all.iter().copied().fold(f64::NEG_INFINITY, f64::max));
                continue;
            }
            let (column, _) = world.column(name, from, to, hints(Want::Increase));
            assert!(column.values.is_sorted(), "resets are made good");
            for (a, b) in windows(from, to) {
                let value = |t| at_or_before(&column.times, |at| column.values[at], t);
                assert_eq!(value(b) - value(a), growth(model, a, b), "({a}, {b}], step {step_ms}");
            }
        }
        let (column, _) = world.column("h", from, to, hints(Want::Increase));
        assert_eq!(column.histograms.len(), column.times.len());
        for (a, b) in windows(from, to) {
            let value = |t| at_or_before(&column.times, |at| column.histograms[at].1.count, t);
            assert_eq!(value(b) - value(a), growth(&world.observed, a, b), "({a}, {b}], step {step_ms}");
        }
    }
}

#[test]
fn steps_choose_the_tier_and_every_sample_means_every_sample() {
    let world = world();
    let recent = world.now() - 3 * HOUR;
    let tiers = |want, step_ms, from| {
        world.column("g", from, world.now(), Hints { step_ms, window_ms: step_ms, want }).1
    };
    assert_eq!(tiers(Want::Sum, TICK, recent), [0]);
    assert_eq!(tiers(Want::Every, 4 * HOUR, recent), [0]);
    assert_eq!(tiers(Want::Sum, 4 * HOUR, START + 30 * HOUR), [HOUR, 0]);
    assert_eq!(tiers(Want::Sum, 1_200_000, START + 30 * HOUR), [300_000, 0]);
    assert_eq!(tiers(Want::Every, TICK, START + HOUR), [HOUR, 300_000, 60_000, 0]);
}

#[test]
fn deleted_samples_are_gone_from_tiers_too_and_a_restart_keeps_them_all() {
    let world = world();
    let matchers = [Matcher::new("__name__", MatchOp::Equal, "g")];
    let (a, b) = (START + 30 * HOUR, START + 34 * HOUR);
    world.db.delete(&matchers, a, b).unwrap();
    world.db.commit().unwrap();
    let now = world.now();
    let check = |db: &Db| {
        for tier in [60_000, 300_000, HOUR] {
            let hints = Hints { step_ms: 4 * tier, window_ms: 4 * tier, want: Want::Last };
            let selection = db.select_for(&matchers, START, now, &hints).unwrap();
            let column = selection.reader().read(&selection.series()[0], START, now).unwrap();
            let inside = column.times.iter().filter(|t| **t > a - HOUR && **t <= b + HOUR).count();
            let near: Vec<i64> = column.times.iter().copied().filter(|t| *t >= a && t - tier < b).collect();
            assert!(near.iter().all(|t| *t < a || *t > b), "{near:?}");
            assert!(inside < column.times.len());
            assert!(column.times.iter().any(|t| *t < a) && column.times.iter().any(|t| *t > b + HOUR));
        }
    };
    check(&world.db);
    let files = world.db.blocks().len();
    drop(world.db);
    let (db, report) = Db::open(config(), Arc::new(world.disk.clone()), world.clock.clone()).unwrap();
    assert_eq!((report.blocks, report.damaged.len()), (files, 0));
    check(&db);
}
