//! The sections.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result};
use telemetry_model::{MatchOp, Matcher, NativeHistogram};
use telemetry_tests::datagen::{self, Generator, Rng};
use telemetry_tests::figure;
use telemetry_tests::peer::bytes_below;
use telemetry_tsdb::db::{Config, Db, Retention, SeriesRef, Work};
use telemetry_tsdb::fs::sim::SimClock;
use telemetry_tsdb::fs::{RealStorage, Storage};
use telemetry_tsdb::head::Sample;
use telemetry_tsdb::index::{Limits, OwnerRef};

/// A whole number of two-hour buckets.
pub const START: i64 = 1_699_999_200_000;
pub const TICKS: i64 = 1440;
const SERIES: usize = 20_000;
/// Ticks that are not appended but written, to see the log by itself.
const SETTLE_MS: i64 = 3 * 3_600_000;

/// Bounds of the kernel's bins: 2^(k/4) seconds.
const BOUNDS: std::ops::Range<i32> = -88..40;

type Section = (&'static str, fn() -> Result<()>);

/// All of them.
pub const SECTIONS: [Section; 9] = [
    ("append", append),
    ("memory", memory),
    ("gaps", crate::hard::gaps),
    ("hard", crate::hard::hard),
    ("restart", restart),
    ("churn", churn),
    ("histograms", histograms),
    ("peers", crate::peers::peers),
    ("recorded", crate::peers::recorded),
];

/// A store on disk with a clock that is set.
pub struct Store {
    /// The store.
    pub db: Db,
    /// Its clock.
    pub clock: Arc<SimClock>,
}

/// Without tiers: bytes a sample are those of raw samples, as the peers keep them.
fn config() -> Config {
    let limits = Limits { series: 1 << 20, series_per_family: 1 << 20, ..Limits::default() };
    let retention = Retention { minute_ms: 0, five_minutes_ms: 0, hour_ms: 0, ..Retention::default() };
    Config { limits, retention, free_floor_bytes: 0, ..Config::default() }
}

/// Opens a store.
pub fn open(dir: &Path, now: i64) -> Result<Store> {
    let clock = Arc::new(SimClock::at(now));
    let storage: Arc<dyn Storage> = Arc::new(RealStorage::open(dir)?);
    let (db, _) = Db::open(config(), storage, clock.clone())?;
    Ok(Store { db, clock })
}

/// So many series of the data set, in one group.
pub fn series(db: &Db, count: usize) -> Result<Vec<SeriesRef>> {
    let group = db.group("bench").context("group")?;
    let mut all = Vec::with_capacity(count);
    for at in 0..count {
        let labels = datagen::labels(at, count);
        let pairs: Vec<(&str, &str)> = labels.iter().map(|(name, value)| (*name, value.as_str())).collect();
        all.push(db.series(group, &pairs, OwnerRef(0)).context("series")?);
    }
    Ok(all)
}

/// CPU seconds of this process so far.
pub fn cpu() -> f64 {
    telemetry_tests::own::cpu_seconds()
}

/// Resident bytes of this process.
pub fn resident() -> f64 {
    telemetry_tests::own::resident_bytes()
}

fn log_bytes(dir: &Path) -> f64 {
    bytes_below(&dir.join("log"))
}

/// Does all housekeeping that is due.
pub fn maintain(db: &Db) {
    while db.maintain() != Work::Nothing {}
}

/// Does what is due so long after the newest sample. Returns the bytes of the files with samples as they came, their
/// index in them.
#[expect(clippy::cast_precision_loss, reason = "file sizes")]
pub fn settle(db: &Db, clock: &SimClock, newest: i64, after_ms: i64) -> f64 {
    clock.set(newest + after_ms);
    maintain(db);
    let blocks = db.blocks();
    let raw = blocks.iter().filter(|block| block.meta().tier_ms == 0);
    raw.map(|block| block.bytes()).sum::<u64>() as f64
}

/// Prints a figure that is better the larger it is.
pub fn at_least(name: &str, value: f64, unit: &str, bar: f64) -> Result<()> {
    figure::print_at_least("store", name, value, unit, bar, 1)
}

/// Prints a figure.
pub fn print(name: &str, value: f64, unit: &str, bar: Option<f64>, peer: &str) -> Result<()> {
    figure::print("store", name, value, unit, bar, peer, 1)
}

/// Bytes a sample, and samples a CPU second.
#[expect(clippy::cast_precision_loss, reason = "counts of samples")]
fn append() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let Store { db, clock } = open(dir.path(), START)?;
    let all = series(&db, SERIES)?;
    db.commit()?;
    let group = all.first().context("series")?.group;
    let mut data = Generator::new(SERIES);
    let (mut spent, mut commits, mut log, mut flush) = (0.0, 0.0, 0.0, 0.0);
    let mut logged = log_bytes(dir.path());
    for k in 0..TICKS {
        let t = datagen::timestamp(START, k);
        clock.set(t);
        let values = data.tick();
        let before = cpu();
        db.append_row(
            group,
            t,
            all.iter().zip(values).map(|(series, value)| (*series, Sample::Float(*value))),
        );
        spent += cpu() - before;
        let before = cpu();
        db.commit()?;
        commits += cpu() - before;
        let now = log_bytes(dir.path());
        log += now - logged;
        let before = cpu();
        maintain(&db);
        flush += cpu() - before;
        logged = log_bytes(dir.path());
    }
    let samples = SERIES as f64 * TICKS as f64;
    let rate = samples / (spent + commits) / 1e6;
    at_least("append with log, without writing windows", rate, "M samples/CPU-s", 15.0)?;
    print("append alone", spent / samples * 1e9, "ns a sample", None, "")?;
    print("commit", commits / samples * 1e9, "ns a sample", None, "")?;
    print("write windows", flush / samples * 1e9, "ns a sample", None, "")?;
    print("log", log / samples, "B a sample", Some(2.0), "")?;
    let newest = START + TICKS * 5000;
    let fresh = settle(&db, &clock, newest, 60_000);
    print("fresh files with index", fresh / samples, "B a sample", Some(1.30), "")?;
    let before = cpu();
    let files = settle(&db, &clock, newest, SETTLE_MS);
    print("compaction", (cpu() - before) / samples * 1e9, "ns a sample", None, "")?;
    print("compacted with index", files / samples, "B a sample", Some(1.10), "")?;
    check(&db)?;
    select(&db)
}

