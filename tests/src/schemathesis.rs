//! Schemathesis: asks a server everything that its OpenAPI document allows, and what it does not.
//!
//! Of PyPI, unpacked into the cache; where it cannot be had, tests that need it are skipped by name.

use std::env;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, anyhow, bail};

use crate::host::Skip;

/// The release, so that what it asks does not change under us.
const RELEASE: &str = "4.32.5";
/// Requests that one operation is asked at most.
const EXAMPLES: &str = "60";

/// How it starts where nothing is installed.
const START: &str = "import sys; from schemathesis.cli import schemathesis; sys.exit(schemathesis())";
/// What counts as a refusal: an address or a header that is too long is one, too.
const REFUSALS: &str = "[checks.negative_data_rejection]\n\
    expected-statuses = [400, 401, 403, 404, 405, 406, 409, 413, 414, 415, 422, 428, 429, 431, \"5xx\"]\n";

/// Asks a server by a document; `arguments` choose checks and operations.
///
/// # Errors
/// As skipped where it cannot be had; else with what it found.
pub fn run(address: SocketAddr, document: &str, base: &str, arguments: &[&str]) -> Result<()> {
    let tree = tree()?;
    let scratch = tempfile::tempdir()?;
    fs::write(scratch.path().join("schemathesis.toml"), REFUSALS)?;
    let output = Command::new("python3")
        .args(["-c", START, "run", document, "--url", &format!("http://{address}{base}")])
        .args(["--max-examples", EXAMPLES, "--seed", "1", "--workers", "1", "--no-color"])
        .args(["--request-timeout", "20", "--suppress-health-check", "all"])
        .args(arguments)
        .env("PYTHONPATH", &tree)
        // Its database of examples.
        .current_dir(scratch.path())
        .stdin(Stdio::null())
        .output()
        .context("run schemathesis")?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    bail!("schemathesis on {document}: {}\n{text}{}", output.status, String::from_utf8_lossy(&output.stderr))
}

/// Where it is; fetched once.
fn tree() -> Result<PathBuf> {
    let place = cache()?.join(format!("tools/schemathesis-{RELEASE}"));
    if place.is_dir() {
        return Ok(place);
    }
    let unfinished = place.with_extension(format!("unfinished-{}", std::process::id()));
    fetch(&unfinished).map_err(|error| anyhow!(Skip(format!("no schemathesis of PyPI: {error:#}"))))?;
    match fs::rename(&unfinished, &place) {
        // Another test was quicker; its tree is as good as ours.
        Err(_) if place.is_dir() => fs::remove_dir_all(&unfinished)?,
        renamed => renamed.with_context(|| format!("rename {}", unfinished.display()))?,
    }
    Ok(place)
}

fn fetch(into: &Path) -> Result<()> {
    fs::create_dir_all(into)?;
    let output = Command::new("python3")
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target"])
        .arg(into)
        .arg(format!("schemathesis=={RELEASE}"))
        .output()
        .context("run pip")?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { bail!("pip: {}", said.lines().last().unwrap_or_default()) }
}

/// The cache of `cargo xtask`.
fn cache() -> Result<PathBuf> {
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("TELEMETRY_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|dir| dir.join("telemetry")))
        .or_else(|| set("HOME").map(|dir| dir.join(".cache/telemetry")))
        .context("no cache folder: set TELEMETRY_CACHE or HOME")
}
