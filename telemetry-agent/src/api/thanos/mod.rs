//! Thanos' StoreAPI and Info over gRPC, so that Thanos Query asks many agents as one database.
//!
//! Raw samples as Prometheus' chunks; sorted series; external labels over a series' own. Knows the store; called by
//! [`super::grpc`].

mod external;
mod message;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use prost::Message;
use serde::{Deserialize, Serialize};
use telemetry_model::{Desc, Kind, Labels, Matcher, Series as Counted, float};
use telemetry_tsdb::db::{Column, Db};
use tokio::sync::{Semaphore, mpsc};

use super::intake::Intake;
use super::refusal::{Refusal, Refused};
use super::stats::own;
use crate::exchange::prometheus::encode;
use external::External;
use message::{
    AggrChunk, Chunk, InfoResponse, Label, LabelNamesRequest, LabelValuesRequest, Series, SeriesRequest,
    SeriesResponse, StoreInfo, Texts, TsdbInfo,
};

/// Everything that is said of these calls.
pub(super) static METRICS: &[Desc] = &[CALLS];

const CALLS: Desc = Desc {
    kind: Kind::Counter,
    labels: &["result"],
    bound: "4: result=answered|refused|limit|busy",
    ..own(
        "telemetry_agent_thanos_calls_total",
        "Calls of Thanos: answered, not understood or failed, ended by a limit, not taken because too many wait.",
        "the agent's Thanos store",
    )
};

/// Bytes of a request.
pub(super) const REQUEST_BYTES_MAX: usize = 1 << 20;
/// Bytes of all requests that are being read.
const INTAKE_BYTES: usize = 8 << 20;
/// Calls that are answered at one time, each on a thread.
pub const CONCURRENCY: usize = 2;
/// Calls that may wait.
const QUEUE_MAX: usize = 32;
/// Messages that wait for a slow client.
const MESSAGES_AHEAD: usize = 16;
/// How long a client may take for one message, before its call ends.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// What Thanos is told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Labels that tell this agent's series from those of others, as `name=value`.
    pub external_labels: Vec<String>,
}

/// The store as Thanos sees it.
pub struct ThanosStore {
    db: Arc<Db>,
    external: External,
    series_max: u64,
    samples_max: u64,
    running: Arc<Semaphore>,
    queued: Arc<Semaphore>,
    intake: Intake,
    answered: AtomicU64,
    refused: AtomicU64,
    limit: AtomicU64,
    busy: AtomicU64,
}

/// What a call is answered with: messages, and an error if it did not end well.
pub(super) type Messages = mpsc::Receiver<Result<Vec<u8>, Refusal>>;

/// Which method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Info,
    Series,
    LabelNames,
    LabelValues,
}

/// Where messages go.
struct Sender {
    to: mpsc::Sender<Result<Vec<u8>, Refusal>>,
    runtime: tokio::runtime::Handle,
}

// === impl Method ===

impl Method {
    /// By its path.
    pub(super) fn named(path: &str) -> Option<Self> {
        Some(match path {
            "/thanos.info.Info/Info" => Self::Info,
            "/thanos.Store/Series" => Self::Series,
            "/thanos.Store/LabelNames" => Self::LabelNames,
            "/thanos.Store/LabelValues" => Self::LabelValues,
            _ => return None,
        })
    }
}

// === impl ThanosStore ===

impl ThanosStore {
    /// Of a store; `series_max` and `samples_max` bound each call.
    ///
    /// # Errors
    /// Says what is wrong with the external labels.
    pub fn new(db: Arc<Db>, config: &Config, series_max: u64, samples_max: u64) -> Result<Self, String> {
        let zero = || AtomicU64::new(0);
        Ok(Self {
            db,
            external: External::parse(&config.external_labels)?,
            series_max,
            samples_max,
            running: Arc::new(Semaphore::new(CONCURRENCY)),
            queued: Arc::new(Semaphore::new(QUEUE_MAX)),
            intake: Intake::new(INTAKE_BYTES),
            answered: zero(),
            refused: zero(),
            limit: zero(),
            busy: zero(),
        })
    }

    /// What there is to say of these calls.
    #[must_use]
    pub fn families(&self) -> Vec<telemetry_model::Family> {
        let all = [
            ("answered", &self.answered),
            ("refused", &self.refused),
            ("limit", &self.limit),
            ("busy", &self.busy),
        ];
        let series = all.map(|(result, count)| {
            Counted::number(Labels::fixed(&[("result", result)]), float(count.load(Relaxed)))
        });
        vec![telemetry_model::Family { desc: &CALLS, series: series.to_vec() }]
    }

