//! OpenTelemetry's metrics, pushed over HTTP and gRPC, into the store as Prometheus 3 translates them.
//!
//! What can be taken is taken; how many points could not, and why the first, is the answer's partial success. An answer
//! of success means that the samples are on disk. Differences are added up, so that every counter in the store counts
//! since a start. Knows the store; called by the server's routes and by [`super::grpc`].

mod attributes;
mod batch;
mod body;
mod delta;
mod exponential;
mod json;
mod message;
mod names;
#[cfg(test)]
mod tests;
mod translate;

use std::hash::RandomState;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::Response;
use prost::Message as _;
use serde::{Deserialize, Serialize};
use telemetry_model::{Desc, Kind, Labels, Series, float};
use telemetry_tsdb::db::{Db, Mode};
use tokio::sync::Semaphore;

use super::coding::Coding;
use super::intake::{Intake, Taken};
use super::refusal::{Refusal, Refused};
use super::stats::own;
use batch::Batch;
use body::Form;
use delta::{Deltas, Dropped};
use message::{Answer, PartialSuccess, Status};
use translate::Translator;

pub use names::Strategy;

/// Everything that is said of these pushes.
pub(super) static METRICS: &[Desc] = &[SAMPLES, REFUSED, DELTAS_DROPPED, STREAMS];

const SAMPLES: Desc = Desc {
    labels: &["type"],
    bound: "3: type=float|histogram|exemplar",
    ..counter("telemetry_agent_otlp_samples_total", "Samples taken in from OpenTelemetry.")
};
const REFUSED: Desc = Desc {
    labels: &["reason"],
    bound: "3: reason=malformed|point|busy",
    ..counter(
        "telemetry_agent_otlp_refused_total",
        "Requests of OpenTelemetry that could not be read or waited too long, and points that were refused.",
    )
};
const DELTAS_DROPPED: Desc = Desc {
    labels: &["reason"],
    bound: "3: reason=older_start|out_of_order|limit",
    ..counter(
        "telemetry_agent_otlp_deltas_dropped_total",
        "Differences that could not be added to their stream.",
    )
};
const STREAMS: Desc = Desc {
    kind: Kind::Gauge,
    ..counter("telemetry_agent_otlp_delta_streams", "Streams of differences that are being added up.")
};

const fn counter(name: &'static str, help: &'static str) -> Desc {
    Desc { kind: Kind::Counter, ..own(name, help, "the agent's OpenTelemetry receiver") }
}

/// Where pushes go: Prometheus' path, with ours before it as other routes have it, and the one that OpenTelemetry's
/// exporters use when they are told a host alone.
pub(super) const PATHS: [&str; 2] = ["/api/v1/otlp/v1/metrics", "/v1/metrics"];
/// Bytes of a request as sent.
pub(super) const BODY_BYTES_MAX: usize = 8 << 20;
/// Pushes taken in at one time, each on a thread: one holds the lock of the streams as long as it is translated.
pub const CONCURRENCY: usize = 1;
/// Pushes that may wait.
const QUEUE_MAX: usize = 32;
/// Bytes of all requests that wait or are being read, over HTTP and gRPC.
const BODIES_BYTES_MAX: usize = 32 << 20;

/// How OpenTelemetry's metrics become series.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// What becomes of names.
    pub translation: Strategy,
    /// Attributes of resources that become labels of each of their series.
    pub promote_resource_attributes: Vec<String>,
    /// Whether all of them do.
    pub promote_all_resource_attributes: bool,
    /// Those that do not then.
    pub ignore_resource_attributes: Vec<String>,
    /// Whether `target_info` also says what `job` and `instance` were made of.
    pub keep_identifying_resource_attributes: bool,
    /// Whether a scope's name, version and attributes become labels.
    pub promote_scope_metadata: bool,
    /// Whether histograms with bounds of their own become native histograms.
    pub convert_histograms_to_nhcb: bool,
    /// Streams of differences that are added up at one time.
    pub delta_streams_max: usize,
    /// How long a stream that nothing is added to is kept.
    #[serde(with = "crate::human_duration")]
    pub delta_stale: Duration,
}

