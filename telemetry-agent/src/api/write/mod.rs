//! Remote write's receiver, versions 1.0 and 2.0: what a Prometheus or an agent of its kind pushes, into the store.
//!
//! What can be taken is taken; if anything could not, the answer is 400, which tells the sender not to try again, and
//! says how much and why. An answer of success means that the samples are on disk. Knows the store; called by the
//! server's routes.

mod decode;
mod known;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{ALLOW, CONTENT_ENCODING, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::Response;
use telemetry_model::{Desc, Family, Kind, Labels, Series, float};
use telemetry_tsdb::db::{Db, Exemplar, Metadata, Mode, Refused, SeriesRef};
use telemetry_tsdb::head::{GroupId, Sample};
use telemetry_tsdb::index::{NAME, OwnerRef};
use tokio::sync::Semaphore;

use super::coding::{self, DecodeError};
use super::intake::Intake;
use super::prometheus;
use super::refusal::{self, Refusal};
use super::stats::own;
use decode::{Push, Pushed, Version};
use known::{Key, Known};

/// Everything that is said of pushes.
pub(super) static METRICS: &[Desc] = &[SAMPLES, REFUSED];

const SAMPLES: Desc = Desc {
    labels: &["type"],
    bound: "3: type=float|histogram|exemplar",
    ..counter("telemetry_agent_remote_write_samples_total", "Samples taken in by remote write.")
};
const REFUSED: Desc = Desc {
    labels: &["reason"],
    bound: "3: reason=malformed|sample|busy",
    ..counter(
        "telemetry_agent_remote_write_refused_total",
        "Requests of remote write that could not be read or waited too long, and samples that the store refused.",
    )
};

const fn counter(name: &'static str, help: &'static str) -> Desc {
    Desc { kind: Kind::Counter, ..own(name, help, "the agent's remote write receiver") }
}

/// Where pushes go: Prometheus' path, and the one of receivers that are nothing else.
pub(super) const PATHS: [&str; 2] = ["/api/v1/write", "/write"];
/// Bytes of a request, compressed; Prometheus sends at most some hundred kilobytes.
pub(super) const BODY_BYTES_MAX: usize = 16 << 20;
/// Bytes of a request, inflated: its head says how many there are before anything is inflated.
const INFLATED_BYTES_MAX: usize = 64 << 20;
/// Bytes of all requests that wait or are being read; three of the longest, and hundreds of those that are sent.
const BODIES_BYTES_MAX: usize = 48 << 20;
/// Pushes taken in at one time, each on a thread.
pub const CONCURRENCY: usize = 2;
/// Pushes that may wait.
const QUEUE_MAX: usize = 32;
/// Samples given to the store at a time: no reader of the store's writer waits longer than for these.
const BATCH: usize = 4096;

/// The receiver.
pub struct Receiver {
    db: Arc<Db>,
    known: Known,
    running: Arc<Semaphore>,
    queued: Semaphore,
    intake: Intake,
    floats: AtomicU64,
    histograms: AtomicU64,
    exemplars: AtomicU64,
    malformed: AtomicU64,
    refused: AtomicU64,
    busy: AtomicU64,
}

/// What became of a push.
#[derive(Debug, Default)]
struct Outcome {
    floats: usize,
    histograms: usize,
    exemplars: usize,
    refused: usize,
    /// Why the first was refused.
    reason: String,
}

/// A batch on its way into the store.
struct Batch<'a> {
    db: &'a Db,
    known: &'a Known,
    samples: Vec<(SeriesRef, i64, Sample)>,
    /// Series that were found by what is remembered of them, and their numbers in the push.
    found: Vec<(SeriesRef, usize)>,
    /// Of these, those that have ended.
    gone: HashSet<SeriesRef>,
    groups: HashMap<String, GroupId>,
    /// A group's name, made anew for each series without a new allocation.
    key: String,
    outcome: Outcome,
}

// === impl Receiver ===