    /// Answers a call; its messages come as they are made.
    pub(super) async fn call(self: Arc<Self>, method: Method, request: Vec<u8>) -> Result<Messages, Refusal> {
        let Ok(place) = Arc::clone(&self.queued).try_acquire_owned() else {
            return Err(self.refused(Refusal::busy("calls")));
        };
        let permit = Arc::clone(&self.running).acquire_owned().await;
        let (to, messages) = mpsc::channel(MESSAGES_AHEAD);
        let sender = Sender { to, runtime: tokio::runtime::Handle::current() };
        tokio::task::spawn_blocking(move || {
            match self.answer(method, &request, &sender) {
                Ok(()) => {
                    self.answered.fetch_add(1, Relaxed);
                }
                Err(refusal) => {
                    let refusal = self.refused(refusal);
                    // A client that is gone needs no reason.
                    let _ = sender.send(Err(refusal));
                }
            }
            drop((permit, place));
        });
        Ok(messages)
    }

    /// Where requests are read.
    pub(super) fn intake(&self) -> &Intake {
        &self.intake
    }

    /// Counts what was refused.
    pub(super) fn refused(&self, refusal: Refusal) -> Refusal {
        let counter = match refusal.kind {
            Refused::TooLarge => &self.limit,
            Refused::Unavailable => &self.busy,
            _ => &self.refused,
        };
        counter.fetch_add(1, Relaxed);
        refusal
    }

    fn answer(&self, method: Method, request: &[u8], out: &Sender) -> Result<(), Refusal> {
        match method {
            Method::Info => out.message(&self.info()),
            Method::Series => self.series(&read(request)?, out),
            Method::LabelNames => out.message(&self.names(&read(request)?)?),
            Method::LabelValues => out.message(&self.values(&read(request)?)?),
        }
    }

    fn info(&self) -> InfoResponse {
        let labels = self.external.set();
        let oldest = self.db.blocks().iter().map(|block| block.meta().min_t).min();
        // Before the first file is written everything is in memory, and its first time is nowhere told.
        let (min_time, max_time) = (oldest.unwrap_or(0), i64::MAX);
        InfoResponse {
            label_sets: Some(labels.clone()).filter(|set| !set.labels.is_empty()).into_iter().collect(),
            component_type: "sidecar".to_owned(),
            store: Some(StoreInfo {
                min_time,
                max_time,
                supports_without_replica_labels: true,
                tsdb_infos: vec![TsdbInfo { labels: Some(labels), min_time, max_time }],
            }),
        }
    }

    fn series(&self, request: &SeriesRequest, out: &Sender) -> Result<(), Refusal> {
        if request.max_time < request.min_time {
            return Err(Refusal::new(Refused::Malformed, "max_time is before min_time"));
        }
        let Some(matchers) = self.external.rest(&request.matchers)? else { return Ok(()) };
        if matchers.is_empty() {
            let text = "no matchers, those of external labels left out";
            return Err(Refusal::new(Refused::Malformed, text));
        }
        let (from, to) = (request.min_time, request.max_time);
        let selection = self.db.select(&matchers, from, to).map_err(failed)?;
        self.bound("series", selection.series().len() as u64, self.series_max)?;
        let without = &request.without_replica_labels;
        let pairs = |series: &telemetry_tsdb::db::Selected| {
            let labels = Arc::clone(series.labels());
            let pairs = labels.iter().map(|(name, value)| (&**name, &**value));
            self.external.over(pairs, without)
        };
        let mut all: Vec<(Vec<Label>, usize)> =
            selection.series().iter().enumerate().map(|(at, series)| (pairs(series), at)).collect();
        // External labels and the absence of others change the order.
        all.sort();
        all.truncate(limit(request.limit));
        let mut reader = selection.reader();
        let mut samples = 0u64;
        for (labels, at) in all {
            let Some(series) = selection.series().get(at) else { continue };
            let mut chunks = Vec::new();
            if !request.skip_chunks {
                let column = reader.read(series, from, to).map_err(failed)?;
                samples += column.times.len() as u64;
                self.bound("samples", samples, self.samples_max)?;
                chunks = chunks_of(&column);
                if chunks.is_empty() {
                    continue;
                }
            }
            let series = Some(Series { labels, chunks });
            out.message(&SeriesResponse { series, warning: None })?;
        }
        Ok(())
    }

