//! What is kept when something is refused, damaged or deleted: acknowledged samples, damaged segments, room on a full
//! disk; and what is not kept for ever: deletions.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use telemetry_model::{MatchOp, Matcher};
use telemetry_tsdb::db::{Config, Db, Mode, OpenReport, SeriesRef, Work};
use telemetry_tsdb::fs::sim::{Fault, Rng, SimClock, SimStorage};
use telemetry_tsdb::head::{GroupId, Sample, WINDOW_MS};
use telemetry_tsdb::index::OwnerRef;

const MINUTE: i64 = 60_000;
/// A whole number of days, so that days of files end at whole multiples behind it.
const START: i64 = 1_700_006_400_000;
const PER_WINDOW: i64 = WINDOW_MS / MINUTE;

struct World {
    disk: SimStorage,
    clock: Arc<SimClock>,
    config: Config,
    db: Db,
    report: OpenReport,
    group: GroupId,
    series: SeriesRef,
}

fn open_on(disk: SimStorage, clock: Arc<SimClock>, config: Config) -> World {
    let (db, report) = Db::open(config.clone(), Arc::new(disk.clone()), clock.clone()).unwrap();
    let group = db.group("g").unwrap();
    let series = db.series(group, &[("__name__", "x"), ("k", "a")], OwnerRef(0)).unwrap();
    World { disk, clock, config, db, report, group, series }
}

fn open(config: Config) -> World {
    let (disk, clock) = (SimStorage::default(), Arc::new(SimClock::at(START)));
    open_on(disk, clock, Config { free_floor_bytes: 0, ..config })
}

// === impl World ===

impl World {
    /// Minute `k`: a sample, a commit, housekeeping. Whether it was acknowledged.
    fn tick(&self, k: i64) -> bool {
        let t = START + k * MINUTE;
        self.clock.set(t);
        assert_eq!(self.db.append_row(self.group, t, [(self.series, Sample::Float(k as f64))]).taken, 1);
        let is_acknowledged = self.db.commit().is_ok();
        self.keep_house();
        is_acknowledged
    }

    fn keep_house(&self) {
        while !matches!(self.db.maintain(), Work::Nothing | Work::Failed) {}
    }

    /// Power fails and the store starts again.
    fn crash(self) -> Self {
        let Self { disk, clock, config, db, .. } = self;
        drop(db);
        disk.crash(&mut Rng::new(3));
        open_on(disk, clock, config)
    }

    /// The minutes whose samples are there, each with the right value.
    fn minutes(&self) -> Vec<i64> {
        let matchers = [Matcher::new("k", MatchOp::Equal, "a")];
        let selection = self.db.select(&matchers, i64::MIN, i64::MAX).unwrap();
        let Some(series) = selection.series().first() else { return Vec::new() };
        let column = selection.reader().read(series, i64::MIN, i64::MAX).unwrap();
        let minutes: Vec<i64> = column.times.iter().map(|t| (t - START) / MINUTE).collect();
        assert_eq!(column.values, minutes.iter().map(|k| *k as f64).collect::<Vec<_>>());
        minutes
    }

    fn count(&self, name: &str) -> u64 {
        self.db.health().counters.all().iter().find(|(found, _)| *found == name).unwrap().1
    }

    fn files_in(&self, dir: &str) -> Vec<PathBuf> {
        let paths = self.disk.files().into_iter().map(|(path, _)| path);
        paths.filter(|path| path.parent() == Some(Path::new(dir))).collect()
    }
}

#[test]
fn no_promise_goes_while_only_windows_are_refused() {
    let world = open(Config { waiting_windows_max: 3, compaction: false, ..Config::default() });
    world.disk.refuse(Some(Path::new("blocks")));
    let promised: Vec<i64> = (0..12 * PER_WINDOW).filter(|k| world.tick(*k)).collect();
    assert!(promised.len() as i64 >= 3 * PER_WINDOW, "the log is written, and windows may wait");
    assert!(promised.len() as i64 <= 6 * PER_WINDOW, "promises end while memory fills: {}", promised.len());
    assert_eq!(world.db.health().mode(), Mode::Degraded);
    assert!(world.db.health().reason().contains("write a window"), "{}", world.db.health().reason());
    assert!(world.count("windows_dropped") > 0, "what was never promised goes");
    assert!(world.minutes().len() as i64 <= 11 * PER_WINDOW, "memory is bounded");
    let missing = |world: &World| {
        let there = world.minutes();
        promised.iter().filter(|k| !there.contains(k)).count()
    };
    assert_eq!(missing(&world), 0, "promised samples are in memory");
    let world = world.crash();
    assert_eq!(missing(&world), 0, "and in the log");
    world.disk.refuse(None);
    world.clock.set(START + 12 * PER_WINDOW * MINUTE);
    (0..3).for_each(|_| world.keep_house());
    assert_eq!(world.db.health().mode(), Mode::Durable);
    assert!(world.tick(12 * PER_WINDOW + 1), "promises are made again");
    let world = world.crash();
    assert_eq!(missing(&world), 0, "and in files");
}

