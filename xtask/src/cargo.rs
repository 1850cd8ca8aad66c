//! The host's cargo: how it is called, and what it knows of the workspace.

use std::env;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{paths, peers, python, shell};

/// A test or program of the workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub package: String,
    pub name: String,
    /// Cargo's word: `lib`, `bin`, `test`, …
    pub kind: String,
}

/// Cargo at the root of the tree, by the toolchain that runs us.
pub fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(paths::root()).env("PATH", shell::path_with(&[&paths::tools_bin()]));
    // `cargo run` set this for us; a child of another toolchain would load the wrong libraries.
    command.env_remove("LD_LIBRARY_PATH");
    command
}

/// Cargo with what the tests read from their environment.
pub fn cargo_for_tests(args: &[&str]) -> Command {
    let mut command = cargo(args);
    command.env("TELEMETRY_AGENT", paths::release_agent()).env("TELEMETRY_ORACLES", paths::oracles());
    if let Some(dir) = peers::found() {
        command.env("TELEMETRY_PEERS", dir);
    }
    if let Some(dir) = python::found() {
        command.env("TELEMETRY_PYTHON", dir);
    }
    command
}

/// Builds the agent that `run`, `test` and `bench` use.
///
/// # Errors
/// When it does not compile.
pub fn build_agent() -> Result<()> {
    shell::shown(&mut cargo(&["build", "--release", "--package", "telemetry-agent"]))
}

/// Every target of the workspace's own packages.
///
/// # Errors
/// When a manifest cannot be read.
pub fn targets() -> Result<Vec<Target>> {
    let json = shell::quiet(&mut cargo(&["metadata", "--no-deps", "--format-version", "1", "--offline"]))?;
    let value: Value = serde_json::from_str(&json).context("read the output of cargo metadata")?;
    Ok(parse_targets(&value))
}

fn parse_targets(metadata: &Value) -> Vec<Target> {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
    let items =
        |value: &Value, key: &str| value.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    let mut found = Vec::new();
    for package in items(metadata, "packages") {
        for target in items(&package, "targets") {
            found.push(Target {
                package: text(package.get("name")),
                name: text(target.get("name")),
                kind: text(target.pointer("/kind/0")),
            });
        }
    }
    found
}