impl Receiver {
    /// A receiver that writes into this store.
    #[must_use]
    pub fn new(db: Arc<Db>) -> Self {
        Self {
            db,
            known: Known::default(),
            running: Arc::new(Semaphore::new(CONCURRENCY)),
            queued: Semaphore::new(QUEUE_MAX),
            intake: Intake::new(BODIES_BYTES_MAX),
            floats: AtomicU64::new(0),
            histograms: AtomicU64::new(0),
            exemplars: AtomicU64::new(0),
            malformed: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            busy: AtomicU64::new(0),
        }
    }

    /// What there is to say of pushes.
    #[must_use]
    pub fn families(&self) -> Vec<Family> {
        let all = |desc, name, values: [(&'static str, &AtomicU64); 3]| {
            let series = values.map(|(value, count)| {
                Series::number(Labels::fixed(&[(name, value)]), float(count.load(Relaxed)))
            });
            Family { desc, series: series.to_vec() }
        };
        vec![
            all(
                &SAMPLES,
                "type",
                [("float", &self.floats), ("histogram", &self.histograms), ("exemplar", &self.exemplars)],
            ),
            all(
                &REFUSED,
                "reason",
                [("malformed", &self.malformed), ("sample", &self.refused), ("busy", &self.busy)],
            ),
        ]
    }

    /// Answers a push. To be called on a runtime of tokio.
    pub async fn answer(self: Arc<Self>, request: Request) -> Response {
        if request.method() != Method::POST {
            let mut response =
                prometheus::error(StatusCode::METHOD_NOT_ALLOWED, "bad_data", "only POST is answered");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
            return response;
        }
        let (version, coding) = match version(request.headers()) {
            Ok(form) => form,
            Err(refusal) => return self.refuse(&refusal),
        };
        let Ok(_place) = self.queued.try_acquire() else {
            return self.refuse(&Refusal::busy("pushes"));
        };
        let body = match self.intake.read(request.into_body(), BODY_BYTES_MAX).await {
            Ok(body) => body,
            Err(error) => return self.refuse(&error.into()),
        };
        let permit = Arc::clone(&self.running).acquire_owned().await;
        let receiver = Arc::clone(&self);
        let task = tokio::task::spawn_blocking(move || {
            let result = receiver.take(version, coding, &body.bytes);
            drop(permit);
            result
        });
        match task.await {
            Ok(Ok(outcome)) => self.done(version, &outcome),
            Ok(Err(refusal)) => self.refuse(&refusal),
            // A panic is a bug of ours: the sender tries again, and what was taken is a duplicate then.
            Err(_) => {
                let bug = "the push ended by a bug of the agent";
                Refusal::new(refusal::Refused::Internal, bug).respond()
            }
        }
    }

    fn refuse(&self, refusal: &Refusal) -> Response {
        let is_busy = refusal.kind == refusal::Refused::Unavailable;
        let counter = if is_busy { &self.busy } else { &self.malformed };
        counter.fetch_add(1, Relaxed);
        refusal.respond()
    }

    fn done(&self, version: Version, outcome: &Outcome) -> Response {
        for (counter, count) in [
            (&self.floats, outcome.floats),
            (&self.histograms, outcome.histograms),
            (&self.exemplars, outcome.exemplars),
            (&self.refused, outcome.refused),
        ] {
            counter.fetch_add(count as u64, Relaxed);
        }
        let mut response = if outcome.refused == 0 {
            let mut done = Response::new(Body::empty());
            *done.status_mut() = StatusCode::NO_CONTENT;
            done
        } else {
            bad(format!("{} samples refused, the first because: {}", outcome.refused, outcome.reason))
                .respond()
        };
        if version == Version::Two {
            for (name, count) in [
                ("x-prometheus-remote-write-samples-written", outcome.floats),
                ("x-prometheus-remote-write-histograms-written", outcome.histograms),
                ("x-prometheus-remote-write-exemplars-written", outcome.exemplars),
            ] {
                response.headers_mut().insert(name, HeaderValue::from(count));
            }
        }
        response
    }

    /// Reads a push and brings it to disk.
    fn take(&self, version: Version, coding: &str, body: &[u8]) -> Result<Outcome, Refusal> {
        let bytes = inflated(coding, body)?;
        let push = Push::read(version, &bytes, &self.known.hashes).map_err(bad)?;
        let mut batch = Batch {
            db: &self.db,
            known: &self.known,
            samples: Vec::new(),
            found: Vec::new(),
            gone: HashSet::new(),
            groups: HashMap::new(),
            key: String::new(),
            outcome: Outcome::default(),
        };
        let mut pushed = Pushed::default();
        for at in 0..push.len() {
            push.samples(at, &mut pushed).map_err(bad)?;
            let key = push.key(at, &self.known.hashes).map_err(bad)?;
            let known = key.and_then(|key| self.known.get(key));
            if known.is_none() {
                push.labels(at, &mut pushed).map_err(bad)?;
            }
            batch.add(at, key, known, &mut pushed);
        }
        batch.flush();
        // Those that have ended since they were sent last begin anew.
        for at in batch.ended() {
            push.samples(at, &mut pushed).map_err(bad)?;
            batch.outcome.floats = batch.outcome.floats.saturating_sub(pushed.floats.len());
            batch.outcome.histograms = batch.outcome.histograms.saturating_sub(pushed.histograms.len());
            // Those are kept, under the same labels.
            pushed.exemplars.clear();
            push.labels(at, &mut pushed).map_err(bad)?;
            let key = push.key(at, &self.known.hashes).map_err(bad)?;
            batch.add(at, key, None, &mut pushed);
        }
        batch.flush();
        for family in push.described.iter().filter(|described| !described.family.is_empty()) {
            describe(&self.db, family);
        }
        if self.db.health().mode() == Mode::ReadOnly {
            return Err(unavailable("the store is open for reading only"));
        }
        self.db.commit().map_err(unavailable)?;
        Ok(batch.outcome)
    }
}

// === impl Batch ===

impl Batch<'_> {
    /// Adds the samples of the series of this number; its labels are read if it is not known.
    fn add(&mut self, at: usize, key: Option<Key>, known: Option<SeriesRef>, pushed: &mut Pushed<'_>) {
        let count = pushed.floats.len() + pushed.histograms.len();
        let series = match known {
            Some(series) => {
                self.found.push((series, at));
                series
            }
            None => {
                if let Some(problem) = problem(&pushed.labels) {
                    return self.refuse(count.max(1), problem);
                }
                pushed.labels.retain(|(_, value)| !value.is_empty());
                let Some(series) = self.series(&pushed.labels) else {
                    return self.refuse(count, "limit of series or groups reached");
                };
                if let Some(metadata) = &pushed.metadata
                    && metadata.kind != "unknown"
                {
                    describe(self.db, metadata);
                }
                if let Some(key) = key {
                    self.known.put(key, series);
                }
                series
            }
        };
        self.outcome.floats += pushed.floats.len();
        self.outcome.histograms += pushed.histograms.len();
        let floats = pushed.floats.iter().map(|(t, value)| (series, *t, Sample::Float(*value)));
        self.samples.extend(floats);
        let histograms = pushed.histograms.drain(..);
        self.samples.extend(histograms.map(|(t, value)| (series, t, Sample::Histogram(value))));
        for exemplar in pushed.exemplars.drain(..) {
            let labels = exemplar.labels.iter().map(|(name, value)| ((*name).into(), (*value).into()));
            let (t, value) = (exemplar.t, exemplar.value);
            let kept = Exemplar { series: series.id, t, value, labels: labels.collect() };
            self.outcome.exemplars += usize::from(self.db.add_exemplar(kept));
        }
        if self.samples.len() >= BATCH {
            self.flush();
        }
    }

