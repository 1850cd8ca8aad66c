//! Names that come in time, late, twice, and for somebody else.

use std::collections::BTreeMap;

use telemetry_model::{CgroupKey, Hierarchy, Labels, OwnerKey};

use super::*;
use crate::attribute::Config;

const UID: &str = "8a1b2c3d-0000-4000-8000-000000000001";

fn key(id: u64) -> CgroupKey {
    CgroupKey { hierarchy: Hierarchy::Unified, id: 1000 + id }
}

fn pod_path() -> String {
    format!("/kubepods/burstable/pod{UID}")
}

/// A container's id of one digit.
fn container_path(digit: &str) -> String {
    format!("{}/{}", pod_path(), digit.repeat(64))
}

fn bundle(container: &str) -> Bundle {
    let names = Names { namespace: "shop".into(), pod: "web".into(), container: container.into() };
    Bundle { names, pod_uid: UID.to_owned(), image: "busybox".to_owned() }
}

struct World {
    directory: Directory,
    now: Instant,
}

impl World {
    /// A pod's cgroup of number 100.
    fn new() -> Self {
        let mut world = Self { directory: Directory::new(&Config::default()), now: Instant::now() };
        world.born(100, &pod_path());
        world
    }

    fn born(&mut self, id: u64, path: &str) -> OwnerId {
        self.directory.born(key(id), path.as_bytes(), self.now, self.now);
        self.owner(id)
    }

    fn owner(&self, id: u64) -> OwnerId {
        self.directory.resolve(OwnerKey::Cgroup(key(id))).unwrap()
    }

    /// The labels that are not empty.
    fn labels(&self, id: u64) -> BTreeMap<String, String> {
        let labels: &Labels = self.directory.labels(self.owner(id));
        let full = labels.iter().filter(|label| !label.value.is_empty());
        full.map(|label| (label.name.to_string(), label.value.to_string())).collect()
    }

    fn reads(&self, id: u64, expected: &[(&str, &str)]) {
        let expected: BTreeMap<String, String> =
            expected.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        assert_eq!(self.labels(id), expected, "cgroup {id}");
    }
}

const PHP: [(&str, &str); 3] = [("namespace", "shop"), ("pod", "web"), ("container", "php")];
const POD: [(&str, &str); 2] = [("namespace", "shop"), ("pod", "web")];

#[test]
fn a_container_and_its_pod_are_named_by_one_file() {
    let mut world = World::new();
    let container = world.born(1, &container_path("a"));
    assert_eq!(world.directory.take_unread(), [container]);
    assert!(world.directory.is_waiting(container) && world.directory.is_waiting(world.owner(100)));
    world.directory.name(container, &bundle("php"), Instant::now()).unwrap();
    world.reads(1, &PHP);
    world.reads(100, &POD);
    assert!(!world.directory.is_waiting(world.owner(1)) && !world.directory.is_waiting(world.owner(100)));
    assert_eq!(world.directory.take_renamed(), [], "nothing was exposed before");
    assert_eq!(world.directory.stats().unnamed, 0);
}

#[test]
fn a_sandbox_counts_as_its_pod() {
    let mut world = World::new();
    let sandbox = world.born(1, &container_path("a"));
    world.directory.name(sandbox, &bundle(""), Instant::now()).unwrap();
    world.reads(1, &POD);
    assert_eq!(world.owner(1), world.owner(100));
    let info: Vec<_> = world.directory.named().collect();
    assert_eq!(info.len(), 1);
    assert_eq!((info[0].1.container_id.as_str(), info[0].1.pod_uid.as_str()), ("", UID));
}

#[test]
fn cgroups_below_a_container_and_in_other_hierarchies_have_its_name() {
    let mut world = World::new();
    let container = world.born(1, &container_path("a"));
    world.directory.name(container, &bundle("php"), Instant::now()).unwrap();
    world.born(2, &format!("{}/container", container_path("a")));
    world.reads(2, &PHP);
    assert_eq!(world.directory.stats().nested, 1);
    let block = CgroupKey { hierarchy: Hierarchy::Blkio, id: 1001 };
    world.directory.born(block, container_path("a").as_bytes(), world.now, world.now);
    assert_eq!(world.directory.resolve(OwnerKey::Cgroup(block)), Some(world.owner(1)));
}

#[test]
fn a_restarted_container_goes_on_as_the_same_owner_with_the_newest_details() {
    let mut world = World::new();
    let first = world.born(1, &container_path("a"));
    world.directory.name(first, &bundle("php"), Instant::now()).unwrap();
    let second = world.born(2, &container_path("b"));
    assert_ne!(first, second);
    world.directory.name(second, &bundle("php"), Instant::now()).unwrap();
    assert_eq!(world.owner(1), world.owner(2));
    let details: Vec<_> =
        world.directory.named().filter(|(names, _)| !names.container.is_empty()).map(|(_, d)| d).collect();
    assert_eq!(details.len(), 1);
    assert_eq!(details[0].container_id, "b".repeat(64));
}

