//! The journal: what happened, kept on disk with a number each, and told as it happens.
//!
//! The pipeline and the journal's own watch give it news through a short queue that never waits; the keeper's thread
//! writes them, off the path of collection. What finds the queue full is counted and told as an event of its own, so
//! that no reader takes silence for peace. Readers have numbers that are never given twice and hold across restarts.

mod config;
mod keeper;
mod metrics;
mod news;
#[cfg(test)]
mod tests;
mod watch;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use telemetry_model::clock::Timestamp;
use telemetry_tsdb::state::{Error, NewEvent, Page, State};
use tokio::sync::watch as channel;

pub use config::Config;
pub use keeper::Keeper;
pub use metrics::METRICS;
pub use news::{KINDS, News, Whose};
pub use telemetry_tsdb::state::Event;

/// News that may wait for the disk: a node's start of a thousand containers, in three hierarchies, twice over.
const QUEUE_MAX: usize = 8192;

/// What everybody shares of the journal: those who have news, and those who read.
pub struct Journal {
    /// What waits for the keeper. Grows when it must: room for all of it from the start would be half a megabyte.
    queue: Mutex<VecDeque<NewEvent>>,
    has_news: Condvar,
    /// News that found the queue full and have not been told of yet.
    untold: AtomicU64,
    state: RwLock<Option<Arc<State>>>,
    /// The number of the newest event that is on disk.
    newest: channel::Sender<u64>,
    closing: channel::Sender<bool>,
    counts: Counts,
    streams: AtomicU64,
    streams_max: u64,
    created: Timestamp,
}

/// What has been counted since the start.
#[derive(Debug, Default)]
struct Counts {
    written: [AtomicU64; KINDS.len()],
    queue_full: AtomicU64,
    unwritten: AtomicU64,
    /// Of states that were closed since.
    expired: AtomicU64,
    evicted: AtomicU64,
}

/// A place among those who are told what happens; given back when dropped.
pub struct Place(Arc<Journal>);

// === impl Journal ===

impl Journal {
    /// A journal whose keeper is not at work yet.
    #[must_use]
    pub fn new(config: &Config) -> (Arc<Self>, Keeper) {
        let journal = Arc::new(Self {
            queue: Mutex::default(),
            has_news: Condvar::new(),
            untold: AtomicU64::new(0),
            state: RwLock::default(),
            newest: channel::Sender::new(0),
            closing: channel::Sender::new(false),
            counts: Counts::default(),
            streams: AtomicU64::new(0),
            streams_max: config.streams_max,
            created: Timestamp::of(SystemTime::now()),
        });
        let keeper = Keeper::new(Arc::clone(&journal), config);
        (journal, keeper)
    }

    /// Takes news in. Waits for no disk: what finds the queue full is counted, and told of as lost.
    pub fn tell(&self, news: &News) {
        let event = news.event(SystemTime::now());
        let mut queue = self.queue();
        if queue.len() >= QUEUE_MAX {
            drop(queue);
            self.miss(1);
            return;
        }
        queue.push_back(event);
        drop(queue);
        self.has_news.notify_one();
    }

    /// What waits, once there is something, or `patience` is over.
    fn take(&self, patience: Duration) -> VecDeque<NewEvent> {
        let is_empty = |queue: &mut VecDeque<NewEvent>| queue.is_empty();
        let waited = self.has_news.wait_timeout_while(self.queue(), patience, is_empty);
        let (mut queue, _) = waited.unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *queue)
    }

    fn queue(&self) -> MutexGuard<'_, VecDeque<NewEvent>> {
        // Nothing between taking and releasing the lock can leave the queue half changed.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts news that were lost on their way here.
    pub fn miss(&self, count: u64) {
        self.untold.fetch_add(count, Relaxed);
        self.counts.queue_full.fetch_add(count, Relaxed);
    }

    /// Whether events can be read now.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.state().is_some()
    }

    /// The number of the newest event on disk; 0 before the first.
    #[must_use]
    pub fn newest(&self) -> u64 {
        *self.newest.borrow()
    }

    /// Wakes whoever waits for [`Journal::newest`] to change.
    #[must_use]
    pub fn watch(&self) -> channel::Receiver<u64> {
        self.newest.subscribe()
    }

    /// Ends every stream, as before the agent stops.
    pub fn close(&self) {
        self.closing.send_replace(true);
    }

    /// True once the streams are to end.
    #[must_use]
    pub fn closing(&self) -> channel::Receiver<bool> {
        self.closing.subscribe()
    }

    /// A place for one more who is told what happens; none if all are taken.
    #[must_use]
    pub fn place(self: &Arc<Self>) -> Option<Place> {
        let take = |taken: u64| (taken < self.streams_max).then_some(taken + 1);
        self.streams.fetch_update(Relaxed, Relaxed, take).ok()?;
        Some(Place(Arc::clone(self)))
    }

    /// Events behind a time and number, up to a time, that are wanted; `max` at most. None: it is not open.
    ///
    /// # Errors
    /// If none can be read at all.
    pub fn onward(
        &self,
        after: (i64, u64),
        to_ms: i64,
        max: usize,
        is_wanted: &dyn Fn(&Event) -> bool,
    ) -> Option<Result<Page, Error>> {
        Some(self.state()?.events().onward(after, to_ms, max, is_wanted))
    }

    /// Events with higher numbers than `number`, in the order of their numbers; `max` at most. `at_ms` is the time of
    /// that event, where it is known: reading on is cheaper then. None: the journal is not open.
    ///
    /// # Errors
    /// If none can be read at all.
    pub fn after(&self, number: u64, at_ms: Option<i64>, max: usize) -> Option<Result<Page, Error>> {
        let state = self.state()?;
        let events = state.events();
        Some(match at_ms {
            Some(at_ms) if events.is_in_order() => events.onward((at_ms, number), i64::MAX, max, &|_| true),
            _ => events.after(number, max),
        })
    }

    /// The number of the oldest event that is kept. None: the journal is not open, or has nothing.
    #[must_use]
    pub fn oldest(&self) -> Option<u64> {
        self.state()?.events().oldest().ok().flatten().map(|event| event.number)
    }

    fn state(&self) -> Option<Arc<State>> {
        self.state.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_state(&self, state: Option<Arc<State>>) {
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = state;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Relaxed);
    }
}
