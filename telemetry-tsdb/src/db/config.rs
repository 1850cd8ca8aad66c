//! What can be set about a store, with the limits it lives by.

use crate::index::Limits;

const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;
const DAY_MS: i64 = 24 * HOUR_MS;

/// Everything that can be set about a store.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// How far behind its group's newest row a sample may be and still be taken; 0 refuses all late samples.
    pub out_of_order_window_ms: i64,
    /// How far ahead of the clock a sample may be. Beyond it a wrong clock would hold windows open.
    pub future_max_ms: i64,
    /// How long what is kept.
    pub retention: Retention,
    /// Bytes that all files together may have; 0 sets no limit. Oldest files go first.
    pub bytes_max: u64,
    /// Free bytes below which the oldest files go, one after the other.
    pub free_floor_bytes: u64,
    /// Room that is held by a file as long as there is more, and given to the log and to windows when the disk is full:
    /// what is in memory then still reaches the disk. 0 holds none.
    pub reserve_bytes: u64,
    /// Time after a window's end before it is written: rows that are a little late still get in.
    pub flush_delay_ms: i64,
    /// Complete windows that may wait in memory while the disk refuses them. With more, nothing more is acknowledged;
    /// what was stays, and of the rest the oldest are dropped and counted.
    pub waiting_windows_max: usize,
    /// Exemplars that are kept.
    pub exemplars_max: usize,
    /// Groups of series: collector passes, scrape targets, senders.
    pub groups_max: usize,
    /// Cardinality.
    pub limits: Limits,
    /// Whether files are joined and downsampled. Off, fresh windows stay as they are.
    pub compaction: bool,
}

/// How long samples are kept, by the distance between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    /// As they came.
    pub raw_ms: i64,
    /// One a minute.
    pub minute_ms: i64,
    /// One every five minutes.
    pub five_minutes_ms: i64,
    /// One an hour.
    pub hour_ms: i64,
}

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        Self {
            out_of_order_window_ms: 30 * MINUTE_MS,
            future_max_ms: 10 * MINUTE_MS,
            retention: Retention::default(),
            bytes_max: 0,
            free_floor_bytes: 64 << 20,
            reserve_bytes: 16 << 20,
            flush_delay_ms: 30_000,
            waiting_windows_max: 24,
            exemplars_max: 16_384,
            groups_max: 4096,
            limits: Limits::default(),
            compaction: true,
        }
    }
}

// === impl Retention ===

impl Default for Retention {
    fn default() -> Self {
        Self { raw_ms: DAY_MS, minute_ms: 7 * DAY_MS, five_minutes_ms: 30 * DAY_MS, hour_ms: 365 * DAY_MS }
    }
}

impl Retention {
    /// How long files of a tier are kept; tier 0 is raw.
    #[must_use]
    pub fn of_tier(&self, tier_ms: i64) -> i64 {
        match tier_ms {
            0 => self.raw_ms,
            MINUTE_MS => self.minute_ms,
            HOUR_MS => self.hour_ms,
            _ => self.five_minutes_ms,
        }
    }
}
