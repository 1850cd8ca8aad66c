//! `cargo xtask promqltest PATH…`: scripts in Prometheus' test notation, run through our engine.
//!
//! The reader and the runner are an example of `telemetry-promql`, so that xtask itself stays light.

use std::env;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::{cargo, shell};

/// Runs every script named, and every `.test` file of the folders named.
///
/// # Errors
/// When none is named, one cannot be read, or its data cannot be loaded. Misses are printed and no error.
pub fn promqltest(paths: &[PathBuf]) -> Result<()> {
    if paths.is_empty() {
        bail!("name scripts, or folders of them");
    }
    let here = env::current_dir().context("read the current folder")?;
    let mut command = cargo::cargo(&[
        "run",
        "--quiet",
        "--release",
        "--package",
        "telemetry-promql",
        "--example",
        "promqltest",
        "--",
    ]);
    // Cargo runs at the root of the tree; the paths are meant from here.
    command.args(paths.iter().map(|path| here.join(path)));
    shell::shown(&mut command)
}
