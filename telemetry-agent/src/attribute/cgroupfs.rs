//! The cgroup hierarchies of this host: where they are mounted, how the kernel numbers them, what is in them.
//!
//! Parsing is apart from reading: [`Mounts::discover`] takes the texts of `/proc/self/mountinfo` and `/proc/cgroups`.
//! A cgroup's id is the inode number of its directory, which a directory listing already tells, so that a walk
//! opens each directory once and looks at nothing else. Knows ids and paths; knows nothing of owners.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{DirEntryExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::{fs, io};

use telemetry_model::{CgroupKey, Hierarchy};

/// Levels below the root that a walk descends. A pod's container sits five below it, and whoever nests deeper than
/// this keeps the owner that the path's beginning names.
const DEPTH_MAX: usize = 64;

/// What keeps the cgroup tree from being read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing to walk.
    #[error("no cgroup hierarchy is mounted{}", below(.root))]
    NoHierarchy {
        /// The configured root, or empty.
        root: String,
    },
    /// A hierarchy's root cannot be listed.
    #[error("list cgroup hierarchy {}: {source}", .root.display())]
    List {
        /// Where the hierarchy is mounted.
        root: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Which versions of cgroups the host uses for CPU and block I/O.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Version 2 alone.
    Unified,
    /// Version 2 is mounted, but `cpu` or `blkio` is a version 1 controller.
    Hybrid,
    /// Version 1 alone: no network figures, since socket programs attach to version 2 only.
    Legacy,
}

/// One hierarchy and where it is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Which it is.
    pub hierarchy: Hierarchy,
    /// The directory that its root, or the part of it that we see, is mounted on.
    pub point: PathBuf,
    /// The kernel's number of the hierarchy: 0 for version 2.
    pub id: u32,
    /// What the mount leaves out above its root: empty where the whole tree is seen.
    prefix: Vec<u8>,
}

/// Every hierarchy that owners are found in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mounts {
    mode: Mode,
    mounts: Vec<Mount>,
}

/// What a walk met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Walked {
    /// Cgroups told to the visitor.
    pub cgroups: usize,
    /// Cgroups or whole subtrees left out, because of a limit or because a directory would not open.
    pub left_out: usize,
}

/// A directory that is still to be listed.
struct Pending {
    path: Vec<u8>,
    depth: usize,
}

// === impl Mount ===

impl Mount {
    /// Tells every cgroup of this hierarchy, those nearest the root first.
    fn walk(
        &self,
        max: usize,
        walked: &mut Walked,
        visit: &mut dyn FnMut(CgroupKey, &[u8]),
    ) -> Result<(), Error> {
        let failed = |source| Error::List { root: self.point.clone(), source };
        let root = fs::symlink_metadata(&self.point).map_err(failed)?;
        let key = |id| CgroupKey { hierarchy: self.hierarchy, id };
        let base = if self.prefix.is_empty() { b"/".as_slice() } else { &self.prefix };
        visit(key(root.ino()), base);
        walked.cgroups += 1;
        let mut pending = VecDeque::from([Pending { path: Vec::new(), depth: 0 }]);
        while let Some(Pending { path, depth }) = pending.pop_front() {
            let entries = match fs::read_dir(self.directory(&path)) {
                Ok(entries) => entries,
                Err(source) if depth == 0 => return Err(failed(source)),
                // Groups end while we walk, and the kernel's events have told of it.
                Err(source) if has_vanished(&source) => continue,
                Err(_) => {
                    walked.left_out += 1;
                    continue;
                }
            };
            for entry in entries.map_while(Result::ok) {
                // The listing itself holds type and inode. A symbolic link is no directory here.
                if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    continue;
                }
                if walked.cgroups >= max {
                    walked.left_out += 1;
                    continue;
                }
                let child = joined(&path, entry.file_name().as_bytes());
                visit(key(entry.ino()), &[self.prefix.as_slice(), &child].concat());
                walked.cgroups += 1;
                if depth < DEPTH_MAX {
                    pending.push_back(Pending { path: child, depth: depth + 1 });
                } else {
                    walked.left_out += 1;
                }
            }
        }
        Ok(())
    }

    /// Whether it shows everything below our cgroup namespace's root, and not a part that somebody mounted.
    #[must_use]
    pub fn shows_all(&self) -> bool {
        self.prefix.is_empty()
    }

    /// A version 1 hierarchy whose number `/proc/cgroups` did not tell must not pass for number 0, which is version 2.
    fn is_numbered(&self) -> bool {
        (self.id == 0) == (self.hierarchy == Hierarchy::Unified)
    }

    fn directory(&self, path: &[u8]) -> PathBuf {
        let mut directory = self.point.clone().into_os_string();
        directory.push(OsStr::from_bytes(path));
        directory.into()
    }
}

// === impl Mounts ===

