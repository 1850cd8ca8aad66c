//! What is kept, under which names, and how much of it.

/// A named part of the state. Each has limits of its own, and exists on disk from its first record on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Keyspace {
    /// What happened, by time. The oldest go when a limit is met.
    Events,
    /// Since when alerts are pending or firing.
    AlertState,
    /// Which alerts are silent, and until when.
    Silences,
    /// Which notifications were sent.
    Notifications,
    /// How far consumers have read.
    Cursors,
}

/// The most that a keyspace may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Records.
    pub records: u64,
    /// Bytes of keys and framed records.
    pub bytes: u64,
}

/// Everything that can be set about a state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Of the events.
    pub events: Limits,
    /// Of each other keyspace.
    pub others: Limits,
    /// Free bytes of the disk below which nothing is written: a journal that ends inside a record because the disk is
    /// full could cost all of it.
    pub free_floor_bytes: u64,
}

// === impl Keyspace ===

impl Keyspace {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Events, Self::AlertState, Self::Silences, Self::Notifications, Self::Cursors];

    /// Its name on disk and in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::AlertState => "alert_state",
            Self::Silences => "silences",
            Self::Notifications => "notifications",
            Self::Cursors => "cursors",
        }
    }

    /// Whether keys are times and numbers, so that the oldest record is known and goes first.
    #[must_use]
    pub fn is_by_time(self) -> bool {
        self == Self::Events
    }

    pub(super) fn code(self) -> u8 {
        match self {
            Self::Events => 1,
            Self::AlertState => 2,
            Self::Silences => 3,
            Self::Notifications => 4,
            Self::Cursors => 5,
        }
    }
}

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        Self {
            events: Limits { records: 50_000, bytes: 8 << 20 },
            others: Limits { records: 10_000, bytes: 4 << 20 },
            free_floor_bytes: 4 << 20,
        }
    }
}

impl Config {
    /// The limits of a keyspace.
    #[must_use]
    pub fn limits(&self, keyspace: Keyspace) -> Limits {
        if keyspace == Keyspace::Events { self.events } else { self.others }
    }
}
