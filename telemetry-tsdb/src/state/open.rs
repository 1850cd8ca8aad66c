//! Opening a state: the database, a scan of every record, the witness; and what is done when the database refuses.

use std::ops::{Bound, ControlFlow};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::backend::{Backend, Change, Disk, Fault, Way};
use super::frame::{self, Count, Counts};
use super::witness::{Place, Word};
use super::{Config, Counters, Error, Keyspace, LEDGER, LEDGER_KEY, Ledger, State};
use crate::fs::RealStorage;

/// Records that are salvaged in one batch.
const SALVAGE_BATCH: usize = 256;

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Records that are served.
    pub records: u64,
    /// The number that the last batch had.
    pub last_number: u64,
    /// Numbers at the end that were committed and are gone with their records.
    pub lost_tail: u64,
    /// Records before it that were committed and are gone, or came back after they were replaced or removed.
    pub lost_within: u64,
    /// Records that are there and not what was written.
    pub damaged: u64,
    /// Where the database is that could not be used, and why.
    pub moved_aside: Option<(PathBuf, String)>,
    /// Whether the readable records of the one moved aside were kept.
    pub salvaged: bool,
}

/// What a scan of all records found.
#[derive(Default)]
struct Found {
    counts: Counts,
    last: u64,
    damaged: u64,
    /// Parts of tables that cannot be read.
    holes: u64,
    is_in_order: bool,
    /// Whether the database would run out of sequence numbers: one that is damaged is very high.
    is_exhausted: bool,
    /// What the ledger says; it may be lost, too.
    promised: Option<(u64, Counts)>,
}

// === impl State ===

impl State {
    /// Opens a state below a directory, or makes one. A database that cannot be read is moved aside, and what cannot
    /// be read of one that can is left behind: it goes on with the rest, or empty, and the report says what is gone.
    ///
    /// # Errors
    /// If another process has it, or the system refuses. Neither changes anything on disk.
    pub fn open(dir: &Path, config: Config, now_ms: i64) -> Result<(Self, Report), Error> {
        let place = Place::new(dir);
        std::fs::create_dir_all(dir).map_err(|error| Error::System(error.to_string()))?;
        place.clear_half_made();
        let word = place.witness();
        let too_often = place.begin_opening();
        let mut report = Report::default();
        let opened = match too_often {
            true => Err(Fault::Damage("opening it ended the process, three times in a row".into())),
            false => open_database(&place.database()),
        };
        let (backend, found) = match opened {
            Ok((backend, found)) => match found.why_salvage() {
                None => (backend, found),
                Some(reason) => salvage(&place, backend, found, reason, now_ms, &mut report)?,
            },
            Err(Fault::Locked) => {
                place.end_opening();
                return Err(Error::Locked(place.database()));
            }
            Err(Fault::System(reason)) => {
                place.end_opening();
                return Err(Error::System(reason));
            }
            Err(Fault::Damage(reason)) => start_empty(&place, reason, now_ms, &mut report)?,
        };
        place.end_opening();
        let ledger = settle(&found, word, &mut report);
        log(&report, dir);
        let state = Self::new(config, backend, Some(place), ledger);
        state.counters.damaged.fetch_add(report.damaged, Ordering::Relaxed);
        state.counters.lost.fetch_add(report.lost_tail + report.lost_within, Ordering::Relaxed);
        state.counters.moved_aside.fetch_add(u64::from(report.moved_aside.is_some()), Ordering::Relaxed);
        Ok((state, report))
    }

    /// Opens a state that is there, to be read. Nothing is made, moved or salvaged.
    ///
    /// # Errors
    /// If there is none, another process has it, or it cannot be read.
    pub fn open_existing(dir: &Path, config: Config) -> Result<(Self, Report), Error> {
        let place = Place::new(dir);
        let database = place.database();
        if !database.join("version").exists() {
            return Err(Error::Absent(database));
        }
        let (backend, found) = open_database(&database).map_err(|fault| match fault {
            Fault::Locked => Error::Locked(database),
            Fault::System(reason) => Error::System(reason),
            Fault::Damage(reason) => Error::Refused(reason),
        })?;
        let mut report = Report::default();
        let ledger = settle(&found, place.witness(), &mut report);
        let state = Self::new(config, backend, Some(place), ledger);
        state.read_only.store(true, Ordering::Relaxed);
        Ok((state, report))
    }

