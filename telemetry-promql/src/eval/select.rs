//! Selectors: series are read one by one, by two threads if they are many, and handed on in order.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use telemetry_model::is_stale;

use super::Evaluator;
use super::frame::{Column, Frame, Grid};
use super::window::{Known, Look};
use crate::annotations::{Annotations, Kind};
use crate::ast::Extended;
use crate::budget::Budget;
use crate::error::QueryError;
use crate::labels::Labels;
use crate::plan::{Selector, millis_to_seconds};
use crate::source::{self, Grouping, Hints, Select, Selection};

/// From so many series on two threads read: below, starting one costs more than it saves.
const PARALLEL_MIN: usize = 256;
/// Series that a thread reads before it hands them on.
const BATCH: usize = 64;
/// Bytes that a thread makes before it hands them on.
const BATCH_BYTES: usize = 256 << 10;
/// Samples looked at between two looks at the clock: less than a millisecond's work.
const TICK: usize = 1 << 14;

/// What one thread has at hand while it reads series.
pub(crate) struct Worker<'a> {
    pub known: Known,
    pub notes: Annotations,
    pub budget: &'a Budget,
    /// Whether histograms are read without their buckets.
    pub stats_only: bool,
    since_check: usize,
    /// Samples looked at that the budget has not heard of.
    looked_at: usize,
    /// Bytes of the series at hand: its samples, and what is made of them.
    at_hand: usize,
    /// Whether another thread reads, too, and may need as much.
    is_one_of_two: bool,
}

