//! `cargo xtask sanitize`: the store's tests under what watches memory and threads.
//!
//! AddressSanitizer finds what safe Rust cannot promise: C code that the store calls (zstd), its `unsafe`, and leaks.
//! ThreadSanitizer finds races; the standard library is not built with it, so that what it says of the library alone
//! may be wrong. Where the toolchain has miri, that runs the plain modules as well.

use std::process::Command;

use anyhow::{Context, Result};

use crate::cargo::{cargo, cargo_for_tests};
use crate::{paths, shell};

/// The modules of plain code, small enough for an interpreter.
const MIRI_MODULES: [&str; 4] = ["codec::", "index::", "head::", "wire::"];
/// Crashes of the store's simulation: a sanitizer slows it ten times.
const CRASHES: &str = "400";
/// Operations of its model test.
const OPERATIONS: &str = "40000";
/// Cases of each property.
const CASES: &str = "32";

/// What watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Sanitizer {
    /// Memory that is not there, and leaks
    Address,
    /// Races
    Thread,
}

// === impl Sanitizer ===

impl Sanitizer {
    fn flags(self) -> &'static str {
        match self {
            Self::Address => "-Zsanitizer=address",
            // The library's own objects are not built with it; the compiler would refuse to link them.
            Self::Thread => "-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Thread => "thread",
        }
    }
}

/// Runs the store's tests under one of them, or under all.
///
/// # Errors
/// When a test fails or something is found.
pub fn sanitize(chosen: Option<Sanitizer>) -> Result<()> {
    let all = [Sanitizer::Address, Sanitizer::Thread];
    for sanitizer in all.into_iter().filter(|one| chosen.is_none_or(|chosen| chosen == *one)) {
        run(sanitizer).with_context(|| format!("{} sanitizer", sanitizer.name()))?;
        println!("{} sanitizer: nothing found", sanitizer.name());
    }
    if chosen.is_none() {
        miri()?;
    }
    Ok(())
}

fn run(sanitizer: Sanitizer) -> Result<()> {
    let folder = paths::target().join("sanitized").join(sanitizer.name());
    let mut command = cargo_for_tests(&["test", "--package", "telemetry-tsdb", "--lib", "--test", "store"]);
    // Naming the target keeps the flags away from build scripts and macros.
    command
        .args(["--target", &host()?])
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTFLAGS", format!("{} -Copt-level=1", sanitizer.flags()))
        .env("CARGO_TARGET_DIR", folder)
        .env("TELEMETRY_SIM_CRASHES", CRASHES)
        .env("TELEMETRY_MODEL_OPERATIONS", OPERATIONS)
        .env("PROPTEST_CASES", CASES)
        // Every byte of every file flipped, each time with a start of the store, is hours of it.
        .args(["--", "--skip", "each_flipped_byte"]);
    if sanitizer == Sanitizer::Thread {
        command.env("TSAN_OPTIONS", "halt_on_error=1");
    }
    shell::shown(&mut command)
}

/// Not on every toolchain: a stable one has none.
fn miri() -> Result<()> {
    if shell::quiet(&mut cargo(&["miri", "--version"])).is_err() {
        println!("miri: not on this toolchain, left out");
        return Ok(());
    }
    let mut command = cargo(&["miri", "test", "--package", "telemetry-tsdb", "--lib", "--"]);
    command.args(MIRI_MODULES).env("PROPTEST_CASES", "4").env("MIRIFLAGS", "-Zmiri-disable-isolation");
    shell::shown(&mut command).context("miri")
}

/// What the compiler builds for.
fn host() -> Result<String> {
    let text = shell::quiet(Command::new("rustc").arg("-vV"))?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc -vV names no host")?.to_owned())
}
