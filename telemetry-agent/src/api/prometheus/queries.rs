//! Runs queries beside the server: so many at a time, within their time, stopped when nobody waits for them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use futures_util::stream;
use telemetry_model::float;
use telemetry_model::{Desc, Family, Kind as MetricKind, Labels, Series};
use telemetry_promql::budget::Limits;
use telemetry_promql::eval::Options;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;

use super::super::stats::own;
use super::Config;
use super::answer::{Failure, Kind};

/// Everything that is said of queries.
pub(in crate::api) static METRICS: &[Desc] = &[RUNNING, WAITING, REFUSED, CANCELED];

const RUNNING: Desc = queries("telemetry_agent_queries_running", "Queries being evaluated now.");
const WAITING: Desc =
    queries("telemetry_agent_queries_waiting", "Queries that wait for others to end before they begin.");
const REFUSED: Desc = Desc {
    kind: MetricKind::Counter,
    ..queries(
        "telemetry_agent_queries_refused_total",
        "Queries refused because too many waited already, or waited too long.",
    )
};
const CANCELED: Desc = Desc {
    kind: MetricKind::Counter,
    ..queries("telemetry_agent_queries_canceled_total", "Queries stopped because their client had gone.")
};

const fn queries(name: &'static str, help: &'static str) -> Desc {
    own(name, help, "the agent's query API")
}

/// Memory that finished answers may take while they are sent, in units of the configured answer size.
const ANSWERS_HELD: usize = 4;
/// Pieces of a streamed answer that are made before they are sent, each some dozens of kilobytes; a mebibyte at most.
const PIECES_AHEAD: usize = 2;
/// Answers that are streamed at one time, each by a thread that waits for its client; beside those that are made whole.
pub const STREAMS: usize = 4;
/// An answer of so many bytes is short, and as many of the longest such may be on their way.
const SHORT_ANSWER: usize = 128 * 1024;
const SHORT_ANSWERS: usize = 128;
/// The unit that answers are counted in.
const ANSWER_UNIT: usize = 1024;

/// Who may run, and what they may use.
pub(super) struct Queries {
    config: Config,
    running: Arc<Semaphore>,
    answers: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    short: Arc<Semaphore>,
    waiting: AtomicUsize,
    /// Those that are answered and wait for the memory to hold it.
    finished: AtomicUsize,
    refused: AtomicU64,
    canceled: Arc<AtomicU64>,
}

/// A query that may begin.
pub(super) struct Admitted {
    /// How the engine is to run.
    pub(super) options: Options,
    /// How long it waited.
    pub(super) queued: Duration,
}

/// Stops a query when the one who asked is gone: dropped with the request that waits for it.
struct Canceler {
    flag: Arc<AtomicBool>,
    canceled: Arc<AtomicU64>,
    is_done: bool,
}

/// One that waits.
struct Waiting<'a>(&'a AtomicUsize);

// === impl Queries ===

