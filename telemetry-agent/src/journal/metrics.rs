//! What the journal says of itself.

use std::sync::atomic::Ordering::Relaxed;

use telemetry_model::{Desc, Family, Kind, Labels, Series, Unit, Value, float};
use telemetry_tsdb::state::Keyspace;

use super::{Journal, KINDS};

const SOURCE: &str = "the agent's journal of events";

/// Everything that it says.
pub static METRICS: &[&Desc] = &[&EVENTS, &LOST, &REMOVED, &KEPT, &BYTES, &OPEN, &STREAMS];

static EVENTS: Desc = Desc::of_agent(
    SOURCE,
    "telemetry_agent_events_total",
    Kind::Counter,
    Unit::None,
    &["kind"],
    "11 kinds",
    "Events that were written to disk, by what happened.",
);
static LOST: Desc = Desc::of_agent(
    SOURCE,
    "telemetry_agent_events_lost_total",
    Kind::Counter,
    Unit::None,
    &["reason"],
    "2",
    "Events that were not written: more came at once than may wait, or the disk refused for too long. An event events_lost tells of them.",
);
static REMOVED: Desc = Desc::of_agent(
    SOURCE,
    "telemetry_agent_events_removed_total",
    Kind::Counter,
    Unit::None,
    &["reason"],
    "2",
    "Events that were removed because of their age, or because there were too many.",
);
static KEPT: Desc = Desc::of_agent(
    SOURCE,
    "telemetry_agent_events_kept",
    Kind::Gauge,
    Unit::None,
    &[],
    "1",
    "Events that can be read.",
);
static BYTES: Desc = Desc::of_agent(
    SOURCE,
    "telemetry_agent_events_kept_bytes",
    Kind::Gauge,
    Unit::Bytes,
    &[],
    "1",
    "Bytes of the events that can be read.",
);
static OPEN: Desc = Desc::of_agent(
    SOURCE,
    "telemetry_agent_events_open",
    Kind::Gauge,
    Unit::None,
    &[],
    "1",
    "Whether events are written and can be read; 0 while the disk refuses.",
);
static STREAMS: Desc = Desc::of_agent(
    SOURCE,
    "telemetry_agent_events_streams",
    Kind::Gauge,
    Unit::None,
    &[],
    "1",
    "Clients that are told events as they happen.",
);

// === impl Journal ===

impl Journal {
    /// The figures now.
    #[must_use]
    pub fn families(&self) -> Vec<Family> {
        let state = self.state();
        let (expired, evicted) = state.as_ref().map_or((0, 0), |state| {
            let counters = state.counters();
            (counters.expired.load(Relaxed), counters.evicted.load(Relaxed))
        });
        let sizes = state.as_ref().map(|state| state.sizes()).unwrap_or_default();
        let events = sizes.iter().find(|(keyspace, ..)| *keyspace == Keyspace::Events);
        let (kept, bytes) = events.map_or((0, 0), |(_, records, bytes)| (*records, *bytes));
        let counts = &self.counts;
        let counter = |name: &'static str, word: &'static str, count: u64| Series {
            labels: Labels::fixed(&[(name, word)]),
            value: Value::Number(float(count)),
            created: Some(self.created),
            late: None,
        };
        let one =
            |desc, value: u64| Family { desc, series: vec![Series::number(Labels::none(), float(value))] };
        let written = KINDS.iter().zip(&counts.written);
        vec![
            Family {
                desc: &EVENTS,
                series: written.map(|(kind, count)| counter("kind", kind, count.load(Relaxed))).collect(),
            },
            Family {
                desc: &LOST,
                series: vec![
                    counter("reason", "queue_full", counts.queue_full.load(Relaxed)),
                    counter("reason", "not_written", counts.unwritten.load(Relaxed)),
                ],
            },
            Family {
                desc: &REMOVED,
                series: vec![
                    counter("reason", "age", counts.expired.load(Relaxed) + expired),
                    counter("reason", "size", counts.evicted.load(Relaxed) + evicted),
                ],
            },
            one(&KEPT, kept),
            one(&BYTES, bytes),
            one(&OPEN, u64::from(state.is_some())),
            one(&STREAMS, self.streams.load(Relaxed)),
        ]
    }
}
