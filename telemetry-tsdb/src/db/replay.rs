//! Taking the log in again after a start.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use telemetry_model::NativeHistogram;

use super::record::{self, kind};
use super::series::SeriesRef;
use super::writer::Writer;
use super::{Db, OpenReport, histograms};
use crate::codec::Bits;
use crate::fs::Storage;
use crate::head::{Amended, GroupId, Placed, Row, Sample, Slot, window_of};
use crate::index::SeriesId;
use crate::log::{self, Record, RowDecoder};
use crate::wire::{Malformed, Reader};

/// What a replay knows between two records.
struct Replay<'a> {
    db: &'a Db,
    writer: &'a mut Writer,
    rows: RowDecoder,
    bases: HashMap<GroupId, Known>,
    /// Windows up to this one are in files.
    written: i64,
    samples: u64,
    lost_samples: u64,
    lost_records: u64,
}

/// The histogram cells of a row: the number of their record, their time, and the cells by slot.
type KnownCells = (u64, i64, Vec<(u32, Arc<NativeHistogram>)>);

/// A group's last row as it was logged.
#[derive(Default)]
struct Known {
    row: Option<(u64, Vec<f64>, Bits)>,
    cells: Option<KnownCells>,
    /// Histogram cells wait for their row of floats.
    is_waiting: bool,
}

// === impl Db ===

impl Db {
    pub(super) fn replay(&self, storage: &dyn Storage, report: &mut OpenReport) -> io::Result<()> {
        let written = self.written_through();
        let mut writer = self.writer();
        let mut replay = Replay {
            db: self,
            writer: &mut writer,
            rows: RowDecoder::default(),
            bases: HashMap::new(),
            written,
            samples: 0,
            lost_samples: 0,
            lost_records: 0,
        };
        report.log = log::replay(storage, |record| replay.take(record))?;
        replay.end();
        report.replayed_samples = replay.samples;
        report.lost_samples = replay.lost_samples;
        let counters = &self.health.counters;
        counters.samples_lost.store(replay.lost_samples, Relaxed);
        counters.log_records_lost.store(report.log.lost_records + replay.lost_records, Relaxed);
        counters.log_bytes_skipped.store(report.log.skipped_bytes, Relaxed);
        if written != i64::MIN {
            // What belongs to a window that is in a file is late.
            writer.freeze(written);
            writer.groups.iter_mut().for_each(|group| group.close_through(written));
        }
        Ok(())
    }
}

// === impl Replay ===