/// The receiver.
pub struct OtlpReceiver {
    db: Arc<Db>,
    config: Config,
    deltas: Mutex<Deltas>,
    hashers: [RandomState; 2],
    running: Arc<Semaphore>,
    queued: Semaphore,
    intake: Intake,
    floats: AtomicU64,
    histograms: AtomicU64,
    exemplars: AtomicU64,
    malformed: AtomicU64,
    points: AtomicU64,
    busy: AtomicU64,
    dropped: [AtomicU64; 3],
}

/// What is said of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Family<'a> {
    name: &'a str,
    kind: &'static str,
    help: &'a str,
    unit: &'a str,
}

/// What became of a push.
#[derive(Debug, Default)]
struct Outcome {
    floats: u64,
    histograms: u64,
    exemplars: u64,
    rejected: u64,
    /// Why the first was rejected.
    reason: String,
    dropped: [u64; 3],
}

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        Self {
            translation: Strategy::default(),
            promote_resource_attributes: Vec::new(),
            promote_all_resource_attributes: false,
            ignore_resource_attributes: Vec::new(),
            keep_identifying_resource_attributes: false,
            promote_scope_metadata: false,
            convert_histograms_to_nhcb: false,
            delta_streams_max: 50_000,
            delta_stale: Duration::from_secs(300),
        }
    }
}

impl Config {
    /// Whether an attribute of a resource becomes a label of its series.
    fn promotes(&self, attribute: &String) -> bool {
        match self.promote_all_resource_attributes {
            true => !self.ignore_resource_attributes.contains(attribute),
            false => self.promote_resource_attributes.contains(attribute),
        }
    }
}

// === impl OtlpReceiver ===

