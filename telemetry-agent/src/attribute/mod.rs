//! Attribution: from a cgroup's id, by way of its path, to an owner and the owner's labels.
//!
//! Works with nothing but the node's own files: no API server, no runtime is asked. A path tells a container by its
//! ids, and the file that its runtime started it from tells its names. What neither says is left open, never guessed.
//! Knows no metric but its own, and no kernel program: the pipeline tells it of cgroups that come and go, and asks it
//! whose a count is.
#![forbid(unsafe_code)]

pub mod bundle;
pub mod cgroupfs;
pub mod directory;
pub mod metrics;
pub mod names;
pub mod nested;
pub mod owner;
pub mod path;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use cgroupfs::{Error, Mode, Mounts, Walked};
pub use directory::{Change, Directory, OwnerId, Renamed, Stats};
pub use metrics::{METRICS, families};
pub use names::Namer;
pub use nested::OwnTree;
pub use owner::{Names, Owner};

/// What an operator may choose about attribution.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Directory below which the cgroup hierarchies are mounted; empty: anywhere the mount table says.
    pub cgroup_root: String,
    /// Directory below which the runtimes' folders are; empty: `/`. An agent in a container has them mounted somewhere.
    pub host_root: String,
    /// How long a cgroup is remembered after its end, so that late events still find their owner and the last
    /// counts of a short life are scraped: five minutes are five scrapes at the usual longest interval.
    #[serde(with = "crate::human_duration")]
    pub tombstone: Duration,
    /// Ended cgroups remembered at most, the oldest forgotten first. At about 100 bytes each the default is 0.8 MB.
    pub tombstones_max: usize,
    /// Whether every series of a pod has the labels `workload` and `workload_type` too. They need the API server; a pod
    /// that it says nothing of within two seconds has them empty, for good.
    pub workload_labels: bool,
    /// Cgroups remembered at most, living and ended, in all hierarchies: the bound of this module's memory.
    pub paths_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            cgroup_root: String::new(),
            host_root: String::new(),
            tombstone: Duration::from_secs(5 * 60),
            tombstones_max: 8192,
            workload_labels: false,
            paths_max: 65536,
        }
    }
}
