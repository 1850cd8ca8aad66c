//! Writes every tick into the store: on a thread of its own, from a short queue, so that no disk slows the pipeline.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use telemetry_model::{Desc, Histogram, Labels, LateOwner, NativeHistogram, ResetHint, Snapshot, Value};
use telemetry_tsdb::db::{Db, Metadata, SeriesRef, Work};
use telemetry_tsdb::head::{GroupId, Sample};
use telemetry_tsdb::index::{NAME, OwnerRef};

/// Ticks that may wait for the disk. Beyond it the newest is not recorded, and counted.
const QUEUE_TICKS: usize = 16;
/// The agent's own group of series.
const GROUP: &str = "agent";
/// Pieces of housekeeping done between two ticks at most.
const CHORES_MAX: usize = 64;
/// Owners that the store may know apart from their series' labels, as names may still come for them: about 200 bytes
/// each, for ever. Beyond it a name that comes late starts another series.
const LATE_OWNERS_MAX: usize = 4096;

/// The pipeline's end of the queue.
#[derive(Clone)]
pub struct Queue {
    sender: SyncSender<Arc<Snapshot>>,
    missed: Arc<AtomicU64>,
}

/// The store's end.
pub struct Recorder {
    db: Arc<Db>,
    receiver: Receiver<Arc<Snapshot>>,
    group: Option<GroupId>,
    known: HashMap<&'static str, HashMap<Labels, Known>>,
    /// Owners exposed before their names were known, by their number in this run.
    late: HashMap<u64, Late>,
    tick: u64,
}

/// An owner that was exposed before its names were known.
struct Late {
    owner: OwnerRef,
    is_bound: bool,
    /// The last tick it was in.
    seen: u64,
}

struct Known {
    series: SeriesRef,
    /// Its owner in the store; 0 where all its labels are its own.
    owner: OwnerRef,
    /// The last tick it was in.
    seen: u64,
}

// === impl Queue ===

impl Queue {
    /// Gives a tick to the store, unless the store is too far behind.
    pub fn push(&self, snapshot: Arc<Snapshot>) {
        if let Err(TrySendError::Full(_)) = self.sender.try_send(snapshot) {
            self.missed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Ticks that were not recorded because the disk was too slow.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.missed.load(Ordering::Relaxed)
    }
}

// === impl Recorder ===

impl Recorder {
    /// A recorder and the queue that feeds it.
    #[must_use]
    pub fn new(db: Arc<Db>) -> (Self, Queue) {
        let (sender, receiver) = sync_channel(QUEUE_TICKS);
        let group = db.group(GROUP);
        let queue = Queue { sender, missed: Arc::default() };
        (Self { db, receiver, group, known: HashMap::new(), late: HashMap::new(), tick: 0 }, queue)
    }

    /// Waits for a tick and records it, then does what housekeeping is due. False: nobody will ever send again.
    pub fn step(&mut self, patience: Duration) -> bool {
        let is_open = match self.receiver.recv_timeout(patience) {
            Ok(snapshot) => {
                self.record(&snapshot);
                // What is behind is caught up before the disk is asked.
                while let Ok(snapshot) = self.receiver.try_recv() {
                    self.record(&snapshot);
                }
                if let Err(error) = self.db.commit() {
                    tracing::debug!(%error, "tick not acknowledged");
                }
                true
            }
            Err(RecvTimeoutError::Timeout) => true,
            Err(RecvTimeoutError::Disconnected) => false,
        };
        for _ in 0..CHORES_MAX {
            if matches!(self.db.maintain(), Work::Nothing | Work::Failed) {
                break;
            }
        }
        is_open
    }

