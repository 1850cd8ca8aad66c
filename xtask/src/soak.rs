//! `cargo xtask soak`: the store through simulated crashes by the hundred thousand, or operations by the million.
//!
//! Runs the store's own simulation and model tests with larger numbers, optimised. A failure names its seed;
//! `--seed S --crashes 1` plays it again.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::cargo::cargo_for_tests;
use crate::shell;

/// Crashes between two looks at the clock.
const CRASHES_PER_ROUND: u64 = 20_000;
/// Crashes that a seed has: what the simulation does with one.
const CRASHES_PER_SEED: u64 = 4;

/// How long to run.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// The first seed
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Crashes to simulate
    #[arg(long, default_value_t = 100_000)]
    crashes: u64,
    /// Go on until so many minutes have passed, whatever the number of crashes
    #[arg(long)]
    minutes: Option<u64>,
    /// Operations of the model test instead of crashes
    #[arg(long)]
    operations: Option<u64>,
}

/// Runs until it is enough, or until the first seed that fails.
///
/// # Errors
/// When a promise was broken: the line above says which, and by which seed.
pub fn soak(options: &Options) -> Result<()> {
    let Options { seed, crashes, minutes, operations } = options;
    let started = Instant::now();
    if let Some(operations) = operations {
        run("model::", &[("TELEMETRY_MODEL_OPERATIONS", *operations), ("TELEMETRY_MODEL_SEED", *seed)])?;
        println!("{operations} operations passed in {} s", started.elapsed().as_secs());
        return Ok(());
    }
    let limit = minutes.map(|minutes| Duration::from_secs(minutes * 60));
    let (mut first, mut done) = (*seed, 0);
    while limit.map_or(done < *crashes, |limit| started.elapsed() < limit) {
        let round = limit.map_or(*crashes, |_| CRASHES_PER_ROUND);
        let numbers = [("TELEMETRY_SIM_SEED", first), ("TELEMETRY_SIM_CRASHES", round)];
        if let Err(error) = run("life::acknowledged", &numbers) {
            bail!("{error:#}; `cargo xtask soak --seed S --crashes 1` plays the seed named above again");
        }
        done += round;
        first += round.div_ceil(CRASHES_PER_SEED);
    }
    println!("{done} crashes passed in {} s, seeds {seed} to {}", started.elapsed().as_secs(), first - 1);
    Ok(())
}

fn run(test: &str, numbers: &[(&str, u64)]) -> Result<()> {
    let args = [
        "test",
        "--quiet",
        "--release",
        "--package",
        "telemetry-tsdb",
        "--test",
        "store",
        "--",
        "--nocapture",
    ];
    let mut command = cargo_for_tests(&args);
    command.arg(test).env("TELEMETRY_SIM_PROGRESS", "1");
    for (name, value) in numbers {
        command.env(name, value.to_string());
    }
    shell::shown(&mut command)
}
