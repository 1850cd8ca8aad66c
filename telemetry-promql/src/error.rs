//! Why a query has no answer, in Prometheus' words.

use crate::source::SourceError;

/// Where too many samples were met, as Prometheus' message ends.
const EXECUTION: &str = "query execution";
/// Where a query was stopped, as Prometheus' messages end.
const EVALUATION: &str = "expression evaluation";

/// What kind of failure it is; the API's status and `errorType` follow from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The query cannot be run as it is written: 400.
    BadData,
    /// It failed while it ran: 422.
    Execution,
    /// It took too long: 503.
    Timeout,
    /// Who asked is gone, or we are stopping: 499.
    Canceled,
    /// The store failed, or we did: 500.
    Internal,
}

/// Why a query has no answer.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct QueryError {
    /// What kind.
    pub kind: ErrorKind,
    /// In words.
    pub message: String,
}

// === impl ErrorKind ===

impl ErrorKind {
    /// As the API's `errorType` says it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::BadData => "bad_data",
            Self::Execution => "execution",
            Self::Timeout => "timeout",
            Self::Canceled => "canceled",
            Self::Internal => "internal",
        }
    }
}

// === impl QueryError ===

impl QueryError {
    /// The query is written wrongly.
    pub fn bad_data(message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::BadData, message: message.into() }
    }

    /// It cannot be evaluated.
    pub fn execution(message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Execution, message: message.into() }
    }

    pub(crate) fn timeout() -> Self {
        Self { kind: ErrorKind::Timeout, message: format!("query timed out in {EVALUATION}") }
    }

    pub(crate) fn canceled() -> Self {
        Self { kind: ErrorKind::Canceled, message: format!("query was canceled in {EVALUATION}") }
    }

    pub(crate) fn too_many_samples() -> Self {
        Self::execution(format!("query processing would load too many samples into memory in {EXECUTION}"))
    }

    /// What cannot happen, happened: said instead of crashing.
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Internal, message: message.into() }
    }

    pub(crate) fn same_labels() -> Self {
        Self::execution("vector cannot contain metrics with the same labelset")
    }
}

impl From<SourceError> for QueryError {
    fn from(error: SourceError) -> Self {
        match error {
            SourceError::Limit(error) => error,
            SourceError::Matcher(message) => Self::bad_data(message),
            SourceError::Read(message) => Self::internal(format!("expanding series: {message}")),
        }
    }
}