    /// Writes one snapshot.
    pub fn record(&mut self, snapshot: &Snapshot) {
        let Some(group) = self.group else { return };
        self.tick += 1;
        let mut cells = Vec::with_capacity(snapshot.series_count());
        for family in &snapshot.families {
            let desc = family.desc;
            if !self.known.contains_key(desc.name) {
                self.db.set_metadata(desc.name, metadata(desc));
            }
            for series in &family.series {
                let owner = self.owner(series.late.as_deref());
                let known = self.known.entry(desc.name).or_default();
                let found = match known.get_mut(&series.labels) {
                    Some(found) => Some(found),
                    None => {
                        let of_owner =
                            series.late.as_deref().filter(|_| owner.0 > 0).map(|late| &late.labels);
                        let own = pairs(desc.name, &series.labels, of_owner);
                        self.db.series(group, &own, owner).map(|series_ref| {
                            let new = Known { series: series_ref, owner, seen: 0 };
                            known.entry(series.labels.clone()).or_insert(new)
                        })
                    }
                };
                let Some(found) = found else { continue };
                found.seen = self.tick;
                cells.push((found.series, sample(&series.value)));
            }
        }
        let appended = self.db.append_row(group, snapshot.at.0, cells);
        if !appended.refused.is_empty() {
            self.forget(&appended.refused.iter().map(|(series, _)| *series).collect::<Vec<_>>());
        }
        self.end_absent(snapshot.at.0);
    }

    /// Whose a series is in the store. An owner that has its names now is given them there: what was stored of it, too,
    /// is read under them, and its series go on under new labels.
    fn owner(&mut self, late: Option<&LateOwner>) -> OwnerRef {
        let Some(LateOwner { number, labels, is_bound }) = late else { return OwnerRef(0) };
        let found = match self.late.get_mut(number) {
            Some(found) => found,
            None => {
                let is_room = self.db.stats().owners < LATE_OWNERS_MAX;
                // With its names it needs no owner, unless something is stored of it, and this run knows of nothing.
                let owner = if is_room && !*is_bound {
                    self.db.create_owner(&label_pairs(labels))
                } else {
                    OwnerRef(0)
                };
                self.late.entry(*number).or_insert(Late { owner, is_bound: *is_bound, seen: 0 })
            }
        };
        found.seen = self.tick;
        let owner = found.owner;
        if *is_bound && !found.is_bound {
            found.is_bound = true;
            if owner.0 > 0 && self.db.bind_owner(owner, &label_pairs(labels)) {
                for known in self.known.values_mut() {
                    known.retain(|_, series| series.owner != owner);
                }
            }
        }
        owner
    }

    /// Series that are not in the newest tick have ended.
    fn end_absent(&mut self, t: i64) {
        let tick = self.tick;
        self.late.retain(|_, late| late.seen >= tick);
        let mut ended = Vec::new();
        for known in self.known.values_mut() {
            known.retain(|_, series| {
                if series.seen < tick {
                    ended.push(series.series);
                }
                series.seen >= tick
            });
        }
        if !ended.is_empty() {
            self.db.end(&ended, t);
        }
    }

    /// Series that the store does not know any more are asked for again at the next tick.
    fn forget(&mut self, refused: &[SeriesRef]) {
        for known in self.known.values_mut() {
            known.retain(|_, series| !refused.contains(&series.series));
        }
    }
}

fn metadata(desc: &Desc) -> Metadata {
    let kind = match desc.kind {
        telemetry_model::Kind::Counter => "counter",
        telemetry_model::Kind::Gauge => "gauge",
        telemetry_model::Kind::Histogram => "histogram",
        telemetry_model::Kind::Info => "info",
    };
    Metadata { kind: kind.into(), unit: desc.unit.word().into(), help: desc.help.into() }
}

/// Label pairs in the order of their names, the metric's name among them and those of its owner not.
fn pairs<'a>(name: &'a str, labels: &'a Labels, without: Option<&Labels>) -> Vec<(&'a str, &'a str)> {
    let is_own = |(name, _): &(&str, &str)| without.is_none_or(|of_owner| of_owner.get(name).is_none());
    let own = label_pairs(labels).into_iter().filter(is_own);
    let mut all: Vec<_> = std::iter::once((NAME, name)).chain(own).collect();
    all.sort_unstable();
    all
}

fn label_pairs(labels: &Labels) -> Vec<(&str, &str)> {
    labels.iter().map(|label| (label.name.as_ref(), label.value.as_ref())).collect()
}

fn sample(value: &Value) -> Sample {
    match value {
        Value::Number(value) => Sample::Float(*value),
        Value::Histogram(histogram) => Sample::Histogram(Arc::new(native(histogram))),
    }
}

