//! Who there is, and which cgroups came and went: what lists and events tell of the directory.

use std::collections::HashMap;

use telemetry_model::{CgroupKey, OwnerKind, Roster, RosterEntry};

use super::{Directory, Known, OwnerId};
use crate::attribute::{Names, Owner};

/// Changes kept until they are taken: as many as one reading of the kernel's announcements tells.
const CHANGES_MAX: usize = 8192;
/// Changes that there is room for while there are none.
const CHANGES_USUAL: usize = 64;
/// Bytes of an id before it is cut and told apart by a checksum.
const ID_BYTES_MAX: usize = 900;
/// What parts of an id are joined by; no part has it.
const JOINT: char = '~';

/// A cgroup came or went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Which.
    pub cgroup: CgroupKey,
    /// Whose it is by its path.
    pub owner: OwnerId,
    /// Whether it came; else it went.
    pub is_birth: bool,
    /// Whether it lies below its container's own cgroup.
    pub is_nested: bool,
}

// === impl Directory ===

impl Directory {
    /// Another number whenever [`Directory::roster`] would show something else.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Cgroups that came and went since the last call, in that order, and how many more there were.
    pub fn take_changes(&mut self) -> (Vec<Change>, u64) {
        let changes = self.changes.drain(..).collect();
        // Room for what usually comes stays.
        self.changes.shrink_to(CHANGES_USUAL);
        (changes, std::mem::take(&mut self.changes_lost))
    }

    /// Everybody that is known: of what has a name, the name alone.
    #[must_use]
    pub fn roster(&self) -> Roster {
        let mut cgroups: HashMap<OwnerId, Vec<CgroupKey>> = HashMap::new();
        for (key, cgroup) in self.cgroups.iter().filter(|(_, cgroup)| cgroup.grave.is_none()) {
            cgroups.entry(self.by_name(cgroup.owner)).or_default().push(*key);
        }
        let is_shown = |known: &Known| known.name.is_none();
        let mut owners: Vec<RosterEntry> = self
            .owners
            .iter()
            .filter(|(_, known)| is_shown(known))
            .map(|(id, known)| self.entry(known, cgroups.remove(id).unwrap_or_default()))
            .collect();
        owners.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        owners.dedup_by(|later, first| later.id == first.id);
        Roster { owners }
    }

    /// Who an owner by path is, by its name where that is known; none if it is forgotten.
    #[must_use]
    pub fn named_owner(&self, id: OwnerId) -> Option<(OwnerId, &Owner)> {
        let id = self.by_name(id);
        self.owner(id).map(|owner| (id, owner))
    }

    pub(super) fn note_birth(&mut self, key: CgroupKey) {
        if let Some(cgroup) = self.cgroups.get(&key) {
            let (owner, is_nested) = (cgroup.owner, cgroup.is_nested);
            self.note(Change { cgroup: key, owner, is_birth: true, is_nested });
        }
    }

    pub(super) fn note_death(&mut self, key: CgroupKey, owner: OwnerId) {
        let is_nested = self.cgroups.get(&key).is_some_and(|cgroup| cgroup.is_nested);
        self.version += 1;
        self.note(Change { cgroup: key, owner, is_birth: false, is_nested });
    }

    fn note(&mut self, change: Change) {
        if self.changes.len() < CHANGES_MAX {
            self.changes.push(change);
        } else {
            self.changes_lost += 1;
        }
    }

    fn entry(&self, known: &Known, mut cgroups: Vec<CgroupKey>) -> RosterEntry {
        let cgroup_count = cgroups.len();
        cgroups.sort_unstable();
        cgroups.truncate(RosterEntry::CGROUPS_MAX);
        let details = known.details.as_deref().cloned().unwrap_or_default();
        let (mut pod_uid, mut container_id) = (details.pod_uid, details.container_id);
        if let Owner::Container { pod_uid: uid, container_id: id } = &known.owner {
            (pod_uid, container_id) = (uid.clone(), id.clone());
        }
        RosterEntry {
            id: known.owner.id(),
            kind: known.owner.kind(),
            is_living: cgroup_count > 0 || known.owner.is_fixed(),
            labels: known.labels.clone(),
            pod: self.description(&pod_uid).cloned(),
            pod_uid,
            container_id,
            image: details.image,
            qos: details.qos,
            runtime: details.runtime,
            cgroups,
            cgroup_count,
        }
    }
}

// === impl Owner ===

impl Owner {
    /// What it is called in addresses: the same for as long as its names are, readable, and whole without an escape.
    #[must_use]
    pub fn id(&self) -> String {
        let joined = |parts: &[&str]| {
            let parts: Vec<String> = parts.iter().map(|part| plain(part)).collect();
            bounded(parts.join(&JOINT.to_string()))
        };
        match self {
            Self::Named(Names { namespace, pod, container }) if container.is_empty() => {
                joined(&["pod", namespace, pod])
            }
            Self::Named(Names { namespace, pod, container }) => {
                joined(&["container", namespace, pod, container])
            }
            Self::Container { pod_uid, container_id } if container_id.is_empty() => {
                joined(&["pod-uid", pod_uid])
            }
            Self::Container { container_id, .. } => joined(&["container-id", container_id]),
            Self::Unit(unit) => joined(&["unit", unit]),
            Self::Kernel => "kernel".to_owned(),
            Self::Overflow => "overflow".to_owned(),
            Self::Unresolved => "unresolved".to_owned(),
        }
    }

