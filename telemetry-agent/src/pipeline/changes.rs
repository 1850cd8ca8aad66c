//! What the journal is told of cgroups: that they came and went, and that names came late.

use crate::attribute::{Change, Directory, OwnerId, Renamed};
use crate::journal::{Journal, News, Whose};

/// Tells of every cgroup that came or went since the last call, under its owner's names where they are known by now.
pub(super) fn tell(directory: &mut Directory, journal: &Journal) {
    let (changes, lost) = directory.take_changes();
    for Change { cgroup, owner, is_birth, is_nested } in changes {
        let owner = whose(directory, owner);
        journal.tell(&match is_birth {
            true => News::CgroupCreated { cgroup, owner, is_nested },
            false => News::CgroupRemoved { cgroup, owner, is_nested },
        });
    }
    if lost > 0 {
        journal.miss(lost);
    }
}

/// Tells that an owner has names now that was shown without.
pub(super) fn tell_names(directory: &Directory, renamed: &Renamed, journal: &Journal) {
    let from = directory.owner(renamed.from).map(|owner| owner.id()).unwrap_or_default();
    journal.tell(&News::NamesBound { from, owner: whose(directory, renamed.to) });
}

/// The owner of an id; of one that is forgotten already, the unresolved.
fn whose(directory: &Directory, id: OwnerId) -> Whose {
    let (id, owner) = directory
        .named_owner(id)
        .map_or((OwnerId::UNRESOLVED, &crate::attribute::Owner::Unresolved), |(id, owner)| (id, owner));
    Whose { id: owner.id(), labels: directory.labels(id).clone() }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use telemetry_model::{CgroupKey, Hierarchy};

    use super::*;
    use crate::attribute::bundle::Bundle;
    use crate::attribute::{Config, Names};

    const UID: &str = "8a1b2c3d-0000-4000-8000-000000000001";

    /// Kinds and owners of all events, in their order.
    fn told(journal: &Journal) -> Vec<(String, String)> {
        let events = journal.after(0, None, usize::MAX).unwrap().unwrap().events;
        let owner = |body: &str| {
            let body: serde_json::Value = serde_json::from_str(body).unwrap();
            body.pointer("/owner/id").unwrap().as_str().unwrap().to_owned()
        };
        events.into_iter().map(|event| (event.kind, owner(&event.body))).collect()
    }

    #[test]
    fn a_container_is_told_by_its_names_and_those_that_come_late_are_told_themselves() {
        let now = Instant::now();
        let (journal, mut keeper) = Journal::new(&Default::default());
        let mut directory = Directory::new(&Config::default());
        let key = |id| CgroupKey { hierarchy: Hierarchy::Unified, id };
        let path = |id: char| format!("/kubepods/burstable/pod{UID}/{}", id.to_string().repeat(64));
        let name = |directory: &mut Directory, owner, container: &str| {
            let names = Names { namespace: "shop".into(), pod: "web".into(), container: container.into() };
            let bundle = Bundle { names, pod_uid: String::new(), image: String::new() };
            directory.name(owner, &bundle, now).unwrap();
        };

        directory.born(key(7), path('a').as_bytes(), now, now);
        let owner = directory.take_unread()[0];
        name(&mut directory, owner, "php");
        tell(&mut directory, &journal);

        directory.born(key(8), path('b').as_bytes(), now, now);
        tell(&mut directory, &journal);
        let owner = directory.take_unread()[0];
        directory.expose(owner);
        name(&mut directory, owner, "sql");
        for renamed in directory.take_renamed() {
            tell_names(&directory, &renamed, &journal);
        }
        directory.died(key(8), now);
        tell(&mut directory, &journal);

        keeper.step(Duration::ZERO);
        let sql = "container~shop~web~sql".to_owned();
        let expected = [
            ("cgroup_created".to_owned(), "container~shop~web~php".to_owned()),
            ("cgroup_created".to_owned(), format!("container-id~{}", "b".repeat(64))),
            ("names_bound".to_owned(), sql.clone()),
            ("cgroup_removed".to_owned(), sql),
        ];
        assert_eq!(told(&journal), expected);
    }
}
