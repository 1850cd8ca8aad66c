//! What was sent, taken and acknowledged, and whether a store holds to it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use telemetry_model::{MatchOp, Matcher, STALE_MARKER};
use telemetry_tsdb::db::{Column, Db, Selected};
use telemetry_tsdb::head::Sample;

use crate::load::{RAW_KEPT, value};

const HOUR: i64 = 3_600_000;
/// What may still be there though its time is over: a file of a day goes as a whole.
const FORGOTTEN_AFTER: i64 = RAW_KEPT + 26 * HOUR;

/// A step of the writer.
#[derive(Clone, Debug, PartialEq)]
pub enum Note {
    /// The store is open; all up to this time is promised.
    Open { durable: i64 },
    /// The clock stands here.
    Now { t: i64 },
    /// A sample is about to be given to the store.
    Sent { name: String, t: i64, is_stale: bool },
    /// The store has it.
    Taken { name: String, t: i64, is_stale: bool },
    /// All that was taken, deleted and bound is promised.
    Acknowledged,
    /// A range is about to be deleted.
    Deleting { name: String, from: i64, to: i64 },
    /// It is.
    Deleted,
    /// The owner of this life has its name.
    Bound { life: u64 },
}

/// What has become of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Sent,
    Taken,
    Acknowledged,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    is_stale: bool,
    state: State,
    /// The last reader saw it.
    is_seen: bool,
}

#[derive(Clone, Debug)]
struct Deletion {
    name: String,
    from: i64,
    to: i64,
    state: State,
}

/// The books of all lives of one store.
#[derive(Default)]
pub struct Ledger {
    samples: BTreeMap<String, BTreeMap<i64, Entry>>,
    deletions: Vec<Deletion>,
    bound: BTreeMap<u64, State>,
    now: i64,
}

/// What a check came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Checked {
    /// Samples that were promised and are there.
    pub acknowledged: u64,
    /// Samples that were not promised and are there all the same.
    pub others: u64,
}

// === impl Deletion ===

impl Deletion {
    fn has(&self, t: i64) -> bool {
        (self.from..=self.to).contains(&t)
    }
}

// === impl Note ===

impl Note {
    /// A sample that is no stale marker is about to be given.
    pub fn sent(name: &str, t: i64) -> Self {
        Self::Sent { name: name.to_owned(), t, is_stale: false }
    }

    /// The store has it.
    pub fn taken(name: &str, t: i64) -> Self {
        Self::Taken { name: name.to_owned(), t, is_stale: false }
    }

    /// Appends its line.
    pub fn put(&self, out: &mut String) {
        // Writing to a String cannot fail.
        let _ = match self {
            Self::Open { durable } => writeln!(out, "open {durable}"),
            Self::Now { t } => writeln!(out, "now {t}"),
            Self::Sent { name, t, is_stale } => writeln!(out, "sent {name} {t} {is_stale}"),
            Self::Taken { name, t, is_stale } => writeln!(out, "taken {name} {t} {is_stale}"),
            Self::Acknowledged => writeln!(out, "acknowledged"),
            Self::Deleting { name, from, to } => writeln!(out, "deleting {name} {from} {to}"),
            Self::Deleted => writeln!(out, "deleted"),
            Self::Bound { life } => writeln!(out, "bound {life}"),
        };
    }

    /// Reads a line; `None` if it is not whole or none of ours.
    pub fn parse(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split(' ').collect();
        let sample = |name: &str, t: &str, is_stale: &str| {
            Some((name.to_owned(), t.parse().ok()?, is_stale.parse().ok()?))
        };
        Some(match *words.as_slice() {
            ["open", durable] => Self::Open { durable: durable.parse().ok()? },
            ["now", t] => Self::Now { t: t.parse().ok()? },
            ["sent", name, t, is_stale] => {
                let (name, t, is_stale) = sample(name, t, is_stale)?;
                Self::Sent { name, t, is_stale }
            }
            ["taken", name, t, is_stale] => {
                let (name, t, is_stale) = sample(name, t, is_stale)?;
                Self::Taken { name, t, is_stale }
            }
            ["acknowledged"] => Self::Acknowledged,
            ["deleting", name, from, to] => {
                Self::Deleting { name: name.to_owned(), from: from.parse().ok()?, to: to.parse().ok()? }
            }
            ["deleted"] => Self::Deleted,
            ["bound", life] => Self::Bound { life: life.parse().ok()? },
            _ => return None,
        })
    }
}

// === impl Ledger ===

impl Ledger {
    /// The time of the last note.
    pub fn now(&self) -> i64 {
        self.now
    }

    /// Takes a note in.
    pub fn take(&mut self, note: Note) {
        match note {
            Note::Open { durable } => self.opened(durable),
            Note::Now { t } => self.now = self.now.max(t),
            Note::Sent { name, t, is_stale } => {
                let entry = Entry { is_stale, state: State::Sent, is_seen: false };
                self.samples.entry(name).or_default().entry(t).or_insert(entry);
            }
            Note::Taken { name, t, is_stale } => {
                if let Some(entry) = self.samples.get_mut(&name).and_then(|list| list.get_mut(&t))
                    && entry.is_stale == is_stale
                {
                    entry.state = entry.state.max(State::Taken);
                }
            }
            Note::Acknowledged => {
                self.change(State::Taken, State::Acknowledged);
            }
            Note::Deleting { name, from, to } => {
                self.deletions.push(Deletion { name, from, to, state: State::Sent });
            }
            Note::Deleted => {
                if let Some(last) = self.deletions.last_mut() {
                    last.state = State::Taken;
                }
            }
            Note::Bound { life } => {
                self.bound.insert(life, State::Taken);
            }
        }
    }

