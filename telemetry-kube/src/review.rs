//! Whose a token is, and whether he may: a TokenReview, then a SubjectAccessReview of the path.
//!
//! What the API server said holds for a while, so that a scrape costs it nothing: a grant for a minute at most, and no
//! longer than the token was found good; a refusal for ten seconds. Without the API server nothing new is granted. What is
//! asked of it is bounded: so many at one time, so many a second, and the rest is told to come later.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use k8s_openapi::api::authorization::v1::{
    NonResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use kube::api::PostParams;
use kube::{Api, Client};
use ring::hmac;
use telemetry_model::Verdict;
use tokio::sync::{OnceCell, Semaphore};
use tokio::time::timeout_at;

use crate::client::{self, NoClient};

/// How long a good token and a grant hold.
const GOOD_FOR: Duration = Duration::from_secs(60);
/// How long a refusal holds.
const BAD_FOR: Duration = Duration::from_secs(10);
/// Answers of each kind that are kept. Those of good tokens are kept apart, so that wrong ones push out none of them.
const KEPT_MAX: usize = 1024;
/// Bytes of a token that is asked about; a service account's has a thousand.
const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// Reviews at one time.
const CONCURRENCY: usize = 4;
/// Requests that wait for one.
const WAITING_MAX: usize = 64;
/// How long a request may wait for its reviews.
const LIMIT: Duration = Duration::from_secs(5);
/// Reviews a second, after two seconds' worth at once: hundreds of agents ask one API server.
const RATE_MAX: f64 = 20.0;
const BURST: f64 = 2.0 * RATE_MAX;

/// Asks the API server, and keeps what it said.
pub struct Reviews {
    kubeconfig: String,
    audiences: Vec<String>,
    client: OnceCell<Client>,
    key: hmac::Key,
    /// Good tokens, by themselves.
    users: Kept<Mac, Arc<UserInfo>>,
    /// Those that are nobody's.
    strangers: Kept<Mac, ()>,
    /// By token, verb and path.
    grants: Kept<Mac, ()>,
    refusals: Kept<Mac, ()>,
    running: Semaphore,
    waiting: AtomicUsize,
    bucket: Mutex<(f64, Instant)>,
    /// Whether the last review could not be had, so that it is told once.
    is_failing: AtomicBool,
    pub(crate) counts: Counts,
}

/// Counts of reviews.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Of tokens: good ones, bad ones, and those that could not be had.
    pub(crate) tokens: [AtomicU64; 3],
    /// Of access, likewise.
    pub(crate) access: [AtomicU64; 3],
    /// Requests that were told to come later.
    pub(crate) busy: AtomicU64,
    /// Answers that made room before their time.
    pub(crate) forgotten: AtomicU64,
}

type Mac = [u8; 32];

/// Why a review could not be had.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Client(#[from] NoClient),
    #[error("{0}")]
    Asking(#[from] kube::Error),
    #[error("it does not answer within {} s", LIMIT.as_secs())]
    Slow,
    #[error("its answer says nothing")]
    Empty,
}

/// The newest answers of one kind, each with its end.
struct Kept<K, V>(Mutex<Answers<K, V>>);

struct Answers<K, V> {
    answers: HashMap<K, (V, Instant)>,
    /// In the order in which they came.
    order: VecDeque<K>,
}

// === impl Reviews ===

