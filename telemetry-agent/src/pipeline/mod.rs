//! The tick: read what the kernel counted, give it names, add it up, publish it.
//!
//! Names come in between ticks, as cgroups are made; counts whose cgroup has no name yet wait one tick for it. Knows
//! signals and owners; knows no hook, no map and no format.

mod audit;
mod changes;
mod metrics;
mod series;

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use telemetry_model::clock::Timestamp;
use telemetry_model::{Batch, CgroupKey, Family, OwnerKey, Pods, Row, Snapshot};

use crate::attribute::{self, Directory, Mounts, Namer, OwnTree, OwnerId};
use crate::journal::Journal;
use crate::signal::{CgroupEvent, Drains};
use crate::store::Latest;

use audit::Audit;
pub use metrics::METRICS;
use metrics::Metrics;
use series::{OwnerView, Totals};

/// Rows that may wait for a name: a tick's worth on a full node.
const PENDING_MAX: usize = 65_536;
/// Cgroups remembered as nameless, so that each is looked for once.
const NAMELESS_MAX: usize = 4096;
/// Series at one time, about 300 bytes each and 1.3 KB for a histogram: 110 pods have 10,000.
const SERIES_MAX: usize = 100_000;
/// Events taken in one go before the tick is looked at again.
const EVENTS_AT_ONCE: usize = 4096;
/// How long counts of a container wait for its names before they are shown under its ids. Names take milliseconds; a
/// file that is not there after this may never be.
const NAME_PATIENCE: Duration = Duration::from_secs(2);

/// Whatever adds families of its own to every snapshot: the process, the HTTP side, the build.
pub type Source = Box<dyn FnMut() -> Vec<Family> + Send>;

/// Says what the API server told of the node's pods since it was asked last, if anything.
pub type News = Box<dyn FnMut() -> Option<Arc<Pods>> + Send>;

/// What the pipeline is made of.
pub struct Parts {
    /// The kernel side.
    pub drains: Drains,
    /// Who is who.
    pub directory: Directory,
    /// Who finds containers' names.
    pub namer: Namer,
    /// What the API server tells of pods.
    pub news: News,
    /// Where cgroups are found.
    pub mounts: Mounts,
    /// Which of them are this node's.
    pub own: OwnTree,
    /// Where the values go.
    pub latest: Arc<Latest>,
    /// Where it is told which cgroups came and went.
    pub journal: Arc<Journal>,
    /// What else is said with every tick.
    pub sources: Vec<Source>,
}

/// Reads, names, adds up, publishes.
pub struct Pipeline {
    parts: Parts,
    totals: Totals,
    metrics: Metrics,
    audit: Audit,
    /// Rows whose cgroup had no owner in the last tick, or whose owner waits for its names.
    pending: Vec<Row>,
    nameless: HashSet<CgroupKey>,
    nameless_order: VecDeque<CgroupKey>,
    /// Announcements that were lost when the tree was last read.
    events_lost: u64,
    /// The directory's version that the newest list of owners shows.
    roster_version: Option<u64>,
}

// === impl Pipeline ===

