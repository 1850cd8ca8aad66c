//! The store's own figures.

use std::sync::LazyLock;

use telemetry_model::{Desc, Family, Kind, Labels, Scope, Series, Unit};
use telemetry_tsdb::db::{Db, Mode};

use super::recorder::Queue;

macro_rules! descs {
    ($($name:ident, $metric:literal, $kind:ident, $unit:ident, $labels:expr, $bound:literal, $help:literal;)*) => {
        $(static $name: Desc = Desc {
            name: $metric,
            kind: Kind::$kind,
            unit: Unit::$unit,
            help: $help,
            scope: Scope::Agent,
            labels: $labels,
            bound: $bound,
            source: "the store",
        };)*
        /// Everything the store says of itself.
        pub static METRICS: &[&Desc] = &[$(&$name,)*];
    };
}

descs! {
    APPENDED, "telemetry_agent_store_samples_appended_total", Counter, None, &[], "1",
        "Samples taken into the store.";
    REFUSED, "telemetry_agent_store_samples_refused_total", Counter, None, &["reason"], "4",
        "Samples not taken: another value is there, too old, too far ahead, or too many late ones of one series.";
    LATE, "telemetry_agent_store_samples_out_of_order_total", Counter, None, &[], "1",
        "Samples taken after their row was packed; part of those appended.";
    LOST, "telemetry_agent_store_samples_lost_total", Counter, None, &[], "1",
        "Samples that damage to the log took, found at the start.";
    LOST_OWNERS, "telemetry_agent_store_owners_lost_total", Counter, None, &[], "1",
        "Owners whose names damage to the log took, found at the start; their samples are read with their number as lost_owner.";
    OVERFLOWED, "telemetry_agent_store_series_overflowed_total", Counter, None, &[], "1",
        "Times a new series was beyond a limit and the overflow series of its family was given instead.";
    MISSED, "telemetry_agent_store_ticks_missed_total", Counter, None, &[], "1",
        "Ticks not recorded because the disk was too slow for too long; scrapes had them.";
    FAILURES, "telemetry_agent_store_failures_total", Counter, None, &["operation"], "4",
        "Operations that failed: a sync of the log, a write of a window, a join of files, a read of a page.";
    FILES, "telemetry_agent_store_file_operations_total", Counter, None, &["operation"], "5",
        "Files written from windows, joined, downsampled, expired, and moved aside because of damage.";
    SERIES, "telemetry_agent_store_series", Gauge, None, &[], "1",
        "Series in memory.";
    MEMORY, "telemetry_agent_store_memory_bytes", Gauge, Bytes, &["part"], "2",
        "Memory of the samples not yet in files and of the index of their series.";
    DISK, "telemetry_agent_store_disk_bytes", Gauge, Bytes, &["part"], "2",
        "Bytes of the log and of all files.";
    DURABLE, "telemetry_agent_durable_through_timestamp_seconds", Gauge, Seconds, &[], "1",
        "Time of the newest sample that survives a loss of power.";
    MODE, "telemetry_agent_store_mode", Gauge, None, &["mode"], "4",
        "1 for what the store is: durable, memory_only by choice, degraded while the disk refuses, or read_only.";
}

/// Which counter is which series.
static COUNTERS: LazyLock<Vec<(&'static Desc, &'static str, &'static str)>> = LazyLock::new(|| {
    vec![
        (&APPENDED, "", "samples_appended"),
        (&REFUSED, "duplicate", "samples_duplicate"),
        (&REFUSED, "too_old", "samples_too_old"),
        (&REFUSED, "too_new", "samples_too_new"),
        (&REFUSED, "late_full", "samples_late_full"),
        (&LATE, "", "samples_out_of_order"),
        (&LOST, "", "samples_lost"),
        (&LOST_OWNERS, "", "owners_lost"),
        (&OVERFLOWED, "", "series_overflowed"),
        (&FAILURES, "log_sync", "log_failures"),
        (&FAILURES, "window_write", "window_failures"),
        (&FAILURES, "join", "compaction_failures"),
        (&FAILURES, "read", "read_failures"),
        (&FILES, "written", "windows_written"),
        (&FILES, "joined", "blocks_compacted"),
        (&FILES, "downsampled", "tiers_written"),
        (&FILES, "expired", "blocks_expired"),
        (&FILES, "damaged", "blocks_damaged"),
    ]
});

/// The store's figures now.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 and sizes stay below 2^53")]
pub fn families(db: &Db, queue: &Queue) -> Vec<Family> {
    let counted = db.health().counters.all();
    let mut families: Vec<Family> = Vec::new();
    for (desc, label, counter) in COUNTERS.iter() {
        let value = counted.iter().find(|(name, _)| name == counter).map_or(0, |(_, value)| *value);
        let labels = match desc.labels {
            [name] => Labels::fixed(&[(name, label)]),
            _ => Labels::none(),
        };
        push(&mut families, desc, labels, telemetry_model::float(value));
    }
    let stats = db.stats();
    push(&mut families, &MISSED, Labels::none(), telemetry_model::float(queue.missed()));
    push(&mut families, &SERIES, Labels::none(), stats.series as f64);
    push(&mut families, &MEMORY, Labels::fixed(&[("part", "samples")]), stats.head_bytes as f64);
    push(&mut families, &MEMORY, Labels::fixed(&[("part", "index")]), stats.index_bytes as f64);
    push(&mut families, &DISK, Labels::fixed(&[("part", "log")]), stats.log_bytes as f64);
    push(&mut families, &DISK, Labels::fixed(&[("part", "files")]), stats.block_bytes as f64);
    let durable = db.durable_through().max(0) as f64 / 1e3;
    push(&mut families, &DURABLE, Labels::none(), durable);
    let mode = db.health().mode();
    for (name, of) in [
        ("durable", Mode::Durable),
        ("memory_only", Mode::MemoryOnly),
        ("degraded", Mode::Degraded),
        ("read_only", Mode::ReadOnly),
    ] {
        push(&mut families, &MODE, Labels::fixed(&[("mode", name)]), f64::from(u8::from(mode == of)));
    }
    families
}

fn push(families: &mut Vec<Family>, desc: &'static Desc, labels: Labels, value: f64) {
    let series = Series::number(labels, value);
    match families.iter_mut().find(|family| family.desc.name == desc.name) {
        Some(family) => family.series.push(series),
        None => families.push(Family { desc, series: vec![series] }),
    }
}
