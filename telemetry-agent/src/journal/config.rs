//! What an operator may choose about events.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use telemetry_tsdb::state::{self, Limits};

/// How long events are kept, and how many.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How long an event is kept.
    #[serde(with = "crate::human_duration")]
    pub retention: Duration,
    /// Events kept at most; the oldest go first.
    pub events_max: u64,
    /// Bytes of all events at most; the oldest go first.
    pub bytes_max: u64,
    /// Clients that are told events as they happen, at one time.
    pub streams_max: u64,
}

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        Self {
            retention: Duration::from_secs(7 * 24 * 3600),
            events_max: 50_000,
            bytes_max: 16 << 20,
            streams_max: 8,
        }
    }
}

impl Config {
    /// The same, as the state takes it.
    #[must_use]
    pub fn limits(&self) -> state::Config {
        let Self { retention: _, events_max, bytes_max, streams_max: _ } = self;
        state::Config { events: Limits { records: *events_max, bytes: *bytes_max }, ..Default::default() }
    }
}
