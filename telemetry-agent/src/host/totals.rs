//! The kernel's own totals, kept apart from ours: what the sum over owners is audited against.

use std::collections::HashMap;

/// The kernel's totals at one time, since boot.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Totals {
    /// CPU time that was not idle, in seconds.
    pub cpu_busy: Option<f64>,
    /// Bytes read, written and discarded, by device.
    pub block_bytes: HashMap<String, u64>,
}

/// `/proc/diskstats` counts sectors of this size, whatever the device's.
const SECTOR_BYTES: u64 = 512;

/// Reads both files; what cannot be read is left out.
#[must_use]
pub fn read() -> Totals {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let diskstats = std::fs::read_to_string("/proc/diskstats").unwrap_or_default();
    Totals { cpu_busy: cpu_busy(&stat, ticks_per_second()), block_bytes: block_bytes(&diskstats) }
}

fn ticks_per_second() -> f64 {
    // USER_HZ is 100 on every architecture that has the BPF features needed here; it is part of the kernel's ABI.
    100.0
}

/// User, nice and system time of the line `cpu`, and time in softirq where the kernel does not keep it apart: there it
/// is part of what the interrupted task is said to have run. A kernel that does keep it apart counts hard interrupts
/// too, so that their column tells.
fn cpu_busy(stat: &str, ticks_per_second: f64) -> Option<f64> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let mut fields = line.split_ascii_whitespace().map_while(|field| field.parse::<u64>().ok());
    let tasks: u64 = fields.by_ref().take(3).sum();
    let (irq, softirq) = (fields.nth(2).unwrap_or_default(), fields.next().unwrap_or_default());
    let ticks = if irq == 0 { tasks + softirq } else { tasks };
    Some(telemetry_model::float(ticks) / ticks_per_second)
}

/// Sectors read, written and discarded, as bytes, of every whole disk.
fn block_bytes(diskstats: &str) -> HashMap<String, u64> {
    let disk = |line: &str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let sectors = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok());
        let name = (*fields.get(2)?).to_owned();
        let sum = sectors(5)?.saturating_add(sectors(9)?).saturating_add(sectors(16).unwrap_or_default());
        Some((name, sum.saturating_mul(SECTOR_BYTES)))
    };
    diskstats.lines().filter_map(disk).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_time_is_that_of_tasks_and_of_softirq_unless_kept_apart() {
        let stat = |irq| format!("cpu  100 20 30 4000 5 {irq} 50 8 9 10\ncpu0 1 2 3 4\n");
        assert_eq!(cpu_busy(&stat(6), 100.0), Some(1.5));
        assert_eq!(cpu_busy(&stat(0), 100.0), Some(2.0));
        assert_eq!(cpu_busy("intr 5\n", 100.0), None);
    }

    #[test]
    fn sectors_read_written_and_discarded_are_bytes() {
        let diskstats =
            " 254 0 vda 10 0 2 0 20 0 3 0 0 0 0 5 0 4 0 0 0\n   7 0 loop0 1 0 8 0 0 0 0 0 0 0 0\n cut 1\n";
        let bytes = block_bytes(diskstats);
        assert_eq!(bytes.get("vda"), Some(&((2 + 3 + 4) * 512)));
        assert_eq!(bytes.get("loop0"), Some(&(8 * 512)), "kernels before 4.18 have no discards");
        assert_eq!(bytes.len(), 2);
    }
}