/// What was written is read.
fn check(db: &Db) -> Result<()> {
    let selection = db.select(&[Matcher::new("__name__", MatchOp::Regex, ".+")], i64::MIN, i64::MAX)?;
    let mut reader = selection.reader();
    let mut data = Generator::new(SERIES);
    let first: Vec<f64> = data.tick().to_vec();
    let mut firsts = Vec::new();
    for series in selection.series() {
        let column = reader.read(series, i64::MIN, i64::MAX)?;
        anyhow::ensure!(column.times.len() == 1440, "{:?}: {} samples", series.labels(), column.times.len());
        firsts.push(column.values.first().copied().unwrap_or(f64::NAN));
    }
    let mut expected = first;
    expected.sort_by(f64::total_cmp);
    firsts.sort_by(f64::total_cmp);
    anyhow::ensure!(firsts == expected, "values differ");
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "counts of samples")]
fn select(db: &Db) -> Result<()> {
    for (name, matchers) in [
        (
            "select 1,800 by name",
            vec![Matcher::new("__name__", MatchOp::Equal, "container_network_receive_bytes_total")],
        ),
        (
            "select 990 by name and namespace",
            vec![
                Matcher::new("__name__", MatchOp::Equal, "container_network_receive_bytes_total"),
                Matcher::new("namespace", MatchOp::Regex, "team-1.*"),
            ],
        ),
    ] {
        let before = cpu();
        let selection = db.select(&matchers, START, START + TICKS * 5000)?;
        let selected = cpu() - before;
        let mut reader = selection.reader();
        let before = cpu();
        let mut samples = 0;
        for series in selection.series() {
            samples += reader.read(series, START, START + TICKS * 5000)?.times.len();
        }
        let read = cpu() - before;
        print(name, selected * 1e3, "ms CPU", None, "")?;
        print("read them", read / samples as f64 * 1e9, "ns a sample", None, "")?;
    }
    Ok(())
}

/// Memory a series at 100,000.
#[expect(clippy::cast_precision_loss, reason = "counts of series")]
fn memory() -> Result<()> {
    const MANY: usize = 100_000;
    let dir = tempfile::tempdir()?;
    let Store { db, clock } = open(dir.path(), START)?;
    let mut data = Generator::new(MANY);
    data.tick();
    let empty = resident();
    let all = series(&db, MANY)?;
    db.commit()?;
    let indexed = resident();
    print("index, 100,000 series", (indexed - empty) / MANY as f64, "B a series", Some(400.0), "")?;
    print("index by its own account", db.stats().index_bytes as f64 / MANY as f64, "B a series", None, "")?;
    let group = all.first().context("series")?.group;
    let mut most = 0.0f64;
    for k in 0..300 {
        let t = datagen::timestamp(START, k);
        clock.set(t);
        let values = data.tick();
        db.append_row(
            group,
            t,
            all.iter().zip(values).map(|(series, value)| (*series, Sample::Float(*value))),
        );
        db.commit()?;
        maintain(&db);
        most = most.max(resident());
    }
    print(
        "head, 100,000 series, a window open and one written",
        (most - indexed) / MANY as f64,
        "B a series",
        Some(1200.0),
        "",
    )?;
    Ok(())
}

