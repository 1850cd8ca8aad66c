//! A writer that is killed at any moment: every batch that it said was committed is there, the one it was at is there
//! whole or not at all, and nothing else is.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use telemetry_tsdb::state::{Batch, Config, Keyspace, State};

use crate::{NOW, open};

/// Tells the child where to write.
const DIR_VARIABLE: &str = "TELEMETRY_TEST_STATE_DIR";
/// The writer's name among the tests.
const WRITER: &str = "kill::a_process_that_writes_until_it_is_killed";
const KILLS: u64 = 30;
/// Moments of kills are so far apart: a commit takes some hundred microseconds.
const KILL_STEP: Duration = Duration::from_micros(50);
/// Keys that come and go.
const KEYS: u64 = 40;

type Content = BTreeMap<(Keyspace, Vec<u8>), Vec<u8>>;

/// What batch `n` does, in words of a model.
fn changes(n: u64) -> Vec<(Keyspace, Vec<u8>, Option<Vec<u8>>)> {
    let key = |k: u64| format!("key-{k}").into_bytes();
    let mixed = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    let body = format!("{n}:").repeat(usize::try_from(mixed % 60).unwrap() + 1).into_bytes();
    let mut all = vec![(Keyspace::Cursors, b"sequence".to_vec(), Some(n.to_string().into_bytes()))];
    match mixed % 3 {
        0 => all.push((Keyspace::AlertState, key(mixed % KEYS), None)),
        _ => all.push((Keyspace::AlertState, key(mixed % KEYS), Some(body.clone()))),
    }
    all.push((Keyspace::Silences, key(n % KEYS), Some(body)));
    all
}

fn sequence(state: &State) -> u64 {
    let body = state.get(Keyspace::Cursors, b"sequence").unwrap();
    body.map_or(0, |body| String::from_utf8(body).unwrap().parse().unwrap())
}

/// The state after batch `n`, one batch after the other.
fn model(n: u64) -> Content {
    let mut content = Content::new();
    for (keyspace, key, body) in (1..=n).flat_map(changes) {
        match body {
            Some(body) => content.insert((keyspace, key), body),
            None => content.remove(&(keyspace, key)),
        };
    }
    content
}

fn content(state: &State) -> Content {
    let keys = (0..KEYS).map(|k| format!("key-{k}").into_bytes());
    let all = keys.flat_map(|key| [(Keyspace::AlertState, key.clone()), (Keyspace::Silences, key)]);
    let all = all.chain([(Keyspace::Cursors, b"sequence".to_vec())]);
    all.filter_map(|(keyspace, key)| {
        let body = state.get(keyspace, &key).unwrap()?;
        Some(((keyspace, key), body))
    })
    .collect()
}

#[test]
fn a_process_that_writes_until_it_is_killed() {
    // Among the other tests there is nothing for it to do.
    let Some(dir) = std::env::var_os(DIR_VARIABLE) else { return };
    let (state, _) = State::open(Path::new(&dir), Config::default(), NOW).unwrap();
    let mut n = sequence(&state);
    let mut out = std::io::stdout().lock();
    loop {
        n += 1;
        let mut batch = Batch::default();
        for (keyspace, key, body) in changes(n) {
            match body {
                Some(body) => batch.put(keyspace, key, body),
                None => batch.remove(keyspace, key),
            }
        }
        let at = NOW + i64::try_from(n).unwrap();
        batch.append(Keyspace::Events, at, b"\x07started\x02{}".to_vec());
        state.commit(batch).unwrap();
        // The reader has gone: so has the test.
        if writeln!(out, "committed {n}").and_then(|()| out.flush()).is_err() {
            return;
        }
    }
}

#[test]
fn killed_thirty_times_nothing_committed_is_lost_and_nothing_is_half_done() {
    let dir = tempfile::tempdir().unwrap();
    let mut committed = 0;
    for round in 0..KILLS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", WRITER, "--nocapture"])
            .env(DIR_VARIABLE, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut acknowledged = BufReader::new(child.stdout.take().unwrap())
            .lines()
            .map_while(Result::ok)
            .filter_map(|line| line.split_once("committed ")?.1.parse::<u64>().ok());
        // Some rounds end within the opening, the others after a few commits.
        let wanted = usize::try_from(round * 7 % 23).unwrap();
        committed = acknowledged.by_ref().take(wanted).last().unwrap_or(committed);
        // The line comes at the end of a commit: what is to be hit is anywhere within the next ones.
        let read = Instant::now();
        while read.elapsed() < KILL_STEP * u32::try_from(round * 11 % 31).unwrap() {
            std::hint::spin_loop();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What it said before it died stands in the pipe.
        committed = acknowledged.last().unwrap_or(committed);
        let (state, report) = open(dir.path());
        assert_eq!((report.lost_tail, report.lost_within, report.damaged), (0, 0, 0), "round {round}");
        assert_eq!(report.moved_aside, None, "round {round}");
        let there = sequence(&state);
        assert!(
            (committed..=committed + 1).contains(&there),
            "{there} are there, {committed} were committed"
        );
        assert!(content(&state) == model(there), "round {round}: not what {there} batches make");
        let page = state.events().range(i64::MIN, i64::MAX, usize::MAX).unwrap();
        assert_eq!((page.events.len() as u64, page.damaged), (there, 0), "round {round}");
        committed = there;
    }
    assert!(committed > KILLS, "the writer hardly wrote: {committed}");
}
