//! News that nobody brings: what the store's health and the loss counters say, looked at once a second.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use telemetry_model::{Labels, Snapshot, Value};
use telemetry_tsdb::db::{Db, Mode};

use super::News;
use crate::store::Latest;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);
/// Between two events of one counter: a loss that goes on is told once a minute, with its sum.
const QUIET: Duration = Duration::from_secs(60);
/// Counters that are remembered: each has a closed set of labels, a dozen in all.
const COUNTERS_MAX: usize = 256;
/// The counters whose growth is told.
const LOSSES: [&str; 5] = [
    "telemetry_agent_bpf_losses_total",
    "telemetry_agent_ringbuf_lost_total",
    "telemetry_agent_store_ticks_missed_total",
    "telemetry_agent_cardinality_limited_series_total",
    "telemetry_agent_attribution_limited_total",
];

/// Looks at what can be read of health.
pub(super) struct Watch {
    db: Arc<Db>,
    latest: Arc<Latest>,
    looked: Option<Instant>,
    is_degraded: bool,
    told: HashMap<(&'static str, Labels), Told>,
}

/// What was told of a counter.
struct Told {
    count: f64,
    at: Option<Instant>,
}

// === impl Watch ===

impl Watch {
    pub(super) fn new(db: Arc<Db>, latest: Arc<Latest>) -> Self {
        Self { db, latest, looked: None, is_degraded: false, told: HashMap::new() }
    }

    /// What there is to tell now.
    pub(super) fn look(&mut self, now: Instant) -> Vec<News> {
        if self.looked.is_some_and(|looked| now.saturating_duration_since(looked) < EVERY) {
            return Vec::new();
        }
        self.looked = Some(now);
        let mut news = Vec::new();
        let is_degraded = self.db.health().mode() == Mode::Degraded;
        if is_degraded != self.is_degraded {
            self.is_degraded = is_degraded;
            let reason = || self.db.health().reason();
            news.push(if is_degraded {
                News::StoreDegraded { reason: reason() }
            } else {
                News::StoreRecovered
            });
        }
        let snapshot = self.latest.get();
        self.losses(&snapshot, now, &mut news);
        news
    }

    fn losses(&mut self, snapshot: &Snapshot, now: Instant, news: &mut Vec<News>) {
        for metric in LOSSES {
            let Some(family) = snapshot.family(metric) else { continue };
            for series in &family.series {
                let Value::Number(count) = series.value else { continue };
                let key = (metric, series.labels.clone());
                if self.told.len() >= COUNTERS_MAX && !self.told.contains_key(&key) {
                    continue;
                }
                let told = self.told.entry(key).or_insert(Told { count: 0.0, at: None });
                let is_due = told.at.is_none_or(|at| now.saturating_duration_since(at) >= QUIET);
                if count > told.count && is_due {
                    #[expect(
                        clippy::cast_possible_truncation,
                        clippy::cast_sign_loss,
                        reason = "counters are whole, and more than what was told"
                    )]
                    let grown = (count - told.count) as u64;
                    let labels = series.labels.clone();
                    news.push(News::CountsLost { metric, labels, count: grown });
                    *told = Told { count, at: Some(now) };
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use telemetry_model::clock::Timestamp;
    use telemetry_model::{Desc, Family, Kind, Series, Unit};

    use super::*;

    static LOST: Desc =
        Desc::of_agent("test", LOSSES[0], Kind::Counter, Unit::None, &["reason"], "1", "Lost.");

    #[test]
    fn a_loss_that_goes_on_is_told_once_a_minute_with_its_sum() {
        let clock = Arc::new(telemetry_tsdb::fs::SystemClock::default());
        let db = Arc::new(Db::in_memory(telemetry_tsdb::db::Config::default(), clock));
        let latest = Arc::new(Latest::default());
        let mut watch = Watch::new(db, Arc::clone(&latest));
        let labels = Labels::fixed(&[("reason", "no_slot")]);
        let start = Instant::now();
        let mut at = |seconds: u64, count: f64| -> Vec<u64> {
            let series = vec![Series::number(labels.clone(), count)];
            latest.publish(Snapshot::new(Timestamp(0), vec![Family { desc: &LOST, series }]));
            let news = watch.look(start + Duration::from_secs(seconds));
            news.iter()
                .map(|news| match news {
                    News::CountsLost { count, .. } => *count,
                    other => panic!("{other:?}"),
                })
                .collect()
        };
        assert_eq!(at(0, 0.0), [0; 0]);
        assert_eq!(at(2, 5.0), [5]);
        assert_eq!(at(4, 7.0), [0; 0]);
        assert_eq!(at(30, 9.0), [0; 0]);
        assert_eq!(at(63, 9.0), [4]);
        assert_eq!(at(200, 9.0), [0; 0]);
    }
}
