//! The latest values: what an exposition prints and a store appends.

use std::sync::Arc;

use crate::clock::Timestamp;
use crate::{Desc, Histogram, Labels};

/// Every series with its latest value, at one time.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// When the values were taken.
    pub at: Timestamp,
    /// Families in the order of their names; a name occurs once.
    pub families: Vec<Family>,
}

/// The series of one metric.
#[derive(Debug)]
pub struct Family {
    /// What the metric is.
    pub desc: &'static Desc,
    /// In the order of their labels; a label set occurs once.
    pub series: Vec<Series>,
}

/// One series with its latest value.
#[derive(Clone, Debug)]
pub struct Series {
    /// All labels, the owner's and the family's own.
    pub labels: Labels,
    /// The value.
    pub value: Value,
    /// When it began to count, where it counts.
    pub created: Option<Timestamp>,
    /// Whose it is, where the owner's names were not known when it began.
    pub late: Option<Arc<LateOwner>>,
}

/// An owner that was exposed before its names were known. What is stored under its number is read under the labels
/// that are known last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LateOwner {
    /// Unique in one run of the agent.
    pub number: u64,
    /// Its labels, which are part of the series': without names until it is bound.
    pub labels: Labels,
    /// Whether the labels are final.
    pub is_bound: bool,
}

/// A value as the formats know it.
#[derive(Clone, Debug)]
pub enum Value {
    /// Counter, gauge or info.
    Number(f64),
    /// Histogram.
    Histogram(Arc<Histogram>),
}

// === impl Snapshot ===

impl Snapshot {
    /// Puts families and series in order. Series of families with one name are joined, and of two series with one
    /// label set the first stays, so that no page can show a series twice.
    #[must_use]
    pub fn new(at: Timestamp, mut families: Vec<Family>) -> Self {
        families.sort_by_key(|family| family.desc.name);
        families.dedup_by(|later, first| {
            let same = later.desc.name == first.desc.name;
            if same {
                first.series.append(&mut later.series);
            }
            same
        });
        for family in &mut families {
            family.series.sort_by(|a, b| a.labels.cmp(&b.labels));
            family.series.dedup_by(|later, first| later.labels == first.labels);
        }
        Self { at, families }
    }

    /// How many series there are.
    #[must_use]
    pub fn series_count(&self) -> usize {
        self.families.iter().map(|family| family.series.len()).sum()
    }

    /// The family called `name`.
    #[must_use]
    pub fn family(&self, name: &str) -> Option<&Family> {
        let at = self.families.binary_search_by(|family| family.desc.name.cmp(name)).ok()?;
        self.families.get(at)
    }
}

// === impl Series ===

impl Series {
    /// A gauge, or a counter whose beginning is the agent's.
    #[must_use]
    pub fn number(labels: Labels, value: f64) -> Self {
        Self { labels, value: Value::Number(value), created: None, late: None }
    }
}
