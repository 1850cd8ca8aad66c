//! What happened, by time: a log that is read from a time on, or behind a number that a reader has seen.

use std::ops::{Bound, ControlFlow};
use std::sync::atomic::Ordering;

use super::backend::Way;
use super::{BATCH_MAX, Batch, Error, Keyspace, State, frame};
use crate::wire::{Malformed, Reader, put_str};

/// The longest name of a kind.
pub const KIND_BYTES_MAX: usize = 64;
/// The longest body.
pub const BODY_BYTES_MAX: usize = 4096;

/// Something that happened, as it is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEvent {
    /// When: milliseconds since 1970.
    pub at_ms: i64,
    /// What: a word of a closed set.
    pub kind: String,
    /// The rest: a JSON object.
    pub body: String,
}

/// Something that happened, as it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its number: higher than that of every event before it, and never given again.
    pub number: u64,
    /// When: milliseconds since 1970.
    pub at_ms: i64,
    /// What: a word of a closed set.
    pub kind: String,
    /// The rest: a JSON object.
    pub body: String,
}

/// Events that were read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Those that can be read.
    pub events: Vec<Event>,
    /// Those of the range that cannot; parts of tables count as one.
    pub damaged: u64,
    /// Whether there are more.
    pub is_cut: bool,
}

/// The events of a state.
pub struct Events<'a> {
    state: &'a State,
}

// === impl Events ===

impl<'a> Events<'a> {
    pub(super) fn new(state: &'a State) -> Self {
        Self { state }
    }

    /// Adds events, all or none, on disk when it returns. Says the number of the last.
    ///
    /// # Errors
    /// If one is too large, or the state does not take them.
    pub fn append(&self, events: &[NewEvent]) -> Result<u64, Error> {
        let mut batch = Batch::default();
        for NewEvent { at_ms, kind, body } in events {
            if kind.len() > KIND_BYTES_MAX || body.len() > BODY_BYTES_MAX {
                return Err(Error::Limit(format!(
                    "an event's kind has at most {KIND_BYTES_MAX} bytes, its body {BODY_BYTES_MAX}"
                )));
            }
            let mut out = Vec::with_capacity(kind.len() + body.len() + 4);
            put_str(&mut out, kind);
            put_str(&mut out, body);
            batch.append(Keyspace::Events, *at_ms, out);
        }
        self.state.commit(batch)
    }

    /// Events from one time to another, both included, the oldest first; `max` at most.
    ///
    /// # Errors
    /// If none can be read at all.
    pub fn range(&self, from_ms: i64, to_ms: i64, max: usize) -> Result<Page, Error> {
        let (from, to) = (frame::time_key(from_ms, 0), frame::time_key(to_ms, u64::MAX));
        if from > to {
            return Ok(Page::default());
        }
        let mut page = Page::default();
        self.scan((Bound::Included(&from), Bound::Included(&to)), Way::Up, &mut |event| {
            if page.events.len() >= max {
                page.is_cut = true;
                return ControlFlow::Break(());
            }
            page.take(event);
            ControlFlow::Continue(())
        })?;
        Ok(page)
    }

    /// Events that come after a time and number, up to a time, that are wanted, the oldest first; `max` at most.
    ///
    /// # Errors
    /// If none can be read at all.
    pub fn onward(
        &self,
        (at_ms, number): (i64, u64),
        to_ms: i64,
        max: usize,
        is_wanted: &dyn Fn(&Event) -> bool,
    ) -> Result<Page, Error> {
        let (from, to) = (frame::time_key(at_ms, number), frame::time_key(to_ms, u64::MAX));
        let mut page = Page::default();
        if from >= to {
            return Ok(page);
        }
        self.scan((Bound::Excluded(&from), Bound::Included(&to)), Way::Up, &mut |event| {
            if event.as_ref().is_ok_and(|event| !is_wanted(event)) {
                return ControlFlow::Continue(());
            }
            if page.events.len() >= max {
                page.is_cut = true;
                return ControlFlow::Break(());
            }
            page.take(event);
            ControlFlow::Continue(())
        })?;
        Ok(page)
    }

