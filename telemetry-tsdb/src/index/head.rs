//! The index of the series that are in memory: label sets by number, postings by label value.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use ahash::RandomState;
use hashbrown::HashTable;
use roaring::RoaringBitmap;

use super::owners::{OwnersView, labels_of};
use super::postings::Posting;
use super::symbols::{Symbol, Symbols};
use super::{CompiledMatcher, LabelPairs, LimitExceeded, Limits, NAME, OVERFLOW, OwnerRef, SeriesId, merge};

/// Removed series that may stay in the tables before they are built anew: as many as live ones, or this.
const REBUILD_FROM: usize = 4096;

/// The index of the head. One writer, under the store's lock; readers take a read lock for the time of a selection.
pub struct HeadIndex {
    inner: RwLock<Inner>,
    limits: Limits,
}

#[derive(Default)]
struct Inner {
    symbols: Symbols,
    /// In the order of their numbers.
    entries: Vec<Entry>,
    labels: Vec<(Symbol, Symbol)>,
    by_labels: HashTable<u32>,
    postings: HashMap<Symbol, HashMap<Symbol, Posting, RandomState>, RandomState>,
    by_owner: HashMap<OwnerRef, Posting, RandomState>,
    all: RoaringBitmap,
    next: SeriesId,
    removed: usize,
    hasher: RandomState,
}

#[derive(Clone, Copy)]
struct Entry {
    id: SeriesId,
    owner: OwnerRef,
    first: u32,
    len: u16,
    is_live: bool,
}

// === impl HeadIndex ===