    fn names(&self, request: &LabelNamesRequest) -> Result<Texts, Refusal> {
        let Some(matchers) = self.external.rest(&request.matchers)? else { return Ok(Texts::default()) };
        let found = self.db.label_names(&matchers, request.start, request.end).map_err(failed)?;
        if found.is_empty() {
            return Ok(Texts::default());
        }
        let mut all: BTreeSet<String> = found.iter().map(|name| name.as_ref().to_owned()).collect();
        all.extend(self.external.names().map(str::to_owned));
        all.retain(|name| !request.without_replica_labels.contains(name));
        Ok(texts(all, request.limit))
    }

    fn values(&self, request: &LabelValuesRequest) -> Result<Texts, Refusal> {
        if request.label.is_empty() {
            return Err(Refusal::new(Refused::Malformed, "label name parameter cannot be empty"));
        }
        if request.without_replica_labels.contains(&request.label) {
            return Ok(Texts::default());
        }
        let Some(matchers) = self.external.rest(&request.matchers)? else { return Ok(Texts::default()) };
        let Some(value) = self.external.get(&request.label) else {
            let found = self.db.label_values(&request.label, &matchers, request.start, request.end);
            let found = found.map_err(failed)?;
            return Ok(texts(found.iter().map(|value| value.as_ref().to_owned()).collect(), request.limit));
        };
        let is_there = matchers.is_empty() || self.is_any(&matchers, request.start, request.end)?;
        Ok(texts(is_there.then(|| value.to_owned()).into_iter().collect(), request.limit))
    }

    fn is_any(&self, matchers: &[Matcher], from: i64, to: i64) -> Result<bool, Refusal> {
        Ok(!self.db.select(matchers, from, to).map_err(failed)?.series().is_empty())
    }

    fn bound(&self, what: &str, count: u64, max: u64) -> Result<(), Refusal> {
        if count <= max {
            return Ok(());
        }
        Err(Refusal::new(Refused::TooLarge, format!("a call may have {max} {what}")))
    }
}

// === impl Sender ===

impl Sender {
    fn message(&self, message: &impl Message) -> Result<(), Refusal> {
        self.send(Ok(message.encode_to_vec()))
    }

    fn send(&self, message: Result<Vec<u8>, Refusal>) -> Result<(), Refusal> {
        let sent = self.runtime.block_on(tokio::time::timeout(SEND_TIMEOUT, self.to.send(message)));
        let gone = || Refusal::new(Refused::Canceled, "the client takes no messages");
        sent.map_err(|_| gone())?.map_err(|_| gone())
    }
}

fn read<M: Message + Default>(request: &[u8]) -> Result<M, Refusal> {
    M::decode(request).map_err(|error| Refusal::new(Refused::Malformed, error.to_string()))
}

/// A matcher that is none is the client's fault; all else is the store's.
fn failed(error: telemetry_tsdb::db::Error) -> Refusal {
    let kind = match error {
        telemetry_tsdb::db::Error::Matcher(_) => Refused::Malformed,
        _ => Refused::Internal,
    };
    Refusal::new(kind, error.to_string())
}

/// No limit is 0.
fn limit(asked: i64) -> usize {
    usize::try_from(asked).ok().filter(|limit| *limit > 0).unwrap_or(usize::MAX)
}

fn texts(all: BTreeSet<String>, asked: i64) -> Texts {
    Texts { texts: all.into_iter().take(limit(asked)).collect(), warnings: Vec::new() }
}

/// Samples as chunks of Prometheus.
fn chunks_of(column: &Column) -> Vec<AggrChunk> {
    let mut histograms = column.histograms.iter().peekable();
    let samples = column.times.iter().zip(&column.values).enumerate().map(|(at, (t, value))| {
        let value = match histograms.next_if(|(place, _)| *place as usize == at) {
            Some((_, histogram)) => encode::Value::Histogram(histogram),
            None => encode::Value::Float(*value),
        };
        (*t, value)
    });
    let aggregated = |chunk: encode::Chunk| AggrChunk {
        min_time: chunk.from,
        max_time: chunk.to,
        raw: Some(Chunk {
            kind: match chunk.encoding {
                encode::XOR => 0,
                _ => 2,
            },
            data: chunk.data,
        }),
    };
    encode::chunks(samples).into_iter().map(aggregated).collect()
}
