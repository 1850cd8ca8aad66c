//! Groups, series and owners: what samples belong to.

use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError, RwLock};

use arc_swap::ArcSwap;

use super::record::{self, Metadata, SeriesRecord, kind};
use super::writer::Writer;
use super::{Db, Exemplar};
use crate::head::{Group, GroupId, GroupView, Slot};
use crate::index::{OwnerRef, SeriesId};

/// Characters that an exemplar's labels may have together, as OpenMetrics says.
const EXEMPLAR_CHARS_MAX: usize = 128;

/// A series that samples can be appended to, as long as it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SeriesRef {
    /// Its number.
    pub id: SeriesId,
    /// Its group.
    pub group: GroupId,
    /// Its place there.
    pub slot: Slot,
}

/// What readers know of a group.
#[derive(Clone)]
pub struct GroupHandle {
    pub(super) view: Arc<ArcSwap<GroupView>>,
}

/// Where each series of the head is.
#[derive(Default)]
pub struct Places(RwLock<HashMap<SeriesId, (GroupId, Slot), ahash::RandomState>>);

// === impl Places ===

impl Places {
    /// The place of a series.
    pub(super) fn get(&self, series: SeriesId) -> Option<(GroupId, Slot)> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&series).copied()
    }

    /// The places of many.
    pub(super) fn get_all(&self, series: impl Iterator<Item = SeriesId>) -> Vec<(SeriesId, GroupId, Slot)> {
        let places = self.0.read().unwrap_or_else(PoisonError::into_inner);
        series.filter_map(|id| places.get(&id).map(|(group, slot)| (id, *group, *slot))).collect()
    }

    pub(super) fn put(&self, series: SeriesId, group: GroupId, slot: Slot) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(series, (group, slot));
    }

    pub(super) fn remove(&self, series: impl Iterator<Item = SeriesId>) {
        let mut places = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for id in series {
            places.remove(&id);
        }
        if places.capacity() > 4 * places.len().max(1024) {
            places.shrink_to_fit();
        }
    }
}

// === impl Db ===

impl Db {
    /// The group called `key`, made if there is none. `None`: there are as many as there may be.
    pub fn group(&self, key: &str) -> Option<GroupId> {
        let mut writer = self.writer();
        if let Some(id) = writer.by_key.get(key) {
            return Some(*id);
        }
        if writer.groups.len() >= self.config.groups_max {
            self.health.count(&self.health.counters.groups_refused, 1);
            return None;
        }
        let id = GroupId(u32::try_from(writer.groups.len()).unwrap_or(u32::MAX));
        self.add_group(&mut writer, id, key);
        let mut body = Vec::new();
        record::put_named(&mut body, u64::from(id.0), key);
        writer.log_record(kind::GROUP, &body);
        Some(id)
    }

    pub(super) fn add_group(&self, writer: &mut Writer, id: GroupId, key: &str) {
        let mut handles = self.groups.write().unwrap_or_else(PoisonError::into_inner);
        let mut all = Vec::clone(&handles);
        while all.len() <= id.0 as usize {
            let next = GroupId(u32::try_from(all.len()).unwrap_or(u32::MAX));
            // A number between two known ones belongs to a group whose record was lost.
            let name = if next == id { key.to_owned() } else { format!("\0lost {}", next.0) };
            let group = Group::new(next, &name);
            all.push(GroupHandle { view: group.view() });
            writer.groups.push(group);
            writer.bases.push(Default::default());
            writer.by_key.insert(name.into(), next);
        }
        *handles = Arc::new(all);
    }

