//! An answer: JSON with a tag, as small as the client takes it.

use std::hash::{DefaultHasher, Hasher as _};

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, ETAG, LINK, VARY};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use serde::Serialize;

use super::ask::Ask;
use super::json_body;
use super::problem::{Code, Problem};
use crate::api::Coding;

// === impl Ask ===

impl Ask {
    /// A value as JSON.
    pub(super) fn reply(&self, value: &impl Serialize) -> Result<Response, Problem> {
        let body = serde_json::to_vec(value);
        body.map(|body| self.tagged(body)).map_err(|error| Problem::new(Code::Internal, error.to_string()))
    }

    /// A page of a list, with the address of the next one.
    pub(super) fn reply_page(
        &self,
        path: &str,
        value: &impl Serialize,
        next: Option<&str>,
    ) -> Result<Response, Problem> {
        let mut response = self.reply(value)?;
        if let Some(next) = next {
            let link = format!("<{path}?{}>; rel=\"next\"", self.query_with_cursor(next));
            if let Ok(link) = HeaderValue::from_str(&link) {
                response.headers_mut().insert(LINK, link);
            }
        }
        Ok(response)
    }

    /// JSON that is made already. What a client has is not sent again.
    pub(super) fn tagged(&self, body: Vec<u8>) -> Response {
        let tag = tag(&body);
        let has = self.has(&tag);
        let is_large = body.len() >= self.shared().gzip_min_bytes;
        let coding = if is_large && !has { Coding::of(&self.headers) } else { Coding::Identity };
        let mut response = if has {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            response
        } else {
            json_body(coding.encode(body))
        };
        let mut set = |name: HeaderName, value: &str| {
            if let Ok(value) = HeaderValue::from_str(value) {
                response.headers_mut().insert(name, value);
            }
        };
        set(ETAG, &tag);
        set(CACHE_CONTROL, "no-cache");
        set(VARY, "accept, accept-encoding");
        coding.mark(&mut response);
        response
    }
}

/// A weak tag: the same bytes may be sent compressed or not.
fn tag(body: &[u8]) -> String {
    // Its keys are fixed, so that a tag holds from one request to the next.
    let mut hasher = DefaultHasher::new();
    hasher.write(body);
    format!("W/\"{:016x}\"", hasher.finish())
}
