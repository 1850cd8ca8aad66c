//! `stat` and `verify`.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::atomic::Ordering;

use serde_json::json;
use telemetry_model::{MatchOp, Matcher, float};
use telemetry_tsdb::block::Block;
use telemetry_tsdb::db::{Db, OpenReport};
use telemetry_tsdb::log;

use super::{Failed, Output, failed, human, open};
use crate::cli::progress::{Progress, Unit};
use crate::{store, sysexits};

/// What all files of one kind come to.
#[derive(Default)]
struct Sum {
    files: u64,
    samples: u64,
    bytes: u64,
    range: Option<(i64, i64)>,
}

/// Files below a directory of the store.
struct OnDisk {
    files: u64,
    bytes: u64,
}

/// Everything `stat` tells.
struct Stat {
    is_held: bool,
    series: u64,
    in_log: u64,
    log: OnDisk,
    aside: OnDisk,
    health: Vec<String>,
}

pub fn stat(dir: &Path, output: Output) -> Result<(), Failed> {
    let (db, report) = open(dir)?;
    let all = Matcher::new("__name__", MatchOp::Regex, ".*");
    let selection = db.select(&[all], i64::MIN, i64::MAX).map_err(|error| failed(dir, &error))?;
    let is_held = store::is_held(dir);
    let found = Stat {
        is_held,
        series: selection.series().len() as u64,
        in_log: report.replayed_samples,
        log: on_disk(&dir.join(log::DIR)),
        aside: on_disk(&dir.join("damaged")),
        health: health(&report, is_held).0,
    };
    let text = match output {
        Output::Text => in_words(&db, dir, &found),
        Output::Json => serde_json::to_string_pretty(&as_json(&db, dir, &found)).unwrap_or_default() + "\n",
    };
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err((sysexits::IO_ERROR, error.to_string()))
        }
        _ => Ok(()),
    }
}

fn on_disk(dir: &Path) -> OnDisk {
    let mut found = OnDisk { files: 0, bytes: 0 };
    for meta in
        std::fs::read_dir(dir).into_iter().flatten().flatten().filter_map(|entry| entry.metadata().ok())
    {
        found.files += 1;
        found.bytes += meta.len();
    }
    found
}

/// What is wrong by what opening the store met, and how many samples are known to be lost.
fn health(report: &OpenReport, is_held: bool) -> (Vec<String>, u64) {
    let mut said: Vec<String> = report
        .damaged
        .iter()
        .map(|(file, reason)| format!("{} cannot be opened: {}", file.display(), reason_of(file, reason)))
        .collect();
    if report.log.lost_records > 0 {
        said.push(format!(
            "{} of the log lost, {} with them",
            human::of(report.log.lost_records, "record", "records"),
            human::of(report.lost_samples, "sample", "samples")
        ));
    } else if report.lost_samples > 0 {
        said.push(format!("{} of the log lost", human::of(report.lost_samples, "sample", "samples")));
    }
    // Beside a running agent the log may end within a record that is being written.
    if report.log.lost_records > 0 && report.log.skipped_bytes > 0 && !is_held {
        let files =
            report.log.damaged.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", ");
        said.push(format!("{} passed over in {files}", human::bytes(report.log.skipped_bytes)));
    }
    (said, report.lost_samples)
}

/// The reason without the file's name, if it begins with it.
fn reason_of(file: &Path, reason: &str) -> String {
    let name = file.display().to_string();
    reason.strip_prefix(&name).and_then(|rest| rest.strip_prefix(": ")).unwrap_or(reason).to_owned()
}

fn tier(tier_ms: i64) -> String {
    match tier_ms {
        0 => "raw".to_owned(),
        ms => crate::human_duration::format(std::time::Duration::from_millis(ms.unsigned_abs())),
    }
}

fn level(block: &Block) -> &'static str {
    let meta = block.meta();
    match (meta.level, meta.out_of_order) {
        (0, true) => "late",
        (0, false) => "fresh",
        (1, _) => "2h",
        _ => "day",
    }
}

fn ratio(bytes: u64, samples: u64) -> f64 {
    if samples == 0 { 0.0 } else { float(bytes) / float(samples) }
}