/// From a kill to the first answer with two hours of data.
fn restart() -> Result<()> {
    let dir = tempfile::tempdir()?;
    // Just before the last window is written, the log is at its longest.
    let ticks = TICKS + 5;
    if let Some(path) = std::env::var_os("TELEMETRY_BENCH_STORE_DIR") {
        return write_and_die(Path::new(&path), ticks);
    }
    let this = std::env::current_exe()?;
    let status = std::process::Command::new(this)
        .arg("restart")
        .env("TELEMETRY_BENCH_STORE_DIR", dir.path())
        .status()?;
    anyhow::ensure!(!status.success(), "the writer was to be killed");
    let (before, cpu_before) = (Instant::now(), cpu());
    let now = datagen::timestamp(START, ticks);
    let Store { db, .. } = open(dir.path(), now)?;
    let name = Matcher::new("__name__", MatchOp::Equal, "container_network_receive_bytes_total");
    let selection = db.select(&[name], now - 300_000, now)?;
    let mut reader = selection.reader();
    for series in selection.series() {
        let column = reader.read(series, now - 300_000, now)?;
        anyhow::ensure!(!column.times.is_empty(), "no samples after the restart");
    }
    let took = before.elapsed().as_secs_f64();
    print("kill -9 to first answer, 20,000 series, 2 h", took, "s", Some(1.0), "")?;
    print("the same in CPU", cpu() - cpu_before, "s", None, "")
}

fn write_and_die(dir: &Path, ticks: i64) -> Result<()> {
    let Store { db, clock } = open(dir, START)?;
    let all = series(&db, SERIES)?;
    let group = all.first().context("series")?.group;
    let mut data = Generator::new(SERIES);
    for k in 0..ticks {
        let t = datagen::timestamp(START, k);
        clock.set(t);
        let values = data.tick();
        db.append_row(
            group,
            t,
            all.iter().zip(values).map(|(series, value)| (*series, Sample::Float(*value))),
        );
        db.commit()?;
        maintain(&db);
    }
    telemetry_tests::own::kill();
    Ok(())
}

/// Ten per cent of 20,000 series replaced each minute for an hour, then as long as it takes to forget them.
#[expect(clippy::cast_precision_loss, reason = "counts of bytes")]
fn churn() -> Result<()> {
    const EVERY: i64 = 15_000;
    let dir = tempfile::tempdir()?;
    let clock = Arc::new(SimClock::at(START));
    let storage: Arc<dyn Storage> = Arc::new(RealStorage::open(dir.path())?);
    let mut config = config();
    config.retention.raw_ms = 3_600_000;
    let (db, _) = Db::open(config, storage, clock.clone())?;
    let group = db.group("bench").context("group")?;
    let create = |k: usize| -> Result<SeriesRef> {
        let labels = datagen::labels(k % 100_000, 100_000);
        let uid = format!("uid-{k:09}");
        let mut pairs: Vec<(&str, &str)> =
            labels.iter().map(|(name, value)| (*name, value.as_str())).collect();
        pairs.push(("zz", &uid));
        db.series(group, &pairs, OwnerRef(0)).context("series")
    };
    let mut next = SERIES;
    let mut live: std::collections::VecDeque<SeriesRef> = (0..SERIES).map(create).collect::<Result<_>>()?;
    let mut peaks = Vec::new();
    let mut peak = 0.0f64;
    for tick in 0..6 * 240i64 {
        let t = START + tick * EVERY;
        clock.set(t);
        db.append_row(
            group,
            t,
            live.iter().zip(0..).map(|(s, v)| (*s, Sample::Float(f64::from(v) + tick as f64))),
        );
        db.commit()?;
        if tick % 4 == 3 {
            let gone: Vec<_> = live.drain(..SERIES / 10).collect();
            db.end(&gone, t + 1);
            for _ in 0..SERIES / 10 {
                live.push_back(create(next)?);
                next += 1;
            }
        }
        maintain(&db);
        peak = peak.max(resident());
        if tick % 240 == 239 {
            peaks.push((peak, db.stats()));
            peak = 0.0;
        }
    }
    // Files are joined to two hours: hours at the same place of those are compared.
    let [.., (fourth, before), _, (sixth, after)] = peaks.as_slice() else { anyhow::bail!("no peaks") };
    print("churn: memory, sixth hour over the fourth", sixth / fourth, "ratio", Some(1.1), "")?;
    print(
        "churn: index, sixth hour over the fourth",
        after.index_bytes as f64 / before.index_bytes as f64,
        "ratio",
        Some(1.2),
        "",
    )?;
    print(
        "churn: files, sixth hour over the fourth",
        after.block_bytes as f64 / before.block_bytes as f64,
        "ratio",
        Some(1.2),
        "",
    )?;
    print("churn: memory in all", sixth / 1e6, "MB", None, "")
}

