//! `/api/v1`: the HTTP API of Prometheus 3, so that whatever speaks to Prometheus speaks to the agent.
//!
//! One table of routes; each is a function from parameters to an answer, without I/O of its own. What reads the store
//! or evaluates runs on threads beside the server, few at a time. Knows the query engine and the store; called by the
//! server's routes.

mod admin;
mod answer;
pub(super) mod federate;
mod json;
mod params;
mod queries;
mod query;
pub(super) mod read;
mod series;
mod spans;
mod status;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::body::to_bytes;
use axum::extract::Request;
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ALLOW, CONTENT_ENCODING, CONTENT_TYPE, ORIGIN,
};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use telemetry_model::Family;
use telemetry_promql::eval::Options;
use telemetry_promql::parse;
use telemetry_promql::source::{Source, SourceError};
use telemetry_promql::value::Value;
use telemetry_tsdb::db::Db;

use crate::human_duration;

use super::coding::{self, Coding};
pub(super) use answer::error;
use answer::{Failure, Kind, Success};
use params::Params;
use queries::Queries;

pub(super) use queries::METRICS;
pub use queries::STREAMS;

/// Where the API is.
pub(super) const PREFIX: &str = "/api/v1";
/// Bytes of a form at most: 16 queries of the longest that are read.
pub(super) const FORM_BYTES_MAX: usize = 256 * 1024;

/// Writes what a query answers as the API does, its `data` alone.
///
/// # Errors
/// If `out` refuses.
pub fn write_value(out: &mut dyn Write, value: &Value) -> io::Result<()> {
    json::query(out, value, None)
}

/// Limits of queries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Queries at one time; each computes on up to two threads.
    pub concurrency: usize,
    /// Queries that may wait for others to end; more are refused.
    pub queue_max: usize,
    /// How long a query may take, waiting included.
    #[serde(with = "human_duration")]
    pub timeout: Duration,
    /// How far back an instant selector looks.
    #[serde(with = "human_duration")]
    pub lookback: Duration,
    /// Samples that one query may read.
    pub samples_max: u64,
    /// Series that one query may read.
    pub series_max: u64,
    /// Bytes of intermediate values that one query may hold.
    pub memory_max: u64,
    /// Bytes of one answer's JSON.
    pub answer_bytes_max: usize,
    /// Whether functions and operators that Prometheus calls experimental are known.
    pub experimental: bool,
    /// Whether samples can be deleted and the store copied through the API.
    pub admin: bool,
    /// Whether pages of other sites may read answers.
    pub cors: bool,
}

/// What the agent says of itself.
#[derive(Clone, Debug)]
pub struct Facts {
    /// When it started.
    pub started: SystemTime,
    /// The configuration in force, as JSON.
    pub config: String,
    /// Settings by the names that Prometheus' flags have.
    pub flags: BTreeMap<&'static str, String>,
}

/// The query API.
pub struct Prometheus {
    db: Arc<Db>,
    source: Arc<dyn Source + Send + Sync>,
    queries: Queries,
    facts: Facts,
}

/// One request, read.
struct Call<'a> {
    shared: &'a Prometheus,
    params: &'a Params,
    /// The label's name in the path, where there is one.
    name: &'a str,
    options: &'a Options,
    queued: Duration,
}

/// How much a route costs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Weight {
    /// Answers at once.
    Light,
    /// Reads the store or computes: beside the server, and counted as a query.
    Heavy,
}

/// Which methods a route takes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Methods {
    Get,
    GetPost,
    PutPost,
}

