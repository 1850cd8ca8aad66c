//! Public clients of Prometheus' API, unchanged.

use anyhow::Result;
use telemetry_tests::agent::Settings;
use telemetry_tests::host::kernel_test;
use telemetry_tests::python;
use telemetry_tests::remote_write::Request;

use super::beside::{LabelSet, now_ms};

const STEP_MS: i64 = 15_000;
/// Half an hour, the last of it now, as clients ask for what is.
const TICKS: i64 = 120;

fn every_call(version: &str) -> Result<()> {
    let agent = Settings::new().start()?;
    let labels = |instance: &str| -> LabelSet {
        [("__name__", "memory"), ("instance", instance), ("job", "test")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into()
    };
    let all = [labels("a"), labels("b")];
    let mut request = Request::new(all.iter().map(Vec::as_slice));
    let end = now_ms()? / STEP_MS * STEP_MS;
    let start = end - TICKS * STEP_MS;
    for tick in 0..=TICKS {
        let values = [Some(tick as f64), Some(tick as f64)];
        request.send(agent.address().port(), "/api/v1/write", start + tick * STEP_MS, &values)?;
    }
    let arguments =
        [format!("http://{}", agent.address()), (start / 1000).to_string(), (end / 1000).to_string()];
    let environment = format!("prometheus-api-client-{version}");
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    println!("{version}: {}", python::run(&environment, "prometheus_api_client_calls.py", &arguments)?);
    Ok(())
}

#[test]
fn every_method_of_prometheus_api_client_0_5_4() {
    kernel_test(|| every_call("0.5.4"));
}

#[test]
fn every_method_of_prometheus_api_client_0_7_2() {
    kernel_test(|| every_call("0.7.2"));
}
