//! gRPC over HTTP/2: framing, statuses and limits of calls with one message there and one or many back.
//!
//! Written upon hyper, because what a message inflates to has to be bounded before it is inflated, which the usual
//! library leaves to the one who sends. A listener of its own: a port that speaks HTTP/2 alone, with the TLS, the users
//! and the limits that the HTTP side has.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::io;
use std::net::{IpAddr, TcpListener};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::coding::Coding;
use super::intake::{Intake, Taken};
use super::otlp::BODY_BYTES_MAX;
use super::refusal::{Refusal, Refused};
use super::security::{Asked, Security, Turn};
use super::thanos::{self, Messages, Method as ThanosMethod};
use super::{OtlpReceiver, ThanosStore};

/// What is called to push OpenTelemetry's metrics.
const EXPORT: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";
/// Connections at one time; more are closed at once.
const CONNECTIONS_MAX: usize = 64;
/// Calls of one connection at one time.
const STREAMS_MAX: u32 = 8;
/// Bytes of a call's headers.
const HEADER_BYTES_MAX: u32 = 16 * 1024;
/// How long a client may take to agree on TLS.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a call may take to send its message.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// A client that is gone is noticed within both of these.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may rest between two calls: longer than the minute at which exporters push.
const IDLE_TIMEOUT: Duration = Duration::from_secs(180);
/// Wait after the kernel could not hand over a connection.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);
/// How long answers may still be on their way when the agent stops.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);
/// Bytes before a message: whether it is compressed, and its length.
const PREFIX_LEN: usize = 5;

/// What a port serves.
#[derive(Clone)]
pub enum Service {
    /// `MetricsService` of OpenTelemetry.
    Otlp(Arc<OtlpReceiver>),
    /// `Store` and `Info` of Thanos.
    Thanos(Arc<ThanosStore>),
}

/// An answer with its messages, as they come.
struct Answer {
    messages: Messages,
    /// The call's place among its client's, until it is answered.
    _turn: Option<Turn>,
    /// Whether the call's end was said.
    is_over: bool,
}

/// When a connection was last used, in milliseconds since it began.
struct Activity {
    begun: Instant,
    last_ms: AtomicU64,
    /// Calls under way.
    calls: AtomicU64,
}

/// Answers calls on `listener` until `shutdown` turns true or its sender is gone.
///
/// # Errors
/// If the runtime cannot watch the listener. Nothing a client does ends it.
pub async fn serve(
    listener: TcpListener,
    service: Service,
    security: Arc<Security>,
    mut shutdown: watch::Receiver<bool>,
) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(ended) = connections.join_next() => {
                log_panic(ended);
                continue;
            }
            _ = shutdown.wait_for(|stop| *stop) => break,
        };
        match accepted {
            Ok((socket, peer)) => {
                // Without a place the socket is dropped, which closes it.
                if let Ok(place) = Arc::clone(&places).try_acquire_owned() {
                    let (service, security) = (service.clone(), Arc::clone(&security));
                    let serving = Serving { service, security, client: peer.ip() };
                    let shutdown = shutdown.clone();
                    connections.spawn(async move {
                        attend(socket, serving, shutdown).await;
                        drop(place);
                    });
                }
            }
            Err(source) => {
                tracing::debug!(error = %source, "cannot accept a gRPC connection");
                tokio::time::sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
    drop(listener);
    let all_ended = async {
        while let Some(ended) = connections.join_next().await {
            log_panic(ended);
        }
    };
    let _ = tokio::time::timeout(SHUTDOWN_GRACE, all_ended).await;
    Ok(())
}

/// A bug of ours ends the one connection it happened on.
fn log_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(source) = ended {
        tracing::error!(error = %source, "a gRPC connection ended by a bug");
    }
}

/// What the calls of one connection are answered with.
#[derive(Clone)]
struct Serving {
    service: Service,
    security: Arc<Security>,
    client: IpAddr,
}

/// Answers the calls of one connection, over TLS if that is asked for.
async fn attend(socket: TcpStream, serving: Serving, shutdown: watch::Receiver<bool>) {
    // Answers are small; waiting to fill a packet would only delay them.
    let _ = socket.set_nodelay(true);
    // Before the version that it is accepted with is looked at, so that no change is missed.
    let renewed = serving.security.renewed();
    let policy = serving.security.policy();
    let Some(tls) = &policy.tls else { return exchange(socket, serving, (renewed, shutdown)).await };
    let handshake = TlsAcceptor::from(Arc::clone(&tls.http2_only)).accept(socket);
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
        Ok(Ok(socket)) => exchange(socket, serving, (renewed, shutdown)).await,
        Ok(Err(source)) => tracing::debug!(error = %source, "no TLS with a gRPC client"),
        Err(_) => tracing::debug!("a gRPC client takes too long to agree on TLS"),
    }
}

