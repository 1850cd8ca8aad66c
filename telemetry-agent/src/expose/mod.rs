//! Pages of the latest values: the Prometheus text format 0.0.4 and OpenMetrics 1.0.
//!
//! Knows a snapshot and two formats; knows no socket and no compression. `api` calls it for each scrape.

pub mod fixture;
mod negotiate;
mod number;
mod page;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};
use telemetry_model::Snapshot;

pub use negotiate::negotiate;
pub(crate) use negotiate::thousandths;
pub(crate) use number::push as push_number;

/// What a page looks like.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Pages of at least this many bytes are compressed for clients that ask for it; a smaller one fits a packet or
    /// two as it is.
    pub gzip_min_bytes: usize,
}

/// A format that a page can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// The Prometheus text format, which every client reads.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// OpenMetrics under the version number of its draft, for clients that know no other. The page is the same.
    OpenMetricsDraft,
}

/// Appends the page of a snapshot in the Prometheus text format 0.0.4.
pub fn text(snapshot: &Snapshot, out: &mut Vec<u8>) {
    page::write(snapshot, page::Dialect::Text, out);
}

/// Appends the page of a snapshot in OpenMetrics 1.0.
pub fn openmetrics(snapshot: &Snapshot, out: &mut Vec<u8>) {
    page::write(snapshot, page::Dialect::OpenMetrics, out);
}

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        Self { gzip_min_bytes: 1024 }
    }
}

// === impl Format ===

impl Format {
    /// The exact `Content-Type` of a page.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::OpenMetricsDraft => "application/openmetrics-text; version=0.0.1; charset=utf-8",
        }
    }

    /// Appends the page of a snapshot.
    pub fn write(self, snapshot: &Snapshot, out: &mut Vec<u8>) {
        match self {
            Self::Text => text(snapshot, out),
            Self::OpenMetrics | Self::OpenMetricsDraft => openmetrics(snapshot, out),
        }
    }
}
