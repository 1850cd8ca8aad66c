//! What the HTTP side says about itself.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use telemetry_model::clock::Timestamp;
use telemetry_model::{Desc, Family, Histogram, Kind, Label, Labels, Layout, Scope, Series, Unit, Value};

/// Everything the HTTP side can say about itself.
pub static METRICS: &[&[Desc]] = &[
    &[REQUESTS, DURATION, CONNECTIONS, REJECTED, CLOSED, ACCEPT_ERRORS],
    super::prometheus::METRICS,
    super::write::METRICS,
    super::security::METRICS,
    super::otlp::METRICS,
    super::thanos::METRICS,
];

const REQUESTS: Desc = Desc {
    kind: Kind::Counter,
    labels: &["handler", "code"],
    bound: "handlers times the status codes they answer with, about 60",
    ..server(
        "telemetry_agent_http_server_requests_total",
        "HTTP requests answered, by route and status code.",
    )
};
const DURATION: Desc = Desc {
    kind: Kind::Histogram,
    unit: Unit::Seconds,
    labels: &["handler", "code"],
    bound: "handlers times the status codes they answer with, about 60",
    ..server(
        "telemetry_agent_http_server_duration_seconds",
        "Time to make the answer of an HTTP request, without sending it.",
    )
};
const CONNECTIONS: Desc = server("telemetry_agent_http_server_connections", "HTTP connections now open.");
const REJECTED: Desc = Desc {
    kind: Kind::Counter,
    ..server(
        "telemetry_agent_http_server_connections_rejected_total",
        "HTTP connections closed unheard because all allowed ones were being answered.",
    )
};
const CLOSED: Desc = Desc {
    kind: Kind::Counter,
    labels: &["reason"],
    bound: "6 reasons",
    ..server(
        "telemetry_agent_http_server_connections_closed_total",
        "HTTP connections the agent closed before the client did, by reason; a clean stop is left out.",
    )
};
const ACCEPT_ERRORS: Desc = Desc {
    kind: Kind::Counter,
    ..server(
        "telemetry_agent_http_server_accept_errors_total",
        "Times the kernel could not hand over a new HTTP connection, as when files ran out.",
    )
};

const fn server(name: &'static str, help: &'static str) -> Desc {
    own(name, help, "the agent's HTTP server")
}

/// A gauge that a part of the HTTP side says of itself; what is a counter or has labels changes that.
pub(super) const fn own(name: &'static str, help: &'static str, source: &'static str) -> Desc {
    Desc {
        name,
        kind: Kind::Gauge,
        unit: Unit::None,
        help,
        scope: Scope::Agent,
        labels: &[],
        bound: "1",
        source,
    }
}

/// Bins of request durations: the same bounds as the kernel's latencies have.
static LAYOUT: Layout = Layout { schema: 2, low_octave: -22, high_octave: 10 };

/// The route that answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Handler {
    Metrics,
    Live,
    Ready,
    Index,
    /// A route of the query API.
    Api(&'static str),
    /// Remote write.
    Write,
    /// OpenTelemetry's metrics.
    Otlp,
    /// No route of ours: one label value, whatever the path was.
    Unknown,
}

/// Why the agent closed a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Closed {
    /// TLS was not agreed upon, or not in time.
    Handshake,
    HeaderTimeout,
    RequestTimeout,
    IdleTimeout,
    /// A newer connection needed its place.
    Replaced,
    /// The client sent what is no HTTP, or the connection broke.
    Broken,
}

/// Counts of the HTTP side.
#[derive(Debug)]
pub struct HttpStats {
    created: Timestamp,
    answers: Mutex<BTreeMap<(Handler, u16), Answers>>,
    connections: AtomicU64,
    rejected: AtomicU64,
    closed: [AtomicU64; Closed::ALL.len()],
    accept_errors: AtomicU64,
}

#[derive(Debug)]
struct Answers {
    count: u64,
    durations: Histogram,
}

// === impl Handler ===

