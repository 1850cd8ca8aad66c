//! A pod as the API server describes it: what may be said of it beside its names.

use std::collections::BTreeMap;
use std::fmt;
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
    /// What 64 hex digits of its id say; none until it was started.
    pub id: Option<Digest>,
    /// The image as the pod asks for it.
    pub image: Arc<str>,
    /// The image's SHA-256; none where the runtime knows none.
    pub image_digest: Option<Digest>,
}

/// What 64 hex digits say: half as long, and many pods have many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest(pub [u8; 32]);

// === impl Digest ===

impl Digest {
    /// From 64 hex digits and nothing else.
    #[must_use]
    pub fn of_hex(digits: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        let digits = digits.as_bytes();
        if digits.len() != 2 * bytes.len() || !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok())?;
        }
        Some(Self(bytes))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

// === impl Workload ===

impl Default for Workload {
    fn default() -> Self {
        Self { kind: "".into(), name: "".into(), is_inferred: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_64_hex_digits() {
        let digits = "22ebc6fd6681fe43a65f392647adf215c94c4e263bbbd7cbd4cce0980022bfb7";
        assert_eq!(Digest::of_hex(digits).unwrap().to_string(), digits);
        for bad in ["", "22", &digits[1..], &format!("{digits}0"), &digits.replace('f', "g"), &"é".repeat(32)]
        {
            assert_eq!(Digest::of_hex(bad), None, "{bad}");
        }
    }
}
