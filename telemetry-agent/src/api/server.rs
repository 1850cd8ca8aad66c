//! The accept loop: takes connections as long as it is told to, whatever they do.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::Response;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, error, warn};

use super::body::{Endless, Outgoing};
use super::connection::{Connection, InFlight, Place, Slots, Watched};
use super::routes::{self, Routes};
use super::security::Security;
use super::stats::{Closed, HttpStats};
use super::{Config, Deps};
use crate::expose;

/// Longest request line and header block; a scraper's has 600 bytes. Buffers of a connection are bounded by it too.
const HEADER_LEN_MAX: usize = 16 * 1024;

/// Most header lines of a request; a browser behind two proxies sends 30.
const HEADERS_MAX: usize = 64;

/// Requests that one connection of HTTP/2 may have at one time; a browser's page asks for a dozen.
const STREAMS_MAX: u32 = 32;

/// Requests of HTTP/2 that a client took back and that are not yet forgotten; more end the connection. What nobody
/// waits for costs work all the same.
const STREAMS_RESET_MAX: usize = 16;

/// Bytes of a request's body that are on their way for us unread, of one request and of a connection.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// Bytes of answers that a connection of HTTP/2 holds for a client that does not take them, for each request.
const SEND_BUFFER_LEN: usize = 64 * 1024;

/// A client of HTTP/2 that waits for something is asked whether it is still there so often, and has so long to say so.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Wait after the kernel could not hand over a connection. Most often files ran out, and asking again at once would
/// turn a shortage into a busy loop.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// How long answers may still be on their way when the agent stops.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);

/// Takes a port, before anything else is started.
///
/// # Errors
/// Whatever the system says of the address: in use, not ours, not allowed.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Answers on `listener` until `shutdown` turns true or its sender is gone, then lets the answers under way end.
/// Runs inside a tokio runtime with time and network, of one thread or more.
///
/// # Errors
/// If the runtime cannot watch the listener. Nothing a client does ends it.
pub async fn serve(
    listener: TcpListener,
    deps: Deps,
    config: Config,
    exposition: expose::Config,
    mut shutdown: watch::Receiver<bool>,
) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let stats = Arc::clone(&deps.observe);
    let security = Arc::clone(&deps.security);
    let slots = Arc::new(Slots::new(config, Arc::clone(&stats)));
    let routes = Routes::new(deps, &exposition);
    // Ends with this function.
    let mut watching = JoinSet::new();
    watching.spawn(Arc::clone(&security).watch());
    let mut connections = JoinSet::new();
    let mut can_accept = true;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(ended) = connections.join_next() => {
                log_panic(ended);
                continue;
            }
            () = stopped(&mut shutdown) => break,
        };
        match accepted {
            Ok((socket, peer)) => {
                can_accept = true;
                // Without a place the socket is dropped, which closes it.
                if let Some(place) = Slots::take(&slots) {
                    let answering = Answering {
                        routes: routes.clone(),
                        security: Arc::clone(&security),
                        client: peer.ip(),
                    };
                    connections.spawn(attend(socket, place, answering, Arc::clone(&stats), shutdown.clone()));
                }
            }
            Err(source) if is_of_one_connection(&source) => {
                debug!(error = %source, "a connection ended unheard")
            }
            Err(source) => {
                stats.accept_failed();
                // Once for each shortage: it lasts for many attempts.
                if can_accept {
                    warn!(error = %source, "cannot accept connections; trying again until it works");
                }
                can_accept = false;
                sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
    drop(listener);
    let all_ended = async {
        while let Some(ended) = connections.join_next().await {
            log_panic(ended);
        }
    };
    if timeout(SHUTDOWN_GRACE, all_ended).await.is_err() {
        debug!(connections = connections.len(), "connections broken off at the stop");
    }
    Ok(())
}

/// Errors that belong to the connection that was to be accepted, and say nothing of the next.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// A bug of ours ends the one connection it happened on.
fn log_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(source) = ended {
        error!(error = %source, "a connection ended by a bug");
    }
}

async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    // A sender that is gone can no longer say stop, and nobody is left to serve for.
    let _ = shutdown.wait_for(|stop| *stop).await;
}

/// What the requests of one connection are answered with.
#[derive(Clone)]
struct Answering {
    routes: Routes,
    security: Arc<Security>,
    client: IpAddr,
}

// === impl Answering ===

