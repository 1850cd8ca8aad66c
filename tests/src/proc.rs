//! The kernel's own figures, read where anybody can read them: what the page is held to.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

/// What the scheduler says of one process: the sum over its threads.
#[derive(Clone, Copy, Debug, Default)]
pub struct Schedstat {
    /// Seconds on a CPU.
    pub run_s: f64,
    /// Seconds waiting on a run queue.
    pub wait_s: f64,
    /// Times put on a CPU.
    pub slices: f64,
}

/// Context switches of one process, summed over its threads.
#[derive(Clone, Copy, Debug, Default)]
pub struct Switches {
    /// It slept.
    pub voluntary: f64,
    /// It was made to go.
    pub involuntary: f64,
}

/// The node's CPU seconds by the first line of `/proc/stat`.
#[derive(Clone, Copy, Debug, Default)]
pub struct CpuTotals {
    /// user + nice + system: what ran as a task.
    pub tasks_s: f64,
    /// irq + softirq: inside tasks or beside them, by how the kernel was built.
    pub interrupts_s: f64,
}

/// What the kernel counted for one block device.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Diskstats {
    /// Reads completed.
    pub reads: f64,
    /// Bytes read.
    pub read_bytes: f64,
    /// Writes completed.
    pub writes: f64,
    /// Bytes written.
    pub written_bytes: f64,
}

/// Ids of the threads of a process.
///
/// # Errors
/// If it is gone.
pub fn threads(pid: u32) -> Result<Vec<u32>> {
    let dir = format!("/proc/{pid}/task");
    let mut threads = Vec::new();
    for entry in fs::read_dir(&dir).with_context(|| dir.clone())? {
        threads.push(entry?.file_name().to_string_lossy().parse()?);
    }
    Ok(threads)
}

/// Run and wait times of a process.
///
/// # Errors
/// If it is gone, or the kernel was built without SCHED_INFO.
pub fn schedstat(pid: u32) -> Result<Schedstat> {
    let mut sum = Schedstat::default();
    for thread in threads(pid)? {
        let numbers = numbers(&read(format!("/proc/{pid}/task/{thread}/schedstat"))?);
        let [run_ns, wait_ns, slices] = numbers.as_slice() else {
            return Err(crate::host::kernel_lacks("schedstat"));
        };
        sum.run_s += run_ns / 1e9;
        sum.wait_s += wait_ns / 1e9;
        sum.slices += slices;
    }
    Ok(sum)
}

/// CPU seconds of a process so far, threads that have ended among them, to a hundredth.
///
/// # Errors
/// If it is gone.
pub fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = read(format!("/proc/{pid}/stat"))?;
    // The name may hold anything but ends with the last parenthesis; user and system time are the 14th and 15th field.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<f64>);
    let ticks: f64 = ticks.sum::<Result<f64, _>>().context("times of a process")?;
    Ok(ticks / 100.0)
}

/// CPU seconds that the kernel keeps of a cgroup of version 2, to the microsecond, by its `cpu.stat`.
///
/// # Errors
/// If it cannot be read.
pub fn usage_seconds(stat: &Path) -> Result<f64> {
    let text = fs::read_to_string(stat).with_context(|| format!("read {}", stat.display()))?;
    let usage = text.lines().find_map(|line| line.strip_prefix("usage_usec ")).context("usage_usec")?;
    Ok(usage.parse::<f64>().context("usage_usec is a number")? / 1e6)
}

/// Context switches of a process.
///
/// # Errors
/// If it is gone.
pub fn switches(pid: u32) -> Result<Switches> {
    let mut sum = Switches::default();
    for thread in threads(pid)? {
        let status = read(format!("/proc/{pid}/task/{thread}/status"))?;
        sum.voluntary += field(&status, "voluntary_ctxt_switches:").context("voluntary switches")?;
        sum.involuntary += field(&status, "nonvoluntary_ctxt_switches:").context("involuntary switches")?;
    }
    Ok(sum)
}

/// How often the threads of a process changed their CPU; `None` on a kernel that does not tell.
///
/// # Errors
/// If the process is gone.
pub fn migrations(pid: u32) -> Result<Option<f64>> {
    let mut sum = None;
    for thread in threads(pid)? {
        let Ok(text) = fs::read_to_string(format!("/proc/{pid}/task/{thread}/sched")) else {
            return Ok(None);
        };
        let line = text.lines().find(|line| line.starts_with("se.nr_migrations"));
        let Some(count) =
            line.and_then(|line| line.rsplit(' ').next()).and_then(|text| text.parse::<f64>().ok())
        else {
            return Ok(None);
        };
        *sum.get_or_insert(0.0) += count;
    }
    Ok(sum)
}

