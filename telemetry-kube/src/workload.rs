//! What made a pod, read off the pod alone: no other object is asked for.
//!
//! A pod names its controller. A replica set's name is its deployment's and the hash that the pod has as a label; a
//! job's is its cron job's and the time it was due. What is read off a name is marked as inferred.

use std::collections::BTreeMap;
use std::sync::Arc;

use telemetry_model::Workload;

use crate::object::{RawOwner, text};

/// The label whose value a deployment puts at the end of its replica sets' names.
const TEMPLATE_HASH: &str = "pod-template-hash";
/// Digits of a time in minutes, by which cron jobs call their jobs: from 1989 on.
const DUE_DIGITS: std::ops::RangeInclusive<usize> = 8..=9;
/// Digits of a time in seconds, as older ones do.
const OLD_DUE_DIGITS: usize = 10;

fn of_kind(kind: &str, name: &str, is_inferred: bool) -> Workload {
    Workload { kind: text(kind), name: text(name), is_inferred }
}

/// A static pod's is the pod itself.
pub(crate) fn of_static(pod: &Arc<str>) -> Workload {
    of_kind("staticpod", pod, false)
}

/// A pod's, by its controller and its labels.
pub(crate) fn of(pod: &str, owners: &[RawOwner], labels: &BTreeMap<String, String>) -> Workload {
    let Some(owner) = owners.iter().find(|owner| owner.controller == Some(true)) else {
        return of_kind("barepod", pod, false);
    };
    let RawOwner { kind, name, controller: _ } = owner;
    let before = |suffix: &str| name.strip_suffix(suffix)?.strip_suffix('-').filter(|name| !name.is_empty());
    match kind.as_str() {
        "ReplicaSet" => {
            let hash = labels.get(TEMPLATE_HASH).filter(|hash| !hash.is_empty());
            match hash.and_then(|hash| before(hash)) {
                Some(deployment) => of_kind("deployment", deployment, true),
                None => of_kind("replicaset", name, false),
            }
        }
        "Job" => {
            let due = name.rsplit_once('-').filter(|(cron, due)| {
                let is_time = DUE_DIGITS.contains(&due.len()) || due.len() == OLD_DUE_DIGITS;
                !cron.is_empty() && is_time && due.bytes().all(|byte| byte.is_ascii_digit())
            });
            match due {
                Some((cron, _)) => of_kind("cronjob", cron, true),
                None => of_kind("job", name, false),
            }
        }
        other => of_kind(&other.to_ascii_lowercase(), name, false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(kind: &str, name: &str, hash: &str) -> (String, String, bool) {
        let owners = [
            RawOwner { kind: "Other".into(), name: "o".into(), controller: None },
            RawOwner { kind: kind.into(), name: name.into(), controller: Some(true) },
        ];
        let labels = BTreeMap::from([(TEMPLATE_HASH.to_owned(), hash.to_owned())]);
        let found = of("pod", &owners, &labels);
        (found.kind.to_string(), found.name.to_string(), found.is_inferred)
    }

    #[test]
    fn controllers_are_told_and_those_above_them_inferred() {
        for ((kind, name, hash), expected) in [
            (("ReplicaSet", "web-7c9d8f", "7c9d8f"), ("deployment", "web", true)),
            (("ReplicaSet", "a-b-5d", "5d"), ("deployment", "a-b", true)),
            // A replica set that no deployment made.
            (("ReplicaSet", "web", ""), ("replicaset", "web", false)),
            (("ReplicaSet", "web-7c9d8f", "other"), ("replicaset", "web-7c9d8f", false)),
            (("ReplicaSet", "-5d", "5d"), ("replicaset", "-5d", false)),
            (("Job", "backup-29402880", ""), ("cronjob", "backup", true)),
            (("Job", "backup-1764123456", ""), ("cronjob", "backup", true)),
            (("Job", "backup-1", ""), ("job", "backup-1", false)),
            (("Job", "backup-2940288x", ""), ("job", "backup-2940288x", false)),
            (("StatefulSet", "db", ""), ("statefulset", "db", false)),
            (("DaemonSet", "agent", ""), ("daemonset", "agent", false)),
            (("CloneSet", "c", ""), ("cloneset", "c", false)),
        ] {
            let found = workload(kind, name, hash);
            assert_eq!((found.0.as_str(), found.1.as_str(), found.2), expected, "{kind} {name} {hash}");
        }
        assert_eq!(&*of("pod", &[], &BTreeMap::new()).kind, "barepod");
        assert_eq!(&*of_static(&"etcd-n1".into()).kind, "staticpod");
    }
}
