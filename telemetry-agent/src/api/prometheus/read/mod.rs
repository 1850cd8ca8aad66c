//! Remote read: raw samples of the store, for a Prometheus that evaluates them itself. Both kinds of answers: all at
//! once, and chunks as they are read, a frame a series or a part of one.
//!
//! Errors have the frame of all errors, as Prometheus' document says; Prometheus itself writes them as plain text. Who
//! reads them tells them to people, either way.

mod request;
mod samples;
mod stream;

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::header::{ALLOW, CONTENT_ENCODING, CONTENT_TYPE};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::Response;
use telemetry_promql::budget::Budget;
use telemetry_promql::source::{Hints, Select, Selection};

use super::answer::{Failure, Kind, error};
use super::queries::Admitted;
use super::{Prometheus, source_failure};
use request::{Query, ReadRequest, ResponseType};

/// Where it is.
pub(in crate::api) const PATH: &str = "/api/v1/read";
/// Bytes of a request, compressed.
pub(in crate::api) const BODY_BYTES_MAX: usize = 256 * 1024;
/// Bytes of a request, inflated: its head says how many there are before anything is inflated.
const INFLATED_BYTES_MAX: usize = 1 << 20;

const PROTOBUF: &str = "application/x-protobuf";
const STREAMED: &str = "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse";

/// Answers a request of remote read.
pub(super) async fn answer(shared: Arc<Prometheus>, request: Request) -> Response {
    if request.method() != Method::POST {
        let mut response = error(StatusCode::METHOD_NOT_ALLOWED, "bad_data", "only POST is answered");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
        return response;
    }
    match answered(shared, request).await {
        Ok(response) => response,
        Err(failure) => {
            // The samples asked for are too many: what Prometheus says with 400, and its clients do not try again.
            let status = match failure.kind {
                Kind::BadData | Kind::Execution => StatusCode::BAD_REQUEST,
                Kind::Timeout | Kind::Busy => StatusCode::SERVICE_UNAVAILABLE,
                _ => StatusCode::INTERNAL_SERVER_ERROR,
            };
            let mut response = failure.respond();
            *response.status_mut() = status;
            response
        }
    }
}

async fn answered(shared: Arc<Prometheus>, request: Request) -> Result<Response, Failure> {
    let body = to_bytes(request.into_body(), BODY_BYTES_MAX).await;
    let body = body.map_err(|error| Failure::bad_data(error.to_string()))?;
    let bytes = inflated(&body)?;
    let request = ReadRequest::read(&bytes).map_err(|error| Failure::bad_data(error.to_string()))?;
    let kind = request.response_type().ok_or_else(|| {
        Failure::bad_data(
            "server does not support any of the requested response types: SAMPLES and STREAMED_XOR_CHUNKS are",
        )
    })?;
    let max = shared.queries.config().answer_bytes_max;
    let (queries, source) = (Arc::clone(&shared), Arc::clone(&shared));
    match kind {
        ResponseType::Samples => {
            let work = move |admitted| samples::answer(&*source.source, &request.queries, &admitted, max);
            let bytes = queries.queries.run(None, work).await?;
            let held = queries.queries.hold(bytes.len()).await?;
            let mut response = Response::new(Body::from(super::answer::bytes_of(bytes, held)));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(PROTOBUF));
            response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("snappy"));
            Ok(response)
        }
        ResponseType::StreamedXorChunks => {
            let work = move |admitted: Admitted, out: &mut dyn FnMut(Vec<u8>) -> Result<(), Failure>| {
                stream::answer(&*source.source, &request.queries, &admitted, out)
            };
            let body = queries.queries.stream(work).await?;
            let mut response = Response::new(body);
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(STREAMED));
            Ok(response)
        }
    }
}

fn inflated(body: &[u8]) -> Result<Vec<u8>, Failure> {
    let bad = |error: snap::Error| Failure::bad_data(error.to_string());
    if snap::raw::decompress_len(body).map_err(bad)? > INFLATED_BYTES_MAX {
        return Err(Failure::bad_data(format!(
            "a request may have {INFLATED_BYTES_MAX} bytes when inflated"
        )));
    }
    snap::raw::Decoder::new().decompress_vec(body).map_err(bad)
}

/// What a query finds: every sample, and none where series alone are wanted.
fn select<'s>(
    source: &'s dyn telemetry_promql::source::Source,
    query: &Query,
    budget: &Budget,
) -> Result<Box<dyn Selection + 's>, Failure> {
    // A range selector of no function: whatever is stored, at every time.
    let hints = Hints { function: "read", window: 1, ..Hints::default() };
    let select = Select { matchers: &query.matchers, from: query.from, to: query.to, hints };
    let selection = source.select(&select, budget).map_err(source_failure)?;
    budget.series(selection.series().len())?;
    Ok(selection)
}
