//! Taking samples in: whole rows of a group, and single samples at any time.

use std::sync::atomic::Ordering::Relaxed;

use super::record::{self, kind};
use super::series::SeriesRef;
use super::writer::Writer;
use super::{Db, Error, Mode};
use crate::head::{Amended, GroupId, Placed, Row, Sample, WINDOW_MS, window_of};
use telemetry_model::STALE_MARKER;

/// What became of a row or a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Appended {
    /// Samples that are in the store now, those that were there already among them.
    pub taken: usize,
    /// Samples that were not taken, with their series and the reason.
    pub refused: Vec<(SeriesRef, Refused)>,
}

/// Why a sample was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refused {
    /// Another value is there.
    #[error("duplicate sample for timestamp")]
    Duplicate,
    /// Beyond the out-of-order window.
    #[error("out of bounds: older than the out-of-order window")]
    TooOld,
    /// A clock is wrong.
    #[error("out of bounds: too far ahead of the clock")]
    TooNew,
    /// The series holds as many late samples as it may.
    #[error("too many out-of-order samples of one series")]
    LateFull,
    /// The series has ended; ask for it again.
    #[error("the series has ended")]
    Gone,
    /// The store is for reading.
    #[error("the store is open for reading only")]
    ReadOnly,
}

// === impl Db ===

impl Db {
    /// Takes a row in: samples of one group at one time. The usual way, and the fast one, if the time is newer than
    /// all before.
    pub fn append_row(
        &self,
        group: GroupId,
        t: i64,
        cells: impl IntoIterator<Item = (SeriesRef, Sample)>,
    ) -> Appended {
        let mut writer = self.writer();
        let mut out = Appended::default();
        let placed = writer.groups.get(group.0 as usize).map(|known| known.place(t));
        if self.check_time(t, None).is_err() || placed != Some(Placed::New) || self.is_read_only() {
            for (series, sample) in cells {
                self.append_one(&mut writer, series, t, sample, &mut out);
            }
            self.flush_singles(&mut writer);
            return out;
        }
        let mut others = Vec::new();
        if let Some(known) = writer.groups.get(group.0 as usize) {
            let mut row = Row::new(t, known.slots());
            for (series, sample) in cells {
                if series.group != group {
                    others.push((series, sample));
                } else if known.series_at(series.slot) != Some(series.id) {
                    out.refused.push((series, Refused::Gone));
                } else {
                    match sample {
                        Sample::Float(value) => row.set(series.slot.0, value),
                        Sample::Histogram(histogram) => row.set_histogram(series.slot.0, histogram),
                    }
                }
            }
            let samples = row.samples();
            out.taken += samples;
            self.push_row(&mut writer, group, row);
        }
        for (series, sample) in others {
            self.append_one(&mut writer, series, t, sample, &mut out);
        }
        self.flush_singles(&mut writer);
        self.health.counters.samples_appended.fetch_add(out.taken as u64, Relaxed);
        out
    }

    /// Takes single samples in, in any order.
    pub fn append(&self, samples: impl IntoIterator<Item = (SeriesRef, i64, Sample)>) -> Appended {
        let mut writer = self.writer();
        let mut out = Appended::default();
        for (series, t, sample) in samples {
            self.append_one(&mut writer, series, t, sample, &mut out);
        }
        self.flush_singles(&mut writer);
        self.health.counters.samples_appended.fetch_add(out.taken as u64, Relaxed);
        out
    }

    /// Writes stale markers at `t` and lets the series go: a query does not look further back, and their places are
    /// free once their samples are in a file.
    pub fn end(&self, series: &[SeriesRef], t: i64) {
        let markers = series.iter().map(|series| (*series, t, Sample::Float(STALE_MARKER)));
        self.append(markers);
        let mut writer = self.writer();
        let mut body = Vec::new();
        record::put_ends(&mut body, series.iter().map(|series| (series.group, series.slot)));
        writer.log_record(kind::END, &body);
        for series in series {
            if let Some(group) = writer.groups.get_mut(series.group.0 as usize)
                && group.series_at(series.slot) == Some(series.id)
            {
                group.end(series.slot);
            }
        }
    }

    /// Brings all that was taken in to disk. Everything up to the time returned will be there after any crash.
    ///
    /// # Errors
    /// If the disk refuses. The samples stay readable, the store is [`Mode::Degraded`] and says why, and
    /// [`Db::maintain`] tries the disk again.
    pub fn commit(&self) -> Result<i64, Error> {
        let mut writer = self.writer();
        let newest = writer.newest;
        match self.health.mode() {
            Mode::MemoryOnly | Mode::ReadOnly => return Ok(i64::MIN),
            Mode::Degraded => {
                return Err(Error::Io {
                    operation: "commit".into(),
                    source: std::io::Error::other(self.health.reason()),
                });
            }
            Mode::Durable => {}
        }
        if let Some(log) = writer.log.as_mut()
            && let Err(error) = log.commit()
        {
            self.log_failed(&mut writer, error)?;
        }
        writer.unsynced_from = i64::MAX;
        self.durable_through.fetch_max(newest, Relaxed);
        Ok(newest)
    }