    /// A state without a disk, within the same limits.
    #[must_use]
    pub fn in_memory(config: Config) -> Self {
        let ledger = Ledger { last: 0, counts: Counts::new(), is_in_order: true };
        Self::new(config, Backend::memory(), None, ledger)
    }

    fn new(config: Config, backend: Backend, place: Option<Place>, ledger: Ledger) -> Self {
        let disk = place.as_ref().and_then(|place| RealStorage::open_unlocked(place.dir()).ok());
        Self {
            config,
            backend,
            place,
            disk,
            ledger: Mutex::new(ledger),
            counters: Arc::<Counters>::default(),
            failed: AtomicBool::new(false),
            read_only: AtomicBool::new(false),
        }
    }
}

// === impl Found ===

impl Found {
    /// Records that are not those that the ledger counted: gone, or come back from the past.
    fn missing(&self) -> u64 {
        let Some((_, promised)) = &self.promised else { return 0 };
        let of = |counts: &Counts, keyspace| counts.get(&keyspace).copied().unwrap_or_default();
        let missing = |keyspace| {
            let (promised, there) = (of(promised, keyspace), of(&self.counts, keyspace));
            match promised.records.abs_diff(there.records) {
                // A damaged record may be damaged in its number.
                0 => u64::from(promised.numbers != there.numbers && self.damaged == 0),
                difference => difference,
            }
        };
        Keyspace::ALL.into_iter().map(missing).sum()
    }

    /// Why the database cannot go on as it is.
    fn why_salvage(&self) -> Option<String> {
        if self.holes > 0 {
            // A hole stops compaction, and with it everything, sooner or later.
            return Some(format!("{} parts of its tables cannot be read", self.holes));
        }
        if self.is_exhausted {
            return Some("its order of writes is damaged: it takes no more".into());
        }
        // Whatever order of writes it has now, later ones may not win over what came back.
        (self.missing() > 0).then(|| "records are gone or came back from the past".into())
    }
}

fn open_database(path: &Path) -> Result<(Backend, Found), Fault> {
    let disk = Disk::open(path)?;
    let is_exhausted = disk.is_exhausted();
    let backend = Backend::Disk(disk);
    let found = Found { is_exhausted, ..examine(&backend)? };
    Ok((backend, found))
}

/// Reads every record there is.
fn examine(backend: &Backend) -> Result<Found, Fault> {
    let mut found = Found { is_in_order: true, ..Found::default() };
    match backend.get(LEDGER, LEDGER_KEY) {
        Ok(Some(record)) => match frame::unseal(LEDGER_KEY, &record) {
            Ok((number, body)) => {
                found.promised = frame::get_counts(body).ok().map(|counts| (number, counts))
            }
            Err(_) => found.damaged += 1,
        },
        Ok(None) => {}
        Err(_) => found.holes += 1,
    }
    for keyspace in Keyspace::ALL {
        let mut count = Count::default();
        let mut newest = 0;
        let all = (Bound::Unbounded, Bound::Unbounded);
        backend.scan(keyspace.name(), all, Way::Up, &mut |entry| {
            let Ok((key, record)) = entry else {
                found.holes += 1;
                return ControlFlow::Continue(());
            };
            count.add(key, record);
            match frame::unseal(key, record) {
                Ok((number, _)) => {
                    found.last = found.last.max(number);
                    found.is_in_order &= !keyspace.is_by_time() || newest < number;
                    newest = number;
                }
                Err(_) => found.damaged += 1,
            }
            ControlFlow::Continue(())
        })?;
        if count.records > 0 {
            found.counts.insert(keyspace, count);
        }
    }
    Ok(found)
}