impl HeadIndex {
    /// An empty index.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { inner: RwLock::default(), limits }
    }

    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of the series with these labels and this owner; true if it is new.
    ///
    /// # Errors
    /// If it would be new and is one too many.
    pub fn get_or_create(
        &self,
        labels: &[(&str, &str)],
        owner: OwnerRef,
    ) -> Result<(SeriesId, bool), LimitExceeded> {
        self.limits.check(labels)?;
        {
            let inner = self.read();
            if let Some(id) = inner.find(labels, owner) {
                return Ok((id, false));
            }
            inner.check(labels, &self.limits)?;
        }
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        let id = inner.next;
        inner.add(id, labels, owner);
        Ok((id, true))
    }

    /// The series that stands in for those of the family beyond its limit.
    pub fn overflow(&self, labels: &[(&str, &str)]) -> Option<(SeriesId, bool)> {
        let family = labels.iter().find(|(name, _)| *name == NAME).map_or("", |(_, value)| value);
        let cut = family.char_indices().map(|(at, c)| at + c.len_utf8());
        let end = cut.take_while(|end| *end <= self.limits.value_bytes).last().unwrap_or(0);
        let stand_in = [(NAME, family.get(..end)?), (OVERFLOW, "true")];
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(id) = inner.find(&stand_in, OwnerRef(0)) {
            return Some((id, false));
        }
        let id = inner.next;
        inner.add(id, &stand_in, OwnerRef(0));
        Some((id, true))
    }

    /// Puts a series back under the number it had.
    pub fn restore(&self, id: SeriesId, labels: &[(&str, &str)], owner: OwnerRef) {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        if inner.entry(id).is_none() {
            inner.add(id, labels, owner);
        }
    }

    /// Numbers below this are not given out any more.
    pub fn skip_to(&self, next: SeriesId) {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        inner.next = inner.next.max(next);
    }

    /// The number the next series gets.
    #[must_use]
    pub fn next(&self) -> SeriesId {
        self.read().next
    }

    /// Forgets series. Their memory is given back once they are many.
    pub fn remove(&self, ids: &[SeriesId]) {
        if ids.is_empty() {
            return;
        }
        let rebuilt = {
            let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
            ids.iter().for_each(|id| inner.remove(*id));
            let live = usize::try_from(inner.all.len()).unwrap_or(0);
            if inner.removed < live.max(REBUILD_FROM) {
                return;
            }
            drop(inner);
            self.read().rebuild()
        };
        *self.inner.write().unwrap_or_else(PoisonError::into_inner) = rebuilt;
    }

    /// A series' own labels and its owner.
    #[must_use]
    pub fn own_labels(&self, id: SeriesId) -> Option<(LabelPairs, OwnerRef)> {
        let inner = self.read();
        let entry = inner.entry(id)?;
        Some((inner.pairs(entry), entry.owner))
    }

    /// All labels of a series.
    #[must_use]
    pub fn labels(&self, id: SeriesId, owners: &OwnersView) -> Option<LabelPairs> {
        let (own, owner) = self.own_labels(id)?;
        Some(merge(own, labels_of(owners, owner)))
    }

    /// All labels of many series.
    #[must_use]
    pub fn labels_of_all(&self, ids: &[SeriesId], owners: &OwnersView) -> Vec<(SeriesId, LabelPairs)> {
        let inner = self.read();
        let labelled = ids.iter().filter_map(|id| {
            let entry = inner.entry(*id)?;
            Some((*id, merge(inner.pairs(entry), labels_of(owners, entry.owner))))
        });
        labelled.collect()
    }

    /// The series that all matchers want.
    #[must_use]
    pub fn select(&self, matchers: &[CompiledMatcher], owners: &OwnersView) -> RoaringBitmap {
        let inner = self.read();
        let mut sets: Vec<RoaringBitmap> = Vec::with_capacity(matchers.len());
        let mut unwanted = RoaringBitmap::new();
        for matcher in matchers {
            if matcher.matches_empty() {
                unwanted |= inner.with_value(matcher, false, owners);
            } else {
                let set = inner.with_value(matcher, true, owners);
                if set.is_empty() {
                    return set;
                }
                sets.push(set);
            }
        }
        sets.sort_by_key(RoaringBitmap::len);
        let wanted = sets.into_iter().reduce(|a, b| a & b);
        wanted.unwrap_or_else(|| inner.all.clone()) - unwanted
    }

    /// Names of all labels of the series that the matchers want, unsorted.
    pub fn label_names(
        &self,
        wanted: &RoaringBitmap,
        owners: &OwnersView,
        out: &mut std::collections::BTreeSet<Arc<str>>,
    ) {
        let inner = self.read();
        for (name, values) in &inner.postings {
            if values.values().any(|posting| posting.intersects(wanted))
                && let Some(name) = inner.symbols.get(*name)
            {
                out.insert(Arc::clone(name));
            }
        }
        for (owner, posting) in &inner.by_owner {
            if posting.intersects(wanted) {
                let named = labels_of(owners, *owner).iter().filter(|(_, value)| !value.is_empty());
                out.extend(named.map(|(name, _)| Arc::clone(name)));
            }
        }
    }

    /// Values of a label among the series that the matchers want.
    pub fn label_values(
        &self,
        label: &str,
        wanted: &RoaringBitmap,
        owners: &OwnersView,
        out: &mut std::collections::BTreeSet<Arc<str>>,
    ) {
        let inner = self.read();
        let own = inner.symbols.find(label).and_then(|name| inner.postings.get(&name));
        for (value, posting) in own.into_iter().flatten() {
            if posting.intersects(wanted)
                && let Some(value) = inner.symbols.get(*value)
            {
                out.insert(Arc::clone(value));
            }
        }
        for (owner, posting) in &inner.by_owner {
            let value =
                labels_of(owners, *owner).iter().find(|(name, value)| &**name == label && !value.is_empty());
            if let Some((_, value)) = value
                && posting.intersects(wanted)
            {
                out.insert(Arc::clone(value));
            }
        }
    }

    /// How many series there are.
    #[must_use]
    pub fn len(&self) -> usize {
        usize::try_from(self.read().all.len()).unwrap_or(usize::MAX)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Memory, about: what the tables hold, without the allocator's own.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let inner = self.read();
        let values = inner
            .postings
            .values()
            .map(|values| values.capacity() * 25 + values.values().map(Posting::bytes).sum::<usize>());
        inner.symbols.bytes()
            + inner.entries.capacity() * size_of::<Entry>()
            + inner.labels.capacity() * 8
            + inner.by_labels.capacity() * 5
            + values.sum::<usize>()
            + inner.by_owner.values().map(|posting| posting.bytes() + 25).sum::<usize>()
            + inner.all.serialized_size()
    }
}

