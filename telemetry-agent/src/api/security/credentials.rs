//! Who may ask: users by bcrypt, and bearer tokens.
//!
//! A hash is computed once for each pair of name and password and then remembered, under a keyed hash of all that it
//! depends on. An unknown user costs what a known one does, and what is computed at one time is bounded, so that wrong
//! passwords take no more than [`CONCURRENCY`] CPUs.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use ring::hmac;
use tokio::sync::Semaphore;

use super::Error;
use super::web_file::{WebFile, read};

/// Passwords hashed at one time. Each takes 70 ms of a CPU at the usual cost of 10.
pub const CONCURRENCY: usize = 2;
/// Requests that wait for that.
const WAITING_MAX: usize = 64;
/// Outcomes that are remembered, right ones and wrong ones apart, so that wrong ones push out no right one.
const REMEMBERED_MAX: usize = 1024;
/// Least bytes of a token: 16 characters are guessed by nobody who has to ask us.
const TOKEN_LEN_MIN: usize = 16;

/// Users and tokens, as one version of the files says.
pub(super) struct Credentials {
    users: BTreeMap<String, Arc<str>>,
    /// The most expensive hash of all users, for those that there are none of.
    stranger: Option<Arc<str>>,
    tokens: HashSet<Mac>,
    key: hmac::Key,
    right: Remembered,
    wrong: Remembered,
    computing: Arc<Semaphore>,
    waiting: AtomicUsize,
    counts: Arc<Counts>,
}

/// Counted over all versions.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Hashes of passwords computed.
    pub(super) computed: AtomicU64,
    /// Outcomes forgotten for newer ones.
    pub(super) forgotten: AtomicU64,
}

/// Why a request has no access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Denied {
    /// What it says is wrong.
    Wrong,
    /// Too many passwords wait to be checked.
    Busy,
}

type Mac = [u8; 32];

/// The last outcomes of one kind.
#[derive(Default)]
struct Remembered(Mutex<(HashSet<Mac>, VecDeque<Mac>)>);

// === impl Credentials ===

