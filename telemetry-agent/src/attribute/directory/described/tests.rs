//! Descriptions that come first, late, never, and for somebody else.

use std::time::Duration;

use telemetry_model::{CgroupKey, Hierarchy, OwnerKey, PodContainer, Workload};

use super::*;
use crate::attribute::Config;

const UID: &str = "8a1b2c3d-0000-4000-8000-000000000001";

fn key(id: u64) -> CgroupKey {
    CgroupKey { hierarchy: Hierarchy::Unified, id }
}

fn container_id() -> String {
    "a".repeat(64)
}

fn description(pod: &str) -> Arc<Pods> {
    let container = PodContainer {
        name: "php".into(),
        id: Digest::of_hex(&container_id()),
        image: "php:8".into(),
        image_digest: None,
    };
    let pod = Description {
        cgroup_uid: UID.into(),
        uid: UID.into(),
        namespace: "shop".into(),
        name: pod.into(),
        workload: Workload { kind: "deployment".into(), name: "web".into(), is_inferred: true },
        containers: vec![container],
        ..Description::default()
    };
    Arc::new(Pods::from([(UID.into(), Arc::new(pod))]))
}

fn bundle() -> Bundle {
    let names = Names { namespace: "shop".into(), pod: "web-1".into(), container: "php".into() };
    Bundle { names, pod_uid: UID.to_owned(), image: "php:8".to_owned() }
}

struct World {
    directory: Directory,
    now: Instant,
}

impl World {
    fn new(workload_labels: bool) -> Self {
        let config = Config { workload_labels, ..Config::default() };
        Self { directory: Directory::new(&config), now: Instant::now() }
    }

    /// The pod's cgroup of number 10 and its container's of number 11.
    fn born(&mut self) -> OwnerId {
        let pod = format!("/kubepods/burstable/pod{UID}");
        self.directory.born(key(10), pod.as_bytes(), self.now, self.now);
        self.directory.born(key(11), format!("{pod}/{}", container_id()).as_bytes(), self.now, self.now);
        self.owner(11)
    }

    fn owner(&self, id: u64) -> OwnerId {
        self.directory.resolve(OwnerKey::Cgroup(key(id))).unwrap()
    }

    fn label(&self, id: u64, name: &str) -> Option<String> {
        let labels = self.directory.labels(self.owner(id));
        labels.iter().find(|label| label.name == name).map(|label| label.value.to_string())
    }

    fn is_waiting(&self, id: u64) -> bool {
        self.directory.is_waiting(self.owner(id))
    }
}

#[test]
fn where_no_file_can_be_read_the_description_names_a_container_and_its_pod() {
    let mut world = World::new(false);
    world.born();
    assert!(world.is_waiting(11) && world.is_waiting(10));
    world.directory.describe(description("web-1"), world.now);
    assert_eq!(world.label(11, "container").as_deref(), Some("php"));
    assert_eq!(
        (world.label(10, "pod").as_deref(), world.label(10, "container").as_deref()),
        (Some("web-1"), Some(""))
    );
    assert!(!world.is_waiting(11) && !world.is_waiting(10));
}

#[test]
fn a_description_that_comes_after_the_exposure_takes_the_series_along() {
    let mut world = World::new(false);
    let by_ids = world.born();
    world.directory.expose_due(world.now + Duration::from_secs(3), Duration::from_secs(2));
    assert!(world.label(11, "container_id").is_some());
    world.directory.describe(description("web-1"), world.now);
    assert_eq!(world.label(11, "container").as_deref(), Some("php"));
    let renamed = world.directory.take_renamed();
    assert!(renamed.iter().any(|renamed| renamed.from == by_ids && renamed.to == world.owner(11)));
}

#[test]
fn a_container_that_is_not_told_of_and_names_that_are_none_stay_unnamed() {
    let mut world = World::new(false);
    world.born();
    world.directory.describe(description("Web\n1"), world.now);
    assert!(world.is_waiting(11) && world.is_waiting(10), "no pod has such a name");
    let mut other = Pod { names: bundle().names, description: None, references: 0 };
    other.describe(&description("web-2")[UID]);
    assert!(other.description.is_none(), "it is another pod's");
}

#[test]
fn a_pod_is_described_for_as_long_as_it_is_remembered() {
    let mut world = World::new(false);
    let container = world.born();
    world.directory.name(container, &bundle(), world.now).unwrap();
    assert!(world.directory.description(UID).is_none());
    world.directory.describe(description("web-1"), world.now);
    world.directory.describe(Arc::default(), world.now);
    let kept = world.directory.description(UID).unwrap();
    assert_eq!(&*kept.workload.name, "web", "the API server has forgotten it");
    for id in [10, 11] {
        world.directory.died(key(id), world.now);
    }
    let _ = world.directory.expire(world.now + Duration::from_secs(3600));
    assert!(world.directory.description(UID).is_none());
}

#[test]
fn series_with_workloads_wait_for_them() {
    let mut world = World::new(true);
    let container = world.born();
    world.directory.name(container, &bundle(), world.now).unwrap();
    assert!(world.is_waiting(11), "its labels are not final");
    world.directory.describe(description("web-1"), world.now);
    assert!(!world.is_waiting(11));
    assert_eq!(world.label(11, "workload").as_deref(), Some("web"));
    assert_eq!(world.label(11, "workload_type").as_deref(), Some("deployment"));
    assert_eq!(world.label(10, "workload").as_deref(), Some("web"), "so are those of its pod's own");
}

#[test]
fn series_of_a_pod_that_was_described_before_wait_for_nothing() {
    let mut world = World::new(true);
    world.directory.describe(description("web-1"), world.now);
    let container = world.born();
    let _ = world.directory.name(container, &bundle(), world.now);
    assert!(!world.is_waiting(11));
    assert_eq!(world.label(11, "workload").as_deref(), Some("web"));
}

#[test]
fn without_a_description_in_time_a_series_goes_without_a_workload_for_good() {
    let mut world = World::new(true);
    let container = world.born();
    world.directory.name(container, &bundle(), world.now).unwrap();
    world.directory.expose_due(world.now + Duration::from_secs(3), Duration::from_secs(2));
    assert_eq!(world.label(11, "workload").as_deref(), Some(""));
    assert_eq!(world.label(11, "container").as_deref(), Some("php"), "it has its names all the same");
    world.directory.describe(description("web-1"), world.now);
    assert_eq!(world.label(11, "workload").as_deref(), Some(""), "a label of a series never changes");
}
