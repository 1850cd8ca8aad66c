//! The writer's side of the store: groups, the log, and what is to be logged at the next commit.

use std::collections::HashMap;
use std::sync::{Arc, MutexGuard, PoisonError};

use super::record::{self, kind};
use super::series::SeriesRef;
use super::{Db, histograms};
use crate::head::{Group, GroupId, Packer, Row, Sample};
use crate::index::SeriesId;
use crate::log::{LogWriter, Report, RowEncoder};

/// Rows from one whole row to the next: damage to one record costs at most the rest of these.
pub(super) const ROWS_PER_WHOLE: u32 = 12;

/// What only one thread at a time may touch.
pub struct Writer {
    pub(super) groups: Vec<Group>,
    pub(super) bases: Vec<Base>,
    pub(super) by_key: HashMap<Box<str>, GroupId>,
    pub(super) packer: Packer,
    pub(super) log: Option<LogWriter>,
    /// What the log was like at the start.
    pub(super) found: Report,
    pub(super) rows: RowEncoder,
    pub(super) newest: i64,
    /// The newest sample that the start found: the last process may have promised it.
    pub(super) found_through: i64,
    /// The oldest sample that came since the last commit that went well; `i64::MAX` if none did.
    pub(super) unsynced_from: i64,
    /// The number that the log goes on with after a failure.
    pub(super) next_sequence: u64,
    pub(super) next_series: SeriesId,
    pub(super) next_block: u64,
    /// Segments that begin with a checkpoint: the first sequence, and the windows that no earlier segment knows of.
    pub(super) cuts: Vec<Cut>,
    singles: Vec<u8>,
    amended: Vec<GroupId>,
    body: Vec<u8>,
}

/// The log's view of a group.
#[derive(Clone, Copy, Debug, Default)]
pub struct Base {
    /// The record that the next row may build upon.
    pub(super) sequence: Option<u64>,
    /// The record that its histogram cells may build upon.
    pub(super) histograms: Option<u64>,
    /// Rows since the last whole one.
    pub(super) chained: u32,
}

/// A place where the log can be cut.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    /// The first record behind it: a checkpoint.
    pub(super) sequence: u64,
    /// Once windows up to this one are in files, nothing before the cut is needed.
    pub(super) window: i64,
}

// === impl Db ===

impl Db {
    pub(super) fn writer(&self) -> MutexGuard<'_, Writer> {
        // A panic under the lock can leave a row that was logged but not shown; replay shows it. Nothing else is
        // half done in between.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Writer ===

impl Writer {
    pub(super) fn new() -> Self {
        Self {
            groups: Vec::new(),
            bases: Vec::new(),
            by_key: HashMap::new(),
            packer: Packer::default(),
            log: None,
            found: Report::default(),
            rows: RowEncoder::default(),
            newest: i64::MIN,
            found_through: i64::MIN,
            unsynced_from: i64::MAX,
            next_sequence: 0,
            next_series: 0,
            next_block: 0,
            cuts: Vec::new(),
            singles: Vec::new(),
            amended: Vec::new(),
            body: Vec::new(),
        }
    }

    /// Adds a record to the log, if there is one. It is on disk after the next commit.
    pub(super) fn log_record(&mut self, kind: u8, body: &[u8]) {
        if let Some(log) = self.log.as_mut() {
            log.append(kind, &record::seal(body));
        }
    }

    /// Logs a row that is about to be pushed. Histogram cells go first, in a record of their own: a replay puts them
    /// into the row of floats that follows.
    pub(super) fn log_row(&mut self, group: GroupId, row: &Row) {
        let Some(log) = self.log.as_mut() else { return };
        let (Some(known), Some(base)) =
            (self.groups.get(group.0 as usize), self.bases.get_mut(group.0 as usize))
        else {
            return;
        };
        let is_whole = base.chained >= ROWS_PER_WHOLE || base.sequence.is_none();
        let last = known.last().map(Arc::as_ref).filter(|_| !is_whole);
        if !row.histograms().is_empty() {
            self.body.clear();
            histograms::put_cells(&mut self.body, group, row, base.histograms.zip(last));
            base.histograms = Some(log.append(kind::HISTOGRAMS, &record::seal(&self.body)));
        } else {
            base.histograms = None;
        }
        let (floats, before) = (row.floats(), last.map(Row::floats));
        self.body.clear();
        record::put_row_head(&mut self.body, group, row.t, base.sequence.filter(|_| last.is_some()));
        let before = last.zip(before.as_ref()).map(|(last, present)| (last.values(), present.as_ref()));
        self.rows.encode(before, (row.values(), floats.as_ref()), &mut self.body);
        base.sequence = Some(log.append(kind::ROW, &self.body));
        base.chained = if is_whole { 1 } else { base.chained + 1 };
    }

    /// Notes that a sample of this time was taken in.
    pub(super) fn came(&mut self, t: i64) {
        self.newest = self.newest.max(t);
        self.unsynced_from = self.unsynced_from.min(t);
    }

    /// Logs a row that stands alone.
    pub(super) fn log_whole_row(&mut self, group: GroupId, row: &Row) {
        if let Some(base) = self.bases.get_mut(group.0 as usize) {
            *base = Base::default();
        }
        self.log_row(group, row);
        if let Some(base) = self.bases.get_mut(group.0 as usize) {
            *base = Base::default();
        }
    }

    /// Adds a row to its group.
    pub(super) fn push(&mut self, group: GroupId, row: Row) {
        if let Some(known) = self.groups.get_mut(group.0 as usize) {
            known.push(row, &mut self.packer);
        }
    }

    /// Notes a single sample for the log; the next row of its group is whole, because the row that a difference would
    /// build upon has changed.
    pub(super) fn note_single(&mut self, series: SeriesRef, t: i64, sample: &Sample) {
        self.came(t);
        record::put_sample(&mut self.singles, series.id, t, sample);
        if let Some(base) = self.bases.get_mut(series.group.0 as usize) {
            (base.sequence, base.histograms) = (None, None);
        }
        if self.amended.last() != Some(&series.group) {
            self.amended.push(series.group);
        }
    }

    /// Logs what was noted and shows readers the rows that were changed.
    pub(super) fn flush_singles(&mut self) {
        if !self.singles.is_empty() {
            let singles = std::mem::take(&mut self.singles);
            self.log_record(kind::SAMPLES, &singles);
            self.singles = singles;
            self.singles.clear();
        }
        for group in std::mem::take(&mut self.amended) {
            if let Some(known) = self.groups.get(group.0 as usize) {
                known.publish();
            }
        }
    }

    /// Closes windows up to `number` in all groups.
    pub(super) fn freeze(&mut self, number: i64) {
        for group in &mut self.groups {
            group.freeze(number, &mut self.packer);
        }
    }

    /// Where the log can be cut once windows up to `number` are in files.
    pub(super) fn cut_before(&mut self, number: i64) -> Option<u64> {
        let last = self.cuts.iter().rposition(|cut| cut.window <= number)?;
        let cut = self.cuts.get(last).map(|cut| cut.sequence);
        self.cuts.drain(..last);
        cut
    }

    /// Begins a segment with a checkpoint, so that the log can be cut there later.
    pub(super) fn new_cut(&mut self, db: &Db) -> Result<(), crate::log::LogError> {
        let Some(log) = self.log.as_mut() else { return Ok(()) };
        let sequence = log.rotate()?;
        let newest = self.newest;
        self.bases.iter_mut().for_each(|base| *base = Base::default());
        db.write_checkpoint(self);
        self.cuts.push(Cut { sequence, window: crate::head::window_of(newest) });
        Ok(())
    }
}
