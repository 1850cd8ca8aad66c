//! Everybody whose counts there are, at one moment: what a list of owners is made from.

use std::sync::Arc;

use crate::{CgroupKey, Labels, Pod};

/// Every owner that is known, in the order of their ids; an id occurs once.
#[derive(Debug, Default)]
pub struct Roster {
    /// The owners.
    pub owners: Vec<RosterEntry>,
}

/// What an owner is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OwnerKind {
    /// A container, in a pod or outside.
    Container,
    /// A pod's own: its cgroup, its sandbox, its runtime's helpers.
    Pod,
    /// A unit of the node: a service, a slice, any other cgroup.
    Unit,
    /// Kernel threads, and work that no cgroup was charged for.
    Kernel,
    /// Cgroups beyond a limit.
    Overflow,
    /// Cgroups that were gone before anybody could name them.
    Unresolved,
}

/// One owner.
#[derive(Clone, Debug)]
pub struct RosterEntry {
    /// Its id: the same after a restart, on every node, for as long as it is called the same. At most 1,024 bytes of
    /// letters, digits and `._-~=`.
    pub id: String,
    /// What it is.
    pub kind: OwnerKind,
    /// Whether it has a living cgroup; one without is remembered for a while.
    pub is_living: bool,
    /// The labels that its series have.
    pub labels: Labels,
    /// The pod's UID, or the hash of a static pod's file; empty outside pods.
    pub pod_uid: String,
    /// 64 hex digits; of a name's several containers the newest. Empty where it is no container.
    pub container_id: String,
    /// The image as the pod asked for it; empty where it is not known.
    pub image: String,
    /// Kubernetes' word for how the pod's resources are guaranteed; empty where it is not known.
    pub qos: &'static str,
    /// The runtime, where the path tells it.
    pub runtime: &'static str,
    /// What the API server says of the pod.
    pub pod: Option<Arc<Pod>>,
    /// Its living cgroups in the order of their keys, the first [`RosterEntry::CGROUPS_MAX`].
    pub cgroups: Vec<CgroupKey>,
    /// How many living cgroups it has.
    pub cgroup_count: usize,
}

// === impl Roster ===

impl Roster {
    /// The owner with this id.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&RosterEntry> {
        let at = self.owners.binary_search_by(|owner| owner.id.as_str().cmp(id)).ok()?;
        self.owners.get(at)
    }
}

// === impl RosterEntry ===

impl RosterEntry {
    /// Cgroups of one owner that are told: a container has one in each of three hierarchies, and some nest more.
    pub const CGROUPS_MAX: usize = 16;
}

// === impl OwnerKind ===

impl OwnerKind {
    /// Its word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Pod => "pod",
            Self::Unit => "unit",
            Self::Kernel => "kernel",
            Self::Overflow => "overflow",
            Self::Unresolved => "unresolved",
        }
    }
}
