//! One series' samples in a time range, as columns; runs from files and memory are joined in the order of time.

use std::sync::Arc;

use telemetry_model::NativeHistogram;

use crate::codec::Decoded;
use crate::head::Sample;

use super::tiered::{Want, raw_value};

/// Timestamp columns that are kept for comparison: a group's columns recur from series to series.
const SHARED_MAX: usize = 8;

/// Samples in the order of time. Stale markers are values.
#[derive(Clone, Debug, Default)]
pub struct Column {
    /// Strictly growing. Series that were read together share the allocation where their times are the same.
    pub times: Arc<[i64]>,
    /// As many; what stands at a histogram means nothing.
    pub values: Vec<f64>,
    /// Histogram samples: position and value, growing.
    pub histograms: Vec<(u32, Arc<NativeHistogram>)>,
}

/// Recent timestamp columns, to give equal ones out once.
#[derive(Default)]
pub struct SharedTimes {
    recent: Vec<Arc<[i64]>>,
    next: usize,
}

/// Joins runs.
#[derive(Default)]
pub struct Joiner {
    times: Vec<i64>,
    values: Vec<f64>,
    histograms: Vec<(u32, Arc<NativeHistogram>)>,
    /// Whether a run began before the end of the one before.
    is_mixed: bool,
}

// === impl Column ===

impl Column {
    /// Makes every sample that came as it is a 1, histograms too; stale markers stay.
    pub fn count_raw(&mut self, is_raw: impl Fn(i64) -> bool) {
        let mut histograms = self.histograms.iter().map(|(at, _)| *at as usize).peekable();
        for (at, (t, value)) in self.times.iter().zip(self.values.iter_mut()).enumerate() {
            let is_histogram = histograms.next_if_eq(&at).is_some();
            if is_raw(*t) {
                *value = if is_histogram { 1.0 } else { raw_value(Want::Count, *value) };
            }
        }
        self.histograms.clear();
    }
}

// === impl SharedTimes ===

impl SharedTimes {
    /// The column with these times: an old one if there is an equal one.
    pub fn share(&mut self, times: &[i64]) -> Arc<[i64]> {
        if let Some(found) = self.recent.iter().find(|known| known.as_ref() == times) {
            return Arc::clone(found);
        }
        let column: Arc<[i64]> = times.into();
        if self.recent.len() < SHARED_MAX {
            self.recent.push(Arc::clone(&column));
        } else if let Some(oldest) = self.recent.get_mut(self.next) {
            *oldest = Arc::clone(&column);
        }
        self.next = (self.next + 1) % SHARED_MAX;
        column
    }
}

// === impl Joiner ===

impl Joiner {
    /// Forgets everything but its memory.
    pub fn clear(&mut self) {
        self.times.clear();
        self.values.clear();
        self.histograms.clear();
        self.is_mixed = false;
    }

    /// Adds the cells of `decoded`, from its cell `from` on, that lie in `range`; `times` are their rows'. Of two
    /// samples at one time the one that was added first stays.
    pub fn run(&mut self, times: &[i64], decoded: &Decoded, from: usize, range: (i64, i64)) {
        let low = times.partition_point(|t| *t < range.0);
        let high = times.partition_point(|t| *t <= range.1);
        if low >= high {
            return;
        }
        let base = self.times.len();
        let first = times.get(low).copied().unwrap_or(i64::MAX);
        self.is_mixed |= self.times.last().is_some_and(|last| *last >= first);
        let cells = from + low..from + high;
        match &decoded.present {
            None => {
                self.times.extend_from_slice(times.get(low..high).unwrap_or(&[]));
                self.values.extend_from_slice(decoded.values.get(cells.clone()).unwrap_or(&[]));
                self.take_histograms(decoded, &cells, |cell| base + cell - cells.start);
            }
            Some(present) => {
                let mut rank = Vec::new();
                for cell in cells.clone().filter(|cell| present.get(*cell)) {
                    if !decoded.histograms.is_empty() {
                        rank.push((cell, self.times.len()));
                    }
                    self.times.push(times.get(cell - from).copied().unwrap_or(0));
                    self.values.push(decoded.values.get(cell).copied().unwrap_or(0.0));
                }
                self.take_histograms(decoded, &cells, |cell| {
                    let at = rank.partition_point(|entry| entry.0 < cell);
                    rank.get(at).map_or(0, |entry| entry.1)
                });
            }
        }
    }

    /// Adds a run of which all cells are numbers and in `range`; `fill` appends as many values as there are times if it
    /// is such a run. The answer is whether it was added.
    pub fn whole<E>(
        &mut self,
        times: &[i64],
        range: (i64, i64),
        fill: impl FnOnce(&mut Vec<f64>) -> Result<bool, E>,
    ) -> Result<bool, E> {
        let (Some(first), Some(last)) = (times.first(), times.last()) else { return Ok(false) };
        if *first < range.0 || *last > range.1 || !fill(&mut self.values)? {
            return Ok(false);
        }
        self.is_mixed |= self.times.last().is_some_and(|last| last >= first);
        self.times.extend_from_slice(times);
        Ok(true)
    }

    /// Adds numbers, one a time, in the order of time.
    pub fn floats(&mut self, times: &[i64], values: &[f64]) {
        let Some(first) = times.first() else { return };
        self.is_mixed |= self.times.last().is_some_and(|last| last >= first);
        self.times.extend_from_slice(times);
        self.values.extend_from_slice(values);
    }

