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
            // Of several mounts the one that shows the whole tree, and of those the last, which hides the others.
            let found = lines.iter().filter(fits).max_by_key(|line| line.prefix.is_empty());
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

impl Mount {
    /// A version 1 hierarchy whose number `/proc/cgroups` did not tell must not pass for number 0, which is version 2.
    fn is_numbered(&self) -> bool {
        (self.id == 0) == (self.hierarchy == Hierarchy::Unified)
    }
}

/// One cgroup mount of the mount table.
struct MountLine {
    point: PathBuf,
    prefix: Vec<u8>,
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
    // `/..` is a root outside our cgroup namespace: how much lies above it cannot be known.
    let prefix = if root == b"/" || root.starts_with(b"/..") { Vec::new() } else { root };
    Some(MountLine { point, prefix, is_version_2, controllers })
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
mod tests {
    use super::*;
    use std::collections::HashMap;

    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
34 31 0:31 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset
38 31 0:35 / /sys/fs/cgroup/blkio rw,relatime - cgroup cgroup rw,blkio
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";
    const NUMBERS: &str = "#subsys_name\thierarchy\tnum_cgroups\tenabled
cpuset\t3\t1\t1\ncpu\t1\t1\t1\ncpuacct\t1\t1\t1\nblkio\t7\t1\t1\nnet_cls\t0\t1\t1\n";
    const UNIFIED: &str = "30 23 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";

    fn points(mounts: &Mounts) -> Vec<(Hierarchy, &str, u32)> {
        let of = |mount: &'_ Mount| (mount.hierarchy, mount.id);
        mounts
            .mounts()
            .iter()
            .map(|mount| (of(mount).0, mount.point.to_str().unwrap(), of(mount).1))
            .collect()
    }

    #[test]
    fn a_hybrid_host_has_three_hierarchies_with_the_kernels_numbers() {
        let mounts = Mounts::discover(HYBRID, NUMBERS, "").unwrap();
        assert_eq!(mounts.mode(), Mode::Hybrid);
        assert_eq!(
            points(&mounts),
            [
                (Hierarchy::Unified, "/sys/fs/cgroup/unified", 0),
                (Hierarchy::Cpu, "/sys/fs/cgroup/cpu,cpuacct", 1),
                (Hierarchy::Blkio, "/sys/fs/cgroup/blkio", 7)
            ]
        );
        let of = |id| mounts.hierarchy(id);
        assert_eq!(
            [of(0), of(1), of(7)],
            [Some(Hierarchy::Unified), Some(Hierarchy::Cpu), Some(Hierarchy::Blkio)]
        );
        assert_eq!(of(3), None, "cpuset holds no owners");
    }

    #[test]
    fn a_version_2_host_needs_no_numbers() {
        let mounts = Mounts::discover(UNIFIED, "", "").unwrap();
        assert_eq!(
            (mounts.mode(), points(&mounts)),
            (Mode::Unified, vec![(Hierarchy::Unified, "/sys/fs/cgroup", 0)])
        );
    }

    #[test]
    fn a_version_1_host_is_legacy_and_number_0_is_nothing() {
        let mountinfo = HYBRID.replace("cgroup2", "tmpfs");
        let mounts = Mounts::discover(&mountinfo, "", "").unwrap();
        assert_eq!(mounts.mode(), Mode::Legacy);
        assert_eq!(mounts.hierarchy(0), None, "an unknown number must not pass for version 2");
    }

    #[test]
    fn no_hierarchy_is_an_error_that_names_the_root() {
        let error = Mounts::discover(HYBRID, NUMBERS, "/host/sys/fs/cgroup").unwrap_err();
        assert_eq!(error.to_string(), "no cgroup hierarchy is mounted below /host/sys/fs/cgroup");
        assert_eq!(Mounts::discover("", "", "").unwrap_err().to_string(), "no cgroup hierarchy is mounted");
    }

    #[test]
    fn the_root_override_chooses_among_mounts_by_whole_components() {
        let both = format!(
            "{UNIFIED}60 23 0:26 / /host/sys/fs/cgroup rw - cgroup2 cgroup2 rw\n\
            61 23 0:26 / /host/sys/fs/cgroup2 rw - cgroup2 cgroup2 rw\n"
        );
        let mounts = Mounts::discover(&both, "", "/host/sys/fs/cgroup").unwrap();
        assert_eq!(points(&mounts), [(Hierarchy::Unified, "/host/sys/fs/cgroup", 0)]);
    }

    #[test]
    fn a_mount_of_the_whole_tree_goes_before_a_part() {
        let part = "70 23 0:26 /a /part rw - cgroup2 cgroup2 rw\n";
        for mountinfo in [format!("{part}{UNIFIED}"), format!("{UNIFIED}{part}")] {
            let mounts = Mounts::discover(&mountinfo, "", "").unwrap();
            assert_eq!(points(&mounts), [(Hierarchy::Unified, "/sys/fs/cgroup", 0)]);
        }
    }

