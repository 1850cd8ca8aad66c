//! What can happen, and what is said of it.

use std::time::SystemTime;

use serde_json::{Map, Value, json};
use telemetry_model::clock::Timestamp;
use telemetry_model::{CgroupKey, Hierarchy, Labels};
use telemetry_tsdb::state::{BODY_BYTES_MAX, NewEvent};

/// The word of every kind of event.
pub const KINDS: [&str; 11] = [
    "agent_started",
    "agent_stopped",
    "cgroup_created",
    "cgroup_removed",
    "counts_lost",
    "events_lost",
    "hook_failed",
    "journal_repaired",
    "names_bound",
    "store_degraded",
    "store_recovered",
];

/// An owner, as an event names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whose {
    /// Its id in `/v1/owners`.
    pub id: String,
    /// The labels of its series.
    pub labels: Labels,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub enum News {
    /// The agent counts from here on.
    AgentStarted {
        /// Its version.
        version: &'static str,
    },
    /// The agent was told to stop, and counts no longer.
    AgentStopped,
    /// A cgroup was made.
    CgroupCreated {
        /// Which.
        cgroup: CgroupKey,
        /// Whose it is.
        owner: Whose,
        /// Whether it lies below its container's own.
        is_nested: bool,
    },
    /// A cgroup was removed.
    CgroupRemoved {
        /// Which.
        cgroup: CgroupKey,
        /// Whose it was.
        owner: Whose,
        /// Whether it lay below its container's own.
        is_nested: bool,
    },
    /// Names came after their owner had been shown without: its series go on under them.
    NamesBound {
        /// The owner by its ids.
        from: String,
        /// The owner by its names.
        owner: Whose,
    },
    /// A kernel program that should count does not.
    HookFailed {
        /// The program.
        program: String,
        /// Where it attaches.
        hook: String,
        /// Why.
        reason: String,
    },
    /// The disk refuses: samples are in memory alone.
    StoreDegraded {
        /// What it said.
        reason: String,
    },
    /// What is written reaches the disk again.
    StoreRecovered,
    /// Something was counted elsewhere than it belongs, or not at all.
    CountsLost {
        /// The counter that says so.
        metric: &'static str,
        /// Its labels.
        labels: Labels,
        /// How many since it was told last.
        count: u64,
    },
    /// Events that never came to be written.
    EventsLost {
        /// How many.
        count: u64,
    },
    /// The journal was damaged; what can be read of it goes on.
    JournalRepaired {
        /// Events that were on disk and are gone, at most.
        lost: u64,
        /// Events that are there and cannot be read.
        damaged: u64,
    },
}

// === impl News ===

impl News {
    /// The word of its kind, one of [`KINDS`].
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::AgentStarted { .. } => "agent_started",
            Self::AgentStopped => "agent_stopped",
            Self::CgroupCreated { .. } => "cgroup_created",
            Self::CgroupRemoved { .. } => "cgroup_removed",
            Self::NamesBound { .. } => "names_bound",
            Self::HookFailed { .. } => "hook_failed",
            Self::StoreDegraded { .. } => "store_degraded",
            Self::StoreRecovered => "store_recovered",
            Self::CountsLost { .. } => "counts_lost",
            Self::EventsLost { .. } => "events_lost",
            Self::JournalRepaired { .. } => "journal_repaired",
        }
    }

    pub(super) fn event(&self, at: SystemTime) -> NewEvent {
        let kind = self.kind().to_owned();
        let mut body = self.body().to_string();
        if body.len() > BODY_BYTES_MAX {
            // Only labels are ever so long: an owner has its id all the same.
            body = json!({ "owner": { "id": self.owner_id() }, "is_cut": true }).to_string();
        }
        NewEvent { at_ms: Timestamp::of(at).0, kind, body }
    }

    fn body(&self) -> Value {
        match self {
            Self::AgentStarted { version } => json!({ "version": version }),
            Self::AgentStopped | Self::StoreRecovered => json!({}),
            Self::CgroupCreated { cgroup, owner, is_nested }
            | Self::CgroupRemoved { cgroup, owner, is_nested } => json!({
                "cgroup": { "hierarchy": hierarchy(cgroup.hierarchy), "id": cgroup.id.to_string() },
                "owner": owner.body(),
                "is_nested": is_nested,
            }),
            Self::NamesBound { from, owner } => json!({ "from": from, "owner": owner.body() }),
            Self::HookFailed { program, hook, reason } => {
                json!({ "program": program, "hook": hook, "reason": short(reason) })
            }
            Self::StoreDegraded { reason } => json!({ "reason": short(reason) }),
            Self::CountsLost { metric, labels, count } => {
                json!({ "metric": metric, "labels": pairs(labels), "count": count })
            }
            Self::EventsLost { count } => json!({ "count": count }),
            Self::JournalRepaired { lost, damaged } => json!({ "lost": lost, "damaged": damaged }),
        }
    }

    fn owner_id(&self) -> &str {
        match self {
            Self::CgroupCreated { owner, .. }
            | Self::CgroupRemoved { owner, .. }
            | Self::NamesBound { owner, .. } => &owner.id,
            _ => "",
        }
    }
}

// === impl Whose ===

impl Whose {
    fn body(&self) -> Value {
        json!({ "id": self.id, "labels": pairs(&self.labels) })
    }
}

/// Labels by their names, without those that are empty.
fn pairs(labels: &Labels) -> Map<String, Value> {
    let told = labels.iter().filter(|label| !label.value.is_empty());
    told.map(|label| (label.name.to_string(), Value::from(label.value.to_string()))).collect()
}

fn hierarchy(hierarchy: Hierarchy) -> &'static str {
    match hierarchy {
        Hierarchy::Unified => "unified",
        Hierarchy::Cpu => "cpu",
        Hierarchy::Blkio => "blkio",
    }
}

/// A reason of the system's, within what an event may hold.
fn short(reason: &str) -> String {
    const CHARACTERS_MAX: usize = 500;
    reason.chars().take(CHARACTERS_MAX).collect()
}
