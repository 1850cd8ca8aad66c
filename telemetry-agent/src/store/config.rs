//! What an operator may choose about the store.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use telemetry_tsdb::db::{Config as DbConfig, Retention};
use telemetry_tsdb::index::Limits;

/// What is kept, and how long.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Keep nothing on disk.
    pub memory_only: bool,
    /// How long samples are kept as they came.
    #[serde(with = "crate::human_duration")]
    pub retention: Duration,
    /// How long one row a minute is kept.
    #[serde(with = "crate::human_duration")]
    pub retention_1m: Duration,
    /// How long one row every five minutes is kept.
    #[serde(with = "crate::human_duration")]
    pub retention_5m: Duration,
    /// How long one row an hour is kept.
    #[serde(with = "crate::human_duration")]
    pub retention_1h: Duration,
    /// Bytes that all files together may have; 0 sets no limit.
    pub bytes_max: u64,
    /// Free bytes of the disk below which the oldest files go.
    pub free_bytes_min: u64,
    /// How late a sample may be.
    #[serde(with = "crate::human_duration")]
    pub out_of_order_window: Duration,
    /// Series at one time.
    pub series_max: u64,
    /// Series of one family at one time.
    pub series_per_family_max: u64,
}

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        Self {
            memory_only: false,
            retention: Duration::from_secs(24 * 3600),
            retention_1m: Duration::from_secs(7 * 24 * 3600),
            retention_5m: Duration::from_secs(30 * 24 * 3600),
            retention_1h: Duration::from_secs(365 * 24 * 3600),
            bytes_max: 2 << 30,
            free_bytes_min: 64 << 20,
            out_of_order_window: Duration::from_secs(30 * 60),
            series_max: 200_000,
            series_per_family_max: 50_000,
        }
    }
}

impl Config {
    /// The store's own settings.
    #[must_use]
    pub fn settings(&self) -> DbConfig {
        let Self {
            memory_only: _,
            retention,
            retention_1m,
            retention_5m,
            retention_1h,
            bytes_max,
            free_bytes_min,
            out_of_order_window,
            series_max,
            series_per_family_max,
        } = self;
        let count = |n: &u64| usize::try_from(*n).unwrap_or(usize::MAX);
        DbConfig {
            retention: Retention {
                raw_ms: millis(*retention),
                minute_ms: millis(*retention_1m),
                five_minutes_ms: millis(*retention_5m),
                hour_ms: millis(*retention_1h),
            },
            bytes_max: *bytes_max,
            free_floor_bytes: *free_bytes_min,
            out_of_order_window_ms: millis(*out_of_order_window),
            limits: Limits {
                series: count(series_max),
                series_per_family: count(series_per_family_max),
                ..Limits::default()
            },
            ..DbConfig::default()
        }
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
