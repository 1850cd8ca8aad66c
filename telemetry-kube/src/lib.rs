//! What the API server knows of this node's pods.
//!
//! One list and one watch, of the pods of one node alone, kept as small as their use needs; and, where the operator wants
//! it, whose a token is and what it may ([`Reviews`]). The only crate that knows Kubernetes' client: the others see pods
//! ([`telemetry_model::Pods`]), verdicts and metrics. An API server that is absent, slow or flapping costs news and nothing
//! else: what was known stays, the next try waits longer, and each reason is counted.
#![forbid(unsafe_code)]

mod client;
mod metrics;
mod object;
mod review;
#[cfg(test)]
mod testing;
mod watch;
mod workload;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};
use telemetry_model::Pods;

pub use metrics::METRICS;
pub use review::Reviews;
pub use watch::run;

/// Whether the API server is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Api {
    /// If the agent runs in a pod with a service account, or a kubeconfig is named.
    #[default]
    Auto,
    /// Yes.
    On,
    /// No: names come from the node's own files alone.
    Off,
}

/// What an operator may choose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Whether the API server is asked.
    pub api: Api,
    /// A kubeconfig; empty: the service account of the agent's pod.
    pub kubeconfig: String,
    /// The node's name to the API server; empty: `NODE_NAME`, else the host's.
    pub node: String,
    /// The first question waits for a random time up to this, so that a thousand agents do not ask at once.
    pub start_delay_max: Duration,
    /// Labels of pods that are told.
    pub pod_labels: Vec<String>,
}

/// What the watch is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum State {
    /// The API server is not asked.
    Off,
    /// Nothing was had yet, or the next try is waited for.
    Waiting,
    /// Pods are being listed.
    Listing,
    /// All are known, and changes come as they are made.
    Watching,
}

/// Why there was no news.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// No usable kubeconfig or service account.
    Config,
    /// No connection, or it broke.
    Unreachable,
    /// 401 or 403.
    Forbidden,
    /// 410: the version that a watch would go on from is forgotten.
    Expired,
    /// 429 or a 5xx.
    Server,
    /// The answer is not what it should be.
    Malformed,
    /// A list did not end in time.
    Slow,
    /// 400 or 422: the server does not stream lists. Asked once, then in pages.
    NoStreaming,
}

/// The pods as they are known now, and how they came to be known. Shared by the watch, which writes, and whoever asks.
#[derive(Debug)]
pub struct Known {
    pods: ArcSwap<Pods>,
    version: AtomicU64,
    state: AtomicU8,
    in_pages: AtomicBool,
    lists: AtomicU64,
    changes: AtomicU64,
    left_out: AtomicU64,
    failures: [AtomicU64; Reason::ALL.len()],
    /// Milliseconds since 1970 of the newest event; 0 before the first.
    heard_ms: AtomicI64,
}

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        Self {
            api: Api::Auto,
            kubeconfig: String::new(),
            node: String::new(),
            start_delay_max: Duration::from_secs(30),
            pod_labels: Vec::new(),
        }
    }
}

impl Config {
    /// Whether there is anybody to ask.
    #[must_use]
    pub fn is_on(&self) -> bool {
        let in_pod = || std::env::var_os("KUBERNETES_SERVICE_HOST").is_some();
        match self.api {
            Api::On => true,
            Api::Off => false,
            Api::Auto => !self.kubeconfig.is_empty() || in_pod() && client::has_token(),
        }
    }
}

// === impl Reason ===

impl Reason {
    /// Every one, in the order of their counters.
    pub(crate) const ALL: [Self; 8] = [
        Self::Config,
        Self::Unreachable,
        Self::Forbidden,
        Self::Expired,
        Self::Server,
        Self::Malformed,
        Self::Slow,
        Self::NoStreaming,
    ];

    /// Its label value.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Unreachable => "unreachable",
            Self::Forbidden => "forbidden",
            Self::Expired => "expired",
            Self::Server => "server",
            Self::Malformed => "malformed",
            Self::Slow => "slow",
            Self::NoStreaming => "no_streaming",
        }
    }
}

// === impl Known ===

impl Default for Known {
    fn default() -> Self {
        Self {
            pods: ArcSwap::default(),
            version: AtomicU64::new(0),
            state: AtomicU8::new(State::Off as u8),
            in_pages: AtomicBool::new(false),
            lists: AtomicU64::new(0),
            changes: AtomicU64::new(0),
            left_out: AtomicU64::new(0),
            failures: Default::default(),
            heard_ms: AtomicI64::new(0),
        }
    }
}

impl Known {
    /// The pods, if they are others than those of `seen`, which is then theirs.
    pub fn news(&self, seen: &mut u64) -> Option<Arc<Pods>> {
        let version = self.version.load(Ordering::Acquire);
        if version == *seen {
            return None;
        }
        *seen = version;
        Some(self.pods.load_full())
    }

    pub(crate) fn publish(&self, pods: Arc<Pods>) {
        self.pods.store(pods);
        self.version.fetch_add(1, Ordering::Release);
    }

    pub(crate) fn enter(&self, state: State) {
        self.state.store(state as u8, Ordering::Relaxed);
    }

    pub(crate) fn hear(&self) {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.heard_ms.store(i64::try_from(since.as_millis()).unwrap_or(i64::MAX), Ordering::Relaxed);
    }

    pub(crate) fn fail(&self, reason: Reason) {
        let at = Reason::ALL.iter().position(|one| *one == reason);
        if let Some(count) = at.and_then(|at| self.failures.get(at)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}