/// What is made of one series.
pub(crate) type Work<'w, T> =
    dyn Fn(&mut Worker<'_>, &Labels, source::Column) -> Result<Option<T>, QueryError> + Sync + 'w;

/// What was made of some series of a batch, and whether they are its last.
type Part<T> = Result<(Vec<T>, bool), QueryError>;

/// What can be weighed.
pub(crate) trait Weigh {
    /// Bytes of memory, about, without labels.
    fn weight(&self) -> usize;
}

/// Says that a thread need not go on.
struct Stopped;

// === impl Column ===

impl Weigh for Column {
    fn weight(&self) -> usize {
        self.bytes_unnamed()
    }
}

// === impl Worker ===

impl<'a> Worker<'a> {
    pub fn new(budget: &'a Budget) -> Self {
        Self {
            known: Known::default(),
            notes: Annotations::default(),
            budget,
            stats_only: false,
            since_check: 0,
            looked_at: 0,
            at_hand: 0,
            is_one_of_two: false,
        }
    }

    /// Says that so many bytes more are made of the series at hand.
    ///
    /// # Errors
    /// If the query cannot hold them.
    #[inline]
    pub fn make(&mut self, bytes: usize) -> Result<(), QueryError> {
        self.at_hand = self.at_hand.saturating_add(bytes);
        self.budget.room(if self.is_one_of_two { self.at_hand.saturating_mul(2) } else { self.at_hand })
    }

    /// Counts work, about a sample's worth each, and stops if the query is to.
    #[inline]
    pub fn tick(&mut self, work: usize) -> Result<(), QueryError> {
        self.since_check += work + 1;
        if self.since_check >= TICK {
            self.since_check = 0;
            self.budget.check()?;
        }
        Ok(())
    }

    /// Counts samples that were looked at.
    #[inline]
    pub fn look(&mut self, samples: usize) {
        self.looked_at += samples;
    }

    /// Tells the budget what was looked at.
    pub fn tell(&mut self) {
        self.budget.looked_at(std::mem::take(&mut self.looked_at));
    }

    /// Makes something of the series of a batch, one by one, each for `steps` steps.
    fn batch<T>(
        &mut self,
        (selection, steps): (&dyn Selection, usize),
        reader: &mut dyn source::Reader,
        from: usize,
        work: &Work<'_, T>,
        sink: &mut dyn FnMut(T) -> Result<(), QueryError>,
    ) -> Result<(), QueryError> {
        for (at, labels) in selection.series().iter().enumerate().skip(from).take(BATCH) {
            self.budget.check()?;
            self.at_hand = 0;
            self.make(Column::bytes_of(steps))?;
            let mut column = reader.read(at)?;
            self.budget.samples(column.times.len())?;
            self.make(column.bytes())?;
            if self.stats_only && !column.histograms.is_empty() {
                super::stats_only::reduce(&mut column);
            }
            if let Some(made) = work(self, labels, column)? {
                sink(made)?;
            }
        }
        self.tell();
        Ok(())
    }

    /// A batch, handed to another thread part by part.
    fn send<T: Weigh>(
        &mut self,
        from_where: (&dyn Selection, usize),
        reader: &mut dyn source::Reader,
        from: usize,
        work: &Work<'_, T>,
        sender: &SyncSender<Part<T>>,
    ) -> Result<(), Stopped> {
        let (mut part, mut bytes, mut is_gone) = (Vec::new(), 0_usize, false);
        let result = self.batch(from_where, reader, from, work, &mut |made| {
            bytes = bytes.saturating_add(made.weight());
            part.push(made);
            if bytes >= BATCH_BYTES {
                bytes = 0;
                is_gone = sender.send(Ok((std::mem::take(&mut part), false))).is_err();
            }
            // Nobody waits for it any more.
            if is_gone { Err(QueryError::canceled()) } else { Ok(()) }
        });
        let failed = result.is_err();
        let last = result.map(|()| (part, true));
        if is_gone || sender.send(last).is_err() || failed { Err(Stopped) } else { Ok(()) }
    }
}

// === impl Evaluator ===

impl<'a> Evaluator<'a> {
    /// The series that a selector finds.
    pub fn find(
        &self,
        selector: &Selector,
        look: &Look,
        window: i64,
    ) -> Result<Box<dyn Selection + 'a>, QueryError> {
        let (from, to) = look.span();
        // What stands in several places is read for all of them.
        let is_shared = self.shared.has_selector(selector);
        let grouping = selector.grouping.as_ref().filter(|_| !is_shared).map(|(labels, without)| {
            (labels.as_slice(), if *without { Grouping::Without } else { Grouping::By })
        });
        // Functions of one selector and window are shared only with their like, and samples' times with none.
        let is_hidden =
            selector.extended.is_some() || (is_shared && window == 0 && !stamps(selector.function));
        let hints = Hints {
            step: if look.grid.is_instant() { 0 } else { look.grid.step },
            window,
            before: look.before,
            function: if is_hidden { "" } else { selector.function },
            grouping,
            starts: self.options.start_timestamps,
        };
        let request = Select { matchers: &selector.matchers, from, to, hints };
        let mut selection = self.source.select(&request, self.budget)?;
        if selection.series().is_empty()
            && let Some(made) = super::classic::select(self.source, &request, self.budget)?
        {
            selection = made;
        }
        self.budget.series(selection.series().len())?;
        self.grow(selection.series().iter().map(Labels::bytes).sum())?;
        Ok(selection)
    }

    /// Makes something of each series, for `steps` steps, and hands it on, in the order of the series.
    pub fn each<T: Send + Weigh>(
        &self,
        selector: &Selector,
        (selection, steps): (&dyn Selection, usize),
        work: &Work<'_, T>,
        sink: &mut dyn FnMut(T) -> Result<(), QueryError>,
    ) -> Result<(), QueryError> {
        let mut worker = Worker::new(self.budget);
        worker.stats_only = selector.stats_only;
        let count = selection.series().len();
        let result = if count < PARALLEL_MIN || self.threads < 2 {
            let mut reader = selection.reader();
            (0..count)
                .step_by(BATCH)
                .try_for_each(|from| worker.batch((selection, steps), &mut *reader, from, work, sink))
        } else {
            worker.is_one_of_two = true;
            self.each_by_two((selection, steps), work, sink, &mut worker)
        };
        self.note_all(worker.notes);
        result
    }

    /// Even batches here, odd ones by a second thread; its channel holds two parts, so that neither runs far ahead.
    fn each_by_two<T: Send + Weigh>(
        &self,
        (selection, steps): (&dyn Selection, usize),
        work: &Work<'_, T>,
        sink: &mut dyn FnMut(T) -> Result<(), QueryError>,
        worker: &mut Worker<'_>,
    ) -> Result<(), QueryError> {
        let (budget, count) = (self.budget, selection.series().len());
        let stats_only = worker.stats_only;
        let (sender, receiver): (SyncSender<Part<T>>, Receiver<Part<T>>) = sync_channel(2);
        let (result, notes) = std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("promql-read".to_owned());
            let second = thread.spawn_scoped(scope, move || {
                let mut worker = Worker { stats_only, is_one_of_two: true, ..Worker::new(budget) };
                let mut reader = selection.reader();
                for from in (BATCH..count).step_by(2 * BATCH) {
                    if worker.send((selection, steps), &mut *reader, from, work, &sender).is_err() {
                        break;
                    }
                }
                worker.notes
            });
            let mut reader = selection.reader();
            let result = (0..count).step_by(BATCH).enumerate().try_for_each(|(number, from)| {
                // Where no thread can be had, this one does it all.
                if number % 2 == 0 || second.is_err() {
                    return worker.batch((selection, steps), &mut *reader, from, work, sink);
                }
                loop {
                    let part =
                        receiver.recv().map_err(|_| QueryError::internal("a reading thread ended early"))?;
                    let (made, is_last) = part?;
                    made.into_iter().try_for_each(&mut *sink)?;
                    if is_last {
                        return Ok(());
                    }
                }
            });
            drop(receiver);
            let notes = second.ok().and_then(|second| second.join().ok());
            (result, notes.unwrap_or_default())
        });
        self.note_all(notes);
        result
    }

    /// How an instant selector looks at samples.
    pub fn instant_look(&self, selector: &Selector, grid: Grid) -> Look {
        let after = match selector.extended {
            Some(Extended::Smoothed) => self.options.lookback,
            Some(Extended::Anchored) | None => 0,
        };
        let before = self.options.lookback;
        Look { grid, at: selector.at, offset: selector.offset, before, after }
    }

    /// An instant selector.
    pub fn select(&self, selector: &Selector, grid: Grid) -> Result<Frame, QueryError> {
        let mut columns = Vec::new();
        self.select_each(selector, grid, &mut |column| {
            self.grow(column.bytes_unnamed())?;
            columns.push(column);
            Ok(())
        })?;
        Ok(Frame::Vector(columns))
    }

    /// An instant selector, series by series.
    pub fn select_each(
        &self,
        selector: &Selector,
        grid: Grid,
        sink: &mut dyn FnMut(Column) -> Result<(), QueryError>,
    ) -> Result<(), QueryError> {
        let look = self.instant_look(selector, grid);
        let selection = self.find(selector, &look, 0)?;
        if selector.extended == Some(Extended::Smoothed) {
            let work = |worker: &mut Worker<'_>, labels: &Labels, column: source::Column| {
                super::extended::smooth(worker, labels, column, &look, selector.position)
            };
            return self.each(selector, (&*selection, grid.count), &work, sink);
        }
        let work = |worker: &mut Worker<'_>, labels: &Labels, column: source::Column| {
            worker.tick(grid.count)?;
            Ok(latest(worker, labels, &column, &look))
        };
        self.each(selector, (&*selection, grid.count), &work, sink)
    }

    /// Times of the samples that a selector finds, or of the beginnings of their counts.
    pub fn stamps(&self, selector: &Selector, starts: bool, grid: Grid) -> Result<Frame, QueryError> {
        if starts && !self.options.start_timestamps {
            return Ok(Frame::Vector(Vec::new()));
        }
        let look = self.instant_look(selector, grid);
        let selection = self.find(selector, &look, 0)?;
        let work = |worker: &mut Worker<'_>, labels: &Labels, column: source::Column| {
            worker.tick(grid.count)?;
            let Some(mut found) = latest(worker, labels, &column, &look) else { return Ok(None) };
            found.histograms = None;
            let bounds = worker.known.bounds(&look, &column.times);
            let of = if starts { column.starts.as_deref().unwrap_or(&[]) } else { &column.times };
            for step in 0..grid.count {
                let at = bounds.at(step).end.wrapping_sub(1);
                let stamp = of.get(at).copied().unwrap_or(0);
                if let Some(value) = found.values.get_mut(step) {
                    *value = millis_to_seconds(stamp);
                }
            }
            Ok(Some(found))
        };
        let mut columns = Vec::new();
        self.each(selector, (&*selection, grid.count), &work, &mut |column| {
            self.grow(column.bytes())?;
            columns.push(self.drop_name(column));
            Ok(())
        })?;
        self.assembled(columns, grid)
    }

    /// Adds remarks.
    pub fn note_all(&self, notes: Annotations) {
        if !notes.is_empty() {
            self.notes.borrow_mut().merge(notes);
        }
    }

    /// Adds a remark.
    pub fn note(&self, kind: Kind, position: usize) {
        self.notes.borrow_mut().add(kind, position);
    }
}

