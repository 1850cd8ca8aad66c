//! The HTTP side: scrapes, queries, health and a small index page.
//!
//! [`bind`] takes the port before anything else starts; [`serve`] answers until it is told to stop. Knows the latest
//! values, the store's history and what the agent says of its own health; knows nothing of the kernel. `app` wires it.
//!
//! Every connection is bounded from both sides: how many there are, and how long each may take to send a header, to
//! take its answer, or to do nothing. A client that stalls costs itself its connection and nobody else anything. Who may
//! ask at all, and how much, is [`security`]'s.

mod body;
mod coding;
mod connection;
pub mod grpc;
mod index;
mod intake;
pub mod otlp;
mod pages;
pub mod prometheus;
mod refusal;
mod routes;
pub mod security;
mod server;
mod stats;
#[cfg(test)]
mod tests;
pub mod thanos;
pub mod v1;
mod wire;
pub mod write;

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::human_duration;
use crate::store::Latest;

pub use body::Endless;
pub use coding::Coding;
pub use otlp::OtlpReceiver;
pub use prometheus::Prometheus;
pub use security::Security;
pub use server::{bind, serve};
pub use stats::{HttpStats, METRICS};
pub use thanos::ThanosStore;
pub use v1::V1;
pub use write::Receiver;

/// Limits of the HTTP side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Connections at one time. When all are taken, a new one replaces the oldest that is not being answered; when
    /// all are being answered, it is closed at once. 256 is more than can be answered or wait for an answer at one time
    /// (queries, pushes, answers that are being sent), so that a scrape finds a place whatever others ask; and it leaves
    /// room for the agent's own files under the usual limit of 1,024.
    pub connections_max: usize,
    /// How long a client may take to send a whole request header.
    #[serde(with = "human_duration")]
    pub header_timeout: Duration,
    /// How long a request may take from its header to the last byte of its answer that the client takes.
    #[serde(with = "human_duration")]
    pub request_timeout: Duration,
    /// How long a connection may rest between two requests. Longer than the usual scrape interval of a minute, so
    /// that a scraper keeps its connection.
    #[serde(with = "human_duration")]
    pub idle_timeout: Duration,
    /// Requests of one client, which is an address, that are answered at one time. Half of the connections, so that one
    /// client cannot take all.
    pub client_concurrency_max: usize,
    /// Requests a second of one client, after two seconds' worth at once. 0: as many as it likes.
    pub client_rate_max: u32,
    /// Whether both hold for clients on this host too. A proxy here speaks for many.
    pub limit_loopback: bool,
}

/// What the HTTP side answers from.
#[derive(Clone)]
pub struct Deps {
    /// The values a scrape gets.
    pub latest: Arc<Latest>,
    /// What the health endpoints say.
    pub health: Arc<dyn Health>,
    /// Where requests and connections are counted.
    pub observe: Arc<HttpStats>,
    /// What answers queries.
    pub queries: Arc<Prometheus>,
    /// What takes pushes in.
    pub pushes: Arc<Receiver>,
    /// Who may ask, and over what.
    pub security: Arc<Security>,
    /// What answers at our own root.
    pub own: Arc<V1>,
    /// What takes pushes of OpenTelemetry in.
    pub otlp: Arc<OtlpReceiver>,
}

/// What the agent knows of its own health.
pub trait Health: Send + Sync {
    /// Whether the process does its work at all. Not being so asks for a restart.
    ///
    /// # Errors
    /// Says what is stuck.
    fn live(&self) -> Result<(), String>;

    /// Everything that has to hold before the answers mean anything.
    fn ready(&self) -> Vec<Check>;
}

/// One condition and whether it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// The condition, in a word or two.
    pub name: &'static str,
    /// Holds, or the reason why it does not.
    pub outcome: Result<(), String>,
}

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        Self {
            connections_max: 256,
            header_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(90),
            client_concurrency_max: 32,
            client_rate_max: 500,
            limit_loopback: false,
        }
    }
}

// === impl Check ===

impl Check {
    /// A condition that holds.
    #[must_use]
    pub fn holds(name: &'static str) -> Self {
        Self { name, outcome: Ok(()) }
    }

    /// A condition that does not hold, and why.
    pub fn fails(name: &'static str, reason: impl Into<String>) -> Self {
        Self { name, outcome: Err(reason.into()) }
    }
}