impl Queries {
    pub(super) fn new(config: Config) -> Self {
        Self {
            running: Arc::new(Semaphore::new(config.concurrency)),
            answers: Arc::new(Semaphore::new(ANSWERS_HELD * config.answer_bytes_max.div_ceil(ANSWER_UNIT))),
            streams: Arc::new(Semaphore::new(STREAMS)),
            config,
            short: Arc::new(Semaphore::new(SHORT_ANSWERS * SHORT_ANSWER / ANSWER_UNIT)),
            waiting: AtomicUsize::new(0),
            finished: AtomicUsize::new(0),
            refused: AtomicU64::new(0),
            canceled: Arc::default(),
        }
    }

    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// Runs work on a thread of its own, when there is one for it. `patience` is what the client allows; never more than
    /// is configured.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        patience: Option<Duration>,
        work: impl FnOnce(Admitted) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let begun = Instant::now();
        let allowed = patience.map_or(self.config.timeout, |patience| patience.min(self.config.timeout));
        let permit = self.admit(&self.running, allowed).await?;
        let queued = begun.elapsed();
        let flag = Arc::new(AtomicBool::new(false));
        let admitted =
            Admitted { options: self.options(allowed.saturating_sub(queued), Arc::clone(&flag)), queued };
        let mut canceler = Canceler { flag, canceled: Arc::clone(&self.canceled), is_done: false };
        let task = tokio::task::spawn_blocking(move || {
            let result = work(admitted);
            drop(permit);
            result
        });
        let result = task.await;
        canceler.is_done = true;
        // A panic is a bug of ours that costs this one answer.
        result.unwrap_or_else(|_| Err(Failure::new(Kind::Internal, "the query ended by a bug of the agent")))
    }

    /// Runs work that hands its answer on piece by piece, and waits for whoever takes them. It is an answer from the first
    /// piece on; what fails later breaks it off.
    pub(super) async fn stream(
        &self,
        work: impl FnOnce(Admitted, &mut dyn FnMut(Vec<u8>) -> Result<(), Failure>) -> Result<(), Failure>
        + Send
        + 'static,
    ) -> Result<Body, Failure> {
        let begun = Instant::now();
        let allowed = self.config.timeout;
        let permit = self.admit(&self.streams, allowed).await?;
        let queued = begun.elapsed();
        let flag = Arc::new(AtomicBool::new(false));
        let admitted =
            Admitted { options: self.options(allowed.saturating_sub(queued), Arc::clone(&flag)), queued };
        let mut canceler = Canceler { flag, canceled: Arc::clone(&self.canceled), is_done: false };
        let (sender, mut pieces) = mpsc::channel::<Result<Bytes, Failure>>(PIECES_AHEAD);
        tokio::task::spawn_blocking(move || {
            let mut out = |piece: Vec<u8>| {
                let sent = sender.blocking_send(Ok(piece.into()));
                sent.map_err(|_| Failure::new(Kind::Canceled, "the client has gone"))
            };
            if let Err(failure) = work(admitted, &mut out) {
                // Nobody is there to hear of it.
                let _ = sender.blocking_send(Err(failure));
            }
            drop(permit);
        });
        let first = match pieces.recv().await {
            Some(Err(failure)) => {
                canceler.is_done = true;
                return Err(failure);
            }
            Some(Ok(piece)) => Some(piece),
            None => None,
        };
        let rest =
            stream::unfold((first, pieces, canceler), |(first, mut pieces, mut canceler)| async move {
                let piece = match first {
                    Some(piece) => Some(Ok(piece)),
                    None => pieces.recv().await,
                };
                canceler.is_done = !matches!(piece, Some(Ok(_)));
                let piece = piece?.map_err(|failure| std::io::Error::other(failure.message));
                Some((piece, (None, pieces, canceler)))
            });
        Ok(Body::from_stream(rest))
    }

    async fn admit(
        &self,
        places: &Arc<Semaphore>,
        allowed: Duration,
    ) -> Result<OwnedSemaphorePermit, Failure> {
        if let Ok(permit) = Arc::clone(places).try_acquire_owned() {
            return Ok(permit);
        }
        let waiting = self.wait(&self.waiting, self.config.queue_max)?;
        let permit = timeout(allowed, Arc::clone(places).acquire_owned()).await;
        drop(waiting);
        permit.ok().and_then(Result::ok).ok_or_else(|| {
            self.refused.fetch_add(1, Ordering::Relaxed);
            Failure::new(Kind::Timeout, "query timed out in query queue")
        })
    }

    /// A place among those that wait, of which there are `max`.
    fn wait<'a>(&self, places: &'a AtomicUsize, max: usize) -> Result<Waiting<'a>, Failure> {
        if places.fetch_add(1, Ordering::Relaxed) >= max {
            places.fetch_sub(1, Ordering::Relaxed);
            self.refused.fetch_add(1, Ordering::Relaxed);
            let message = format!("{max} queries wait already; ask again later");
            return Err(Failure::new(Kind::Busy, message));
        }
        Ok(Waiting(places))
    }

    /// Waits until the memory of an answer is free.
    pub(super) async fn hold(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Failure> {
        // What a socket takes at once waits for nobody, so that slow readers of long answers stop no short ones.
        let places = if bytes <= SHORT_ANSWER { &self.short } else { &self.answers };
        let units = u32::try_from(bytes.div_ceil(ANSWER_UNIT)).unwrap_or(u32::MAX);
        if let Ok(held) = Arc::clone(places).try_acquire_many_owned(units) {
            return Ok(held);
        }
        // Whoever waits here has a connection and an answer's memory: as many as are evaluated at one time may.
        let _waiting = self.wait(&self.finished, self.config.concurrency)?;
        let held = Arc::clone(places).acquire_many_owned(units);
        let held = timeout(self.config.timeout, held).await;
        held.ok().and_then(Result::ok).ok_or_else(|| {
            self.refused.fetch_add(1, Ordering::Relaxed);
            Failure::new(Kind::Busy, "too many answers are being sent; ask again later")
        })
    }

    fn options(&self, time: Duration, canceled: Arc<AtomicBool>) -> Options {
        let Config { samples_max, series_max, memory_max, lookback, .. } = &self.config;
        Options {
            lookback: i64::try_from(lookback.as_millis()).unwrap_or(i64::MAX),
            limits: Limits {
                samples: *samples_max,
                series: *series_max,
                bytes: *memory_max,
                time,
                ..Limits::default()
            },
            canceled,
            ..self.config.language()
        }
    }

    /// What there is to say of queries.
    pub(super) fn families(&self) -> Vec<Family> {
        let running = self.config.concurrency + STREAMS
            - self.running.available_permits()
            - self.streams.available_permits();
        let one = |desc, value| Family { desc, series: vec![Series::number(Labels::none(), float(value))] };
        vec![
            one(&RUNNING, running as u64),
            one(&WAITING, self.waiting.load(Ordering::Relaxed) as u64),
            one(&REFUSED, self.refused.load(Ordering::Relaxed)),
            one(&CANCELED, self.canceled.load(Ordering::Relaxed)),
        ]
    }
}