/// Whether a function asks when a sample was taken.
fn stamps(function: &str) -> bool {
    matches!(function, "timestamp" | "start_timestamp")
}

/// The latest sample at each step, unless it is too old or a stale marker.
fn latest(worker: &mut Worker<'_>, labels: &Labels, column: &source::Column, look: &Look) -> Option<Column> {
    let bounds = worker.known.bounds(look, &column.times);
    let mut out = Column::empty(labels.clone(), look.grid.count);
    for step in 0..look.grid.count {
        let at = bounds.at(step);
        if at.is_empty() {
            continue;
        }
        let last = at.end - 1;
        let row = u32::try_from(last).unwrap_or(u32::MAX);
        let histogram = match column.histograms.is_empty() {
            true => None,
            false => column.histograms.binary_search_by_key(&row, |entry| entry.0).ok(),
        };
        match histogram.and_then(|found| column.histograms.get(found)) {
            Some((_, histogram)) if is_stale(histogram.sum) => {}
            Some((_, histogram)) => out.set_histogram(step, Arc::clone(histogram)),
            None => match column.values.get(last) {
                Some(value) if !is_stale(*value) => out.set(step, *value),
                _ => {}
            },
        }
    }
    worker.look(out.present.count());
    out.present.any().then_some(out)
}