/// One route.
struct Route {
    /// Its path below [`PREFIX`], and the name of its metrics; `{name}` is a label's name.
    path: &'static str,
    methods: Methods,
    weight: Weight,
    answer: fn(Call<'_>) -> Result<Success, Failure>,
}

static ROUTES: &[Route] = &[
    route("/query", Methods::GetPost, Weight::Heavy, query::instant),
    route("/query_range", Methods::GetPost, Weight::Heavy, query::range),
    route("/query_exemplars", Methods::GetPost, Weight::Heavy, query::exemplars),
    route("/format_query", Methods::GetPost, Weight::Light, query::format),
    route("/parse_query", Methods::GetPost, Weight::Light, query::parse_query),
    route("/labels", Methods::GetPost, Weight::Heavy, series::names),
    route("/label/{name}/values", Methods::Get, Weight::Heavy, series::values),
    route("/series", Methods::GetPost, Weight::Heavy, series::series),
    route("/metadata", Methods::Get, Weight::Light, series::metadata),
    route("/scrape_pools", Methods::Get, Weight::Light, |_| Ok(status::none(&["scrapePools"]))),
    route("/targets", Methods::Get, Weight::Light, |_| {
        Ok(Success::json(r#"{"activeTargets":[],"droppedTargets":[],"droppedTargetCounts":{}}"#.to_owned()))
    }),
    route("/targets/metadata", Methods::Get, Weight::Light, |_| Ok(Success::json("[]".to_owned()))),
    route("/rules", Methods::Get, Weight::Light, |_| Ok(status::none(&["groups"]))),
    route("/alerts", Methods::Get, Weight::Light, |_| Ok(status::none(&["alerts"]))),
    route("/alertmanagers", Methods::Get, Weight::Light, |_| {
        Ok(status::none(&["activeAlertmanagers", "droppedAlertmanagers"]))
    }),
    route("/notifications", Methods::Get, Weight::Light, |_| Ok(Success::json("[]".to_owned()))),
    route("/features", Methods::Get, Weight::Light, status::features),
    route("/status/buildinfo", Methods::Get, Weight::Light, status::build_info),
    route("/status/runtimeinfo", Methods::Get, Weight::Light, status::runtime_info),
    route("/status/config", Methods::Get, Weight::Light, status::config),
    route("/status/flags", Methods::Get, Weight::Light, status::flags),
    route("/status/tsdb", Methods::Get, Weight::Heavy, status::tsdb),
    route("/status/tsdb/blocks", Methods::Get, Weight::Light, status::blocks),
    route("/status/walreplay", Methods::Get, Weight::Light, status::wal_replay),
    route("/admin/tsdb/delete_series", Methods::PutPost, Weight::Heavy, admin::delete_series),
    route("/admin/tsdb/clean_tombstones", Methods::PutPost, Weight::Heavy, admin::clean_tombstones),
    route("/admin/tsdb/snapshot", Methods::PutPost, Weight::Heavy, admin::snapshot),
];

const fn route(
    path: &'static str,
    methods: Methods,
    weight: Weight,
    answer: fn(Call<'_>) -> Result<Success, Failure>,
) -> Route {
    Route { path, methods, weight, answer }
}

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        Self {
            concurrency: 4,
            queue_max: 64,
            timeout: Duration::from_secs(30),
            lookback: Duration::from_secs(5 * 60),
            samples_max: 50_000_000,
            series_max: 100_000,
            memory_max: 32 << 20,
            answer_bytes_max: 32 << 20,
            experimental: false,
            admin: false,
            cors: true,
        }
    }
}

impl Config {
    /// The language, and everything else at its default.
    fn language(&self) -> Options {
        let language = if self.experimental { parse::Options::all() } else { parse::Options::stable() };
        Options { language, ..Options::default() }
    }
}

// === impl Call ===

impl<'a> Call<'a> {
    fn source(&self) -> &'a dyn Source {
        &*self.shared.source
    }

    /// Now, in milliseconds.
    fn now(&self) -> i64 {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }
}

// === impl Prometheus ===

impl Prometheus {
    /// The API over a store.
    #[must_use]
    pub fn new(db: Arc<Db>, source: Arc<dyn Source + Send + Sync>, config: &Config, facts: Facts) -> Self {
        Self { db, source, queries: Queries::new(config.clone()), facts }
    }

    /// What there is to say of queries.
    #[must_use]
    pub fn families(&self) -> Vec<Family> {
        self.queries.families()
    }

    /// How long a request may take beyond what any request may.
    pub(super) fn timeout(&self) -> Duration {
        self.queries.config().timeout
    }

    /// Answers a request below `/api/v1`, or one of federation. To be called on a runtime of tokio.
    pub async fn answer(self: Arc<Self>, request: Request) -> Response {
        let origin = request.headers().get(ORIGIN).cloned();
        let cors = self.queries.config().cors;
        let mut response = self.routed(request).await;
        if let (true, Some(origin)) = (cors, origin) {
            let headers = response.headers_mut();
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("Date"));
            headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST, OPTIONS"));
            let allowed = "Accept, Accept-Encoding, Authorization, Content-Type, Origin";
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(allowed));
        }
        response
    }

    async fn routed(self: Arc<Self>, request: Request) -> Response {
        if request.method() == Method::OPTIONS {
            return empty();
        }
        let path = request.uri().path().to_owned();
        match path.as_str() {
            read::PATH => return read::answer(self, request).await,
            federate::PATH => return federate::answer(self, request).await,
            _ => {}
        }
        let below = path.strip_prefix(PREFIX).unwrap_or_default();
        let Some((route, name)) = find(below) else {
            return Failure::new(Kind::NotFound, "no such endpoint").respond();
        };
        if !route.methods.allow(request.method()) {
            let mut response =
                Failure::bad_data(format!("method {} is not allowed here", request.method())).respond();
            *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
            response.headers_mut().insert(ALLOW, HeaderValue::from_static(route.methods.names()));
            return response;
        }
        let coding = Coding::of(request.headers());
        let answered = match read(request).await {
            Ok(params) => self.run(route, name, params, coding).await,
            Err(failure) => Err(failure),
        };
        answered.unwrap_or_else(|failure| failure.respond())
    }

    async fn run(
        self: Arc<Self>,
        route: &'static Route,
        name: String,
        params: Params,
        coding: Coding,
    ) -> Result<Response, Failure> {
        let max = self.queries.config().answer_bytes_max;
        if route.weight == Weight::Light {
            let options = self.queries.config().language();
            let call = Call {
                shared: &self,
                params: &params,
                name: &name,
                options: &options,
                queued: Duration::ZERO,
            };
            let success = (route.answer)(call)?;
            if success.data.is_none() {
                return Ok(empty());
            }
            return Ok(success.render(coding, max)?.respond(()));
        }
        let patience = query::patience(&params)?;
        let shared = Arc::clone(&self);
        let rendered = self.queries.run(patience, move |admitted| {
            let call = Call {
                shared: &shared,
                params: &params,
                name: &name,
                options: &admitted.options,
                queued: admitted.queued,
            };
            let success = (route.answer)(call)?;
            success.data.is_some().then(|| success.render(coding, max)).transpose()
        });
        let Some(rendered) = rendered.await? else { return Ok(empty()) };
        let held = self.queries.hold(rendered.len()).await?;
        Ok(rendered.respond(held))
    }
}