impl Pipeline {
    /// Learns the cgroups that exist, and reads the cells for the first time.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let mut pipeline = Self {
            totals: Totals::new(SERIES_MAX),
            parts,
            audit: Audit::new(),
            metrics: Metrics::new(Timestamp::of(SystemTime::now())),
            pending: Vec::new(),
            nameless: HashSet::new(),
            nameless_order: VecDeque::new(),
            events_lost: 0,
            roster_version: None,
        };
        let now = Instant::now();
        pipeline.walk(now);
        // Every container that is there, each once: the first page shows nobody under its ids who has a name.
        while pipeline.parts.namer.work(&mut pipeline.parts.directory, now) {}
        pipeline
    }

    /// Waits for `at_most`, or less if cgroups come or go or a name is looked for again, and takes their names in.
    pub fn learn(&mut self, at_most: Duration) {
        let due = self.parts.namer.next_due().map(|due| due.saturating_duration_since(Instant::now()));
        self.parts.drains.wait(due.map_or(at_most, |due| due.min(at_most)));
        self.hear(Instant::now());
    }

    /// One tick, `lag` after it was due.
    pub fn tick(&mut self, lag: Duration) {
        let now = Instant::now();
        let at = Timestamp::of(SystemTime::now());
        self.hear(now);
        self.repair(now);
        let mut batch = Batch::default();
        self.audit.read();
        let drained = self.parts.drains.drain(&mut batch);
        self.metrics.drained(&drained, lag);
        self.end_slots(now);
        self.parts.directory.expose_due(now, NAME_PATIENCE);
        self.attribute(batch, now, at);
        self.rename();
        // Births and deaths that a walk found, before their owners may be forgotten.
        self.tell_changes();
        let gone = self.parts.directory.expire(now);
        self.totals.forget(&gone);
        self.publish(at);
    }

    /// Takes in births and deaths, and reads the names of those that were born.
    fn hear(&mut self, now: Instant) {
        self.take_events(now);
        let Parts { namer, directory, news, .. } = &mut self.parts;
        if let Some(pods) = news() {
            directory.describe(pods, now);
        }
        namer.work(directory, now);
        self.tell_changes();
    }

    fn take_events(&mut self, now: Instant) {
        for _ in 0..EVENTS_AT_ONCE {
            let Some(event) = self.parts.drains.next_event() else { return };
            self.take_event(&event, now);
        }
    }

    fn take_event(&mut self, event: &CgroupEvent, now: Instant) {
        let Some(hierarchy) = self.parts.mounts.hierarchy(event.hierarchy) else { return };
        let cgroup = CgroupKey { hierarchy, id: event.id };
        let path = match event.path.as_slice() {
            [] => None,
            path => match self.parts.own.own(cgroup, path) {
                Some(path) => Some(path),
                None => return,
            },
        };
        if let Some(path) = path.filter(|_| event.born) {
            self.parts.directory.born(cgroup, path, event.at, now);
        } else if !event.born {
            // A birth that was lost still gets its name from the announcement of its end.
            if let Some(path) = path
                && self.parts.directory.resolve(OwnerKey::Cgroup(cgroup)).is_none()
            {
                self.parts.directory.born(cgroup, path, now, now);
            }
            self.parts.directory.died(cgroup, now);
        }
    }

    /// Sends the slots of dead cgroups on their way out. The directory is asked, and not only the announcement: a
    /// death may have been announced before the slot was taken, or found by a walk.
    fn end_slots(&mut self, now: Instant) {
        let Parts { drains, directory, own, .. } = &mut self.parts;
        for cgroup in drains.living() {
            // Another node's gives its slot back as soon as it is idle, dead or not: nobody tells us of its end.
            let is_foreign = || own.is_nested() && directory.resolve(OwnerKey::Cgroup(cgroup)).is_none();
            if directory.is_dead(cgroup) || is_foreign() {
                drains.died(cgroup, now);
            }
        }
        drains.retire(now);
    }

    /// Gives every row its owner. Rows without a name look for it in cgroupfs at once, and again with the next tick;
    /// then they are counted as nameless, never as somebody else's. Those of a container whose names may still come
    /// wait for [`NAME_PATIENCE`].
    fn attribute(&mut self, batch: Batch, now: Instant, at: Timestamp) {
        let waited = std::mem::take(&mut self.pending);
        let mut missing: Vec<Row> = Vec::new();
        for row in waited {
            let owner = self.parts.directory.resolve(row.owner).unwrap_or_else(|| self.give_up(&row));
            self.add(owner, row, at);
        }
        for row in batch.rows {
            match self.resolve(row.owner) {
                Some(owner) => self.add(owner, row, at),
                None => missing.push(row),
            }
        }
        if missing.is_empty() {
            return;
        }
        self.hear(now);
        if missing.iter().any(|row| self.resolve(row.owner).is_none()) {
            self.walk(now);
        }
        for row in missing {
            match self.resolve(row.owner) {
                Some(owner) => self.add(owner, row, at),
                None if self.pending.len() < PENDING_MAX => self.pending.push(row),
                None => {
                    let owner = self.give_up(&row);
                    self.add(owner, row, at);
                }
            }
        }
    }

    fn resolve(&self, owner: OwnerKey) -> Option<OwnerId> {
        let known = self.parts.directory.resolve(owner);
        known.or_else(|| match owner {
            OwnerKey::Cgroup(cgroup) if self.nameless.contains(&cgroup) => Some(OwnerId::UNRESOLVED),
            _ => None,
        })
    }

    /// Remembers a cgroup as nameless. A name that comes later still wins: the directory is asked first.
    fn give_up(&mut self, row: &Row) -> OwnerId {
        if let OwnerKey::Cgroup(cgroup) = row.owner
            && self.nameless.insert(cgroup)
        {
            self.nameless_order.push_back(cgroup);
            if self.nameless_order.len() > NAMELESS_MAX
                && let Some(oldest) = self.nameless_order.pop_front()
            {
                self.nameless.remove(&oldest);
            }
            // Nobody will announce the end of a cgroup that is not there.
            self.parts.drains.died(cgroup, Instant::now());
        }
        if self.parts.own.is_nested() { OwnerId::UNRESOLVED } else { self.parts.directory.give_up() }
    }

    /// Whether a row is of another node on this kernel: there every cgroup of our own is known, by the walk or by its
    /// announcement.
    fn is_foreign(&self, owner: OwnerId, row: &Row) -> bool {
        let is_outside = || match row.owner {
            OwnerKey::Cgroup(cgroup) => owner == OwnerId::UNRESOLVED || cgroup.is_root(),
            OwnerKey::Kernel | OwnerKey::Overflow => false,
        };
        self.parts.own.is_nested() && is_outside()
    }

    /// Adds a row to its series, unless the owner's names may still come: a series is first shown with its full labels.
    fn add(&mut self, owner: OwnerId, row: Row, at: Timestamp) {
        if self.is_foreign(owner, &row) {
            self.metrics.foreign();
            return;
        }
        if self.parts.directory.is_waiting(owner) {
            if self.pending.len() < PENDING_MAX {
                self.pending.push(row);
                return;
            }
            self.parts.directory.expose(owner);
        }
        if owner == OwnerId::UNRESOLVED {
            self.metrics.unresolved(&row);
        }
        let directory = &self.parts.directory;
        self.totals.add(owner, row, at, |owner| view(directory, owner));
    }

    /// Moves the series of owners whose names came after they were exposed.
    fn rename(&mut self) {
        for renamed in self.parts.directory.take_renamed() {
            let directory = &self.parts.directory;
            changes::tell_names(directory, &renamed, &self.parts.journal);
            self.totals.rename(renamed, view(directory, renamed.to));
        }
    }

    fn tell_changes(&mut self) {
        changes::tell(&mut self.parts.directory, &self.parts.journal);
    }

    /// Reads the tree again after announcements were lost: a death that nobody heard of would keep its slot for ever.
    fn repair(&mut self, now: Instant) {
        let lost = self.parts.drains.events_lost();
        if lost != self.events_lost {
            tracing::warn!(
                lost = lost - self.events_lost,
                "announcements of cgroups were lost; reading the tree"
            );
            self.events_lost = lost;
            self.walk(now);
        }
    }

    /// Reads the whole tree: at the start, after a loss, and for a cgroup that nobody announced.
    fn walk(&mut self, now: Instant) {
        let Parts { mounts, directory, .. } = &mut self.parts;
        if let Err(error) = directory.refresh(now, |max, visit| mounts.walk(max, visit)) {
            tracing::warn!(%error, "walk of the cgroup tree failed; names come from events alone");
        }
    }

    fn publish(&mut self, at: Timestamp) {
        let mut families = self.totals.families();
        families.extend(self.metrics.families(&self.totals));
        // The kernel's totals are those of all nodes on it.
        if !self.parts.own.is_nested() {
            families.push(self.audit.family(&self.totals));
        }
        families.extend(self.parts.drains.families());
        families.extend(attribute::families(&self.parts.directory, &self.parts.namer));
        for source in &mut self.parts.sources {
            families.extend(source());
        }
        let version = self.parts.directory.version();
        if self.roster_version != Some(version) {
            self.roster_version = Some(version);
            self.parts.latest.publish_roster(self.parts.directory.roster());
        }
        self.parts.latest.publish(Snapshot::new(at, families));
    }
}

fn view(directory: &Directory, owner: OwnerId) -> OwnerView<'_> {
    OwnerView { labels: directory.labels(owner), late: directory.late(owner) }
}
