//! Clients that are written in Python, each with its versions in an environment of its own in the cache.
//!
//! Where one cannot be had, a line says why, and the tests that need it are skipped by name.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::setup::{self, Need};
use crate::{cache, shell};

/// Where the environments are; tests look for `NAME/bin/python` below it.
const ENTRY: &str = "tools/python";

/// An environment: its name and what is in it.
const ENVIRONMENTS: [(&str, &[&str]); 2] = [
    // As FLUIDOS pins it, and the newest, which has what it computes with apart.
    ("prometheus-api-client-0.5.4", &["prometheus-api-client==0.5.4"]),
    ("prometheus-api-client-0.7.2", &["prometheus-api-client==0.7.2", "numpy==2.4.6"]),
];

/// Makes what is not there yet.
pub fn ensure() {
    for (name, packages) in ENVIRONMENTS {
        if let Err(error) = environment(name, packages) {
            setup::say(format_args!("no {name}: {error:#}"));
        }
    }
}

/// The folder of the environments, whichever there are.
pub fn found() -> Option<PathBuf> {
    Some(cache::dir().ok()?.join(ENTRY)).filter(|dir| dir.is_dir())
}

fn environment(name: &str, packages: &[&str]) -> Result<()> {
    if cache::dir()?.join(ENTRY).join(name).exists() {
        return Ok(());
    }
    setup::ensure(&[Need::module("python3-venv", "ensurepip")])?;
    setup::say(format_args!("fetching {}", packages.join(" ")));
    cache::entry(&format!("{ENTRY}/{name}"), |dir| {
        shell::quiet(Command::new("python3").args(["-m", "venv"]).arg(dir)).context("make an environment")?;
        // The environment is moved when it is whole, so nothing in it may be called by its path but the interpreter.
        let mut install = Command::new(python(dir));
        install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(packages);
        shell::quiet(&mut install).map(drop)
    })
    .map(drop)
}

fn python(environment: &Path) -> PathBuf {
    environment.join("bin/python")
}
