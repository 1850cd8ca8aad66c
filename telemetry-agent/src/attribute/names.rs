//! Reads what runtimes write about their containers, for every container that comes.
//!
//! A few files at once, right after births were taken in: the file is there before the cgroup is, and may be gone with a
//! container that lived 80 ms. What cannot be read is tried again, farther and farther apart, a bounded number of times.
//! The only I/O of attribution beside the walk; the pipeline calls it, between ticks.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use telemetry_model::{Histogram, Layout};

use super::bundle::{self, Bundle, Candidate, Refusal};
use super::directory::{Directory, OwnerId, Refused, Wanted};

/// Files read at one time before the pipeline looks at its schedule again: 30 µs each.
const READS_AT_ONCE: usize = 64;
/// A file that could not be read is tried again after this, and then after twice the time each.
const RETRY_FIRST: Duration = Duration::from_millis(10);
/// The longest time between two tries.
const RETRY_LONGEST: Duration = Duration::from_secs(60);
/// Tries at most: ten minutes of them.
const TRIES_MAX: u32 = 20;

/// Microseconds to minutes.
static LAYOUT: Layout = Layout { schema: 2, low_octave: -22, high_octave: 10 };

/// What became of reading a container's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The container has its names.
    Named,
    /// No runtime that is known has written anything.
    Absent,
    /// The file is there and cannot be read.
    Unreadable,
    /// It has more than [`bundle::BYTES_MAX`] bytes.
    TooLarge,
    /// It is not what its name promises.
    Malformed,
    /// It tells of no pod.
    NoPod,
    /// It tells of another pod than the cgroup's path.
    OtherPod,
}

/// Reads names, and knows when to try again.
#[derive(Debug)]
pub struct Namer {
    host_root: PathBuf,
    /// The next first. An owner is in it once.
    due: BinaryHeap<Reverse<Due>>,
    counts: [u64; Outcome::ALL.len()],
    latency: Arc<Histogram>,
}

/// When to try what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    at: Instant,
    owner: OwnerId,
    tries: u32,
}

// === impl Outcome ===

impl Outcome {
    /// Every one, in the order of their counters.
    pub const ALL: [Self; 7] = [
        Self::Named,
        Self::Absent,
        Self::Unreadable,
        Self::TooLarge,
        Self::Malformed,
        Self::NoPod,
        Self::OtherPod,
    ];

    /// Its label value.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Named => "named",
            Self::Absent => "absent",
            Self::Unreadable => "unreadable",
            Self::TooLarge => "too_large",
            Self::Malformed => "malformed",
            Self::NoPod => "no_pod",
            Self::OtherPod => "other_pod",
        }
    }

    /// Whether another try may end better: what is whole and says something else will not change.
    fn may_change(self) -> bool {
        matches!(self, Self::Absent | Self::Unreadable | Self::Malformed)
    }
}

// === impl Namer ===

impl Namer {
    /// One that reads below the host's root, which is `/` where `host_root` is empty.
    #[must_use]
    pub fn new(host_root: &str) -> Self {
        let host_root = if host_root.is_empty() { "/" } else { host_root };
        Self {
            host_root: host_root.into(),
            due: BinaryHeap::new(),
            counts: [0; Outcome::ALL.len()],
            latency: Arc::new(Histogram::new(&LAYOUT)),
        }
    }

    /// Reads files that are due, a few at once. True: more are due.
    pub fn work(&mut self, directory: &mut Directory, now: Instant) -> bool {
        for owner in directory.take_unread() {
            self.due.push(Reverse(Due { at: now, owner, tries: 0 }));
        }
        for _ in 0..READS_AT_ONCE {
            let Some(Reverse(next)) = self.due.peek().copied().filter(|next| next.0.at <= now) else {
                return false;
            };
            self.due.pop();
            let Some(wanted) = directory.wanted(next.owner) else { continue };
            let outcome = self.try_to_name(directory, next.owner, &wanted, now);
            self.count(outcome);
            let tries = next.tries + 1;
            if outcome == Outcome::Named {
                self.observe(&wanted);
            } else if outcome.may_change() && tries < TRIES_MAX {
                let wait = RETRY_FIRST.saturating_mul(1 << next.tries).min(RETRY_LONGEST);
                self.due.push(Reverse(Due { at: now + wait, owner: next.owner, tries }));
            } else {
                directory.expose(next.owner);
            }
        }
        self.due.peek().is_some_and(|next| next.0.at <= now)
    }

    /// When the next file is due.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        self.due.peek().map(|next| next.0.at)
    }

    /// What became of all tries so far.
    pub fn counts(&self) -> impl Iterator<Item = (Outcome, u64)> + '_ {
        Outcome::ALL.into_iter().zip(self.counts)
    }

    /// Time from a cgroup's creation to its names, of those whose creation was announced.
    #[must_use]
    pub fn latency(&self) -> &Arc<Histogram> {
        &self.latency
    }

    fn try_to_name(
        &self,
        directory: &mut Directory,
        owner: OwnerId,
        wanted: &Wanted,
        now: Instant,
    ) -> Outcome {
        let bundle = match self.read(wanted) {
            Ok(bundle) => bundle,
            Err(outcome) => return outcome,
        };
        match directory.name(owner, &bundle, now) {
            // Whom nobody waits for any more needs no second try either.
            Ok(()) | Err(Refused::NotWanted) => Outcome::Named,
            Err(Refused::OtherPod) => Outcome::OtherPod,
        }
    }

    /// The first file that there is decides: an id is one container's.
    fn read(&self, wanted: &Wanted) -> Result<Bundle, Outcome> {
        let Wanted { container_id, runtime, born: _ } = wanted;
        for Candidate { file, format } in bundle::candidates(&self.host_root, runtime, container_id) {
            let bytes = match read_bounded(&file) {
                Ok(bytes) => bytes,
                Err(error) if is_absent(&error) => continue,
                Err(error) => {
                    tracing::debug!(file = %file.display(), %error, "a container's file cannot be read");
                    return Err(Outcome::Unreadable);
                }
            };
            if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > bundle::BYTES_MAX {
                return Err(Outcome::TooLarge);
            }
            return bundle::parse(&bytes, format).map_err(|refusal| match refusal {
                Refusal::Malformed => Outcome::Malformed,
                Refusal::NoPod => Outcome::NoPod,
            });
        }
        Err(Outcome::Absent)
    }

    fn count(&mut self, outcome: Outcome) {
        let at = Outcome::ALL.iter().position(|one| *one == outcome);
        if let Some(count) = at.and_then(|at| self.counts.get_mut(at)) {
            *count += 1;
        }
    }

    fn observe(&mut self, wanted: &Wanted) {
        if let Some(born) = wanted.born {
            Arc::make_mut(&mut self.latency).observe(born.elapsed().as_secs_f64());
        }
    }
}

/// A byte more than allowed tells a file that is too large.
fn read_bounded(file: &Path) -> io::Result<Vec<u8>> {
    // A pipe in a file's place must not hold the pipeline up.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(file)?;
    let mut bytes = Vec::with_capacity(8192);
    file.take(bundle::BYTES_MAX + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests;
