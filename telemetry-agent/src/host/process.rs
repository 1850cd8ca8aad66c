//! The agent's own process, under the names that every Prometheus client library gives them.

use telemetry_model::{Desc, Family, Kind, Labels, Scope, Series, Unit, float};

/// Everything this module can say.
pub static METRICS: &[&Desc] =
    &[&CPU, &RESIDENT, &VIRTUAL, &VIRTUAL_MAX, &OPEN_FDS, &MAX_FDS, &START, &THREADS];

const fn desc(name: &'static str, kind: Kind, unit: Unit, help: &'static str) -> Desc {
    Desc { name, kind, unit, help, scope: Scope::Agent, labels: &[], bound: "1", source: "/proc/self" }
}

static CPU: Desc = desc(
    "process_cpu_seconds_total",
    Kind::Counter,
    Unit::Seconds,
    "Total user and system CPU time spent in seconds.",
);
static RESIDENT: Desc =
    desc("process_resident_memory_bytes", Kind::Gauge, Unit::Bytes, "Resident memory size in bytes.");
static VIRTUAL: Desc =
    desc("process_virtual_memory_bytes", Kind::Gauge, Unit::Bytes, "Virtual memory size in bytes.");
static VIRTUAL_MAX: Desc = desc(
    "process_virtual_memory_max_bytes",
    Kind::Gauge,
    Unit::Bytes,
    "Maximum amount of virtual memory available in bytes.",
);
static OPEN_FDS: Desc = desc("process_open_fds", Kind::Gauge, Unit::None, "Number of open file descriptors.");
static MAX_FDS: Desc =
    desc("process_max_fds", Kind::Gauge, Unit::None, "Maximum number of open file descriptors.");
static START: Desc = desc(
    "process_start_time_seconds",
    Kind::Gauge,
    Unit::Seconds,
    "Start time of the process since unix epoch in seconds.",
);
static THREADS: Desc =
    desc("process_threads", Kind::Gauge, Unit::None, "Number of OS threads in the process.");

/// `USER_HZ`, part of the kernel's ABI.
const TICKS_PER_SECOND: f64 = 100.0;
/// Positions in `/proc/self/stat` behind the closing parenthesis of the name.
const UTIME: usize = 11;
const STIME: usize = 12;
const NUM_THREADS: usize = 17;
const STARTTIME: usize = 19;
const VSIZE: usize = 20;

/// The process now; a family whose file cannot be read is left out.
#[must_use]
pub fn families() -> Vec<Family> {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let stat = read("/proc/self/stat");
    let limits = read("/proc/self/limits");
    let status = read("/proc/self/status");
    let field = |at| stat_field(&stat, at);
    let started = boot_time(&read("/proc/stat")).zip(field(STARTTIME));
    let values = [
        (&CPU, field(UTIME).zip(field(STIME)).map(|(user, system)| float(user + system) / TICKS_PER_SECOND)),
        (&RESIDENT, kibibytes(&status, "VmRSS:").map(float)),
        (&VIRTUAL, field(VSIZE).map(float)),
        (&VIRTUAL_MAX, limit(&limits, "Max address space")),
        (&OPEN_FDS, open_fds()),
        (&MAX_FDS, limit(&limits, "Max open files")),
        (&START, started.map(|(boot, ticks)| float(boot) + float(ticks) / TICKS_PER_SECOND)),
        (&THREADS, field(NUM_THREADS).map(float)),
    ];
    let family = |(desc, value): (&'static Desc, Option<f64>)| {
        Some(Family { desc, series: vec![Series::number(Labels::none(), value?)] })
    };
    values.into_iter().filter_map(family).collect()
}

fn open_fds() -> Option<f64> {
    let count = std::fs::read_dir("/proc/self/fd").ok()?.count();
    // The listing itself holds one.
    u64::try_from(count.saturating_sub(1)).ok().map(float)
}

fn stat_field(stat: &str, at: usize) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(at)?.parse().ok()
}

fn kibibytes(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse::<u64>().ok().map(|kibibytes| kibibytes * 1024)
}

/// A soft limit; without one, the largest number that there is.
fn limit(limits: &str, name: &str) -> Option<f64> {
    let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
    match line.split_ascii_whitespace().next()? {
        "unlimited" => Some(float(u64::MAX)),
        soft => soft.parse().ok().map(float),
    }
}

fn boot_time(stat: &str) -> Option<u64> {
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let stat = "42 (a) b) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 7 0 900 4096 3";
        assert_eq!(stat_field(stat, UTIME), Some(150));
        assert_eq!(stat_field(stat, STIME), Some(50));
        assert_eq!(stat_field(stat, NUM_THREADS), Some(7));
        assert_eq!(stat_field(stat, VSIZE), Some(4096));
    }

    #[test]
    fn limits_are_numbers_or_unlimited() {
        let limits = "Max open files            1024                 4096                 files\nMax address space         unlimited            unlimited            bytes\n";
        assert_eq!(limit(limits, "Max open files"), Some(1024.0));
        assert_eq!(limit(limits, "Max address space"), Some(u64::MAX as f64));
        assert_eq!(limit(limits, "Max nothing"), None);
    }

    #[test]
    fn the_running_process_has_every_family() {
        assert_eq!(families().len(), METRICS.len());
    }
}
