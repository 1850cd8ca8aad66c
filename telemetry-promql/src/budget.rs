//! What one query may use, and the flag that stops it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::error::QueryError;

/// Limits of one query.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Steps of a range query: as Prometheus, 11,000.
    pub steps: u64,
    /// Samples read from the source: 50 million, as Prometheus holds at most.
    pub samples: u64,
    /// Series read from the source.
    pub series: u64,
    /// Bytes held at once: columns, the label sets and texts made for them, and the answer.
    pub bytes: u64,
    /// Points in the answer.
    pub points: u64,
    /// From the start to the answer.
    pub time: Duration,
}

/// What a query has used so far. Shared by its threads.
#[derive(Debug)]
pub struct Budget {
    limits: Limits,
    deadline: Option<Instant>,
    canceled: Arc<AtomicBool>,
    samples_total: AtomicU64,
    samples_read: AtomicU64,
    samples_peak: AtomicU64,
    series: AtomicU64,
    held: AtomicU64,
}

// === impl Limits ===

impl Default for Limits {
    fn default() -> Self {
        Self {
            steps: 11_000,
            samples: 50_000_000,
            series: 100_000,
            bytes: 64 << 20,
            points: 5_000_000,
            time: Duration::from_secs(30),
        }
    }
}

// === impl Budget ===

impl Budget {
    /// A budget whose time begins now. Setting `canceled` stops the query.
    #[must_use]
    pub fn new(limits: Limits, canceled: Arc<AtomicBool>) -> Self {
        Self {
            limits,
            deadline: Instant::now().checked_add(limits.time),
            canceled,
            samples_total: AtomicU64::new(0),
            samples_read: AtomicU64::new(0),
            samples_peak: AtomicU64::new(0),
            series: AtomicU64::new(0),
            held: AtomicU64::new(0),
        }
    }

    /// The limits.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Whether to go on. Cheap; to be called at least every few thousand windows.
    ///
    /// # Errors
    /// If the query is to stop.
    pub fn check(&self) -> Result<(), QueryError> {
        if self.canceled.load(Ordering::Relaxed) {
            return Err(QueryError::canceled());
        }
        if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Err(QueryError::timeout());
        }
        Ok(())
    }

    /// Counts series that were found.
    ///
    /// # Errors
    /// If there are too many.
    pub fn series(&self, count: usize) -> Result<(), QueryError> {
        let count = count as u64;
        let all = self.series.fetch_add(count, Ordering::Relaxed).saturating_add(count);
        if all > self.limits.series {
            let limit = self.limits.series;
            return Err(QueryError::execution(format!("query would read {all} series, more than {limit}")));
        }
        Ok(())
    }

    /// Counts samples that were read.
    ///
    /// # Errors
    /// If there are too many.
    pub fn samples(&self, count: usize) -> Result<(), QueryError> {
        let count = count as u64;
        let all = self.samples_read.fetch_add(count, Ordering::Relaxed).saturating_add(count);
        if all > self.limits.samples { Err(QueryError::too_many_samples()) } else { Ok(()) }
    }

    /// Counts samples that were looked at.
    pub fn looked_at(&self, count: usize) {
        self.samples_total.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// Says how many bytes of columns are held now, or about to be.
    ///
    /// # Errors
    /// If they are too many.
    pub fn hold(&self, bytes: usize) -> Result<(), QueryError> {
        let bytes = bytes as u64;
        self.held.store(bytes, Ordering::Relaxed);
        self.samples_peak.fetch_max(bytes / 8, Ordering::Relaxed);
        self.fits(bytes)
    }

    /// Whether so many bytes more could be held for a moment beside what is held: what a source reads of one series, what is
    /// made of it. To be asked before they are taken, by every thread.
    ///
    /// # Errors
    /// If they are too many.
    pub fn room(&self, bytes: usize) -> Result<(), QueryError> {
        self.fits(self.held.load(Ordering::Relaxed).saturating_add(bytes as u64))
    }

    fn fits(&self, bytes: u64) -> Result<(), QueryError> {
        if bytes > self.limits.bytes {
            let limit = self.limits.bytes;
            let message = format!("query would hold {bytes} bytes of intermediate values, more than {limit}");
            return Err(QueryError::execution(message));
        }
        Ok(())
    }

    /// What was used.
    #[must_use]
    pub fn stats(&self) -> crate::value::Stats {
        crate::value::Stats {
            samples_total: self.samples_total.load(Ordering::Relaxed),
            samples_read: self.samples_read.load(Ordering::Relaxed),
            samples_peak: self.samples_peak.load(Ordering::Relaxed),
            series_read: self.series.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn budget(limits: Limits) -> Budget {
        Budget::new(limits, Arc::default())
    }

    #[test]
    fn every_limit_is_met() {
        let small = Limits { samples: 10, series: 2, bytes: 100, ..Limits::default() };
        let used = budget(small);
        assert!(used.samples(10).is_ok() && used.series(2).is_ok());
        let error = used.samples(1).unwrap_err();
        assert_eq!(
            error.message,
            "query processing would load too many samples into memory in query execution"
        );
        assert!(used.series(1).is_err());
        assert!(used.hold(100).is_ok() && used.hold(101).is_err());
        assert!(used.hold(90).is_ok() && used.room(10).is_ok() && used.room(11).is_err());
        assert!(used.room(10).is_ok(), "asking takes nothing");
    }

    #[test]
    fn a_flag_and_a_deadline_stop_it() {
        let late = budget(Limits { time: Duration::ZERO, ..Limits::default() });
        assert_eq!(late.check().unwrap_err().kind, ErrorKind::Timeout);
        let flag = Arc::new(AtomicBool::new(false));
        let used = Budget::new(Limits::default(), Arc::clone(&flag));
        assert!(used.check().is_ok());
        flag.store(true, Ordering::Relaxed);
        assert_eq!(used.check().unwrap_err().message, "query was canceled in expression evaluation");
    }
}
