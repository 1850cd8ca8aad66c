//! One version of `web.yml`, built: what connections and requests are held to.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::{HeaderName, HeaderValue};

use super::Error;
use super::clients::Bucket;
use super::credentials::{Counts, Credentials};
use super::tls::Tls;
use super::web_file::{RateLimit, WebFile};

/// What holds for connections that are accepted and requests that come now.
pub(in crate::api) struct Policy {
    pub(in crate::api) tls: Option<Tls>,
    pub(in crate::api) http2: bool,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// None if nobody is asked.
    pub(super) credentials: Option<Credentials>,
    limit: Option<(RateLimit, Mutex<Bucket>)>,
}

// === impl Policy ===

impl Policy {
    /// What holds where there is no file: no TLS, and nobody is asked.
    pub(super) fn open() -> Self {
        Self { tls: None, http2: true, headers: Vec::new(), credentials: None, limit: None }
    }

    pub(super) fn new(file: &Path, web: &WebFile, counts: Arc<Counts>) -> Result<Self, Error> {
        let http2 = web.http_server_config.as_ref().is_none_or(|http| http.http2);
        let written = web.tls_server_config.as_ref().filter(|tls| tls.is_on());
        let tls = written.map(|tls| Tls::new(file, tls, http2)).transpose()?;
        let headers = web.headers().map_err(|what| Error::Content { file: file.into(), what })?;
        let credentials = Some(Credentials::new(file, web, counts)?).filter(Credentials::are_needed);
        let limit = web
            .rate_limit
            .filter(|limit| limit.interval > Duration::ZERO)
            .map(|limit| (limit, Mutex::new(Bucket::full(f64::from(limit.burst), Instant::now()))));
        Ok(Self { tls, http2, headers, credentials, limit })
    }

    /// Whether everybody has to say who they are, one way or the other.
    pub(super) fn authenticates(&self) -> bool {
        self.credentials.is_some() || self.tls.as_ref().is_some_and(|tls| tls.authenticates)
    }

    /// Takes one request from the bucket of all clients; if it is empty, how long until the next may come.
    pub(super) fn spend(&self, now: Instant) -> Result<(), Duration> {
        let Some((RateLimit { interval, burst }, bucket)) = &self.limit else { return Ok(()) };
        let rate = 1.0 / interval.as_secs_f64();
        bucket.lock().unwrap_or_else(PoisonError::into_inner).take(rate, f64::from(*burst), now)
    }
}
