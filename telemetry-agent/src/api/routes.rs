//! What each path answers.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::body::HttpBody as _;
use axum::extract::{Request, State};
use axum::http::header::{
    ACCEPT, ALLOW, CONNECTION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, RETRY_AFTER, VARY,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use axum::response::Response;
use axum::routing::get;
use tower::ServiceExt as _;

use super::pages::{Form, Pages};
use super::security::Asked;
use super::stats::Handler;
use super::{Check, Coding, Deps, index, otlp, prometheus, v1, write};
use crate::expose;

/// Longest path and query answered. Scrapers' have 15 bytes and a few parameters.
const URI_LEN_MAX: usize = 2048;

/// Longest path and query of the query API: what a whole header may have, less other lines.
const API_URI_LEN_MAX: usize = 14 * 1024;

/// Longest body read where no route has a use for one, so that a client that sends one gets its answer.
const BODY_LEN_MAX: u64 = 8 * 1024;

const TEXT: &str = "text/plain; charset=utf-8";

/// All routes behind the limits that hold for each.
#[derive(Clone)]
pub(super) struct Routes {
    router: Router,
    deps: Deps,
}

struct Shared {
    deps: Deps,
    pages: Pages,
}

// === impl Routes ===

impl Routes {
    pub(super) fn new(deps: Deps, exposition: &expose::Config) -> Self {
        let shared = Arc::new(Shared { deps: deps.clone(), pages: Pages::new(exposition) });
        let router = Router::new()
            .route("/metrics", get(metrics))
            .route("/livez", get(live))
            .route("/-/healthy", get(live))
            .route("/healthz", get(live))
            .route("/readyz", get(ready))
            .route("/-/ready", get(ready))
            .route("/", get(root))
            .method_not_allowed_fallback(method_not_allowed)
            .fallback(not_found)
            .with_state(shared);
        Self { router, deps }
    }

    /// What a request may take beyond the time that any may.
    pub(super) fn allowance<B>(&self, request: &axum::http::Request<B>) -> Duration {
        if let Some(length) = v1::stream_allowance(request) {
            return length;
        }
        if is_api(request.uri().path()) { self.deps.queries.timeout() } else { Duration::ZERO }
    }

    /// Answers one request.
    pub(super) async fn answer(self, mut request: Request) -> Response {
        let begun = Instant::now();
        *request.uri_mut() = single_slashed(std::mem::take(request.uri_mut()));
        let handler = handler_of(request.uri().path());
        let mut response = match refusal(&request) {
            Some(refusal) => refusal,
            None if is_otlp(request.uri().path()) => Arc::clone(&self.deps.otlp).answer(request).await,
            None if is_push(request.uri().path()) => Arc::clone(&self.deps.pushes).answer(request).await,
            None if is_api(request.uri().path()) => Arc::clone(&self.deps.queries).answer(request).await,
            None if is_own(request.uri().path()) => Arc::clone(&self.deps.own).answer(request).await,
            None => match self.router.oneshot(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            },
        };
        response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        self.deps.observe.answered(handler, response.status().as_u16(), begun.elapsed());
        response
    }
}

impl Routes {
    /// A refusal that no route was asked for: it has what every answer has, and is counted as one.
    pub(super) fn refused(&self, uri: &Uri, mut response: Response) -> Response {
        response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        self.deps.observe.answered(handler_of(uri.path()), response.status().as_u16(), Duration::ZERO);
        response
    }
}

/// The route of a path: a closed set, since a path is the client's to choose.
fn handler_of(path: &str) -> Handler {
    match path {
        "/metrics" => Handler::Metrics,
        "/livez" | "/-/healthy" | "/healthz" => Handler::Live,
        "/readyz" | "/-/ready" => Handler::Ready,
        "/" => Handler::Index,
        path if is_push(path) => Handler::Write,
        path if is_otlp(path) => Handler::Otlp,
        path if is_api(path) => Handler::Api(prometheus::handler(path)),
        path if is_own(path) => Handler::Api(v1::handler(path)),
        _ => Handler::Unknown,
    }
}

fn is_push(path: &str) -> bool {
    write::PATHS.contains(&path)
}

fn is_otlp(path: &str) -> bool {
    otlp::PATHS.contains(&path)
}

fn is_api(path: &str) -> bool {
    path.strip_prefix(prometheus::PREFIX).is_some_and(|rest| rest.starts_with('/'))
        || path == prometheus::federate::PATH
}

fn is_own(path: &str) -> bool {
    path.strip_prefix(v1::PREFIX).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Slashes that follow each other count as one: clients join a base that ends in a slash with a path that begins with one.
fn single_slashed(uri: Uri) -> Uri {
    let Cow::Owned(mut path) = single_slashed_path(uri.path()) else { return uri };
    if let Some(query) = uri.query() {
        path.push('?');
        path.push_str(query);
    }
    // Parts of an address that was one are one again.
    path.parse().unwrap_or(uri)
}

fn single_slashed_path(path: &str) -> Cow<'_, str> {
    if !path.contains("//") {
        return Cow::Borrowed(path);
    }
    let mut single = String::with_capacity(path.len());
    for character in path.chars() {
        if character != '/' || !single.ends_with('/') {
            single.push(character);
        }
    }
    Cow::Owned(single)
}

/// What a request asks for, as roles of a cluster have it. Only what is known to read is called reading.
pub(super) fn asked(request: &Request) -> Asked<'_> {
    let path = request.uri().path();
    let meant = single_slashed_path(path);
    let reads = match *request.method() {
        Method::GET | Method::HEAD | Method::OPTIONS => true,
        Method::POST => prometheus::reads_by_post(&meant),
        _ => false,
    };
    let verb = match *request.method() {
        _ if reads => "get",
        Method::POST => "post",
        Method::PUT => "put",
        Method::DELETE => "delete",
        Method::PATCH => "patch",
        _ => "other",
    };
    Asked { path, meant, verb }
}

