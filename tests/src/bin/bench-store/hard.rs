//! What the store costs when nothing is as it should be: a twentieth of the cells is absent, one sample in a hundred
//! comes a minute late, a tenth of the series is replaced each window, and a reader never stops asking.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context as _, Result};
use telemetry_model::{MatchOp, Matcher};
use telemetry_tests::datagen::{self, Generator, Rng};
use telemetry_tests::own;
use telemetry_tsdb::db::{Db, SeriesRef};
use telemetry_tsdb::head::Sample;
use telemetry_tsdb::index::OwnerRef;

use super::sections::{START, Store, at_least, maintain, open, print, resident, series};

const SERIES: usize = 100_000;
/// A window and a quarter: one is open while the other is written.
const TICKS: i64 = 300;
/// Replaced each minute: a tenth of all in a window of twenty.
const REPLACED: usize = SERIES / 200;
const TICKS_A_MINUTE: i64 = 12;
/// Ticks that a late sample is late.
const LATE_BY: usize = 12;

/// A sample with its time, which is not the row's.
type Late = (SeriesRef, i64, Sample);

/// What the reader did meanwhile.
struct Reads {
    queries: f64,
    samples: f64,
    longest_s: f64,
}

/// Absent cells and churn alone.
pub fn gaps() -> Result<()> {
    run("gaps and churn", false)
}

/// With late samples and a reader.
pub fn hard() -> Result<()> {
    run("gaps, churn, late samples, a reader", true)
}

#[expect(clippy::cast_precision_loss, reason = "counts of samples")]
fn run(what: &str, is_whole: bool) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let Store { db, clock } = open(dir.path(), START)?;
    let mut data = Generator::new(SERIES);
    data.tick();
    let empty = resident();
    let mut live = series(&db, SERIES)?;
    let is_over = AtomicBool::new(!is_whole);
    let (mut most, mut before_files, mut spent, mut taken) = (0.0f64, 0.0f64, 0.0, 0usize);
    let reads = std::thread::scope(|scope| -> Result<Reads> {
        let reader = scope.spawn(|| read(&db, &is_over));
        let mut rng = Rng::new(7);
        let mut late: std::collections::VecDeque<Vec<Late>> = Default::default();
        let mut next = SERIES;
        for k in 0..TICKS {
            let t = datagen::timestamp(START, k);
            clock.set(t);
            let (row, later) = cells(&live, data.tick(), t, is_whole, &mut rng);
            late.push_back(later);
            let group = live.first().context("series")?.group;
            let begun = own::thread_cpu_seconds();
            taken += db.append_row(group, t, row).taken;
            if late.len() > LATE_BY {
                taken += db.append(late.pop_front().unwrap_or_default()).taken;
            }
            db.commit()?;
            spent += own::thread_cpu_seconds() - begun;
            if k % TICKS_A_MINUTE == TICKS_A_MINUTE - 1 {
                let at = usize::try_from(k / TICKS_A_MINUTE)? * REPLACED;
                for series in live.iter_mut().skip(at).take(REPLACED) {
                    db.end(&[*series], t + 1);
                    *series = replacement(&db, next)?;
                    next += 1;
                }
            }
            maintain(&db);
            most = most.max(resident());
            if db.blocks().is_empty() {
                before_files = most;
            }
        }
        is_over.store(true, Relaxed);
        reader.join().map_err(|_| anyhow::anyhow!("the reader fell"))?
    })?;
    let each = |bytes: f64| (bytes - empty) / SERIES as f64;
    let figure = |name: &str, value, unit, bar| print(&format!("{what}: {name}"), value, unit, bar, "");
    // A reader's answers are part of what is resident, and how many it holds is chance: there the figure is only told.
    let limit = (!is_whole).then_some(1600.0);
    figure("resident, 100,000 live series with index", each(most), "B a series", limit)?;
    figure("the same before a window is written", each(before_files), "B a series", None)?;
    let held = db.stats().series as f64 / SERIES as f64;
    figure("resident by series held, ended ones too", each(most) / held, "B a series", None)?;
    let rate = taken as f64 / spent / 1e6;
    at_least(&format!("{what}: append with log"), rate, "M samples/CPU-s", 15.0)?;
    if is_whole {
        figure("queries beside the writer", reads.queries, "queries", None)?;
        figure("samples they read", reads.samples / 1e6, "M samples", None)?;
        figure("the longest of them", reads.longest_s, "s", None)?;
    }
    check(&db, taken)
}

/// The cells of a tick: those that come now, and those that come late. The others never come.
fn cells(
    live: &[SeriesRef],
    values: &[f64],
    t: i64,
    is_any_late: bool,
    rng: &mut Rng,
) -> (Vec<(SeriesRef, Sample)>, Vec<Late>) {
    let (mut row, mut later) = (Vec::with_capacity(live.len()), Vec::new());
    for (series, value) in live.iter().zip(values) {
        match rng.number() % 100 {
            0..5 => {}
            5 if is_any_late => later.push((*series, t, Sample::Float(*value))),
            _ => row.push((*series, Sample::Float(*value))),
        }
    }
    (row, later)
}

fn replacement(db: &Db, number: usize) -> Result<SeriesRef> {
    let labels = datagen::labels(number % SERIES, SERIES);
    let uid = format!("uid-{number}");
    let mut pairs: Vec<(&str, &str)> = labels.iter().map(|(n, v)| (*n, v.as_str())).collect();
    pairs.push(("zz", &uid));
    db.series(db.group("bench").context("group")?, &pairs, OwnerRef(0)).context("series")
}

/// Asks for the last five minutes of a family, again and again.
#[expect(clippy::cast_precision_loss, reason = "counts of samples")]
fn read(db: &Db, is_over: &AtomicBool) -> Result<Reads> {
    let mut reads = Reads { queries: 0.0, samples: 0.0, longest_s: 0.0 };
    let name = Matcher::new("__name__", MatchOp::Equal, "container_cpu_usage_seconds_total");
    while !is_over.load(Relaxed) {
        let begun = std::time::Instant::now();
        let selection = db.select(std::slice::from_ref(&name), START, i64::MAX)?;
        let mut reader = selection.reader();
        for series in selection.series() {
            reads.samples += reader.read(series, START, i64::MAX)?.times.len() as f64;
        }
        reads.queries += 1.0;
        reads.longest_s = reads.longest_s.max(begun.elapsed().as_secs_f64());
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(reads)
}

/// Every sample that was taken is there, and no other but the stale markers of the series that ended.
fn check(db: &Db, taken: usize) -> Result<()> {
    let selection = db.select(&[Matcher::new("__name__", MatchOp::Regex, ".+")], i64::MIN, i64::MAX)?;
    let (mut reader, mut found) = (selection.reader(), 0);
    for series in selection.series() {
        let column = reader.read(series, i64::MIN, i64::MAX)?;
        let is_marker = |value: &&f64| value.to_bits() == telemetry_model::STALE_MARKER.to_bits();
        let markers = column.values.iter().filter(is_marker).count();
        found += column.times.len() - markers;
    }
    anyhow::ensure!(found == taken, "{taken} samples were taken, {found} are there");
    Ok(())
}
