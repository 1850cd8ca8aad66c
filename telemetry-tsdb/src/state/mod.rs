//! What is keyed and changes: events, the state of alerts, silences, notifications, cursors.
//!
//! A fjall database below records of our own frame: each has a number and a checksum, so that nothing altered is ever
//! served and nothing is ever lost in silence. All of it can be lost without losing a sample: open it last, and off
//! the path of collection. Knows no alert and no metric; called by the agent's journal. Opening it starts one thread,
//! fjall's worker, which ends with it.

mod backend;
mod config;
mod events;
mod frame;
mod open;
mod witness;

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::fs::{RealStorage, Storage as _};

pub use config::{Config, Keyspace, Limits};
pub use events::{BODY_BYTES_MAX, Event, Events, KIND_BYTES_MAX, NewEvent, Page};
pub use open::Report;

use backend::{Backend, Change, Fault, Way};
use frame::Counts;
use witness::Place;

/// The keyspace of the ledger: what all others hold, rewritten in each batch.
const LEDGER: &str = "ledger";
/// Its only key.
const LEDGER_KEY: &[u8] = b"ledger";
/// The longest key.
const KEY_BYTES_MAX: usize = 1024;
/// The longest body.
const RECORD_BYTES_MAX: usize = 1 << 20;
/// Changes that one batch may hold.
const BATCH_MAX: usize = 4096;

/// Keyed records that survive a restart.
pub struct State {
    // Dropped first: the database is closed before anything else is.
    backend: Backend,
    config: Config,
    place: Option<Place>,
    disk: Option<RealStorage>,
    ledger: Mutex<Ledger>,
    counters: Arc<Counters>,
    failed: AtomicBool,
    read_only: AtomicBool,
}

/// What was committed last, and how much there is.
#[derive(Clone, Debug)]
struct Ledger {
    last: u64,
    counts: Counts,
    /// Whether later times have higher numbers. The clock may have been set back.
    is_in_order: bool,
}

/// What has been counted since the state was opened.
#[derive(Debug, Default)]
pub struct Counters {
    /// Committed records that are gone.
    pub lost: AtomicU64,
    /// Records that are there and not what was written.
    pub damaged: AtomicU64,
    /// Databases moved aside.
    pub moved_aside: AtomicU64,
    /// Commits that failed.
    pub commit_failures: AtomicU64,
    /// Reads that failed.
    pub read_failures: AtomicU64,
    /// Writes of the witness that failed.
    pub witness_failures: AtomicU64,
    /// Records removed because a limit was met.
    pub evicted: AtomicU64,
    /// Records removed because of their age.
    pub expired: AtomicU64,
    /// Batches refused because a limit was met or the disk is nearly full.
    pub refused: AtomicU64,
}

/// Changes that are made together or not at all.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    changes: Vec<Intent>,
}

#[derive(Clone, Debug)]
enum Intent {
    Put { keyspace: Keyspace, key: Vec<u8>, body: Vec<u8> },
    Remove { keyspace: Keyspace, key: Vec<u8> },
    Append { keyspace: Keyspace, at_ms: i64, body: Vec<u8> },
}

/// What a batch becomes: the last change of each key, framed.
struct Plan {
    changes: BTreeMap<(Keyspace, Vec<u8>), Option<Vec<u8>>>,
    ledger: Ledger,
    evicted: u64,
}

/// Why the state did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no state here.
    #[error("{0}: there is none")]
    Absent(PathBuf),
    /// Another process has it.
    #[error("{0}: another process has it open")]
    Locked(PathBuf),
    /// The system refuses: no room, no right. What is on disk is as it was.
    #[error("{0}")]
    System(String),
    /// What is on disk cannot be read.
    #[error("cannot be read: {0}")]
    Refused(String),
    /// One record cannot be read; its neighbours can.
    #[error("a record of {keyspace} is damaged: {reason}")]
    Damaged {
        /// Whose.
        keyspace: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A limit was met.
    #[error("{0}")]
    Limit(String),
    /// A write failed. It may be there after the next opening, or not; nothing is written before that.
    #[error("write: {0}; it must be opened again")]
    Failed(String),
    /// It was opened to be read.
    #[error("open for reading only")]
    ReadOnly,
}

// === impl Change ===

impl Change {
    /// The ledger as it is to be after a batch.
    fn ledger(last: u64, counts: &Counts) -> Self {
        let record = frame::seal(LEDGER_KEY, last, &frame::put_counts(counts));
        Self { table: LEDGER, key: LEDGER_KEY.to_vec(), value: Some(record) }
    }
}

// === impl Batch ===