#[test]
fn a_file_of_another_pod_names_nobody() {
    let mut world = World::new();
    let container = world.born(1, &container_path("a"));
    let other = Bundle { pod_uid: UID.replace('8', "9"), ..bundle("php") };
    assert_eq!(world.directory.name(container, &other, Instant::now()), Err(Refused::OtherPod));
    assert!(world.directory.is_waiting(container));
    let untold = Bundle { pod_uid: String::new(), ..bundle("php") };
    assert_eq!(world.directory.name(container, &untold, Instant::now()), Ok(()));
    assert_eq!(
        world.directory.name(container, &untold, Instant::now()),
        Err(Refused::NotWanted),
        "it has its names"
    );
}

#[test]
fn a_container_outside_pods_waits_for_nothing() {
    let mut world = World::new();
    let docker = world.born(1, &format!("/system.slice/docker-{}.scope", "c".repeat(64)));
    assert!(!world.directory.is_waiting(docker));
    assert_eq!(world.directory.take_unread(), []);
    world.reads(1, &[("container_id", &"c".repeat(64))]);
}

#[test]
fn what_waits_too_long_is_exposed_by_its_ids_once() {
    let mut world = World::new();
    let container = world.born(1, &container_path("a"));
    let patience = Duration::from_secs(2);
    world.directory.expose_due(world.now + Duration::from_millis(1999), patience);
    assert!(world.directory.is_waiting(container));
    world.directory.expose_due(world.now + patience, patience);
    world.directory.expose_due(world.now + 2 * patience, patience);
    assert!(!world.directory.is_waiting(container));
    world.reads(1, &[("pod_uid", UID), ("container_id", &"a".repeat(64))]);
    let late = world.directory.late(container).unwrap();
    assert!(!late.is_bound && late.labels == *world.directory.labels(container));
    assert_eq!(world.directory.stats().exposed_unnamed_total, 2, "the container and its pod");
}

#[test]
fn a_name_after_the_exposure_moves_the_series_and_keeps_the_number() {
    let mut world = World::new();
    let container = world.born(1, &container_path("a"));
    let pod = world.owner(100);
    world.directory.expose_due(world.now, Duration::ZERO);
    let number = world.directory.late(container).unwrap().number;
    world.directory.name(container, &bundle("php"), Instant::now()).unwrap();
    let (to, pod_to) = (world.owner(1), world.owner(100));
    let renamed = [Renamed { from: container, to }, Renamed { from: pod, to: pod_to }];
    assert_eq!(world.directory.take_renamed(), renamed);
    let late = world.directory.late(to).unwrap();
    assert!(late.is_bound && late.number == number && late.labels == *world.directory.labels(to));
    assert_eq!(world.directory.stats().late_bound_total, 2);
}

#[test]
fn what_was_stored_by_ids_stays_so_where_the_name_is_somebodys_already() {
    let mut world = World::new();
    let first = world.born(1, &container_path("a"));
    world.directory.name(first, &bundle("php"), Instant::now()).unwrap();
    let second = world.born(2, &container_path("b"));
    world.directory.expose(second);
    world.directory.name(second, &bundle("php"), Instant::now()).unwrap();
    let to = world.owner(1);
    assert_eq!(world.directory.take_renamed(), [Renamed { from: second, to }]);
    assert_eq!(world.directory.late(to), None, "two histories at one time are not one");
}

#[test]
fn a_pods_cgroup_that_is_found_after_its_containers_is_named_at_once() {
    let mut world = World { directory: Directory::new(&Config::default()), now: Instant::now() };
    let container = world.born(1, &container_path("a"));
    world.directory.name(container, &bundle("php"), Instant::now()).unwrap();
    world.born(100, &pod_path());
    world.reads(100, &POD);
}

#[test]
fn names_go_with_the_last_cgroup_that_has_them() {
    let mut world = World::new();
    let container = world.born(1, &container_path("a"));
    world.directory.name(container, &bundle("php"), Instant::now()).unwrap();
    let named = world.owner(1);
    world.directory.died(key(1), world.now);
    let later = world.now + Duration::from_secs(3600);
    let gone = world.directory.expire(later);
    assert!(gone.contains(&container) && gone.contains(&named), "{gone:?}");
    world.directory.died(key(100), later);
    let _ = world.directory.expire(later + Duration::from_secs(3600));
    assert_eq!(world.directory.named().count(), 0);
    assert!(world.directory.pods.is_empty() && world.directory.waiting.is_empty());
    assert_eq!(world.directory.ids.len(), 4, "the fixed owners are left");
}

#[test]
fn a_thousand_restarts_of_one_container_leave_nothing_behind() {
    let mut world = World::new();
    for turn in 0..1000_u64 {
        let path = format!("{}/{turn:064x}", pod_path());
        let container = world.born(1000 + turn, &path);
        world.directory.name(container, &bundle("php"), Instant::now()).unwrap();
        world.directory.died(key(1000 + turn), world.now);
        world.now += Duration::from_secs(3600);
        let _ = world.directory.expire(world.now);
    }
    let Directory { cgroups, owners, ids, pods, waiting, .. } = &world.directory;
    assert_eq!((cgroups.len(), pods.len(), waiting.len()), (1, 1, 0));
    assert_eq!((owners.len(), ids.len()), (6, 6), "four fixed ones, the pod by path and by name");
}