// === impl Methods ===

impl Methods {
    fn allow(self, method: &Method) -> bool {
        match self {
            Self::Get => matches!(*method, Method::GET | Method::HEAD),
            Self::GetPost => matches!(*method, Method::GET | Method::HEAD | Method::POST),
            Self::PutPost => matches!(*method, Method::PUT | Method::POST),
        }
    }

    fn names(self) -> &'static str {
        match self {
            Self::Get => "GET, HEAD, OPTIONS",
            Self::GetPost => "GET, HEAD, POST, OPTIONS",
            Self::PutPost => "PUT, POST, OPTIONS",
        }
    }
}

/// The route of a path and the name in it.
fn find(path: &str) -> Option<(&'static Route, String)> {
    let exact = ROUTES.iter().find(|route| route.path == path);
    if let Some(route) = exact {
        return Some((route, String::new()));
    }
    let name = path.strip_prefix("/label/")?.strip_suffix("/values")?;
    let name = percent_decoded(name)?;
    ROUTES.iter().find(|route| route.path == "/label/{name}/values").map(|route| (route, name))
}

/// Whether POST on a path asks for something, and changes nothing.
pub(super) fn reads_by_post(path: &str) -> bool {
    let route = || find(path.strip_prefix(PREFIX)?).map(|(route, _)| route.methods);
    path == read::PATH || route() == Some(Methods::GetPost)
}

/// The name of a path's metrics.
pub(super) fn handler(path: &str) -> &'static str {
    match path {
        read::PATH => return "/read",
        federate::PATH => return federate::PATH,
        _ => {}
    }
    find(path.strip_prefix(PREFIX).unwrap_or_default()).map_or("/api/v1", |(route, _)| route.path)
}

fn percent_decoded(text: &str) -> Option<String> {
    let plus = text.replace('+', "%2B");
    form_urlencoded::parse(plus.as_bytes()).next().map(|(name, _)| name.into_owned())
}

/// The parameters of a request, a form's among them.
async fn read(request: Request) -> Result<Params, Failure> {
    let (parts, body) = request.into_parts();
    let is_form = parts.headers.get(CONTENT_TYPE).is_some_and(|value| {
        value.as_bytes().get(..FORM.len()).is_some_and(|start| start.eq_ignore_ascii_case(FORM.as_bytes()))
    });
    // Anything else in a body says nothing: some clients name a type and send none.
    let form = if is_form {
        let failed = |error: String| Failure::bad_data(format!("error parsing form values: {error}"));
        let read = to_bytes(body, FORM_BYTES_MAX).await.map_err(|error| failed(error.to_string()))?;
        match parts.headers.get(CONTENT_ENCODING) {
            None => read,
            Some(name) => {
                let name = name.to_str().unwrap_or_default();
                let decoded = coding::decoded(name, &read, FORM_BYTES_MAX);
                decoded.map_err(|error| failed(error.to_string()))?.into()
            }
        }
    } else {
        Default::default()
    };
    Ok(Params::new(parts.uri.query().unwrap_or_default(), &form))
}

/// The type of a form.
const FORM: &str = "application/x-www-form-urlencoded";

fn empty() -> Response {
    let mut response = Response::new(axum::body::Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// What is said when the store has no series to give.
fn source_failure(error: SourceError) -> Failure {
    match error {
        SourceError::Matcher(message) => Failure::bad_data(message),
        SourceError::Read(message) => Failure::new(Kind::Internal, message),
        SourceError::Limit(error) => error.into(),
    }
}
