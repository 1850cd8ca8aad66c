//! Who may ask, over what, and how much: TLS, users, tokens and limits of each client.
//!
//! [`Security::load`] reads `web.yml` once, and refuses to be open to more than this host unless told; [`Security::watch`]
//! reads it again whenever it or a file it names has changed. A new version that is broken is logged and counted, and
//! the old one holds. Tokens that the file does not list may be somebody else's to know, an [`Authority`]'s. Every request
//! of every protocol on every port passes `Security::admit` before any route sees it.

mod admission;
mod authority;
mod client_cert;
mod clients;
mod credentials;
mod metrics;
mod policy;
mod tls;
mod web_file;

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::http::HeaderMap;
use telemetry_model::clock::Timestamp;
use tokio::sync::watch;

use super::Config;
use clients::Clients;
use credentials::Counts;
use metrics::SecurityStats;
use policy::Policy;

pub(super) use admission::{Asked, Rejection};
pub use authority::Authority;
pub(super) use clients::Turn;
pub use credentials::CONCURRENCY;
pub use metrics::METRICS;

/// How often the files are looked at.
const WATCH_INTERVAL: Duration = Duration::from_secs(2);

/// Why the HTTP side cannot be secured as it is told to be.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("web configuration: {}: {source}", .file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What a file says makes no sense.
    #[error("web configuration: {}: {what}", .file.display())]
    Content {
        /// The file.
        file: PathBuf,
        /// The field, and what is wrong with it.
        what: String,
    },
    /// Anybody on the network could ask.
    #[error(
        "listen on {0}: whoever reaches this address could read everything; name users, tokens or an authority of \
         clients' certificates in a file for --web.config.file, let the API server review tokens \
         (kubernetes.token_review), listen on 127.0.0.1, or say --insecure-listen"
    )]
    Open(SocketAddr),
}

/// Who has access beyond this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Whoever the files let in; where they name nobody, an address that others can reach is refused.
    Granted,
    /// Anybody, if the files name nobody: `insecure_listen`.
    Anybody,
}

/// The security of the HTTP side, as the files say at any time.
pub struct Security {
    file: Option<PathBuf>,
    /// Every address that it is for.
    listen: Vec<SocketAddr>,
    access: Access,
    /// Who knows tokens that the file does not list.
    authority: Option<Arc<dyn Authority>>,
    policy: ArcSwap<Policy>,
    /// The files as they were when they were last read, with success or without.
    seen: Mutex<Vec<Seen>>,
    clients: Arc<Clients>,
    counts: Arc<Counts>,
    stats: SecurityStats,
    /// Told when connections that were accepted before have to come again.
    renewed: watch::Sender<()>,
}

/// A file, and what tells that it has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    file: PathBuf,
    /// Device, inode, bytes, and the times of its content and of itself.
    mark: Option<(u64, u64, u64, [i64; 4])>,
}

// === impl Security ===

impl Security {
    /// Reads the file, if there is one. `config` gives the limits of each client; `created` is when counting begins.
    ///
    /// # Errors
    /// Where the file or one it names cannot be read or makes no sense, or where one of the addresses is beyond this host
    /// and nobody is asked who they are.
    pub fn load(
        file: Option<&Path>,
        (listen, access): (Vec<SocketAddr>, Access),
        authority: Option<Arc<dyn Authority>>,
        config: &Config,
        created: Timestamp,
    ) -> Result<Self, Error> {
        let counts = Arc::new(Counts::default());
        let mut seen: Vec<_> = file.iter().map(|file| Seen::now(file)).collect();
        let policy = read(file, &counts, &mut seen)?;
        let security = Self {
            file: file.map(Path::to_owned),
            listen,
            access,
            authority,
            policy: ArcSwap::from_pointee(Policy::open()),
            seen: Mutex::new(seen),
            clients: Clients::new(config),
            counts,
            stats: SecurityStats::new(created),
            renewed: watch::channel(()).0,
        };
        security.is_enough(&policy)?;
        security.policy.store(Arc::new(policy));
        Ok(security)
    }

    /// Looks at the files until it is dropped, and reads them again when one has changed.
    pub async fn watch(self: Arc<Self>) {
        if self.file.is_none() {
            return std::future::pending().await;
        }
        let mut interval = tokio::time::interval(WATCH_INTERVAL);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            let security = Arc::clone(&self);
            // A disk that hangs holds up this alone.
            let looked = tokio::task::spawn_blocking(move || security.look()).await;
            if let Err(source) = looked {
                tracing::error!(error = %source, "looking at the web configuration ended by a bug");
            }
        }
    }

    /// Reads the files again if one of them has changed.
    pub(super) fn look(&self) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let now: Vec<Seen> = seen.iter().map(|seen| Seen::now(&seen.file)).collect();
        if now == *seen {
            return;
        }
        // As they were before they are read: what changes meanwhile is a change.
        *seen = now;
        let outcome = read(self.file.as_deref(), &self.counts, &mut seen)
            .and_then(|policy| self.is_enough(&policy).map(|()| policy));
        drop(seen);
        match outcome {
            Ok(policy) => {
                let old = self.policy.swap(Arc::new(policy));
                self.stats.reloaded(true);
                if old.tls.is_some() || self.policy.load().tls.is_some() {
                    self.renewed.send_replace(());
                }
                tracing::info!("read the web configuration again");
            }
            Err(error) => {
                self.stats.reloaded(false);
                tracing::error!(%error, "cannot use the new web configuration; the one before it holds");
            }
        }
    }

    fn is_enough(&self, policy: &Policy) -> Result<(), Error> {
        if self.access == Access::Anybody || self.authority.is_some() || policy.authenticates() {
            return Ok(());
        }
        let open = self.listen.iter().find(|address| !address.ip().to_canonical().is_loopback());
        open.map_or(Ok(()), |address| Err(Error::Open(*address)))
    }

    /// What holds now.
    pub(super) fn policy(&self) -> Arc<Policy> {
        self.policy.load_full()
    }

    /// Told when a connection has to be made again, because TLS is no longer what it was accepted with.
    pub(super) fn renewed(&self) -> watch::Receiver<()> {
        self.renewed.subscribe()
    }

    /// What all answers have beside their own.
    pub(super) fn decorate(policy: &Policy, headers: &mut HeaderMap) {
        for (name, value) in &policy.headers {
            headers.entry(name).or_insert_with(|| value.clone());
        }
    }
}

// === impl Seen ===

impl Seen {
    fn now(file: &Path) -> Self {
        let mark = fs::metadata(file).ok().map(|data| {
            (
                data.dev(),
                data.ino(),
                data.len(),
                [data.mtime(), data.mtime_nsec(), data.ctime(), data.ctime_nsec()],
            )
        });
        Self { file: file.to_owned(), mark }
    }
}

/// What the files say. `seen` becomes all that are named, as they are just before they are read; also when one of them is
/// missing or wrong, so that mending it is a change.
fn read(file: Option<&Path>, counts: &Arc<Counts>, seen: &mut Vec<Seen>) -> Result<Policy, Error> {
    let Some(file) = file else { return Ok(Policy::open()) };
    let web = web_file::WebFile::load(file)?;
    seen.truncate(1);
    seen.extend(web.files().iter().map(|file| Seen::now(file)));
    Policy::new(file, &web, Arc::clone(counts))
}
