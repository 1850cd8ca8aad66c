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
