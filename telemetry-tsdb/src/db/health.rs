//! How the store is, in numbers that become metrics.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Whether what is written reaches the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Mode {
    /// Yes.
    Durable = 0,
    /// No directory was given: memory is all there is.
    MemoryOnly = 1,
    /// The disk refuses: samples are in memory, nothing is acknowledged, the disk is tried again.
    Degraded = 2,
    /// Opened to be read.
    ReadOnly = 3,
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What has been counted since the store was opened.
        #[derive(Debug, Default)]
        pub struct Counters { $($(#[$doc])* pub $name: AtomicU64,)* }

        impl Counters {
            /// All counters by name.
            #[must_use]
            pub fn all(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.load(Ordering::Relaxed)),)*]
            }
        }
    };
}

counters! {
    /// Samples taken in.
    samples_appended,
    /// Samples that came after their row was packed, and were taken.
    samples_out_of_order,
    /// Refused: another value is there at this time.
    samples_duplicate,
    /// Refused: older than the out-of-order window.
    samples_too_old,
    /// Refused: too far ahead of the clock.
    samples_too_new,
    /// Refused: the series holds as many late samples as it may.
    samples_late_full,
    /// Put on the overflow series of their family: a cardinality limit was met.
    series_overflowed,
    /// Refused: there are as many groups as there may be.
    groups_refused,
    /// Samples that damage in the log took.
    samples_lost,
    /// Records that damage in the log took.
    log_records_lost,
    /// Owners whose record damage in the log took; their series have the label `lost_owner`.
    owners_lost,
    /// Bytes passed over in the log.
    log_bytes_skipped,
    /// Syncs of the log that failed.
    log_failures,
    /// Times the log was taken up again after a failure.
    log_recoveries,
    /// Windows written to files.
    windows_written,
    /// Writes of windows that failed; they are tried again.
    window_failures,
    /// Windows dropped because the disk refused for too long; nothing in them was ever acknowledged.
    windows_dropped,
    /// Files joined into one.
    blocks_compacted,
    /// Downsampled files written.
    tiers_written,
    /// Joins and downsamplings that failed.
    compaction_failures,
    /// Files removed because of their age or of the size of all.
    blocks_expired,
    /// Files moved to `damaged/`.
    blocks_damaged,
    /// Pages and chunks that could not be read.
    read_failures,
}

/// The state of the store.
#[derive(Debug)]
pub struct Health {
    mode: AtomicU8,
    reason: Mutex<String>,
    /// What has been counted.
    pub counters: Counters,
}

/// A picture of the store.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Series in the head.
    pub series: usize,
    /// Groups.
    pub groups: usize,
    /// Owners that are known.
    pub owners: usize,
    /// Memory of the head's samples.
    pub head_bytes: usize,
    /// Memory of the head's index.
    pub index_bytes: usize,
    /// Bytes of the log.
    pub log_bytes: u64,
    /// Files.
    pub blocks: usize,
    /// Their bytes.
    pub block_bytes: u64,
    /// Samples in files.
    pub block_samples: u64,
    /// Late samples waiting for a file.
    pub late_samples: usize,
    /// Deletions that are not yet applied to all files.
    pub deletions: usize,
}

// === impl Health ===

impl Health {
    pub(super) fn new(mode: Mode) -> Self {
        Self { mode: AtomicU8::new(mode as u8), reason: Mutex::default(), counters: Counters::default() }
    }

    /// Whether what is written reaches the disk.
    #[must_use]
    pub fn mode(&self) -> Mode {
        match self.mode.load(Ordering::Acquire) {
            0 => Mode::Durable,
            1 => Mode::MemoryOnly,
            3 => Mode::ReadOnly,
            _ => Mode::Degraded,
        }
    }

    /// Why it does not, in words; empty while it does.
    #[must_use]
    pub fn reason(&self) -> String {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn degrade(&self, reason: String) {
        self.mode.store(Mode::Degraded as u8, Ordering::Release);
        *self.reason.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }

    pub(super) fn recover(&self) {
        self.mode.store(Mode::Durable as u8, Ordering::Release);
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    pub(super) fn count(&self, counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }
}
