//! What is said of the watch itself.

use std::sync::atomic::Ordering::Relaxed;

use telemetry_model::{Desc, Family, Kind, Labels, Series, Unit, float};

use crate::{Known, Reason, Reviews, State};

const SOURCE: &str = "the agent's watch of its node's pods";
const REVIEW_SOURCE: &str = "the agent's reviews of tokens";

/// Everything that is said of it.
pub static METRICS: &[&Desc] =
    &[&PODS, &STATE, &PAGES, &LISTS, &CHANGES, &FAILURES, &LEFT_OUT, &HEARD, &REVIEWS, &BUSY, &FORGOTTEN];

static PODS: Desc = Desc::of_agent(
    SOURCE,
    "telemetry_agent_kube_pods",
    Kind::Gauge,
    Unit::None,
    &[],
    "1",
    "Pods of this node that the API server has told of.",
);
static STATE: Desc = Desc::of_agent(
    SOURCE,
    "telemetry_agent_kube_watch_state",
    Kind::Gauge,
    Unit::None,
    &["state"],
    "4",
    "1 for what the watch is doing: off, waiting for the next try, listing, or watching.",
);
static PAGES: Desc = Desc::of_agent(
    SOURCE,
    "telemetry_agent_kube_list_in_pages",
    Kind::Gauge,
    Unit::None,
    &[],
    "1",
    "1 where the API server does not stream lists, so that pods are listed in pages.",
);
static LISTS: Desc = Desc::of_agent(
    SOURCE,
    "telemetry_agent_kube_lists_total",
    Kind::Counter,
    Unit::None,
    &[],
    "1",
    "Lists of pods that came to their end: one at the start, and one after each version that the server forgot.",
);
static CHANGES: Desc = Desc::of_agent(
    SOURCE,
    "telemetry_agent_kube_changes_total",
    Kind::Counter,
    Unit::None,
    &[],
    "1",
    "Changes of pods that the watch has told of.",
);
static FAILURES: Desc = Desc::of_agent(
    SOURCE,
    "telemetry_agent_kube_failures_total",
    Kind::Counter,
    Unit::None,
    &["reason"],
    "8",
    "Times the API server gave no news, by the reason. What was known of pods stays.",
);
static LEFT_OUT: Desc = Desc::of_agent(
    SOURCE,
    "telemetry_agent_kube_pods_left_out_total",
    Kind::Counter,
    Unit::None,
    &[],
    "1",
    "Times a pod was left out because as many as are kept were known.",
);
static HEARD: Desc = Desc::of_agent(
    SOURCE,
    "telemetry_agent_kube_last_event_timestamp_seconds",
    Kind::Gauge,
    Unit::Seconds,
    &[],
    "1",
    "When the API server was heard last; 0 before.",
);

static REVIEWS: Desc = Desc::of_agent(
    REVIEW_SOURCE,
    "telemetry_agent_kube_reviews_total",
    Kind::Counter,
    Unit::None,
    &["review", "outcome"],
    "6",
    "Times the API server was asked whose a token is (token) and what its owner may (access), by outcome: good, bad, failed.",
);
static BUSY: Desc = Desc::of_agent(
    REVIEW_SOURCE,
    "telemetry_agent_kube_reviews_refused_total",
    Kind::Counter,
    Unit::None,
    &[],
    "1",
    "Requests whose token was not reviewed because too many others waited, or too many had been asked in a second.",
);
static FORGOTTEN: Desc = Desc::of_agent(
    REVIEW_SOURCE,
    "telemetry_agent_kube_reviews_forgotten_total",
    Kind::Counter,
    Unit::None,
    &[],
    "1",
    "Answers of reviews that were forgotten before their time because there were more than are kept.",
);

// === impl Reviews ===

impl Reviews {
    /// The figures now.
    #[must_use]
    pub fn families(&self) -> Vec<Family> {
        let counts = &self.counts;
        let one =
            |desc, count: u64| Family { desc, series: vec![Series::number(Labels::none(), float(count))] };
        let all = [("token", &counts.tokens), ("access", &counts.access)].map(|(review, outcomes)| {
            ["good", "bad", "failed"].iter().zip(outcomes).map(move |(outcome, count)| {
                let labels = Labels::fixed(&[("review", review), ("outcome", outcome)]);
                Series::number(labels, float(count.load(Relaxed)))
            })
        });
        vec![
            Family { desc: &REVIEWS, series: all.into_iter().flatten().collect() },
            one(&BUSY, counts.busy.load(Relaxed)),
            one(&FORGOTTEN, counts.forgotten.load(Relaxed)),
        ]
    }
}

// === impl Known ===

impl Known {
    /// The figures now.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 stay below 2^53")]
    pub fn families(&self) -> Vec<Family> {
        let one = |desc, value| Family { desc, series: vec![Series::number(Labels::none(), value)] };
        let state = self.state.load(Relaxed);
        let states = [
            ("off", State::Off),
            ("waiting", State::Waiting),
            ("listing", State::Listing),
            ("watching", State::Watching),
        ];
        let states = states.map(|(word, of)| {
            Series::number(Labels::fixed(&[("state", word)]), f64::from(u8::from(state == of as u8)))
        });
        let failures = Reason::ALL.iter().zip(&self.failures).map(|(reason, count)| {
            Series::number(Labels::fixed(&[("reason", reason.word())]), float(count.load(Relaxed)))
        });
        vec![
            one(&PODS, float(u64::try_from(self.pods.load().len()).unwrap_or(u64::MAX))),
            Family { desc: &STATE, series: states.into() },
            one(&PAGES, f64::from(u8::from(self.in_pages.load(Relaxed)))),
            one(&LISTS, float(self.lists.load(Relaxed))),
            one(&CHANGES, float(self.changes.load(Relaxed))),
            Family { desc: &FAILURES, series: failures.collect() },
            one(&LEFT_OUT, float(self.left_out.load(Relaxed))),
            one(&HEARD, self.heard_ms.load(Relaxed) as f64 / 1e3),
        ]
    }
}