impl Answering {
    /// Answers one request, if it may ask.
    async fn answer(self, request: Request, in_flight: InFlight) -> Response<Outgoing> {
        let policy = self.security.policy();
        let admitted = {
            let asked = routes::asked(&request);
            self.security.admit(&policy, (&asked, request.headers()), self.client).await
        };
        let (mut response, turn) = match admitted {
            Ok(turn) => (self.routes.answer(request).await, turn),
            Err(rejection) => (self.routes.refused(request.uri(), rejection.response()), None),
        };
        Security::decorate(&policy, response.headers_mut());
        let is_endless = response.extensions().get::<Endless>().is_some();
        response.map(|body| Outgoing::new(body, is_endless, in_flight, turn))
    }
}

/// Answers the requests of one connection, as long as it keeps to its times.
async fn attend(
    socket: TcpStream,
    place: Place,
    answering: Answering,
    stats: Arc<HttpStats>,
    mut shutdown: watch::Receiver<bool>,
) {
    // Answers are written whole; waiting to fill a packet would only delay their last part.
    if let Err(source) = socket.set_nodelay(true) {
        debug!(error = %source, "cannot send answers without delay");
    }
    let connection = &place.connection;
    // Before the version that it is accepted with is looked at, so that no change is missed.
    let renewed = answering.security.renewed();
    let policy = answering.security.policy();
    let protocol = protocol(policy.http2);
    let closed = match &policy.tls {
        None => {
            return exchange(socket, connection, (answering, &stats), protocol, (renewed, shutdown)).await;
        }
        Some(tls) => {
            let handshake = TlsAcceptor::from(Arc::clone(&tls.config)).accept(socket);
            let mut timer = pin!(sleep_until(Instant::now()));
            tokio::select! {
                biased;
                done = handshake => match done {
                    Ok(socket) => {
                        return exchange(socket, connection, (answering, &stats), protocol, (renewed, shutdown)).await;
                    }
                    Err(source) => {
                        debug!(error = %source, "no TLS with a client");
                        Some(Closed::Handshake)
                    }
                },
                () = std::future::poll_fn(|context| connection.poll_overdue(timer.as_mut(), context)) => {
                    Some(Closed::Handshake)
                }
                () = connection.replaced() => Some(Closed::Replaced),
                () = stopped(&mut shutdown) => None,
            }
        }
    };
    if let Some(reason) = closed {
        stats.closed(reason);
    }
}

/// HTTP/1.1 and HTTP/2 within their limits. The connection's own deadlines cover the header as well, and let an idle
/// connection rest for longer than the library's would.
fn protocol(http2: bool) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .max_buf_size(HEADER_LEN_MAX)
        .max_headers(HEADERS_MAX)
        .header_read_timeout(None);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(HEADER_LEN_MAX).unwrap_or(u32::MAX))
        .max_concurrent_streams(STREAMS_MAX)
        .max_pending_accept_reset_streams(STREAMS_RESET_MAX)
        .max_local_error_reset_streams(STREAMS_RESET_MAX)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER_LEN)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    if http2 { builder } else { builder.http1_only() }
}

/// Speaks HTTP on a connection until it ends, and counts why it was closed if it was not by the client or in good order.
async fn exchange<S>(
    socket: S,
    connection: &Arc<Connection>,
    (answering, stats): (Answering, &HttpStats),
    protocol: auto::Builder<TokioExecutor>,
    (mut renewed, mut shutdown): (watch::Receiver<()>, watch::Receiver<bool>),
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let allowance = answering.routes.allowance(&request);
        let in_flight = connection.request_begins(request.version(), allowance);
        let answering = answering.clone();
        async move { Ok::<_, Infallible>(answering.answer(request.map(Body::new), in_flight).await) }
    });
    let watched = Watched { socket, connection: Arc::clone(connection) };
    let mut exchange = pin!(protocol.serve_connection(TokioIo::new(watched), service));
    let mut timer = pin!(sleep_until(Instant::now()));
    let mut ending = false;
    let closed = loop {
        tokio::select! {
            // The exchange first: what it does decides whether the time is up.
            biased;
            ended = &mut exchange => break ended.is_err().then_some(Closed::Broken),
            () = std::future::poll_fn(|context| connection.poll_overdue(timer.as_mut(), context)) => {
                break Some(connection.overdue());
            }
            () = connection.changed() => {}
            () = connection.replaced() => break Some(Closed::Replaced),
            () = stopped(&mut shutdown), if !ending => {
                if connection.is_waiting() {
                    break None;
                }
                ending = true;
                exchange.as_mut().graceful_shutdown();
            }
            _ = renewed.changed(), if !ending => {
                if connection.is_waiting() {
                    break None;
                }
                ending = true;
                exchange.as_mut().graceful_shutdown();
            }
        }
    };
    // Before the socket goes.
    if let Some(reason) = closed {
        stats.closed(reason);
    }
}
