//! What one tick found: increments keyed by what the kernel knows, before anybody gave them a name.

use crate::{Desc, Labels, Layout};

/// The increments of one tick.
#[derive(Debug, Default)]
pub struct Batch {
    /// In the order they were found. Rows with the same owner, family and labels add up.
    pub rows: Vec<Row>,
}

/// What one family grew by, for one owner.
#[derive(Debug)]
pub struct Row {
    /// Whose it is, as the kernel knows it.
    pub owner: OwnerKey,
    /// The family.
    pub desc: &'static Desc,
    /// The family's own labels.
    pub labels: Labels,
    /// By how much.
    pub increment: Increment,
}

/// By how much a series grew since the last tick. Raw: nanoseconds where the family's unit is seconds.
#[derive(Debug)]
pub enum Increment {
    /// A counter's growth.
    Count(u64),
    /// A histogram's growth: observations bin by bin, and their raw sum.
    Bins {
        /// Where the bins lie.
        layout: &'static Layout,
        /// Observations: zero bin, inner bins, overflow bin.
        bins: Box<[u32]>,
        /// Raw sum of the observed values.
        sum: u64,
    },
}

/// Whose work it was, as the kernel side knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum OwnerKey {
    /// A cgroup.
    Cgroup(CgroupKey),
    /// Kernel threads, and work that no cgroup was charged for.
    Kernel,
    /// Cgroups beyond the kernel side's slots.
    Overflow,
}

/// A cgroup's id and the hierarchy that the id counts in: ids of two hierarchies are not comparable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CgroupKey {
    /// The hierarchy.
    pub hierarchy: Hierarchy,
    /// The kernfs id, which is the inode number of the cgroup's directory.
    pub id: u64,
}

/// The cgroup hierarchies that owners are found in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Hierarchy {
    /// Version 2, the only one on most hosts.
    Unified,
    /// Version 1 with the `cpu` controller: owns tasks on hosts without version 2 groups.
    Cpu,
    /// Version 1 with the `blkio` controller: owns requests where it is mounted.
    Blkio,
}

// === impl CgroupKey ===

impl CgroupKey {
    /// The id of every hierarchy's root directory.
    pub const ROOT_ID: u64 = 1;

    /// Whether it is the root of its hierarchy.
    #[must_use]
    pub fn is_root(self) -> bool {
        self.id == Self::ROOT_ID
    }
}
