//! One connection's place among all, and how long it may stay in each phase of its life.
//!
//! The HTTP library times the reading of a header only; here a client that does not take its answer, and one that
//! rests, are bounded as well, each by its own limit. A connection of HTTP/2 has several requests at one time: the first
//! whose time is up ends it.

use std::collections::BTreeMap;
use std::io::{IoSlice, Result};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::http::Version;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep};

use super::Config;
use super::stats::{Closed, HttpStats};

/// All places, of which there are `connections_max`.
pub(super) struct Slots {
    config: Config,
    stats: Arc<HttpStats>,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    /// In the order in which they were accepted.
    connections: BTreeMap<u64, Arc<Connection>>,
    next: u64,
}

/// A connection as the accept loop and the connection's own task both see it.
pub(super) struct Connection {
    state: Mutex<State>,
    config: Config,
    replaced: Notify,
    /// A request began or ended on another task than the connection's.
    changed: Notify,
}

struct State {
    phase: Phase,
    /// Of the phase; while requests are being answered, theirs hold instead.
    deadline: Instant,
    version: Version,
    /// Requests whose answers are not handed over whole, each with its deadline; none while we have nothing to send.
    requests: BTreeMap<u64, Option<Instant>>,
    next: u64,
}

/// Where a connection is while no request is being answered.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Sends a header, or has been accepted and should.
    Header,
    /// The last answer is handed over and on its way.
    Answer,
    /// Has its answers, and rests.
    Idle,
}

/// A request from its header to the last byte of its answer, or until it is dropped.
pub(super) struct InFlight {
    connection: Arc<Connection>,
    id: u64,
}

/// Holds a place until it is dropped.
pub(super) struct Place {
    slots: Arc<Slots>,
    id: u64,
    pub(super) connection: Arc<Connection>,
}

/// A socket that tells its connection when bytes came and when all were sent.
pub(super) struct Watched<S> {
    pub(super) socket: S,
    pub(super) connection: Arc<Connection>,
}

// === impl Slots ===

impl Slots {
    pub(super) fn new(config: Config, stats: Arc<HttpStats>) -> Self {
        Self { config, stats, open: Mutex::default() }
    }