async fn exchange<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    socket: S,
    serving: Serving,
    (mut renewed, mut shutdown): (watch::Receiver<()>, watch::Receiver<bool>),
) {
    let activity = Arc::new(Activity::new());
    let service = service_fn(|request: Request<Incoming>| {
        let (serving, activity) = (serving.clone(), Arc::clone(&activity));
        async move {
            activity.call_begins();
            let response = serving.answer(request.map(Body::new)).await;
            activity.call_ends();
            Ok::<_, Infallible>(response)
        }
    });
    let mut protocol = http2::Builder::new(TokioExecutor::new());
    protocol
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADER_BYTES_MAX)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT);
    let mut exchange = pin!(protocol.serve_connection(TokioIo::new(socket), service));
    let mut is_ending = false;
    loop {
        tokio::select! {
            ended = &mut exchange => {
                if let Err(source) = ended {
                    tracing::debug!(error = %source, "a gRPC connection broke");
                }
                return;
            }
            () = tokio::time::sleep(activity.left()) => {
                if is_ending {
                    return;
                }
                if activity.is_idle() {
                    is_ending = true;
                    exchange.as_mut().graceful_shutdown();
                }
            }
            _ = shutdown.wait_for(|stop| *stop), if !is_ending => {
                is_ending = true;
                exchange.as_mut().graceful_shutdown();
            }
            // TLS is no longer what it was accepted with.
            _ = renewed.changed(), if !is_ending => {
                is_ending = true;
                exchange.as_mut().graceful_shutdown();
            }
        }
    }
}

// === impl Serving ===

impl Serving {
    /// Answers one call, if it may ask.
    async fn answer(self, request: Request<Body>) -> Response<Body> {
        if request.method() != Method::POST {
            return plain(StatusCode::METHOD_NOT_ALLOWED);
        }
        let content_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        if !content_type.is_some_and(|value| value.starts_with("application/grpc")) {
            return plain(StatusCode::UNSUPPORTED_MEDIA_TYPE);
        }
        match self.admitted(request).await {
            Ok((messages, turn)) => {
                let mut response = Response::new(Body::new(Answer { messages, _turn: turn, is_over: false }));
                head(response.headers_mut());
                response
            }
            Err(refusal) => {
                let mut response = Response::new(Body::empty());
                *response.headers_mut() = end(refusal.kind.grpc(), &refusal.text);
                head(response.headers_mut());
                response
            }
        }
    }

    async fn admitted(self, request: Request<Body>) -> Result<(Messages, Option<Turn>), Refusal> {
        let policy = self.security.policy();
        let path = request.uri().path();
        let asked = Asked { path, meant: path.into(), verb: self.service.verb() };
        let turn = self.security.admit(&policy, (&asked, request.headers()), self.client).await?;
        Ok((self.service.call(request).await?, turn))
    }
}

/// The one message of a call; it takes its room of the intake.
async fn read(request: Request<Body>, bytes_max: usize, intake: &Intake) -> Result<(Coding, Taken), Refusal> {
    let malformed = |text: &str| Refusal::new(Refused::Malformed, text);
    let name = request.headers().get("grpc-encoding").map(|value| value.to_str().unwrap_or("?").to_owned());
    let late = |_| Refusal::new(Refused::Unavailable, "the message did not come in time");
    let body = intake.read(request.into_body(), bytes_max + PREFIX_LEN);
    let mut body = tokio::time::timeout(BODY_TIMEOUT, body).await.map_err(late)??;
    let Some((&[flag, ref length @ ..], message)) = body.bytes.split_first_chunk::<PREFIX_LEN>() else {
        return Err(malformed("a call without a message"));
    };
    if usize::try_from(u32::from_be_bytes(*length)) != Ok(message.len()) {
        return Err(malformed("a message is not as long as it says, or there are several"));
    }
    let coding = match (flag, name) {
        (0, _) => Some(Coding::Identity),
        (1, Some(name)) => Coding::named(&name).filter(|coding| *coding != Coding::Identity),
        _ => None,
    };
    let unknown = || Refusal::new(Refused::Unsupported, "a message may be compressed by gzip or zstd");
    let coding = coding.ok_or_else(unknown)?;
    body.bytes.drain(..PREFIX_LEN);
    Ok((coding, body))
}

/// What stands before messages.
fn head(headers: &mut HeaderMap) {
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-accept-encoding", HeaderValue::from_static("identity,gzip,zstd"));
}

/// How a call ended: behind its messages, or in the header if there are none.
fn end(code: i32, text: &str) -> HeaderMap {
    let mut end = HeaderMap::new();
    end.insert("grpc-status", HeaderValue::from(code));
    if let Ok(text) = HeaderValue::from_str(&escaped(text))
        && !text.is_empty()
    {
        end.insert("grpc-message", text);
    }
    end
}

