//! Names of owners: a container that a path tells by its ids gets those of its pod and its own.
//!
//! Counts then go to the owner of that name, which every container of the name shares: the next after a restart, and
//! for the pod's own the sandbox and the runtime's helpers. A name is taken only if the file it stands in agrees with
//! the path about the pod, so that nobody is ever counted as somebody else. What waits too long for a name is exposed
//! under its ids; where the name comes after all, its series move, and what is stored is read under the name.

use std::sync::Arc;
use std::time::{Duration, Instant};

use telemetry_model::LateOwner;

use super::{Directory, Known, OwnerId};
use crate::attribute::bundle::Bundle;
use crate::attribute::{Names, Owner};

/// What is known of an owner beside its names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// The pod's UID, or the hash of a static pod's file.
    pub pod_uid: String,
    /// 64 hex digits; empty for a pod.
    pub container_id: String,
    /// The image as the pod asked for it; empty where it is not known.
    pub image: String,
    /// Kubernetes' word for how the pod's resources are guaranteed; empty where the path does not tell.
    pub qos: &'static str,
    /// The runtime, where the path tells it.
    pub runtime: &'static str,
}

/// A container whose names are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// 64 hex digits.
    pub container_id: String,
    /// The runtime, where the path tells it.
    pub runtime: &'static str,
    /// When the kernel said that its cgroup was made; none for one that was found by a walk.
    pub born: Option<Instant>,
}

/// An owner was exposed under its ids and has a name now: its series are to be added to those of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renamed {
    /// The owner by ids.
    pub from: OwnerId,
    /// The owner by name.
    pub to: OwnerId,
}

/// Why a name is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The file names another pod than the cgroup's path.
    OtherPod,
    /// The owner is gone, or has its names.
    NotWanted,
}

/// A pod of which any container's names are known.
#[derive(Debug)]
pub(super) struct Pod {
    pub(super) names: Names,
    /// What the API server says of it.
    pub(super) description: Option<Arc<telemetry_model::Pod>>,
    /// Owners by path that are named and of this pod.
    pub(super) references: usize,
}

// === impl Directory ===

impl Directory {
    /// Containers that came since the last call and whose names are not known.
    pub fn take_unread(&mut self) -> Vec<OwnerId> {
        std::mem::take(&mut self.unread)
    }

    /// What is wanted of a container; nothing if it is gone or named.
    #[must_use]
    pub fn wanted(&self, id: OwnerId) -> Option<Wanted> {
        let known = self.owners.get(&id).filter(|known| known.name.is_none())?;
        let Owner::Container { container_id, .. } = &known.owner else { return None };
        let runtime = known.details.as_ref().map_or("", |details| details.runtime);
        Some(Wanted { container_id: container_id.clone(), runtime, born: known.born })
    }

    /// Whether the owner's series must not be shown yet, because its names may still come.
    #[must_use]
    pub fn is_waiting(&self, id: OwnerId) -> bool {
        self.owners.get(&id).is_some_and(|known| known.waits_since.is_some())
    }

    /// The number under which an owner is stored that was exposed before its names were known.
    #[must_use]
    pub fn late(&self, id: OwnerId) -> Option<&Arc<LateOwner>> {
        self.owners.get(&id)?.late.as_ref()
    }

    /// Gives a container the names that its runtime wrote, and its pod the pod's.
    ///
    /// # Errors
    /// If the names are another pod's, or nobody waits for them.
    pub fn name(&mut self, id: OwnerId, bundle: &Bundle, now: Instant) -> Result<(), Refused> {
        let known = self.owners.get(&id).filter(|known| known.name.is_none()).ok_or(Refused::NotWanted)?;
        let Owner::Container { pod_uid, container_id } = &known.owner else { return Err(Refused::NotWanted) };
        if !bundle.pod_uid.is_empty() && bundle.pod_uid != *pod_uid {
            return Err(Refused::OtherPod);
        }
        let pod_uid = pod_uid.clone();
        let is_sandbox = bundle.names.container.is_empty();
        let container_id = if is_sandbox { String::new() } else { container_id.clone() };
        self.bind(id, bundle.names.clone(), &pod_uid, (container_id, bundle.image.clone()), now);
        let own = Owner::Container { pod_uid: pod_uid.clone(), container_id: String::new() };
        if let Some(&pod) = self.ids.get(&own)
            && self.owners.get(&pod).is_some_and(|known| known.name.is_none())
        {
            let names = Names { container: "".into(), ..bundle.names.clone() };
            self.bind(pod, names, &pod_uid, Default::default(), now);
        }
        Ok(())
    }

    /// No name will come: what waited for it is shown under its ids.
    pub fn expose(&mut self, id: OwnerId) {
        self.waiting.remove(&id);
        let Some(known) = self.owners.get_mut(&id).filter(|known| known.waits_since.is_some()) else {
            return;
        };
        if matches!(known.owner, Owner::Named(_)) {
            // What made its pod is not told: it goes without.
            self.settle(id);
            return;
        }
        known.waits_since = None;
        known.late =
            Some(Arc::new(LateOwner { number: id.0, labels: known.labels.clone(), is_bound: false }));
        self.stats.exposed_unnamed_total += 1;
    }

