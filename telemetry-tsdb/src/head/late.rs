//! Samples that came after their row was packed: kept apart, a sorted list a series, until a file takes them.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use super::LATE_SAMPLES_PER_SERIES;
use super::group::Amended;
use super::row::Sample;
use crate::index::SeriesId;

/// Late samples of one series in the order of time.
pub type LateSeries = Arc<Vec<(i64, Sample)>>;

/// Late samples of all series.
#[derive(Debug, Default)]
pub struct LateSamples(RwLock<Lists>);

#[derive(Debug, Default)]
struct Lists {
    open: BTreeMap<SeriesId, LateSeries>,
    /// What is being written to a file.
    frozen: Arc<BTreeMap<SeriesId, LateSeries>>,
}

// === impl LateSamples ===

impl LateSamples {
    /// Takes a sample in. `None`: the series holds as many as it may.
    pub fn insert(&self, series: SeriesId, t: i64, sample: Sample) -> Option<Amended> {
        let mut lists = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let written = lists.frozen.get(&series).and_then(|list| at(list, t));
        if let Some(there) = written {
            return Some(if there.same_bits(&sample) { Amended::Same } else { Amended::Refused });
        }
        let list = Arc::make_mut(lists.open.entry(series).or_default());
        match list.binary_search_by_key(&t, |entry| entry.0) {
            Ok(found) => {
                let same = list.get(found).is_some_and(|entry| entry.1.same_bits(&sample));
                Some(if same { Amended::Same } else { Amended::Refused })
            }
            Err(_) if list.len() >= LATE_SAMPLES_PER_SERIES => None,
            Err(to) => {
                // Most have one or two, and a vector of its own accord would make room for four.
                if list.len() == list.capacity() {
                    list.reserve_exact(1 + list.len() / 2);
                }
                list.insert(to, (t, sample));
                Some(Amended::Set)
            }
        }
    }

    /// The lists of a series: what is being written, and what came since.
    #[must_use]
    pub fn get(&self, series: SeriesId) -> [Option<LateSeries>; 2] {
        let lists = self.0.read().unwrap_or_else(PoisonError::into_inner);
        [lists.frozen.get(&series).cloned(), lists.open.get(&series).cloned()]
    }

    /// Whether the series has late samples that no file is being written with.
    #[must_use]
    pub fn has_open(&self, series: SeriesId) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).open.contains_key(&series)
    }

    /// Whether any series has a late sample of this range.
    #[must_use]
    pub fn has_within(&self, from: i64, to: i64) -> bool {
        let lists = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let within = |list: &LateSeries| list.iter().any(|(t, _)| (from..=to).contains(t));
        lists.open.values().any(within) || lists.frozen.values().any(within)
    }

    /// Whether there is no late sample at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let lists = self.0.read().unwrap_or_else(PoisonError::into_inner);
        lists.open.is_empty() && lists.frozen.is_empty()
    }

    /// Gives what there is to a file; readers go on seeing it until [`LateSamples::release`]. What an earlier write
    /// did not get to a file is in it again.
    pub fn freeze(&self) -> Arc<BTreeMap<SeriesId, LateSeries>> {
        let mut lists = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let mut all = std::mem::take(&mut lists.open);
        for (series, written) in lists.frozen.iter() {
            let list = Arc::make_mut(all.entry(*series).or_default());
            list.extend(written.iter().cloned());
            list.sort_by_key(|entry| entry.0);
            list.dedup_by_key(|entry| entry.0);
        }
        lists.frozen = Arc::new(all);
        Arc::clone(&lists.frozen)
    }

    /// Lets go of what a file has now.
    pub fn release(&self) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).frozen = Arc::default();
    }

    /// All lists.
    #[must_use]
    pub fn all(&self) -> Vec<(SeriesId, LateSeries)> {
        let lists = self.0.read().unwrap_or_else(PoisonError::into_inner);
        lists.frozen.iter().chain(lists.open.iter()).map(|(id, list)| (*id, Arc::clone(list))).collect()
    }

    /// Forgets samples before a time.
    pub fn drop_before(&self, t: i64) {
        let mut lists = self.0.write().unwrap_or_else(PoisonError::into_inner);
        lists.open.retain(|_, list| {
            Arc::make_mut(list).retain(|entry| entry.0 >= t);
            !list.is_empty()
        });
    }

    /// How many samples there are.
    #[must_use]
    pub fn samples(&self) -> usize {
        let lists = self.0.read().unwrap_or_else(PoisonError::into_inner);
        lists.open.values().chain(lists.frozen.values()).map(|list| list.len()).sum()
    }
}

fn at(list: &LateSeries, t: i64) -> Option<&Sample> {
    let found = list.binary_search_by_key(&t, |entry| entry.0).ok()?;
    list.get(found).map(|entry| &entry.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_samples_are_sorted_single_and_readable_while_written() {
        let late = LateSamples::default();
        for t in [30, 10, 20] {
            assert_eq!(late.insert(1, t, Sample::Float(t as f64)), Some(Amended::Set));
        }
        assert_eq!(late.insert(1, 10, Sample::Float(10.0)), Some(Amended::Same));
        assert_eq!(late.insert(1, 10, Sample::Float(11.0)), Some(Amended::Refused));
        let written = late.freeze();
        assert_eq!(written[&1].iter().map(|s| s.0).collect::<Vec<_>>(), [10, 20, 30]);
        late.insert(1, 15, Sample::Float(0.0));
        let [frozen, open] = late.get(1);
        assert_eq!((frozen.unwrap().len(), open.unwrap().len()), (3, 1));
        assert_eq!(late.freeze()[&1].len(), 4, "what no file got is written again");
        late.release();
        assert!(late.is_empty());
    }

    #[test]
    fn a_series_holds_only_so_many() {
        let late = LateSamples::default();
        for t in 0..i64::try_from(LATE_SAMPLES_PER_SERIES).unwrap() {
            late.insert(1, t, Sample::Float(0.0));
        }
        assert_eq!(late.insert(1, -1, Sample::Float(0.0)), None);
        assert_eq!(late.insert(2, -1, Sample::Float(0.0)), Some(Amended::Set));
    }
}
