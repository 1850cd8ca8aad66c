//! The tick: read what the kernel counted, give it names, add it up, publish it.
//!
//! Names come in between ticks, as cgroups are made; counts whose cgroup has no name yet wait one tick for it. Knows
//! signals and owners; knows no hook, no map and no format.

mod audit;
mod metrics;
mod series;

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use telemetry_model::clock::Timestamp;
use telemetry_model::{Batch, CgroupKey, Family, OwnerKey, Row, Snapshot};

use crate::attribute::{Directory, Mounts, OwnerId};
use crate::signal::{CgroupEvent, Drains};
use crate::store::Latest;

use audit::Audit;
pub use metrics::METRICS;
use metrics::Metrics;
use series::Totals;

/// Rows that may wait for a name: a tick's worth on a full node.
const PENDING_MAX: usize = 65_536;
/// Cgroups remembered as nameless, so that each is looked for once.
const NAMELESS_MAX: usize = 4096;
/// Series at one time, about 300 bytes each and 1.3 KB for a histogram: 110 pods have 10,000.
const SERIES_MAX: usize = 100_000;
/// Events taken in one go before the tick is looked at again.
const EVENTS_AT_ONCE: usize = 4096;

/// Whatever adds families of its own to every snapshot: the process, the HTTP side, the build.
pub type Source = Box<dyn FnMut() -> Vec<Family> + Send>;

/// What the pipeline is made of.
pub struct Parts {
    /// The kernel side.
    pub drains: Drains,
    /// Who is who.
    pub directory: Directory,
    /// Where cgroups are found.
    pub mounts: Mounts,
    /// Where the values go.
    pub latest: Arc<Latest>,
    /// What else is said with every tick.
    pub sources: Vec<Source>,
}

/// Reads, names, adds up, publishes.
pub struct Pipeline {
    parts: Parts,
    totals: Totals,
    metrics: Metrics,
    audit: Audit,
    /// Rows whose cgroup had no name in the last tick.
    pending: Vec<Row>,
    nameless: HashSet<CgroupKey>,
    nameless_order: VecDeque<CgroupKey>,
    /// Announcements that were lost when the tree was last read.
    events_lost: u64,
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
        };
        pipeline.walk(Instant::now());
        pipeline
    }

    /// Waits for `at_most`, or less if cgroups come or go, and takes their names in.
    pub fn learn(&mut self, at_most: Duration) {
        self.parts.drains.wait(at_most);
        self.take_events(Instant::now());
    }

    /// One tick, `lag` after it was due.
    pub fn tick(&mut self, lag: Duration) {
        let now = Instant::now();
        let at = Timestamp::of(SystemTime::now());
        self.take_events(now);
        self.repair(now);
        let mut batch = Batch::default();
        self.audit.read();
        let drained = self.parts.drains.drain(&mut batch);
        self.metrics.drained(&drained, lag);
        self.end_slots(now);
        self.attribute(batch, now, at);
        let gone = self.parts.directory.expire(now);
        self.totals.forget(&gone);
        self.publish(at);
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
        if event.born && !event.path.is_empty() {
            self.parts.directory.born(cgroup, &event.path, now);
        } else if !event.born {
            // A birth that was lost still gets its name from the announcement of its end.
            if !event.path.is_empty() && self.parts.directory.resolve(OwnerKey::Cgroup(cgroup)).is_none() {
                self.parts.directory.born(cgroup, &event.path, now);
            }
            self.parts.directory.died(cgroup, now);
        }
    }

    /// Sends the slots of dead cgroups on their way out. The directory is asked, and not only the announcement: a
    /// death may have been announced before the slot was taken, or found by a walk.
    fn end_slots(&mut self, now: Instant) {
        let Parts { drains, directory, .. } = &mut self.parts;
        for cgroup in drains.living() {
            if directory.is_dead(cgroup) {
                drains.died(cgroup, now);
            }
        }
        drains.retire(now);
    }

    /// Gives every row its owner. Rows without a name look for it in cgroupfs at once, and again with the next tick;
    /// then they are counted as nameless, never as somebody else's.
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
        self.take_events(now);
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
        self.parts.directory.give_up()
    }

    fn add(&mut self, owner: OwnerId, row: Row, at: Timestamp) {
        if owner == OwnerId::UNRESOLVED {
            self.metrics.unresolved(&row);
        }
        let directory = &self.parts.directory;
        self.totals.add(owner, row, at, |owner| directory.labels(owner));
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
        families.push(self.audit.family(&self.totals));
        families.extend(self.parts.drains.families());
        families.extend(self.parts.directory.families());
        for source in &mut self.parts.sources {
            families.extend(source());
        }
        self.parts.latest.publish(Snapshot::new(at, families));
    }
}
