//! Problems, as RFC 9457 has them: what is wrong, in words and for programs.

use std::borrow::Cow;

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa::openapi::path::Parameter;
use utoipa::openapi::schema::{SchemaType, Type};
use utoipa::openapi::{Content, ContentBuilder, OpenApi, Ref, RefOr, ResponseBuilder, Schema};

/// The type of a problem's body.
pub(super) const CONTENT: &str = "application/problem+json";

/// What kinds of problems there are. Each has a heading in `docs/rest.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    BadParameter,
    NotFound,
    MethodNotAllowed,
    UriTooLong,
    BodyTooLarge,
    NotReady,
    TooManyStreams,
    Internal,
}

/// What is wrong.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct Problem {
    /// What kind of problem: `urn:telemetry-agent:problem:` and a word.
    #[serde(rename = "type")]
    #[schema(example = "urn:telemetry-agent:problem:bad-parameter")]
    kind: String,
    /// The kind in words.
    title: &'static str,
    /// The status code.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// This occurrence in words.
    detail: Cow<'static, str>,
    /// Each thing that is wrong with the request.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<Wrong>,
}

/// One thing that is wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct Wrong {
    /// The parameter, or the header.
    pub(super) parameter: String,
    /// What is wrong with it.
    pub(super) detail: String,
}

// === impl Code ===

impl Code {
    fn told(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::BadParameter => (StatusCode::BAD_REQUEST, "bad-parameter", "A parameter cannot be used"),
            Self::NotFound => (StatusCode::NOT_FOUND, "not-found", "Nothing is here"),
            Self::MethodNotAllowed => {
                (StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "The method is not allowed here")
            }
            Self::UriTooLong => (StatusCode::URI_TOO_LONG, "uri-too-long", "The address is too long"),
            Self::BodyTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", "The body is too large"),
            Self::NotReady => (StatusCode::SERVICE_UNAVAILABLE, "not-ready", "The answer is not there yet"),
            Self::TooManyStreams => {
                (StatusCode::SERVICE_UNAVAILABLE, "too-many-streams", "All streams are taken")
            }
            Self::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "internal", "The agent met an error"),
        }
    }
}

// === impl Problem ===

impl Problem {
    pub(super) fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        let (status, word, title) = code.told();
        Self {
            kind: format!("urn:telemetry-agent:problem:{word}"),
            title,
            status: status.as_u16(),
            detail: detail.into(),
            errors: Vec::new(),
        }
    }

    /// Parameters or headers that cannot be used.
    pub(super) fn wrong(errors: Vec<Wrong>) -> Self {
        let detail = errors.first().map(|wrong| format!("{}: {}", wrong.parameter, wrong.detail));
        Self { errors, ..Self::new(Code::BadParameter, detail.unwrap_or_default()) }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = super::json_body(serde_json::to_vec(&self).unwrap_or_default());
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(CONTENT));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// Says in the document what any route may answer.
pub(super) fn describe_everywhere(document: &mut OpenApi) {
    let schema = RefOr::Ref(Ref::from_schema_name("Problem"));
    let content = || -> Content { ContentBuilder::new().schema(Some(schema.clone())).build() };
    let told = [
        ("400", "A parameter or a header cannot be used, or is not known."),
        ("405", "Only GET and HEAD are answered."),
        ("413", "The body is too large."),
        ("414", "The address is too long."),
        ("503", "The answer is not there yet, or all streams are taken."),
    ];
    for item in document.paths.paths.values_mut() {
        let Some(operation) = &mut item.get else { continue };
        operation.parameters.iter_mut().flatten().for_each(without_null);
        let responses = &mut operation.responses.responses;
        for (status, description) in told {
            let response =
                || ResponseBuilder::new().description(description).content(CONTENT, content()).build();
            responses.entry(status.to_owned()).or_insert_with(|| RefOr::T(response()));
        }
        let header =
            ResponseBuilder::new().description("The header has more than 16 KiB or 64 lines.").build();
        responses.entry("431".to_owned()).or_insert(RefOr::T(header));
        let unchanged = ResponseBuilder::new().description("As `If-None-Match` says.").build();
        responses.entry("304".to_owned()).or_insert(RefOr::T(unchanged));
    }
}

/// A parameter may be absent; `null` is no value of it.
fn without_null(parameter: &mut RefOr<Parameter>) {
    if let RefOr::T(parameter) = parameter
        && let Some(RefOr::T(Schema::Object(object))) = &mut parameter.schema
        && let SchemaType::Array(types) = &object.schema_type
        && let Some(kind) = types.iter().find(|kind| **kind != Type::Null)
    {
        object.schema_type = SchemaType::Type(kind.clone());
    }
}