// === impl Inner ===

impl Inner {
    fn entry(&self, id: SeriesId) -> Option<Entry> {
        let at = self.entries.binary_search_by_key(&id, |entry| entry.id).ok()?;
        self.entries.get(at).copied().filter(|entry| entry.is_live)
    }

    fn refs(&self, entry: Entry) -> &[(Symbol, Symbol)] {
        let first = entry.first as usize;
        self.labels.get(first..first + usize::from(entry.len)).unwrap_or(&[])
    }

    fn pairs(&self, entry: Entry) -> LabelPairs {
        let text = |symbol| self.symbols.get(symbol).map_or_else(|| Arc::from(""), Arc::clone);
        self.refs(entry).iter().map(|(name, value)| (text(*name), text(*value))).collect()
    }

    fn hash(&self, refs: &[(Symbol, Symbol)], owner: OwnerRef) -> u64 {
        let mut state = self.hasher.build_hasher();
        refs.hash(&mut state);
        owner.hash(&mut state);
        state.finish()
    }

    fn find(&self, labels: &[(&str, &str)], owner: OwnerRef) -> Option<SeriesId> {
        let refs: Option<Vec<_>> = labels
            .iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| Some((self.symbols.find(name)?, self.symbols.find(value)?)))
            .collect();
        let refs = refs?;
        let entry = |at: u32| self.entries.get(at as usize).copied();
        let same = |at: &u32| {
            entry(*at).is_some_and(|e| e.is_live && e.owner == owner && self.refs(e) == refs.as_slice())
        };
        let at = self.by_labels.find(self.hash(&refs, owner), same)?;
        entry(*at).map(|entry| entry.id)
    }

    fn check(&self, labels: &[(&str, &str)], limits: &Limits) -> Result<(), LimitExceeded> {
        if self.all.len() >= limits.series as u64 {
            return Err(LimitExceeded::Series(limits.series));
        }
        let family = labels.iter().find(|(name, _)| *name == NAME).map_or("", |(_, value)| value);
        let family = self.symbols.find(NAME).zip(self.symbols.find(family));
        let known = family.and_then(|(name, family)| self.postings.get(&name)?.get(&family));
        if known.is_some_and(|posting| posting.len() >= limits.series_per_family) {
            return Err(LimitExceeded::Family(limits.series_per_family));
        }
        Ok(())
    }

    /// Adds a series. A label without value is no label.
    fn add(&mut self, id: SeriesId, labels: &[(&str, &str)], owner: OwnerRef) {
        let mut refs = Vec::with_capacity(labels.len());
        for (name, value) in labels.iter().filter(|(_, value)| !value.is_empty()) {
            refs.push((self.symbols.intern(name), self.symbols.intern(value)));
        }
        self.add_refs(id, &refs, owner);
    }

    fn add_refs(&mut self, id: SeriesId, refs: &[(Symbol, Symbol)], owner: OwnerRef) {
        for (name, value) in refs {
            self.postings
                .entry(*name)
                .or_default()
                .entry(*value)
                .and_modify(|posting| posting.insert(id))
                .or_insert(Posting::One(id));
        }
        if owner != OwnerRef(0) {
            self.by_owner.entry(owner).and_modify(|posting| posting.insert(id)).or_insert(Posting::One(id));
        }
        let first = u32::try_from(self.labels.len()).unwrap_or(u32::MAX);
        self.labels.extend_from_slice(refs);
        let len = u16::try_from(refs.len()).unwrap_or(u16::MAX);
        let entry = Entry { id, owner, first, len, is_live: true };
        self.all.insert(id);
        self.next = self.next.max(id.saturating_add(1));
        let at = self.entries.partition_point(|entry| entry.id < id);
        if self.entries.get(at).is_some_and(|known| known.id == id) || at < self.entries.len() {
            self.insert_in_the_middle(at, entry);
        } else {
            self.entries.push(entry);
        }
        self.enter(u32::try_from(at).unwrap_or(u32::MAX), refs, owner);
    }

    /// Only a replay of a damaged log brings numbers out of order.
    fn insert_in_the_middle(&mut self, at: usize, entry: Entry) {
        if let Some(dead) = self.entries.get_mut(at)
            && dead.id == entry.id
        {
            *dead = entry;
            return;
        }
        self.entries.insert(at, entry);
        let moved = u32::try_from(at).unwrap_or(u32::MAX);
        for known in self.by_labels.iter_mut().filter(|known| **known >= moved) {
            *known += 1;
        }
    }

    fn enter(&mut self, at: u32, refs: &[(Symbol, Symbol)], owner: OwnerRef) {
        let hash = self.hash(refs, owner);
        let mut table = std::mem::take(&mut self.by_labels);
        table.insert_unique(hash, at, |at| {
            let entry = self.entries.get(*at as usize).copied();
            entry.map_or(0, |entry| self.hash(self.refs(entry), entry.owner))
        });
        self.by_labels = table;
    }

    fn remove(&mut self, id: SeriesId) {
        let Some(entry) = self.entry(id) else { return };
        for (name, value) in self.refs(entry).to_vec() {
            if let Some(values) = self.postings.get_mut(&name) {
                if values.get_mut(&value).is_some_and(|posting| posting.remove(id)) {
                    values.remove(&value);
                }
                if values.is_empty() {
                    self.postings.remove(&name);
                }
            }
        }
        if self.by_owner.get_mut(&entry.owner).is_some_and(|posting| posting.remove(id)) {
            self.by_owner.remove(&entry.owner);
        }
        self.all.remove(id);
        if let Ok(at) = self.entries.binary_search_by_key(&id, |entry| entry.id) {
            let hash = self.hash(self.refs(entry), entry.owner);
            let wanted = u32::try_from(at).unwrap_or(u32::MAX);
            if let Ok(found) = self.by_labels.find_entry(hash, |known| *known == wanted) {
                found.remove();
            }
            if let Some(entry) = self.entries.get_mut(at) {
                entry.is_live = false;
            }
        }
        self.removed += 1;
    }

    /// The same index without what was removed.
    fn rebuild(&self) -> Self {
        let mut new = Self { next: self.next, ..Self::default() };
        for entry in self.entries.iter().filter(|entry| entry.is_live) {
            let mut refs = Vec::with_capacity(usize::from(entry.len));
            for (name, value) in self.refs(*entry) {
                if let (Some(name), Some(value)) = (self.symbols.get(*name), self.symbols.get(*value)) {
                    refs.push((new.symbols.share(name), new.symbols.share(value)));
                }
            }
            new.add_refs(entry.id, &refs, entry.owner);
        }
        new
    }

    /// Series that have the label with a value that the matcher wants, or does not want. A series' own label hides its
    /// owner's.
    fn with_value(&self, matcher: &CompiledMatcher, is_wanted: bool, owners: &OwnersView) -> RoaringBitmap {
        let mut found = RoaringBitmap::new();
        let own = self.symbols.find(&matcher.name).and_then(|name| self.postings.get(&name));
        if let Some(values) = own {
            match matcher.literals().filter(|_| is_wanted && !matcher.is_negative) {
                Some(literals) => {
                    let symbols = literals.iter().filter_map(|literal| self.symbols.find(literal));
                    symbols.filter_map(|value| values.get(&value)).for_each(|p| p.add_to(&mut found));
                }
                None => {
                    for (value, posting) in values {
                        if self.symbols.get(*value).is_some_and(|value| matcher.matches(value) == is_wanted) {
                            posting.add_to(&mut found);
                        }
                    }
                }
            }
        }
        let mut owned = RoaringBitmap::new();
        for (owner, posting) in &self.by_owner {
            let value = labels_of(owners, *owner).iter().find(|(name, _)| **name == *matcher.name);
            if value.is_some_and(|(_, value)| !value.is_empty() && matcher.matches(value) == is_wanted) {
                posting.add_to(&mut owned);
            }
        }
        if !owned.is_empty() {
            let mut hidden = RoaringBitmap::new();
            own.into_iter().flatten().for_each(|(_, posting)| posting.add_to(&mut hidden));
            found |= owned - hidden;
        }
        found
    }
}