    fn take_histograms(
        &mut self,
        decoded: &Decoded,
        cells: &std::ops::Range<usize>,
        position: impl Fn(usize) -> usize,
    ) {
        let low = decoded.histograms.partition_point(|h| (h.0 as usize) < cells.start);
        let within = decoded.histograms.iter().skip(low).take_while(|h| (h.0 as usize) < cells.end);
        for (cell, histogram) in within {
            let at = u32::try_from(position(*cell as usize)).unwrap_or(u32::MAX);
            self.histograms.push((at, Arc::clone(histogram)));
        }
    }

    /// Adds one sample.
    pub fn sample(&mut self, t: i64, sample: Option<&Sample>, range: (i64, i64)) {
        if t < range.0 || t > range.1 {
            return;
        }
        let value = match sample {
            None => return,
            Some(Sample::Float(value)) => *value,
            Some(Sample::Histogram(histogram)) => {
                let at = u32::try_from(self.times.len()).unwrap_or(u32::MAX);
                self.histograms.push((at, Arc::clone(histogram)));
                0.0
            }
        };
        self.is_mixed |= self.times.last().is_some_and(|last| *last >= t);
        self.times.push(t);
        self.values.push(value);
    }

    /// The column of what was added, without the times that `deleted` names.
    pub fn finish(&mut self, shared: &mut SharedTimes, deleted: &[(i64, i64)]) -> Column {
        if self.is_mixed {
            self.sort();
        }
        if !deleted.is_empty() {
            self.keep(|t| !deleted.iter().any(|(from, to)| (*from..=*to).contains(&t)));
        }
        Column {
            times: shared.share(&self.times),
            // The next series is about as long.
            values: std::mem::replace(&mut self.values, Vec::with_capacity(self.times.len())),
            histograms: std::mem::take(&mut self.histograms),
        }
    }

    fn sort(&mut self) {
        let mut order: Vec<usize> = (0..self.times.len()).collect();
        order.sort_by_key(|at| self.times.get(*at).copied());
        order.dedup_by_key(|at| self.times.get(*at).copied());
        self.pick(&order);
        self.is_mixed = false;
    }

    fn keep(&mut self, wanted: impl Fn(i64) -> bool) {
        let order: Vec<usize> =
            (0..self.times.len()).filter(|at| self.times.get(*at).is_some_and(|t| wanted(*t))).collect();
        if order.len() < self.times.len() {
            self.pick(&order);
        }
    }

    fn pick(&mut self, order: &[usize]) {
        let histograms = std::mem::take(&mut self.histograms);
        let by_position: std::collections::HashMap<u32, Arc<NativeHistogram>> =
            histograms.into_iter().collect();
        let times = order.iter().filter_map(|at| self.times.get(*at).copied()).collect();
        let values = order.iter().filter_map(|at| self.values.get(*at).copied()).collect();
        for (to, at) in order.iter().enumerate() {
            let (from, to) = (u32::try_from(*at).unwrap_or(u32::MAX), u32::try_from(to).unwrap_or(u32::MAX));
            if let Some(histogram) = by_position.get(&from) {
                self.histograms.push((to, Arc::clone(histogram)));
            }
        }
        (self.times, self.values) = (times, values);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Bits;

    const ALL: (i64, i64) = (i64::MIN, i64::MAX);

    fn floats(values: &[f64]) -> Decoded {
        Decoded { values: values.to_vec(), ..Decoded::default() }
    }

    #[test]
    fn runs_are_joined_and_the_first_of_two_samples_stays() {
        let (mut joiner, mut shared) = (Joiner::default(), SharedTimes::default());
        joiner.run(&[10, 20, 30], &floats(&[1.0, 2.0, 3.0]), 0, ALL);
        joiner.run(&[15, 20], &floats(&[9.0, 8.0]), 0, ALL);
        let column = joiner.finish(&mut shared, &[(30, 40)]);
        assert_eq!(&*column.times, [10, 15, 20]);
        assert_eq!(column.values, [1.0, 9.0, 2.0]);
    }

    #[test]
    fn absent_cells_are_left_out_and_histograms_stay_with_their_times() {
        let mut present = Bits::new(4);
        [1, 3].iter().for_each(|at| present.set(*at));
        let histogram = Arc::new(NativeHistogram::default());
        let decoded = Decoded {
            values: vec![0.0, 5.0, 0.0, 0.0],
            present: Some(present),
            histograms: vec![(3, Arc::clone(&histogram))],
        };
        let (mut joiner, mut shared) = (Joiner::default(), SharedTimes::default());
        joiner.run(&[1, 2, 3, 4], &decoded, 0, (2, 9));
        joiner.sample(0, Some(&Sample::Float(7.0)), ALL);
        let column = joiner.finish(&mut shared, &[]);
        assert_eq!((&*column.times, column.values.as_slice()), (&[0, 2, 4][..], &[7.0, 5.0, 0.0][..]));
        assert_eq!(column.histograms.iter().map(|h| h.0).collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn equal_times_share_their_memory() {
        let mut shared = SharedTimes::default();
        let (a, b) = (shared.share(&[1, 2]), shared.share(&[1, 2]));
        assert!(Arc::ptr_eq(&a, &b));
        assert!(!Arc::ptr_eq(&a, &shared.share(&[1, 3])));
    }
}
