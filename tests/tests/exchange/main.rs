//! `telemetry-agent tsdb` as an operator uses it: the real program on real stores, and beside it the real promtool,
//! the real Prometheus, pyarrow.
#![cfg(test)]

mod blocks;
mod columns;
mod faults;
mod text;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use telemetry_model::NativeHistogram;
use telemetry_tests::agent;
use telemetry_tsdb::db::{Config, Db, Metadata};
use telemetry_tsdb::fs::{RealStorage, SystemClock};
use telemetry_tsdb::head::Sample;
use tempfile::TempDir;

/// A day long gone: whole hours, whole seconds.
const START: i64 = 1_700_006_400_000;

/// A data directory.
struct Data(TempDir);

/// What a run of the program said.
struct Said {
    code: i32,
    out: String,
    err: String,
}

// === impl Data ===

impl Data {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Opens the store as the agent would.
    fn db(&self) -> Db {
        let storage = Arc::new(RealStorage::open(&self.path("tsdb")).unwrap());
        Db::open(Config::default(), storage, Arc::new(SystemClock::default())).unwrap().0
    }

    /// A store of counters, gauges, native histograms, exemplars and metadata, in files and in the log.
    fn filled() -> Self {
        let data = Self::new();
        let db = data.db();
        let family = |kind: &str, unit: &str, help: &str| Metadata {
            kind: kind.into(),
            unit: unit.into(),
            help: help.into(),
        };
        db.set_metadata("work_seconds_total", family("counter", "seconds", "Work \"done\".\nAll of it."));
        db.set_metadata("heat", family("gauge", "", "A \\ gauge."));
        db.set_metadata("wait_seconds", family("histogram", "seconds", "Waits."));
        let mut bulk = db.bulk();
        for series in 0..5i32 {
            let label = series.to_string();
            let times = (0..600i32).map(|k| (START + i64::from(k) * 15_000, k));
            let counter = times.clone().map(|(t, k)| (t, Sample::Float(f64::from(k * series) * 0.1)));
            bulk.add(&[("__name__", "work_seconds_total"), ("a", &label), ("path", "a\\b\"c\nd")], counter)
                .unwrap();
            let gauge = times.clone().map(|(t, k)| (t, Sample::Float(1.0 / f64::from(k - 300 * series))));
            bulk.add(&[("__name__", "heat"), ("a", &label)], gauge).unwrap();
            let histogram = times.map(|(t, k)| (t, Sample::Histogram(Arc::new(native(k)))));
            bulk.add(&[("__name__", "wait_seconds"), ("a", &label)], histogram).unwrap();
        }
        bulk.finish().unwrap();
        let now = i64::try_from(
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis(),
        )
        .unwrap();
        let group = db.group("test").unwrap();
        let series = db.series(group, &[("__name__", "heat"), ("a", "now")], Default::default()).unwrap();
        db.append((0..10).map(|k| (series, now - 20_000 + k * 1000, Sample::Float(2.5))));
        db.commit().unwrap();
        data
    }

    fn tsdb(&self, args: &[&str]) -> Said {
        Said::of(&self.command(args).output().unwrap())
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(agent::binary().unwrap());
        command.arg("tsdb").arg("--data-dir").arg(self.0.path()).args(args);
        command
    }

    fn dump(&self) -> String {
        self.tsdb(&["dump"]).ok()
    }
}

fn native(k: i32) -> NativeHistogram {
    let (low, high) = (f64::from(k), f64::from(k / 3));
    NativeHistogram {
        schema: 2,
        zero_threshold: 1e-9,
        zero_count: 1.0,
        count: low + high + 1.0,
        sum: f64::from(k) * 1.25,
        positive: [(-3, low), (4, high)].into_iter().filter(|(_, count)| *count > 0.0).collect(),
        ..Default::default()
    }
}

// === impl Said ===

impl Said {
    fn of(output: &Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout.clone()).unwrap(),
            err: String::from_utf8(output.stderr.clone()).unwrap(),
        }
    }

    /// Standard output of a run that did well.
    fn ok(self) -> String {
        assert_eq!(self.code, 0, "{}{}", self.out, self.err);
        self.out
    }
}

/// A program of Debian's package `prometheus`, if it is on the path or where set-up puts it.
fn tool(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join(name)).find(|path| path.is_file());
    if found.is_none() {
        eprintln!("skipped: no {name} (Debian package prometheus; `cargo xtask test` fetches it)");
    }
    found
}

fn text_of(path: &Path) -> &str {
    path.to_str().unwrap()
}