    /// What it is.
    #[must_use]
    pub fn kind(&self) -> OwnerKind {
        match self {
            Self::Named(names) if names.container.is_empty() => OwnerKind::Pod,
            Self::Container { container_id, .. } if container_id.is_empty() => OwnerKind::Pod,
            Self::Named(_) | Self::Container { .. } => OwnerKind::Container,
            Self::Unit(_) => OwnerKind::Unit,
            Self::Kernel => OwnerKind::Kernel,
            Self::Overflow => OwnerKind::Overflow,
            Self::Unresolved => OwnerKind::Unresolved,
        }
    }

    /// Whether it is there without any cgroup.
    fn is_fixed(&self) -> bool {
        matches!(self, Self::Kernel | Self::Overflow | Self::Unresolved) || *self == Self::Unit("/".into())
    }
}

/// Letters, digits and `._-` stay; every other byte becomes `=` and two hex digits.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'.' | b'_' | b'-' => out.push(char::from(byte)),
            _ => out.push_str(&format!("={byte:02X}")),
        }
    }
    out
}

/// An id of endless parts is cut; two joints and a checksum tell it from every whole one.
fn bounded(id: String) -> String {
    if id.len() <= ID_BYTES_MAX {
        return id;
    }
    let sum = crc32c::crc32c(id.as_bytes());
    format!("{}{JOINT}{JOINT}{sum:08x}", id.get(..ID_BYTES_MAX - 10).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use telemetry_model::Hierarchy;

    use super::*;
    use crate::attribute::Config;
    use crate::attribute::bundle::Bundle;

    const UID: &str = "8a1b2c3d-0000-4000-8000-000000000001";

    fn key(id: u64) -> CgroupKey {
        CgroupKey { hierarchy: Hierarchy::Unified, id }
    }

    fn ids(directory: &Directory) -> Vec<String> {
        directory.roster().owners.into_iter().map(|owner| owner.id).collect()
    }

    #[test]
    fn ids_are_readable_and_told_apart() {
        assert_eq!(Owner::Unit("/a b~c".into()).id(), "unit~=2Fa=20b=7Ec");
        assert_eq!(Owner::Unit("ssh.service".into()).id(), "unit~ssh.service");
        let long = |last: &str| Owner::Unit(format!("/{}{last}", "x/".repeat(600))).id();
        assert!(long("a").len() <= 1024);
        assert_ne!(long("a"), long("b"));
    }

    #[test]
    fn a_container_is_listed_by_its_names_once_it_has_them() {
        let now = Instant::now();
        let mut directory = Directory::new(&Config::default());
        let pod = format!("/kubepods/burstable/pod{UID}");
        let container = format!("{pod}/{}", "a".repeat(64));
        directory.born(key(7), pod.as_bytes(), now, now);
        directory.born(key(8), container.as_bytes(), now, now);
        let before = directory.version();
        assert_eq!(
            ids(&directory).iter().filter(|id| id.contains("-id~") || id.contains("-uid~")).count(),
            2
        );
        let names = Names { namespace: "shop".into(), pod: "web".into(), container: "php".into() };
        let bundle = Bundle { names, pod_uid: String::new(), image: "php:8".to_owned() };
        for owner in directory.take_unread() {
            directory.name(owner, &bundle, now).unwrap();
        }
        assert_ne!(directory.version(), before);
        let roster = directory.roster();
        assert!(roster.owners.is_sorted_by(|a, b| a.id < b.id));
        let php = roster.get("container~shop~web~php").unwrap();
        assert_eq!((php.image.as_str(), php.pod_uid.as_str(), php.is_living), ("php:8", UID, true));
        assert_eq!(php.cgroups, [key(8)]);
        assert_eq!(roster.get("pod~shop~web").unwrap().kind, OwnerKind::Pod);
        assert!(roster.get("kernel").is_some_and(|kernel| kernel.is_living));
        directory.died(key(8), now);
        assert!(!directory.roster().get("container~shop~web~php").unwrap().is_living);
    }

    #[test]
    fn changes_are_told_once_and_those_beyond_the_limit_are_counted() {
        let now = Instant::now();
        let mut directory = Directory::new(&Config::default());
        directory.born(key(5), b"/a.service", now, now);
        directory.born(key(5), b"/a.service", now, now);
        directory.died(key(5), now);
        directory.died(key(5), now);
        let (changes, lost) = directory.take_changes();
        let births: Vec<bool> = changes.iter().map(|change| change.is_birth).collect();
        assert_eq!((births, lost), (vec![true, false], 0));
        for id in 0..CHANGES_MAX as u64 + 3 {
            directory.born(key(100 + id), format!("/{id}").as_bytes(), now, now);
        }
        let (changes, lost) = directory.take_changes();
        assert_eq!((changes.len(), lost), (CHANGES_MAX, 3));
        assert_eq!(directory.take_changes(), (Vec::new(), 0));
    }
}
