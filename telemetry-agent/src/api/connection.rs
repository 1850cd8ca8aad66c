//! One connection's place among all, and how long it may stay in each phase of its life.
//!
//! The HTTP library times the reading of a header only; here a client that does not take its answer, and one that
//! rests, are bounded as well, each by its own limit.

use std::collections::BTreeMap;
use std::io::{IoSlice, Result};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
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
}

#[derive(Clone, Copy)]
struct State {
    phase: Phase,
    deadline: Instant,
}

/// Where a connection is between two requests.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Sends a header, or has been accepted and should.
    Header,
    /// Waits for the answer.
    Request,
    /// The answer is made and on its way.
    Answer,
    /// Has its answer, and rests.
    Idle,
}

/// Holds a place until it is dropped.
pub(super) struct Place {
    slots: Arc<Slots>,
    id: u64,
    pub(super) connection: Arc<Connection>,
}

/// A socket that tells its connection when bytes came and when all were sent.
pub(super) struct Watched {
    pub(super) socket: TcpStream,
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
        let deadline = Instant::now() + config.header_timeout;
        Self { state: Mutex::new(State { phase: Phase::Header, deadline }), config, replaced: Notify::new() }
    }

    /// The header is whole and the request is being answered; `allowance` is what this one may take beyond the usual time.
    pub(super) fn request_begins(&self, allowance: Duration) {
        self.enter(Phase::Request, Instant::now() + self.config.request_timeout + allowance);
    }

    /// The answer is made; the time to take it is what is left of the request's.
    pub(super) fn answer_begins(&self) {
        self.state().phase = Phase::Answer;
    }

    fn bytes_came(&self) {
        if self.state().phase == Phase::Idle {
            self.enter(Phase::Header, Instant::now() + self.config.header_timeout);
        }
    }

    fn all_sent(&self) {
        if self.state().phase == Phase::Answer {
            self.enter(Phase::Idle, Instant::now() + self.config.idle_timeout);
        }
    }

    /// Whether it can be closed without breaking off an answer.
    pub(super) fn is_waiting(&self) -> bool {
        matches!(self.state().phase, Phase::Header | Phase::Idle)
    }

    /// Why it was closed for, if it is closed now because its time is up.
    pub(super) fn overdue(&self) -> Closed {
        match self.state().phase {
            Phase::Header => Closed::HeaderTimeout,
            Phase::Request | Phase::Answer => Closed::RequestTimeout,
            Phase::Idle => Closed::IdleTimeout,
        }
    }

    /// Ready when the time of the present phase is up. To be polled after whatever can change the phase.
    pub(super) fn poll_overdue(&self, mut timer: Pin<&mut Sleep>, context: &mut Context<'_>) -> Poll<()> {
        let deadline = self.state().deadline;
        if timer.deadline() != deadline {
            timer.as_mut().reset(deadline);
        }
        timer.poll(context)
    }

    /// Waits until another connection needs the place.
    pub(super) async fn replaced(&self) {
        self.replaced.notified().await;
    }

    fn enter(&self, phase: Phase, deadline: Instant) {
        *self.state() = State { phase, deadline };
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Watched ===

impl AsyncRead for Watched {
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

impl AsyncWrite for Watched {
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
