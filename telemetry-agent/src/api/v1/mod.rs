//! `/v1`: the agent's own REST root, for orchestrators, security agents and people.
//!
//! Everything below it is described by the OpenAPI document at `/v1/openapi.json`, which is made from the functions that
//! answer: a route without a description cannot be mounted. Errors are problems as RFC 9457 has them, lists have
//! cursors, answers have entity tags. Knows the latest values, the owners and the journal; knows no kernel and no cgroup
//! tree. The server's routes call it.

mod answer;
mod ask;
mod events;
mod flows;
mod owners;
mod problem;
mod status;
mod stream;
#[cfg(test)]
mod tests;
mod time;

use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{ALLOW, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use tokio::sync::Semaphore;
use tower::ServiceExt as _;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Health;
use crate::journal::Journal;
use crate::store::Latest;

use problem::{Code, Problem};

/// Where it is.
pub(super) const PREFIX: &str = "/v1";
/// The document of it.
const OPENAPI: &str = "/v1/openapi.json";
/// Longest path and query: a cursor, an owner's id, and filters with names of Kubernetes.
pub(super) const URI_LEN_MAX: usize = 8 * 1024;

/// What there is to say of the agent that does not change while it runs.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// When it started.
    pub started: Option<SystemTime>,
    /// Its version.
    pub version: &'static str,
    /// The revision that it was built from.
    pub revision: &'static str,
    /// The kernel's release.
    pub kernel_release: String,
    /// How often the kernel's counts are read.
    pub tick: Duration,
    /// Every kernel program and what came of it.
    pub programs: Vec<ProgramFact>,
    /// Required struct fields that this kernel does not have.
    pub fields_missing: Vec<String>,
}

/// A kernel program and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramFact {
    /// What it feeds: `identity`, or a family's name.
    pub family: &'static str,
    /// Its name.
    pub name: &'static str,
    /// Where it attaches.
    pub hook: &'static str,
    /// Which of several for this hook.
    pub variant: &'static str,
    /// What came of it.
    pub state: ProgramState,
}

/// What came of a kernel program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProgramState {
    /// It counts.
    Attached,
    /// The configuration leaves it out.
    Disabled,
    /// The kernel refused it, and why.
    Failed(String),
}

/// Readings of the journal at one time, each on a thread beside the server.
pub const CONCURRENCY: usize = 2;

/// What the root is made of.
pub struct Parts {
    /// The latest values, and the owners.
    pub latest: Arc<Latest>,
    /// What the health endpoints say.
    pub health: Arc<dyn Health>,
    /// What happened.
    pub journal: Arc<Journal>,
    /// What does not change.
    pub facts: Facts,
    /// Answers of at least this many bytes are compressed for clients that ask for it.
    pub gzip_min_bytes: usize,
}

/// What `/v1` answers from.
pub struct V1 {
    shared: Arc<Shared>,
    /// Made when it is first asked: an agent whose root nobody uses takes no memory for its description.
    router: OnceLock<Router>,
}

/// What every route may ask.
struct Shared {
    latest: Arc<Latest>,
    health: Arc<dyn Health>,
    journal: Arc<Journal>,
    readings: Semaphore,
    facts: Facts,
    gzip_min_bytes: usize,
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "telemetry-agent",
        description = "What one node's agent knows: its own state, the owners of all work, what happened, and who talked how much."
    ),
    components(schemas(Problem))
)]
struct Document;

// === impl V1 ===

impl V1 {
    /// The root, over these parts.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let Parts { latest, health, journal, facts, gzip_min_bytes } = parts;
        let readings = Semaphore::new(CONCURRENCY);
        let shared = Arc::new(Shared { latest, health, journal, readings, facts, gzip_min_bytes });
        Self { shared, router: OnceLock::new() }
    }

    /// Answers a request at or below [`PREFIX`].
    pub(super) async fn answer(self: Arc<Self>, request: Request) -> Response {
        let path = request.uri().path().to_owned();
        let router = self.router.get_or_init(|| described().0.with_state(Arc::clone(&self.shared)));
        let response = match router.clone().oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        match response.status() {
            // The router's own answers have no body.
            StatusCode::NOT_FOUND if !response.headers().contains_key(CONTENT_TYPE) => {
                Problem::new(Code::NotFound, format!("nothing is at {path}")).into_response()
            }
            StatusCode::METHOD_NOT_ALLOWED if !response.headers().contains_key(CONTENT_TYPE) => {
                let mut answer = Problem::new(Code::MethodNotAllowed, "only GET and HEAD are answered here")
                    .into_response();
                answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
                answer
            }
            _ => response,
        }
    }
}

/// How long a request may take that asks to be told what happens: as a stream, or by waiting for it.
pub(super) fn stream_allowance<B>(request: &axum::http::Request<B>) -> Option<Duration> {
    if request.uri().path() != "/v1/events" {
        return None;
    }
    let waits = || request.uri().query().and_then(events::wait_of);
    stream::wanted(request.headers()).map(|_| stream::LENGTH_MAX).or_else(waits)
}

/// What is refused before any route sees it.
pub(super) fn refused(status: StatusCode, detail: String) -> Response {
    let code = match status {
        StatusCode::URI_TOO_LONG => Code::UriTooLong,
        _ => Code::BodyTooLarge,
    };
    Problem::new(code, detail).into_response()
}

/// The name of a path's metrics.
pub(super) fn handler(path: &str) -> &'static str {
    match path.strip_prefix(PREFIX).unwrap_or_default() {
        "/status" => "/v1/status",
        "/owners" => "/v1/owners",
        "/events" => "/v1/events",
        "/flows" => "/v1/flows",
        "/openapi.json" => OPENAPI,
        below if below.starts_with("/owners/") => "/v1/owners/{id}",
        _ => PREFIX,
    }
}

/// All routes and what is said of them.
fn described() -> (Router<Arc<Shared>>, utoipa::openapi::OpenApi) {
    let (router, mut document) = OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(status::status))
        .routes(routes!(owners::list))
        .routes(routes!(owners::one))
        .routes(routes!(events::events))
        .routes(routes!(flows::flows))
        .routes(routes!(openapi))
        .split_for_parts();
    document.info.version = env!("CARGO_PKG_VERSION").to_owned();
    problem::describe_everywhere(&mut document);
    (router, document)
}

/// This document.
#[utoipa::path(
    get,
    path = "/v1/openapi.json",
    operation_id = "getOpenapi",
    responses((status = 200, description = "OpenAPI 3.1.", body = serde_json::Value, content_type = "application/json")),
)]
async fn openapi(ask: ask::Ask) -> Result<Response, Problem> {
    ask.params(&[])?;
    ask.reply(&described().1)
}

/// A body of JSON.
fn json_body(bytes: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(bytes));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