    /// A place for a new connection. When all are taken, the oldest that is not being answered loses its own: a
    /// legal client sends its request at once, so a flood of silent connections pushes out itself. None if all are
    /// being answered.
    pub(super) fn take(slots: &Arc<Self>) -> Option<Place> {
        let mut open = slots.open();
        if open.connections.len() >= slots.config.connections_max {
            let waiting = open.connections.iter().find(|(_, connection)| connection.is_waiting());
            let Some((&id, _)) = waiting else {
                slots.stats.rejected();
                return None;
            };
            if let Some(connection) = open.connections.remove(&id) {
                connection.replaced.notify_one();
            }
        }
        let id = open.next;
        open.next += 1;
        let connection = Arc::new(Connection::new(slots.config.clone()));
        open.connections.insert(id, Arc::clone(&connection));
        drop(open);
        slots.stats.opened();
        Some(Place { slots: Arc::clone(slots), id, connection })
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        // Nothing between taking and releasing the lock can leave the map half changed.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Place ===

impl Drop for Place {
    fn drop(&mut self) {
        self.slots.open().connections.remove(&self.id);
        self.slots.stats.ended();
    }
}

// === impl Connection ===

impl Connection {
    fn new(config: Config) -> Self {
        let state = State {
            phase: Phase::Header,
            deadline: Instant::now() + config.header_timeout,
            version: Version::HTTP_11,
            requests: BTreeMap::new(),
            next: 0,
        };
        Self { state: Mutex::new(state), config, replaced: Notify::new(), changed: Notify::new() }
    }

    /// The header is whole and the request is being answered; `allowance` is what this one may take beyond the usual
    /// time.
    pub(super) fn request_begins(self: &Arc<Self>, version: Version, allowance: Duration) -> InFlight {
        let mut state = self.state();
        let id = state.next;
        state.next += 1;
        state.version = version;
        state.requests.insert(id, Some(Instant::now() + self.config.request_timeout + allowance));
        drop(state);
        self.changed.notify_one();
        InFlight { connection: Arc::clone(self), id }
    }

    fn bytes_came(&self) {
        let mut state = self.state();
        // Of HTTP/2 they need not be a header: there the rest goes on until a request is whole, so that a slow header
        // and an endless row of pings win no time.
        if state.phase == Phase::Idle && state.requests.is_empty() && state.version != Version::HTTP_2 {
            state.enter(Phase::Header, Instant::now() + self.config.header_timeout);
        }
    }

    fn all_sent(&self) {
        let mut state = self.state();
        if state.phase == Phase::Answer && state.requests.is_empty() {
            state.enter(Phase::Idle, Instant::now() + self.config.idle_timeout);
        }
    }

    /// Whether it can be closed without breaking off an answer.
    pub(super) fn is_waiting(&self) -> bool {
        let state = self.state();
        state.requests.is_empty() && state.phase != Phase::Answer
    }

    /// Why it was closed for, if it is closed now because its time is up.
    pub(super) fn overdue(&self) -> Closed {
        let state = self.state();
        match state.phase {
            _ if !state.requests.is_empty() => Closed::RequestTimeout,
            Phase::Header => Closed::HeaderTimeout,
            Phase::Answer => Closed::RequestTimeout,
            Phase::Idle => Closed::IdleTimeout,
        }
    }

    /// Ready when the time of the present phase is up. To be polled after whatever can change the phase.
    pub(super) fn poll_overdue(&self, mut timer: Pin<&mut Sleep>, context: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.state().deadline() else { return Poll::Pending };
        if timer.deadline() != deadline {
            timer.as_mut().reset(deadline);
        }
        timer.poll(context)
    }

    /// Waits until another connection needs the place.
    pub(super) async fn replaced(&self) {
        self.replaced.notified().await;
    }

    /// Waits until the time that [`Connection::poll_overdue`] waits for may be another.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl State ===

impl State {
    fn enter(&mut self, phase: Phase, deadline: Instant) {
        (self.phase, self.deadline) = (phase, deadline);
    }

    /// When the time is up; none while the only answers are ours to go on with.
    fn deadline(&self) -> Option<Instant> {
        if self.requests.is_empty() {
            return Some(self.deadline);
        }
        self.requests.values().copied().flatten().min()
    }
}

// === impl InFlight ===

impl InFlight {
    /// What is being answered has no end of its own, and there is nothing to send now: no time runs.
    pub(super) fn waits(&self) {
        self.set(None);
    }

    /// A part of an answer without an end was handed over: the client has the usual time to take it.
    pub(super) fn hands_over(&self) {
        self.set(Some(Instant::now() + self.connection.config.request_timeout));
    }

    fn set(&self, deadline: Option<Instant>) {
        // Only a change is told: whoever is told asks the body again, which would tell it again.
        if self.connection.state().requests.insert(self.id, deadline) != Some(deadline) {
            self.connection.changed.notify_one();
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut state = self.connection.state();
        let deadline = state.requests.remove(&self.id).flatten();
        if state.requests.is_empty() {
            // The time to take the rest is what is left of the request's.
            let usual = || Instant::now() + self.connection.config.request_timeout;
            state.enter(Phase::Answer, deadline.unwrap_or_else(usual));
        }
        drop(state);
        self.connection.changed.notify_one();
    }
}

// === impl Watched ===

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.socket).poll_read(cx, buffer))?;
        if buffer.filled().len() > before {
            self.connection.bytes_came();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    /// Called once the buffers above are empty, so whatever there was to send is sent.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        ready!(Pin::new(&mut self.socket).poll_flush(cx))?;
        self.connection.all_sent();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use axum::body::{Body, Bytes};
    use hyper::body::{Body as _, Frame};
    use std::future::Future as _;

    use super::super::body::Outgoing;
    use super::*;

    /// Counts how often somebody is woken.
    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A body that gives a part whenever it is told to.
    struct Parts(Arc<Mutex<Vec<Bytes>>>);

    impl hyper::body::Body for Parts {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<std::result::Result<Frame<Bytes>, Self::Error>>> {
            match self.0.lock().unwrap().pop() {
                Some(part) => Poll::Ready(Some(Ok(Frame::data(part)))),
                None => Poll::Pending,
            }
        }
    }

    fn connection() -> Arc<Connection> {
        Arc::new(Connection::new(Config::default()))
    }

    fn deadline(connection: &Connection) -> Option<Duration> {
        connection.state().deadline().map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    #[test]
    fn the_first_deadline_of_all_requests_holds_and_then_the_rest() {
        let connection = connection();
        let (usual, minute) = (Config::default().request_timeout, Duration::from_secs(60));
        let long = connection.request_begins(Version::HTTP_2, minute);
        assert!(deadline(&connection).is_some_and(|left| left > minute));
        let short = connection.request_begins(Version::HTTP_2, Duration::ZERO);
        assert!(deadline(&connection).is_some_and(|left| left <= usual));
        connection.all_sent();
        assert!(!connection.is_waiting(), "a flush ends no request");
        drop(short);
        assert!(deadline(&connection).is_some_and(|left| left > minute) && !connection.is_waiting());
        drop(long);
        assert!(!connection.is_waiting(), "the last bytes are on their way");
        connection.all_sent();
        assert!(connection.is_waiting() && connection.overdue() == Closed::IdleTimeout);
        connection.bytes_came();
        assert_eq!(connection.overdue(), Closed::IdleTimeout, "of HTTP/2 they need not be a header");
    }

    #[test]
    fn an_answer_without_an_end_has_its_time_for_each_part_and_wakes_nobody_while_it_waits() {
        let connection = connection();
        let parts = Arc::new(Mutex::new(vec![Bytes::from_static(b"event")]));
        let in_flight = connection.request_begins(Version::HTTP_11, Duration::ZERO);
        let mut body = Outgoing::new(Body::new(Parts(Arc::clone(&parts))), true, in_flight, None);
        let woken = Arc::new(Woken::default());
        let waker = Arc::clone(&woken).into();
        let mut context = Context::from_waker(&waker);
        let mut poll = || Pin::new(&mut body).poll_frame(&mut context);
        assert!(matches!(poll(), Poll::Ready(Some(Ok(_)))));
        assert!(deadline(&connection).is_some(), "the client has to take it");
        assert!(poll().is_pending());
        assert_eq!(deadline(&connection), None, "nothing to take, no time");
        let mut changed = Box::pin(connection.changed());
        assert!(
            changed.as_mut().poll(&mut Context::from_waker(&waker)).is_ready(),
            "the first of all changes"
        );
        let mut changed = Box::pin(connection.changed());
        assert!(changed.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        for _ in 0..10 {
            assert!(poll().is_pending());
        }
        assert_eq!(woken.0.load(Ordering::Relaxed), 0, "asking changes nothing");
        parts.lock().unwrap().push(Bytes::from_static(b"event"));
        assert!(poll().is_ready());
        assert!(woken.0.load(Ordering::Relaxed) > 0 && deadline(&connection).is_some());
    }
}
