//! The audit: our sum over owners beside the kernel's own total, since the agent's start.
//!
//! The books balance or the metric says so. CPU is compared with the busy time of /proc/stat, which the kernel samples
//! by the tick; block with the sectors of /proc/diskstats, of whole disks that both sides saw. The kernel's side is
//! read right before ours, so that what happens between the two is little.

use std::collections::HashMap;

use telemetry_model::{Desc, Family, Kind, Labels, Scope, Series, Unit, float};

use super::series::Totals;
use crate::host::totals::{self, Totals as Kernel};

/// The ratio of the two.
pub(super) static RATIO: Desc = Desc {
    name: "telemetry_agent_audit_ratio",
    kind: Kind::Gauge,
    unit: Unit::Ratio,
    help: "Sum over owners divided by the kernel's own total, since the agent started; absent until the total is large enough to divide by.",
    scope: Scope::Agent,
    labels: &["ledger"],
    bound: "2 ledgers",
    source: "/proc/stat, /proc/diskstats",
};

/// Less than this is noise of the kernel's sampling.
const CPU_SECONDS_MIN: f64 = 10.0;
/// Less than this may be in flight.
const BLOCK_BYTES_MIN: f64 = 64e6;

/// Where both ledgers stood at the start.
pub(super) struct Audit {
    start: Kernel,
    now: Kernel,
}

// === impl Audit ===

impl Audit {
    /// Takes the kernel's totals as the beginning. Call it when the programs have just been attached.
    pub(super) fn new() -> Self {
        let start = totals::read();
        Self { now: start.clone(), start }
    }

    /// Reads the kernel's side. Call it right before the cells are read.
    pub(super) fn read(&mut self) {
        self.now = totals::read();
    }

    pub(super) fn family(&self, ours: &Totals) -> Family {
        let now = &self.now;
        let cpu = now.cpu_busy.zip(self.start.cpu_busy).map(|(now, start)| now - start);
        let seconds = telemetry_model::seconds(ours.grand("kernel_cpu_seconds_total"));
        let block = grown(&self.start.block_bytes, &now.block_bytes);
        let bytes = float(ours.grand("kernel_block_io_bytes_total"));
        let ledgers = [
            ("cpu", seconds, cpu.filter(|&cpu| cpu >= CPU_SECONDS_MIN)),
            ("block", bytes, Some(block).filter(|&block| block >= BLOCK_BYTES_MIN)),
        ];
        let series = ledgers.into_iter().filter_map(|(ledger, ours, kernel)| {
            Some(Series::number(Labels::fixed(&[("ledger", ledger)]), ours / kernel?))
        });
        Family { desc: &RATIO, series: series.collect() }
    }
}

/// Bytes of the disks, without their partitions: a partition's sectors are its disk's too.
fn grown(start: &HashMap<String, u64>, now: &HashMap<String, u64>) -> f64 {
    let disks = now.iter().filter(|(name, _)| !is_partition(name));
    float(disks.map(|(name, bytes)| bytes.saturating_sub(start.get(name).copied().unwrap_or_default())).sum())
}

fn is_partition(name: &str) -> bool {
    std::path::Path::new("/sys/class/block").join(name).join("partition").exists()
}