    /// The event with the lowest number.
    ///
    /// # Errors
    /// If none can be read at all.
    pub fn oldest(&self) -> Result<Option<Event>, Error> {
        // Only if the clock was ever set back must all be read.
        let is_in_order = self.state.ledger().is_in_order;
        let mut oldest: Option<Event> = None;
        self.scan((Bound::Unbounded, Bound::Unbounded), Way::Up, &mut |event| {
            if let Ok(event) = event
                && oldest.as_ref().is_none_or(|oldest| event.number < oldest.number)
            {
                oldest = Some(event);
            }
            if is_in_order && oldest.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        Ok(oldest)
    }

    /// Whether events with later times have higher numbers, so that a reader may go on by time and number.
    #[must_use]
    pub fn is_in_order(&self) -> bool {
        self.state.ledger().is_in_order
    }

    /// Events with higher numbers than a reader has seen, in the order of their numbers; `max` at most.
    ///
    /// # Errors
    /// If none can be read at all.
    pub fn after(&self, number: u64, max: usize) -> Result<Page, Error> {
        // Only if the clock was ever set back must all be read.
        let is_in_order = self.state.ledger().is_in_order;
        let mut page = Page::default();
        self.scan((Bound::Unbounded, Bound::Unbounded), Way::Down, &mut |event| match event {
            Ok(event) if event.number <= number => {
                if is_in_order {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            }
            event => {
                page.take(event);
                ControlFlow::Continue(())
            }
        })?;
        page.events.sort_unstable_by_key(|event| event.number);
        page.is_cut = page.events.len() > max;
        page.events.truncate(max);
        Ok(page)
    }

    /// The newest event by time.
    ///
    /// # Errors
    /// If none can be read at all.
    pub fn newest(&self) -> Result<Option<Event>, Error> {
        let mut newest = None;
        self.scan((Bound::Unbounded, Bound::Unbounded), Way::Down, &mut |event| {
            newest = event.ok();
            if newest.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        Ok(newest)
    }

    /// Removes events from before a time, a batch at most. Says how many.
    ///
    /// # Errors
    /// If the state does not take the change.
    pub fn expire(&self, before_ms: i64) -> Result<u64, Error> {
        let end = frame::sortable(before_ms);
        let mut batch = Batch::default();
        let mut removed = 0;
        let name = Keyspace::Events.name();
        let range = (Bound::Unbounded, Bound::Excluded(end.as_slice()));
        let scanned = self.state.backend.scan(name, range, Way::Up, &mut |entry| {
            if let Ok((key, _)) = entry {
                batch.remove(Keyspace::Events, key);
                removed += 1;
            }
            if batch.changes.len() < BATCH_MAX { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        scanned.map_err(|fault| self.state.unread(Keyspace::Events, &fault))?;
        if removed > 0 {
            self.state.commit(batch)?;
            self.state.counters.expired.fetch_add(removed, Ordering::Relaxed);
        }
        Ok(removed)
    }

    fn scan(
        &self,
        range: super::backend::Range<'_>,
        way: Way,
        visit: &mut dyn FnMut(Result<Event, Error>) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let state = self.state;
        let scanned = state.backend.scan(Keyspace::Events.name(), range, way, &mut |entry| {
            visit(match entry {
                Ok((key, record)) => {
                    decode(key, record).map_err(|damage| state.damaged(Keyspace::Events, &damage))
                }
                Err(fault) => Err(state.unread(Keyspace::Events, &fault)),
            })
        });
        scanned.map_err(|fault| state.unread(Keyspace::Events, &fault))
    }
}

// === impl Page ===

impl Page {
    fn take(&mut self, event: Result<Event, Error>) {
        match event {
            Ok(event) => self.events.push(event),
            Err(_) => self.damaged += 1,
        }
    }
}

fn decode(key: &[u8], record: &[u8]) -> Result<Event, Malformed> {
    let (number, body) = frame::unseal(key, record)?;
    let (at_ms, _) = frame::read_time_key(key).ok_or(Malformed("key of an event"))?;
    let mut r = Reader::new(body);
    let (kind, body) = (r.str()?.to_owned(), r.str()?.to_owned());
    Ok(Event { number, at_ms, kind, body })
}