// === impl Canceler ===

impl Drop for Canceler {
    fn drop(&mut self) {
        if !self.is_done {
            self.flag.store(true, Ordering::Relaxed);
            self.canceled.fetch_add(1, Ordering::Relaxed);
        }
    }
}

// === impl Waiting ===

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queries(concurrency: usize, queue_max: usize) -> Arc<Queries> {
        let config = Config { concurrency, queue_max, timeout: Duration::from_secs(5), ..Config::default() };
        Arc::new(Queries::new(config))
    }

    #[tokio::test]
    async fn what_is_too_much_waits_or_is_refused() {
        let queries = queries(1, 1);
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let first = tokio::spawn({
            let queries = Arc::clone(&queries);
            async move { queries.run(None, move |_| Ok(wait.recv().is_ok())).await }
        });
        while queries.running.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let late = queries.run(Some(Duration::from_millis(1)), |_| Ok(())).await;
        assert_eq!(late.unwrap_err().message, "query timed out in query queue");
        let second = tokio::spawn({
            let queries = Arc::clone(&queries);
            async move { queries.run(None, |_| Ok(2)).await }
        });
        while queries.waiting.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(queries.run(None, |_| Ok(())).await.unwrap_err().kind, Kind::Busy);
        go.send(()).unwrap();
        assert!(first.await.unwrap().unwrap());
        assert_eq!(second.await.unwrap().unwrap(), 2);
        assert_eq!(queries.refused.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn a_query_stops_when_nobody_waits_for_it() {
        let queries = queries(1, 1);
        let (said, stopped) = std::sync::mpsc::channel();
        let asked = {
            let queries = Arc::clone(&queries);
            tokio::spawn(async move {
                queries
                    .run(None, move |admitted| {
                        while !admitted.options.canceled.load(Ordering::Relaxed) {
                            std::thread::yield_now();
                        }
                        said.send(()).map_err(|_| Failure::bad_data("nobody"))
                    })
                    .await
            })
        };
        while queries.running.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        asked.abort();
        assert!(asked.await.unwrap_err().is_cancelled());
        tokio::task::spawn_blocking(move || stopped.recv().unwrap()).await.unwrap();
        assert_eq!(queries.canceled.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn a_panic_is_an_answer() {
        let failure = queries(1, 1).run::<()>(None, |_| panic!("a bug")).await.unwrap_err();
        assert_eq!(failure.kind, Kind::Internal);
    }
}
