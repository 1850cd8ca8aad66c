//! What the pipeline says of itself: drain times, series, rows without a name.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use telemetry_model::clock::Timestamp;
use telemetry_model::{
    Desc, Family, Histogram, Increment, Kind, Label, Labels, Layout, Row, Series, Unit, Value, float, seconds,
};

use super::series::Totals;
use crate::signal::Drained;

/// Everything this module can say.
pub static METRICS: &[&Desc] = &[
    &DRAIN_DURATION,
    &DRAIN_LAG,
    &LIMITED,
    &ACTIVE,
    &UNRESOLVED_SECONDS,
    &UNRESOLVED_ROWS,
    &FOREIGN,
    &super::audit::RATIO,
];

const SOURCE: &str = "the agent itself";

static DRAIN_DURATION: Desc = Desc::of_agent(
    SOURCE,
    "telemetry_agent_drain_duration_seconds",
    Kind::Histogram,
    Unit::Seconds,
    &["map_group"],
    "signals",
    "Duration of one sweep over a signal's cells.",
);
static DRAIN_LAG: Desc = Desc::of_agent(
    SOURCE,
    "telemetry_agent_drain_lag_seconds",
    Kind::Gauge,
    Unit::Seconds,
    &[],
    "1",
    "Delay of the last sweep behind its schedule.",
);
static LIMITED: Desc = Desc::of_agent(
    SOURCE,
    "telemetry_agent_cardinality_limited_series_total",
    Kind::Counter,
    Unit::None,
    &["family"],
    "families",
    "Increments added to the owner _other because the limit of series was reached.",
);
static ACTIVE: Desc = Desc::of_agent(
    SOURCE,
    "telemetry_agent_series_active",
    Kind::Gauge,
    Unit::None,
    &["family"],
    "families",
    "Series now exposed, of the families that have owners.",
);
static UNRESOLVED_SECONDS: Desc = Desc::of_agent(
    SOURCE,
    "telemetry_agent_attribution_unresolved_seconds_total",
    Kind::Counter,
    Unit::Seconds,
    &["reason"],
    "1",
    "CPU time of cgroups that nobody could name; it is counted under the owner _unresolved.",
);
static UNRESOLVED_ROWS: Desc = Desc::of_agent(
    SOURCE,
    "telemetry_agent_attribution_unresolved_increments_total",
    Kind::Counter,
    Unit::None,
    &["reason"],
    "1",
    "Increments of any family of cgroups that nobody could name.",
);

static FOREIGN: Desc = Desc::of_agent(
    SOURCE,
    "telemetry_agent_attribution_dropped_foreign_total",
    Kind::Counter,
    Unit::None,
    &[],
    "1",
    "Increments that were dropped because their cgroup is of another node on this kernel.",
);

/// Microseconds to minutes.
static LAYOUT: Layout = Layout { schema: 2, low_octave: -22, high_octave: 10 };

/// The counts behind the metrics above.
pub(super) struct Metrics {
    created: Timestamp,
    drains: BTreeMap<&'static str, Arc<Histogram>>,
    lag: Duration,
    unresolved_ns: u64,
    unresolved_rows: u64,
    foreign_rows: u64,
}

// === impl Metrics ===

impl Metrics {
    pub(super) fn new(created: Timestamp) -> Self {
        Self {
            created,
            drains: BTreeMap::new(),
            lag: Duration::ZERO,
            unresolved_ns: 0,
            unresolved_rows: 0,
            foreign_rows: 0,
        }
    }

    pub(super) fn drained(&mut self, drained: &[Drained], lag: Duration) {
        self.lag = lag;
        for Drained { signal, took } in drained {
            let histogram = self.drains.entry(signal).or_insert_with(|| Arc::new(Histogram::new(&LAYOUT)));
            Arc::make_mut(histogram).observe(took.as_secs_f64());
        }
    }

    pub(super) fn unresolved(&mut self, row: &Row) {
        self.unresolved_rows += 1;
        if let (Increment::Count(raw), "kernel_cpu_seconds_total") = (&row.increment, row.desc.name) {
            self.unresolved_ns += raw;
        }
    }

    pub(super) fn foreign(&mut self) {
        self.foreign_rows += 1;
    }

    pub(super) fn families(&self, totals: &Totals) -> Vec<Family> {
        let by_family = |(family, count): (&'static str, u64)| {
            Series::number(Labels::new(vec![Label::new("family", family)]), float(count))
        };
        let drains = self.drains.iter().map(|(signal, histogram)| Series {
            labels: Labels::new(vec![Label::new("map_group", *signal)]),
            value: Value::Histogram(Arc::clone(histogram)),
            created: Some(self.created),
            late: None,
        });
        let reason = || Labels::fixed(&[("reason", "gone")]);
        let one = |desc, series| Family { desc, series: vec![series] };
        vec![
            Family { desc: &DRAIN_DURATION, series: drains.collect() },
            one(&DRAIN_LAG, Series::number(Labels::none(), self.lag.as_secs_f64())),
            Family { desc: &LIMITED, series: totals.limited().map(by_family).collect() },
            Family { desc: &ACTIVE, series: totals.active().into_iter().map(by_family).collect() },
            one(&UNRESOLVED_SECONDS, Series::number(reason(), seconds(self.unresolved_ns))),
            one(&UNRESOLVED_ROWS, Series::number(reason(), float(self.unresolved_rows))),
            one(&FOREIGN, Series::number(Labels::none(), float(self.foreign_rows))),
        ]
    }
}
