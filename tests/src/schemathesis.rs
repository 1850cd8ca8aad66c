//! Schemathesis: asks a server everything that its OpenAPI document allows, and what it does not.
//!
//! In an environment of `cargo xtask test`; where that is not, tests that need it are skipped by name.

use std::fs;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::python;

/// Requests that one operation is asked at most.
const EXAMPLES: &str = "60";

/// How it starts in an environment that was moved.
const START: &str = "import sys; from schemathesis.cli import schemathesis; sys.exit(schemathesis())";
/// What counts as a refusal: an address or a header that is too long is one, too.
const REFUSALS: &str = "[checks.negative_data_rejection]\n\
    expected-statuses = [400, 401, 403, 404, 405, 406, 409, 413, 414, 415, 422, 428, 429, 431, \"5xx\"]\n";

/// Asks a server by a document; `arguments` choose checks and operations.
///
/// # Errors
/// A [`Skip`](crate::host::Skip) where it is not; else with what it found.
pub fn run(address: SocketAddr, document: &str, base: &str, arguments: &[&str]) -> Result<()> {
    let python = python::interpreter("schemathesis")?;
    let scratch = tempfile::tempdir()?;
    fs::write(scratch.path().join("schemathesis.toml"), REFUSALS)?;
    let output = Command::new(python)
        .args(["-c", START, "run", document, "--url", &format!("http://{address}{base}")])
        .args(["--max-examples", EXAMPLES, "--seed", "1", "--workers", "1", "--no-color"])
        .args(["--request-timeout", "20", "--suppress-health-check", "all"])
        .args(arguments)
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
