//! A group of series with one timestamp column: rows, stripes, windows, and the view that readers get.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::row::{Row, Sample};
use super::stripe::{Packer, Stripe};
use super::window::Window;
use super::{GroupId, STAGED_ROWS, Slot, window_of};
use crate::codec::Bits;
use crate::index::SeriesId;

/// What a free slot holds in place of a series.
const NO_SERIES: SeriesId = SeriesId::MAX;
/// Windows that pass before a freed slot has another series. A reader that looked a slot up just before it was freed
/// may use it for as long as its query lives; no query lives for forty minutes.
const SLOT_REST_WINDOWS: i64 = 2;

/// The writer's side of a group.
pub struct Group {
    id: GroupId,
    key: Box<str>,
    /// The open window; every row in it is of this window.
    window: i64,
    series: Vec<SeriesId>,
    /// Slots without a sample in the window before.
    idle: Bits,
    /// Slots that may be had again, and from which window on.
    free: VecDeque<(i64, u32)>,
    /// Series that have ended, with the window of their last sample.
    ended: BTreeMap<Slot, Ended>,
    stripes: Vec<Arc<Stripe>>,
    rows: Vec<Arc<Row>>,
    frozen: Vec<Arc<Window>>,
    last: Option<Arc<Row>>,
    view: Arc<ArcSwap<GroupView>>,
}

/// A series that gets no more samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Which.
    pub series: SeriesId,
    /// Where it was.
    pub slot: Slot,
    /// The window of its last sample.
    pub window: i64,
}

/// What a reader sees of a group: a moment of it that no writer changes.
#[derive(Clone, Debug, Default)]
pub struct GroupView {
    /// Complete windows that are not known to be in a file yet, oldest first.
    pub frozen: Vec<Arc<Window>>,
    /// The open window.
    pub window: i64,
    /// Its packed rows.
    pub stripes: Vec<Arc<Stripe>>,
    /// Its rows that are not packed yet.
    pub rows: Vec<Arc<Row>>,
}

/// Where a time belongs in a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placed {
    /// After all rows.
    New,
    /// Into a row that is not packed yet: its number among those.
    Staged(usize),
    /// Before what can still be changed.
    Late,
}

/// What became of a cell that was set in a row that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amended {
    /// It was absent and is set.
    Set,
    /// It had this value.
    Same,
    /// It has another value, which stays.
    Refused,
}

// === impl Group ===

impl Group {
    /// A group without series.
    #[must_use]
    pub fn new(id: GroupId, key: &str) -> Self {
        Self {
            id,
            key: key.into(),
            window: i64::MIN,
            series: Vec::new(),
            idle: Bits::new(0),
            free: VecDeque::new(),
            ended: BTreeMap::new(),
            stripes: Vec::new(),
            rows: Vec::with_capacity(STAGED_ROWS),
            frozen: Vec::new(),
            last: None,
            view: Arc::new(ArcSwap::from_pointee(GroupView::default())),
        }
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> GroupId {
        self.id
    }

    /// What it is called.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Where readers find its newest view.
    #[must_use]
    pub fn view(&self) -> Arc<ArcSwap<GroupView>> {
        Arc::clone(&self.view)
    }

    /// The newest row.
    #[must_use]
    pub fn last(&self) -> Option<&Arc<Row>> {
        self.last.as_ref()
    }

    /// How many slots rows have.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.series.len()
    }

