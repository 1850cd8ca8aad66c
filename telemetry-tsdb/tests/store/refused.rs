//! A disk that refuses for a while: nothing that was promised is lost, nothing piles up, and it is taken up again.

use std::sync::Arc;

use telemetry_model::{MatchOp, Matcher};
use telemetry_tsdb::db::{Config, Db, Mode, Work};
use telemetry_tsdb::fs::sim::{Fault, Rng, SimClock, SimStorage};
use telemetry_tsdb::head::{Sample, WINDOW_MS};
use telemetry_tsdb::index::OwnerRef;

const START: i64 = 1_700_006_400_000 / WINDOW_MS * WINDOW_MS;

fn config() -> Config {
    Config { free_floor_bytes: 0, reserve_bytes: 0, ..Config::default() }
}

fn open(disk: &SimStorage, clock: &Arc<SimClock>) -> Db {
    Db::open(config(), Arc::new(disk.clone()), clock.clone()).unwrap().0
}

/// Times and values of the series `x` with this label `k`.
fn samples(db: &Db, k: &str) -> Vec<(i64, f64)> {
    let selection = db.select(&[Matcher::new("k", MatchOp::Equal, k)], i64::MIN, i64::MAX).unwrap();
    let Some(series) = selection.series().first() else { return Vec::new() };
    let column = selection.reader().read(series, i64::MIN, i64::MAX).unwrap();
    column.times.iter().copied().zip(column.values).collect()
}

#[test]
fn what_a_start_finds_in_the_page_cache_is_on_disk_before_it_is_called_durable() {
    for seed in 0..20 {
        let (disk, clock) = (SimStorage::default(), Arc::new(SimClock::at(START)));
        let db = open(&disk, &clock);
        let group = db.group("g").unwrap();
        let series = db.series(group, &[("__name__", "x"), ("k", "a")], OwnerRef(0)).unwrap();
        db.commit().unwrap();
        db.append_row(group, START, [(series, Sample::Float(1.0))]);
        // A commit is a write and a sync: the process dies between the two.
        disk.fail(2, Fault::Dies);
        assert!(db.commit().is_err());
        drop(db);
        disk.kill();
        let db = open(&disk, &clock);
        assert_eq!(samples(&db, "a"), [(START, 1.0)]);
        assert_eq!(db.durable_through(), START);
        drop(db);
        disk.crash(&mut Rng::new(seed));
        assert_eq!(samples(&open(&disk, &clock), "a"), [(START, 1.0)], "seed {seed}: it was called durable");
    }
}

#[test]
fn what_came_behind_the_newest_promise_is_written_again_too() {
    let (disk, clock) = (SimStorage::default(), Arc::new(SimClock::at(START)));
    let db = open(&disk, &clock);
    let groups = ["a", "b"].map(|key| db.group(key).unwrap());
    let [a, b, c] = [(0, "a"), (1, "b"), (0, "c")].map(|(group, k): (usize, _)| {
        db.series(groups[group], &[("__name__", "x"), ("k", k)], OwnerRef(0)).unwrap()
    });
    db.append_row(groups[0], START + 100, [(a, Sample::Float(1.0))]);
    db.commit().unwrap();
    disk.fail(1, Fault::Broken);
    db.append_row(groups[1], START + 50, [(b, Sample::Float(2.0))]);
    db.append([(c, START + 100, Sample::Float(3.0))]);
    assert!(db.commit().is_err());
    disk.heal();
    assert_eq!(db.maintain(), Work::Recovered);
    db.commit().unwrap();
    drop(db);
    disk.crash(&mut Rng::new(1));
    let db = open(&disk, &clock);
    assert_eq!(samples(&db, "a"), [(START + 100, 1.0)]);
    assert_eq!(samples(&db, "b"), [(START + 50, 2.0)], "a group that was behind");
    assert_eq!(samples(&db, "c"), [(START + 100, 3.0)], "a row that was added to");
}

#[test]
fn attempts_on_a_full_disk_leave_nothing_behind() {
    for slack in [0, 100, 3000, 20_000] {
        let (disk, clock) = (SimStorage::default(), Arc::new(SimClock::at(START)));
        let db = open(&disk, &clock);
        let group = db.group("g").unwrap();
        let series: Vec<_> = (0..40)
            .map(|k| db.series(group, &[("__name__", "x"), ("k", &k.to_string())], OwnerRef(0)).unwrap())
            .collect();
        let mut rng = Rng::new(slack);
        let mut tick = |at: i64| {
            let t = START + at * 30_000;
            clock.set(t);
            db.append_row(
                group,
                t,
                series.iter().map(|s| (*s, Sample::Float(rng.number() as f64))).collect::<Vec<_>>(),
            );
            let is_promised = db.commit().is_ok();
            while !matches!(db.maintain(), Work::Nothing | Work::Failed) {}
            is_promised
        };
        (0..60).for_each(|at| assert!(tick(at)));
        let before = disk.files().len();
        disk.set_capacity(disk.files().iter().map(|(_, len)| *len as u64).sum::<u64>() + slack);
        for at in 60..600 {
            tick(at);
            assert!(disk.files().len() <= before + 3, "slack {slack}, tick {at}: {:?}", disk.files());
        }
        assert_eq!(db.mode(), Mode::Degraded);
        disk.set_capacity(u64::MAX);
        assert!(!tick(600), "the disk is tried by housekeeping");
        assert!(tick(601), "slack {slack}: taken up again");
        let expected = samples(&db, "0");
        drop(db);
        disk.crash(&mut Rng::new(slack));
        let db = open(&disk, &clock);
        assert_eq!(samples(&db, "0"), expected, "slack {slack}");
        let lost = db.health().counters.log_records_lost.load(std::sync::atomic::Ordering::Relaxed);
        assert_eq!(lost, 0, "slack {slack}: attempts that came to nothing count as records that are lost");
    }
}

