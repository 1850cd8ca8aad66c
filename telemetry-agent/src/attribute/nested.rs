//! Which cgroups are this node's, where several nodes share one kernel: kind, minikube's docker driver, k3d.
//!
//! Every agent there hears of every node's cgroups. A nested node's own tree begins at the root of its cgroup namespace,
//! which is somewhere in the kernel's; the kernel's events tell paths from the kernel's root. What lies between is learned
//! from the first event whose cgroup is found below our own root under a part of its path, with the same number. From
//! then on a path says whose it is. Does nothing on a node that has the kernel for itself.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use telemetry_model::{CgroupKey, Hierarchy};

use super::Mounts;

/// This node's part of each hierarchy.
#[derive(Debug)]
pub struct OwnTree {
    roots: Vec<Root>,
}

/// Where our tree begins in a hierarchy.
#[derive(Debug)]
struct Root {
    hierarchy: Hierarchy,
    point: PathBuf,
    /// Whether our root is below the kernel's.
    is_nested: bool,
    /// The path from the kernel's root to ours, once it is known.
    prefix: Option<Vec<u8>>,
}

// === impl OwnTree ===

impl OwnTree {
    /// Looks at the root of every hierarchy. One that cannot be looked at counts as the kernel's.
    #[must_use]
    pub fn of(mounts: &Mounts) -> Self {
        let root = |mount: &super::cgroupfs::Mount| Root {
            hierarchy: mount.hierarchy,
            point: mount.point.clone(),
            is_nested: mount.shows_all()
                && fs::metadata(&mount.point).is_ok_and(|root| root.ino() != CgroupKey::ROOT_ID),
            prefix: None,
        };
        Self { roots: mounts.mounts().iter().map(root).collect() }
    }

    /// Whether the kernel has cgroups that are not this node's.
    #[must_use]
    pub fn is_nested(&self) -> bool {
        self.roots.iter().any(|root| root.is_nested)
    }

    /// The path from this node's root, of a path from the kernel's; nothing for another node's cgroup.
    pub fn own<'a>(&mut self, cgroup: CgroupKey, path: &'a [u8]) -> Option<&'a [u8]> {
        let Some(root) = self.roots.iter_mut().find(|root| root.hierarchy == cgroup.hierarchy) else {
            return Some(path);
        };
        if !root.is_nested {
            return Some(path);
        }
        if root.prefix.is_none() {
            root.prefix = root.find(cgroup.id, path);
        }
        below(path, root.prefix.as_deref()?)
    }
}

// === impl Root ===

impl Root {
    /// What is before the part of the path that leads from our root to a directory of this number.
    fn find(&self, id: u64, path: &[u8]) -> Option<Vec<u8>> {
        let starts = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        for at in starts {
            let (before, own) = path.split_at_checked(at)?;
            let mut directory = self.point.clone().into_os_string();
            directory.push(OsStr::from_bytes(own));
            if fs::symlink_metadata(&directory).is_ok_and(|found| found.ino() == id) {
                return Some(before.to_vec());
            }
        }
        None
    }
}

/// What follows a prefix of whole components; `/` for the prefix itself.
fn below<'a>(path: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    match path.strip_prefix(prefix)? {
        [] => Some(b"/"),
        rest if rest.first() == Some(&b'/') => Some(rest),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree that stands for a cgroup namespace's: any file system numbers its directories.
    fn tree(is_nested: bool) -> (tempfile::TempDir, OwnTree) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("kubepods/pod1")).unwrap();
        let point = dir.path().to_owned();
        let root = Root { hierarchy: Hierarchy::Unified, point, is_nested, prefix: None };
        (dir, OwnTree { roots: vec![root] })
    }

    fn key(id: u64) -> CgroupKey {
        CgroupKey { hierarchy: Hierarchy::Unified, id }
    }

    #[test]
    fn the_first_own_cgroup_tells_where_the_node_is_and_all_others_are_foreign() {
        let (dir, mut tree) = tree(true);
        let id = fs::metadata(dir.path().join("kubepods/pod1")).unwrap().ino();
        // Another node's pod of the same path, before ours is known.
        assert_eq!(tree.own(key(id + 1_000_000), b"/docker/b/kubepods/pod1"), None);
        assert_eq!(tree.own(key(id), b"/docker/a/kubepods/pod1"), Some(&b"/kubepods/pod1"[..]));
        assert_eq!(
            tree.own(key(1), b"/docker/a/kubepods/pod2/c"),
            Some(&b"/kubepods/pod2/c"[..]),
            "it may be gone"
        );
        assert_eq!(tree.own(key(1), b"/docker/a"), Some(&b"/"[..]));
        for foreign in [&b"/docker/b/kubepods/pod1"[..], b"/docker/ab/x", b"/docker", b"/", b""] {
            assert_eq!(tree.own(key(id), foreign), None, "{}", foreign.escape_ascii());
        }
    }

    #[test]
    fn a_node_that_has_the_kernel_for_itself_owns_every_path() {
        let (_dir, mut tree) = tree(false);
        assert!(!tree.is_nested());
        assert_eq!(tree.own(key(7), b"/docker/b/x"), Some(&b"/docker/b/x"[..]));
        let other = CgroupKey { hierarchy: Hierarchy::Blkio, id: 7 };
        assert_eq!(tree.own(other, b"/x"), Some(&b"/x"[..]), "a hierarchy that is not looked at");
    }
}
