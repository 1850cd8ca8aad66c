//! `cargo xtask sanitize`: the store's tests under what watches memory and threads.
//!
//! AddressSanitizer finds what safe Rust cannot promise: C code that the store calls (zstd), its `unsafe`, and leaks.
//! ThreadSanitizer finds races; it must see every memory access, so the standard library is built with it, from the
//! toolchain's component `rust-src`. Where a toolchain has miri, that runs the plain modules as well.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::cargo::cargo_for_tests;
use crate::{paths, shell};

/// The modules of plain code, small enough for an interpreter.
const MIRI_MODULES: [&str; 4] = ["codec::", "index::", "head::", "wire::"];
/// What calls C code of zstd, which an interpreter of Rust cannot run.
const MIRI_SKIPS: [&str; 1] = ["index::file"];
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
            Self::Thread => "-Zsanitizer=thread",
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
        if sanitizer == Sanitizer::Thread && !has_library_source()? {
            println!(
                "thread sanitizer: skipped, the toolchain has no component rust-src and none can be had"
            );
            continue;
        }
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
    if sanitizer == Sanitizer::Thread {
        command.arg("-Zbuild-std").env("TSAN_OPTIONS", "halt_on_error=1");
    }
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
    shell::shown(&mut command)
}

/// Whether the standard library's source is there, or can be had.
fn has_library_source() -> Result<bool> {
    let root = shell::quiet(Command::new("rustc").args(["--print", "sysroot"]))?;
    let source = Path::new(root.trim()).join("lib/rustlib/src/rust/library");
    if !source.is_dir() {
        // Of a toolchain that rustup does not manage there is nothing to add to.
        let _ = shell::shown(Command::new("rustup").args(["component", "add", "rust-src"]));
    }
    Ok(source.is_dir())
}

/// The toolchain's own, or the nightly's: a stable one has none.
fn miri() -> Result<()> {
    let own = ("cargo", &[][..]);
    let nightly = ("rustup", &["run", "nightly", "cargo"][..]);
    let command = |(program, before): (&str, &[&str])| {
        let mut command = Command::new(program);
        command.args(before).arg("miri").current_dir(paths::root());
        command
    };
    let found = [own, nightly].into_iter().find(|way| shell::quiet(command(*way).arg("--version")).is_ok());
    let Some(way) = found else {
        println!("miri: on no toolchain here, left out");
        return Ok(());
    };
    let mut command = command(way);
    command.args(["test", "--package", "telemetry-tsdb", "--lib", "--"]);
    command.args(MIRI_MODULES).args(MIRI_SKIPS.iter().flat_map(|name| ["--skip", name]));
    command.env("PROPTEST_CASES", "4").env("MIRIFLAGS", "-Zmiri-disable-isolation -Zmiri-tree-borrows");
    command.env("CARGO_TARGET_DIR", paths::target().join("miri"));
    shell::shown(&mut command).context("miri")?;
    println!("miri: nothing found");
    Ok(())
}

/// What the compiler builds for.
fn host() -> Result<String> {
    let text = shell::quiet(Command::new("rustc").arg("-vV"))?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc -vV names no host")?.to_owned())
}
