//! The keyed state on a real disk: killed, damaged, full, held by another, and within its limits.
#![cfg(test)]

mod damage;
mod kill;
mod limits;
mod place;

use std::collections::BTreeMap;
use std::path::Path;

use telemetry_tsdb::state::{Config, Error, Event, Keyspace, NewEvent, Report, State};

/// When all of this happens.
const NOW: i64 = 1_700_000_000_000;

fn open(dir: &Path) -> (State, Report) {
    State::open(dir, Config::default(), NOW).unwrap()
}

fn event(at_ms: i64, n: u64) -> NewEvent {
    NewEvent { at_ms, kind: "started".into(), body: format!("{{\"n\":{n}}}") }
}

/// A directory on memory where there is one: the tests sync thousands of times.
fn fast_dir() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

/// All events by number.
fn events(state: &State) -> BTreeMap<u64, Event> {
    let page = state.events().after(0, usize::MAX).unwrap();
    page.events.into_iter().map(|event| (event.number, event)).collect()
}

/// A key's body; none as well if it is damaged.
fn readable(state: &State, keyspace: Keyspace, key: &[u8]) -> Option<Vec<u8>> {
    match state.get(keyspace, key) {
        Ok(body) => body,
        Err(Error::Damaged { .. }) => None,
        Err(other) => panic!("{other}"),
    }
}
