//! Who has the directory, what a full disk does, and what stands beside the database.

use std::path::Path;
use std::process::Command;

use telemetry_tsdb::state::{Config, Error, NewEvent, State};

use crate::{NOW, event, events, fast_dir, open};

#[test]
fn a_state_has_one_holder_and_the_second_changes_nothing() {
    let dir = fast_dir();
    let (state, _) = open(dir.path());
    state.events().append(&[event(NOW, 1)]).unwrap();
    assert!(matches!(State::open(dir.path(), Config::default(), NOW), Err(Error::Locked(_))));
    assert!(matches!(State::open_existing(dir.path(), Config::default()), Err(Error::Locked(_))));
    state.events().append(&[event(NOW, 2)]).unwrap();
    assert_eq!(events(&state).len(), 2);
    drop(state);
    assert_eq!(open(dir.path()).1.records, 2);
}

#[test]
fn opened_to_be_read_it_is_neither_made_nor_written() {
    let dir = fast_dir();
    assert!(matches!(State::open_existing(dir.path(), Config::default()), Err(Error::Absent(_))));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    open(dir.path()).0.events().append(&[event(NOW, 1)]).unwrap();
    let (state, report) = State::open_existing(dir.path(), Config::default()).unwrap();
    assert_eq!((report.records, events(&state).len()), (1, 1));
    assert!(matches!(state.events().append(&[event(NOW, 2)]), Err(Error::ReadOnly)));
}

#[test]
fn a_database_whose_making_was_cut_short_is_made_again_without_an_alarm() {
    let dir = fast_dir();
    std::fs::create_dir_all(dir.path().join("state/keyspaces")).unwrap();
    std::fs::write(dir.path().join("state/0.jnl"), [0; 100]).unwrap();
    let (state, report) = open(dir.path());
    assert_eq!(report.moved_aside, None);
    state.events().append(&[event(NOW, 1)]).unwrap();
}

#[test]
fn a_database_that_ends_the_process_is_moved_aside_at_the_fourth_attempt() {
    let dir = fast_dir();
    open(dir.path()).0.events().append(&[event(NOW, 1)]).unwrap();
    std::fs::write(dir.path().join("state.opening"), [0; 2]).unwrap();
    assert_eq!(open(dir.path()).1.moved_aside, None, "an opening that ends forgets those that did not");
    std::fs::write(dir.path().join("state.opening"), [0; 3]).unwrap();
    let (state, report) = open(dir.path());
    assert!(report.moved_aside.is_some_and(|(path, _)| path.is_dir()));
    assert_eq!((report.records, report.lost_tail), (0, 1));
    assert_eq!(state.events().append(&[event(NOW, 2)]).unwrap(), 2, "numbers go on");
}

/// A small disk of memory, while this lives.
struct SmallDisk(tempfile::TempDir);

// === impl SmallDisk ===

impl SmallDisk {
    /// None without the rights to mount.
    fn mount(size: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let options = format!("size={size}");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(dir.path()).status();
        mounted.is_ok_and(|status| status.success()).then(|| Self(dir))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_refuses_new_records_keeps_old_ones_and_goes_on_when_there_is_room() {
    let Some(disk) = SmallDisk::mount("12m") else {
        eprintln!("skipped: a small disk cannot be mounted without root");
        return;
    };
    let (state, _) = open(disk.path());
    let filler = disk.path().join("filler");
    let mut written = 0;
    let full = loop {
        std::fs::write(&filler, vec![1; 200_000 * written]).unwrap();
        match state.events().append(&[NewEvent { body: "x".repeat(4000), ..event(NOW, 0) }]) {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(full, Error::Limit(_)) && written > 5, "{full} after {written}");
    assert!(!state.has_failed(), "nothing was begun that could not be ended");
    assert_eq!(events(&state).len(), written);
    drop(state);
    // With no room at all it opens, or says that the system refuses; it never takes a full disk for damage.
    let _ = std::fs::write(&filler, vec![1; 12 << 20]);
    match State::open(disk.path(), Config::default(), NOW) {
        Ok((state, report)) => assert_eq!((events(&state).len(), report.moved_aside), (written, None)),
        Err(error) => assert!(matches!(error, Error::System(_)), "{error}"),
    }
    std::fs::remove_file(&filler).unwrap();
    let (state, report) = open(disk.path());
    assert_eq!((report.records, report.lost_tail, report.moved_aside), (written as u64, 0, None));
    state.events().append(&[event(NOW, 1)]).unwrap();
}
