//! Copies of a store that goes on: each holds what was acknowledged when it was made, and stays so.

use std::path::Path;
use std::sync::Arc;

use telemetry_model::{MatchOp, Matcher};
use telemetry_tsdb::db::{Config, Db, Error, Snapshot};
use telemetry_tsdb::fs::RealStorage;
use telemetry_tsdb::fs::sim::SimClock;
use telemetry_tsdb::head::Sample;
use telemetry_tsdb::index::OwnerRef;

const MINUTE: i64 = 60_000;
const START: i64 = 1_700_006_400_000;

fn open(dir: &Path, clock: &Arc<SimClock>) -> Db {
    let storage = Arc::new(RealStorage::open(dir).unwrap());
    let (db, report) = Db::open(Config::default(), storage, Arc::<SimClock>::clone(clock)).unwrap();
    assert!(report.damaged.is_empty() && report.lost_samples == 0, "{report:?}");
    db
}

fn run(db: &Db, clock: &SimClock, minutes: std::ops::Range<i64>) {
    let group = db.group("g").unwrap();
    let series = db.series(group, &[("__name__", "x")], OwnerRef(0)).unwrap();
    for k in minutes {
        let t = START + k * MINUTE;
        clock.set(t);
        assert_eq!(db.append_row(group, t, [(series, Sample::Float(k as f64))]).taken, 1);
        db.commit().unwrap();
        db.maintain();
    }
}

fn values(db: &Db) -> Vec<i64> {
    let selection = db.select(&[Matcher::new("__name__", MatchOp::Equal, "x")], 0, i64::MAX).unwrap();
    let mut reader = selection.reader();
    let read = |series| reader.read(series, 0, i64::MAX).unwrap().values.clone();
    let values = selection.series().iter().flat_map(read);
    values.map(|value| value as i64).collect()
}

#[test]
fn a_snapshot_holds_what_was_there_and_stays_so() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(SimClock::at(START));
    let db = open(dir.path(), &clock);
    // Files, segments and memory all have a part of it.
    run(&db, &clock, 0..330);
    db.snapshot(Path::new("snapshots/one"), Snapshot::Whole).unwrap();
    run(&db, &clock, 330..335);
    db.snapshot(Path::new("snapshots/two"), Snapshot::Whole).unwrap();
    assert!(
        matches!(db.snapshot(Path::new("snapshots/one"), Snapshot::Whole), Err(Error::Io { .. })),
        "a name is taken once"
    );
    db.snapshot(Path::new("snapshots/files"), Snapshot::Files).unwrap();
    let files = values(&open(&dir.path().join("snapshots/files"), &clock));
    assert!((240..335).contains(&files.len()) && files == (0..files.len() as i64).collect::<Vec<_>>());
    // The store goes on, writes its windows, joins its files and removes the old ones.
    run(&db, &clock, 335..900);
    assert_eq!(values(&db), (0..900).collect::<Vec<_>>());
    for (name, end) in [("one", 330), ("two", 335)] {
        let copy = dir.path().join("snapshots").join(name);
        // Opened twice: to read, then as a store that goes on by itself.
        let storage = Arc::new(RealStorage::open_unlocked(&copy).unwrap());
        let (read_only, _) =
            Db::open_read_only(Config::default(), storage, Arc::<SimClock>::clone(&clock)).unwrap();
        assert_eq!(values(&read_only), (0..end).collect::<Vec<_>>(), "{name}");
        drop(read_only);
        let own = open(&copy, &clock);
        run(&own, &clock, end..end + 400);
        assert_eq!(values(&own), (0..end + 400).collect::<Vec<_>>(), "{name}");
    }
    drop(db);
    let again = open(dir.path(), &clock);
    assert_eq!(values(&again), (0..900).collect::<Vec<_>>(), "what the copies did is theirs");
}

#[test]
fn what_is_not_on_a_disk_has_no_snapshot() {
    let clock = Arc::new(SimClock::at(START));
    let db = Db::in_memory(Config::default(), clock);
    assert!(db.snapshot(Path::new("snapshots/one"), Snapshot::Whole).is_err());
}