    pub(super) fn group_handles(&self) -> Arc<Vec<GroupHandle>> {
        Arc::clone(&self.groups.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The series with these labels (`__name__` among them), made if there is none. It may be in another group than
    /// the one named if it was there first; its samples go there. Beyond a limit of cardinality the overflow series
    /// of the family is returned, and the meeting is counted.
    pub fn series(&self, group: GroupId, labels: &[(&str, &str)], owner: OwnerRef) -> Option<SeriesRef> {
        let mut writer = self.writer();
        let (id, is_new) = match self.index.get_or_create(labels, owner) {
            Ok(found) => found,
            Err(limit) => {
                self.health.counters.series_overflowed.fetch_add(1, Relaxed);
                tracing::debug!(%limit, "cardinality limit");
                self.index.overflow(labels)?
            }
        };
        let known = if is_new { None } else { self.places.get(id) };
        let (group, slot) = match known {
            Some((group, slot)) => {
                let there = writer.groups.get_mut(group.0 as usize)?;
                if !there.is_ended(slot) {
                    return Some(SeriesRef { id, group, slot });
                }
                // It ended and goes on; the log hears of it below.
                there.revive(slot);
                (group, slot)
            }
            None => (group, writer.groups.get_mut(group.0 as usize)?.add(id)),
        };
        self.places.put(id, group, slot);
        let (labels, owner) = self.index.own_labels(id)?;
        let labels: Vec<_> = labels.iter().map(|(name, value)| (&**name, &**value)).collect();
        let mut body = Vec::new();
        record::put_series(&mut body, &SeriesRecord { series: id, group, slot, owner, labels });
        writer.log_record(kind::SERIES, &body);
        writer.next_series = writer.next_series.max(id + 1);
        Some(SeriesRef { id, group, slot })
    }

    /// A new owner, known by what is known of it so far.
    pub fn create_owner(&self, labels: &[(&str, &str)]) -> OwnerRef {
        let mut writer = self.writer();
        let owner = self.owners.create(labels);
        let mut body = Vec::new();
        record::put_owner(&mut body, owner, false, labels);
        writer.log_record(kind::OWNER, &body);
        owner
    }

    /// Gives an owner its name for good. All its samples, old ones too, are read under it from now on. False: it has
    /// another name already, which stays.
    pub fn bind_owner(&self, owner: OwnerRef, labels: &[(&str, &str)]) -> bool {
        let mut writer = self.writer();
        if self.owners.bind(owner, labels).is_err() {
            return false;
        }
        let mut body = Vec::new();
        record::put_owner(&mut body, owner, true, labels);
        writer.log_record(kind::OWNER, &body);
        true
    }

    /// Says what a family is.
    pub fn set_metadata(&self, family: &str, metadata: Metadata) {
        let mut writer = self.writer();
        let mut all = self.metadata.write().unwrap_or_else(PoisonError::into_inner);
        if all.get(family) == Some(&metadata) {
            return;
        }
        let mut body = Vec::new();
        record::put_metadata(&mut body, family, &metadata);
        writer.log_record(kind::METADATA, &body);
        all.insert(family.into(), metadata);
    }

    /// What is known of families, in the order of their names.
    #[must_use]
    pub fn metadata(&self) -> Vec<(Box<str>, Metadata)> {
        let all = self.metadata.read().unwrap_or_else(PoisonError::into_inner);
        all.iter().map(|(family, metadata)| (family.clone(), metadata.clone())).collect()
    }

    /// Remembers an exemplar; the oldest goes. False: its labels are too long, or the series has one of this time.
    pub fn add_exemplar(&self, exemplar: Exemplar) -> bool {
        let chars = |text: &str| text.chars().count();
        let length: usize = exemplar.labels.iter().map(|(name, value)| chars(name) + chars(value)).sum();
        let mut writer = self.writer();
        let mut ring = self.exemplars.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known = ring.iter().rev().any(|old| old.series == exemplar.series && old.t == exemplar.t);
        if length > EXEMPLAR_CHARS_MAX || is_known || self.config.exemplars_max == 0 {
            return false;
        }
        let mut body = Vec::new();
        record::put_exemplar(&mut body, &exemplar);
        writer.log_record(kind::EXEMPLARS, &body);
        if ring.len() >= self.config.exemplars_max {
            ring.pop_front();
        }
        ring.push_back(exemplar);
        true
    }

    /// The exemplars of a series in a time range.
    #[must_use]
    pub fn exemplars(&self, series: SeriesId, from: i64, to: i64) -> Vec<Exemplar> {
        let ring = self.exemplars.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found: Vec<_> =
            ring.iter().filter(|e| e.series == series && (from..=to).contains(&e.t)).cloned().collect();
        found.sort_by_key(|exemplar| exemplar.t);
        found
    }
}
