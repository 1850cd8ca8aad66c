//! A request's bytes: what form they are in, how far they inflate, and how many messages they are.

use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use prost::Message as _;
use serde_json::json;

use super::super::wire::{Fields, Malformed, Value};
use super::message::{Answer, Request, Status};
use crate::api::coding::Coding;
use crate::api::refusal::{Refusal, Refused};

/// Bytes of a request when inflated.
const INFLATED_BYTES_MAX: usize = 16 << 20;
/// Messages of a request, all that are nested counted: an empty one takes two bytes, and a hundred times that once it
/// is read. A push of 40,000 points with five attributes each has 480,000.
const MESSAGES_MAX: usize = 1 << 19;
/// Depth of messages in each other; values are the only ones that nest without end.
const DEPTH_MAX: usize = 64;

/// How messages are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::api) enum Form {
    Protobuf,
    Json,
}

// === impl Form ===

impl Form {
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Protobuf => "application/x-protobuf",
            Self::Json => "application/json",
        }
    }

    pub(super) fn answer(self, answer: &Answer) -> Vec<u8> {
        let Some(partial) = answer.partial_success.as_ref().filter(|_| self == Self::Json) else {
            return if self == Self::Json { b"{}".to_vec() } else { answer.encode_to_vec() };
        };
        let partial = json!({
            "rejectedDataPoints": partial.rejected_data_points.to_string(),
            "errorMessage": partial.error_message,
        });
        json!({ "partialSuccess": partial }).to_string().into_bytes()
    }

    pub(super) fn status(self, status: &Status) -> Vec<u8> {
        match self {
            Self::Protobuf => status.encode_to_vec(),
            Self::Json => json!({ "code": status.code, "message": status.message }).to_string().into_bytes(),
        }
    }
}

pub(super) fn read_headers(headers: &HeaderMap) -> Result<(Form, Coding), Refusal> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let unsupported = |text: String| Refusal::new(Refused::Unsupported, text);
    let content_type = text(CONTENT_TYPE);
    let form = match content_type.split(';').next().unwrap_or_default().trim() {
        "application/x-protobuf" => Form::Protobuf,
        "application/json" => Form::Json,
        other => {
            let wanted = "is neither application/x-protobuf nor application/json";
            return Err(unsupported(format!("content type {other:?} {wanted}")));
        }
    };
    let name = text(CONTENT_ENCODING);
    let coding = Coding::named(name);
    let coding =
        coding.ok_or_else(|| unsupported(format!("content encoding {name:?} is neither gzip nor zstd")))?;
    Ok((form, coding))
}

/// Inflates and reads a request.
pub(super) fn decode(form: Form, coding: Coding, body: &[u8]) -> Result<Request, Refusal> {
    let malformed = |error: &dyn std::fmt::Display| Refusal::new(Refused::Malformed, error.to_string());
    let inflated = match coding {
        Coding::Identity => None,
        _ => Some(coding.decode(body, INFLATED_BYTES_MAX)?),
    };
    let bytes = inflated.as_deref().unwrap_or(body);
    let messages = match form {
        Form::Protobuf => {
            let mut messages = 0;
            Shape::Request.count(Fields(bytes), 0, &mut messages).map_err(|error| malformed(&error))?;
            messages
        }
        // Braces within texts count too, which only makes less of it.
        Form::Json => bytes.iter().filter(|byte| matches!(byte, b'{' | b'[')).count(),
    };
    if messages > MESSAGES_MAX {
        return Err(Refusal::new(
            Refused::TooLarge,
            format!("a push may have {MESSAGES_MAX} points and attributes"),
        ));
    }
    match form {
        Form::Protobuf => Request::decode(bytes).map_err(|error| malformed(&error)),
        Form::Json => serde_json::from_slice(bytes).map_err(|error| malformed(&error)),
    }
}

/// Messages as far as others are in them.
#[derive(Clone, Copy)]
enum Shape {
    Request,
    Resources,
    Resource,
    Scopes,
    Scope,
    Metric,
    Data,
    Number,
    Histogram,
    Exponential,
    Summary,
    Exemplar,
    Pair,
    Value,
    Values,
    Pairs,
    Leaf,
}

// === impl Shape ===

impl Shape {
    /// The message in this field.
    fn within(self, number: u64) -> Option<Self> {
        Some(match (self, number) {
            (Self::Request, 1) => Self::Resources,
            (Self::Resources, 1) => Self::Resource,
            (Self::Resources, 2) => Self::Scopes,
            (Self::Scopes, 1) => Self::Scope,
            (Self::Scopes, 2) => Self::Metric,
            (Self::Metric, 5 | 7 | 9 | 10 | 11) => Self::Data,
            (Self::Resource, 1)
            | (Self::Scope, 3)
            | (Self::Number, 7)
            | (Self::Histogram, 9)
            | (Self::Exponential, 1)
            | (Self::Summary, 7)
            | (Self::Exemplar, 7)
            | (Self::Pairs, 1) => Self::Pair,
            (Self::Number, 5) | (Self::Histogram, 8) | (Self::Exponential, 11) => Self::Exemplar,
            (Self::Exponential, 8 | 9) | (Self::Summary, 6) => Self::Leaf,
            (Self::Pair, 2) | (Self::Values, 1) => Self::Value,
            (Self::Value, 5) => Self::Values,
            (Self::Value, 6) => Self::Pairs,
            _ => return None,
        })
    }

    fn point(metric_field: u64) -> Self {
        match metric_field {
            9 => Self::Histogram,
            10 => Self::Exponential,
            11 => Self::Summary,
            _ => Self::Number,
        }
    }

    fn count(self, mut fields: Fields<'_>, depth: usize, messages: &mut usize) -> Result<(), Malformed> {
        *messages += 1;
        if depth > DEPTH_MAX {
            return Err(Malformed("messages are nested too deep"));
        }
        // Enough to refuse it.
        if *messages > MESSAGES_MAX {
            return Ok(());
        }
        while let Some((number, value)) = fields.field()? {
            let (Some(shape), Value::Bytes(bytes)) = (self.within(number), value) else { continue };
            if matches!(shape, Self::Data) {
                *messages += 1;
                let mut data = Fields(bytes);
                while let Some((field, value)) = data.field()? {
                    if let (1, Value::Bytes(bytes)) = (field, value) {
                        Self::point(number).count(Fields(bytes), depth + 1, messages)?;
                    }
                }
            } else {
                shape.count(Fields(bytes), depth + 1, messages)?;
            }
        }
        Ok(())
    }
}