/// The readable records in a database of their own; the damaged one goes aside.
fn salvage(
    place: &Place,
    from: Backend,
    mut found: Found,
    reason: String,
    now_ms: i64,
    report: &mut Report,
) -> Result<(Backend, Found), Error> {
    let last = found.promised.as_ref().map_or(0, |(number, _)| *number).max(found.last);
    let copied = Disk::open(&place.salvage()).map(Backend::Disk).and_then(|to| copy(&from, &to, last));
    drop(from);
    if let Err(fault) = copied {
        let _ = std::fs::remove_dir_all(place.salvage());
        return match fault {
            Fault::System(reason) => {
                place.end_opening();
                Err(Error::System(reason))
            }
            other => start_empty(place, format!("{reason}; {other}"), now_ms, report),
        };
    }
    let moved = place.move_aside(now_ms).and_then(|to| place.adopt_salvage().map(|()| to));
    let to = moved.map_err(|error| Error::System(error.to_string()))?;
    report.moved_aside = Some((to, reason));
    report.salvaged = true;
    let (backend, again) =
        open_database(&place.database()).map_err(|fault| Error::System(fault.to_string()))?;
    found.counts = again.counts;
    found.is_in_order = again.is_in_order;
    Ok((backend, found))
}

/// All readable records, and a ledger of them.
fn copy(from: &Backend, to: &Backend, last: u64) -> Result<(), Fault> {
    let mut counts = Counts::new();
    for keyspace in Keyspace::ALL {
        let table = keyspace.name();
        let mut batch = Vec::new();
        let mut result = Ok(());
        from.scan(table, (Bound::Unbounded, Bound::Unbounded), Way::Up, &mut |entry| {
            let Ok((key, record)) = entry else { return ControlFlow::Continue(()) };
            counts.entry(keyspace).or_default().add(key, record);
            batch.push(Change { table, key: key.to_vec(), value: Some(record.to_vec()) });
            if batch.len() >= SALVAGE_BATCH {
                result = to.apply(std::mem::take(&mut batch));
            }
            if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        result?;
        if !batch.is_empty() {
            to.apply(batch)?;
        }
    }
    to.apply(vec![Change::ledger(last, &counts)])
}

/// A new database where the one was that refuses.
fn start_empty(
    place: &Place,
    reason: String,
    now_ms: i64,
    report: &mut Report,
) -> Result<(Backend, Found), Error> {
    let to = place.move_aside(now_ms).map_err(|error| Error::System(error.to_string()))?;
    report.moved_aside = Some((to, reason));
    open_database(&place.database()).map_err(|fault| Error::System(fault.to_string()))
}

/// Compares what is there with what was promised. Numbers go on behind the highest that any of the three knows, so
/// that none is given twice.
fn settle(found: &Found, word: Word, report: &mut Report) -> Ledger {
    let promised = found.promised.as_ref().map_or(0, |(number, _)| *number);
    let there = found.last.max(promised);
    let last = match word {
        Word::Last(number) => there.max(number),
        Word::Absent | Word::Unreadable => there,
    };
    report.records = found.counts.values().map(|count| count.records).sum();
    report.last_number = last;
    report.lost_tail = last - there;
    report.lost_within = found.missing();
    report.damaged = found.damaged;
    Ledger { last, counts: found.counts.clone(), is_in_order: found.is_in_order }
}

fn log(report: &Report, dir: &Path) {
    if let Some((to, reason)) = &report.moved_aside {
        tracing::error!(moved_to = %to.display(), reason, salvaged = report.salvaged, "the state cannot be used as it is");
    }
    if report.lost_tail + report.lost_within + report.damaged > 0 {
        let Report { lost_tail, lost_within, damaged, .. } = report;
        tracing::error!(lost_tail, lost_within, damaged, "records of the state are gone");
    }
    tracing::debug!(dir = %dir.display(), records = report.records, "state open");
}
