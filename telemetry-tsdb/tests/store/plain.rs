//! What the store promises when nothing goes wrong.

use std::sync::Arc;

use telemetry_model::{MatchOp, Matcher};
use telemetry_tsdb::db::{Column, Config, Db, Mode, Refused, Work};
use telemetry_tsdb::fs::sim::{Fault, Rng, SimClock, SimStorage};
use telemetry_tsdb::head::{Sample, WINDOW_MS};
use telemetry_tsdb::index::{Limits, OwnerRef};

const START: i64 = 1_700_006_400_000 / WINDOW_MS * WINDOW_MS;

struct Store {
    db: Db,
    disk: SimStorage,
    clock: Arc<SimClock>,
}

fn store(config: Config) -> Store {
    let (disk, clock) = (SimStorage::default(), Arc::new(SimClock::at(START)));
    let (db, _) = Db::open(config, Arc::new(disk.clone()), clock.clone()).unwrap();
    Store { db, disk, clock }
}

fn read(db: &Db, matchers: &[Matcher]) -> Vec<(String, Column)> {
    let selection = db.select(matchers, i64::MIN, i64::MAX).unwrap();
    let mut reader = selection.reader();
    let text = |pairs: &[(Arc<str>, Arc<str>)]| {
        pairs.iter().map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>().join(",")
    };
    let read =
        |s| (text(telemetry_tsdb::db::Selected::labels(s)), reader.read(s, i64::MIN, i64::MAX).unwrap());
    selection.series().iter().map(read).collect()
}

fn named(name: &str) -> [Matcher; 1] {
    [Matcher::new("__name__", MatchOp::Equal, name)]
}

#[test]
fn names_that_come_late_are_the_names_of_old_samples_too() {
    let Store { db, disk, clock } = store(Config::default());
    let group = db.group("g").unwrap();
    let owner = db.create_owner(&[("pod_uid", "u1")]);
    let series = db.series(group, &[("__name__", "x")], owner).unwrap();
    for k in 0..400 {
        let t = START + k * 5000;
        clock.set(t);
        db.append_row(group, t, [(series, Sample::Float(k as f64))]);
    }
    db.commit().unwrap();
    while db.maintain() != Work::Nothing {}
    assert_eq!(db.blocks().len(), 1, "the first window is in a file");
    assert_eq!(read(&db, &named("x"))[0].0, "__name__=x,pod_uid=u1");
    assert!(db.bind_owner(owner, &[("namespace", "shop"), ("pod", "web")]));
    assert!(!db.bind_owner(owner, &[("pod", "other")]), "a binding is for good");
    db.commit().unwrap();
    let check = |db: &Db| {
        let found = read(db, &[Matcher::new("pod", MatchOp::Regex, "we.")]);
        assert_eq!(found[0].0, "__name__=x,namespace=shop,pod=web");
        assert_eq!(found[0].1.times.len(), 400, "samples from before the name was known");
        assert!(read(db, &[Matcher::new("pod_uid", MatchOp::Equal, "u1")]).is_empty());
        assert_eq!(db.label_values("pod", &[], i64::MIN, i64::MAX).unwrap(), ["web".into()]);
    };
    check(&db);
    drop(db);
    disk.crash(&mut Rng::new(7));
    let (db, _) = Db::open(Config::default(), Arc::new(disk), clock).unwrap();
    check(&db);
}

#[test]
fn two_owners_of_one_name_are_one_series() {
    let Store { db, .. } = store(Config::default());
    let group = db.group("g").unwrap();
    let owners = [db.create_owner(&[]), db.create_owner(&[])];
    let series = owners.map(|owner| db.series(group, &[("__name__", "x")], owner).unwrap());
    db.append_row(group, START, [(series[0], Sample::Float(1.0))]);
    db.append_row(group, START + 1, [(series[0], Sample::Float(2.0)), (series[1], Sample::Float(7.0))]);
    db.append_row(group, START + 2, [(series[1], Sample::Float(3.0))]);
    owners.iter().for_each(|owner| assert!(db.bind_owner(*owner, &[("pod", "a")])));
    let found = read(&db, &named("x"));
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].1.values, [1.0, 7.0, 3.0], "the younger one's sample where both have one");
}

