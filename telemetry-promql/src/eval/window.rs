//! Which samples each step sees: bounds once for all series that share their times.

use std::sync::{Arc, OnceLock};

use telemetry_model::{NativeHistogram, is_stale};

use super::frame::Grid;
use super::regression::TimeSums;
use crate::source::Column;

/// Bounds that are kept for comparison: times recur from series to series.
const KNOWN_MAX: usize = 8;
/// Bytes that they and their times may take; the last ones are kept all the same.
const KNOWN_BYTES: usize = 1 << 20;

/// When the steps of a grid look at samples, and how far around.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    pub grid: Grid,
    /// Absolute milliseconds, in place of a step's time.
    pub at: Option<i64>,
    /// Milliseconds back.
    pub offset: i64,
    /// Milliseconds before the time that is looked at, excluded.
    pub before: i64,
    /// Milliseconds after it, included.
    pub after: i64,
}

/// Samples of each step: positions `lo..hi`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bounds {
    pub lo: Vec<u32>,
    pub hi: Vec<u32>,
    /// What lines through the samples of each step need to know of their times, once one was asked for.
    pub time_sums: OnceLock<Vec<TimeSums>>,
}

/// Bounds of the times that were seen last.
#[derive(Debug, Default)]
pub(crate) struct Known {
    recent: Vec<(Arc<[i64]>, Arc<Bounds>)>,
    next: usize,
}

/// A series' samples, numbers and histograms apart, without stale markers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples {
    pub floats: Points<f64>,
    pub histograms: Points<Arc<NativeHistogram>>,
}

/// Samples of one kind in the order of time.
#[derive(Clone, Debug)]
pub(crate) struct Points<V> {
    pub times: Arc<[i64]>,
    pub values: Vec<V>,
    /// When each count began; empty if nobody said, or nobody asked.
    pub starts: Vec<i64>,
}

/// What a step sees of samples of one kind.
#[derive(Debug)]
pub(crate) struct View<'a, V> {
    pub times: &'a [i64],
    pub values: &'a [V],
    pub starts: &'a [i64],
}

/// What a step sees of a series.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window<'a> {
    pub floats: View<'a, f64>,
    pub histograms: View<'a, Arc<NativeHistogram>>,
    /// The step's time.
    pub t: i64,
    /// The window: after `from`, up to `to`.
    pub from: i64,
    pub to: i64,
}

// === impl Look ===

impl Look {
    /// The time that a step looks at.
    pub fn base(&self, step: usize) -> i64 {
        self.at.unwrap_or_else(|| self.grid.t(step)).saturating_sub(self.offset)
    }

    /// First and last millisecond that any step sees.
    pub fn span(&self) -> (i64, i64) {
        let (first, last) = (self.base(0), self.base(self.grid.count.saturating_sub(1)));
        let from = first.saturating_sub(self.before).saturating_add(1);
        (from, last.saturating_add(self.after))
    }

    /// The bounds for samples at these times.
    pub fn bounds(&self, times: &[i64]) -> Bounds {
        let count = if self.at.is_some() { 1 } else { self.grid.count };
        let mut bounds =
            Bounds { lo: Vec::with_capacity(count), hi: Vec::with_capacity(count), ..Bounds::default() };
        let (mut lo, mut hi) = (0, 0);
        for step in 0..count {
            let base = self.base(step);
            let (from, to) = (base.saturating_sub(self.before), base.saturating_add(self.after));
            lo = forward(times, lo, from);
            hi = forward(times, hi.max(lo), to);
            bounds.lo.push(narrow(lo));
            bounds.hi.push(narrow(hi));
        }
        if self.at.is_some() {
            let last = |of: &[u32]| of.first().copied().unwrap_or(0);
            let (lo, hi) = (last(&bounds.lo), last(&bounds.hi));
            bounds =
                Bounds { lo: vec![lo; self.grid.count], hi: vec![hi; self.grid.count], ..Bounds::default() };
        }
        bounds
    }
}

/// The first position from `at` on whose time is after `t`.
fn forward(times: &[i64], mut at: usize, t: i64) -> usize {
    // Steps are mostly a few samples apart; a long way is halved instead.
    for _ in 0..16 {
        match times.get(at) {
            Some(time) if *time <= t => at += 1,
            _ => return at,
        }
    }
    at + times.get(at..).map_or(0, |rest| rest.partition_point(|time| *time <= t))
}

