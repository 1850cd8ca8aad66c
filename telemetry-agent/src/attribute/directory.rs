//! The directory of cgroups: which owner a cgroup's id means, now and for a while after the cgroup's end.
//!
//! The pipeline tells births and deaths as the kernel announces them, has the tree walked at the start and whenever
//! an id is unknown, and asks for owners. Several cgroups can have one owner: nested groups, the two or three
//! hierarchies of a hybrid host, a unit that was restarted. The owner lives as long as the directory remembers any
//! of them. An owner that a path tells may have names too (`naming`): counts then go to the owner of that name. Time
//! comes in as a parameter. Does no I/O and knows no metric but its own counters.

mod described;
mod naming;
mod roster;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use telemetry_model::{CgroupKey, Labels, LateOwner, OwnerKey, Pods};

use super::cgroupfs::{Error, Walked};
use super::owner::Found;
use super::{Config, Owner};

use naming::Pod;
pub use naming::{Details, Refused, Renamed, Wanted};
pub use roster::Change;

/// An owner's number: never given twice in one run, so that a count can never slip to another owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OwnerId(u64);

/// What the directory holds, and what it met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Living cgroups that are known.
    pub cgroups: usize,
    /// Ended cgroups that still resolve.
    pub tombstones: usize,
    /// Owners by path with at least one of either; the four fixed ones are not counted.
    pub owners: usize,
    /// Living cgroups below a container's own, which count as that container.
    pub nested: usize,
    /// Containers and pods whose names are not known, living or remembered.
    pub unnamed: usize,
    /// Owners that were exposed without names, because none came in time.
    pub exposed_unnamed_total: u64,
    /// Those of them whose names came later.
    pub late_bound_total: u64,
    /// New cgroups not remembered, because `paths_max` living ones were known.
    pub limited_paths_total: u64,
    /// Tombstones given up before their time: beyond `tombstones_max`, or to make room for a living cgroup.
    pub limited_tombstones_total: u64,
    /// Walks over the cgroup tree.
    pub walks_total: u64,
    /// Walks that ended with an error.
    pub walk_failures_total: u64,
    /// Cgroups and subtrees that the newest walk left out.
    pub walk_left_out: usize,
    /// Births that a walk saw before, or instead of, the kernel's event.
    pub repaired_births_total: u64,
    /// Deaths that a walk saw before, or instead of, the kernel's event.
    pub repaired_deaths_total: u64,
    /// Counts given to [`OwnerId::UNRESOLVED`] although there was room: their cgroup was gone before it was seen.
    pub unresolved_gone_total: u64,
    /// Counts given to [`OwnerId::UNRESOLVED`] while the directory was full.
    pub unresolved_limit_total: u64,
}

/// Cgroup to owner.
#[derive(Debug)]
pub struct Directory {
    tombstone: Duration,
    tombstones_max: usize,
    paths_max: usize,
    cgroups: HashMap<CgroupKey, Cgroup>,
    /// By time of death: the first is the oldest.
    graves: BTreeMap<GraveKey, Grave>,
    owners: HashMap<OwnerId, Known>,
    ids: HashMap<Owner, OwnerId>,
    /// By UID: names of pods of which any container's are known.
    pods: HashMap<String, Pod>,
    /// What the API server told last, by UID.
    descriptions: Arc<Pods>,
    /// Whether series have the name of their workload.
    has_workload_labels: bool,
    /// Owners whose names are still waited for.
    waiting: BTreeSet<OwnerId>,
    /// Containers that nobody has looked for yet.
    unread: Vec<OwnerId>,
    /// Owners whose series have to move.
    renamed: Vec<Renamed>,
    /// Owners without a cgroup since the last [`Directory::expire`].
    gone: Vec<OwnerId>,
    unresolved: Labels,
    next_owner: u64,
    next_grave: u64,
    stats: Stats,
    /// Counts what a roster shows.
    version: u64,
    /// Cgroups that came and went since the last [`Directory::take_changes`].
    changes: Vec<Change>,
    changes_lost: u64,
}

/// When, and a number that makes it unique.
type GraveKey = (Instant, u64);

/// A cgroup that is remembered.
#[derive(Debug)]
struct Cgroup {
    /// By its path.
    owner: OwnerId,
    /// The newest walk that saw it.
    walk: u64,
    is_nested: bool,
    /// Where its tombstone stands, if it has ended.
    grave: Option<GraveKey>,
}