/// Native histograms beside the classic series they replace, in files.
#[expect(clippy::cast_precision_loss, reason = "counts of bytes")]
fn histograms() -> Result<()> {
    let mut sizes = Vec::new();
    for native in [true, false] {
        let dir = tempfile::tempdir()?;
        let Store { db, clock } = open(dir.path(), START)?;
        let group = db.group("bench").context("group")?;
        let mut rng = Rng::new(3);
        let owners = 200usize;
        let mut states = vec![NativeHistogram { schema: 2, ..NativeHistogram::default() }; owners];
        let mut handles: Vec<Vec<SeriesRef>> = Vec::new();
        for owner in 0..owners {
            let pod = format!("pod-{owner}");
            let mut of = Vec::new();
            if native {
                of.extend(db.series(group, &[("__name__", "latency_seconds"), ("pod", &pod)], OwnerRef(0)));
            } else {
                for bound in BOUNDS {
                    let le = format!("{:e}", (f64::from(bound) / 4.0).exp2());
                    let labels =
                        [("__name__", "latency_seconds_bucket"), ("le", le.as_str()), ("pod", pod.as_str())];
                    of.extend(db.series(group, &labels, OwnerRef(0)));
                }
                for name in ["latency_seconds_count", "latency_seconds_sum"] {
                    of.extend(db.series(group, &[("__name__", name), ("pod", &pod)], OwnerRef(0)));
                }
            }
            handles.push(of);
        }
        for tick in 0..TICKS {
            let t = START + tick * 5000;
            clock.set(t);
            let mut cells = Vec::new();
            for (owner, state) in states.iter_mut().enumerate() {
                // A tenth of the owners is busy, the others see an observation every fifty ticks.
                let observations =
                    if owner % 10 == 0 { 20 } else { u64::from(rng.number().is_multiple_of(50)) };
                observe(state, &mut rng, observations);
                let of = handles.get(owner).context("owner")?;
                if native {
                    cells.extend(of.iter().map(|s| (*s, Sample::Histogram(Arc::new(state.clone())))));
                } else {
                    cells.extend(of.iter().copied().zip(classic(state)));
                }
            }
            db.append_row(group, t, cells);
            db.commit()?;
            maintain(&db);
        }
        sizes.push(settle(&db, &clock, START + TICKS * 5000, SETTLE_MS));
    }
    let [native, classic] = sizes.as_slice() else { anyhow::bail!("two forms") };
    print("native histograms", native / (200.0 * TICKS as f64), "B a sample", None, "")?;
    print(
        "native over classic histograms, in files",
        native / classic,
        "ratio",
        Some(0.25),
        "classic series of the same 128 bounds in this store",
    )
}

#[expect(clippy::cast_possible_truncation, reason = "bucket indexes are small")]
fn observe(state: &mut NativeHistogram, rng: &mut Rng, observations: u64) {
    for _ in 0..observations {
        let normal: f64 = (0..12).map(|_| rng.unit()).sum::<f64>() - 6.0;
        let value = ((1e-5 * normal.exp()) * 1e9).floor().max(2.0) / 1e9;
        let index = (value.log2() * 4.0).ceil() as i32;
        match state.positive.indexes.binary_search(&index) {
            Ok(at) => {
                if let Some(count) = state.positive.counts.get_mut(at) {
                    *count += 1.0;
                }
            }
            Err(at) => {
                state.positive.indexes.insert(at, index);
                state.positive.counts.insert(at, 1.0);
            }
        }
        state.count += 1.0;
        state.sum = ((state.sum + value) * 1e9).round() / 1e9;
    }
}

/// The classic series of a histogram: its own bounds, count, sum.
fn classic(state: &NativeHistogram) -> Vec<Sample> {
    let below = |bound: i32| -> f64 {
        state.positive.iter().filter(|(index, _)| *index <= bound).map(|(_, count)| count).sum()
    };
    BOUNDS.map(below).chain([state.count, state.sum]).map(Sample::Float).collect()
}
