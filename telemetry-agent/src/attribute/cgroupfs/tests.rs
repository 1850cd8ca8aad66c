//! Mount tables of other hosts, and walks over directories made for them.

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
    mounts.mounts().iter().map(|mount| (of(mount).0, mount.point.to_str().unwrap(), of(mount).1)).collect()
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
fn a_copy_in_somebodys_chroot_is_not_taken() {
    let copy = "90 23 0:26 / /tmp/chroot/sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
    for mountinfo in [format!("{copy}{UNIFIED}"), format!("{UNIFIED}{copy}")] {
        let mounts = Mounts::discover(&mountinfo, "", "").unwrap();
        assert_eq!(points(&mounts), [(Hierarchy::Unified, "/sys/fs/cgroup", 0)]);
    }
}

#[test]
fn in_a_container_the_hosts_mount_goes_before_the_namespaced_one() {
    let host = "80 23 0:26 /../../.. /host/sys/fs/cgroup ro - cgroup2 cgroup2 rw\n";
    let beside = "81 23 0:26 /../other /b rw - cgroup2 cgroup2 rw\n";
    let chosen = |mountinfo: String| Mounts::discover(&mountinfo, "", "").unwrap().mounts[0].point.clone();
    assert_eq!(chosen(format!("{host}{beside}{UNIFIED}")), Path::new("/host/sys/fs/cgroup"));
    assert_eq!(chosen(format!("{UNIFIED}{beside}{host}")), Path::new("/host/sys/fs/cgroup"));
    assert_eq!(
        chosen(format!("{beside}{UNIFIED}")),
        Path::new("/sys/fs/cgroup"),
        "a neighbour's part is less"
    );
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
    assert!(below.contains_key(b"/up".as_slice()) && below.contains_key(b"/up/a/b".as_slice()), "{below:?}");
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