/// Keeps an owner for a while. Without a key it is that of a cgroup which lives on under another owner's name.
#[derive(Debug)]
struct Grave {
    owner: OwnerId,
    key: Option<CgroupKey>,
}

/// An owner and what keeps it.
#[derive(Debug)]
struct Known {
    owner: Owner,
    labels: Labels,
    /// Living cgroups and graves that mean it; of a named one, the owners by path that have the name.
    references: usize,
    /// Whose its counts are, once its names are known.
    name: Option<OwnerId>,
    /// When the first cgroup of it was born, as far as the kernel's event told.
    born: Option<Instant>,
    /// Since when its names are waited for; none where there are none to wait for any more.
    waits_since: Option<Instant>,
    /// What is known beside names: of a named one that of its newest container, of one by path what the path said.
    details: Option<Arc<Details>>,
    /// Where it was exposed without names.
    late: Option<Arc<LateOwner>>,
}

// === impl OwnerId ===

impl OwnerId {
    /// Kernel threads, and work that no cgroup was charged for.
    pub const KERNEL: Self = Self(0);
    /// Cgroups beyond the kernel side's slots.
    pub const OVERFLOW: Self = Self(1);
    /// Cgroups that nobody could name.
    pub const UNRESOLVED: Self = Self(2);
    /// The root cgroup, whose id is the same in every hierarchy.
    pub const ROOT: Self = Self(3);
    const FIRST_FREE: u64 = 4;
}

// === impl Directory ===

