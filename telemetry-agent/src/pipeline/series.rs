//! The running totals of every series: increments go in, the latest values come out.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use telemetry_model::clock::Timestamp;
use telemetry_model::{Desc, Family, Histogram, Increment, Labels, LateOwner, Scope, Series, Value};

use crate::attribute::{OwnerId, Renamed};

/// Every series, by owner, family and own labels.
pub struct Totals {
    series: HashMap<Key, Total>,
    /// Series at one time; the excess is added to the owner of the excess.
    series_max: usize,
    /// Rows that found no place for a series of their own, by family.
    limited: HashMap<&'static str, u64>,
    /// Raw sums by family over all owners that ever were: the audit's side of the books.
    grand: HashMap<&'static str, u64>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    owner: Option<OwnerId>,
    family: &'static str,
    labels: Labels,
}

struct Total {
    desc: &'static Desc,
    labels: Labels,
    created: Timestamp,
    value: Sum,
    /// Its owner, if that was exposed before its names were known.
    late: Option<Arc<LateOwner>>,
}

/// What series bear of their owner.
#[derive(Clone, Copy)]
pub struct OwnerView<'a> {
    /// Its labels.
    pub labels: &'a Labels,
    /// How it is stored, if it was exposed before its names were known.
    pub late: Option<&'a Arc<LateOwner>>,
}

enum Sum {
    /// Raw: nanoseconds where the unit is seconds.
    Count(u64),
    Bins(Arc<Histogram>),
}

// === impl Totals ===

impl Totals {
    /// No series yet.
    #[must_use]
    pub fn new(series_max: usize) -> Self {
        Self { series: HashMap::new(), series_max, limited: HashMap::new(), grand: HashMap::new() }
    }

    /// Adds an increment. `view` tells of the owner when a series is new.
    pub fn add<'a>(
        &mut self,
        owner: OwnerId,
        row: telemetry_model::Row,
        now: Timestamp,
        view: impl Fn(OwnerId) -> OwnerView<'a>,
    ) {
        let owned = row.desc.scope == Scope::Owner;
        if let Increment::Count(growth) = row.increment {
            *self.grand.entry(row.desc.name).or_default() += growth;
        }
        let mut key = Key { owner: owned.then_some(owner), family: row.desc.name, labels: row.labels };
        if owned && self.series.len() >= self.series_max && !self.series.contains_key(&key) {
            key.owner = Some(OwnerId::OVERFLOW);
            *self.limited.entry(key.family).or_default() += 1;
        }
        let total = match self.series.entry(key) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let own = &entry.key().labels;
                let view = entry.key().owner.map(view);
                let labels = view.map_or_else(|| own.clone(), |view| own.and(view.labels));
                let late = view.and_then(|view| view.late).cloned();
                entry.insert(Total {
                    desc: row.desc,
                    labels,
                    created: now,
                    value: Sum::of(&row.increment),
                    late,
                })
            }
        };
        total.value.add(row.increment);
    }

    /// The raw sum of a counter over all owners, those forgotten with them.
    #[must_use]
    pub fn grand(&self, family: &str) -> u64 {
        self.grand.get(family).copied().unwrap_or_default()
    }

    /// Adds the series of an owner to those of another, which it turned out to be: the sum over owners stays.
    pub fn rename(&mut self, renamed: Renamed, to: OwnerView<'_>) {
        let moved: Vec<Key> =
            self.series.keys().filter(|key| key.owner == Some(renamed.from)).cloned().collect();
        for from in moved {
            let Some(total) = self.series.remove(&from) else { continue };
            let key = Key { owner: Some(renamed.to), ..from };
            match self.series.entry(key) {
                Entry::Occupied(mut entry) => entry.get_mut().join(total),
                Entry::Vacant(entry) => {
                    let labels = entry.key().labels.and(to.labels);
                    entry.insert(Total { labels, late: to.late.cloned(), ..total });
                }
            }
        }
    }

    /// Forgets every series of an owner.
    pub fn forget(&mut self, owners: &[OwnerId]) {
        if !owners.is_empty() {
            self.series.retain(|key, _| !key.owner.is_some_and(|owner| owners.contains(&owner)));
        }
    }

    /// The latest value of every series, family by family.
    #[must_use]
    pub fn families(&self) -> Vec<Family> {
        let mut families: HashMap<&'static str, Family> = HashMap::new();
        for total in self.series.values() {
            let family = families
                .entry(total.desc.name)
                .or_insert_with(|| Family { desc: total.desc, series: Vec::new() });
            let value = match &total.value {
                Sum::Count(raw) => Value::Number(total.desc.value_of(*raw)),
                Sum::Bins(histogram) => Value::Histogram(Arc::clone(histogram)),
            };
            family.series.push(Series {
                labels: total.labels.clone(),
                value,
                created: Some(total.created),
                late: total.late.clone(),
            });
        }
        families.into_values().collect()
    }

    /// Series by family, in the order of the families' names.
    #[must_use]
    pub fn active(&self) -> Vec<(&'static str, u64)> {
        let mut counts: HashMap<&'static str, u64> = HashMap::new();
        for key in self.series.keys() {
            *counts.entry(key.family).or_default() += 1;
        }
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort_unstable();
        counts
    }

    /// Rows beyond the limit, by family.
    pub fn limited(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.limited.iter().map(|(family, rows)| (*family, *rows))
    }
}

