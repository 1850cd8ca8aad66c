//! Limits of records, bytes, age, of the disk; and the order of events whatever the clock does.

use telemetry_tsdb::state::{BODY_BYTES_MAX, Batch, Config, Error, Keyspace, Limits, NewEvent, State};

use crate::{NOW, event, events, fast_dir, open};

fn small() -> Config {
    Config {
        events: Limits { records: 80, bytes: 8000 },
        others: Limits { records: 3, bytes: 1000 },
        ..Config::default()
    }
}

fn check_limits(state: &State) {
    for n in 1..=1000 {
        state.events().append(&[event(NOW + i64::try_from(n).unwrap(), n)]).unwrap();
    }
    let left = events(state);
    assert!((70..=80).contains(&left.len()), "{} events", left.len());
    assert_eq!(left.last_key_value().unwrap().0, &1000, "the newest stays");
    assert!(left.keys().zip(1001 - left.len() as u64..).all(|(number, expected)| *number == expected));
    let (_, records, bytes) = state.sizes()[0];
    assert!(records == left.len() as u64 && bytes <= 8000);
    assert_eq!(state.counters().evicted.load(std::sync::atomic::Ordering::Relaxed) + records, 1000);
    // By bytes: twenty of four hundred fill it.
    let large = NewEvent { body: "x".repeat(400), ..event(NOW * 2, 0) };
    for _ in 0..40 {
        state.events().append(std::slice::from_ref(&large)).unwrap();
    }
    let (_, records, bytes) = state.sizes()[0];
    assert!(bytes <= 8000 && records < 20, "{records} records, {bytes} bytes");
    // What is not by time has no oldest: the fourth is refused, and nothing of its batch is made.
    for key in ["a", "b", "c"] {
        let mut batch = Batch::default();
        batch.put(Keyspace::Silences, key, "body");
        state.commit(batch).unwrap();
    }
    let mut batch = Batch::default();
    batch.remove(Keyspace::Silences, "a");
    batch.put(Keyspace::Silences, "d", "body");
    batch.put(Keyspace::Silences, "e", "body");
    assert!(matches!(state.commit(batch), Err(Error::Limit(_))));
    assert_eq!(state.get(Keyspace::Silences, b"a").unwrap().as_deref(), Some(&b"body"[..]));
    // One that makes room for itself is taken; so is one that replaces.
    let mut batch = Batch::default();
    batch.remove(Keyspace::Silences, "a");
    batch.put(Keyspace::Silences, "d", "body");
    batch.put(Keyspace::Silences, "d", "another");
    state.commit(batch).unwrap();
    assert_eq!(state.get(Keyspace::Silences, b"a").unwrap(), None);
    assert_eq!(state.get(Keyspace::Silences, b"d").unwrap().as_deref(), Some(&b"another"[..]));
}

#[test]
fn limits_hold_on_disk_and_after_opening_it_again() {
    let dir = fast_dir();
    let (state, _) = State::open(dir.path(), small(), NOW).unwrap();
    check_limits(&state);
    let before = (state.sizes(), events(&state), state.last_number());
    drop(state);
    let (state, report) = State::open(dir.path(), small(), NOW).unwrap();
    assert_eq!((state.sizes(), events(&state), state.last_number()), before);
    assert_eq!((report.lost_tail, report.lost_within, report.moved_aside), (0, 0, None));
}

#[test]
fn limits_hold_in_memory() {
    check_limits(&State::in_memory(small()));
}

#[test]
fn events_are_read_by_time_and_behind_a_number_even_if_the_clock_is_set_back() {
    let dir = fast_dir();
    let (state, _) = open(dir.path());
    let at = [5, 1, 9, 3, -4, 9];
    for (t, n) in at.iter().zip(1..) {
        state.events().append(&[event(NOW + t, n)]).unwrap();
    }
    let check = |state: &State| {
        let numbers = |page: telemetry_tsdb::state::Page| {
            page.events.iter().map(|event| event.number).collect::<Vec<_>>()
        };
        assert_eq!(numbers(state.events().range(NOW + 1, NOW + 9, 99).unwrap()), [2, 4, 1, 3, 6]);
        assert_eq!(numbers(state.events().range(NOW + 9, NOW + 1, 99).unwrap()), [0; 0]);
        assert_eq!(numbers(state.events().after(2, 99).unwrap()), [3, 4, 5, 6]);
        let cut = state.events().after(2, 2).unwrap();
        assert!(cut.is_cut);
        assert_eq!(numbers(cut), [3, 4]);
        assert_eq!(numbers(state.events().after(6, 99).unwrap()), [0; 0]);
        assert_eq!(state.events().newest().unwrap().unwrap().number, 6);
        assert_eq!(state.events().oldest().unwrap().unwrap().number, 1);
        assert!(!state.events().is_in_order());
        let odd = |event: &telemetry_tsdb::state::Event| event.number % 2 == 1;
        let onward = |after, max| state.events().onward(after, NOW + 9, max, &odd).unwrap();
        assert_eq!(numbers(onward((i64::MIN, 0), 99)), [5, 1, 3]);
        assert_eq!(numbers(onward((NOW + 5, 1), 99)), [3]);
        let cut = onward((i64::MIN, 0), 2);
        assert!(cut.is_cut);
        assert_eq!(numbers(cut), [5, 1]);
    };
    check(&state);
    drop(state);
    check(&open(dir.path()).0);
}

#[test]
fn events_in_order_are_read_from_the_end_only() {
    let state = State::in_memory(Config::default());
    for n in 1..=2000 {
        state.events().append(&[event(NOW + 3, n)]).unwrap();
    }
    let page = state.events().after(1990, 5).unwrap();
    assert_eq!(
        page.events.iter().map(|event| event.number).collect::<Vec<_>>(),
        [1991, 1992, 1993, 1994, 1995]
    );
}

#[test]
fn events_expire_by_age() {
    let dir = fast_dir();
    let (state, _) = open(dir.path());
    for n in 1..=9 {
        state.events().append(&[event(NOW + n, n.unsigned_abs())]).unwrap();
    }
    assert_eq!(state.events().expire(NOW + 4).unwrap(), 3);
    assert_eq!(state.events().expire(NOW + 4).unwrap(), 0);
    assert_eq!(events(&state).into_keys().collect::<Vec<_>>(), [4, 5, 6, 7, 8, 9]);
    drop(state);
    let (state, report) = open(dir.path());
    assert_eq!((report.records, report.lost_within, report.lost_tail), (6, 0, 0));
    assert_eq!(state.events().append(&[event(NOW, 10)]).unwrap(), report.last_number + 1, "no number twice");
}

#[test]
fn what_is_too_large_is_refused_before_anything_is_written() {
    let state = State::in_memory(Config::default());
    let large = NewEvent { body: "x".repeat(BODY_BYTES_MAX + 1), ..event(NOW, 0) };
    assert!(matches!(state.events().append(&[large]), Err(Error::Limit(_))));
    let mut batch = Batch::default();
    batch.put(Keyspace::Cursors, vec![0; 2000], "");
    assert!(matches!(state.commit(batch), Err(Error::Limit(_))));
    let many = vec![event(NOW, 0); 5000];
    assert!(matches!(state.events().append(&many), Err(Error::Limit(_))));
    assert_eq!((state.last_number(), state.sizes().len()), (0, 0));
}
