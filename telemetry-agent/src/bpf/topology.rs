//! Where each CPU sits: its NUMA node and the cache it shares last, so that a migration knows what it crossed.

use std::fs;
use std::path::Path;

use telemetry_ebpf::sched::place;

const CPUS: &str = "/sys/devices/system/cpu";

/// The place of every possible CPU; what cannot be read counts as one node and one cache.
#[must_use]
pub fn places(cpus: u32) -> Vec<u32> {
    (0..cpus).map(|cpu| place(node(cpu), last_cache(cpu))).collect()
}

fn node(cpu: u32) -> u32 {
    let entries = fs::read_dir(format!("{CPUS}/cpu{cpu}")).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.strip_prefix("node")?.parse().ok())
        .next()
        .unwrap_or_default()
}

/// The lowest CPU that shares this one's highest cache level stands for the cache.
fn last_cache(cpu: u32) -> u32 {
    let directory = format!("{CPUS}/cpu{cpu}/cache");
    let caches = fs::read_dir(directory).into_iter().flatten().flatten();
    let highest = caches.filter_map(|cache| {
        let level: u32 = number(&cache.path().join("level"))?;
        Some((level, number(&cache.path().join("shared_cpu_list"))?))
    });
    highest.max_by_key(|&(level, _)| level).map_or(0, |(_, first)| first)
}

/// The number that a file begins with.
fn number(path: &Path) -> Option<u32> {
    let text = fs::read_to_string(path).ok()?;
    text.split(|character: char| !character.is_ascii_digit()).next()?.parse().ok()
}
