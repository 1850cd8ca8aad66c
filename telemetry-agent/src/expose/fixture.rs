//! A page of a known size, for benchmarks and tests: what a node with so many containers shows.

use std::sync::Arc;

use telemetry_model::clock::Timestamp;
use telemetry_model::{
    Desc, Family, Histogram, Kind, Label, Labels, Layout, Scope, Series, Snapshot, Unit, Value,
};

/// Counters an owner has in the fixture.
const COUNTERS: [(&Desc, &str, &[&str]); 3] = [
    (&CPU_SECONDS, "mode", &["system", "user"]),
    (&SWITCHES, "kind", &["involuntary", "voluntary"]),
    (&NETWORK_BYTES, "direction", &["receive", "transmit"]),
];

/// Lines an owner has: two for each of three counters, and the 20 of one histogram.
pub const LINES_PER_OWNER: usize = 26;

static LAYOUT: Layout = Layout { schema: 2, low_octave: -22, high_octave: 10 };

static CPU_SECONDS: Desc = counter("kernel_cpu_seconds_total", Unit::Seconds, "CPU time used by the owner.");
static SWITCHES: Desc =
    counter("kernel_context_switches_total", Unit::None, "Context switches away from its tasks.");
static NETWORK_BYTES: Desc = counter("kernel_network_bytes_total", Unit::Bytes, "Bytes per owner.");
static RUNQUEUE_LATENCY: Desc = Desc {
    kind: Kind::Histogram,
    ..counter(
        "kernel_sched_runqueue_latency_seconds",
        Unit::Seconds,
        "Time a task waited between becoming runnable and running.",
    )
};

/// A page with `lines_min` lines or a few more.
#[must_use]
pub fn snapshot(lines_min: usize) -> Snapshot {
    let owners: Vec<Labels> = (0..lines_min.div_ceil(LINES_PER_OWNER)).map(owner).collect();
    let created = Some(Timestamp(1_700_000_000_123));
    let mut families = Vec::new();
    for (family_at, (desc, label, values)) in COUNTERS.into_iter().enumerate() {
        let mut series = Vec::new();
        for (owner_at, owner) in owners.iter().enumerate() {
            for value in values {
                let labels = owner.and(&Labels::new(vec![Label::new(label, *value)]));
                let raw = raw_value(owner_at * 7 + family_at);
                series.push(Series { labels, value: Value::Number(desc.value_of(raw)), created, late: None });
            }
        }
        families.push(Family { desc, series });
    }
    let histograms = owners.iter().enumerate().map(|(owner_at, owner)| {
        let mut histogram = Histogram::new(&LAYOUT);
        histogram.add((0..LAYOUT.bins()).map(|bin| raw_value(owner_at + bin) >> 20), 12.345_678_901);
        Series { labels: owner.clone(), value: Value::Histogram(Arc::new(histogram)), created, late: None }
    });
    families.push(Family { desc: &RUNQUEUE_LATENCY, series: histograms.collect() });
    Snapshot::new(Timestamp(1_700_000_060_123), families)
}

/// A container as it is known before its names are.
fn owner(at: usize) -> Labels {
    let id = raw_value(at);
    Labels::new(vec![
        Label::new("namespace", "shop"),
        Label::new("pod", format!("web-{id:09x}-{at:05}")),
        Label::new("container", "php"),
        Label::new("unit", ""),
        Label::new("container_id", format!("{id:032x}{:032x}", id.rotate_left(17))),
        Label::new("pod_uid", format!("{:08x}-0000-4000-8000-{at:012x}", id >> 32)),
    ])
}

/// Numbers that look like measurements: scattered over ten decades, the same on every run.
fn raw_value(seed: usize) -> u64 {
    let mixed = (seed as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed >> (16 + mixed % 24)
}

const fn counter(name: &'static str, unit: Unit, help: &'static str) -> Desc {
    Desc {
        name,
        kind: Kind::Counter,
        unit,
        help,
        scope: Scope::Owner,
        labels: &[],
        bound: "as many owners as asked for",
        source: "none",
    }
}