/// The part of a process's CPU time that was spent in user mode.
///
/// # Errors
/// If it is gone.
pub fn user_part(pid: u32) -> Result<f64> {
    let stat = read(format!("/proc/{pid}/stat"))?;
    // The command's name may hold anything; the fields are counted from its closing bracket.
    let (_, fields) = stat.rsplit_once(')').context("stat")?;
    let ticks: Vec<f64> =
        fields.split_whitespace().skip(11).take(2).filter_map(|text| text.parse().ok()).collect();
    let [user, system] = ticks.as_slice() else { anyhow::bail!("stat of {pid}: no times") };
    Ok(user / (user + system).max(1.0))
}

/// Every thread of the process sleeps: its figures stand still.
///
/// # Errors
/// If it is gone.
pub fn sleeps(pid: u32) -> Result<bool> {
    for thread in threads(pid)? {
        let stat = read(format!("/proc/{pid}/task/{thread}/stat"))?;
        let state = stat.rsplit_once(')').and_then(|(_, fields)| fields.trim_start().chars().next());
        if !matches!(state, Some('S' | 'T' | 't')) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The first line of `/proc/stat`.
///
/// # Errors
/// If it cannot be read.
pub fn cpu_totals() -> Result<CpuTotals> {
    let text = read("/proc/stat")?;
    let line = text.lines().next().context("/proc/stat is empty")?;
    let ticks = numbers(line.strip_prefix("cpu ").context("/proc/stat: no totals")?);
    let [user, nice, system, _idle, _iowait, irq, softirq, ..] = ticks.as_slice() else {
        anyhow::bail!("/proc/stat: {line:?}");
    };
    // SAFETY: sysconf takes a number and touches no memory of ours.
    let hertz = f64::from(i32::try_from(unsafe { libc::sysconf(libc::_SC_CLK_TCK) })?);
    Ok(CpuTotals { tasks_s: (user + nice + system) / hertz, interrupts_s: (irq + softirq) / hertz })
}

/// Seconds that tasks had a CPU, by the run queues' own clock: `/proc/schedstat`'s seventh field of every CPU. None
/// where the kernel was built without it.
///
/// # Errors
/// If the file is of another form.
pub fn run_queue_seconds() -> Result<Option<f64>> {
    let Ok(text) = read("/proc/schedstat") else { return Ok(None) };
    let mut nanos = 0.0;
    for line in text.lines().filter(|line| line.starts_with("cpu")) {
        let field = line.split_whitespace().nth(7).and_then(|field| field.parse::<f64>().ok());
        nanos += field.with_context(|| format!("/proc/schedstat: {line:?}"))?;
    }
    Ok(Some(nanos / 1e9))
}

/// Counters of a block device, by its name.
///
/// # Errors
/// If there is no such device.
pub fn diskstats(device: &str) -> Result<Diskstats> {
    let table = read("/proc/diskstats")?;
    let row = table.lines().find(|line| line.split_whitespace().nth(2) == Some(device));
    let row = row.with_context(|| format!("/proc/diskstats: no {device}"))?;
    let fields: Vec<f64> = row.split_whitespace().skip(3).filter_map(|text| text.parse().ok()).collect();
    let [reads, _, read_sectors, _, writes, _, written_sectors, ..] = fields.as_slice() else {
        anyhow::bail!("/proc/diskstats: {row:?}");
    };
    Ok(Diskstats {
        reads: *reads,
        read_bytes: read_sectors * 512.0,
        writes: *writes,
        written_bytes: written_sectors * 512.0,
    })
}

/// Forgets the most memory a process has had; `process` is its id or `self`.
///
/// # Errors
/// If it is another user's.
pub fn reset_peak(process: &str) -> Result<()> {
    let path = format!("/proc/{process}/clear_refs");
    fs::write(&path, "5").context(path)
}

/// The most resident bytes a process has had since [`reset_peak`].
///
/// # Errors
/// If it is gone.
pub fn peak_bytes(process: &str) -> Result<f64> {
    let status = read(format!("/proc/{process}/status"))?;
    Ok(field(&status, "VmHWM:").context("VmHWM")? * 1024.0)
}

/// A field of a `status` file in its own unit, e.g. `VmRSS:` in kB.
#[must_use]
pub fn field(status: &str, name: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// A field of a `status` file as text.
#[must_use]
pub fn text_field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

/// A file's text.
///
/// # Errors
/// If it cannot be read, naming it.
pub fn read(path: impl AsRef<Path>) -> Result<String> {
    fs::read_to_string(&path).with_context(|| path.as_ref().display().to_string())
}

fn numbers(text: &str) -> Vec<f64> {
    text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

/// Bytes that this process has allocated and not freed, over all of the allocator's arenas.
#[must_use]
pub fn heap_bytes() -> usize {
    // SAFETY: takes nothing and only reads the allocator's own counts, under its locks.
    let counts = unsafe { libc::mallinfo2() };
    counts.uordblks + counts.hblkhd
}
