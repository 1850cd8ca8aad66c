//! Every byte of every file of a store, flipped: an error, a counted loss, or harmless; never a wrong value.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use telemetry_model::{MatchOp, Matcher};
use telemetry_tsdb::block::{BlockMeta, BlockWriter};
use telemetry_tsdb::db::{Config, Db, Work};
use telemetry_tsdb::fs::sim::{SimClock, SimStorage};
use telemetry_tsdb::fs::{Storage, read_all};
use telemetry_tsdb::head::{Sample, WINDOW_MS};
use telemetry_tsdb::index::{FileIndex, LOST_OWNER_LABEL, OwnerRef};

const START: i64 = 1_700_006_400_000 / WINDOW_MS * WINDOW_MS;

/// Without a reserve: it has no byte to damage.
fn config() -> Config {
    Config { reserve_bytes: 0, ..Config::default() }
}

type Content = BTreeMap<String, BTreeMap<i64, u64>>;

fn small_store() -> (SimStorage, Arc<SimClock>) {
    let (disk, clock) = (SimStorage::default(), Arc::new(SimClock::at(START)));
    let (db, _) = Db::open(config(), Arc::new(disk.clone()), clock.clone()).unwrap();
    let group = db.group("g").unwrap();
    let owner = db.create_owner(&[("pod", "a")]);
    let series: Vec<_> = (0..4)
        .map(|k| db.series(group, &[("__name__", "x"), ("k", &k.to_string())], owner).unwrap())
        .chain(std::iter::once(db.series(group, &[("__name__", "y")], OwnerRef(0)).unwrap()))
        .collect();
    for k in 0..36 {
        let t = START + k * 60_000;
        clock.set(t);
        db.append_row(
            group,
            t,
            series.iter().zip(1..).map(|(s, n)| (*s, Sample::Float((k * n) as f64 / 4.0))),
        );
        if k % 7 == 0 {
            db.append([(series[0], t - 30_000, Sample::Float(-1.0))]);
        }
        db.commit().unwrap();
        while db.maintain() != Work::Nothing {}
    }
    (disk, clock)
}

fn content(db: &Db) -> Result<Content, ()> {
    let selection =
        db.select(&[Matcher::new("__name__", MatchOp::Regex, ".+")], i64::MIN, i64::MAX).map_err(drop)?;
    let mut reader = selection.reader();
    let mut all = Content::new();
    for series in selection.series() {
        let column = reader.read(series, i64::MIN, i64::MAX).map_err(drop)?;
        let name = format!("{:?}", series.labels());
        let list = column.times.iter().copied().zip(column.values.iter().map(|v| v.to_bits()));
        all.insert(name, list.collect());
    }
    Ok(all)
}

#[test]
fn each_flipped_byte_is_noticed_or_harmless() {
    let (disk, clock) = small_store();
    let open = |disk: &SimStorage| Db::open(config(), Arc::new(disk.clone()), clock.clone());
    let whole = content(&open(&disk.copy()).unwrap().0).unwrap();
    assert_eq!(whole.len(), 5);
    let mut kinds = BTreeMap::new();
    for (path, len) in disk.files() {
        let kind = path.extension().unwrap().to_str().unwrap().to_owned();
        for at in 0..len {
            let damaged = disk.copy();
            damaged.flip(&path, at, (at % 8) as u32);
            let (db, report) = open(&damaged).expect("damage never keeps a store from opening");
            let noticed = !report.damaged.is_empty()
                || report.log.skipped_bytes > 0
                || report.log.lost_records > 0
                || db.blocks().iter().any(|block| !block.verify().damaged.is_empty());
            let entry = kinds.entry(kind.clone()).or_insert((0, 0, 0));
            match content(&db) {
                Err(()) => {
                    assert!(noticed, "{}: byte {at}", path.display());
                    entry.0 += 1;
                }
                Ok(got) => {
                    for (name, list) in &got {
                        for (t, bits) in list {
                            let expected = whole.get(name).and_then(|list| list.get(t));
                            // An owner whose record is lost is told by its number.
                            assert!(
                                expected == Some(bits)
                                    || (noticed && expected.is_none() && name.contains(LOST_OWNER_LABEL)),
                                "{}: byte {at}: {name} at {t}: a wrong value",
                                path.display()
                            );
                        }
                    }
                    assert!(got == whole || noticed, "{}: byte {at}: a loss nobody hears of", path.display());
                    if got == whole { entry.2 += 1 } else { entry.1 += 1 }
                }
            }
        }
    }
    assert!(kinds.contains_key("seg") && kinds.contains_key("blk"), "{kinds:?}");
}

/// The disk with one byte of its files flipped, for every byte, and where in its file that is.
fn each_byte_flipped(disk: &SimStorage) -> impl Iterator<Item = (usize, SimStorage)> {
    let bytes = disk.files().into_iter().flat_map(|(path, len)| (0..len).map(move |at| (path.clone(), at)));
    bytes.map(|(path, at)| {
        let damaged = disk.copy();
        damaged.flip(&path, at, 3);
        (at, damaged)
    })
}

