//! What the agent takes: a sweep over its maps, a page, its memory, its idle time.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use telemetry_tests::agent::{Agent, Settings};
use telemetry_tests::host;
use telemetry_tests::proc;
use telemetry_tests::workload::Crowd;

use telemetry_tests::figure;

const SWEEP_SUM: &str = "telemetry_agent_drain_duration_seconds_sum";
const SWEEP_COUNT: &str = "telemetry_agent_drain_duration_seconds_count";
const SWEEPS: usize = 10;
const PAGES: u32 = 50;
/// The page that the bar is for.
const PAGE_SERIES: f64 = 2000.0;
const IDLE_WINDOW: Duration = Duration::from_secs(20);

/// Sweeps over all families at two sizes: one in which every owner's cells moved, one in which none did.
pub fn drain() -> Result<()> {
    for (owners, bar) in [(512_usize, None), (4096, Some(1000.0))] {
        let agent = Settings::new()
            .tick(Duration::from_secs(1))
            .kernel(&format!("owners_max = {}", owners + 128))
            .start()?;
        // Everybody wakes in every tick; the period leaves the CPUs time for it.
        let crowd = Crowd::new(owners, Duration::from_millis(900))?;
        sweeps(&agent, &format!("drain_{owners}_owners_moved"), bar)?;
        crowd.freeze();
        sweeps(&agent, &format!("drain_{owners}_owners_still"), bar)?;
    }
    Ok(())
}

fn sweeps(agent: &Agent, name: &str, bar: figure::Bar) -> Result<()> {
    // Sweeps that began before are not of this kind yet.
    agent.fresh()?;
    let mut samples = Vec::new();
    for _ in 0..SWEEPS {
        samples.push(one_sweep(agent)? * 1e6);
    }
    let owners = agent.scrape()?.matching("kernel_sched_runqueue_latency_seconds_count", &[]).count();
    let peer = format!("{owners} owners on the page; the agent's own histogram, by the clock");
    figure::print("kernel", name, figure::median(&samples)?, "us", bar, &peer, samples.len())
}

/// Mean seconds of the sweeps that end while this waits for one: those of all groups of maps, summed.
fn one_sweep(agent: &Agent) -> Result<f64> {
    let before = agent.scrape()?;
    let groups = before.matching(SWEEP_COUNT, &[]).count().max(1) as f64;
    let after = agent.page_when("another sweep", Duration::from_secs(10), |page| {
        page.growth(&before, SWEEP_COUNT, &[]) >= groups
    })?;
    Ok(after.growth(&before, SWEEP_SUM, &[]) / (after.growth(&before, SWEEP_COUNT, &[]) / groups))
}

/// CPU time of a scrape, request and all, as a page of 2,000 series would cost.
pub fn page() -> Result<()> {
    let agent = Settings::new().tick(Duration::from_millis(100)).start()?;
    let crowd = Crowd::new(60, Duration::from_millis(50))?;
    agent.page_when("a page of 2,000 series", Duration::from_secs(30), |page| {
        page.series().len() as f64 >= PAGE_SERIES
    })?;
    let (quiet, quiet_s) = cpu_over(&agent, || {
        std::thread::sleep(Duration::from_millis(100) * PAGES);
        Ok(())
    })?;
    let mut series = 0.0;
    let (busy, busy_s) = cpu_over(&agent, || {
        for _ in 0..PAGES {
            series += agent.scrape()?.series().len() as f64;
            std::thread::sleep(Duration::from_millis(80));
        }
        Ok(())
    })?;
    drop(crowd);
    let scrape_ms = (busy - quiet / quiet_s * busy_s) * 1000.0 / series * PAGE_SERIES;
    let peer = format!("pages of {:.0} series, one a tick", series / f64::from(PAGES));
    figure::print("kernel", "page_2000_series_cpu", scrape_ms, "ms", Some(2.0), &peer, PAGES.try_into()?)
}

/// CPU seconds of the agent while something is done, and the seconds that took.
fn cpu_over(agent: &Agent, act: impl FnOnce() -> Result<()>) -> Result<(f64, f64)> {
    let (start, before) = (Instant::now(), proc::schedstat(agent.pid())?.run_s);
    act()?;
    Ok((proc::schedstat(agent.pid())?.run_s - before, start.elapsed().as_secs_f64()))
}

/// Memory and CPU time of an agent that nobody asks anything.
pub fn at_rest() -> Result<()> {
    let agent = Settings::new().tick(Duration::from_secs(5)).start()?;
    let maps = agent.scrape()?.sum("telemetry_agent_bpf_map_bytes", &[]);
    let status = proc::read(format!("/proc/{}/status", agent.pid()))?;
    let resident = proc::field(&status, "VmRSS:").context("no VmRSS")?;
    figure::print("kernel", "resident_after_start", resident / 1024.0, "MiB", Some(16.0), "", 1)?;
    let peer = format!("{} CPUs", host::cpus());
    figure::print("kernel", "map_bytes", maps / 1048576.0, "MiB", Some(12.0), &peer, 1)?;
    let (used, seconds) = cpu_over(&agent, || {
        std::thread::sleep(IDLE_WINDOW);
        Ok(())
    })?;
    let part = used / seconds * 100.0;
    figure::print("kernel", "idle_cpu", part, "% of a core", Some(0.3), "a tick of 5 s", 1)
}
