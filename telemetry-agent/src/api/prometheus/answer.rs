//! The frame of every answer: status, data, warnings and infos, or what went wrong.

use std::io::{self, Write};

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, VARY};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use telemetry_promql::error::{ErrorKind, QueryError};

use super::json;
use crate::api::coding::{Coding, Encoder};

/// What is said of an answer that was cut short.
pub(super) const TRUNCATED: &str = "results truncated due to limit";

/// Writes the data of an answer.
pub(super) type Data = Box<dyn FnOnce(&mut dyn Write) -> io::Result<()> + Send>;

/// An answer before it is written.
#[derive(Default)]
pub(super) struct Success {
    /// Absent where there is nothing to say but that it worked.
    pub(super) data: Option<Data>,
    pub(super) warnings: Vec<String>,
    pub(super) infos: Vec<String>,
}

/// Why there is none.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) kind: Kind,
    pub(super) message: String,
}

/// What kind of failure, in Prometheus' words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A parameter is wrong.
    BadData,
    /// The query failed.
    Execution,
    /// It took too long.
    Timeout,
    /// Who asked has gone.
    Canceled,
    /// Our own fault, or the store's.
    Internal,
    /// Switched off.
    Unavailable,
    /// Not now: ask again later.
    Busy,
    /// No such thing.
    NotFound,
}

/// An answer as bytes.
pub(super) struct Rendered {
    bytes: Vec<u8>,
    coding: Coding,
}

/// Counts what is written, and ends it at a limit.
struct Bounded<W> {
    inner: W,
    left: usize,
}

// === impl Success ===

impl Success {
    /// An answer with data.
    pub(super) fn data(write: impl FnOnce(&mut dyn Write) -> io::Result<()> + Send + 'static) -> Self {
        Self { data: Some(Box::new(write)), ..Self::default() }
    }

    /// An answer whose data is JSON already.
    pub(super) fn json(text: String) -> Self {
        Self::data(move |out| out.write_all(text.as_bytes()))
    }

    /// A list of texts, cut to a limit.
    pub(super) fn texts<S: AsRef<str> + Send + 'static>(mut texts: Vec<S>, limit: Option<usize>) -> Self {
        let is_cut = limit.is_some_and(|limit| texts.len() > limit);
        texts.truncate(limit.unwrap_or(usize::MAX));
        let mut answer = Self::data(move |out| json::strings(out, &texts));
        answer.warnings.extend(is_cut.then(|| TRUNCATED.to_owned()));
        answer
    }

    /// As bytes, `max` of JSON at most.
    pub(super) fn render(self, coding: Coding, max: usize) -> Result<Rendered, Failure> {
        let failed = |_| {
            Failure::execution(format!(
                "the answer would have more than {max} bytes; ask for fewer series or a longer step"
            ))
        };
        let mut encoder = Encoder::new(coding, Vec::new()).map_err(failed)?;
        self.write(&mut Bounded { inner: &mut encoder, left: max }).map_err(failed)?;
        let bytes = encoder.finish().map_err(failed)?;
        Ok(Rendered { bytes, coding })
    }

    fn write(self, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(b"{\"status\":\"success\"")?;
        if let Some(data) = self.data {
            out.write_all(b",\"data\":")?;
            data(out)?;
        }
        for (name, texts) in [("warnings", &self.warnings), ("infos", &self.infos)] {
            if !texts.is_empty() {
                write!(out, ",\"{name}\":")?;
                json::strings(out, texts)?;
            }
        }
        out.write_all(b"}")
    }
}

// === impl Rendered ===

impl Rendered {
    /// How much memory it takes.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// As the answer to a request; `guard` is let go with its last byte.
    pub(super) fn respond(self, guard: impl Send + Sync + 'static) -> Response {
        let held = bytes_of(self.bytes, guard);
        let mut response = json_response(StatusCode::OK, Body::from(held));
        self.coding.mark(&mut response);
        response
    }
}

/// Bytes that keep something alive.
pub(super) fn bytes_of<G: Send + Sync + 'static>(bytes: Vec<u8>, guard: G) -> axum::body::Bytes {
    struct Held<G>(Vec<u8>, G);
    impl<G> AsRef<[u8]> for Held<G> {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
    axum::body::Bytes::from_owner(Held(bytes, guard))
}

fn json_response(status: StatusCode, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(VARY, HeaderValue::from_static("origin, accept-encoding"));
    response
}

/// The frame of an error.
pub(in crate::api) fn error(status: StatusCode, kind: &str, message: &str) -> Response {
    let mut body = Vec::new();
    // Writing to a Vec cannot fail.
    let _ = write!(body, "{{\"status\":\"error\",\"errorType\":\"{kind}\",\"error\":");
    let _ = json::string(&mut body, message);
    body.push(b'}');
    json_response(status, body.into())
}

// === impl Failure ===

impl Failure {
    pub(super) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    pub(super) fn bad_data(message: impl Into<String>) -> Self {
        Self::new(Kind::BadData, message)
    }

    pub(super) fn execution(message: impl Into<String>) -> Self {
        Self::new(Kind::Execution, message)
    }

    /// As the answer to a request.
    pub(super) fn respond(&self) -> Response {
        let mut response = error(self.kind.status(), self.kind.name(), &self.message);
        if self.kind == Kind::Busy {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

impl From<QueryError> for Failure {
    fn from(error: QueryError) -> Self {
        let kind = match error.kind {
            ErrorKind::BadData => Kind::BadData,
            ErrorKind::Execution => Kind::Execution,
            ErrorKind::Timeout => Kind::Timeout,
            ErrorKind::Canceled => Kind::Canceled,
            ErrorKind::Internal => Kind::Internal,
        };
        Self { kind, message: error.message }
    }
}

// === impl Kind ===

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::BadData => "bad_data",
            Self::Execution => "execution",
            Self::Timeout => "timeout",
            Self::Canceled => "canceled",
            Self::Internal => "internal",
            Self::Unavailable | Self::Busy => "unavailable",
            Self::NotFound => "not_found",
        }
    }

    fn status(self) -> StatusCode {
        match self {
            Self::BadData => StatusCode::BAD_REQUEST,
            Self::Execution => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Timeout | Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
            // nginx's "client closed request", as Prometheus answers; nobody is there to read it.
            Self::Canceled => StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            // Prometheus says 500; but nothing is broken, and to ask again is no use.
            Self::Unavailable => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
        }
    }
}

// === impl Bounded ===

impl<W: Write> Write for Bounded<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(left) = self.left.checked_sub(bytes.len()) else {
            return Err(io::ErrorKind::FileTooLarge.into());
        };
        let written = self.inner.write(bytes)?;
        self.left = left;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_its_data_and_its_remarks() {
        let mut answer = Success::texts(vec!["a", "b\""], Some(1));
        answer.infos.push("i".into());
        let rendered = answer.render(Coding::Identity, 1000).ok().unwrap();
        assert_eq!(
            String::from_utf8(rendered.bytes).unwrap(),
            r#"{"status":"success","data":["a"],"warnings":["results truncated due to limit"],"infos":["i"]}"#
        );
    }

    #[test]
    fn an_answer_too_large_is_refused_compressed_or_not() {
        for coding in [Coding::Identity, Coding::Gzip, Coding::Zstd] {
            let answer = Success::texts(vec!["a".repeat(1000)], None);
            let failure = answer.render(coding, 1000).err().unwrap();
            assert_eq!(failure.kind.status(), StatusCode::UNPROCESSABLE_ENTITY);
        }
    }
}