impl Credentials {
    pub(super) fn new(file: &Path, web: &WebFile, counts: Arc<Counts>) -> Result<Self, Error> {
        let wrong = |what: String| Error::Content { file: file.into(), what };
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &ring::rand::SystemRandom::new())
            .map_err(|_| wrong("the system has no random numbers".to_owned()))?;
        let mut users = BTreeMap::new();
        let mut costs = BTreeMap::new();
        for (name, hash) in web.basic_auth_users.iter().flatten() {
            let place = format!("basic_auth_users.{}", name.escape_debug());
            if name.is_empty() || name.contains(':') {
                return Err(wrong(format!("{place}: a name has no colon and is not empty")));
            }
            let parts: bcrypt::HashParts = hash.reveal().parse().map_err(|_| {
                wrong(format!("{place}: is no bcrypt hash; `htpasswd -nBC 10 NAME` makes one"))
            })?;
            let hash: Arc<str> = hash.reveal().into();
            costs.insert(parts.get_cost(), Arc::clone(&hash));
            users.insert(name.clone(), hash);
        }
        let tokens = match &web.bearer_tokens_file {
            None => HashSet::new(),
            Some(path) => {
                tokens(&read(path)?, &key).map_err(|what| Error::Content { file: path.clone(), what })?
            }
        };
        Ok(Self {
            users,
            stranger: costs.into_values().next_back(),
            tokens,
            key,
            right: Remembered::default(),
            wrong: Remembered::default(),
            computing: Arc::new(Semaphore::new(CONCURRENCY)),
            waiting: AtomicUsize::new(0),
            counts,
        })
    }

    /// Whether anything is asked for.
    pub(super) fn are_needed(&self) -> bool {
        self.has_users() || self.has_tokens()
    }

    /// Whether there are users.
    pub(super) fn has_users(&self) -> bool {
        !self.users.is_empty()
    }

    /// Whether there are tokens.
    pub(super) fn has_tokens(&self) -> bool {
        !self.tokens.is_empty()
    }

    /// Whether this is one of them.
    pub(super) fn has_token(&self, token: &str) -> bool {
        self.tokens.contains(&mac(&self.key, &[token.as_bytes()]))
    }

    /// Holds a name, a colon and a password to the users.
    pub(super) async fn check_password(&self, said: &[u8]) -> Result<(), Denied> {
        let colon = said.iter().position(|byte| *byte == b':').ok_or(Denied::Wrong)?;
        let (name, password) = said.split_at(colon);
        self.check_pair(name, password.get(1..).unwrap_or_default()).await
    }

    async fn check_pair(&self, name: &[u8], password: &[u8]) -> Result<(), Denied> {
        let known = std::str::from_utf8(name).ok().and_then(|name| self.users.get(name));
        let Some(hash) = known.or(self.stranger.as_ref()) else { return Err(Denied::Wrong) };
        let mac = mac(&self.key, &[name, password]);
        if self.right.has(&mac) {
            return Ok(());
        }
        if self.wrong.has(&mac) {
            return Err(Denied::Wrong);
        }
        let is_right = self.compute(password, hash).await? && known.is_some();
        let outcomes = if is_right { &self.right } else { &self.wrong };
        self.counts.forgotten.fetch_add(outcomes.add(mac), Relaxed);
        if is_right { Ok(()) } else { Err(Denied::Wrong) }
    }

    async fn compute(&self, password: &[u8], hash: &Arc<str>) -> Result<bool, Denied> {
        /// Counts one that waits, however the waiting ends.
        struct Waits<'a>(&'a AtomicUsize);
        impl Drop for Waits<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Relaxed);
            }
        }
        if self.waiting.fetch_add(1, Relaxed) >= WAITING_MAX {
            self.waiting.fetch_sub(1, Relaxed);
            return Err(Denied::Busy);
        }
        let _waits = Waits(&self.waiting);
        let permit = Arc::clone(&self.computing).acquire_owned().await.map_err(|_| Denied::Busy)?;
        let (password, hash) = (password.to_vec(), Arc::clone(hash));
        self.counts.computed.fetch_add(1, Relaxed);
        let computed = tokio::task::spawn_blocking(move || {
            // Held for as long as the CPU is, also when the client has gone.
            let _permit = permit;
            bcrypt::verify(password, &hash).unwrap_or(false)
        });
        Ok(computed.await.unwrap_or(false))
    }
}

// === impl Remembered ===

impl Remembered {
    fn has(&self, mac: &Mac) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0.contains(mac)
    }

    /// Takes one in; how many went for it.
    fn add(&self, mac: Mac) -> u64 {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (set, order) = &mut *inner;
        if !set.insert(mac) {
            return 0;
        }
        order.push_back(mac);
        if order.len() <= REMEMBERED_MAX {
            return 0;
        }
        order.pop_front().map_or(0, |oldest| u64::from(set.remove(&oldest)))
    }
}

/// A keyed hash: nobody outside knows the key, so that comparing two tells nothing by its time.
fn mac(key: &hmac::Key, parts: &[&[u8]]) -> Mac {
    let mut context = hmac::Context::with_key(key);
    for part in parts {
        // The length keeps two parts from looking like two others.
        context.update(&part.len().to_le_bytes());
        context.update(part);
    }
    let mut mac = [0; 32];
    mac.iter_mut().zip(context.sign().as_ref()).for_each(|(to, from)| *to = *from);
    mac
}

/// One token a line; empty lines and those that begin with `#` say nothing.
fn tokens(bytes: &[u8], key: &hmac::Key) -> Result<HashSet<Mac>, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "is not UTF-8".to_owned())?;
    let mut tokens = HashSet::new();
    for (at, line) in text.lines().enumerate() {
        let token = line.trim();
        if token.is_empty() || token.starts_with('#') {
            continue;
        }
        if token.len() < TOKEN_LEN_MIN || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(format!(
                "line {}: a token has at least {TOKEN_LEN_MIN} characters of ASCII and no spaces",
                at + 1
            ));
        }
        tokens.insert(mac(key, &[token.as_bytes()]));
    }
    if tokens.is_empty() {
        return Err("holds no token; write one a line".to_owned());
    }
    Ok(tokens)
}