// === impl Sum ===

impl Sum {
    fn add(&mut self, block: &Block) {
        let meta = block.meta();
        self.files += 1;
        self.samples += meta.samples;
        self.bytes += block.bytes();
        let (from, to) = self.range.unwrap_or((meta.min_t, meta.max_t));
        self.range = Some((from.min(meta.min_t), to.max(meta.max_t)));
    }
}

/// Sums by tier, raw first.
fn by_tier(db: &Db) -> std::collections::BTreeMap<i64, Sum> {
    let mut sums: std::collections::BTreeMap<i64, Sum> = std::collections::BTreeMap::new();
    db.blocks().iter().for_each(|block| sums.entry(block.meta().tier_ms).or_default().add(block));
    sums
}

fn in_words(db: &Db, dir: &Path, found: &Stat) -> String {
    let mut out = String::new();
    let stats = db.stats();
    let write = |out: &mut String, name: &str, text: String| {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "  {name:<8}{text}");
    };
    let _ = writeln!(out, "{}", dir.display());
    write(&mut out, "state", if found.is_held { "in use by a process" } else { "not in use" }.into());
    let owners = human::of(stats.owners as u64, "owner", "owners");
    let series = format!(
        "{}, {} of them in memory, {owners}",
        human::count(found.series),
        human::count(stats.series as u64)
    );
    write(&mut out, "series", series);
    let in_files = format!(
        "{} in {}, {}, {:.3} bytes a sample",
        human::of(stats.block_samples, "sample", "samples"),
        human::of(stats.blocks as u64, "file", "files"),
        human::bytes(stats.block_bytes),
        ratio(stats.block_bytes, stats.block_samples)
    );
    write(&mut out, "files", in_files);
    let log = format!(
        "{} in {}, {}",
        human::of(found.in_log, "sample", "samples"),
        human::of(found.log.files, "segment", "segments"),
        human::bytes(found.log.bytes)
    );
    write(&mut out, "log", log);
    if found.aside.files > 0 {
        let aside = format!(
            "{}, {}, in damaged/",
            human::of(found.aside.files, "file", "files"),
            human::bytes(found.aside.bytes)
        );
        write(&mut out, "aside", aside);
    }
    match found.health.split_first() {
        None => {
            write(&mut out, "health", "nothing is known to be damaged; `tsdb verify` reads every byte".into())
        }
        Some((first, rest)) => {
            write(&mut out, "health", first.clone());
            rest.iter().for_each(|line| write(&mut out, "", line.clone()));
        }
    }
    if stats.blocks > 0 {
        tables(db, &mut out);
    }
    out
}

fn tables(db: &Db, out: &mut String) {
    let _ = writeln!(
        out,
        "\n{:<6} {:>6} {:>14} {:>11} {:>8}  {:<24} TO",
        "TIER", "FILES", "SAMPLES", "BYTES", "B/SAMPLE", "FROM"
    );
    for (tier_ms, sum) in by_tier(db) {
        let (from, to) = sum.range.unwrap_or_default();
        let _ = writeln!(
            out,
            "{:<6} {:>6} {:>14} {:>11} {:>8.3}  {:<24} {}",
            tier(tier_ms),
            sum.files,
            human::count(sum.samples),
            human::bytes(sum.bytes),
            ratio(sum.bytes, sum.samples),
            human::time(from),
            human::time(to)
        );
    }
    let _ = writeln!(
        out,
        "\n{:<16} {:<5} {:<5} {:>9} {:>14} {:>11} {:>8}  {:<24} TO",
        "FILE", "TIER", "KIND", "SERIES", "SAMPLES", "BYTES", "B/SAMPLE", "FROM"
    );
    for block in db.blocks().iter() {
        let meta = block.meta();
        let name =
            block.path().file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let _ = writeln!(
            out,
            "{:<16} {:<5} {:<5} {:>9} {:>14} {:>11} {:>8.3}  {:<24} {}",
            name,
            tier(meta.tier_ms),
            level(block),
            human::count(meta.series),
            human::count(meta.samples),
            human::bytes(block.bytes()),
            ratio(block.bytes(), meta.samples),
            human::time(meta.min_t),
            human::time(meta.max_t)
        );
    }
}

