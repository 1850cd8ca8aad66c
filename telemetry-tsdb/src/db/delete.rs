//! Deletions: gone from every answer at once, from disk as files are joined, and forgotten when none is left to join.

use super::record::{self, Tombstone, kind};
use super::{Db, Error};
use crate::block::BlockMeta;
use crate::head::window_of;
use crate::index::SeriesId;

/// Deletions that are remembered. A query looks at each for every series it reads.
const TOMBSTONES_MAX: usize = 4096;

// === impl Db ===

impl Db {
    /// Deletes a time range of the series that match. They are gone from every answer at once, and from disk once the
    /// file they are in is joined with others. What comes later is not deleted, whatever the range. Returns how many
    /// series it was.
    ///
    /// # Errors
    /// If a matcher or a file cannot be read, or too many deletions are not yet applied.
    pub fn delete(&self, matchers: &[telemetry_model::Matcher], from: i64, to: i64) -> Result<usize, Error> {
        if self.is_read_only() {
            return Err(Error::ReadOnly);
        }
        let selection = self.select(matchers, from, to)?;
        let mut series: Vec<SeriesId> =
            selection.series().iter().flat_map(|selected| selected.ids().iter().copied()).collect();
        series.sort_unstable();
        let count = selection.series().len();
        let mut writer = self.writer();
        let newest = self.blocks.load().iter().map(|found| found.meta().max_t).max();
        let to = to.min(writer.newest.max(newest.unwrap_or(i64::MIN)));
        if count == 0 || from > to {
            return Ok(count);
        }
        let waiting = self.tombstones.load().len();
        if waiting >= TOMBSTONES_MAX {
            return Err(Error::Deletions(waiting));
        }
        let tombstone = Tombstone { from, to, series, files: writer.next_block };
        let mut body = Vec::new();
        record::put_tombstone(&mut body, &tombstone);
        writer.log_record(kind::TOMBSTONE, &body);
        self.add_tombstone(tombstone);
        Ok(count)
    }

    pub(super) fn add_tombstone(&self, tombstone: Tombstone) {
        self.tombstones.rcu(|old| {
            let mut all = Vec::clone(old);
            if !all.contains(&tombstone) && all.len() < TOMBSTONES_MAX {
                all.push(tombstone.clone());
            }
            all
        });
    }

    /// Forgets deletions that every file of their range was made with, or that have no file left.
    pub(super) fn drop_applied_tombstones(&self, now: i64) {
        if self.tombstones.load().is_empty() || !self.are_strays_gone() {
            return;
        }
        let settled = self.settled(now);
        // Under the lock nothing is appended, and no other deletion is made.
        let writer = self.writer();
        let blocks = self.blocks.load();
        self.tombstones.rcu(|old| {
            let is_wanted = |tombstone: &&Tombstone| {
                let Tombstone { from, to, series: _, files } = **tombstone;
                to >= settled
                    || writer.groups.iter().any(|group| group.is_due(window_of(to)))
                    || self.late.has_within(from, to)
                    || blocks.iter().any(|found| {
                        let meta = found.meta();
                        meta.overlaps(from, to) && !is_made_since(meta, files)
                    })
            };
            old.iter().filter(is_wanted).cloned().collect::<Vec<_>>()
        });
    }
}

/// Whether a file was made of others, or all that it was joined of were, when there was no newer file than `files`:
/// deletions of that time were applied to it. Fresh files hold what memory held.
pub(super) fn is_made_since(meta: &BlockMeta, files: u64) -> bool {
    match meta.level {
        0 => false,
        1 => meta.id > files,
        _ => !meta.sources.is_empty() && meta.sources.iter().all(|source| *source > files),
    }
}

/// What is deleted of a series.
pub(super) fn ranges_of(tombstones: &[Tombstone], id: SeriesId) -> Vec<(i64, i64)> {
    let of = |tombstone: &&Tombstone| tombstone.series.binary_search(&id).is_ok();
    tombstones.iter().filter(of).map(|tombstone| (tombstone.from, tombstone.to)).collect()
}