impl Handler {
    fn name(self) -> &'static str {
        match self {
            Self::Metrics => "/metrics",
            Self::Live => "/livez",
            Self::Ready => "/readyz",
            Self::Index => "/",
            Self::Api(path) => path,
            Self::Write => "/write",
            Self::Otlp => "/v1/metrics",
            Self::Unknown => "unknown",
        }
    }
}

// === impl Closed ===

impl Closed {
    const ALL: [Self; 6] = [
        Self::Handshake,
        Self::HeaderTimeout,
        Self::RequestTimeout,
        Self::IdleTimeout,
        Self::Replaced,
        Self::Broken,
    ];

    fn reason(self) -> &'static str {
        match self {
            Self::Handshake => "handshake",
            Self::HeaderTimeout => "header_timeout",
            Self::RequestTimeout => "request_timeout",
            Self::IdleTimeout => "idle_timeout",
            Self::Replaced => "replaced",
            Self::Broken => "broken",
        }
    }
}

// === impl HttpStats ===

impl HttpStats {
    /// Nothing counted yet, since `created`.
    #[must_use]
    pub fn new(created: Timestamp) -> Self {
        Self {
            created,
            answers: Mutex::default(),
            connections: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            closed: Default::default(),
            accept_errors: AtomicU64::new(0),
        }
    }

    /// The families as they stand.
    #[must_use]
    pub fn families(&self) -> Vec<Family> {
        let answers = self.answers();
        let mut requests = Vec::with_capacity(answers.len());
        let mut durations = Vec::with_capacity(answers.len());
        for (&(handler, code), answers) in answers.iter() {
            let labels = Labels::new(vec![
                Label::new("handler", handler.name()),
                Label::new("code", code.to_string()),
            ]);
            requests.push(self.counter(labels.clone(), answers.count));
            let value = Value::Histogram(Arc::new(answers.durations.clone()));
            durations.push(Series { labels, value, created: Some(self.created), late: None });
        }
        let closed = Closed::ALL.iter().zip(&self.closed).map(|(reason, count)| {
            self.counter(Labels::fixed(&[("reason", reason.reason())]), count.load(Relaxed))
        });
        let connections = telemetry_model::float(self.connections.load(Relaxed));
        vec![
            Family { desc: &REQUESTS, series: requests },
            Family { desc: &DURATION, series: durations },
            Family { desc: &CONNECTIONS, series: vec![Series::number(Labels::none(), connections)] },
            Family {
                desc: &REJECTED,
                series: vec![self.counter(Labels::none(), self.rejected.load(Relaxed))],
            },
            Family { desc: &CLOSED, series: closed.collect() },
            Family {
                desc: &ACCEPT_ERRORS,
                series: vec![self.counter(Labels::none(), self.accept_errors.load(Relaxed))],
            },
        ]
    }

    fn counter(&self, labels: Labels, count: u64) -> Series {
        Series {
            labels,
            value: Value::Number(telemetry_model::float(count)),
            created: Some(self.created),
            late: None,
        }
    }

    pub(super) fn answered(&self, handler: Handler, code: u16, took: Duration) {
        let mut answers = self.answers();
        let answers = answers
            .entry((handler, code))
            .or_insert_with(|| Answers { count: 0, durations: Histogram::new(&LAYOUT) });
        answers.count += 1;
        answers.durations.observe(took.as_secs_f64());
    }

    pub(super) fn opened(&self) {
        self.connections.fetch_add(1, Relaxed);
    }

    pub(super) fn ended(&self) {
        self.connections.fetch_sub(1, Relaxed);
    }

    pub(super) fn rejected(&self) {
        self.rejected.fetch_add(1, Relaxed);
    }

    pub(super) fn closed(&self, reason: Closed) {
        let counter = Closed::ALL.iter().position(|each| *each == reason).and_then(|at| self.closed.get(at));
        if let Some(counter) = counter {
            counter.fetch_add(1, Relaxed);
        }
    }

    pub(super) fn accept_failed(&self) {
        self.accept_errors.fetch_add(1, Relaxed);
    }

    fn answers(&self) -> MutexGuard<'_, BTreeMap<(Handler, u16), Answers>> {
        // A panic while the lock was held can have lost one count at most.
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