impl Directory {
    /// An empty one: it knows the kernel, the overflow, the unresolved and the root.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let Config { cgroup_root: _, host_root: _, tombstone, tombstones_max, paths_max, workload_labels } =
            config;
        let mut directory = Self {
            tombstone: *tombstone,
            tombstones_max: *tombstones_max,
            paths_max: *paths_max,
            cgroups: HashMap::new(),
            graves: BTreeMap::new(),
            owners: HashMap::new(),
            ids: HashMap::new(),
            pods: HashMap::new(),
            descriptions: Arc::default(),
            has_workload_labels: *workload_labels,
            waiting: BTreeSet::new(),
            unread: Vec::new(),
            renamed: Vec::new(),
            gone: Vec::new(),
            unresolved: Owner::Unresolved.labels(),
            next_owner: OwnerId::FIRST_FREE,
            next_grave: 0,
            stats: Stats::default(),
            version: 0,
            changes: Vec::new(),
            changes_lost: 0,
        };
        for (id, owner) in [
            (OwnerId::KERNEL, Owner::Kernel),
            (OwnerId::OVERFLOW, Owner::Overflow),
            (OwnerId::UNRESOLVED, Owner::Unresolved),
            (OwnerId::ROOT, Owner::of_path(b"/")),
        ] {
            directory.enter(id, owner);
        }
        directory
    }

    /// A cgroup exists since `born`: the kernel said so. Known ones stay as they are; a renamed one changes its owner.
    pub fn born(&mut self, key: CgroupKey, path: &[u8], born: Instant, now: Instant) {
        if self.remember(key, path, Some(born), now) {
            self.note_birth(key);
        }
    }

    /// A cgroup has ended: the kernel said so. It resolves until its tombstone goes.
    pub fn died(&mut self, key: CgroupKey, now: Instant) {
        self.bury(key, now);
    }

    /// The owner of a count; none for a cgroup that is not known, and [`Directory::give_up`] if a walk does not help.
    #[must_use]
    pub fn resolve(&self, owner: OwnerKey) -> Option<OwnerId> {
        match owner {
            OwnerKey::Kernel => Some(OwnerId::KERNEL),
            OwnerKey::Overflow => Some(OwnerId::OVERFLOW),
            OwnerKey::Cgroup(key) if key.is_root() => Some(OwnerId::ROOT),
            OwnerKey::Cgroup(key) => self.cgroups.get(&key).map(|cgroup| self.by_name(cgroup.owner)),
        }
    }

    /// Whether the cgroup has ended, and is remembered.
    #[must_use]
    pub fn is_dead(&self, key: CgroupKey) -> bool {
        self.cgroups.get(&key).is_some_and(|cgroup| cgroup.grave.is_some())
    }

    /// A count whose cgroup stays unknown: counts it and tells the owner it then has.
    pub fn give_up(&mut self) -> OwnerId {
        let total = if self.cgroups.len() >= self.paths_max {
            &mut self.stats.unresolved_limit_total
        } else {
            &mut self.stats.unresolved_gone_total
        };
        *total += 1;
        OwnerId::UNRESOLVED
    }

    /// The labels of an owner; those of the unresolved for one that has expired.
    #[must_use]
    pub fn labels(&self, id: OwnerId) -> &Labels {
        self.owners.get(&id).map_or(&self.unresolved, |known| &known.labels)
    }

    /// The owner behind a number, unless it has expired.
    #[must_use]
    pub fn owner(&self, id: OwnerId) -> Option<&Owner> {
        self.owners.get(&id).map(|known| &known.owner)
    }

    /// Lets tombstones go that are over their time or over their number, and tells the owners that went with them.
    /// Called once a tick, after the tick's counts were resolved.
    #[must_use = "the series of these owners must go too"]
    pub fn expire(&mut self, now: Instant) -> Vec<OwnerId> {
        while let Some((&(died, _), _)) = self.graves.first_key_value() {
            let is_due = now.saturating_duration_since(died) >= self.tombstone;
            if !is_due && self.graves.len() <= self.tombstones_max {
                break;
            }
            self.stats.limited_tombstones_total += u64::from(!is_due);
            self.forget_oldest();
        }
        std::mem::take(&mut self.gone)
    }

    /// Takes in what a walk finds, and marks as ended what a whole walk does not find and no event has told of.
    /// `walk` gets the limit and the visitor, as [`super::Mounts::walk`] does.
    ///
    /// # Errors
    /// Those of the walk. What it found before stays known, and nothing is marked as ended.
    pub fn refresh(
        &mut self,
        now: Instant,
        walk: impl FnOnce(usize, &mut dyn FnMut(CgroupKey, &[u8])) -> Result<Walked, Error>,
    ) -> Result<Walked, Error> {
        let is_first = self.stats.walks_total == 0;
        self.stats.walks_total += 1;
        let this_walk = self.stats.walks_total;
        let result = walk(self.paths_max, &mut |key, path| {
            let is_new = self.remember(key, path, None, now);
            if is_new && !is_first {
                self.stats.repaired_births_total += 1;
                self.note_birth(key);
            }
            if let Some(cgroup) = self.cgroups.get_mut(&key) {
                cgroup.walk = this_walk;
            }
        });
        let walked = result.inspect_err(|_| self.stats.walk_failures_total += 1)?;
        self.stats.walk_left_out = walked.left_out;
        if walked.left_out == 0 {
            self.bury_unseen(this_walk, now);
        }
        Ok(walked)
    }

    /// What the directory holds, and what it met.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let ended = self.cgroups.values().filter(|cgroup| cgroup.grave.is_some()).count();
        let is_nested = |cgroup: &&Cgroup| cgroup.grave.is_none() && cgroup.is_nested;
        let is_by_path = |(id, known): &(&OwnerId, &Known)| {
            id.0 >= OwnerId::FIRST_FREE && !matches!(known.owner, Owner::Named(_))
        };
        let is_unnamed = |known: &&Known| {
            matches!(&known.owner, Owner::Container { pod_uid, .. } if !pod_uid.is_empty())
                && known.name.is_none()
        };
        Stats {
            cgroups: self.cgroups.len() - ended,
            tombstones: ended,
            owners: self.owners.iter().filter(is_by_path).count(),
            nested: self.cgroups.values().filter(is_nested).count(),
            unnamed: self.owners.values().filter(is_unnamed).count(),
            ..self.stats
        }
    }

    /// Whether the cgroup was not known as living before.
    fn remember(&mut self, key: CgroupKey, path: &[u8], born: Option<Instant>, now: Instant) -> bool {
        let Found { owner, qos, runtime, is_nested } = Found::of_path(path);
        self.version += u64::from(
            self.cgroups
                .get(&key)
                .is_none_or(|known| known.grave.is_some() || self.ids.get(&owner) != Some(&known.owner)),
        );
        let details = || Details { qos, runtime, ..Details::default() };
        if let Some(cgroup) = self.cgroups.get(&key) {
            let (before, grave) = (cgroup.owner, cgroup.grave);
            if self.ids.get(&owner) == Some(&before) {
                if let Some(grave) = grave {
                    // The reference passes from the grave back to the cgroup.
                    self.graves.remove(&grave);
                    self.cgroups.insert(key, Cgroup { owner: before, walk: 0, is_nested, grave: None });
                }
                return grave.is_some();
            }
            // Its former owner keeps a grave of its own, the old one or a new one.
            match grave.and_then(|grave| self.graves.get_mut(&grave)) {
                Some(grave) => grave.key = None,
                None => drop(self.dig(Grave { owner: before, key: None }, now)),
            }
            let owner = self.reference(owner, details, born, now);
            self.cgroups.insert(key, Cgroup { owner, walk: 0, is_nested, grave: None });
            return grave.is_some();
        }
        while self.cgroups.len() >= self.paths_max {
            if !self.forget_oldest() {
                self.stats.limited_paths_total += 1;
                return false;
            }
            self.stats.limited_tombstones_total += 1;
        }
        let owner = self.reference(owner, details, born, now);
        self.cgroups.insert(key, Cgroup { owner, walk: 0, is_nested, grave: None });
        true
    }

    fn bury(&mut self, key: CgroupKey, now: Instant) {
        let Some(owner) =
            self.cgroups.get(&key).filter(|cgroup| cgroup.grave.is_none()).map(|cgroup| cgroup.owner)
        else {
            return;
        };
        let grave = self.dig(Grave { owner, key: Some(key) }, now);
        if let Some(cgroup) = self.cgroups.get_mut(&key) {
            cgroup.grave = Some(grave);
        }
        self.note_death(key, owner);
    }

    fn bury_unseen(&mut self, walk: u64, now: Instant) {
        let is_unseen = |cgroup: &Cgroup| cgroup.grave.is_none() && cgroup.walk != walk;
        let unseen: Vec<_> =
            self.cgroups.iter().filter(|(_, cgroup)| is_unseen(cgroup)).map(|(key, _)| *key).collect();
        for key in unseen {
            self.stats.repaired_deaths_total += 1;
            self.bury(key, now);
        }
    }

    /// Makes a grave, which takes over a reference to its owner.
    fn dig(&mut self, grave: Grave, now: Instant) -> GraveKey {
        // Renames make graves without ending a cgroup; they too are bounded.
        if self.graves.len() >= self.paths_max {
            self.stats.limited_tombstones_total += u64::from(self.forget_oldest());
        }
        let at = (now, self.next_grave);
        self.next_grave += 1;
        self.graves.insert(at, grave);
        at
    }

    /// Whether there was a grave to forget.
    fn forget_oldest(&mut self) -> bool {
        let Some((_, grave)) = self.graves.pop_first() else {
            return false;
        };
        if let Some(key) = grave.key {
            self.cgroups.remove(&key);
        }
        self.release(grave.owner);
        true
    }

    /// The owner by path, with one reference more; new ones begin to wait for their names.
    fn reference(
        &mut self,
        owner: Owner,
        details: impl FnOnce() -> Details,
        born: Option<Instant>,
        now: Instant,
    ) -> OwnerId {
        if let Some(&id) = self.ids.get(&owner)
            && let Some(known) = self.owners.get_mut(&id)
        {
            known.references += 1;
            return id;
        }
        let id = OwnerId(self.next_owner);
        self.next_owner += 1;
        self.enter(id, owner);
        self.wait_for_names(id, details, born, now);
        id
    }

    fn enter(&mut self, id: OwnerId, owner: Owner) {
        self.ids.insert(owner.clone(), id);
        let known = Known {
            labels: owner.labels(),
            owner,
            references: 1,
            name: None,
            born: None,
            waits_since: None,
            details: None,
            late: None,
        };
        self.owners.insert(id, known);
    }

    fn release(&mut self, id: OwnerId) {
        let Some(known) = self.owners.get_mut(&id) else {
            debug_assert!(false, "a reference to an owner that is not there");
            return;
        };
        known.references -= 1;
        if known.references == 0
            && let Some(known) = self.owners.remove(&id)
        {
            self.version += 1;
            self.ids.remove(&known.owner);
            self.gone.push(id);
            self.forget_name(id, &known);
        }
    }
}

#[cfg(test)]
mod tests;
