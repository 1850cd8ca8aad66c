//! What the security of the HTTP side says about itself.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use axum::http::StatusCode;
use telemetry_model::clock::Timestamp;
use telemetry_model::{Desc, Family, Kind, Labels, Series, Value, float};

use super::Security;
use crate::api::stats::own;

/// Everything that is said of it.
pub static METRICS: &[Desc] =
    &[REFUSED, PASSWORDS, FORGOTTEN, CLIENTS, CLIENTS_OVERFLOW, RELOADS, LAST_RELOAD];

const SOURCE: &str = "the agent's HTTP server";

const REFUSED: Desc = Desc {
    kind: Kind::Counter,
    labels: &["reason"],
    bound: "9 reasons",
    ..own(
        "telemetry_agent_http_server_refused_total",
        "Requests over HTTP and gRPC that were refused before any route saw them (401, 403, 429, 503), by reason.",
        SOURCE,
    )
};
const PASSWORDS: Desc = Desc {
    kind: Kind::Counter,
    ..own(
        "telemetry_agent_http_server_password_checks_total",
        "Passwords that were hashed to be checked; those whose outcome was remembered are left out.",
        SOURCE,
    )
};
const FORGOTTEN: Desc = Desc {
    kind: Kind::Counter,
    ..own(
        "telemetry_agent_http_server_password_checks_forgotten_total",
        "Outcomes of password checks forgotten because there were more than are remembered.",
        SOURCE,
    )
};
const CLIENTS: Desc = own(
    "telemetry_agent_http_server_clients",
    "Addresses of HTTP clients that limits are now held for, in a table of 4,096.",
    SOURCE,
);
const CLIENTS_OVERFLOW: Desc = Desc {
    kind: Kind::Counter,
    ..own(
        "telemetry_agent_http_server_clients_overflow_total",
        "HTTP requests of clients that shared one entry because the table of clients was full.",
        SOURCE,
    )
};
const RELOADS: Desc = Desc {
    kind: Kind::Counter,
    labels: &["outcome"],
    bound: "2",
    ..own(
        "telemetry_agent_web_config_reloads_total",
        "Times the web configuration or a file it names had changed and was read again, by outcome.",
        SOURCE,
    )
};
const LAST_RELOAD: Desc = own(
    "telemetry_agent_web_config_last_reload_successful",
    "1 if the web configuration that is on disk is the one that holds, 0 if it is broken and the one before it holds.",
    SOURCE,
);

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::api) enum Refused {
    NoCredentials,
    WrongCredentials,
    /// Too many passwords wait to be checked.
    Busy,
    ClientConcurrency,
    ClientRate,
    /// The bucket of `web.yml`.
    RateLimit,
    /// The authority says that the token's owner may not.
    Forbidden,
    /// The authority does not say.
    NoReview,
    /// Too many tokens wait for the authority.
    ReviewBusy,
}

/// Counts of what was refused and reloaded.
#[derive(Debug)]
pub(super) struct SecurityStats {
    created: Timestamp,
    refused: [AtomicU64; Refused::ALL.len()],
    reloads: [AtomicU64; 2],
    is_last_broken: AtomicBool,
}

// === impl Refused ===

impl Refused {
    const ALL: [Self; 9] = [
        Self::NoCredentials,
        Self::WrongCredentials,
        Self::Busy,
        Self::ClientConcurrency,
        Self::ClientRate,
        Self::RateLimit,
        Self::Forbidden,
        Self::NoReview,
        Self::ReviewBusy,
    ];

    fn reason(self) -> &'static str {
        match self {
            Self::NoCredentials => "no_credentials",
            Self::WrongCredentials => "wrong_credentials",
            Self::Busy => "password_queue",
            Self::ClientConcurrency => "client_concurrency",
            Self::ClientRate => "client_rate",
            Self::RateLimit => "rate_limit",
            Self::Forbidden => "forbidden",
            Self::NoReview => "review_failed",
            Self::ReviewBusy => "review_queue",
        }
    }

    /// What the client is told.
    pub(in crate::api) fn answer(self) -> (StatusCode, &'static str) {
        match self {
            Self::NoCredentials | Self::WrongCredentials => {
                (StatusCode::UNAUTHORIZED, "a name and password, or a token, are needed\n")
            }
            Self::Busy => (StatusCode::TOO_MANY_REQUESTS, "too many passwords wait to be checked\n"),
            Self::ClientConcurrency => {
                (StatusCode::TOO_MANY_REQUESTS, "too many requests of this address are being answered\n")
            }
            Self::ClientRate => (StatusCode::TOO_MANY_REQUESTS, "this address asks too often\n"),
            Self::RateLimit => (StatusCode::TOO_MANY_REQUESTS, "too many requests\n"),
            Self::Forbidden => (StatusCode::FORBIDDEN, "the owner of this token may not do this\n"),
            Self::NoReview => (
                StatusCode::SERVICE_UNAVAILABLE,
                "whose this token is cannot be found out now: the API server does not say\n",
            ),
            Self::ReviewBusy => {
                (StatusCode::TOO_MANY_REQUESTS, "too many tokens wait to be reviewed by the API server\n")
            }
        }
    }
}

// === impl SecurityStats ===

impl SecurityStats {
    pub(super) fn new(created: Timestamp) -> Self {
        Self {
            created,
            refused: Default::default(),
            reloads: Default::default(),
            is_last_broken: AtomicBool::new(false),
        }
    }

    pub(super) fn refused(&self, reason: Refused) {
        let counter =
            Refused::ALL.iter().position(|each| *each == reason).and_then(|at| self.refused.get(at));
        if let Some(counter) = counter {
            counter.fetch_add(1, Relaxed);
        }
    }

    pub(super) fn reloaded(&self, is_good: bool) {
        let [good, bad] = &self.reloads;
        if is_good { good } else { bad }.fetch_add(1, Relaxed);
        self.is_last_broken.store(!is_good, Relaxed);
    }
}

// === impl Security ===

impl Security {
    /// The families as they stand.
    #[must_use]
    pub fn families(&self) -> Vec<Family> {
        let created = Some(self.stats.created);
        let counter =
            |labels, count| Series { labels, value: Value::Number(float(count)), created, late: None };
        let one = |desc, count| Family { desc, series: vec![counter(Labels::none(), count)] };
        let refused = Refused::ALL.iter().zip(&self.stats.refused).map(|(reason, count)| {
            counter(Labels::fixed(&[("reason", reason.reason())]), count.load(Relaxed))
        });
        let reloads = ["success", "failure"]
            .iter()
            .zip(&self.stats.reloads)
            .map(|(outcome, count)| counter(Labels::fixed(&[("outcome", outcome)]), count.load(Relaxed)));
        let (clients, overflows) = self.clients.counts();
        let gauge = |desc, value| Family { desc, series: vec![Series::number(Labels::none(), value)] };
        let is_good = !self.stats.is_last_broken.load(Relaxed);
        vec![
            Family { desc: &REFUSED, series: refused.collect() },
            one(&PASSWORDS, self.counts.computed.load(Relaxed)),
            one(&FORGOTTEN, self.counts.forgotten.load(Relaxed)),
            gauge(&CLIENTS, float(clients as u64)),
            one(&CLIENTS_OVERFLOW, overflows),
            Family { desc: &RELOADS, series: reloads.collect() },
            gauge(&LAST_RELOAD, f64::from(u8::from(is_good))),
        ]
    }
}