    /// Exposes every owner that has waited for `patience`.
    pub fn expose_due(&mut self, now: Instant, patience: Duration) {
        let is_due = |id: &OwnerId| {
            let since = self.owners.get(id).and_then(|known| known.waits_since);
            since.is_none_or(|since| now.saturating_duration_since(since) >= patience)
        };
        let due: Vec<OwnerId> = self.waiting.iter().copied().filter(is_due).collect();
        due.into_iter().for_each(|id| self.expose(id));
    }

    /// Owners that got their names after they were exposed, since the last call.
    #[must_use = "their series must move"]
    pub fn take_renamed(&mut self) -> Vec<Renamed> {
        std::mem::take(&mut self.renamed)
    }

    /// Everything known of named owners.
    pub fn named(&self) -> impl Iterator<Item = (&Names, &Details)> {
        self.owners.values().filter_map(|known| match (&known.owner, &known.details) {
            (Owner::Named(names), Some(details)) => Some((names, &**details)),
            _ => None,
        })
    }

    /// Whose the counts of an owner by path are.
    pub(super) fn by_name(&self, id: OwnerId) -> OwnerId {
        self.owners.get(&id).and_then(|known| known.name).unwrap_or(id)
    }

    /// Begins to wait for the names of a new owner, if it is of a pod.
    pub(super) fn wait_for_names(
        &mut self,
        id: OwnerId,
        details: impl FnOnce() -> Details,
        born: Option<Instant>,
        now: Instant,
    ) {
        let Some(known) = self.owners.get_mut(&id) else { return };
        // A container outside pods has no names: its path tells all there is.
        let Owner::Container { pod_uid, container_id } = &known.owner else { return };
        if pod_uid.is_empty() {
            return;
        }
        known.born = born;
        known.details = Some(Arc::new(details()));
        known.waits_since = Some(now);
        self.waiting.insert(id);
        if !container_id.is_empty() {
            self.unread.push(id);
        } else if let Some(pod) = self.pods.get(pod_uid) {
            let (names, pod_uid) = (pod.names.clone(), pod_uid.clone());
            self.bind(id, names, &pod_uid, Default::default(), now);
        } else {
            self.name_by_description(id, now);
        }
    }

    /// Labels of a new named owner are not final before what made its pod is known.
    fn wait_for_workload(&mut self, id: OwnerId, pod_uid: &str, now: Instant) {
        if self.description(pod_uid).is_some() {
            self.settle(id);
        } else if let Some(known) = self.owners.get_mut(&id) {
            known.waits_since = Some(now);
            self.waiting.insert(id);
        }
    }

    /// An owner is gone, and with it what it meant for names.
    pub(super) fn forget_name(&mut self, id: OwnerId, known: &Known) {
        self.waiting.remove(&id);
        let Some(name) = known.name else { return };
        self.release(name);
        if let Owner::Container { pod_uid, .. } = &known.owner
            && let Some(pod) = self.pods.get_mut(pod_uid)
        {
            pod.references -= 1;
            if pod.references == 0 {
                self.pods.remove(pod_uid);
            }
        }
    }

    /// Gives an owner by path its names. `(container_id, image)` are the container's.
    fn bind(
        &mut self,
        id: OwnerId,
        names: Names,
        pod_uid: &str,
        (container_id, image): (String, String),
        now: Instant,
    ) {
        let Some(known) = self.owners.get_mut(&id) else { return };
        let was_exposed = known.late.is_some();
        self.version += 1;
        known.waits_since = None;
        let by_path = known.details.take();
        let (qos, runtime) = by_path.map_or(("", ""), |details| (details.qos, details.runtime));
        self.waiting.remove(&id);
        let is_container = !names.container.is_empty();
        let pod_names = Names { container: "".into(), ..names.clone() };
        let fresh = Pod { names: pod_names, description: None, references: 0 };
        let pod = self.pods.entry(pod_uid.to_owned()).or_insert(fresh);
        pod.references += 1;
        if let Some(description) = self.descriptions.get(pod_uid) {
            pod.describe(description);
        }

        let owner = Owner::Named(names);
        let (to, is_new) = match self.ids.get(&owner) {
            Some(&to) => (to, false),
            None => {
                let to = OwnerId(self.next_owner);
                self.next_owner += 1;
                self.enter(to, owner);
                (to, true)
            }
        };
        if let Some(known) = self.owners.get_mut(&id) {
            known.name = Some(to);
        }
        if let Some(named) = self.owners.get_mut(&to) {
            named.references += usize::from(!is_new);
            if was_exposed && is_new {
                // What is stored under the ids becomes the named one's; beside another's it would be counted as that.
                let labels = named.labels.clone();
                named.late = Some(Arc::new(LateOwner { number: id.0, labels, is_bound: true }));
            }
            // A sandbox and its pod are one owner, which has no container and no image.
            let (container_id, image) = if is_container { (container_id, image) } else { Default::default() };
            let details = Details { pod_uid: pod_uid.to_owned(), container_id, image, qos, runtime };
            named.details = Some(Arc::new(details));
        }
        if is_new && self.has_workload_labels {
            self.wait_for_workload(to, pod_uid, now);
        }
        if was_exposed {
            self.stats.late_bound_total += 1;
            self.renamed.push(Renamed { from: id, to });
        }
    }
}

#[cfg(test)]
mod tests;