    /// Series that one sender scrapes together are in one group: they share their times.
    fn series(&mut self, labels: &[(&str, &str)]) -> Option<SeriesRef> {
        let value = |wanted: &str| labels.iter().find(|(name, _)| *name == wanted).map_or("", |(_, v)| v);
        self.key.clear();
        for part in ["write", value("job"), value("instance")] {
            self.key.push_str(part);
            self.key.push('\0');
        }
        let group = match self.groups.get(&self.key) {
            Some(group) => *group,
            None => {
                let group = self.db.group(&self.key)?;
                self.groups.insert(self.key.clone(), group);
                group
            }
        };
        self.db.series(group, labels, OwnerRef(0))
    }

    fn flush(&mut self) {
        let mut refused = self.db.append(std::mem::take(&mut self.samples)).refused;
        if refused.is_empty() {
            return;
        }
        let found: HashSet<SeriesRef> = self.found.iter().map(|(series, _)| *series).collect();
        let gone = &mut self.gone;
        refused.retain(|(series, reason)| {
            let is_old = *reason == Refused::Gone && found.contains(series);
            !(is_old && (gone.contains(series) || gone.insert(*series)))
        });
        let Some((_, first)) = refused.first() else { return };
        let (count, reason) = (refused.len(), first.to_string());
        // Which kind they were is not told; a push has nearly always one kind.
        let floats = self.outcome.floats.min(count);
        self.outcome.floats -= floats;
        self.outcome.histograms -= self.outcome.histograms.min(count - floats);
        self.refuse(count, &reason);
    }