#[test]
fn what_a_start_on_a_full_disk_found_does_not_go_to_bound_memory() {
    let world = open(Config { waiting_windows_max: 2, reserve_bytes: 0, ..Config::default() });
    assert!((0..10).all(|k| world.tick(k)));
    let World { disk, clock, config, db, .. } = world;
    drop(db);
    disk.crash(&mut Rng::new(1));
    disk.set_capacity(disk.files().iter().map(|(_, len)| *len as u64).sum());
    let world = open_on(disk, clock, config);
    assert!(!(10..8 * PER_WINDOW).any(|k| world.tick(k)), "nothing is promised");
    assert!(world.count("windows_dropped") > 0);
    let there = world.minutes();
    assert!((0..10).all(|k| there.contains(&k)), "{there:?}");
}

#[test]
fn a_disk_that_refuses_is_left_alone_for_longer_and_longer() {
    let world = open(Config::default());
    assert!(world.tick(0));
    world.disk.fail(1, Fault::Broken);
    assert!(!world.tick(1));
    let second = |at: i64| {
        world.clock.set(START + MINUTE + at * 1000);
        world.db.maintain() == Work::Failed
    };
    let tried: Vec<i64> = (0..80).filter(|at| second(*at)).collect();
    // The first try is that of the tick.
    assert_eq!(tried, [1, 3, 7, 15, 31, 47, 63, 79]);
    world.disk.heal();
    assert!(!(80..94).any(second) && world.db.health().mode() == Mode::Degraded, "it is not tried earlier");
    world.clock.set(START + MINUTE + 95_000);
    assert_eq!(world.db.maintain(), Work::Recovered, "nor later");
    assert_eq!(world.crash().minutes(), [0, 1]);
}

#[test]
fn a_full_disk_is_given_the_room_that_was_held() {
    let world = open(Config { reserve_bytes: 64 << 10, compaction: false, ..Config::default() });
    assert!(world.tick(0));
    assert_eq!(world.files_in(""), [PathBuf::from("reserve")]);
    let used: usize = world.disk.files().iter().map(|(_, len)| len).sum();
    world.disk.set_capacity(used as u64 + 10);
    let last = PER_WINDOW + 2;
    assert!((1..last).all(|k| world.tick(k)), "promises are kept on: {}", world.db.health().reason());
    assert!(world.files_in("").is_empty(), "the room is given up");
    assert_eq!(world.files_in("blocks").len(), 1, "and a window is written in it");
    assert_eq!(world.minutes(), (0..last).collect::<Vec<_>>());
    world.disk.set_capacity(u64::MAX);
    let world = world.crash();
    assert_eq!(world.minutes(), (0..last).collect::<Vec<_>>());
    (last..last + PER_WINDOW).for_each(|k| assert!(world.tick(k)));
    assert_eq!(world.files_in(""), [PathBuf::from("reserve")], "held again once there is room");
}

#[test]
fn a_deletion_is_forgotten_once_no_file_has_what_it_deletes() {
    let world = open(Config::default());
    let mut expected: Vec<i64> = (0..60).collect();
    assert!((0..60).all(|k| world.tick(k)));
    let is_it = [Matcher::new("k", MatchOp::Equal, "a")];
    world.db.delete(&is_it, START + 10 * MINUTE, START + 20 * MINUTE).unwrap();
    expected.retain(|k| !(10..=20).contains(k));
    assert_eq!(world.db.stats().deletions, 1);
    assert!((60..120).all(|k| world.tick(k)));
    let world = world.crash();
    assert_eq!((world.db.stats().deletions, world.minutes().len()), (1, 109), "it outlives a start");
    // Joined after two hours, tiers and all, and forgotten at the next border of windows.
    assert!((120..300).all(|k| world.tick(k)));
    assert_eq!(
        world.db.stats().deletions,
        0,
        "{:?}",
        world.db.blocks().iter().map(|b| b.meta().clone()).collect::<Vec<_>>()
    );
    expected.extend(60..300);
    assert_eq!(world.minutes(), expected);
    let world = world.crash();
    assert_eq!((world.db.stats().deletions, world.minutes()), (0, expected), "nothing comes back");
}

