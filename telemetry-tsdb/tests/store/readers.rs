//! Readers beside a writer: each answer is one moment of the store, and a reader that stands still holds nobody up.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use telemetry_model::{MatchOp, Matcher};
use telemetry_tsdb::db::{Config, Db, SeriesRef, Work};
use telemetry_tsdb::fs::sim::{SimClock, SimStorage};
use telemetry_tsdb::head::{GroupId, Sample, WINDOW_MS};
use telemetry_tsdb::index::OwnerRef;

const START: i64 = 1_700_006_400_000 / WINDOW_MS * WINDOW_MS;
const SERIES: usize = 8;
/// Ten days of ticks, four a window: each window, join and deletion may come between two steps of a reader.
const TICKS: i64 = 3000;
const TICK_MS: i64 = 300_000;
/// A write that takes longer waits for somebody.
const PATIENCE: Duration = Duration::from_secs(60);

struct Store {
    db: Db,
    clock: Arc<SimClock>,
    group: GroupId,
    series: Vec<SeriesRef>,
}

fn store() -> Store {
    let (disk, clock) = (SimStorage::default(), Arc::new(SimClock::at(START)));
    let (db, _) = Db::open(Config::default(), Arc::new(disk), clock.clone()).unwrap();
    let group = db.group("g").unwrap();
    let series = (0..SERIES)
        .map(|k| db.series(group, &[("__name__", "x"), ("k", &*k.to_string())], OwnerRef(0)).unwrap())
        .collect();
    Store { db, clock, group, series }
}

fn all() -> [Matcher; 1] {
    [Matcher::new("__name__", MatchOp::Equal, "x")]
}

impl Store {
    /// One tick: the cells of a row add up to nothing.
    fn tick(&self, tick: i64) {
        let t = START + tick * TICK_MS;
        self.clock.set(t);
        let cell = |k: usize| if k == 0 { -((SERIES - 1) as f64) * tick as f64 } else { tick as f64 };
        let cells = self.series.iter().enumerate().map(|(k, series)| (*series, Sample::Float(cell(k))));
        assert!(self.db.append_row(self.group, t, cells).refused.is_empty());
        self.db.commit().unwrap();
        if tick % 100 == 99 {
            // Old rows go, whole ones.
            self.db.delete(&all(), i64::MIN, t - 3 * 3_600_000).unwrap();
        }
        while self.db.maintain() != Work::Nothing {}
    }

    /// Every row that is there is there whole; returns the last one's time and how many there are.
    fn read_moment(&self) -> (i64, usize) {
        let selection = self.db.select(&all(), i64::MIN, i64::MAX).unwrap();
        let mut reader = selection.reader();
        let columns: Vec<_> = selection
            .series()
            .iter()
            .map(|series| reader.read(series, i64::MIN, i64::MAX).unwrap())
            .collect();
        let Some(first) = columns.first() else { return (START - TICK_MS, 0) };
        assert_eq!(columns.len(), SERIES);
        for column in &columns {
            assert_eq!(column.times[..], first.times[..], "a row is seen whole or not at all");
        }
        for row in 0..first.times.len() {
            let sum: f64 = columns.iter().map(|column| column.values[row]).sum();
            assert_eq!(sum, 0.0, "the row at {}", first.times[row]);
        }
        let gaps = first.times.windows(2).filter(|pair| pair[1] - pair[0] != TICK_MS).count();
        assert_eq!(gaps, 0, "no row is missing between two that are there");
        (first.times.last().copied().unwrap_or(START - TICK_MS), first.times.len())
    }
}

#[test]
fn each_answer_is_one_moment_while_the_writer_goes_on() {
    let store = store();
    let (is_over, written) = (AtomicBool::new(false), AtomicI64::new(0));
    let reads: u64 = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let (mut newest, mut reads) = (i64::MIN, 0);
                    while !is_over.load(Ordering::Acquire) {
                        // What was written before the question is in the answer, and time never runs backwards.
                        let known = written.load(Ordering::Acquire);
                        let (last, rows) = store.read_moment();
                        assert!(last >= START + (known - 1) * TICK_MS, "tick {known}, {rows} rows to {last}");
                        assert!(last >= newest, "{last} after {newest}");
                        newest = last;
                        reads += 1;
                    }
                    reads
                })
            })
            .collect();
        for tick in 0..TICKS {
            store.tick(tick);
            written.store(tick + 1, Ordering::Release);
        }
        is_over.store(true, Ordering::Release);
        readers.into_iter().map(|reader| reader.join().unwrap()).sum()
    });
    assert!(reads > 3, "{reads} answers");
    assert!(store.db.blocks().iter().any(|block| block.meta().level > 0), "files were joined meanwhile");
}

/// A reader that has its moment and does nothing with it, while the writer writes, joins and deletes files.
#[test]
fn a_reader_that_stands_still_holds_no_append_up() {
    let store = store();
    (0..20).for_each(|tick| store.tick(tick));
    let selection = store.db.select(&all(), i64::MIN, i64::MAX).unwrap();
    let mut reader = selection.reader();
    let first = reader.read(&selection.series()[0], i64::MIN, i64::MAX).unwrap();
    std::thread::scope(|scope| {
        let (done, wait) = mpsc::channel();
        let store = &store;
        scope.spawn(move || {
            (20..TICKS).for_each(|tick| store.tick(tick));
            done.send(()).unwrap();
        });
        assert!(wait.recv_timeout(PATIENCE).is_ok(), "the writer waits for a reader");
    });
    for series in selection.series() {
        assert_eq!(reader.read(series, i64::MIN, i64::MAX).unwrap().times[..], first.times[..]);
    }
    assert_eq!(first.times.len(), 20);
}