#[test]
fn a_full_disk_is_no_reason_not_to_start() {
    let (disk, clock) = (SimStorage::default(), Arc::new(SimClock::at(START)));
    let db = open(&disk, &clock);
    let group = db.group("g").unwrap();
    let series = db.series(group, &[("__name__", "x"), ("k", "a")], OwnerRef(0)).unwrap();
    db.append_row(group, START, [(series, Sample::Float(1.0))]);
    db.commit().unwrap();
    drop(db);
    disk.crash(&mut Rng::new(1));
    disk.set_capacity(disk.files().iter().map(|(_, len)| *len as u64).sum());
    let db = open(&disk, &clock);
    assert_eq!(db.mode(), Mode::Degraded);
    let series = db.series(group, &[("__name__", "x"), ("k", "a")], OwnerRef(0)).unwrap();
    db.append_row(group, START + 5, [(series, Sample::Float(2.0))]);
    assert_eq!(samples(&db, "a"), [(START, 1.0), (START + 5, 2.0)]);
    disk.set_capacity(u64::MAX);
    assert_eq!(db.maintain(), Work::Recovered);
    drop(db);
    disk.crash(&mut Rng::new(2));
    assert_eq!(samples(&open(&disk, &clock), "a"), [(START, 1.0), (START + 5, 2.0)]);
}

#[test]
fn memory_is_bounded_while_the_disk_refuses_and_no_promise_goes() {
    let (disk, clock) = (SimStorage::default(), Arc::new(SimClock::at(START)));
    let config = Config { waiting_windows_max: 3, ..config() };
    let db = Db::open(config.clone(), Arc::new(disk.clone()), clock.clone()).unwrap().0;
    let group = db.group("g").unwrap();
    let series = db.series(group, &[("__name__", "x"), ("k", "a")], OwnerRef(0)).unwrap();
    let tick = |k: i64| {
        let t = START + k * 60_000;
        clock.set(t);
        assert_eq!(db.append_row(group, t, [(series, Sample::Float(k as f64))]).taken, 1);
        let result = db.commit();
        db.maintain();
        result.is_ok()
    };
    let per_window = WINDOW_MS / 60_000;
    let promised = (0..per_window / 2).filter(|k| tick(*k)).count();
    assert_eq!(promised as i64, per_window / 2);
    disk.fail(1, Fault::Broken);
    let ticks = 12 * per_window;
    assert!((per_window / 2..ticks).all(|k| !tick(k)), "nothing is promised meanwhile");
    let got = samples(&db, "a");
    // The window with the promises, those that may wait, and the open one.
    let most = (1 + 3 + 2) * per_window;
    assert!((got.len() as i64) <= most, "{} samples in memory", got.len());
    let dropped = db.health().counters.all().iter().find(|(name, _)| *name == "windows_dropped").unwrap().1;
    assert!(dropped >= 6, "{dropped} windows are counted as dropped");
    disk.heal();
    clock.set(START + ticks * 60_000);
    while db.maintain() != Work::Nothing {}
    assert_eq!(db.health().mode(), Mode::Durable);
    drop(db);
    disk.crash(&mut Rng::new(1));
    let db = Db::open(config, Arc::new(disk), clock).unwrap().0;
    let after = samples(&db, "a");
    assert_eq!(after, got, "what was in memory when the disk came back is on it");
    assert_eq!(
        after.iter().take(promised).map(|(_, value)| *value).collect::<Vec<_>>(),
        (0..promised).map(|k| k as f64).collect::<Vec<_>>()
    );
}

#[test]
fn what_was_deleted_stays_so_when_a_file_was_not_finished_well() {
    for at in 1..60 {
        let (disk, clock) = (SimStorage::default(), Arc::new(SimClock::at(START)));
        let db = open(&disk, &clock);
        let group = db.group("g").unwrap();
        let series = db.series(group, &[("__name__", "x"), ("k", "a")], OwnerRef(0)).unwrap();
        let mut t = START;
        let mut tick = |db: &Db, until: i64| {
            while t < until {
                t += 60_000;
                clock.set(t);
                db.append_row(group, t, [(series, Sample::Float(1.0))]);
                let _ = db.commit();
                while !matches!(db.maintain(), Work::Nothing | Work::Failed) {}
            }
        };
        tick(&db, START + WINDOW_MS + 60_000);
        // A late one has a file of its own.
        db.append([(series, START + 90_000, Sample::Float(7.0))]);
        db.commit().unwrap();
        disk.fail(at, Fault::Once);
        tick(&db, START + 2 * WINDOW_MS);
        let all = [Matcher::new("k", MatchOp::Equal, "a")];
        db.delete(&all, START, START + 120_000).unwrap();
        db.commit().unwrap();
        tick(&db, START + 5 * 3_600_000);
        let is_gone = |db: &Db| samples(db, "a").iter().all(|(t, _)| *t > START + 120_000);
        assert!(is_gone(&db), "operation {at}");
        drop(db);
        disk.crash(&mut Rng::new(at));
        assert!(is_gone(&open(&disk, &clock)), "operation {at}: a start has what was deleted");
    }
}
