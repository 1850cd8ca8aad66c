//! Why a push or a call is not answered, in the words of HTTP and of gRPC.

use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;

use super::coding::DecodeError;
use super::intake::IntakeError;
use super::prometheus;
use super::security::Rejection;

/// Why, and what is told of it.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) kind: Refused,
    pub(super) text: String,
}

/// What is the matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// Not what the protocol says.
    Malformed,
    /// A form or a method that is not known here.
    Unsupported,
    /// More than there may be.
    TooLarge,
    /// Try again later.
    Unavailable,
    /// Nobody knows who asks.
    Unauthenticated,
    /// He may not.
    Forbidden,
    /// The client is gone.
    Canceled,
    /// A bug of ours, or a file that cannot be read.
    Internal,
}

// === impl Refusal ===

impl Refusal {
    pub(super) fn new(kind: Refused, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }

    /// As many as may wait are waiting.
    pub(super) fn busy(what: &str) -> Self {
        Self::new(Refused::Unavailable, format!("too many {what} wait"))
    }

    /// The answer of Prometheus' API.
    pub(super) fn respond(&self) -> Response {
        let mut response = prometheus::error(self.kind.http(), self.kind.error_type(), &self.text);
        if self.kind == Refused::Unavailable {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

impl From<Rejection> for Refusal {
    /// In the words of gRPC a limit is no more than a time at which it does not work: clients try again.
    fn from(rejection: Rejection) -> Self {
        let (status, text) = rejection.reason.answer();
        let kind = match status {
            StatusCode::UNAUTHORIZED => Refused::Unauthenticated,
            StatusCode::FORBIDDEN => Refused::Forbidden,
            _ => Refused::Unavailable,
        };
        Self::new(kind, text.trim_end())
    }
}

impl From<DecodeError> for Refusal {
    fn from(error: DecodeError) -> Self {
        let kind = match error {
            DecodeError::TooLarge(_) => Refused::TooLarge,
            DecodeError::Unknown(_) => Refused::Unsupported,
            DecodeError::Malformed(_) => Refused::Malformed,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<IntakeError> for Refusal {
    fn from(error: IntakeError) -> Self {
        let kind = match error {
            IntakeError::TooLarge(_) => Refused::TooLarge,
            IntakeError::Full => Refused::Unavailable,
            IntakeError::Broken(_) => Refused::Malformed,
        };
        Self::new(kind, error.to_string())
    }
}

// === impl Refused ===

impl Refused {
    pub(super) fn http(self) -> StatusCode {
        match self {
            Self::Malformed => StatusCode::BAD_REQUEST,
            Self::Unsupported => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::Canceled => StatusCode::REQUEST_TIMEOUT,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Prometheus' word.
    pub(super) fn error_type(self) -> &'static str {
        match self {
            Self::Malformed | Self::Unsupported | Self::TooLarge => "bad_data",
            Self::Unauthenticated | Self::Forbidden | Self::Unavailable => "unavailable",
            Self::Canceled => "canceled",
            Self::Internal => "internal",
        }
    }

    /// gRPC's code.
    pub(super) fn grpc(self) -> i32 {
        match self {
            Self::Canceled => 1,
            Self::Malformed => 3,
            Self::Forbidden => 7,
            Self::TooLarge => 8,
            Self::Unsupported => 12,
            Self::Internal => 13,
            Self::Unavailable => 14,
            Self::Unauthenticated => 16,
        }
    }
}