impl Replay<'_> {
    fn take(&mut self, record: Record<'_>) {
        let result = match record.kind {
            kind::ROW => self.row(record.sequence, record.body),
            kind::HISTOGRAMS => {
                record::unseal(record.body).and_then(|body| self.histograms(record.sequence, &body))
            }
            _ => record::unseal(record.body).and_then(|body| self.fact(record.kind, &body)),
        };
        if let Err(error) = result {
            self.lost_records += 1;
            tracing::warn!(sequence = record.sequence, kind = record.kind, %error, "a record of the log is not used");
        }
    }

    fn fact(&mut self, kind: u8, body: &[u8]) -> Result<(), Malformed> {
        let mut r = Reader::new(body);
        match kind {
            kind::SERIES => {
                while !r.is_empty() {
                    self.series(&record::get_series(&mut r)?);
                }
            }
            kind::GROUP => {
                let (id, key) = (GroupId(r.u32()?), r.str()?);
                if id.0 as usize > self.db.config.groups_max {
                    return Err(Malformed("group beyond the limit"));
                }
                if self.writer.groups.len() <= id.0 as usize {
                    self.db.add_group(self.writer, id, key);
                }
            }
            kind::OWNER => {
                let owner = record::get_owner(&mut r)?;
                let _ = self.db.owners.put(owner.owner, owner.bound, &owner.labels);
            }
            kind::SAMPLES => {
                while !r.is_empty() {
                    let (series, t, sample) = record::get_sample(&mut r)?;
                    self.sample(series, t, &sample);
                }
            }
            kind::METADATA => {
                let (family, metadata) = record::get_metadata(&mut r)?;
                let mut all = self.db.metadata.write().unwrap_or_else(std::sync::PoisonError::into_inner);
                all.insert(family.into(), metadata);
            }
            kind::EXEMPLARS => {
                let exemplar = record::get_exemplar(&mut r)?;
                let mut ring = self.db.exemplars.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                if !ring.iter().any(|known| known.series == exemplar.series && known.t == exemplar.t) {
                    ring.push_back(exemplar);
                }
                while ring.len() > self.db.config.exemplars_max {
                    ring.pop_front();
                }
            }
            kind::TOMBSTONE => {
                let tombstone = record::get_tombstone(&mut r)?;
                self.db.add_tombstone(tombstone);
            }
            kind::END => {
                for (group, slot) in record::get_ends(&mut r)? {
                    if let Some(group) = self.writer.groups.get_mut(group.0 as usize) {
                        group.end(slot);
                    }
                }
            }
            kind::CHECKPOINT => {
                let checkpoint = record::get_checkpoint(&mut r)?;
                self.db.index.skip_to(checkpoint.next_series);
                self.db.owners.skip_to(checkpoint.next_owner);
            }
            _ => return Err(Malformed("unknown kind of record")),
        }
        Ok(())
    }

    fn series(&mut self, series: &record::SeriesRecord<'_>) {
        let known = self.db.places.get(series.series);
        if known == Some((series.group, series.slot)) {
            if let Some(group) = self.writer.groups.get_mut(series.group.0 as usize) {
                group.revive(series.slot);
            }
            return;
        }
        if self.writer.groups.len() <= series.group.0 as usize {
            self.db.add_group(self.writer, series.group, &format!("\0lost {}", series.group.0));
        }
        self.db.index.restore(series.series, &series.labels, series.owner);
        self.db.owners.refer(series.owner);
        if let Some(group) = self.writer.groups.get_mut(series.group.0 as usize) {
            // A slot is given on only once its series' windows are in files.
            if let Some(before) = group.series_at(series.slot) {
                self.db.places.remove(std::iter::once(before));
                self.db.index.remove(&[before]);
            }
            group.put(series.series, series.slot);
            self.db.places.put(series.series, series.group, series.slot);
        }
    }

    fn histograms(&mut self, sequence: u64, body: &[u8]) -> Result<(), Malformed> {
        let base = histograms::base_of(body)?;
        let group = GroupId(Reader::new(body).u32()?);
        self.flush_waiting(group);
        let known = self.bases.entry(group).or_default();
        let last = match (base, &known.cells) {
            (None, _) => &[][..],
            (Some(base), Some((sequence, _, cells))) if base == *sequence => cells,
            _ => return Err(Malformed("the histograms it builds upon are lost")),
        };
        let cells = histograms::get_cells(body, last)?;
        known.cells = Some((sequence, cells.t, cells.cells));
        known.is_waiting = true;
        Ok(())
    }

    fn row(&mut self, sequence: u64, body: &[u8]) -> Result<(), Malformed> {
        let mut r = Reader::new(body);
        let (group, t, base) = record::get_row_head(&mut r)?;
        if self.bases.get(&group).is_some_and(|known| known.cells.as_ref().is_some_and(|cells| cells.1 != t))
        {
            self.flush_waiting(group);
        }
        let known = self.bases.entry(group).or_default();
        let before = match (base, &known.row) {
            (None, _) => None,
            (Some(base), Some((sequence, values, present))) if base == *sequence => {
                Some((values.as_slice(), present))
            }
            _ => return Err(Malformed("the row it builds upon is lost")),
        };
        let (values, present) = self.rows.decode(r.rest(), before).map_err(|_| Malformed("row of floats"))?;
        if window_of(t) > self.written {
            let mut row = Row::from_parts(t, values.clone(), present.clone());
            if known.is_waiting
                && let Some((_, _, cells)) = &known.cells
            {
                cells.iter().for_each(|(slot, histogram)| row.set_histogram(*slot, Arc::clone(histogram)));
            }
            known.is_waiting = false;
            known.row = Some((sequence, values, present));
            self.push(group, row);
        } else {
            known.is_waiting = false;
            known.row = Some((sequence, values, present));
        }
        Ok(())
    }

    /// Histogram cells whose row of floats was lost are a row of their own.
    fn flush_waiting(&mut self, group: GroupId) {
        let Some(known) = self.bases.get_mut(&group).filter(|known| known.is_waiting) else { return };
        known.is_waiting = false;
        let Some((_, t, cells)) = &known.cells else { return };
        let mut row = Row::new(*t, 0);
        cells.iter().for_each(|(slot, histogram)| row.set_histogram(*slot, Arc::clone(histogram)));
        if window_of(*t) > self.written {
            self.push(group, row);
        }
    }

    fn push(&mut self, group: GroupId, mut row: Row) {
        let Some(known) = self.writer.groups.get(group.0 as usize) else {
            self.lost_samples += row.samples() as u64;
            return;
        };
        // The record that said whose the slot is was lost. The slot will be given to a series, and what stands in it
        // would be taken for that one's.
        let is_orphan = |slot: &u32| known.series_at(Slot(*slot)).is_none();
        let orphans: Vec<u32> =
            row.present().iter().filter_map(|at| u32::try_from(at).ok()).filter(is_orphan).collect();
        self.lost_samples += orphans.len() as u64;
        orphans.into_iter().for_each(|slot| row.clear(slot));
        self.samples += row.samples() as u64;
        self.writer.newest = self.writer.newest.max(row.t);
        match known.place(row.t) {
            Placed::New => self.writer.push(group, row),
            // Written again after a failure of the disk: every cell is there already, or is one more.
            _ => {
                for slot in row.present().iter().filter_map(|at| u32::try_from(at).ok()) {
                    let series = known_series(self.writer, group, slot);
                    if let (Some(series), Some(sample)) = (series, row.get(slot)) {
                        self.sample(series, row.t, &sample);
                    }
                }
            }
        }
    }

    /// A single sample: it was taken once, so it is taken again, unless a file has it.
    fn sample(&mut self, series: SeriesId, t: i64, sample: &Sample) {
        let Some((group, slot)) = self.db.places.get(series) else {
            self.lost_samples += 1;
            return;
        };
        self.samples += 1;
        self.writer.newest = self.writer.newest.max(t);
        let Some(known) = self.writer.groups.get_mut(group.0 as usize) else { return };
        match known.place(t) {
            Placed::Staged(at) => {
                if known.amend(at, slot, sample) == Amended::Set {
                    known.publish();
                }
            }
            // Files of this range may have it already; of two equal samples one is read.
            Placed::New | Placed::Late => {
                let _ = self.db.insert_late(SeriesRef { id: series, group, slot }, t, sample);
            }
        }
    }

    fn end(&mut self) {
        let groups: Vec<_> = self.bases.keys().copied().collect();
        groups.into_iter().for_each(|group| self.flush_waiting(group));
        let lost = self.db.owners.name_lost();
        self.db.health.counters.owners_lost.store(lost, Relaxed);
    }
}

fn known_series(writer: &Writer, group: GroupId, slot: u32) -> Option<SeriesId> {
    writer.groups.get(group.0 as usize)?.series_at(Slot(slot))
}
