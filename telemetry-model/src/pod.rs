//! A pod as the API server describes it: what may be said of it beside its names.

use std::collections::BTreeMap;
use std::sync::Arc;

/// The pods of a node at one moment, by the UID that their cgroups are called by.
pub type Pods = BTreeMap<Arc<str>, Arc<Pod>>;

/// A pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    /// What its cgroup is called by: its UID, or of a static pod the hash of its file.
    pub cgroup_uid: Arc<str>,
    /// Its UID for the API server; of a static pod its mirror's.
    pub uid: Arc<str>,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// What made it.
    pub workload: Workload,
    /// Its address; empty until it has one.
    pub ip: Arc<str>,
    /// Whether it has the node's network.
    pub host_network: bool,
    /// Whom it is to the API server.
    pub service_account: Arc<str>,
    /// Its labels, those that were asked for.
    pub labels: Vec<(Arc<str>, Arc<str>)>,
    /// Its containers, initial and ephemeral ones too.
    pub containers: Vec<PodContainer>,
}

/// What made a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// `deployment`, `statefulset`, `daemonset`, `replicaset`, `job`, `cronjob`, `staticpod`, `barepod`, or the kind of
    /// another controller in small letters.
    pub kind: Arc<str>,
    /// Its name; a bare pod's is the pod's.
    pub name: Arc<str>,
    /// Read off the name of what it made, and not said by the API server.
    pub is_inferred: bool,
}

/// A container of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodContainer {
    /// Its name.
    pub name: Arc<str>,
    /// 64 hex digits; empty until it was started.
    pub id: Arc<str>,
    /// The image as the pod asks for it.
    pub image: Arc<str>,
    /// `sha256:` and 64 hex digits; empty where the runtime knows none.
    pub image_digest: Arc<str>,
}

// === impl Workload ===

impl Default for Workload {
    fn default() -> Self {
        Self { kind: "".into(), name: "".into(), is_inferred: false }
    }
}