    /// Live series and their slots.
    pub fn live(&self) -> impl Iterator<Item = (Slot, SeriesId)> + '_ {
        let slots = (0u32..).map(Slot);
        slots.zip(self.series.iter().copied()).filter(|(_, series)| *series != NO_SERIES)
    }

    /// The series at a slot.
    #[must_use]
    pub fn series_at(&self, slot: Slot) -> Option<SeriesId> {
        self.series.get(slot.0 as usize).copied().filter(|series| *series != NO_SERIES)
    }

    /// Gives a series a slot.
    pub fn add(&mut self, series: SeriesId) -> Slot {
        let reusable = self.free.front().is_some_and(|(from, _)| *from <= self.window);
        let free = if reusable { self.free.pop_front() } else { None };
        let slot =
            free.map_or_else(|| u32::try_from(self.series.len()).unwrap_or(u32::MAX), |(_, slot)| slot);
        self.put(series, Slot(slot));
        Slot(slot)
    }

    /// Puts a series at the slot that the log names.
    pub fn put(&mut self, series: SeriesId, slot: Slot) {
        let at = slot.0 as usize;
        while self.series.len() <= at {
            if self.series.len() < at {
                let between = u32::try_from(self.series.len()).unwrap_or(u32::MAX);
                self.free.push_back((self.window, between));
            }
            self.series.push(NO_SERIES);
        }
        self.idle.resize(self.series.len());
        self.idle.clear(at);
        self.free.retain(|(_, free)| *free != slot.0);
        if let Some(cell) = self.series.get_mut(at) {
            *cell = series;
        }
    }

    /// Notes that a series has had its last sample. It stays readable until its window is in a file.
    pub fn end(&mut self, slot: Slot) {
        let Some(series) = self.series_at(slot) else { return };
        self.ended.entry(slot).or_insert(Ended { series, slot, window: self.window });
    }

    /// Whether the series at a slot has ended.
    #[must_use]
    pub fn is_ended(&self, slot: Slot) -> bool {
        self.ended.contains_key(&slot)
    }

    /// Takes an end back: the series goes on.
    pub fn revive(&mut self, slot: Slot) {
        self.ended.remove(&slot);
        self.idle.clear(slot.0 as usize);
    }

    /// Where a time belongs.
    #[must_use]
    pub fn place(&self, t: i64) -> Placed {
        let newest = self.last.as_ref().map_or(i64::MIN, |row| row.t);
        if t > newest && window_of(t) >= self.window {
            return Placed::New;
        }
        match self.rows.binary_search_by_key(&t, |row| row.t) {
            Ok(at) => Placed::Staged(at),
            Err(_) => Placed::Late,
        }
    }

    /// Adds a row after all others; begins a new window if the row lies in a later one.
    pub fn push(&mut self, row: Row, packer: &mut Packer) {
        debug_assert_eq!(self.place(row.t), Placed::New, "rows come in the order of time");
        let window = window_of(row.t);
        if window > self.window {
            self.close(packer);
            self.window = window;
        }
        // A series that has a sample after its end has not ended.
        self.ended.retain(|slot, _| !row.present().get(slot.0 as usize));
        let row = Arc::new(row);
        self.last = Some(Arc::clone(&row));
        self.rows.push(row);
        if self.rows.len() >= STAGED_ROWS {
            self.pack(packer);
        }
        self.publish();
    }

    /// Sets a cell of a row that is not packed yet. [`Group::publish`] shows it.
    pub fn amend(&mut self, row: usize, slot: Slot, sample: &Sample) -> Amended {
        let Some(staged) = self.rows.get_mut(row) else { return Amended::Refused };
        match staged.get(slot.0) {
            Some(there) if there.same_bits(sample) => Amended::Same,
            Some(_) => Amended::Refused,
            None => {
                let is_last = self.last.as_ref().is_some_and(|last| last.t == staged.t);
                if is_last {
                    self.last = None;
                }
                Arc::make_mut(staged).set_sample(slot.0, sample.clone());
                if is_last {
                    self.last = Some(Arc::clone(staged));
                }
                Amended::Set
            }
        }
    }

    /// Closes the open window if it is `number` or an older one: later rows belong to later windows.
    pub fn freeze(&mut self, number: i64, packer: &mut Packer) {
        if self.window <= number && self.close(packer) {
            self.window += 1;
            self.publish();
        }
    }

    /// Rows of windows up to `number` are late from now on, whether the group had any or not: those windows are in
    /// files.
    pub fn close_through(&mut self, number: i64) {
        debug_assert!(
            self.window > number || (self.rows.is_empty() && self.stripes.is_empty()),
            "rows left behind"
        );
        self.window = self.window.max(number.saturating_add(1));
        self.publish();
    }

    /// Makes a window of the rows there are; false if there are none.
    fn close(&mut self, packer: &mut Packer) -> bool {
        if !self.rows.is_empty() {
            self.pack(packer);
        }
        if self.stripes.is_empty() {
            return false;
        }
        let stripes = std::mem::take(&mut self.stripes);
        let series: Arc<[SeriesId]> = self.series.as_slice().into();
        let window = Window { group: self.id, number: self.window, stripes, series };
        self.end_idle(&window);
        self.frozen.push(Arc::new(window));
        true
    }

    /// Whether it has rows of windows up to `number`.
    #[must_use]
    pub fn is_due(&self, number: i64) -> bool {
        let is_open_due = self.window <= number && !(self.rows.is_empty() && self.stripes.is_empty());
        is_open_due || self.frozen(number).next().is_some()
    }

    /// Complete windows up to `number`.
    pub fn frozen(&self, number: i64) -> impl Iterator<Item = &Arc<Window>> {
        self.frozen.iter().filter(move |window| window.number <= number)
    }

    /// Lets go of windows up to `number`, which are in files now, and of series that ended in them, but for those
    /// that `is_kept`.
    pub fn release(&mut self, number: i64, is_kept: impl Fn(SeriesId) -> bool) -> Vec<Ended> {
        self.frozen.retain(|window| window.number > number);
        let is_gone = |ended: &Ended| ended.window <= number && !is_kept(ended.series);
        let gone: Vec<Ended> = self.ended.values().filter(|ended| is_gone(ended)).copied().collect();
        for ended in &gone {
            self.ended.remove(&ended.slot);
            if let Some(cell) = self.series.get_mut(ended.slot.0 as usize) {
                *cell = NO_SERIES;
            }
            self.free.push_back((self.window + SLOT_REST_WINDOWS, ended.slot.0));
        }
        self.publish();
        gone
    }

    /// Gives up complete windows after `acknowledged`, up to `through`. Returns how many it were.
    pub fn forget(&mut self, acknowledged: i64, through: i64) -> usize {
        let before = self.frozen.len();
        self.frozen.retain(|window| window.number <= acknowledged || window.number > through);
        let gone = before - self.frozen.len();
        if gone > 0 {
            self.publish();
        }
        gone
    }

    /// Memory of what the group holds.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let packed: usize = self.stripes.iter().map(|stripe| stripe.bytes()).sum();
        let frozen: usize = self.frozen.iter().map(|window| window.bytes()).sum();
        packed + frozen + self.rows.iter().map(|row| row.slots() * 9).sum::<usize>() + self.series.len() * 4
    }

    /// Shows readers the group as it is now.
    pub fn publish(&self) {
        self.view.store(Arc::new(GroupView {
            frozen: self.frozen.clone(),
            window: self.window,
            stripes: self.stripes.clone(),
            rows: self.rows.clone(),
        }));
    }

    fn pack(&mut self, packer: &mut Packer) {
        self.stripes.push(Arc::new(packer.pack(&self.rows, self.series.len())));
        self.rows.clear();
    }

    /// Ends series without a sample in this window and the one before.
    fn end_idle(&mut self, window: &Window) {
        for at in 0..self.series.len() {
            let slot = u32::try_from(at).unwrap_or(u32::MAX);
            if window.has(slot) {
                self.idle.clear(at);
            } else if self.idle.get(at) {
                self.end(Slot(slot));
            } else {
                self.idle.set(at);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Decoded;
    use crate::head::WINDOW_MS;

    fn row(t: i64, cells: &[(u32, f64)]) -> Row {
        let mut row = Row::new(t, 0);
        cells.iter().for_each(|(slot, value)| row.set(*slot, *value));
        row
    }

    #[test]
    fn rows_become_stripes_and_windows_with_every_cell() {
        let (mut group, mut packer) = (Group::new(GroupId(0), "g"), Packer::default());
        let slots = [group.add(10), group.add(11)];
        let mut expected = Vec::new();
        for k in 0..100i64 {
            let t = WINDOW_MS * 7 + k * 5000;
            let mut cells = vec![(slots[0].0, k as f64 * 1.5)];
            if k % 3 == 0 {
                cells.push((slots[1].0, k as f64));
                expected.push((t, k as f64));
            }
            group.push(row(t, &cells), &mut packer);
        }
        group.freeze(7, &mut packer);
        let view = group.view().load_full();
        assert_eq!((view.frozen.len(), view.rows.len(), view.stripes.len()), (1, 0, 0));
        let window = &view.frozen[0];
        assert_eq!(window.samples(), 100 + expected.len());
        let mut decoded = Decoded::default();
        window.read(slots[1].0, &mut decoded).unwrap();
        let present = decoded.present.as_ref().unwrap();
        let times = window.times();
        let got: Vec<_> =
            (0..100).filter(|i| present.get(*i)).map(|i| (times[i], decoded.values[i])).collect();
        assert_eq!(got, expected);
    }

    #[test]
    fn a_cell_is_set_once() {
        let (mut group, mut packer) = (Group::new(GroupId(0), "g"), Packer::default());
        let (a, b) = (group.add(1), group.add(2));
        group.push(row(1000, &[(a.0, 1.0)]), &mut packer);
        assert_eq!(group.place(1000), Placed::Staged(0));
        assert_eq!(group.amend(0, b, &Sample::Float(2.0)), Amended::Set);
        assert_eq!(group.amend(0, b, &Sample::Float(2.0)), Amended::Same);
        assert_eq!(group.amend(0, b, &Sample::Float(3.0)), Amended::Refused);
        assert_eq!(group.last().unwrap().get(b.0), Some(Sample::Float(2.0)), "the log's base knows it too");
        assert_eq!(group.place(999), Placed::Late);
        assert_eq!(group.place(1001), Placed::New);
    }

    #[test]
    fn an_ended_slot_rests_before_it_is_had_again() {
        let (mut group, mut packer) = (Group::new(GroupId(0), "g"), Packer::default());
        let a = group.add(1);
        group.push(row(1000, &[(a.0, 1.0)]), &mut packer);
        group.end(a);
        group.freeze(0, &mut packer);
        assert_eq!(group.release(0, |_| false).len(), 1);
        assert_ne!(group.add(2), a, "too early");
        group.push(row(WINDOW_MS * 9, &[]), &mut packer);
        assert_eq!(group.add(3), a);
    }

    #[test]
    fn a_series_silent_for_two_windows_ends() {
        let (mut group, mut packer) = (Group::new(GroupId(0), "g"), Packer::default());
        let (a, b) = (group.add(1), group.add(2));
        for window in 0..4 {
            let mut cells = vec![(a.0, 1.0)];
            if window == 0 {
                cells.push((b.0, 2.0));
            }
            group.push(row(window * WINDOW_MS, &cells), &mut packer);
        }
        let ended: Vec<_> = group.release(3, |_| false).iter().map(|ended| ended.series).collect();
        assert_eq!(ended, [2]);
    }
}
