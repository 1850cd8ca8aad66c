//! Samples on their way into the store, and what became of the points they belong to.

use std::collections::{HashMap, HashSet};

use telemetry_tsdb::db::{Db, Exemplar, Metadata, SeriesRef};
use telemetry_tsdb::head::{GroupId, Sample};
use telemetry_tsdb::index::OwnerRef;

use super::attributes::Labels;
use super::delta::Dropped;
use super::translate::{Exemplified, Sink};
use super::{Family, Outcome};

/// Samples given to the store at a time: no reader of the store's writer waits longer than for these.
const BATCH: usize = 4096;

pub(super) struct Batch<'a> {
    db: &'a Db,
    samples: Vec<(SeriesRef, i64, Sample)>,
    /// The point of each sample.
    points: Vec<u64>,
    /// Points of which something was refused already.
    refused: HashSet<u64>,
    groups: HashMap<String, GroupId>,
    outcome: Outcome,
}

// === impl Batch ===

impl<'a> Batch<'a> {
    pub(super) fn new(db: &'a Db) -> Self {
        Self {
            db,
            samples: Vec::new(),
            points: Vec::new(),
            refused: HashSet::new(),
            groups: HashMap::new(),
            outcome: Outcome::default(),
        }
    }

    /// Gives the store the rest, and says how it went.
    pub(super) fn finish(mut self) -> Outcome {
        self.flush();
        self.outcome
    }

    /// Series of one resource are in one group: they share their times.
    fn series(&mut self, labels: &[(&str, &str)]) -> Option<SeriesRef> {
        let value = |wanted: &str| labels.iter().find(|(name, _)| *name == wanted).map_or("", |(_, v)| v);
        let key = format!("otlp\0{}\0{}\0", value("job"), value("instance"));
        let group = match self.groups.get(&key) {
            Some(group) => *group,
            None => {
                let group = self.db.group(&key)?;
                self.groups.insert(key, group);
                group
            }
        };
        self.db.series(group, labels, OwnerRef(0))
    }

    fn flush(&mut self) {
        let samples = std::mem::take(&mut self.samples);
        let points = std::mem::take(&mut self.points);
        let series: Vec<SeriesRef> = samples.iter().map(|(series, _, _)| *series).collect();
        let appended = self.db.append(samples);
        let Some((_, first)) = appended.refused.first() else { return };
        let reason = first.to_string();
        let refused: HashSet<SeriesRef> = appended.refused.iter().map(|(series, _)| *series).collect();
        let count = appended.refused.len() as u64;
        // Which kind they were is not told; a push has nearly always one kind.
        let floats = self.outcome.floats.min(count);
        self.outcome.floats -= floats;
        self.outcome.histograms -= self.outcome.histograms.min(count - floats);
        let concerned = series.iter().zip(points).filter(|(series, _)| refused.contains(series));
        let mut new = 0;
        for (_, point) in concerned {
            // Samples of the target belong to no point.
            new += u64::from(point != u64::MAX && self.refused.insert(point));
        }
        self.reject(new.min(count), &reason);
    }
}

impl Sink for Batch<'_> {
    fn sample(&mut self, point: u64, labels: &Labels, t: i64, value: Sample, exemplars: &[Exemplified]) {
        let pairs: Vec<(&str, &str)> = labels
            .iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let Some(series) = self.series(&pairs) else {
            let is_new = point != u64::MAX && self.refused.insert(point);
            return self.reject(u64::from(is_new), "limit of series or groups reached");
        };
        match &value {
            Sample::Float(_) => self.outcome.floats += 1,
            Sample::Histogram(_) => self.outcome.histograms += 1,
        }
        self.samples.push((series, t, value));
        self.points.push(point);
        for exemplar in exemplars {
            let pairs =
                exemplar.labels.iter().map(|(name, value)| (name.as_str().into(), value.as_str().into()));
            let kept = Exemplar {
                series: series.id,
                t: if exemplar.t == 0 { t } else { exemplar.t },
                value: exemplar.value,
                labels: pairs.collect(),
            };
            self.outcome.exemplars += u64::from(self.db.add_exemplar(kept));
        }
        if self.samples.len() >= BATCH {
            self.flush();
        }
    }

    fn family(&mut self, family: Family<'_>) {
        let Family { name, kind, help, unit } = family;
        self.db.set_metadata(name, Metadata { kind: kind.into(), unit: unit.into(), help: help.into() });
    }

    fn reject(&mut self, points: u64, reason: &str) {
        if self.outcome.reason.is_empty() {
            self.outcome.reason = reason.to_owned();
        }
        self.outcome.rejected += points;
    }

    fn dropped(&mut self, reason: Dropped) {
        if let Some(count) = self.outcome.dropped.get_mut(reason.index()) {
            *count += 1;
        }
    }
}
