//! What the API server tells of pods: names where no runtime's file gives any, and what a pod is beside its names.
//!
//! A description belongs to the pod of its UID and must agree with what the runtime wrote, or it is another's. It stays
//! for as long as the directory remembers the pod, though the API server has forgotten it.

use std::sync::Arc;
use std::time::Instant;

use telemetry_model::{Digest, Pod as Description, Pods};

use super::naming::Pod;
use super::{Directory, Known, OwnerId};
use crate::attribute::bundle::Bundle;
use crate::attribute::{Names, Owner};

// === impl Pod ===

impl Pod {
    /// Takes a description, unless it is of another pod.
    pub(super) fn describe(&mut self, description: &Arc<Description>) {
        if self.names.pod == description.name && self.names.namespace == description.namespace {
            self.description = Some(Arc::clone(description));
        }
    }
}

// === impl Directory ===

impl Directory {
    /// Takes in the node's pods as they are known now.
    pub fn describe(&mut self, pods: Arc<Pods>, now: Instant) {
        for (uid, pod) in &mut self.pods {
            if let Some(description) = pods.get(uid.as_str()) {
                pod.describe(description);
            }
        }
        self.descriptions = pods;
        self.version += 1;
        let is_unnamed = |known: &Known| {
            known.name.is_none()
                && matches!(&known.owner, Owner::Container { pod_uid, .. }
                    if self.descriptions.contains_key(pod_uid.as_str()))
        };
        let unnamed: Vec<OwnerId> =
            self.owners.iter().filter(|(_, known)| is_unnamed(known)).map(|(id, _)| *id).collect();
        for id in unnamed {
            self.name_by_description(id, now);
        }
        let waiting: Vec<OwnerId> = self.waiting.iter().copied().collect();
        for id in waiting {
            self.complete(id);
        }
    }

    /// What the API server says of the pod with this UID, if it is one that is named.
    #[must_use]
    pub fn description(&self, pod_uid: &str) -> Option<&Arc<Description>> {
        self.pods.get(pod_uid)?.description.as_ref()
    }

    /// Names a container, or a pod's own, that no runtime's file has named.
    pub(super) fn name_by_description(&mut self, id: OwnerId, now: Instant) {
        let Some(Owner::Container { pod_uid, container_id }) = self.owners.get(&id).map(|known| &known.owner)
        else {
            return;
        };
        let Some(description) = self.descriptions.get(pod_uid.as_str()) else { return };
        let wanted = Digest::of_hex(container_id);
        let is_wanted = |id: Option<Digest>| wanted.is_some() && id == wanted;
        let container = description.containers.iter().find(|container| is_wanted(container.id));
        let (name, image) = match container {
            _ if container_id.is_empty() => ("", ""),
            Some(container) => (&*container.name, &*container.image),
            // Its sandbox, one from before a restart, or one that is not told of yet.
            None => return,
        };
        let names = Names {
            namespace: Arc::clone(&description.namespace),
            pod: Arc::clone(&description.name),
            container: name.into(),
        };
        let bundle = Bundle { names, pod_uid: pod_uid.clone(), image: image.to_owned() };
        if bundle.is_plausible() {
            // It is wanted: its owner is there and has no name.
            let _ = self.name(id, &bundle, now);
        }
    }

    /// A named owner that waits for its workload's name has its labels as soon as that is known.
    fn complete(&mut self, id: OwnerId) {
        let Some(known) = self.owners.get(&id) else { return };
        let (Owner::Named(_), Some(details)) = (&known.owner, &known.details) else { return };
        if self.description(&details.pod_uid).is_some() {
            self.settle(id);
        }
    }

    /// The labels of a named owner are final now: with its workload's name, where that is known.
    pub(super) fn settle(&mut self, id: OwnerId) {
        self.waiting.remove(&id);
        self.version += 1;
        let uid = self.owners.get(&id).and_then(|known| known.details.as_ref()).map(|d| d.pod_uid.clone());
        let workload = uid.and_then(|uid| self.description(&uid).map(|pod| pod.workload.clone()));
        if let Some(known) = self.owners.get_mut(&id) {
            known.waits_since = None;
            known.labels = known.owner.labels_with(&workload.unwrap_or_default());
            if let Some(late) = &mut known.late {
                Arc::make_mut(late).labels = known.labels.clone();
            }
        }
    }
}

#[cfg(test)]
mod tests;
