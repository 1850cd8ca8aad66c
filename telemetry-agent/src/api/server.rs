//! The accept loop: takes connections as long as it is told to, whatever they do.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{debug, error, warn};

use super::connection::{Connection, Place, Slots, Watched};
use super::routes::Routes;
use super::stats::{Closed, HttpStats};
use super::{Config, Deps};
use crate::expose;

/// Longest request line and header block; a scraper's has 600 bytes. Buffers of a connection are bounded by it too.
const HEADER_LEN_MAX: usize = 16 * 1024;

/// Most header lines of a request; a browser behind two proxies sends 30.
const HEADERS_MAX: usize = 64;

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
    let slots = Arc::new(Slots::new(config, Arc::clone(&stats)));
    let routes = Routes::new(deps, &exposition);
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
            Ok((socket, _peer)) => {
                can_accept = true;
                // Without a place the socket is dropped, which closes it.
                if let Some(place) = Slots::take(&slots) {
                    connections.spawn(attend(
                        socket,
                        place,
                        routes.clone(),
                        Arc::clone(&stats),
                        shutdown.clone(),
                    ));
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

/// Answers the requests of one connection, as long as it keeps to its times.
async fn attend(
    socket: TcpStream,
    place: Place,
    routes: Routes,
    stats: Arc<HttpStats>,
    mut shutdown: watch::Receiver<bool>,
) {
    // Answers are written whole; waiting to fill a packet would only delay their last part.
    if let Err(source) = socket.set_nodelay(true) {
        debug!(error = %source, "cannot send answers without delay");
    }
    let connection: &Arc<Connection> = &place.connection;
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let routes = routes.clone();
        async move {
            connection.request_begins(routes.allowance(&request));
            let response = routes.answer(request.map(Body::new)).await;
            connection.answer_begins();
            Ok::<_, Infallible>(response)
        }
    });
    let watched = Watched { socket, connection: Arc::clone(connection) };
    let mut protocol = http1::Builder::new();
    protocol.timer(TokioTimer::new()).max_buf_size(HEADER_LEN_MAX).max_headers(HEADERS_MAX);
    // The connection's own deadlines cover the header as well, and let an idle connection rest for longer.
    protocol.header_read_timeout(None);
    let mut exchange = pin!(protocol.serve_connection(TokioIo::new(watched), service));
    let mut timer = pin!(sleep_until(Instant::now()));
    let mut stopping = false;
    let closed = loop {
        tokio::select! {
            // The exchange first: what it does decides whether the time is up.
            biased;
            ended = &mut exchange => break ended.is_err().then_some(Closed::Broken),
            () = std::future::poll_fn(|context| connection.poll_overdue(timer.as_mut(), context)) => {
                break Some(connection.overdue());
            }
            () = connection.replaced() => break Some(Closed::Replaced),
            () = stopped(&mut shutdown), if !stopping => {
                stopping = true;
                if connection.is_waiting() {
                    break None;
                }
                exchange.as_mut().graceful_shutdown();
            }
        }
    };
    if let Some(reason) = closed {
        stats.closed(reason);
    }
}
