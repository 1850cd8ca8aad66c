//! The agent and the newest Prometheus side by side: the same samples pushed to both, the same questions asked.

use std::net::SocketAddr;
use std::time::SystemTime;

use anyhow::{Context as _, Result};
use serde_json::Value;
use telemetry_tests::agent::{Agent, Settings};
use telemetry_tests::host::claim;
use telemetry_tests::http;
use telemetry_tests::prometheus::Prometheus;

/// Largest relative difference of two answers.
const TOLERANCE: f64 = 1e-9;

pub type LabelSet = Vec<(String, String)>;

/// Who is asked.
pub struct Pair {
    pub agent: Agent,
    pub prometheus: Prometheus,
}

/// Milliseconds since 1970.
pub fn now_ms() -> Result<i64> {
    Ok(i64::try_from(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_millis())?)
}

// === impl Pair ===

impl Pair {
    /// Both, empty.
    pub fn start() -> Result<Self> {
        let flags = ["--web.enable-remote-write-receiver", "--enable-feature=native-histograms"];
        let prometheus = Prometheus::start_newest("global: {}\n", &flags)?;
        Ok(Self { agent: Settings::new().start()?, prometheus })
    }

    /// Where they listen.
    pub fn addresses(&self) -> [SocketAddr; 2] {
        [self.agent.address(), self.prometheus.address()]
    }

    fn ask(&self, path: &str) -> Result<[(u16, Value); 2]> {
        let one = |address| -> Result<(u16, Value)> {
            let answer = http::get(address, path, &[])?;
            Ok((answer.status, serde_json::from_slice(&answer.body).with_context(|| path.to_owned())?))
        };
        let [ours, theirs] = self.addresses();
        Ok([one(ours)?, one(theirs)?])
    }

    /// Asks both: the same status, type and values, in the same order where order means something. Returns ours.
    pub fn agree(&self, path: &str, is_ordered: bool) -> Result<Value> {
        let [(our_status, mut ours), (their_status, mut theirs)] = self.ask(path)?;
        claim(our_status == their_status, || {
            format!("{path}: {our_status} {ours}, not {their_status} {theirs}")
        })?;
        for key in ["status", "errorType"] {
            claim(ours.get(key) == theirs.get(key), || format!("{path}: {ours}, not {theirs}"))?;
        }
        for answer in [&mut ours, &mut theirs] {
            if let Some(Value::Array(result)) = answer.pointer_mut("/data/result")
                && !is_ordered
            {
                result.sort_by_key(|series| series.get("metric").map(Value::to_string));
            }
            // Label sets of one selector come as they were found.
            if let Some(Value::Array(sets)) = answer.get_mut("data")
                && sets.iter().all(Value::is_object)
            {
                sets.sort_by_key(Value::to_string);
            }
        }
        let is_same = same(ours.get("data"), theirs.get("data"));
        claim(is_same, || format!("{path}:\n{ours}\nnot\n{theirs}"))?;
        Ok(ours)
    }
}

/// Numbers in texts may differ by the last digits.
pub fn same(ours: Option<&Value>, theirs: Option<&Value>) -> bool {
    match (ours, theirs) {
        (Some(Value::Array(a)), Some(Value::Array(b))) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(Some(a), Some(b)))
        }
        (Some(Value::Object(a)), Some(Value::Object(b))) => {
            a.len() == b.len() && a.iter().all(|(key, value)| same(Some(value), b.get(key)))
        }
        (Some(Value::String(a)), Some(Value::String(b))) if a != b => {
            match (a.parse::<f64>(), b.parse::<f64>()) {
                (Ok(a), Ok(b)) => (a - b).abs() <= TOLERANCE * a.abs().max(b.abs()),
                _ => false,
            }
        }
        (a, b) => a == b,
    }
}