fn narrow(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

// === impl Bounds ===

impl Bounds {
    /// The positions that a step sees.
    #[inline]
    pub fn at(&self, step: usize) -> std::ops::Range<usize> {
        match (self.lo.get(step), self.hi.get(step)) {
            (Some(lo), Some(hi)) => *lo as usize..*hi as usize,
            _ => 0..0,
        }
    }
}

// === impl Known ===

impl Known {
    /// The bounds for samples at these times: old ones if the times are.
    pub fn bounds(&mut self, look: &Look, times: &Arc<[i64]>) -> Arc<Bounds> {
        if let Some((_, bounds)) = self.recent.iter().find(|(known, _)| Arc::ptr_eq(known, times)) {
            return Arc::clone(bounds);
        }
        let bounds = Arc::new(look.bounds(times));
        let entry = (Arc::clone(times), Arc::clone(&bounds));
        let bytes = 8 * (times.len() + 3 * look.grid.count) + 1;
        let most = (KNOWN_BYTES / bytes).clamp(1, KNOWN_MAX);
        self.recent.truncate(most);
        if self.recent.len() < most {
            self.recent.push(entry);
        } else if let Some(oldest) = self.recent.get_mut(self.next) {
            *oldest = entry;
        }
        self.next = (self.next + 1) % most;
        bounds
    }
}

// === impl Points ===

impl<V> Default for Points<V> {
    fn default() -> Self {
        Self { times: Arc::from([]), values: Vec::new(), starts: Vec::new() }
    }
}

impl<V> Points<V> {
    /// The samples at these positions.
    #[inline]
    pub fn view(&self, at: std::ops::Range<usize>) -> View<'_, V> {
        View {
            times: self.times.get(at.clone()).unwrap_or(&[]),
            values: self.values.get(at.clone()).unwrap_or(&[]),
            starts: self.starts.get(at).unwrap_or(&[]),
        }
    }
}

// === impl View ===

impl<V> Clone for View<'_, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<V> Copy for View<'_, V> {}

impl<'a, V> View<'a, V> {
    pub fn len(&self) -> usize {
        self.values.len()
    }

    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Times and values.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (i64, &'a V)> + ExactSizeIterator + use<'a, V> {
        self.times.iter().copied().zip(self.values)
    }

    pub fn first(&self) -> Option<(i64, &'a V)> {
        Some((*self.times.first()?, self.values.first()?))
    }

    pub fn last(&self) -> Option<(i64, &'a V)> {
        Some((*self.times.last()?, self.values.last()?))
    }

    pub fn get(&self, at: usize) -> Option<(i64, &'a V)> {
        Some((*self.times.get(at)?, self.values.get(at)?))
    }

    /// When the count of the sample at a position began; 0 if nobody said.
    pub fn start(&self, at: usize) -> i64 {
        self.starts.get(at).copied().unwrap_or(0)
    }
}

// === impl Samples ===

impl Samples {
    /// Numbers and histograms apart; stale markers left out.
    pub fn of(column: Column, with_starts: bool) -> Self {
        let Column { times, values, histograms, starts } = column;
        let starts = if with_starts { starts.unwrap_or_default() } else { Vec::new() };
        if histograms.is_empty() && !values.iter().any(|value| is_stale(*value)) {
            return Self { floats: Points { times, values, starts }, histograms: Points::default() };
        }
        let mut floats = (Vec::new(), Vec::new(), Vec::new());
        let mut others = (Vec::new(), Vec::new(), Vec::new());
        let mut next = histograms.into_iter().peekable();
        for (at, (t, value)) in times.iter().zip(&values).enumerate() {
            let start = starts.get(at).copied();
            match next.next_if(|(row, _)| *row as usize == at) {
                Some((_, histogram)) if is_stale(histogram.sum) => {}
                Some((_, histogram)) => {
                    others.0.push(*t);
                    others.1.push(histogram);
                    others.2.extend(start);
                }
                None if is_stale(*value) => {}
                None => {
                    floats.0.push(*t);
                    floats.1.push(*value);
                    floats.2.extend(start);
                }
            }
        }
        Self {
            floats: Points { times: floats.0.into(), values: floats.1, starts: floats.2 },
            histograms: Points { times: others.0.into(), values: others.1, starts: others.2 },
        }
    }
}

// === impl Window ===

impl Window<'_> {
    pub fn is_empty(&self) -> bool {
        self.floats.is_empty() && self.histograms.is_empty()
    }

    pub fn is_mixed(&self) -> bool {
        !self.floats.is_empty() && !self.histograms.is_empty()
    }

    pub fn len(&self) -> usize {
        self.floats.len() + self.histograms.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_open_at_their_start_and_closed_at_their_end() {
        let grid = Grid::new(20, 60, 20);
        let look = Look { grid, at: None, offset: 0, before: 20, after: 0 };
        let bounds = look.bounds(&[0, 10, 20, 30, 40, 50]);
        assert_eq!((bounds.at(0), bounds.at(1), bounds.at(2)), (1..3, 3..5, 5..6));
        assert_eq!(look.span(), (1, 60));
        let fixed = Look { at: Some(40), ..look };
        assert_eq!(fixed.bounds(&[0, 10, 20, 30, 40, 50]).at(2), 3..5);
    }

    #[test]
    fn long_gaps_are_crossed() {
        let times: Vec<i64> = (0..10_000).collect();
        let look = Look { grid: Grid::new(0, 9000, 4500), at: None, offset: 0, before: 10, after: 0 };
        assert_eq!(look.bounds(&times).at(2), 8991..9001);
    }

    #[test]
    fn stale_markers_are_no_samples() {
        let column = Column {
            times: Arc::from([1, 2, 3]),
            values: vec![1.0, telemetry_model::STALE_MARKER, 0.0],
            histograms: vec![(2, Arc::default())],
            starts: Some(vec![7, 8, 9]),
        };
        let samples = Samples::of(column, true);
        assert_eq!((samples.floats.values, samples.floats.starts), (vec![1.0], vec![7]));
        assert_eq!((&*samples.histograms.times, samples.histograms.starts), (&[3][..], vec![9]));
    }
}