    /// The newest time that will survive a crash; `i64::MIN` before the first commit.
    #[must_use]
    pub fn durable_through(&self) -> i64 {
        self.durable_through.load(Relaxed)
    }

    pub(super) fn is_read_only(&self) -> bool {
        self.health.mode() == Mode::ReadOnly
    }

    /// Stops writing to the log: nothing is acknowledged until it can be taken up again.
    pub(super) fn degrade(&self, writer: &mut Writer, reason: &str) {
        if self.health.mode() == Mode::Degraded {
            tracing::debug!(reason, "the log still cannot be written");
        } else {
            tracing::error!(reason, "the log cannot be written: samples are kept in memory only");
        }
        self.stop_log(writer);
        self.health.degrade(reason.to_owned());
    }

    /// Lets go of a log that was refused; another goes on with its first number that was not promised.
    pub(super) fn stop_log(&self, writer: &mut Writer) {
        if let Some(log) = writer.log.take() {
            writer.next_sequence = log.first_unpromised();
        }
    }

    pub(super) fn push_row(&self, writer: &mut Writer, group: GroupId, row: Row) {
        writer.came(row.t);
        writer.log_row(group, &row);
        writer.push(group, row);
    }

    fn check_time(&self, t: i64, newest: Option<i64>) -> Result<(), Refused> {
        if t > self.clock.now_ms().saturating_add(self.config.future_max_ms) {
            return Err(Refused::TooNew);
        }
        if newest.is_some_and(|newest| newest.saturating_sub(t) > self.config.out_of_order_window_ms) {
            return Err(Refused::TooOld);
        }
        Ok(())
    }

    fn append_one(&self, writer: &mut Writer, series: SeriesRef, t: i64, sample: Sample, out: &mut Appended) {
        match self.try_append(writer, series, t, sample) {
            Ok(()) => out.taken += 1,
            Err(reason) => {
                let counters = &self.health.counters;
                match reason {
                    Refused::Duplicate => counters.samples_duplicate.fetch_add(1, Relaxed),
                    Refused::TooOld => counters.samples_too_old.fetch_add(1, Relaxed),
                    Refused::TooNew => counters.samples_too_new.fetch_add(1, Relaxed),
                    Refused::LateFull => counters.samples_late_full.fetch_add(1, Relaxed),
                    Refused::Gone | Refused::ReadOnly => 0,
                };
                out.refused.push((series, reason));
            }
        }
    }

    fn try_append(
        &self,
        writer: &mut Writer,
        series: SeriesRef,
        t: i64,
        sample: Sample,
    ) -> Result<(), Refused> {
        if self.is_read_only() {
            return Err(Refused::ReadOnly);
        }
        let group = writer.groups.get_mut(series.group.0 as usize).ok_or(Refused::Gone)?;
        // One that has ended is let go of with its window, whatever was added to it: asking for it takes the end back.
        if group.series_at(series.slot) != Some(series.id) || group.is_ended(series.slot) {
            return Err(Refused::Gone);
        }
        let placed = group.place(t);
        let newest = group.last().map(|row| row.t);
        self.check_time(t, if placed == Placed::Late { newest } else { None })?;
        match placed {
            Placed::New => {
                let mut row = Row::new(t, group.slots());
                row.set_sample(series.slot.0, sample);
                self.push_row(writer, series.group, row);
                Ok(())
            }
            Placed::Staged(at) => match group.amend(at, series.slot, &sample) {
                Amended::Same => Ok(()),
                Amended::Refused => Err(Refused::Duplicate),
                Amended::Set => {
                    writer.note_single(series, t, &sample);
                    Ok(())
                }
            },
            Placed::Late => match self.insert_late(series, t, &sample) {
                None => Err(Refused::LateFull),
                Some(Amended::Refused) => Err(Refused::Duplicate),
                Some(Amended::Same) => Ok(()),
                Some(Amended::Set) => {
                    self.health.counters.samples_out_of_order.fetch_add(1, Relaxed);
                    writer.note_single(series, t, &sample);
                    Ok(())
                }
            },
        }
    }

    /// Puts a late sample aside, unless a row or a file has the series at this time.
    pub(super) fn insert_late(&self, series: SeriesRef, t: i64, sample: &Sample) -> Option<Amended> {
        let handles = self.group_handles();
        let view = handles.get(series.group.0 as usize)?.view.load_full();
        let there = super::query::sample_in_view(&view, series, t)
            .or_else(|| super::query::sample_in_files(&self.blocks.load(), series.id, t));
        if let Some(there) = there {
            return Some(if there.same_bits(sample) { Amended::Same } else { Amended::Refused });
        }
        self.late.insert(series.id, t, sample.clone())
    }

    /// Logs what [`Writer::note_single`] gathered and shows readers the amended rows.
    fn flush_singles(&self, writer: &mut Writer) {
        writer.flush_singles();
    }
}

/// The number of the window that is complete at `now` but for stragglers.
pub(super) fn complete_window(now: i64, delay_ms: i64) -> i64 {
    window_of(now.saturating_sub(delay_ms)) - 1
}

/// When a window ends.
pub(super) fn window_end(number: i64) -> i64 {
    number.saturating_add(1).saturating_mul(WINDOW_MS)
}
