//! Clients in Python: the environments that `cargo xtask test` has made, and the scripts of this crate's `python` folder.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, anyhow, bail};

use crate::host::Skip;

/// The interpreter of an environment.
///
/// # Errors
/// A [`Skip`] if there is no such environment.
pub fn interpreter(environment: &str) -> Result<PathBuf> {
    let told = std::env::var_os("TELEMETRY_PYTHON").map(PathBuf::from);
    let python = told.map(|dir| dir.join(environment).join("bin/python"));
    python
        .filter(|python| python.exists())
        .ok_or_else(|| anyhow!(Skip(format!("{environment} is not here (TELEMETRY_PYTHON)"))))
}

/// Runs a script of the `python` folder to its end and returns what it wrote.
///
/// # Errors
/// If there is no such environment, or the script fails, with what it said.
pub fn run(environment: &str, script: &str, arguments: &[&str]) -> Result<String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("python").join(script);
    let output = Command::new(interpreter(environment)?)
        .arg(&file)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("run {script}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!("{script} in {environment}: {text}{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(text)
}