impl Reviews {
    /// For tokens of these audiences; none: the API server's own. Nothing is asked before the first token.
    ///
    /// # Errors
    /// If the system has no random numbers.
    pub fn new(kubeconfig: &str, audiences: Vec<String>) -> Result<Self, String> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &ring::rand::SystemRandom::new())
            .map_err(|_| "the system has no random numbers".to_owned())?;
        Ok(Self {
            kubeconfig: kubeconfig.to_owned(),
            audiences,
            client: OnceCell::new(),
            key,
            users: Kept::default(),
            strangers: Kept::default(),
            grants: Kept::default(),
            refusals: Kept::default(),
            running: Semaphore::new(CONCURRENCY),
            waiting: AtomicUsize::new(0),
            bucket: Mutex::new((BURST, Instant::now())),
            is_failing: AtomicBool::new(false),
            counts: Counts::default(),
        })
    }

    /// Whether the token's owner may do this: `verb` as roles have it, on a path that is no resource's.
    pub async fn check(&self, token: &str, verb: &str, path: &str) -> Verdict {
        if token.is_empty() || token.len() > TOKEN_BYTES_MAX {
            return Verdict::Unknown;
        }
        let keys = (self.mac(&[token]), self.mac(&[token, verb, path]));
        if let Some(verdict) = self.known(&keys) {
            return verdict;
        }
        let Some(_waits) = Waits::begin(&self.waiting) else { return self.busy() };
        match self.review(token, (verb, path), &keys).await {
            Ok(verdict) => {
                if verdict != Verdict::Busy && self.is_failing.swap(false, Relaxed) {
                    tracing::info!("the API server reviews tokens again");
                }
                verdict
            }
            Err(error) => {
                if !self.is_failing.swap(true, Relaxed) {
                    tracing::warn!(%error, "the API server does not say whose a token is; nothing new is granted");
                }
                Verdict::Unavailable
            }
        }
    }

    /// What was said before and still holds.
    fn known(&self, (token, question): &(Mac, Mac)) -> Option<Verdict> {
        let now = Instant::now();
        if self.grants.get(question, now).is_some() {
            return Some(Verdict::Allowed);
        }
        if self.strangers.get(token, now).is_some() {
            return Some(Verdict::Unknown);
        }
        self.refusals.get(question, now).map(|()| Verdict::Forbidden)
    }

    async fn review(
        &self,
        token: &str,
        (verb, path): (&str, &str),
        keys: &(Mac, Mac),
    ) -> Result<Verdict, Failed> {
        let deadline = tokio::time::Instant::now() + LIMIT;
        let Ok(Ok(_turn)) = timeout_at(deadline, self.running.acquire()).await else {
            return Ok(self.busy());
        };
        // Others may have asked the same meanwhile.
        if let Some(verdict) = self.known(keys) {
            return Ok(verdict);
        }
        let (token_key, question) = keys;
        let (user, until) = match self.users.get_until(token_key, Instant::now()) {
            Some(known) => known,
            None => {
                if !self.spend() {
                    return Ok(self.busy());
                }
                let now = Instant::now();
                let said = timeout_at(deadline, self.user_of(token)).await.unwrap_or(Err(Failed::Slow));
                let Some(user) = counted(&self.counts.tokens, said)? else {
                    self.keep(&self.strangers, *token_key, (), now + BAD_FOR);
                    return Ok(Verdict::Unknown);
                };
                let user = Arc::new(user);
                self.keep(&self.users, *token_key, Arc::clone(&user), now + GOOD_FOR);
                (user, now + GOOD_FOR)
            }
        };
        if !self.spend() {
            return Ok(self.busy());
        }
        let now = Instant::now();
        let said = timeout_at(deadline, self.may(&user, verb, path)).await.unwrap_or(Err(Failed::Slow));
        if counted(&self.counts.access, said)?.is_none() {
            self.keep(&self.refusals, *question, (), now + BAD_FOR);
            return Ok(Verdict::Forbidden);
        }
        self.keep(&self.grants, *question, (), until.min(now + GOOD_FOR));
        Ok(Verdict::Allowed)
    }

    /// Whose a token is; none if nobody's, or not for us.
    async fn user_of(&self, token: &str) -> Result<Option<UserInfo>, Failed> {
        let audiences = Some(self.audiences.clone()).filter(|audiences| !audiences.is_empty());
        let spec = TokenReviewSpec { token: Some(token.to_owned()), audiences };
        let review = TokenReview { spec, ..TokenReview::default() };
        let said =
            Api::<TokenReview>::all(self.client().await?).create(&PostParams::default(), &review).await?;
        let status = said.status.ok_or(Failed::Empty)?;
        // A server that knows nothing of audiences names none.
        let is_for_us = self.audiences.is_empty()
            || status.audiences.iter().flatten().any(|audience| self.audiences.contains(audience));
        Ok(status.user.filter(|_| status.authenticated == Some(true) && is_for_us))
    }

    /// Whether he may do this: something or nothing.
    async fn may(&self, user: &UserInfo, verb: &str, path: &str) -> Result<Option<()>, Failed> {
        let UserInfo { extra, groups, uid, username } = user.clone();
        let attributes = NonResourceAttributes { path: Some(path.to_owned()), verb: Some(verb.to_owned()) };
        let spec = SubjectAccessReviewSpec {
            extra,
            groups,
            uid,
            user: username,
            non_resource_attributes: Some(attributes),
            resource_attributes: None,
        };
        let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
        let api = Api::<SubjectAccessReview>::all(self.client().await?);
        let status = api.create(&PostParams::default(), &review).await?.status.ok_or(Failed::Empty)?;
        Ok((status.allowed && status.denied != Some(true)).then_some(()))
    }

    async fn client(&self) -> Result<Client, Failed> {
        Ok(self.client.get_or_try_init(|| client::connect(&self.kubeconfig)).await?.clone())
    }

    /// Takes one of the second's reviews, if there is one left.
    fn spend(&self) -> bool {
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let (tokens, filled) = &mut *bucket;
        let now = Instant::now();
        *tokens = (*tokens + now.duration_since(*filled).as_secs_f64() * RATE_MAX).min(BURST);
        *filled = now;
        let is_left = *tokens >= 1.0;
        *tokens -= if is_left { 1.0 } else { 0.0 };
        is_left
    }

    fn busy(&self) -> Verdict {
        self.counts.busy.fetch_add(1, Relaxed);
        Verdict::Busy
    }

    fn keep<V: Clone>(&self, kept: &Kept<Mac, V>, key: Mac, value: V, until: Instant) {
        self.counts.forgotten.fetch_add(kept.put(key, value, until), Relaxed);
    }

    /// A keyed hash: tokens themselves are not kept, and how long a comparison takes tells nothing of them.
    fn mac(&self, parts: &[&str]) -> Mac {
        let mut context = hmac::Context::with_key(&self.key);
        for part in parts {
            // The length keeps two parts from looking like two others.
            context.update(&part.len().to_le_bytes());
            context.update(part.as_bytes());
        }
        let mut mac = [0; 32];
        mac.iter_mut().zip(context.sign().as_ref()).for_each(|(to, from)| *to = *from);
        mac
    }
}

