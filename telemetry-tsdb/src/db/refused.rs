//! A disk that refuses: what was acknowledged stays, what comes is in memory and is not, the disk is tried again after
//! pauses that grow, and a full one is given the room that was held for it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::maintain::{House, Work};
use super::record::{self, kind};
use super::writer::Writer;
use super::{Db, Error, Mode};
use crate::fs::Storage;
use crate::head::{Row, Stripe, window_of};
use crate::log::LogError;

/// The file that holds room.
const RESERVE: &str = "reserve";
/// The first pause after a disk refused.
const PAUSE_MIN_NS: u64 = 1_000_000_000;
/// The longest: a disk that has room again is to be used within half a minute.
const PAUSE_MAX_NS: u64 = 16_000_000_000;

/// When a disk that refused is tried again: after a second, then after twice as long each time, up to a limit.
#[derive(Debug, Default)]
pub struct Pause {
    until_ns: u64,
    length_ns: u64,
}

// === impl Pause ===

impl Pause {
    /// Whether the disk may be tried.
    pub(super) fn is_over(&self, now_ns: u64) -> bool {
        now_ns >= self.until_ns
    }

    /// It refused again.
    pub(super) fn grow(&mut self, now_ns: u64) {
        self.length_ns = self.length_ns.saturating_mul(2).clamp(PAUSE_MIN_NS, PAUSE_MAX_NS);
        self.until_ns = now_ns.saturating_add(self.length_ns);
    }

    /// It did what it was asked, or has more room than it had.
    pub(super) fn end(&mut self) {
        *self = Self::default();
    }
}

// === impl Db ===

impl Db {
    /// Tries the disk again, unless it was a moment ago, and bounds what waits for it.
    pub(super) fn recover(&self, house: &mut House, done: i64, now: i64) -> Work {
        let now_ns = self.clock.monotonic_ns();
        let result = house.pause.is_over(now_ns).then(|| self.try_recover(house, done));
        match result {
            Some(Ok(())) => {
                house.pause.end();
                Work::Recovered
            }
            Some(Err(error)) => {
                self.degrade(&mut self.writer(), &error.to_string());
                let has_room = (error.is_full() && self.free_reserve()) || self.make_room(house, now) > 0;
                if has_room {
                    house.pause.end()
                } else {
                    house.pause.grow(now_ns)
                }
                self.bound_waiting(done);
                Work::Failed
            }
            None => {
                self.bound_waiting(done);
                Work::Nothing
            }
        }
    }

    /// Writes the windows that were refused, if it was those, and takes the log up again.
    fn try_recover(&self, house: &mut House, done: i64) -> Result<(), Error> {
        if house.windows_refused {
            self.flush(done)?;
            house.windows_refused = false;
        }
        self.log_anew(&mut self.writer())
    }

    /// Takes the log up again after a failure: a new segment, a checkpoint, and everything in memory that no earlier
    /// segment is known to hold.
    fn log_anew(&self, writer: &mut Writer) -> Result<(), Error> {
        let next = writer.next_sequence;
        if let Err(error) = self.begin_log(writer, next).and_then(|()| self.log_again(writer)) {
            self.stop_log(writer);
            return Err(error);
        }
        self.health.recover();
        writer.unsynced_from = i64::MAX;
        self.durable_through.fetch_max(writer.newest, Relaxed);
        self.health.counters.log_recoveries.fetch_add(1, Relaxed);
        tracing::info!("the log is written again");
        Ok(())
    }

    /// The log was refused. On a full disk the room that was held is given up, and the log is taken up again at once.
    ///
    /// # Errors
    /// If that was not the reason, or not enough: the store is [`Mode::Degraded`] then.
    pub(super) fn log_failed(&self, writer: &mut Writer, error: LogError) -> Result<(), Error> {
        self.health.counters.log_failures.fetch_add(1, Relaxed);
        self.degrade(writer, &error.to_string());
        if error.is_full() && self.free_reserve() {
            return self.log_anew(writer);
        }
        Err(error.into())
    }

    /// Windows were refused: they stay in memory, and in the log. When too many wait there, nothing more is promised
    /// until they are written: a promise is kept in memory as long as it is nowhere else but in a log that grows.
    pub(super) fn windows_failed(&self, house: &mut House, error: &Error, done: i64, now: i64) {
        self.health.counters.window_failures.fetch_add(1, Relaxed);
        tracing::error!(%error, "windows cannot be written; they stay in memory");
        let has_room = (error.is_full() && self.free_reserve()) || self.make_room(house, now) > 0;
        if has_room {
            house.pause.end()
        } else {
            house.pause.grow(self.clock.monotonic_ns())
        }
        let oldest = self.oldest_waiting(done);
        let mut writer = self.writer();
        if writer.groups.iter().any(|group| group.frozen(oldest).next().is_some()) {
            house.windows_refused = true;
            self.degrade(&mut writer, &format!("windows cannot be written: {error}"));
        }
    }

