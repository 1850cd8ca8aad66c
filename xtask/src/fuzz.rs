//! `cargo xtask fuzz [TARGET] [--seconds N]`: drives the fuzz targets by libFuzzer, with the address sanitizer.
//!
//! The host's own stable compiler has all that is needed: the sanitizer's runtime and LLVM's coverage pass, behind
//! flags that it takes when told that we know what we do. Inputs that found new ways through the code are kept in the
//! cache, one folder a target.

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::cargo::cargo;
use crate::setup::{self, Need};
use crate::{cache, paths, shell};

/// Coverage as libFuzzer wants it, and the sanitizer.
const FLAGS: &str = "-Zsanitizer=address -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 -Cdebug-assertions -Coverflow-checks \
    --cfg fuzzing";
/// Named, so that build scripts are not built with the flags above.
const TRIPLE: &str = "x86_64-unknown-linux-gnu";
/// A target may hold so much memory.
const MEMORY_MB: u32 = 1024;
/// One input may take so long.
const INPUT_SECONDS: u32 = 20;
/// Inputs are no longer than this.
const INPUT_BYTES: u32 = 64 << 10;

/// What to drive, and how long.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// One target; none means all
    target: Option<String>,
    /// Seconds for each
    #[arg(long, default_value_t = 60)]
    seconds: u32,
}

/// Drives one target or all.
///
/// # Errors
/// When a target panics, hangs or holds too much memory: the input that did it is named above.
pub fn fuzz(options: &Options) -> Result<()> {
    let Options { target, seconds } = options;
    setup::ensure(&[Need::program("g++", "g++")])?;
    let inputs = cache::dir()?.join("fuzz");
    fs::create_dir_all(&inputs).context("make the folder of inputs")?;
    let seeds = ["run", "--quiet", "--package", "telemetry-fuzz", "--example", "seeds", "--"];
    let known = shell::quiet(cargo(&seeds).arg(&inputs))?;
    let known: Vec<&str> = known.lines().collect();
    let chosen: Vec<&str> =
        known.iter().copied().filter(|name| target.as_deref().is_none_or(|target| target == *name)).collect();
    if chosen.is_empty() {
        bail!("no target of this name; there are: {}", known.join(", "));
    }
    // Minutes the first time: only for a name that there is.
    let program = build()?;
    for name in &chosen {
        let started = Instant::now();
        let found = inputs.join(name);
        let mut command = std::process::Command::new(&program);
        command
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-rss_limit_mb={MEMORY_MB}"))
            .arg(format!("-timeout={INPUT_SECONDS}"))
            .arg(format!("-max_len={INPUT_BYTES}"))
            .arg("-print_final_stats=1")
            .arg(format!("-artifact_prefix={}/crash-{name}-", inputs.display()))
            .arg(&found)
            .env("TELEMETRY_FUZZ_TARGET", name)
            .env("ASAN_OPTIONS", "detect_leaks=0")
            .env("RUST_BACKTRACE", "1");
        let mut runs = String::new();
        shell::teed(&mut command, |line| {
            if let Some(number) = line.strip_prefix("stat::number_of_executed_units:") {
                number.trim().clone_into(&mut runs);
            }
        })
        .with_context(|| format!("target {name}"))?;
        println!("{name}: {runs} inputs in {} s, nothing found", started.elapsed().as_secs());
    }
    println!("{} targets passed", chosen.len());
    Ok(())
}

fn build() -> Result<PathBuf> {
    let folder = paths::root().join("target/fuzz");
    let args = [
        "build",
        "--release",
        "--package",
        "telemetry-fuzz",
        "--features",
        "libfuzzer",
        "--bin",
        "fuzz",
        "--target",
        TRIPLE,
    ];
    let mut command = cargo(&args);
    command.env("RUSTC_BOOTSTRAP", "1").env("RUSTFLAGS", FLAGS).env("CARGO_TARGET_DIR", &folder);
    // Counters belong to a crate; merging code over crates would lose some.
    command.env("CARGO_PROFILE_RELEASE_LTO", "off");
    shell::shown(&mut command)?;
    Ok(folder.join(TRIPLE).join("release/fuzz"))
}
