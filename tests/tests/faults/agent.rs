//! The real agent: killed under way, and on a full disk.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use telemetry_tests::agent::{self, Agent, Outcome, Settings};
use telemetry_tests::host::{eventually, kernel_test};
use telemetry_tests::http;
use telemetry_tests::loopdev::Mount;
use telemetry_tests::page::Page;

use crate::disk::fill;

const DURABLE: &str = "telemetry_agent_durable_through_timestamp_seconds";
const MODE: &str = "telemetry_agent_store_mode";
/// A family that every tick has.
const EVERY_TICK: &str = "telemetry_agent_store_series";
const KILLS: u32 = 6;
/// From room to recovery: what a full disk may take, and a tick.
const RECOVERY_LIMIT: Duration = Duration::from_secs(31);

fn start(data: &Path) -> Result<Agent> {
    Settings::new().start_with(|command| {
        command.arg("--data-dir").arg(data);
    })
}

fn tsdb(data: &Path, arguments: &[&str]) -> Result<Outcome> {
    let outcome = agent::run(&["tsdb"], |command| {
        command.arg("--data-dir").arg(data).args(arguments);
    })?;
    ensure!(outcome.status.success(), "tsdb {arguments:?}: {}: {}", outcome.status, outcome.stderr);
    Ok(outcome)
}

/// The promise on the page, in milliseconds.
fn promise(page: &Page) -> i64 {
    (page.sum(DURABLE, &[]) * 1000.0).round() as i64
}

/// Times, in milliseconds, at which the store has a sample of every tick's family.
fn times(data: &Path) -> Result<Vec<i64>> {
    let text = tsdb(data, &["dump", "--match", &format!("__name__={EVERY_TICK}")])?.stdout;
    let lines = text.lines().filter(|line| line.starts_with(EVERY_TICK));
    lines
        .map(|line| {
            let seconds = line.split(' ').next_back().context("a line without a time")?;
            Ok((seconds.parse::<f64>().with_context(|| line.to_owned())? * 1000.0).round() as i64)
        })
        .collect()
}

#[test]
fn what_the_page_called_durable_outlives_kill_9_of_the_agent() {
    kernel_test(|| {
        let root = tempfile::tempdir()?;
        let data = root.path().join("data");
        let mut promised = Vec::new();
        for round in 0..KILLS {
            let agent = start(&data)?;
            let first =
                promise(&agent.page_when("a promise", Duration::from_secs(10), |page| promise(page) > 0)?);
            let mut seen = vec![first];
            eventually("promises move on", Duration::from_secs(10), || {
                let now = promise(&agent.scrape()?);
                if seen.last() != Some(&now) {
                    seen.push(now);
                }
                Ok(seen.len() > 3 + round as usize)
            })?;
            agent.kill()?;
            promised.extend(seen);
            tsdb(&data, &["verify"])?;
            let there = times(&data)?;
            for t in &promised {
                ensure!(there.contains(t), "round {round}: no sample at {t}, which was durable: {there:?}");
            }
        }
        Ok(())
    });
}

#[test]
fn a_full_disk_leaves_the_page_alive_and_is_taken_up_again() {
    kernel_test(|| {
        let mount = Mount::tmpfs(16 << 10)?;
        let (data, filler) = (mount.path().join("data"), mount.path().join("filler"));
        let agent = start(&data)?;
        let is = |page: &Page, mode: &str| page.sum(MODE, &[("mode", mode)]) > 0.5;
        let before =
            promise(&agent.page_when("a promise", Duration::from_secs(10), |page| promise(page) > 0)?);
        fill(&filler, 0)?;
        agent.page_when("degraded", Duration::from_secs(10), |page| is(page, "degraded"))?;
        // The page goes on, with figures that are fresh.
        for _ in 0..5 {
            let page = agent.fresh()?;
            ensure!(page.has("telemetry_agent_drain_duration_seconds_count", &[]), "a page without figures");
            ensure!(is(&page, "degraded"), "recovered on a full disk");
        }
        let full = promise(&agent.scrape()?);
        fs::remove_file(&filler)?;
        let page = agent
            .page_when("durable again", RECOVERY_LIMIT, |page| is(page, "durable"))
            .with_context(|| agent.log())?;
        ensure!(promise(&page) > full && full >= before, "{before}, {full}, {}", promise(&page));
        // What happened meanwhile is told, now that there is room to write it.
        eventually("both events are told", RECOVERY_LIMIT, || {
            let path = "/v1/events?kind=store_degraded,store_recovered";
            let told = String::from_utf8(http::get(agent.address(), path, &[])?.body)?;
            Ok(told.contains("\"store_degraded\"") && told.contains("\"store_recovered\""))
        })
        .with_context(|| agent.log())?;
        agent.kill()?;
        tsdb(&data, &["verify"])?;
        let there = times(&data)?;
        ensure!(there.contains(&promise(&page)), "no sample at {}", promise(&page));
        // What came while the disk was full is there as well: it was in memory.
        ensure!(there.iter().any(|t| *t > full && *t < promise(&page)), "nothing of the time without a disk");
        Ok(())
    });
}
