//! The watch: a list, then changes, for as long as the agent lives.
//!
//! A list is streamed where the server can do that, which takes least memory on both sides; a server that refuses is
//! asked in pages from then on. kube's watcher resumes from the last version it saw, and lists again where that is
//! forgotten; here are the pauses between tries, the limits, and the account of what went wrong.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use telemetry_model::Pods;

use crate::object::{PodObject, Texts};
use crate::{Config, Known, Reason, State, client};

/// Pods of a node that are kept: kubelets start 110 by default and 500 at most.
const PODS_MAX: usize = 4096;
/// Pods in a page of a list.
const PAGE: u32 = 100;
/// The first pause after a failure; each is twice the one before, and a random part of it is waited.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
/// The longest.
const PAUSE_LONGEST: Duration = Duration::from_secs(60);
/// From one piece of a list to the next.
const LIST_LIMIT: Duration = Duration::from_secs(30);
/// A watch is asked for anew after so many seconds, so that a connection that died in silence is noticed.
const WATCH_SECONDS: u32 = 240;

type Events = Pin<Box<dyn Stream<Item = watcher::Result<Event<PodObject>>> + Send>>;

/// Asks and listens until it is dropped.
pub async fn run(config: Config, known: Arc<Known>) {
    known.enter(State::Waiting);
    tokio::time::sleep(random_part(config.start_delay_max)).await;
    let mut pause = Pause::default();
    let mut watch = Watch { config, known, in_pages: false, texts: Texts::default() };
    loop {
        let reason = match client::connect(&watch.config.kubeconfig).await {
            Ok(client) => watch.listen(client, &mut pause).await,
            Err(error) => {
                tracing::warn!(%error, "the API server cannot be asked");
                Reason::Config
            }
        };
        watch.known.fail(reason);
        if reason == Reason::NoStreaming {
            continue;
        }
        watch.known.enter(State::Waiting);
        tokio::time::sleep(pause.next()).await;
    }
}

struct Watch {
    config: Config,
    known: Arc<Known>,
    /// The server does not stream lists.
    in_pages: bool,
    texts: Texts,
}

// === impl Watch ===

impl Watch {
    fn events(&self, client: Client) -> Events {
        let node = format!("spec.nodeName={}", node_name(&self.config.node));
        let wanted = watcher::Config::default().fields(&node).timeout(WATCH_SECONDS);
        let wanted = if self.in_pages { wanted.page_size(PAGE) } else { wanted.streaming_lists() };
        watcher(Api::<PodObject>::all(client), wanted).boxed()
    }

    /// Takes in events until there is no going on. What the watcher mends itself is counted and waited for.
    async fn listen(&mut self, client: Client, pause: &mut Pause) -> Reason {
        let mut events = self.events(client);
        let mut fresh = Some(Pods::new());
        self.known.enter(State::Listing);
        loop {
            let is_listing = fresh.is_some();
            let next = if is_listing {
                match tokio::time::timeout(LIST_LIMIT, events.next()).await {
                    Ok(next) => next,
                    Err(_) => {
                        tracing::warn!("the API server does not go on with its list");
                        return Reason::Slow;
                    }
                }
            } else {
                events.next().await
            };
            match next {
                Some(Ok(event)) => {
                    if self.take(event, &mut fresh) {
                        pause.end();
                    }
                }
                Some(Err(error)) => {
                    let reason = reason_of(&error);
                    if reason == Reason::NoStreaming && is_listing && !self.in_pages {
                        tracing::debug!(%error, "the API server does not stream lists; pages are asked for");
                        self.in_pages = true;
                        self.known.in_pages.store(true, Ordering::Relaxed);
                        return reason;
                    }
                    tracing::warn!(%error, reason = reason.word(), "no news of pods");
                    if is_listing {
                        return reason;
                    }
                    // The watcher goes on from where it was, or lists again.
                    self.known.fail(reason);
                    self.known.enter(State::Waiting);
                    tokio::time::sleep(pause.next()).await;
                }
                None => return Reason::Unreachable,
            }
        }
    }

    /// Whether the event shows that all is well.
    fn take(&mut self, event: Event<PodObject>, fresh: &mut Option<Pods>) -> bool {
        let known = Arc::clone(&self.known);
        known.hear();
        match event {
            Event::Init => {
                known.enter(State::Listing);
                *fresh = Some(Pods::new());
                return false;
            }
            Event::InitApply(object) => {
                self.insert(fresh.get_or_insert_default(), object);
                return false;
            }
            Event::InitDone => {
                known.lists.fetch_add(1, Ordering::Relaxed);
                known.publish(Arc::new(fresh.take().unwrap_or_default()));
            }
            Event::Apply(object) => {
                known.changes.fetch_add(1, Ordering::Relaxed);
                let mut pods = Pods::clone(&known.pods.load());
                self.insert(&mut pods, object);
                known.publish(Arc::new(pods));
            }
            Event::Delete(object) => {
                known.changes.fetch_add(1, Ordering::Relaxed);
                let mut pods = Pods::clone(&known.pods.load());
                pods.remove(object.cgroup_uid());
                known.publish(Arc::new(pods));
            }
        }
        known.enter(State::Watching);
        true
    }

    fn insert(&mut self, pods: &mut Pods, object: PodObject) {
        let uid = Arc::clone(object.cgroup_uid());
        if pods.len() >= PODS_MAX && !pods.contains_key(&uid) {
            self.known.left_out.fetch_add(1, Ordering::Relaxed);
            return;
        }
        pods.insert(uid, Arc::new(object.into_pod(&self.config.pod_labels, &mut self.texts)));
    }
}

/// What the node is called.
fn node_name(configured: &str) -> String {
    if !configured.is_empty() {
        return configured.to_owned();
    }
    let from_pod = std::env::var("NODE_NAME").ok().filter(|name| !name.is_empty());
    let of_host = || std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    from_pod.unwrap_or_else(|| of_host().trim().to_owned())
}

fn reason_of(error: &watcher::Error) -> Reason {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => match error {
            kube::Error::Api(status) => reason_of_status(status.code),
            kube::Error::SerdeError(_) | kube::Error::FromUtf8(_) => Reason::Malformed,
            kube::Error::Auth(_) => Reason::Config,
            _ => Reason::Unreachable,
        },
        watcher::Error::WatchError(status) => reason_of_status(status.code),
        watcher::Error::NoResourceVersion => Reason::Malformed,
    }
}

fn reason_of_status(code: u16) -> Reason {
    match code {
        400 | 422 => Reason::NoStreaming,
        401 | 403 => Reason::Forbidden,
        410 => Reason::Expired,
        429 | 500..=599 => Reason::Server,
        _ => Reason::Malformed,
    }
}

/// How long is waited after a failure.
#[derive(Debug, Default)]
struct Pause(Duration);

// === impl Pause ===

impl Pause {
    /// The next: a random part of twice the one before.
    fn next(&mut self) -> Duration {
        self.0 = self.0.saturating_mul(2).clamp(PAUSE_FIRST, PAUSE_LONGEST);
        random_part(self.0)
    }

    fn end(&mut self) {
        self.0 = Duration::ZERO;
    }
}

/// Between nothing and all of a time. The standard library's hash keys are random, and that is all it takes.
fn random_part(whole: Duration) -> Duration {
    let random = RandomState::new().build_hasher().finish() >> 32;
    let thousandths = u32::try_from(random % 1001).unwrap_or(0);
    whole.saturating_mul(thousandths) / 1000
}

#[cfg(test)]
mod tests;