impl Mounts {
    /// Finds the hierarchies in the mount table; `root_override`, unless empty, is the directory they must be below.
    ///
    /// # Errors
    /// Where none of them is mounted there.
    pub fn discover(mountinfo: &str, proc_cgroups: &str, root_override: &str) -> Result<Self, Error> {
        let lines: Vec<_> = mountinfo.lines().filter_map(mount_line).collect();
        let mut mounts = Vec::new();
        for (hierarchy, controller) in
            [(Hierarchy::Unified, ""), (Hierarchy::Cpu, "cpu"), (Hierarchy::Blkio, "blkio")]
        {
            let fits = |line: &&MountLine| {
                line.holds(controller) && (root_override.is_empty() || line.point.starts_with(root_override))
            };
            // Of several mounts the one that shows most of the tree, and of those the shortest path: the longer ones
            // are copies in somebody's chroot or container, which may go at any time.
            let found = lines
                .iter()
                .filter(fits)
                .min_by_key(|line| (std::cmp::Reverse(line.view), line.point.as_os_str().len()));
            if let Some(line) = found {
                mounts.push(Mount {
                    hierarchy,
                    point: line.point.clone(),
                    id: if controller.is_empty() { 0 } else { hierarchy_id(proc_cgroups, controller) },
                    prefix: line.prefix.clone(),
                });
            }
        }
        let has_unified = mounts.iter().any(|mount| mount.hierarchy == Hierarchy::Unified);
        let has_legacy = mounts.iter().any(|mount| mount.hierarchy != Hierarchy::Unified);
        let mode = match (has_unified, has_legacy) {
            (true, false) => Mode::Unified,
            (true, true) => Mode::Hybrid,
            (false, true) => Mode::Legacy,
            (false, false) => return Err(Error::NoHierarchy { root: root_override.to_owned() }),
        };
        Ok(Self { mode, mounts })
    }

    /// Which versions the host uses.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The hierarchies, version 2 first.
    #[must_use]
    pub fn mounts(&self) -> &[Mount] {
        &self.mounts
    }

    /// Where a hierarchy is mounted.
    #[must_use]
    pub fn point(&self, hierarchy: Hierarchy) -> Option<&Path> {
        self.mounts.iter().find(|mount| mount.hierarchy == hierarchy).map(|mount| mount.point.as_path())
    }

    /// The hierarchy that a kernel event's number means; none for hierarchies that hold no owners. Where `cpu` and
    /// `blkio` share one hierarchy, events count as `cpu`, and the next walk finds the group's `blkio` side.
    #[must_use]
    pub fn hierarchy(&self, id: u32) -> Option<Hierarchy> {
        self.mounts.iter().find(|mount| mount.id == id && mount.is_numbered()).map(|mount| mount.hierarchy)
    }

    /// Tells `visit` every cgroup of every hierarchy with its path from the hierarchy's root, `max` at most.
    /// Groups that end meanwhile are passed over, and symbolic links are not followed.
    ///
    /// # Errors
    /// Where a hierarchy's root cannot be listed.
    pub fn walk(&self, max: usize, visit: &mut dyn FnMut(CgroupKey, &[u8])) -> Result<Walked, Error> {
        let mut walked = Walked::default();
        for mount in &self.mounts {
            mount.walk(max, &mut walked, visit)?;
        }
        Ok(walked)
    }
}

/// One cgroup mount of the mount table.
struct MountLine {
    point: PathBuf,
    /// Where its root is in the tree that we see; empty for the tree's own root and for what lies outside.
    prefix: Vec<u8>,
    /// How much of the tree it shows: 0 a part, 1 all below our cgroup namespace's root, more what is above that.
    view: usize,
    is_version_2: bool,
    controllers: String,
}

impl MountLine {
    /// Whether it is the hierarchy of this version 1 controller, or version 2 where none is named.
    fn holds(&self, controller: &str) -> bool {
        if controller.is_empty() {
            return self.is_version_2;
        }
        !self.is_version_2 && self.controllers.split(',').any(|option| option == controller)
    }
}

/// `ID PARENT MAJOR:MINOR ROOT POINT OPTIONS [FIELDS...] - TYPE SOURCE SUPER_OPTIONS`
fn mount_line(line: &str) -> Option<MountLine> {
    let (mount, filesystem) = line.split_once(" - ")?;
    let mut filesystem = filesystem.split(' ');
    let is_version_2 = match filesystem.next()? {
        "cgroup2" => true,
        "cgroup" => false,
        _ => return None,
    };
    let controllers = filesystem.nth(1).unwrap_or_default().to_owned();
    let mut fields = mount.split(' ').skip(3);
    let root = unescaped(fields.next()?);
    let point = PathBuf::from(std::ffi::OsString::from_vec(unescaped(fields.next()?)));
    // `/../..` is a root that far above our cgroup namespace's: the host's own mount, in a container.
    let components: Vec<_> =
        root.split(|byte| *byte == b'/').filter(|component| !component.is_empty()).collect();
    let is_outside = components.first().is_some_and(|component| *component == b"..");
    let is_whole = components.iter().all(|component| *component == b"..");
    let view = if is_whole { 1 + components.len() } else { 0 };
    let prefix = if is_outside || is_whole { Vec::new() } else { root };
    Some(MountLine { point, prefix, view, is_version_2, controllers })
}

/// Undoes the mount table's escapes: a backslash and three octal digits.
fn unescaped(field: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after.first_chunk::<3>().filter(|_| byte == b'\\');
        let value = digits.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match value {
            Some(value) => {
                out.push(value);
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                out.push(byte);
                rest = after;
            }
        }
    }
    out
}

/// The number in the line `CONTROLLER HIERARCHY CGROUPS ENABLED`; 0 where there is none.
fn hierarchy_id(proc_cgroups: &str, controller: &str) -> u32 {
    let line = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        (fields.next()? == controller).then(|| fields.next()?.parse().ok())?
    };
    proc_cgroups.lines().find_map(line).unwrap_or(0)
}

fn joined(path: &[u8], name: &[u8]) -> Vec<u8> {
    [path, b"/", name].concat()
}

/// kernfs answers `ENODEV` where a directory goes between its lookup and its opening.
fn has_vanished(error: &io::Error) -> bool {
    const ENODEV: i32 = 19;
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(ENODEV)
}

fn below(root: &str) -> String {
    if root.is_empty() { String::new() } else { format!(" below {root}") }
}

#[cfg(test)]
mod tests;