/// Counts how a review went.
fn counted<T>(counts: &[AtomicU64; 3], outcome: Result<Option<T>, Failed>) -> Result<Option<T>, Failed> {
    let [good, bad, failed] = counts;
    let count = match &outcome {
        Ok(Some(_)) => good,
        Ok(None) => bad,
        Err(_) => failed,
    };
    count.fetch_add(1, Relaxed);
    outcome
}

/// One that waits, however the waiting ends.
struct Waits<'a>(&'a AtomicUsize);

// === impl Waits ===

impl<'a> Waits<'a> {
    fn begin(waiting: &'a AtomicUsize) -> Option<Self> {
        let waits = Self(waiting);
        (waiting.fetch_add(1, Relaxed) < WAITING_MAX).then_some(waits)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

// === impl Kept ===

impl<K, V> Default for Kept<K, V> {
    fn default() -> Self {
        Self(Mutex::new(Answers { answers: HashMap::new(), order: VecDeque::new() }))
    }
}

impl<K: Copy + Eq + Hash, V: Clone> Kept<K, V> {
    fn get(&self, key: &K, now: Instant) -> Option<V> {
        self.get_until(key, now).map(|(value, _)| value)
    }

    fn get_until(&self, key: &K, now: Instant) -> Option<(V, Instant)> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.answers.get(key).filter(|(_, until)| now < *until).cloned()
    }

    /// Takes one in; how many went for it before their time.
    fn put(&self, key: K, value: V, until: Instant) -> u64 {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Answers { answers, order } = &mut *kept;
        if answers.insert(key, (value, until)).is_none() {
            order.push_back(key);
        }
        if order.len() <= KEPT_MAX {
            return 0;
        }
        let gone = order.pop_front().and_then(|oldest| answers.remove(&oldest));
        gone.map_or(0, |(_, until)| u64::from(Instant::now() < until))
    }
}

#[cfg(test)]
mod tests;