impl OtlpReceiver {
    /// A receiver that writes into this store.
    #[must_use]
    pub fn new(db: Arc<Db>, config: &Config) -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            db,
            config: config.clone(),
            deltas: Mutex::new(Deltas::new(config.delta_streams_max, config.delta_stale)),
            hashers: [RandomState::new(), RandomState::new()],
            running: Arc::new(Semaphore::new(CONCURRENCY)),
            queued: Semaphore::new(QUEUE_MAX),
            intake: Intake::new(BODIES_BYTES_MAX),
            floats: zero(),
            histograms: zero(),
            exemplars: zero(),
            malformed: zero(),
            points: zero(),
            busy: zero(),
            dropped: [zero(), zero(), zero()],
        }
    }

    /// What there is to say of these pushes.
    #[must_use]
    pub fn families(&self) -> Vec<telemetry_model::Family> {
        let all = |desc, name, values: [(&'static str, &AtomicU64); 3]| {
            let series = values.map(|(value, count)| {
                Series::number(Labels::fixed(&[(name, value)]), float(count.load(Relaxed)))
            });
            telemetry_model::Family { desc, series: series.to_vec() }
        };
        let samples =
            [("float", &self.floats), ("histogram", &self.histograms), ("exemplar", &self.exemplars)];
        let refused = [("malformed", &self.malformed), ("point", &self.points), ("busy", &self.busy)];
        let [older, late, limit] = &self.dropped;
        let dropped = [("older_start", older), ("out_of_order", late), ("limit", limit)];
        let streams = self.deltas.lock().unwrap_or_else(PoisonError::into_inner).len();
        vec![
            all(&SAMPLES, "type", samples),
            all(&REFUSED, "reason", refused),
            all(&DELTAS_DROPPED, "reason", dropped),
            telemetry_model::Family {
                desc: &STREAMS,
                series: vec![Series::number(Labels::none(), float(streams as u64))],
            },
        ]
    }

    /// Answers a push over HTTP. To be called on a runtime of tokio.
    pub async fn answer(self: Arc<Self>, request: Request) -> Response {
        if request.method() != Method::POST {
            let mut response = respond(StatusCode::METHOD_NOT_ALLOWED, Form::Json, b"{}".to_vec());
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
            return response;
        }
        let (form, coding) = match body::read_headers(request.headers()) {
            Ok(read) => read,
            Err(refusal) => {
                // Who speaks neither form is told in that of the API.
                self.count(&refusal);
                return refusal.respond();
            }
        };
        let Ok(_place) = self.queued.try_acquire() else {
            return self.error(form, &Refusal::busy("pushes"));
        };
        let body = match self.intake.read(request.into_body(), BODY_BYTES_MAX).await {
            Ok(body) => body,
            Err(error) => return self.error(form, &error.into()),
        };
        match Arc::clone(&self).push(form, coding, body).await {
            Ok(answer) => respond(StatusCode::OK, form, form.answer(&answer)),
            Err(refusal) => self.error(form, &refusal),
        }
    }

    /// Answers a push over gRPC: the answer's bytes.
    pub(super) async fn export(self: Arc<Self>, coding: Coding, body: Taken) -> Result<Vec<u8>, Refusal> {
        let result = match self.queued.try_acquire() {
            Ok(_place) => Arc::clone(&self).push(Form::Protobuf, coding, body).await,
            Err(_) => Err(Refusal::busy("pushes")),
        };
        match result {
            Ok(answer) => Ok(answer.encode_to_vec()),
            Err(refusal) => Err(self.refused(refusal)),
        }
    }

    /// Where the bodies of pushes are read, over HTTP and gRPC.
    pub(super) fn intake(&self) -> &Intake {
        &self.intake
    }

    /// Counts what was refused before it came here.
    pub(super) fn refused(&self, refusal: Refusal) -> Refusal {
        self.count(&refusal);
        refusal
    }

    async fn push(self: Arc<Self>, form: Form, coding: Coding, body: Taken) -> Result<Answer, Refusal> {
        let permit = Arc::clone(&self.running).acquire_owned().await;
        let task = tokio::task::spawn_blocking(move || {
            let result = self.take(form, coding, &body.bytes);
            drop(permit);
            result.map(|outcome| self.done(outcome))
        });
        // What was taken before a bug struck is a duplicate when it comes again.
        let bug = |_| Refusal::new(Refused::Internal, "the push ended by a bug of the agent");
        task.await.map_err(bug)?
    }

    fn take(&self, form: Form, coding: Coding, body: &[u8]) -> Result<Outcome, Refusal> {
        if self.db.health().mode() == Mode::ReadOnly {
            return Err(Refusal::new(Refused::Unavailable, "the store is open for reading only"));
        }
        let mut request = body::decode(form, coding, body)?;
        let mut deltas = self.deltas.lock().unwrap_or_else(PoisonError::into_inner);
        let mut translator = Translator {
            config: &self.config,
            deltas: &mut deltas,
            hashers: &self.hashers,
            now: Instant::now(),
            sink: Batch::new(&self.db),
            points: 0,
        };
        translator.translate(&mut request);
        let outcome = translator.sink.finish();
        drop(deltas);
        let committed = self.db.commit();
        committed.map_err(|error| Refusal::new(Refused::Unavailable, error.to_string()))?;
        Ok(outcome)
    }

    fn done(&self, outcome: Outcome) -> Answer {
        let counters = [&self.floats, &self.histograms, &self.exemplars, &self.points];
        let counts = [outcome.floats, outcome.histograms, outcome.exemplars, outcome.rejected];
        let all = counters.into_iter().zip(counts).chain(self.dropped.iter().zip(outcome.dropped));
        for (counter, count) in all {
            counter.fetch_add(count, Relaxed);
        }
        if outcome.rejected == 0 && outcome.reason.is_empty() {
            return Answer::default();
        }
        let rejected_data_points = i64::try_from(outcome.rejected).unwrap_or(i64::MAX);
        Answer {
            partial_success: Some(PartialSuccess { rejected_data_points, error_message: outcome.reason }),
        }
    }

    fn count(&self, refusal: &Refusal) {
        match refusal.kind {
            Refused::Malformed | Refused::Unsupported | Refused::TooLarge => {
                self.malformed.fetch_add(1, Relaxed);
            }
            Refused::Unavailable => {
                self.busy.fetch_add(1, Relaxed);
            }
            // Those who may not ask are counted where they were sent away.
            Refused::Canceled | Refused::Internal | Refused::Unauthenticated | Refused::Forbidden => {}
        }
    }

    fn error(&self, form: Form, refusal: &Refusal) -> Response {
        self.count(refusal);
        let status = Status { code: refusal.kind.grpc(), message: refusal.text.clone() };
        let mut response = respond(refusal.kind.http(), form, form.status(&status));
        if refusal.kind == Refused::Unavailable {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

// === impl Dropped ===

impl Dropped {
    fn index(self) -> usize {
        match self {
            Self::OlderStart => 0,
            Self::OutOfOrder => 1,
            Self::Limit => 2,
        }
    }
}

fn respond(status: StatusCode, form: Form, body: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(form.content_type()));
    response
}