#[test]
fn a_deletion_of_what_is_joined_already_stays_as_long_as_its_file() {
    let world = open(Config::default());
    assert!((0..300).all(|k| world.tick(k)));
    let is_it = [Matcher::new("k", MatchOp::Equal, "a")];
    world.db.delete(&is_it, START + 10 * MINUTE, START + 20 * MINUTE).unwrap();
    assert!((300..700).all(|k| world.tick(k)));
    assert_eq!(world.db.stats().deletions, 1, "the file has them");
    let expected: Vec<i64> = (0..700).filter(|k| !(10..=20).contains(k)).collect();
    assert_eq!(world.minutes(), expected);
    // Unless the file is written anew; then its tiers alone have them.
    let samples = || {
        let blocks = world.db.blocks();
        blocks.iter().filter(|file| file.meta().tier_ms == 0).map(|file| file.meta().samples).sum::<u64>()
    };
    let before = samples();
    assert_eq!((world.db.apply_deletions().unwrap(), before - samples()), (1, 11));
    assert_eq!(world.db.apply_deletions().unwrap(), 0, "once is enough");
    assert_eq!(world.minutes(), expected);
    let world = world.crash();
    assert_eq!(world.minutes(), expected);
}

#[test]
fn a_deletion_without_an_end_spares_what_comes_later() {
    let world = open(Config::default());
    assert!((0..10).all(|k| world.tick(k)));
    assert_eq!(world.db.delete(&[Matcher::new("k", MatchOp::Equal, "a")], i64::MIN, i64::MAX).unwrap(), 1);
    assert!((10..12).all(|k| world.tick(k)));
    assert_eq!(world.minutes(), [10, 11]);
}

/// A world whose log has a damaged byte in the middle of its first segment.
fn damaged(world: World) -> World {
    let segment = world.files_in("log").remove(0);
    let len = world.disk.files().iter().find(|(path, _)| *path == segment).unwrap().1;
    world.disk.flip(&segment, len / 2, 3);
    world.crash()
}

#[test]
fn a_damaged_segment_is_put_aside_when_the_log_lets_go_of_it() {
    let world = open(Config { compaction: false, ..Config::default() });
    assert!((0..10).all(|k| world.tick(k)));
    let world = damaged(world);
    assert_eq!(world.report.log.lossy.len(), 1);
    let name = world.report.log.lossy[0].file_name().unwrap().to_owned();
    assert!((10..3 * PER_WINDOW).all(|k| world.tick(k)));
    assert!(!world.files_in("log").iter().any(|path| path.ends_with(&name)), "the log was cut");
    assert_eq!(world.files_in("damaged"), [Path::new("damaged").join(&name)]);
    let world = world.crash();
    assert!(world.report.log.lossy.is_empty(), "it is not read again");
}

#[test]
fn only_so_many_damaged_segments_are_kept() {
    let mut world = open(Config { compaction: false, ..Config::default() });
    let mut k = 0;
    for _ in 0..12 {
        assert!((k..k + 10).all(|k| world.tick(k)));
        world = damaged(world);
        assert!((k + 10..k + 3 * PER_WINDOW).all(|k| world.tick(k)));
        k += 3 * PER_WINDOW;
    }
    assert_eq!(world.files_in("damaged").len(), 8);
}

#[test]
fn a_segment_that_cannot_be_read_at_once_is_read_again() {
    let world = open(Config::default());
    assert!((0..10).all(|k| world.tick(k)));
    for segment in world.files_in("log") {
        world.disk.fail_reads(&segment, 2);
    }
    let world = world.crash();
    assert!(world.report.log.unread.is_empty());
    assert_eq!(world.minutes(), (0..10).collect::<Vec<_>>());
}

#[test]
fn a_segment_that_cannot_be_read_is_put_aside_and_never_removed() {
    let world = open(Config { compaction: false, ..Config::default() });
    assert!((0..10).all(|k| world.tick(k)));
    let segment = world.files_in("log").pop().unwrap();
    world.disk.fail_reads(&segment, u32::MAX);
    let world = world.crash();
    assert_eq!(world.report.log.unread, [segment.as_path()]);
    // Before the log is cut a start may find that it can be read again.
    world.disk.fail_reads(&segment, 0);
    let world = world.crash();
    assert_eq!(world.minutes(), (0..10).collect::<Vec<_>>());
    world.disk.fail_reads(&segment, u32::MAX);
    let world = world.crash();
    assert!((10..3 * PER_WINDOW).all(|k| world.tick(k)));
    assert_eq!(world.files_in("damaged"), [Path::new("damaged").join(segment.file_name().unwrap())]);
}