#[test]
fn samples_are_refused_by_reason() {
    let Store { db, clock, .. } = store(Config::default());
    let group = db.group("g").unwrap();
    let series = db.series(group, &[("__name__", "x")], OwnerRef(0)).unwrap();
    let try_at =
        |t: i64, value: f64| db.append([(series, t, Sample::Float(value))]).refused.first().map(|r| r.1);
    clock.set(START + 3_600_000);
    assert_eq!(try_at(START + 3_600_000, 1.0), None);
    assert_eq!(try_at(START + 3_600_000, 1.0), None, "the same again is no error");
    assert_eq!(try_at(START + 3_600_000, 2.0), Some(Refused::Duplicate));
    assert_eq!(try_at(START + 3_600_000 - 29 * 60_000, 3.0), None);
    assert_eq!(try_at(START + 3_600_000 - 29 * 60_000, 4.0), Some(Refused::Duplicate));
    assert_eq!(try_at(START + 3_600_000 - 31 * 60_000, 1.0), Some(Refused::TooOld));
    assert_eq!(try_at(START + 3_600_000 + 11 * 60_000, 1.0), Some(Refused::TooNew));
    let counters = db.health().counters.all();
    let count = |name: &str| counters.iter().find(|c| c.0 == name).unwrap().1;
    assert_eq!((count("samples_duplicate"), count("samples_too_old"), count("samples_too_new")), (2, 1, 1));
    assert_eq!(read(&db, &named("x"))[0].1.values, [3.0, 1.0]);
}

#[test]
fn beyond_the_limit_sums_stay_whole_on_the_overflow_series() {
    let limits = Limits { series: 3, ..Limits::default() };
    let Store { db, .. } = store(Config { limits, ..Config::default() });
    let group = db.group("g").unwrap();
    let mut ids = std::collections::BTreeSet::new();
    for k in 0..10 {
        let v = k.to_string();
        ids.insert(db.series(group, &[("__name__", "x"), ("v", &v)], OwnerRef(0)).unwrap().id);
    }
    assert_eq!(ids.len(), 4, "three, and one for all others");
    let counters = db.health().counters.all();
    assert!(counters.contains(&("series_overflowed", 7)));
}

#[test]
fn windows_become_files_files_are_joined_and_go_when_their_time_is_over() {
    let Store { db, disk, clock } = store(Config::default());
    let group = db.group("g").unwrap();
    let series: Vec<_> = (0..20)
        .map(|k| db.series(group, &[("__name__", "x"), ("k", &format!("{k:02}"))], OwnerRef(0)).unwrap())
        .collect();
    let mut seen = std::collections::BTreeSet::new();
    let ticks = 28 * 3600 / 60;
    for tick in 0..ticks {
        let t = START + tick * 60_000;
        clock.set(t);
        db.append_row(group, t, series.iter().zip(0..).map(|(s, k)| (*s, Sample::Float((tick * k) as f64))));
        db.commit().unwrap();
        while db.maintain() != Work::Nothing {}
        seen.extend(db.blocks().iter().map(|b| b.meta().level));
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [0, 1, 2], "fresh, two hours, a day");
    let found = read(&db, &named("x"));
    assert_eq!(found.len(), 20);
    for ((_, column), k) in found.iter().zip(0..) {
        let first = column.times[0];
        assert!(START + (ticks - 1) * 60_000 - first >= 24 * 3_600_000, "a day is kept");
        for (t, value) in column.times.iter().zip(&column.values) {
            assert_eq!(*value, ((t - START) / 60_000 * k) as f64);
        }
        assert!(column.times.windows(2).all(|w| w[1] - w[0] == 60_000), "no gap at any border of files");
    }
    let log: usize = disk.files().iter().filter(|(p, _)| p.starts_with("log")).map(|(_, len)| len).sum();
    assert!(log < 100_000, "the log is cut behind the files: {log} bytes");
    clock.set(START + ticks * 60_000 + 40 * 3_600_000);
    while db.maintain() != Work::Nothing {}
    assert!(db.blocks().iter().all(|b| b.meta().tier_ms > 0), "two days later all raw files are gone");
    clock.set(START + ticks * 60_000 + 400 * 24 * 3_600_000);
    while db.maintain() != Work::Nothing {}
    assert!(db.blocks().is_empty(), "a year later everything is gone");
}

#[test]
fn a_disk_that_refuses_stops_nothing_and_is_taken_up_again() {
    let Store { db, disk, clock } = store(Config::default());
    let group = db.group("g").unwrap();
    let series = db.series(group, &[("__name__", "x")], OwnerRef(0)).unwrap();
    let tick = |k: i64| {
        let t = START + k * 5000;
        clock.set(t);
        assert_eq!(db.append_row(group, t, [(series, Sample::Float(k as f64))]).taken, 1);
        db.commit()
    };
    assert_eq!(tick(0).unwrap(), START);
    disk.fail(1, Fault::Broken);
    assert!(tick(1).is_err(), "nothing is acknowledged");
    assert_eq!(db.health().mode(), Mode::Degraded);
    assert!(!db.health().reason().is_empty());
    for k in 2..300 {
        assert!(tick(k).is_err());
        db.maintain();
    }
    assert_eq!(db.durable_through(), START);
    assert_eq!(read(&db, &named("x"))[0].1.times.len(), 300, "all of it can be read");
    disk.heal();
    clock.set(START + 299 * 5000 + 16_000);
    assert_eq!(db.maintain(), Work::Recovered);
    assert_eq!(db.durable_through(), START + 299 * 5000, "what was taken meanwhile is on disk now");
    tick(300).unwrap();
    drop(db);
    disk.crash(&mut Rng::new(3));
    let (db, _) = Db::open(Config::default(), Arc::new(disk), clock.clone()).unwrap();
    assert_eq!(read(&db, &named("x"))[0].1.times.len(), 301);
}