    /// A new life: what the last one had not promised is not promised any more, but what the store says is durable and
    /// a reader has seen.
    fn opened(&mut self, durable: i64) {
        for list in self.samples.values_mut() {
            for (t, entry) in list.iter_mut() {
                if entry.is_seen && *t <= durable {
                    entry.state = State::Acknowledged;
                }
            }
        }
        self.change(State::Taken, State::Sent);
        let oldest = self.now - FORGOTTEN_AFTER;
        for list in self.samples.values_mut() {
            *list = list.split_off(&oldest);
        }
        self.samples.retain(|_, list| !list.is_empty());
        self.deletions.retain(|deletion| deletion.to >= oldest);
    }

    fn change(&mut self, from: State, to: State) {
        let entries = self.samples.values_mut().flat_map(|list| list.values_mut());
        let states = entries.map(|entry| &mut entry.state);
        let states = states.chain(self.deletions.iter_mut().map(|deletion| &mut deletion.state));
        states.chain(self.bound.values_mut()).filter(|state| **state == from).for_each(|state| *state = to);
    }

    /// Holds a store to the books.
    ///
    /// # Errors
    /// If a promised sample is missing, a value is wrong, or a sample is there that was never sent.
    pub fn check(&mut self, db: &Db) -> Result<Checked> {
        let matchers = [Matcher::new("__name__", MatchOp::Equal, "x")];
        let selection = db.select(&matchers, i64::MIN, i64::MAX).context("select")?;
        let mut reader = selection.reader();
        let mut checked = Checked::default();
        let mut found: BTreeMap<String, BTreeSet<i64>> = BTreeMap::new();
        for series in selection.series() {
            let name = self.name_of(series)?;
            let column = reader.read(series, i64::MIN, i64::MAX).with_context(|| format!("read {name}"))?;
            ensure!(column.times.is_sorted_by(|a, b| a < b), "{name}: two samples at one time");
            self.check_series(&name, &column)?;
            let times = found.entry(name).or_default();
            let before = times.len();
            times.extend(column.times.iter().copied());
            ensure!(times.len() == before + column.times.len(), "two series of one name share a time");
        }
        let oldest = self.now - RAW_KEPT;
        for (name, list) in &mut self.samples {
            let times = found.get(name);
            let of_it: Vec<&Deletion> =
                self.deletions.iter().filter(|deletion| deletion.name == *name).collect();
            for (t, entry) in list.iter_mut() {
                entry.is_seen = times.is_some_and(|times| times.contains(t));
                let is_promised = entry.state == State::Acknowledged;
                match entry.is_seen {
                    true if is_promised => checked.acknowledged += 1,
                    true => checked.others += 1,
                    false => {
                        let is_excused = *t < oldest || of_it.iter().any(|deletion| deletion.has(*t));
                        ensure!(
                            is_excused || !is_promised,
                            "{name} at {t}, {} ms before now, was acknowledged and is gone",
                            self.now - t
                        );
                    }
                }
            }
        }
        Ok(checked)
    }

    fn check_series(&self, name: &str, column: &Column) -> Result<()> {
        let sent = self.samples.get(name);
        let promised = |deletion: &&Deletion| deletion.state == State::Acknowledged && deletion.name == name;
        let of_it: Vec<&Deletion> = self.deletions.iter().filter(promised).collect();
        let mut histograms = column.histograms.iter().peekable();
        for (at, t) in column.times.iter().enumerate() {
            let got = match histograms.next_if(|(of, _)| *of as usize == at) {
                Some((_, histogram)) => Sample::Histogram(Arc::clone(histogram)),
                None => Sample::Float(column.values[at]),
            };
            let Some(entry) = sent.and_then(|list| list.get(t)) else {
                ensure!(*t < self.now - FORGOTTEN_AFTER, "{name} has a sample at {t} that nobody sent");
                continue;
            };
            let expected = if entry.is_stale { Sample::Float(STALE_MARKER) } else { value(name, *t) };
            ensure!(got.same_bits(&expected), "{name} at {t} is {got:?}, and was sent as {expected:?}");
            let is_deleted = of_it.iter().any(|deletion| deletion.has(*t));
            ensure!(!is_deleted, "{name} at {t} was deleted, and is there");
        }
        Ok(())
    }

    fn name_of(&self, series: &Selected) -> Result<String> {
        if let Some(name) = series.get("name") {
            return Ok(name.to_owned());
        }
        let life = series.get("pod_uid").with_context(|| format!("whose is {:?}?", series.labels()))?;
        match series.get("pod") {
            Some(pod) => ensure!(pod == format!("pod-{life}"), "{pod} owns the series of life {life}"),
            None => {
                let state = life.parse().ok().and_then(|life: u64| self.bound.get(&life));
                ensure!(state != Some(&State::Acknowledged), "life {life} was named, and has no name");
            }
        }
        Ok(format!("owned-{life}"))
    }
}