// === impl Total ===

impl Total {
    fn join(&mut self, other: Total) {
        self.created = self.created.min(other.created);
        match (&mut self.value, other.value) {
            (Sum::Count(raw), Sum::Count(more)) => *raw = raw.saturating_add(more),
            (Sum::Bins(histogram), Sum::Bins(more)) => {
                Arc::make_mut(histogram).add(more.bins().iter().copied(), more.sum());
            }
            (Sum::Count(_), Sum::Bins(_)) | (Sum::Bins(_), Sum::Count(_)) => {
                debug_assert!(false, "a family is of one kind");
            }
        }
    }
}

// === impl Sum ===

impl Sum {
    /// Nothing yet, of the kind that the increment is.
    fn of(increment: &Increment) -> Self {
        match increment {
            Increment::Count(_) => Sum::Count(0),
            Increment::Bins { layout, .. } => Sum::Bins(Arc::new(Histogram::new(layout))),
        }
    }

    fn add(&mut self, increment: Increment) {
        match (self, increment) {
            (Sum::Count(raw), Increment::Count(growth)) => *raw = raw.saturating_add(growth),
            (Sum::Bins(histogram), Increment::Bins { bins, sum, .. }) => {
                // Copies only if a reader still holds the last snapshot.
                let bins = bins.iter().map(|&bin| u64::from(bin));
                Arc::make_mut(histogram).add(bins, telemetry_model::seconds(sum));
            }
            (Sum::Count(_), Increment::Bins { .. }) | (Sum::Bins(_), Increment::Count(_)) => {
                debug_assert!(false, "a family is of one kind");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use telemetry_model::{Kind, OwnerKey, Row, Unit};

    static SPENT: Desc = Desc {
        name: "spent_seconds_total",
        kind: Kind::Counter,
        unit: Unit::Seconds,
        help: "Time spent.",
        scope: Scope::Owner,
        labels: &[],
        bound: "owners",
        source: "test",
    };

    fn spend(totals: &mut Totals, owner: OwnerId, nanos: u64) {
        let increment = Increment::Count(nanos);
        let row = Row { owner: OwnerKey::Kernel, desc: &SPENT, labels: Labels::none(), increment };
        let labels = [Labels::fixed(&[("unit", "kernel")]), Labels::fixed(&[("unit", "_other")])];
        let labels = |owner| &labels[usize::from(owner == OwnerId::OVERFLOW)];
        totals.add(owner, row, Timestamp(1), |owner| OwnerView { labels: labels(owner), late: None });
    }

    fn values(totals: &Totals) -> Vec<(String, f64)> {
        let mut values: Vec<_> = totals
            .families()
            .into_iter()
            .flat_map(|family| family.series)
            .map(|series| {
                let Value::Number(value) = series.value else { panic!("a counter") };
                (series.labels.get("unit").unwrap_or_default().to_owned(), value)
            })
            .collect();
        values.sort_by(|a, b| a.0.cmp(&b.0));
        values
    }

    #[test]
    fn nanoseconds_add_up_to_seconds() {
        let mut totals = Totals::new(10);
        spend(&mut totals, OwnerId::KERNEL, 1_500_000_000);
        spend(&mut totals, OwnerId::KERNEL, 500_000_000);
        assert_eq!(values(&totals), [("kernel".to_owned(), 2.0)]);
    }

    #[test]
    fn series_beyond_the_limit_keep_the_sum_under_the_overflow_owner() {
        let mut totals = Totals::new(1);
        spend(&mut totals, OwnerId::KERNEL, 1_000_000_000);
        spend(&mut totals, OwnerId::UNRESOLVED, 2_000_000_000);
        spend(&mut totals, OwnerId::KERNEL, 1_000_000_000);
        assert_eq!(values(&totals), [("_other".to_owned(), 2.0), ("kernel".to_owned(), 2.0)]);
        assert_eq!(totals.limited().collect::<Vec<_>>(), [("spent_seconds_total", 1)]);
    }

    #[test]
    fn a_renamed_owner_takes_its_counts_along_and_adds_them_to_what_is_there() {
        let named = Labels::fixed(&[("unit", "named")]);
        let rename = |totals: &mut Totals, from| {
            let late = None;
            totals.rename(Renamed { from, to: OwnerId::ROOT }, OwnerView { labels: &named, late });
        };
        let mut totals = Totals::new(10);
        spend(&mut totals, OwnerId::KERNEL, 1_000_000_000);
        rename(&mut totals, OwnerId::KERNEL);
        assert_eq!(values(&totals), [("named".to_owned(), 1.0)]);
        spend(&mut totals, OwnerId::OVERFLOW, 2_000_000_000);
        rename(&mut totals, OwnerId::OVERFLOW);
        assert_eq!(values(&totals), [("named".to_owned(), 3.0)]);
    }

    #[test]
    fn a_forgotten_owner_leaves_nothing() {
        let mut totals = Totals::new(10);
        spend(&mut totals, OwnerId::KERNEL, 1);
        totals.forget(&[OwnerId::KERNEL]);
        assert_eq!(values(&totals), []);
    }
}