fn framed(message: &[u8]) -> Bytes {
    let mut framed = Vec::with_capacity(PREFIX_LEN + message.len());
    framed.push(0);
    framed.extend(u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    framed.extend(message);
    framed.into()
}

/// What is no gRPC is answered as HTTP has it.
fn plain(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// A message as headers can hold it.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if matches!(byte, b' '..=b'~') && byte != b'%' {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

// === impl Answer ===

impl axum::body::HttpBody for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        let trailers = match std::task::ready!(self.messages.poll_recv(cx)) {
            Some(Ok(message)) => return Poll::Ready(Some(Ok(Frame::data(framed(&message))))),
            Some(Err(refusal)) => end(refusal.kind.grpc(), &refusal.text),
            None => end(0, ""),
        };
        self.is_over = true;
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.is_over
    }
}

// === impl Service ===

impl Service {
    /// What its calls do, as roles have it.
    fn verb(&self) -> &'static str {
        match self {
            Self::Otlp(_) => "post",
            Self::Thanos(_) => "get",
        }
    }

    async fn call(self, request: Request<Body>) -> Result<Messages, Refusal> {
        let path = request.uri().path().to_owned();
        let unknown = || Refusal::new(Refused::Unsupported, format!("unknown method {path}"));
        match self {
            Self::Otlp(_) if path != EXPORT => Err(unknown()),
            Self::Otlp(receiver) => {
                let read = read(request, BODY_BYTES_MAX, receiver.intake()).await;
                let (coding, message) = read.map_err(|refusal| receiver.refused(refusal))?;
                let answer = receiver.export(coding, message).await?;
                let (to, messages) = tokio::sync::mpsc::channel(1);
                // There is room for it.
                let _ = to.try_send(Ok(answer));
                Ok(messages)
            }
            Self::Thanos(store) => {
                let method = ThanosMethod::named(&path).ok_or_else(unknown)?;
                let (coding, message) = read(request, thanos::REQUEST_BYTES_MAX, store.intake())
                    .await
                    .map_err(|refusal| store.refused(refusal))?;
                if coding != Coding::Identity {
                    return Err(
                        store.refused(Refusal::new(Refused::Unsupported, "a request is not compressed here"))
                    );
                }
                store.call(method, message.bytes).await
            }
        }
    }
}

// === impl Activity ===

impl Activity {
    fn new() -> Self {
        Self { begun: Instant::now(), last_ms: AtomicU64::new(0), calls: AtomicU64::new(0) }
    }

    fn call_begins(&self) {
        self.calls.fetch_add(1, Relaxed);
    }

    fn call_ends(&self) {
        self.calls.fetch_sub(1, Relaxed);
        let millis = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(millis, Relaxed);
    }

    /// How long it may still rest.
    fn left(&self) -> Duration {
        let rested = self.begun.elapsed().saturating_sub(Duration::from_millis(self.last_ms.load(Relaxed)));
        IDLE_TIMEOUT.saturating_sub(rested).max(Duration::from_secs(1))
    }

    fn is_idle(&self) -> bool {
        let rested = self.begun.elapsed().saturating_sub(Duration::from_millis(self.last_ms.load(Relaxed)));
        self.calls.load(Relaxed) == 0 && rested >= IDLE_TIMEOUT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_errors_fit_in_a_header() {
        assert_eq!(escaped("50% é\n"), "50%25 %C3%A9%0A");
    }

    #[tokio::test]
    async fn what_is_no_message_is_refused_with_its_code() {
        let intake = Intake::new(2 * BODY_BYTES_MAX);
        let call = async |encoding: Option<&str>, body: Vec<u8>| {
            let mut request = Request::post(EXPORT);
            if let Some(encoding) = encoding {
                request = request.header("grpc-encoding", encoding);
            }
            let request = request.body(Body::from(body)).unwrap();
            let read = read(request, BODY_BYTES_MAX, &intake).await;
            read.map(|(coding, message)| (coding, message.bytes)).map_err(|refusal| refusal.kind)
        };
        assert_eq!(call(None, vec![0, 0, 0, 0, 1, 7]).await, Ok((Coding::Identity, vec![7])));
        assert_eq!(call(Some("gzip"), vec![1, 0, 0, 0, 1, 7]).await, Ok((Coding::Gzip, vec![7])));
        for (encoding, body, kind) in [
            (None, vec![0, 0, 0], Refused::Malformed),
            (None, vec![0, 0, 0, 0, 9, 7], Refused::Malformed),
            (None, vec![1, 0, 0, 0, 1, 7], Refused::Unsupported),
            (Some("br"), vec![1, 0, 0, 0, 1, 7], Refused::Unsupported),
            (None, vec![0; BODY_BYTES_MAX + 6], Refused::TooLarge),
        ] {
            assert_eq!(call(encoding, body).await, Err(kind));
        }
    }
}
