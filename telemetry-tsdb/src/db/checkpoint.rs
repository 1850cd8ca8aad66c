//! What stands at the head of a segment that the log may be cut before: everything that later records refer to.

use super::record::{self, Checkpoint, SeriesRecord, kind};
use super::writer::Writer;
use super::{Db, Mode};
use crate::head::Slot;

/// Series in one record: what damage to one record can cost.
const SERIES_PER_RECORD: usize = 1000;

// === impl Db ===

impl Db {
    /// Writes a checkpoint into the log.
    pub(super) fn write_checkpoint(&self, writer: &mut Writer) {
        if self.health.mode() == Mode::MemoryOnly {
            return;
        }
        let mut body = Vec::new();
        let checkpoint = Checkpoint {
            next_series: self.index.next(),
            next_owner: self.owners.next(),
            t: self.clock.now_ms(),
        };
        record::put_checkpoint(&mut body, &checkpoint);
        writer.log_record(kind::CHECKPOINT, &body);
        for (owner, is_bound, labels) in self.owners.all() {
            let labels: Vec<_> = labels.iter().map(|(name, value)| (&**name, &**value)).collect();
            body.clear();
            record::put_owner(&mut body, owner, is_bound, &labels);
            writer.log_record(kind::OWNER, &body);
        }
        let groups: Vec<_> = writer.groups.iter().map(|group| (group.id(), group.key().to_owned())).collect();
        for (id, key) in groups {
            body.clear();
            record::put_named(&mut body, u64::from(id.0), &key);
            writer.log_record(kind::GROUP, &body);
        }
        let places: Vec<_> = writer
            .groups
            .iter()
            .flat_map(|group| group.live().map(|(slot, series)| (group.id(), slot, series)))
            .collect();
        for some in places.chunks(SERIES_PER_RECORD) {
            body.clear();
            for (group, slot, series) in some {
                let Some((labels, owner)) = self.index.own_labels(*series) else { continue };
                let labels = labels.iter().map(|(name, value)| (&**name, &**value)).collect();
                let (group, slot) = (*group, Slot(slot.0));
                record::put_series(&mut body, &SeriesRecord { series: *series, group, slot, owner, labels });
            }
            writer.log_record(kind::SERIES, &body);
        }
        for (family, metadata) in self.metadata() {
            body.clear();
            record::put_metadata(&mut body, &family, &metadata);
            writer.log_record(kind::METADATA, &body);
        }
        for tombstone in self.tombstones.load().iter() {
            body.clear();
            record::put_tombstone(&mut body, tombstone);
            writer.log_record(kind::TOMBSTONE, &body);
        }
        let exemplars = self.exemplars.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for exemplar in exemplars.iter() {
            body.clear();
            record::put_exemplar(&mut body, exemplar);
            writer.log_record(kind::EXEMPLARS, &body);
        }
    }
}