/// A kernel histogram as the store and the query language know it. Bins are buckets of the same schema; the zero bin
/// is the zero bucket, the overflow bin the bucket behind the last bound.
#[must_use]
pub fn native(histogram: &Histogram) -> NativeHistogram {
    let layout = histogram.layout();
    let schema = i8::try_from(layout.schema).unwrap_or(0);
    // The bucket that begins at the first bound: its upper bound is 2^(index / 2^schema).
    let first = (layout.low_octave << layout.schema) + 1;
    let (zero, rest) = histogram.bins().split_first().map_or((0, &[][..]), |(zero, rest)| (*zero, rest));
    let buckets = (first..).zip(rest).filter(|(_, count)| **count > 0);
    NativeHistogram {
        schema,
        reset: ResetHint::Unknown,
        zero_threshold: layout.zero_threshold(),
        zero_count: telemetry_model::float(zero),
        count: telemetry_model::float(histogram.count()),
        sum: histogram.sum(),
        positive: buckets.map(|(index, count)| (index, telemetry_model::float(*count))).collect(),
        ..NativeHistogram::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use telemetry_model::clock::Timestamp;
    use telemetry_model::{Family, Kind, Layout, MatchOp, Matcher, Scope, Series, Unit};
    use telemetry_tsdb::db::Config;
    use telemetry_tsdb::fs::sim::SimClock;

    static X: Desc = Desc {
        name: "x_total",
        kind: Kind::Counter,
        unit: Unit::None,
        help: "Help.",
        scope: Scope::Node,
        labels: &["zone"],
        bound: "1",
        source: "a test",
    };

    fn snapshot(t: i64, zones: &[(&'static str, f64)]) -> Arc<Snapshot> {
        let series =
            zones.iter().map(|(z, v)| Series::number(Labels::fixed(&[("zone", z), ("Zone", "y")]), *v));
        Arc::new(Snapshot::new(Timestamp(t), vec![Family { desc: &X, series: series.collect() }]))
    }

    #[test]
    fn ticks_are_recorded_and_series_that_vanish_end_with_a_stale_marker() {
        let clock = Arc::new(SimClock::at(1_700_000_000_000));
        let db = Arc::new(Db::in_memory(Config::default(), clock));
        let (mut recorder, queue) = Recorder::new(Arc::clone(&db));
        let t = 1_700_000_000_000;
        queue.push(snapshot(t, &[("a", 1.0), ("b", 5.0)]));
        queue.push(snapshot(t + 5000, &[("a", 2.0)]));
        assert!(recorder.step(Duration::ZERO));
        let read = |zone: &str| {
            let matchers = [
                Matcher::new("__name__", MatchOp::Equal, "x_total"),
                Matcher::new("zone", MatchOp::Equal, zone),
            ];
            let selection = db.select(&matchers, i64::MIN, i64::MAX).unwrap();
            let column = selection.reader().read(&selection.series()[0], i64::MIN, i64::MAX).unwrap();
            column.times.iter().copied().zip(column.values).collect::<Vec<_>>()
        };
        assert_eq!(read("a"), [(t, 1.0), (t + 5000, 2.0)]);
        let b = read("b");
        assert_eq!((b[0], b[1].0), ((t, 5.0), t + 5000));
        assert!(telemetry_model::is_stale(b[1].1));
        assert_eq!(&*db.metadata()[0].1.kind, "counter");
        drop(queue);
        assert!(!recorder.step(Duration::ZERO));
    }

    const IDS: [(&str, &str); 3] = [("container_id", "c"), ("pod", ""), ("pod_uid", "u")];
    const NAMES: [(&str, &str); 2] = [("container", "php"), ("pod", "web")];

    fn owned(t: i64, owner: &[(&'static str, &'static str)], is_bound: bool, value: f64) -> Arc<Snapshot> {
        let labels = Labels::fixed(owner);
        let late = LateOwner { number: 7, labels: labels.clone(), is_bound };
        let labels = Labels::fixed(&[("zone", "a")]).and(&labels);
        let series = Series { late: Some(Arc::new(late)), ..Series::number(labels, value) };
        Arc::new(Snapshot::new(Timestamp(t), vec![Family { desc: &X, series: vec![series] }]))
    }

    type Read = (Vec<(String, String)>, Vec<(i64, f64)>);

    fn all(db: &Db) -> Vec<Read> {
        let matchers = [Matcher::new("__name__", MatchOp::Equal, "x_total")];
        let selection = db.select(&matchers, i64::MIN, i64::MAX).unwrap();
        let mut reader = selection.reader();
        let read = |series: &telemetry_tsdb::db::Selected| {
            let column = reader.read(series, i64::MIN, i64::MAX).unwrap();
            let labels = series.labels().iter().map(|(name, value)| (name.to_string(), value.to_string()));
            (labels.collect(), column.times.iter().copied().zip(column.values).collect())
        };
        selection.series().iter().map(read).collect()
    }

    fn expect(names: &[(&str, &str)]) -> Vec<(String, String)> {
        let pairs = [("__name__", "x_total"), ("zone", "a")].into_iter().chain(names.iter().copied());
        let mut pairs: Vec<_> = pairs
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        pairs.sort();
        pairs
    }

    #[test]
    fn what_was_recorded_before_the_names_came_is_read_under_them() {
        let db = Arc::new(Db::in_memory(Config::default(), Arc::new(SimClock::at(1_700_000_000_000))));
        let (mut recorder, _queue) = Recorder::new(Arc::clone(&db));
        let t = 1_700_000_000_000;
        recorder.record(&owned(t, &IDS, false, 1.0));
        assert_eq!(all(&db), [(expect(&IDS), vec![(t, 1.0)])]);
        recorder.record(&owned(t + 5000, &NAMES, true, 2.0));
        recorder.record(&owned(t + 10_000, &NAMES, true, 3.0));
        let whole = vec![(t, 1.0), (t + 5000, 2.0), (t + 10_000, 3.0)];
        assert_eq!(all(&db), [(expect(&NAMES), whole)], "one series, without an end between");
    }

    #[test]
    fn an_agent_that_knows_the_names_from_its_start_goes_on_with_the_same_series() {
        let db = Arc::new(Db::in_memory(Config::default(), Arc::new(SimClock::at(1_700_000_000_000))));
        let t = 1_700_000_000_000;
        let (mut first, _queue) = Recorder::new(Arc::clone(&db));
        first.record(&owned(t, &IDS, false, 1.0));
        first.record(&owned(t + 5000, &NAMES, true, 2.0));
        let (mut second, _queue) = Recorder::new(Arc::clone(&db));
        let labels = Labels::fixed(&[("zone", "a")]).and(&Labels::fixed(&NAMES));
        let family = Family { desc: &X, series: vec![Series::number(labels, 3.0)] };
        second.record(&Snapshot::new(Timestamp(t + 10_000), vec![family]));
        let whole = vec![(t, 1.0), (t + 5000, 2.0), (t + 10_000, 3.0)];
        assert_eq!(all(&db), [(expect(&NAMES), whole)]);
    }

    #[test]
    fn a_slow_disk_costs_ticks_that_are_counted_and_nothing_else() {
        let db = Arc::new(Db::in_memory(Config::default(), Arc::new(SimClock::at(0))));
        let (_recorder, queue) = Recorder::new(db);
        (0..20).for_each(|k| queue.push(snapshot(k, &[])));
        assert_eq!(queue.missed(), 4);
    }

    #[test]
    fn native_buckets_have_the_bounds_of_the_bins() {
        static LAYOUT: Layout = Layout { schema: 2, low_octave: -2, high_octave: 3 };
        let mut histogram = Histogram::new(&LAYOUT);
        [0.1, 0.26, 1.0, 1.1, 100.0].iter().for_each(|v| histogram.observe(*v));
        let native = native(&histogram);
        assert_eq!((native.zero_count, native.count), (1.0, 5.0));
        for (bin, _) in histogram.bins().iter().enumerate().filter(|(bin, c)| *bin > 0 && **c > 0) {
            let bound = histogram.upper_bound(bin);
            if bound.is_finite() {
                let index = (bound.log2() * 4.0).round();
                assert!(native.positive.indexes.iter().any(|i| f64::from(*i) == index), "bound {bound}");
            }
        }
        assert_eq!(native.positive.len(), 4);
    }
}
