//! Writes news into the state: on a thread of its own, a few at once, each on disk before anybody is told of it.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant, SystemTime};

use telemetry_model::clock::Timestamp;
use telemetry_tsdb::db::Db;
use telemetry_tsdb::state::{BODY_BYTES_MAX, Error, NewEvent, State};

use super::watch::Watch;
use super::{Config, Journal, KINDS, News, QUEUE_MAX};
use crate::store::Latest;

/// Events of one commit: one sync of the disk.
const BATCH_MAX: usize = 512;
/// Between two tries to open a state that could not be opened, or failed.
const REOPEN: Duration = Duration::from_secs(5);
/// Between two looks for events that are too old.
const EXPIRE: Duration = Duration::from_secs(60);
/// How far the clock may step back before its word is taken: less than this is the order of threads, and times are kept
/// in the order of numbers.
const STEP_BACK_MS: i64 = 10_000;

/// The journal's writer.
pub struct Keeper {
    journal: Arc<Journal>,
    config: Config,
    /// None: memory is all there is.
    dir: Option<PathBuf>,
    watch: Option<Watch>,
    pending: VecDeque<NewEvent>,
    last_ms: i64,
    pub(super) opened: Option<Instant>,
    expired: Option<Instant>,
}

// === impl Keeper ===

impl Keeper {
    pub(super) fn new(journal: Arc<Journal>, config: &Config) -> Self {
        Self {
            journal,
            config: config.clone(),
            dir: None,
            watch: None,
            pending: VecDeque::new(),
            last_ms: i64::MIN,
            opened: None,
            expired: None,
        }
    }

    /// Keeps events in this directory.
    #[must_use]
    pub fn on_disk(mut self, dir: &Path) -> Self {
        self.dir = Some(dir.to_owned());
        self
    }

    /// Looks at the store's health and at what was lost, too.
    #[must_use]
    pub fn watching(mut self, db: Arc<Db>, latest: Arc<Latest>) -> Self {
        self.watch = Some(Watch::new(db, latest));
        self
    }

    /// Waits for news and writes them.
    pub fn step(&mut self, patience: Duration) {
        for event in self.journal.take(patience) {
            self.take(event);
        }
        let now = Instant::now();
        self.open(now);
        self.write();
        // What tells of losses must not be lost itself: without room it waits.
        if self.pending.len() < QUEUE_MAX {
            let untold = self.journal.untold.swap(0, Relaxed);
            if untold > 0 {
                self.say(&News::EventsLost { count: untold });
            }
        }
        for news in self.watch.as_mut().map(|watch| watch.look(now)).unwrap_or_default() {
            self.say(&news);
        }
        self.write();
        self.expire(now);
    }

    /// Writes what is left, and that the agent has stopped.
    pub fn stop(&mut self) {
        self.say(&News::AgentStopped);
        self.step(Duration::ZERO);
        self.journal.set_state(None);
    }

    fn say(&mut self, news: &News) {
        self.take(news.event(SystemTime::now()));
    }

    fn take(&mut self, mut event: NewEvent) {
        if event.at_ms < self.last_ms && self.last_ms - event.at_ms < STEP_BACK_MS {
            event.at_ms = self.last_ms;
        }
        self.last_ms = event.at_ms;
        if self.pending.len() < QUEUE_MAX {
            self.pending.push_back(event);
        } else {
            self.journal.counts.unwritten.fetch_add(1, Relaxed);
            self.journal.untold.fetch_add(1, Relaxed);
        }
    }

    /// Opens the state, now and then until it works.
    fn open(&mut self, now: Instant) {
        let is_early = || self.opened.is_some_and(|at| now.saturating_duration_since(at) < REOPEN);
        if self.journal.is_open() || is_early() {
            return;
        }
        let is_first = self.opened.is_none();
        self.opened = Some(now);
        let limits = self.config.limits();
        let Some(dir) = &self.dir else {
            self.journal.set_state(Some(Arc::new(State::in_memory(limits))));
            return;
        };
        match State::open(dir, limits, Timestamp::of(SystemTime::now()).0) {
            Ok((state, report)) => {
                // Numbers go on behind what readers may have seen.
                if let Ok(Some(newest)) = state.events().newest() {
                    self.last_ms = self.last_ms.max(newest.at_ms);
                }
                self.journal.newest.send_replace(state.last_number());
                self.journal.set_state(Some(Arc::new(state)));
                let lost = report.lost_tail + report.lost_within;
                if lost + report.damaged > 0 || report.moved_aside.is_some() {
                    self.say(&News::JournalRepaired { lost, damaged: report.damaged });
                }
            }
            Err(error) if is_first => {
                tracing::warn!(%error, "events cannot be kept; trying again until they can");
            }
            Err(error) => tracing::debug!(%error, "events cannot be kept"),
        }
    }

    fn write(&mut self) {
        // A batch that is more than all that may be kept would never be taken.
        let Config { events_max, bytes_max, .. } = self.config;
        let most = (events_max / 8).min(bytes_max / (2 * BODY_BYTES_MAX as u64));
        let most = usize::try_from(most).unwrap_or(BATCH_MAX).clamp(1, BATCH_MAX);
        while !self.pending.is_empty() {
            let Some(state) = self.journal.state() else { return };
            let batch: Vec<NewEvent> = self.pending.iter().take(most).cloned().collect();
            match state.events().append(&batch) {
                Ok(last) => {
                    batch.iter().for_each(|event| self.count(&event.kind));
                    self.pending.drain(..batch.len());
                    self.journal.newest.send_replace(last);
                }
                Err(error) => {
                    self.refused(&error, state, batch.len());
                    return;
                }
            }
        }
    }

    /// What the state does not take: a limit may give way later, a failed write asks for another opening.
    fn refused(&mut self, error: &Error, state: Arc<State>, batch: usize) {
        if state.has_failed() {
            tracing::warn!(%error, "events are not written; opening the journal again");
            let counters = state.counters();
            self.journal.counts.expired.fetch_add(counters.expired.load(Relaxed), Relaxed);
            self.journal.counts.evicted.fetch_add(counters.evicted.load(Relaxed), Relaxed);
            self.journal.set_state(None);
            self.opened = Some(Instant::now());
            return;
        }
        tracing::debug!(%error, batch, "events wait to be written");
    }

    fn expire(&mut self, now: Instant) {
        if self.expired.is_some_and(|at| now.saturating_duration_since(at) < EXPIRE) {
            return;
        }
        let Some(state) = self.journal.state() else { return };
        self.expired = Some(now);
        let retention = i64::try_from(self.config.retention.as_millis()).unwrap_or(i64::MAX);
        let before = Timestamp::of(SystemTime::now()).0.saturating_sub(retention);
        match state.events().expire(before) {
            // Removals take numbers: readers that are told so do not take them for events that they missed.
            Ok(0) => {}
            Ok(_) => drop(self.journal.newest.send_replace(state.last_number())),
            Err(error) => tracing::debug!(%error, "old events stay for now"),
        }
    }

    fn count(&self, kind: &str) {
        let at = KINDS.iter().position(|each| *each == kind);
        if let Some(count) = at.and_then(|at| self.journal.counts.written.get(at)) {
            count.fetch_add(1, Relaxed);
        }
    }
}
