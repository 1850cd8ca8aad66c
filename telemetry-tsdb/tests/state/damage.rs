//! Flipped bits in every file of a state: a loss that is named, or none; never a wrong value.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use telemetry_tsdb::state::{Batch, Config, Event, Keyspace, Report, State};

use crate::{NOW, event, events, fast_dir, open, readable};

/// Every how manieth byte is flipped: a prime, so that all fields of all structures get their turn.
const STEP: usize = 13;
const KEYS: u8 = 20;

/// Files by their path, without the zeros at the end of pre-allocated ones, and their lengths.
type Files = BTreeMap<PathBuf, (Vec<u8>, u64)>;

fn read_files(root: &Path) -> Files {
    let mut files = Files::new();
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
                continue;
            }
            let mut bytes = fs::read(&path).unwrap();
            let len = bytes.len() as u64;
            let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
            bytes.truncate(used);
            files.insert(path.strip_prefix(root).unwrap().to_owned(), (bytes, len));
        }
    }
    files
}

fn write_files(root: &Path, files: &Files) {
    for (path, (bytes, len)) in files {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        fs::File::options().write(true).open(&path).unwrap().set_len(*len).unwrap();
    }
}

fn write_some(state: &State, round: u8) {
    for k in 0..KEYS {
        let mut batch = Batch::default();
        batch.put(Keyspace::Silences, [b'k', k], vec![round; 30 + usize::from(k)]);
        state.commit(batch).unwrap();
        state.events().append(&[event(NOW + i64::from(round) * 1000 + i64::from(k), u64::from(k))]).unwrap();
    }
}

/// A state with tables and a journal behind them.
fn whole() -> (Files, BTreeMap<u64, Event>) {
    let dir = fast_dir();
    write_some(&open(dir.path()).0, 1);
    {
        let database = fjall::Database::builder(dir.path().join("state")).worker_threads(1).open().unwrap();
        for name in ["events", "silences", "ledger"] {
            let tree = database.keyspace(name, fjall::KeyspaceCreateOptions::default).unwrap();
            tree.rotate_memtable_and_wait().unwrap();
        }
    }
    let (state, report) = open(dir.path());
    assert_eq!((report.records, report.lost_tail, report.lost_within), (40, 0, 0));
    write_some(&state, 2);
    let all = events(&state);
    drop(state);
    (read_files(dir.path()), all)
}

/// What the report and the answers say is missing, and what is.
fn judge(state: &State, report: &Report, all: &BTreeMap<u64, Event>, context: &str) -> bool {
    let page = state.events().after(0, usize::MAX).unwrap();
    let mut damaged = page.damaged;
    for event in &page.events {
        assert_eq!(all.get(&event.number), Some(event), "{context}: an event that nobody wrote");
    }
    let mut old = BTreeSet::new();
    let mut missing = all.len() - page.events.len();
    for k in 0..KEYS {
        let value = |round: u8| vec![round; 30 + usize::from(k)];
        match readable(state, Keyspace::Silences, &[b'k', k]) {
            Some(body) if body == value(2) => {}
            // An older one, if its successor is among what is lost.
            Some(body) if body == value(1) => drop(old.insert(k)),
            Some(body) => panic!("{context}: key {k} has {body:?}"),
            None => {
                missing += 1;
                damaged += u64::from(state.get(Keyspace::Silences, &[b'k', k]).is_err());
            }
        }
    }
    let is_said =
        report.lost_tail + report.lost_within + report.damaged + damaged > 0 || report.moved_aside.is_some();
    assert!(missing + old.len() == 0 || is_said, "{context}: {missing} missing, {old:?} old, in silence");
    missing + old.len() > 0
}

#[test]
fn each_flipped_bit_is_named_or_harmless_and_writing_goes_on() {
    let (files, all) = whole();
    assert_eq!(all.len(), 40);
    assert!(
        files.keys().any(|path| path.to_string_lossy().contains("tables")),
        "there are tables: {files:?}"
    );
    let mut outcomes: BTreeMap<&str, u32> = BTreeMap::new();
    let dir = fast_dir();
    for (path, (bytes, _)) in &files {
        for at in (0..bytes.len()).step_by(STEP) {
            fs::remove_dir_all(dir.path()).unwrap();
            write_files(dir.path(), &files);
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            let len = files[path].1;
            write_files(dir.path(), &Files::from([(path.clone(), (flipped, len))]));
            let context = format!("{} byte {at}", path.display());
            let (state, report) = State::open(dir.path(), Config::default(), NOW).unwrap();
            let is_missing = judge(&state, &report, &all, &context);
            let outcome = match (&report.moved_aside, is_missing) {
                (Some(_), _) if report.salvaged => "salvaged",
                (Some(_), _) => "started empty",
                (None, true) => "lost, and named",
                (None, false) => "harmless",
            };
            *outcomes.entry(outcome).or_default() += 1;
            let number = state.events().append(&[event(NOW, 99)]).unwrap();
            assert!(number > *all.last_key_value().unwrap().0 || path.ends_with("state.last"), "{context}");
            drop(state);
            let (_, again) = State::open(dir.path(), Config::default(), NOW).unwrap();
            assert_eq!(
                (again.lost_tail, again.lost_within, again.moved_aside),
                (0, 0, None),
                "{context}: once is enough"
            );
        }
    }
    println!("{outcomes:?}");
    assert!(outcomes.get("started empty").is_some_and(|n| *n > 10), "{outcomes:?}");
    assert!(outcomes.get("salvaged").is_some_and(|n| *n > 0), "{outcomes:?}");
}

#[test]
fn a_tail_that_is_gone_is_counted_by_the_witness() {
    let dir = fast_dir();
    let (state, _) = open(dir.path());
    for n in 1..=5 {
        state.events().append(&[event(NOW + n, 0)]).unwrap();
    }
    drop(state);
    let early = read_files(dir.path());
    let (state, _) = open(dir.path());
    for n in 1..=7 {
        state.events().append(&[event(NOW + 9 + n, 0)]).unwrap();
    }
    drop(state);
    let witness = fs::read(dir.path().join("state.last")).unwrap();
    // The database as it was before, the witness as it is: what an opening that drops the tail looks like.
    fs::remove_dir_all(dir.path().join("state")).unwrap();
    write_files(dir.path(), &early);
    fs::write(dir.path().join("state.last"), witness).unwrap();
    let (state, report) = open(dir.path());
    assert_eq!((report.records, report.lost_tail, report.last_number), (5, 7, 12));
    assert_eq!(state.events().append(&[event(NOW + 99, 0)]).unwrap(), 13, "no number is given twice");
    drop(state);
    assert_eq!(open(dir.path()).1.lost_tail, 0, "it is told once");
}

#[test]
fn a_witness_that_a_loss_of_power_took_back_raises_no_alarm() {
    let dir = fast_dir();
    let (state, _) = open(dir.path());
    state.events().append(&[event(NOW, 0)]).unwrap();
    let old = fs::read(dir.path().join("state.last")).unwrap();
    for n in 1..=5 {
        state.events().append(&[event(NOW + n, 0)]).unwrap();
    }
    drop(state);
    for witness in [Some(old), Some(Vec::new()), Some(vec![0; 16]), None] {
        match &witness {
            Some(bytes) => fs::write(dir.path().join("state.last"), bytes).unwrap(),
            None => fs::remove_file(dir.path().join("state.last")).unwrap(),
        }
        let (_, report) = open(dir.path());
        assert_eq!((report.records, report.lost_tail, report.last_number), (6, 0, 6), "{witness:?}");
        assert_eq!(report.moved_aside, None);
    }
}