#[test]
fn an_owner_whose_record_is_lost_gives_its_number_to_no_other() {
    let (disk, clock) = (SimStorage::default(), Arc::new(SimClock::at(START)));
    let open = |disk: SimStorage| Db::open(config(), Arc::new(disk), clock.clone()).unwrap().0;
    let db = open(disk.clone());
    let group = db.group("g").unwrap();
    let owner = db.create_owner(&[("pod", "a")]);
    let series = [owner, OwnerRef(0)].map(|of| db.series(group, &[("__name__", "x")], of).unwrap());
    db.append_row(group, START, series.map(|series| (series, Sample::Float(1.0))));
    db.commit().unwrap();
    let mut losses = 0;
    for (at, damaged) in each_byte_flipped(&disk) {
        let db = open(damaged);
        if db.health().counters.owners_lost.load(Ordering::Relaxed) == 0 {
            continue;
        }
        losses += 1;
        assert_ne!(db.create_owner(&[("pod", "b")]), owner, "byte {at}");
        let names: Vec<_> = content(&db).unwrap().into_keys().collect();
        let lost = format!("[(\"__name__\", \"x\"), (\"{LOST_OWNER_LABEL}\", \"1\")]");
        assert_eq!(names, [lost.as_str(), "[(\"__name__\", \"x\")]"], "byte {at}");
    }
    assert!(losses > 0, "no byte of the owner's record was met");
}

#[test]
fn cells_of_a_series_whose_record_is_lost_are_not_the_next_ones() {
    let (disk, clock) = (SimStorage::default(), Arc::new(SimClock::at(START)));
    let open = |disk: SimStorage| Db::open(config(), Arc::new(disk), clock.clone()).unwrap().0;
    let series_of =
        |db: &Db, name: &str| db.series(db.group("g").unwrap(), &[("__name__", name)], OwnerRef(0)).unwrap();
    let db = open(disk.clone());
    let series = [series_of(&db, "a"), series_of(&db, "b")];
    db.append_row(series[0].group, START, series.map(|series| (series, Sample::Float(1.0))));
    db.commit().unwrap();
    let mut losses = 0;
    for (at, damaged) in each_byte_flipped(&disk) {
        let db = open(damaged);
        losses += db.health().counters.samples_lost.load(Ordering::Relaxed);
        let next = series_of(&db, "c");
        db.append_row(next.group, START + 1, [(next, Sample::Float(2.0))]);
        let got = content(&db).unwrap();
        let expected = BTreeMap::from([(START + 1, 2f64.to_bits())]);
        assert_eq!(got.get("[(\"__name__\", \"c\")]"), Some(&expected), "byte {at}");
    }
    assert!(losses > 0, "no byte of a series' record was met");
}

#[test]
fn a_store_with_a_file_missing_or_cut_opens_with_the_rest() {
    let (disk, clock) = small_store();
    for (path, len) in disk.files() {
        for end in [0, len / 3, len / 2, len - 1] {
            let damaged = disk.copy();
            damaged.truncate(&path, end);
            let (db, _) = Db::open(config(), Arc::new(damaged), clock.clone()).unwrap();
            let group = db.group("g").unwrap();
            let series = db.series(group, &[("__name__", "new")], OwnerRef(0)).unwrap();
            clock.set(START + 40 * 60_000);
            let out = db.append([(series, START + 40 * 60_000, Sample::Float(1.0))]);
            assert!(out.refused.is_empty() && db.commit().is_ok(), "{} cut at {end}", path.display());
            clock.set(START + 35 * 60_000);
        }
    }
}

/// The path of the newest file and its bytes.
fn newest_file(disk: &SimStorage) -> (PathBuf, Vec<u8>) {
    let mut paths = disk.files().into_iter().map(|(path, _)| path);
    let path = paths.rfind(|path| path.extension().is_some_and(|found| found == "blk")).unwrap();
    let bytes = read_all(&*disk.open(&path).unwrap(), 1 << 20).unwrap();
    (path, bytes)
}

#[test]
fn a_file_under_a_strange_name_costs_no_other() {
    let (disk, clock) = small_store();
    let open = |disk: &SimStorage| Db::open(config(), Arc::new(disk.clone()), clock.clone()).unwrap();
    let whole = content(&open(&disk.copy()).0).unwrap();
    let (path, bytes) = newest_file(&disk);
    let stray = Path::new("blocks/000000000077.blk");
    disk.create(stray).unwrap().write_at(&bytes, 0).unwrap();
    let (db, report) = open(&disk);
    assert_eq!(report.damaged.iter().map(|(path, _)| path.as_path()).collect::<Vec<_>>(), [stray]);
    assert_eq!(content(&db).unwrap(), whole);
    assert!(
        disk.files().iter().any(|(found, _)| *found == path),
        "the one that bears the number rightly stays"
    );
}

/// House keeping walks a file's range in steps of two hours: fifty years of them took minutes.
#[test]
fn a_file_that_claims_centuries_is_set_aside() {
    let (disk, clock) = small_store();
    let meta = BlockMeta { id: 90, min_t: 0, max_t: START, ..BlockMeta::default() };
    let mut file = BlockWriter::new(Arc::new(disk.clone()), meta).unwrap();
    file.add_group(&[START]).unwrap();
    file.finish(&FileIndex::encode(std::iter::empty(), |_| None), &[0]).unwrap();
    let (_, report) = Db::open(config(), Arc::new(disk), clock).unwrap();
    assert!(
        report.damaged.iter().any(|(path, why)| path.ends_with("000000000090.blk") && why.contains("range"))
    );
}