    /// Windows up to this one are more than may wait for the disk.
    fn oldest_waiting(&self, done: i64) -> i64 {
        let waiting = i64::try_from(self.config.waiting_windows_max).unwrap_or(i64::MAX);
        done.saturating_sub(waiting)
    }

    /// While the disk refuses, only so many windows wait in memory. The oldest go of which nothing was ever acknowledged:
    /// what was stays, and is no more than it was when the disk began to refuse.
    fn bound_waiting(&self, done: i64) {
        let through = self.oldest_waiting(done);
        let mut writer = self.writer();
        let acknowledged = window_of(self.durable_through().max(writer.found_through));
        writer.freeze(done);
        let dropped: usize = writer.groups.iter_mut().map(|group| group.forget(acknowledged, through)).sum();
        if dropped > 0 {
            self.health.counters.windows_dropped.fetch_add(dropped as u64, Relaxed);
            tracing::error!(
                dropped,
                "the disk has refused for too long: the oldest windows in memory are gone"
            );
        }
    }

    /// Logs all rows from the oldest on that a sample came to since the last commit, and all late samples. Newer than
    /// what was acknowledged is not enough: another group may be behind, and a row may have been added to.
    pub(super) fn log_again(&self, writer: &mut Writer) -> Result<(), Error> {
        let from = writer.unsynced_from;
        for at in 0..writer.groups.len() {
            let Some(group) = writer.groups.get(at) else { continue };
            let (id, view) = (group.id(), group.view().load_full());
            let frozen = view.frozen.iter().flat_map(|window| window.stripes.iter());
            let stripes: Vec<Arc<Stripe>> = frozen.chain(view.stripes.iter()).cloned().collect();
            for stripe in stripes {
                if stripe.times().last().is_some_and(|t| *t >= from) {
                    for row in stripe.rows().into_iter().filter(|row| row.t >= from) {
                        writer.log_whole_row(id, &row);
                    }
                    self.commit_log(writer)?;
                }
            }
            let staged: Vec<Row> =
                view.rows.iter().filter(|row| row.t >= from).map(|row| Row::clone(row)).collect();
            staged.iter().for_each(|row| writer.log_whole_row(id, row));
        }
        let mut body = Vec::new();
        for (series, list) in self.late.all() {
            body.clear();
            list.iter().for_each(|(t, sample)| record::put_sample(&mut body, series, *t, sample));
            writer.log_record(kind::SAMPLES, &body);
        }
        self.commit_log(writer)
    }

    fn commit_log(&self, writer: &mut Writer) -> Result<(), Error> {
        writer.log.as_mut().map_or(Ok(()), |log| Ok(log.commit()?))
    }

    /// Holds room for a full disk while there is more than that.
    pub(super) fn hold_reserve(&self) {
        let Some(storage) = self.storage.as_ref().filter(|_| self.config.reserve_bytes > 0) else { return };
        if self.has_reserve.load(Relaxed) || self.health.mode() != Mode::Durable {
            return;
        }
        let bytes = self.config.reserve_bytes;
        let least = self.config.free_floor_bytes.saturating_add(bytes.saturating_mul(2));
        if storage.free_bytes().is_none_or(|free| free < least) {
            return;
        }
        match storage.reserve(Path::new(RESERVE), bytes) {
            Ok(()) => self.has_reserve.store(true, Relaxed),
            Err(error) => tracing::debug!(%error, "no room can be held for a full disk"),
        }
    }

    /// Finds what the last process held; half of it is removed.
    pub(super) fn find_reserve(&self, storage: &dyn Storage) {
        let path = Path::new(RESERVE);
        let Ok(len) = storage.open(path).and_then(|file| file.len()) else { return };
        if len == self.config.reserve_bytes && len > 0 {
            self.has_reserve.store(true, Relaxed);
        } else if let Err(error) = storage.remove(path) {
            tracing::warn!(%error, "the old reserve cannot be removed");
        }
    }

    /// Gives the room that was held to whoever needs it now; false if there is none.
    pub(super) fn free_reserve(&self) -> bool {
        let Some(storage) = self.storage.as_ref().filter(|_| self.has_reserve.swap(false, Relaxed)) else {
            return false;
        };
        let removed = storage.remove(Path::new(RESERVE)).and_then(|()| storage.sync_dir(Path::new("")));
        match &removed {
            Ok(()) => tracing::warn!("the disk is full: the reserve is given up"),
            Err(error) => tracing::error!(%error, "the reserve cannot be given up"),
        }
        removed.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_limit_and_end() {
        let mut pause = Pause::default();
        assert!(pause.is_over(0), "the first try is at once");
        let (mut now, mut lengths) = (0, Vec::new());
        for _ in 0..7 {
            pause.grow(now);
            let from = now;
            while !pause.is_over(now) {
                now += 500_000_000;
            }
            lengths.push((now - from) / 1_000_000_000);
        }
        assert_eq!(lengths, [1, 2, 4, 8, 16, 16, 16]);
        pause.end();
        assert!(pause.is_over(now));
    }
}
