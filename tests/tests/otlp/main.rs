//! OpenTelemetry's own SDK pushes to the agent: every kind of point, over HTTP and gRPC, and each arrives as it was.
//! And a client of gRPC's own library asks as Thanos does.

use anyhow::Result;
use telemetry_tests::agent::{Settings, free_address};
use telemetry_tests::host::{claim, kernel_test};
use telemetry_tests::python;

/// Runs a script beside an agent with a port for gRPC.
fn run(script: &str, settings: impl Fn(&str) -> Settings) -> Result<String> {
    python::interpreter("opentelemetry")?;
    let grpc = free_address()?.to_string();
    let agent = settings(&grpc).start()?;
    let base = format!("http://{}", agent.address());
    Ok(python::run("opentelemetry", script, &[&base, &grpc])?.trim().to_owned())
}

#[test]
fn every_kind_of_point_arrives_by_every_way() {
    kernel_test(|| {
        let said = run("otlp_push.py", |grpc| Settings::new().top(&format!("otlp_grpc = \"{grpc}\"")))?;
        claim(said == "all 6 ways", || format!("{said:?}"))
    });
}

#[test]
fn thanos_reads_what_the_query_api_answers() {
    kernel_test(|| {
        let labels = "thanos.external_labels = [\"node=n1\", \"cluster=c1\"]";
        let said = run("thanos_calls.py", |grpc| {
            Settings::new().top(&format!("thanos_grpc = \"{grpc}\"")).top(labels)
        })?;
        claim(said == "all calls", || format!("{said:?}"))
    });
}