impl Batch {
    /// Sets a key.
    pub fn put(&mut self, keyspace: Keyspace, key: impl Into<Vec<u8>>, body: impl Into<Vec<u8>>) {
        self.changes.push(Intent::Put { keyspace, key: key.into(), body: body.into() });
    }

    /// Removes a key.
    pub fn remove(&mut self, keyspace: Keyspace, key: impl Into<Vec<u8>>) {
        self.changes.push(Intent::Remove { keyspace, key: key.into() });
    }

    /// Adds what happened at a time, under a key of that time and the record's own number.
    pub fn append(&mut self, keyspace: Keyspace, at_ms: i64, body: impl Into<Vec<u8>>) {
        self.changes.push(Intent::Append { keyspace, at_ms, body: body.into() });
    }
}

// === impl State ===

impl State {
    /// The events.
    #[must_use]
    pub fn events(&self) -> Events<'_> {
        Events::new(self)
    }

    /// The body of a record.
    ///
    /// # Errors
    /// If it is damaged; other keys are served.
    pub fn get(&self, keyspace: Keyspace, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let record = self.backend.get(keyspace.name(), key).map_err(|fault| self.unread(keyspace, &fault))?;
        let Some(record) = record else { return Ok(None) };
        match frame::unseal(key, &record) {
            Ok((_, body)) => Ok(Some(body.to_vec())),
            Err(damage) => Err(self.damaged(keyspace, &damage)),
        }
    }

    /// Makes all changes of a batch or none, brings them to disk, and says the number of the last. What it returns
    /// for may be promised to anyone.
    ///
    /// # Errors
    /// Nothing is changed then, unless the error says that it must be opened again.
    pub fn commit(&self, batch: Batch) -> Result<u64, Error> {
        if self.read_only.load(Ordering::Relaxed) {
            return Err(Error::ReadOnly);
        }
        let mut ledger = self.ledger();
        if batch.changes.is_empty() {
            return Ok(ledger.last);
        }
        if self.failed.load(Ordering::Relaxed) {
            return Err(Error::Failed("an earlier one failed".into()));
        }
        let plan = self.plan(&ledger, batch).and_then(|plan| self.has_room(&plan).map(|()| plan));
        let Plan { changes, ledger: next, evicted } =
            plan.inspect_err(|_| self.count(&self.counters.refused))?;
        let mut all: Vec<_> = changes
            .into_iter()
            .map(|((keyspace, key), value)| Change { table: keyspace.name(), key, value })
            .collect();
        all.push(Change::ledger(next.last, &next.counts));
        if let Err(fault) = self.backend.apply(all) {
            self.failed.store(true, Ordering::Relaxed);
            self.count(&self.counters.commit_failures);
            return Err(Error::Failed(fault.to_string()));
        }
        *ledger = next;
        self.counters.evicted.fetch_add(evicted, Ordering::Relaxed);
        if self.place.as_ref().is_some_and(|place| place.testify(ledger.last).is_err()) {
            self.count(&self.counters.witness_failures);
        }
        Ok(ledger.last)
    }

    /// Whether a write failed, so that it must be opened again before another is taken.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// The number of the last batch.
    #[must_use]
    pub fn last_number(&self) -> u64 {
        self.ledger().last
    }

    /// Records and bytes of each keyspace that there is.
    #[must_use]
    pub fn sizes(&self) -> Vec<(Keyspace, u64, u64)> {
        self.ledger().counts.iter().map(|(keyspace, count)| (*keyspace, count.records, count.bytes)).collect()
    }

    /// What has been counted; it outlives the state.
    #[must_use]
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn plan(&self, ledger: &Ledger, batch: Batch) -> Result<Plan, Error> {
        if batch.changes.len() > BATCH_MAX {
            return Err(Error::Limit(format!(
                "{} changes in a batch of at most {BATCH_MAX}",
                batch.changes.len()
            )));
        }
        let mut plan = Plan { changes: BTreeMap::new(), ledger: ledger.clone(), evicted: 0 };
        for intent in batch.changes {
            plan.ledger.last += 1;
            let number = plan.ledger.last;
            let (keyspace, key, body) = match intent {
                Intent::Put { keyspace, key, body } => (keyspace, key, Some(body)),
                Intent::Remove { keyspace, key } => (keyspace, key, None),
                Intent::Append { keyspace, at_ms, body } => {
                    let key = frame::time_key(at_ms, number).to_vec();
                    self.note_order(&mut plan, keyspace, &key);
                    (keyspace, key, Some(body))
                }
            };
            if key.len() > KEY_BYTES_MAX || body.as_ref().is_some_and(|body| body.len() > RECORD_BYTES_MAX) {
                return Err(Error::Limit(format!("a record of {} is too large", keyspace.name())));
            }
            let record = body.map(|body| frame::seal(&key, number, &body));
            self.set(&mut plan, keyspace, key, record)?;
        }
        for keyspace in Keyspace::ALL {
            self.hold_to_limits(&mut plan, keyspace)?;
        }
        Ok(plan)
    }

    /// Takes one change into a plan, with what it does to the counts.
    fn set(
        &self,
        plan: &mut Plan,
        keyspace: Keyspace,
        key: Vec<u8>,
        record: Option<Vec<u8>>,
    ) -> Result<(), Error> {
        let at = (keyspace, key);
        let before = match plan.changes.get(&at) {
            Some(planned) => planned.clone(),
            None => {
                let stored = self.backend.get(keyspace.name(), &at.1);
                stored.map_err(|fault| self.unread(keyspace, &fault))?
            }
        };
        let count = plan.ledger.counts.entry(keyspace).or_default();
        if let Some(before) = &before {
            count.take_away(&at.1, before);
        }
        if let Some(record) = &record {
            count.add(&at.1, record);
        }
        plan.changes.insert(at, record);
        Ok(())
    }

    /// Whether a new key of a time stands behind all others, as its number does.
    fn note_order(&self, plan: &mut Plan, keyspace: Keyspace, key: &[u8]) {
        if !plan.ledger.is_in_order {
            return;
        }
        let planned = plan.changes.keys().any(|(of, other)| *of == keyspace && other.as_slice() > key);
        let mut stored = false;
        let behind = (Bound::Excluded(key), Bound::Unbounded);
        // What cannot be read may stand behind it, too.
        let scanned = self.backend.scan(keyspace.name(), behind, Way::Up, &mut |_| {
            stored = true;
            ControlFlow::Break(())
        });
        plan.ledger.is_in_order = !planned && !stored && scanned.is_ok();
    }

    /// Takes the oldest records out of a keyspace of times until it is within its limits; refuses for any other.
    fn hold_to_limits(&self, plan: &mut Plan, keyspace: Keyspace) -> Result<(), Error> {
        let limits = self.config.limits(keyspace);
        let count = plan.ledger.counts.get(&keyspace).copied().unwrap_or_default();
        if count.records <= limits.records && count.bytes <= limits.bytes {
            return Ok(());
        }
        let name = keyspace.name();
        if !keyspace.is_by_time() {
            let Limits { records, bytes } = limits;
            return Err(Error::Limit(format!("{name} may hold {records} records and {bytes} bytes")));
        }
        // More than is needed goes at once, so that the oldest are not looked for at each commit.
        let goal = Limits { records: limits.records / 8 * 7, bytes: limits.bytes / 8 * 7 };
        let (mut records, mut bytes) = (count.records, count.bytes);
        let mut old = Vec::new();
        let scanned = self.backend.scan(name, (Bound::Unbounded, Bound::Unbounded), Way::Up, &mut |entry| {
            if records <= goal.records && bytes <= goal.bytes || old.len() >= BATCH_MAX {
                return ControlFlow::Break(());
            }
            if let Ok((key, record)) = entry {
                records = records.saturating_sub(1);
                bytes = bytes.saturating_sub(len(key) + len(record));
                old.push(key.to_vec());
            }
            ControlFlow::Continue(())
        });
        scanned.map_err(|fault| self.unread(keyspace, &fault))?;
        for key in old {
            plan.evicted += 1;
            self.set(plan, keyspace, key, None)?;
        }
        let count = plan.ledger.counts.get(&keyspace).copied().unwrap_or_default();
        if count.records > limits.records || count.bytes > limits.bytes {
            return Err(Error::Limit(format!("a batch larger than all that {name} may hold")));
        }
        Ok(())
    }

    /// Room is asked for before anything is written: a journal that ends inside a record refuses to open.
    fn has_room(&self, plan: &Plan) -> Result<(), Error> {
        let Some(free) = self.disk.as_ref().and_then(RealStorage::free_bytes) else { return Ok(()) };
        let bytes: u64 = plan
            .changes
            .iter()
            .map(|((_, key), record)| len(key) + record.as_ref().map_or(0, |record| len(record)))
            .sum();
        if free < self.config.free_floor_bytes.saturating_add(bytes) {
            return Err(Error::Limit(format!("the disk has {free} bytes left")));
        }
        Ok(())
    }

    fn count(&self, counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn unread(&self, keyspace: Keyspace, fault: &Fault) -> Error {
        self.count(&self.counters.read_failures);
        Error::Damaged { keyspace: keyspace.name(), reason: fault.to_string() }
    }

    fn damaged(&self, keyspace: Keyspace, damage: &crate::wire::Malformed) -> Error {
        self.count(&self.counters.damaged);
        Error::Damaged { keyspace: keyspace.name(), reason: damage.to_string() }
    }
}

fn len(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}
