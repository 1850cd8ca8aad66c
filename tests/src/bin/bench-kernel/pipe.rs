//! `perf bench sched pipe`, the densest stream of context switches at hand, and what it pays for each.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use telemetry_agent::bpf::bench::Empty;
use telemetry_tests::agent::Settings;
use telemetry_tests::cgroup::Hierarchies;

use telemetry_tests::figure;

const ROUNDS: usize = 9;
const LOOPS: &str = "60000";
/// A round trip through the pipe and back.
const SWITCHES_AN_OPERATION: f64 = 2.0;
/// An empty program that seems cheaper than this was not resolved: the noise is larger.
const EMPTY_NS_MIN: f64 = 50.0;

/// What the switches cost whoever switches: with the product, with an empty program, with none; statistics off.
pub fn end_to_end() -> Result<()> {
    let unified = Hierarchies::find()?.unified.context("no cgroup v2 hierarchy is mounted")?;
    let rounds = figure::rounds(ROUNDS);
    let (mut none, mut empty, mut product) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        none.push(real_time()?);
        let attached = Empty::attach("sched_switch", &unified)?;
        empty.push(real_time()?);
        drop(attached);
        let agent = Settings::new().tick(Duration::from_secs(5)).start()?;
        product.push(real_time()?);
        drop(agent);
    }
    let none = figure::least(&none)?;
    let over = |samples: &[f64]| -> Result<f64> {
        Ok((figure::least(samples)? - none) * 1000.0 / SWITCHES_AN_OPERATION)
    };
    let (empty, product) = (over(&empty)?, over(&product)?);
    let peer = format!("nothing attached, {none} us a round trip");
    figure::print("kernel", "switch_end_to_end", product, "ns", None, &peer, rounds)?;
    figure::print("kernel", "switch_end_to_end_empty", empty, "ns", None, &peer, rounds)?;
    if empty < EMPTY_NS_MIN {
        bail!("an empty program read {empty:.0} ns a switch: too noisy here for a ratio");
    }
    let peer = format!("an empty tp_btf program, {empty:.0} ns a switch");
    figure::print("kernel", "switch_end_to_end_ratio", product / empty, "ratio", Some(2.0), &peer, rounds)
}

/// One run on CPU 1. Microseconds a round trip.
pub fn plain() -> Result<f64> {
    run(&["taskset", "-c", "1"])
}

/// The same ahead of all ordinary tasks, where that is allowed.
fn real_time() -> Result<f64> {
    run(&["chrt", "-f", "40", "taskset", "-c", "1"]).or_else(|_| plain())
}

fn run(prefix: &[&str]) -> Result<f64> {
    let words = [prefix, &["perf", "bench", "sched", "pipe", "-l", LOOPS]].concat();
    let (program, arguments) = words.split_first().context("no command")?;
    let output = Command::new(program).args(arguments).output().with_context(|| words.join(" "))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find(|line| line.contains("usecs/op"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok())
        .with_context(|| format!("{}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}