fn as_json(db: &Db, dir: &Path, found: &Stat) -> serde_json::Value {
    let stats = db.stats();
    let tiers: Vec<_> = by_tier(db)
        .into_iter()
        .map(|(tier_ms, sum)| {
            let (from, to) = sum.range.unwrap_or_default();
            json!({ "tier_ms": tier_ms, "files": sum.files, "samples": sum.samples, "bytes": sum.bytes,
                "min_time_ms": from, "max_time_ms": to })
        })
        .collect();
    let files: Vec<_> = db
        .blocks()
        .iter()
        .map(|block| {
            let meta = block.meta();
            json!({ "path": block.path(), "level": meta.level, "tier_ms": meta.tier_ms, "late": meta.out_of_order,
                "series": meta.series, "samples": meta.samples, "bytes": block.bytes(),
                "min_time_ms": meta.min_t, "max_time_ms": meta.max_t, "damaged": block.is_damaged() })
        })
        .collect();
    json!({
        "dir": dir,
        "in_use": found.is_held,
        "series": found.series,
        "head_series": stats.series,
        "groups": stats.groups,
        "owners": stats.owners,
        "file_count": stats.blocks,
        "file_samples": stats.block_samples,
        "file_bytes": stats.block_bytes,
        "bytes_per_sample": ratio(stats.block_bytes, stats.block_samples),
        "log": { "samples": found.in_log, "segments": found.log.files, "bytes": found.log.bytes },
        "damaged_dir": { "files": found.aside.files, "bytes": found.aside.bytes },
        "health": found.health,
        "tiers": tiers,
        "files": files,
    })
}

pub fn verify(dir: &Path, is_quiet: bool) -> Result<(), Failed> {
    let (db, report) = open(dir)?;
    let blocks = db.blocks();
    let total = blocks.iter().map(|block| block.bytes()).sum();
    let mut bar = Progress::new("verify", Unit::Bytes, total, is_quiet);
    let is_held = store::is_held(dir);
    let (mut damaged, mut lost) = health(&report, is_held);
    let (mut bytes, mut samples) = (0, 0);
    for block in blocks.iter() {
        let found = block.verify();
        (bytes, samples) = (bytes + block.bytes(), samples + found.samples);
        bar.at(bytes);
        if found.damaged.is_empty() {
            continue;
        }
        lost += found.lost;
        let file = block.path().display();
        let cost = if found.lost == 0 {
            "no sample is lost".to_owned()
        } else {
            format!(
                "{} of {} lost",
                human::of(found.lost, "sample", "samples"),
                human::count(block.meta().samples)
            )
        };
        let meta = block.meta();
        damaged.push(format!(
            "{file}: {cost}, between {} and {}",
            human::time(meta.min_t),
            human::time(meta.max_t)
        ));
        damaged.extend(found.damaged.iter().map(|line| format!("  {}", reason_of(block.path(), line))));
    }
    bar.end();
    let unreadable = db.health().counters.blocks_damaged.load(Ordering::Relaxed);
    let summary = format!(
        "{} and {} read: {} in files, {} in the log{}",
        human::of(blocks.len() as u64 + unreadable, "file", "files"),
        human::of(report.log.records, "record of the log", "records of the log"),
        human::of(samples, "sample", "samples"),
        human::count(report.replayed_samples),
        if is_held { "; a process is writing the store" } else { "" }
    );
    let mut out = io::stdout().lock();
    // Nobody reads: then the exit code tells.
    let _ = damaged.iter().try_for_each(|line| writeln!(out, "{line}"));
    if !is_quiet {
        let _ = writeln!(out, "{summary}");
    }
    if damaged.is_empty() {
        if !is_quiet {
            let _ = writeln!(out, "nothing is damaged");
        }
        return Ok(());
    }
    let unknown = if unreadable > 0 { ", and what is in files that cannot be opened" } else { "" };
    let text =
        format!("{} is damaged: {} lost{unknown}", dir.display(), human::of(lost, "sample", "samples"));
    Err((sysexits::DATA_ERROR, text))
}