    /// Numbers of the series that were known and have ended.
    fn ended(&mut self) -> Vec<usize> {
        let gone = std::mem::take(&mut self.gone);
        let found = std::mem::take(&mut self.found);
        found.into_iter().filter(|(series, _)| gone.contains(series)).map(|(_, at)| at).collect()
    }

    fn refuse(&mut self, count: usize, reason: &str) {
        if self.outcome.refused == 0 {
            self.outcome.reason = reason.to_owned();
        }
        self.outcome.refused += count;
    }
}

/// What the sender did wrong.
fn bad(text: impl ToString) -> Refusal {
    Refusal::new(refusal::Refused::Malformed, text.to_string())
}

/// What he can do nothing about.
fn unavailable(text: impl ToString) -> Refusal {
    Refusal::new(refusal::Refused::Unavailable, text.to_string())
}

/// A push as it was before its sender compressed it.
fn inflated(coding: &str, body: &[u8]) -> Result<Vec<u8>, Refusal> {
    if coding != "snappy" {
        return Ok(coding::decoded(coding, body, INFLATED_BYTES_MAX)?);
    }
    // It says how long it will be.
    if snap::raw::decompress_len(body).map_err(bad)? > INFLATED_BYTES_MAX {
        return Err(DecodeError::TooLarge(INFLATED_BYTES_MAX).into());
    }
    snap::raw::Decoder::new().decompress_vec(body).map_err(bad)
}

/// What is wrong with a label set.
fn problem(labels: &[(&str, &str)]) -> Option<&'static str> {
    if labels.is_empty() {
        return Some("a series without labels");
    }
    if labels.iter().any(|(name, _)| name.is_empty()) {
        return Some("a label without a name");
    }
    if labels.windows(2).any(|pair| matches!(pair, [a, b] if a.0 == b.0)) {
        return Some("two labels of one name");
    }
    labels.iter().all(|(name, value)| *name != NAME || value.is_empty()).then_some("a series without a name")
}

fn describe(db: &Db, described: &decode::Described<'_>) {
    let decode::Described { family, kind, help, unit } = *described;
    db.set_metadata(family, Metadata { kind: kind.into(), unit: unit.into(), help: help.into() });
}

/// Which version a request is in, by its type, and how it is compressed.
fn version(headers: &HeaderMap) -> Result<(Version, &'static str), Refusal> {
    let unsupported = |text: String| Refusal::new(refusal::Refused::Unsupported, text);
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let content_type = text(CONTENT_TYPE);
    let mut parts = content_type.split(';').map(str::trim);
    let version = match parts.next().unwrap_or_default() {
        "application/x-protobuf" => match parts.find_map(|part| part.strip_prefix("proto=")) {
            None | Some("prometheus.WriteRequest") => Version::One,
            Some("io.prometheus.write.v2.Request") => Version::Two,
            Some(other) => return Err(unsupported(format!("unknown message {other}"))),
        },
        other => {
            return Err(unsupported(format!("content type {other:?} is not application/x-protobuf")));
        }
    };
    match text(CONTENT_ENCODING) {
        // Snappy's blocks, whether the sender says so or not.
        "" | "snappy" => Ok((version, "snappy")),
        "gzip" => Ok((version, "gzip")),
        "zstd" => Ok((version, "zstd")),
        other => Err(unsupported(format!("content encoding {other:?} is none of snappy, zstd, gzip"))),
    }
}