/// What is refused before any route sees it. The connection ends, because what the client still sends is not read.
fn refusal(request: &Request) -> Option<Response> {
    let uri = request.uri();
    let uri_len = uri.path().len() + uri.query().map_or(0, str::len);
    // A body of no told length is read up to the same limit by whoever reads it.
    let (uri_len_max, body_len_max, is_read) = match uri.path() {
        path if is_push(path) => (URI_LEN_MAX, write::BODY_BYTES_MAX as u64, true),
        path if is_otlp(path) => (URI_LEN_MAX, otlp::BODY_BYTES_MAX as u64, true),
        path if is_api(path) => (API_URI_LEN_MAX, prometheus::FORM_BYTES_MAX as u64, true),
        path if is_own(path) => (v1::URI_LEN_MAX, BODY_LEN_MAX, false),
        _ => (URI_LEN_MAX, BODY_LEN_MAX, false),
    };
    let body = request.body().size_hint();
    let is_too_large = body.lower() > body_len_max || body.upper().map_or(!is_read, |len| len > body_len_max);
    let refused = match uri.path() {
        path if is_own(path) => v1::refused,
        path if is_push(path) || is_otlp(path) || is_api(path) => {
            |status, text: String| prometheus::error(status, "bad_data", text.trim_end())
        }
        _ => plain,
    };
    let mut response = if uri_len > uri_len_max {
        refused(StatusCode::URI_TOO_LONG, format!("the path and query may have {uri_len_max} bytes\n"))
    } else if is_too_large {
        refused(StatusCode::PAYLOAD_TOO_LARGE, format!("a body may have {body_len_max} bytes\n"))
    } else {
        return None;
    };
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    Some(response)
}

async fn metrics(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    let snapshot = shared.deps.latest.get();
    if snapshot.families.is_empty() {
        // An empty page would tell a scraper that every series is gone.
        let mut response = plain(StatusCode::SERVICE_UNAVAILABLE, "no values before the first tick\n".into());
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        return response;
    }
    let form = Form {
        format: expose::negotiate(joined(&headers, &ACCEPT).as_deref()),
        coding: Coding::of(&headers),
    };
    let page = shared.pages.get(&snapshot, form);
    let mut response = respond(StatusCode::OK, form.format.content_type(), page.bytes.into());
    response.headers_mut().insert(VARY, HeaderValue::from_static("accept, accept-encoding"));
    page.coding.mark(&mut response);
    response
}

async fn live(State(shared): State<Arc<Shared>>) -> Response {
    match shared.deps.health.live() {
        Ok(()) => plain(StatusCode::OK, "ok\n".into()),
        Err(reason) => plain(StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", one_line(&reason))),
    }
}

/// One line a check if one fails or the client asks for it, as Kubernetes' own components answer.
async fn ready(State(shared): State<Arc<Shared>>, uri: Uri) -> Response {
    let checks = shared.deps.health.ready();
    let is_ready = checks.iter().all(|check| check.outcome.is_ok());
    let verbose = uri
        .query()
        .is_some_and(|query| query.split('&').any(|pair| pair == "verbose" || pair.starts_with("verbose=")));
    match (is_ready, verbose) {
        (true, false) => plain(StatusCode::OK, "ok\n".into()),
        (true, true) => plain(StatusCode::OK, listed(&checks)),
        (false, _) => plain(StatusCode::SERVICE_UNAVAILABLE, listed(&checks)),
    }
}

fn listed(checks: &[Check]) -> String {
    let mut body = String::new();
    for Check { name, outcome } in checks {
        // Writing to a String cannot fail.
        let _ = match outcome {
            Ok(()) => writeln!(body, "[+]{name} ok"),
            Err(reason) => writeln!(body, "[-]{name}: {}", one_line(reason)),
        };
    }
    body
}

/// A reason that cannot look like the next check.
fn one_line(reason: &str) -> String {
    reason.replace(|character: char| character.is_control(), " ")
}

async fn root(State(shared): State<Arc<Shared>>) -> Response {
    let mut response = respond(StatusCode::OK, "text/html; charset=utf-8", index::page(&shared.deps).into());
    let policy = HeaderValue::from_static(index::CONTENT_SECURITY_POLICY);
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
    response
}

async fn not_found() -> Response {
    plain(StatusCode::NOT_FOUND, "nothing is here; / lists what there is\n".into())
}

async fn method_not_allowed() -> Response {
    let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered\n".into());
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    response
}

pub(super) fn plain(status: StatusCode, text: String) -> Response {
    respond(status, TEXT, text.into())
}

fn respond(status: StatusCode, content_type: &'static str, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// A list header that may be sent in several lines; none if it is absent. What is not text is left out.
pub(super) fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let lines: Vec<&str> = headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
    (!lines.is_empty()).then(|| lines.join(","))
}
