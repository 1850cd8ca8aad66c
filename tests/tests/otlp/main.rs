//! OpenTelemetry's own SDK pushes to the agent: every kind of point, over HTTP and gRPC, and each arrives as it was.
//! And a client of gRPC's own library asks as Thanos does.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};
use telemetry_tests::agent::{Settings, free_address};
use telemetry_tests::host::{Skip, claim, kernel_test};

const PUSH: &str = include_str!("push.py");
const THANOS: &str = include_str!("thanos.py");
const PACKAGES: [&str; 3] = [
    "opentelemetry-sdk==1.38.0",
    "opentelemetry-exporter-otlp-proto-http==1.38.0",
    "opentelemetry-exporter-otlp-proto-grpc==1.38.0",
];

/// A Python with the SDK, made once below the target folder.
fn python() -> Result<PathBuf> {
    let executable = std::env::current_exe()?;
    let target = executable.parent().and_then(|dir| dir.parent()).context("folder of the tests")?;
    let dir = target.join("python-otlp");
    let python = dir.join("bin/python");
    let has_all = || {
        let words = "import opentelemetry.exporter.otlp.proto.grpc, opentelemetry.exporter.otlp.proto.http, opentelemetry.sdk";
        Command::new(&python).args(["-c", words]).output().is_ok_and(|output| output.status.success())
    };
    if has_all() {
        return Ok(python);
    }
    let made = Command::new("python3").args(["-m", "venv"]).arg(&dir).output();
    if made.is_ok_and(|output| output.status.success()) {
        let _ = Command::new(&python).args(["-m", "pip", "install", "--quiet"]).args(PACKAGES).output();
    }
    if has_all() {
        return Ok(python);
    }
    Err(Skip("no Python with venv, or OpenTelemetry's SDK cannot be had".to_owned()).into())
}

/// Runs a script beside an agent with a port for gRPC.
fn run(script: &str, settings: impl Fn(&str) -> Settings) -> Result<String> {
    let python = python()?;
    let grpc = free_address()?.to_string();
    let agent = settings(&grpc).start()?;
    let base = format!("http://{}", agent.address());
    let output = Command::new(&python).args(["-c", script, &base, &grpc]).output()?;
    claim(output.status.success(), || String::from_utf8_lossy(&output.stderr).into_owned())?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[test]
fn every_kind_of_point_arrives_by_every_way() {
    kernel_test(|| {
        let said = run(PUSH, |grpc| Settings::new().line(&format!("otlp_grpc = \"{grpc}\"")))?;
        claim(said == "all 6 ways", || format!("{said:?}"))
    });
}

#[test]
fn thanos_reads_what_the_query_api_answers() {
    kernel_test(|| {
        let labels = "thanos.external_labels = [\"node=n1\", \"cluster=c1\"]";
        let said =
            run(THANOS, |grpc| Settings::new().line(&format!("thanos_grpc = \"{grpc}\"")).line(labels))?;
        claim(said == "all calls", || format!("{said:?}"))
    });
}
