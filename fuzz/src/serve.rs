//! A whole store that finds a log or files of anything behind right checksums: it starts, answers or says what is
//! damaged, keeps house, and what it takes afterwards is there after the next start.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use telemetry_model::{MatchOp, Matcher};
use telemetry_tsdb::db::{Config, Db, Work};
use telemetry_tsdb::fs::sim::{SimClock, SimStorage};
use telemetry_tsdb::head::{Sample, WINDOW_MS};
use telemetry_tsdb::index::{Limits, OwnerRef};
use telemetry_tsdb::log::replay;

use crate::input::Input;
use crate::sealed::{file_of, input_of, put_record};
use crate::store::{SEGMENT, START, disk_with, files_of, put_file, small_store};

/// House keeping of one store: more steps than any small one has to do.
const STEPS_MAX: usize = 200;
/// Where a small file's number stands in an input: behind kind, length and version.
const NUMBER_AT: usize = 4;
/// Pairs of files that are seeds.
const PAIRS_MAX: usize = 3;

/// Samples by series.
type Content = Vec<(String, Vec<(i64, u64)>)>;

fn open(disk: &SimStorage, clock: &Arc<SimClock>) -> Db {
    let limits = Limits { series: 500, ..Limits::default() };
    let config =
        Config { groups_max: 16, exemplars_max: 64, free_floor_bytes: 0, limits, ..Config::default() };
    let opened = Db::open(config, Arc::new(disk.clone()), Arc::<SimClock>::clone(clock));
    opened.expect("damage never keeps a store from starting").0
}

/// Everything that matchers select; nothing if something of it is damaged.
fn content(db: &Db, matchers: &[Matcher]) -> Option<Content> {
    let selection = db.select(matchers, i64::MIN, i64::MAX).ok()?;
    let mut reader = selection.reader();
    let mut all = Some(Content::new());
    for series in selection.series() {
        let Ok(column) = reader.read(series, i64::MIN, i64::MAX) else {
            all = None;
            continue;
        };
        assert!(column.times.is_sorted_by(|a, b| a < b), "one sample a time, times growing");
        let cells = column.times.iter().copied().zip(column.values.iter().map(|value| value.to_bits()));
        if let Some(all) = all.as_mut() {
            all.push((format!("{:?}", series.labels()), cells.collect()));
        }
    }
    all
}

fn keep_house(db: &Db) {
    for _ in 0..STEPS_MAX {
        if db.maintain() == Work::Nothing {
            break;
        }
    }
}

/// Starts a store on a disk, uses it and starts it again.
fn serve(disk: &SimStorage) {
    let now = START + 10 * WINDOW_MS;
    let clock = Arc::new(SimClock::at(now));
    let everything = [Matcher::new("__name__", MatchOp::NotEqual, "")];
    let own = [Matcher::new("__name__", MatchOp::Equal, "fuzz_own_series")];
    let db = open(disk, &clock);
    content(&db, &everything);
    let is_taken = write_own(&db, now);
    keep_house(&db);
    let before = content(&db, &own);
    clock.set(now + 3 * WINDOW_MS);
    keep_house(&db);
    content(&db, &everything);
    drop(db);
    let db = open(disk, &clock);
    let after = content(&db, &own);
    if let (true, Some(before), Some(after)) = (is_taken, before, after) {
        assert_eq!(before, after, "what was acknowledged is there after a start");
        assert!(!after.is_empty(), "and can be found");
    }
    content(&db, &everything);
    keep_house(&db);
}

/// Writes a row of its own; whether it was acknowledged.
fn write_own(db: &Db, t: i64) -> bool {
    let Some(group) = db.group("fuzz own group") else { return false };
    let Some(series) = db.series(group, &[("__name__", "fuzz_own_series")], OwnerRef(0)) else {
        return false;
    };
    let out = db.append_row(group, t, [(series, Sample::Float(42.5))]);
    out.refused.is_empty() && db.commit().is_ok()
}

/// A log of any records: `kind u8 · length u16 · body` for each, the first number before them.
pub fn log(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut segment = Vec::new();
    let mut sequence = u64::from(input.byte());
    while !input.is_empty() {
        let (kind, len) = (input.byte(), usize::from(input.short()));
        if kind & 0xF0 == 0xF0 {
            // Records are missing.
            sequence += 1 + u64::from(kind & 0xF);
        }
        put_record(&mut segment, sequence, kind & 0xF, input.take(len));
        sequence += 1;
    }
    serve(&disk_with(SEGMENT, &segment));
}

/// The log of a small store, with a record of each kind.
pub fn logs() -> Vec<Vec<u8>> {
    let mut whole = vec![0];
    let report = replay(&small_store(), |record| {
        whole.push(record.kind);
        whole.extend(u16::try_from(record.body.len()).expect("records of seeds are short").to_le_bytes());
        whole.extend_from_slice(record.body);
    });
    assert!(report.is_ok_and(|report| report.records > 10), "a small store has a log");
    vec![whole]
}

/// Two files of any frames; the length of the first stands before it.
pub fn files(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let cut = usize::from(input.short());
    let mut second = Input::new(input.take(cut));
    let (first_path, second_path) = (path_of(&input), path_of(&second));
    let disk = SimStorage::default();
    put_file(&disk, &first_path, &file_of(&mut input));
    if first_path != second_path {
        put_file(&disk, &second_path, &file_of(&mut second));
    }
    serve(&disk);
}

/// Under the number that its first frame gives it: any other would be refused.
fn path_of(input: &Input<'_>) -> PathBuf {
    let number = input.rest().get(NUMBER_AT).copied().unwrap_or(1) & 0x7F;
    Path::new("blocks").join(format!("{number:012}.blk"))
}

/// Pairs of good files.
pub fn pairs_of_files() -> Vec<Vec<u8>> {
    let mut files: Vec<_> = files_of("blk").iter().map(|file| input_of(file)).collect();
    files.sort_by_key(Vec::len);
    let pairs = files.iter().zip(files.iter().skip(1)).map(|(a, b)| {
        let len = u16::try_from(a.len()).expect("files of seeds are small").to_le_bytes();
        [&len[..], a, b].concat()
    });
    pairs.take(PAIRS_MAX).collect()
}