#[test]
fn a_full_disk_gives_its_oldest_files_away_and_recovers() {
    let Store { db, disk, clock } = store(Config { free_floor_bytes: 20_000, ..Config::default() });
    disk.set_capacity(400_000);
    let group = db.group("g").unwrap();
    let series: Vec<_> = (0..100)
        .map(|k| db.series(group, &[("__name__", "x"), ("k", &k.to_string())], OwnerRef(0)).unwrap())
        .collect();
    let mut rng = Rng::new(5);
    let mut acknowledged = 0;
    for tick in 0..1200 {
        let t = START + tick * 30_000;
        clock.set(t);
        db.append_row(
            group,
            t,
            series.iter().map(|s| (*s, Sample::Float(f64::from_bits(rng.number() >> 2)))),
        );
        acknowledged += i32::from(db.commit().is_ok());
        for _ in 0..20 {
            if db.maintain() == Work::Nothing {
                break;
            }
        }
    }
    assert!(acknowledged > 1100, "{acknowledged} of 1200 ticks");
    let expired = db.health().counters.all().iter().find(|c| c.0 == "blocks_expired").unwrap().1;
    assert!(expired > 0);
    assert_eq!(read(&db, &named("x")).len(), 100);
}

#[test]
fn without_a_disk_the_head_is_all_there_is() {
    let clock = Arc::new(SimClock::at(START));
    let db = Db::in_memory(Config::default(), clock.clone());
    let group = db.group("g").unwrap();
    let series = db.series(group, &[("__name__", "x")], OwnerRef(0)).unwrap();
    for k in 0..2000 {
        let t = START + k * 60_000;
        clock.set(t);
        db.append_row(group, t, [(series, Sample::Float(k as f64))]);
        db.commit().unwrap();
        db.maintain();
    }
    let kept = read(&db, &named("x"))[0].1.times.len();
    assert!((1440..1500).contains(&kept), "a day and the open window: {kept}");
}

#[test]
fn history_comes_in_by_the_bulk() {
    let Store { db, .. } = store(Config::default());
    let mut bulk = db.bulk();
    for k in (0..5000i64).rev() {
        bulk.add(&[("__name__", "old")], [(START - k * 15_000, Sample::Float(k as f64))]).unwrap();
    }
    bulk.add(&[("__name__", "old")], [(START, Sample::Float(9.0))]).unwrap();
    let done = bulk.finish().unwrap();
    assert_eq!((done.samples, done.duplicates + done.conflicts, done.refused), (5000, 1, 0));
    let found = read(&db, &named("old"));
    assert_eq!(found[0].1.times.len(), 5000);
    assert_eq!(found[0].1.values[4999], 0.0, "the first of two at one time stays");
    while db.maintain() != Work::Nothing {}
    assert_eq!(read(&db, &named("old"))[0].1.times.len(), 5000, "the same after files were joined");
}

/// A scrape whose samples carry times of their own: each container's differ from all others'.
#[test]
fn series_that_miss_most_rows_of_their_group_cost_no_more_than_their_own_times() {
    let size = |spread: i64| {
        let Store { db, clock, .. } = store(Config::default());
        let group = db.group("g").unwrap();
        let series: Vec<_> = (0..400)
            .map(|k| db.series(group, &[("__name__", "x"), ("k", &k.to_string())], OwnerRef(0)).unwrap())
            .collect();
        for tick in 0..240 {
            let t = START + tick * 5000;
            clock.set(t);
            for (container, of) in (0..).zip(series.chunks(10)) {
                let t = t + container * spread;
                db.append_row(group, t, of.iter().map(|s| (*s, Sample::Float((tick * container) as f64))));
            }
        }
        db.commit().unwrap();
        clock.set(START + 2 * WINDOW_MS);
        while db.maintain() != Work::Nothing {}
        let found = read(&db, &named("x"));
        assert!(found.iter().all(|(_, column)| column.times.len() == 240), "{spread}");
        db.blocks().iter().map(|b| b.bytes()).sum::<u64>()
    };
    let (together, apart) = (size(0), size(40));
    // Forty columns of times instead of one; a bit for each row would cost twenty times as much as the values.
    assert!(apart < together + 40 * 400, "{together} bytes together, {apart} apart");
}
