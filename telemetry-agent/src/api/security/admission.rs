//! One request's way in: its client's limits, everybody's limit, and who it says it is.

use std::borrow::Cow;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use axum::http::header::{AUTHORIZATION, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use telemetry_model::Verdict;

use super::Security;
use super::clients::{Clients, Limit, Turn};
use super::credentials::Denied;
use super::metrics::Refused;
use super::policy::Policy;
use crate::api::routes;

/// Paths that are answered without any of this: they say whether the agent works, and nothing of the node. A path that
/// is spelt otherwise is another path.
const OPEN_PATHS: &[&str] = &["/livez", "/healthz", "/-/healthy", "/readyz", "/-/ready"];

const BASIC: &str = "Basic realm=\"telemetry\", charset=\"UTF-8\"";
const BEARER: &str = "Bearer realm=\"telemetry\"";

/// What a request asks for, as roles have it.
pub(in crate::api) struct Asked<'a> {
    /// As the client spelt it.
    pub(in crate::api) path: &'a str,
    /// What the path means.
    pub(in crate::api) meant: Cow<'a, str>,
    /// `get` for whatever only reads, else what the method is called.
    pub(in crate::api) verb: &'a str,
}

/// Why a request does not come in.
#[derive(Debug)]
pub(in crate::api) struct Rejection {
    pub(in crate::api) reason: Refused,
    /// When to come again; none where that would not help.
    wait: Option<Duration>,
    challenges: Vec<&'static str>,
}

/// Who a request says it is.
pub(super) enum Said<'a> {
    /// Nothing.
    Nothing,
    /// A token.
    Token(&'a str),
    /// A name, a colon and a password.
    Password(Vec<u8>),
    /// What nobody understands.
    Noise,
}

// === impl Security ===

impl Security {
    /// Lets a request through, with its turn among its client's, or says why not.
    pub(in crate::api) async fn admit(
        &self,
        policy: &Policy,
        (asked, headers): (&Asked<'_>, &HeaderMap),
        client: IpAddr,
    ) -> Result<Option<Turn>, Rejection> {
        if OPEN_PATHS.contains(&asked.path) {
            return Ok(None);
        }
        let now = Instant::now();
        let admitted = async {
            let turn = Clients::take(&self.clients, client, now)?;
            policy.spend(now).map_err(|wait| Rejection::later(Refused::RateLimit, wait))?;
            self.identify(policy, asked, headers).await.map(|()| turn)
        };
        admitted.await.inspect_err(|rejection| self.stats.refused(rejection.reason))
    }

    /// Holds a request to the file's users and tokens, and to the authority.
    async fn identify(
        &self,
        policy: &Policy,
        asked: &Asked<'_>,
        headers: &HeaderMap,
    ) -> Result<(), Rejection> {
        let (credentials, authority) = (policy.credentials.as_ref(), self.authority.as_deref());
        if credentials.is_none() && authority.is_none() {
            return Ok(());
        }
        let second = Duration::from_secs(1);
        let denied = match (Said::of(headers), credentials, authority) {
            (Said::Nothing, ..) => Refused::NoCredentials,
            (Said::Token(token), Some(credentials), _) if credentials.has_token(token) => return Ok(()),
            (Said::Token(token), _, Some(authority)) => {
                match authority.check(token, asked.verb, &asked.meant).await {
                    Verdict::Allowed => return Ok(()),
                    Verdict::Unknown => Refused::WrongCredentials,
                    Verdict::Forbidden => return Err(Rejection::of(Refused::Forbidden)),
                    Verdict::Unavailable => return Err(Rejection::later(Refused::NoReview, second)),
                    Verdict::Busy => return Err(Rejection::later(Refused::ReviewBusy, second)),
                }
            }
            (Said::Password(said), Some(credentials), _) => match credentials.check_password(&said).await {
                Ok(()) => return Ok(()),
                Err(Denied::Busy) => return Err(Rejection::later(Refused::Busy, second)),
                Err(Denied::Wrong) => Refused::WrongCredentials,
            },
            _ => Refused::WrongCredentials,
        };
        let basic = credentials.is_some_and(|credentials| credentials.has_users());
        let bearer = authority.is_some() || credentials.is_some_and(|credentials| credentials.has_tokens());
        let challenges = [basic.then_some(BASIC), bearer.then_some(BEARER)].into_iter().flatten().collect();
        Err(Rejection { reason: denied, wait: None, challenges })
    }
}

// === impl Rejection ===

impl Rejection {
    fn of(reason: Refused) -> Self {
        Self { reason, wait: None, challenges: Vec::new() }
    }

    fn later(reason: Refused, wait: Duration) -> Self {
        Self { wait: Some(wait), ..Self::of(reason) }
    }

    /// What the client is told over HTTP.
    pub(in crate::api) fn response(&self) -> Response {
        let (status, text) = self.reason.answer();
        let mut response = routes::plain(status, text.to_owned());
        let headers = response.headers_mut();
        if let Some(wait) = self.wait {
            // Whole seconds, and never none.
            let seconds = (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1);
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        for challenge in &self.challenges {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        response
    }
}

impl From<Limit> for Rejection {
    fn from(limit: Limit) -> Self {
        match limit {
            Limit::Concurrency => Self::later(Refused::ClientConcurrency, Duration::from_secs(1)),
            Limit::Rate(wait) => Self::later(Refused::ClientRate, wait),
        }
    }
}

// === impl Said ===

impl<'a> Said<'a> {
    fn of(headers: &'a HeaderMap) -> Self {
        let mut lines = headers.get_all(AUTHORIZATION).iter();
        let Some(line) = lines.next() else { return Self::Nothing };
        let (Some((scheme, said)), None) =
            (line.to_str().ok().and_then(|line| line.split_once(' ')), lines.next())
        else {
            return Self::Noise;
        };
        if scheme.eq_ignore_ascii_case("bearer") {
            return Self::Token(said.trim());
        }
        if scheme.eq_ignore_ascii_case("basic") {
            return STANDARD.decode(said.trim()).map_or(Self::Noise, Self::Password);
        }
        Self::Noise
    }
}