    #[test]
    fn octal_escapes_of_the_mount_table_are_undone() {
        assert_eq!(unescaped("/a\\040b\\134c\\011"), b"/a b\\c\t");
        assert_eq!(unescaped("/a\\04"), b"/a\\04", "a cut escape stays");
        assert_eq!(unescaped("\\999\\777"), b"\\999\\777", "what is no byte stays");
        let mounts = Mounts::discover("30 23 0:26 / /my\\040groups rw - cgroup2 none rw\n", "", "").unwrap();
        assert_eq!(mounts.point(Hierarchy::Unified), Some(Path::new("/my groups")));
    }

    fn mounted_on(point: &Path, prefix: &[u8]) -> Mounts {
        let mount =
            Mount { hierarchy: Hierarchy::Cpu, point: point.to_owned(), id: 1, prefix: prefix.to_owned() };
        Mounts { mode: Mode::Legacy, mounts: vec![mount] }
    }

    fn walked(mounts: &Mounts, max: usize) -> (HashMap<Vec<u8>, u64>, Walked) {
        let mut found = HashMap::new();
        let walked = mounts.walk(max, &mut |key, path| {
            assert_eq!(key.hierarchy, Hierarchy::Cpu);
            assert!(found.insert(path.to_vec(), key.id).is_none(), "told twice: {}", path.escape_ascii());
        });
        (found, walked.unwrap())
    }

    #[test]
    fn a_walk_tells_inode_and_path_and_follows_no_link() {
        let root = tempfile::tempdir().unwrap();
        let hostile = OsStr::from_bytes(b"x\n\xff");
        fs::create_dir_all(root.path().join("a/b")).unwrap();
        fs::create_dir(root.path().join(hostile)).unwrap();
        fs::write(root.path().join("cpu.stat"), "").unwrap();
        std::os::unix::fs::symlink(root.path(), root.path().join("loop")).unwrap();
        let inode = |path: &str| fs::metadata(root.path().join(path)).unwrap().ino();
        let (found, walked_) = walked(&mounted_on(root.path(), b""), 100);
        assert_eq!(found.len(), 4, "{found:?}");
        assert_eq!(walked_, Walked { cgroups: 4, left_out: 0 });
        assert_eq!(found[b"/".as_slice()], inode(""));
        assert_eq!(found[b"/a".as_slice()], inode("a"));
        assert_eq!(found[b"/a/b".as_slice()], inode("a/b"));
        assert!(found.contains_key(b"/x\n\xff".as_slice()));
        let (below, _) = walked(&mounted_on(root.path(), b"/up"), 100);
        assert!(
            below.contains_key(b"/up".as_slice()) && below.contains_key(b"/up/a/b".as_slice()),
            "{below:?}"
        );
    }

    #[test]
    fn a_walk_is_bounded_in_count_and_depth_and_says_so() {
        let root = tempfile::tempdir().unwrap();
        for name in 0..10 {
            fs::create_dir(root.path().join(name.to_string())).unwrap();
        }
        let (found, walked_) = walked(&mounted_on(root.path(), b""), 4);
        assert_eq!((found.len(), walked_), (4, Walked { cgroups: 4, left_out: 7 }));

        let deep = tempfile::tempdir().unwrap();
        fs::create_dir_all(deep.path().join("d/".repeat(DEPTH_MAX + 9))).unwrap();
        let (found, walked_) = walked(&mounted_on(deep.path(), b""), 1000);
        assert_eq!((found.len(), walked_.left_out), (DEPTH_MAX + 2, 1));
    }

    #[test]
    fn a_root_that_cannot_be_listed_is_an_error() {
        let error = mounted_on(Path::new("/nowhere/at/all"), b"").walk(9, &mut |_, _| {}).unwrap_err();
        assert!(error.to_string().starts_with("list cgroup hierarchy /nowhere/at/all: "), "{error}");
    }

    #[test]
    fn this_hosts_hierarchies_are_found_and_listed_with_their_inodes() {
        let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let numbers = fs::read_to_string("/proc/cgroups").unwrap_or_default();
        let Ok(mounts) = Mounts::discover(&mountinfo, &numbers, "") else {
            return; // A build container without cgroups has nothing to be checked.
        };
        for mount in mounts.mounts() {
            let mut looked_at = 0;
            let one = Mounts { mode: mounts.mode(), mounts: vec![mount.clone()] };
            one.walk(200, &mut |key, path| {
                let relative = path.strip_prefix(mount.prefix.as_slice()).unwrap();
                // A group may have ended since.
                if let Ok(metadata) = fs::metadata(mount.directory(relative)) {
                    assert_eq!(metadata.ino(), key.id, "{}", path.escape_ascii());
                    looked_at += 1;
                }
            })
            .unwrap();
            assert!(looked_at > 0, "{mount:?}");
        }
    }
}
