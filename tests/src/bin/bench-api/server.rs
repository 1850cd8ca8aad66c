//! Who is asked: the agent or a peer.

use std::time::Duration;

use anyhow::Result;
use telemetry_tests::agent::Agent;
use telemetry_tests::peer::Peer;
use telemetry_tests::{http, proc};

/// One that answers.
pub enum Server {
    Agent(Agent),
    Peer(Peer),
}

/// An answer may need seconds of CPU, on a machine that others use.
const ANSWER_MAX: Duration = Duration::from_secs(120);

// === impl Server ===

impl Server {
    /// Where it listens.
    pub fn port(&self) -> u16 {
        match self {
            Self::Agent(agent) => agent.address().port(),
            Self::Peer(peer) => peer.port(),
        }
    }

    /// CPU seconds of all its threads so far.
    pub fn cpu(&self) -> Result<f64> {
        match self {
            Self::Agent(agent) => proc::cpu_seconds(agent.pid()),
            Self::Peer(peer) => proc::cpu_seconds(peer.pid()),
        }
    }

    /// An answer, and how long it took to the last byte.
    pub fn query_range(
        &self,
        query: &str,
        (start, end, step): (i64, i64, i64),
    ) -> Result<(Duration, Vec<u8>)> {
        let (query, start, end, step) = (http::percent_encoded(query), start / 1000, end / 1000, step / 1000);
        let path = format!("/api/v1/query_range?query={query}&start={start}&end={end}&step={step}");
        let (took, answer) = http::timed_get(ANSWER_MAX, ([127, 0, 0, 1], self.port()).into(), &path)?;
        let text = || String::from_utf8_lossy(&answer.body).into_owned();
        anyhow::ensure!(answer.status == 200, "{path}: {} {}", answer.status, text());
        Ok((took, answer.body))
    }
}
