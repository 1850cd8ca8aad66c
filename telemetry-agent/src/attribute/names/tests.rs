//! Files that are there, come later, or are no such files.

use std::fs;

use telemetry_model::{CgroupKey, Hierarchy, OwnerKey};

use super::*;
use crate::attribute::Config;

const UID: &str = "8a1b2c3d-0000-4000-8000-000000000001";

/// Past the root's number.
fn key(id: u64) -> CgroupKey {
    CgroupKey { hierarchy: Hierarchy::Unified, id: 1000 + id }
}

struct Host {
    root: tempfile::TempDir,
    directory: Directory,
    namer: Namer,
    now: Instant,
}

impl Host {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let namer = Namer::new(root.path().to_str().unwrap());
        Self { root, directory: Directory::new(&Config::default()), namer, now: Instant::now() }
    }

    fn born(&mut self, id: u64) {
        let path = format!("/kubepods/pod{UID}/{id:064x}");
        self.directory.born(
            CgroupKey { hierarchy: Hierarchy::Unified, id: 1000 + id },
            path.as_bytes(),
            self.now,
            self.now,
        );
    }

    fn file(&self, id: u64) -> PathBuf {
        let dir = self.root.path().join("run/containerd/io.containerd.runtime.v2.task/k8s.io");
        dir.join(format!("{id:064x}")).join("config.json")
    }

    fn write(&self, id: u64, bytes: impl AsRef<[u8]>) {
        let file = self.file(id);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, bytes).unwrap();
    }

    fn work(&mut self) -> bool {
        self.namer.work(&mut self.directory, self.now)
    }

    fn container(&self, id: u64) -> String {
        let key = OwnerKey::Cgroup(key(id));
        let labels = self.directory.labels(self.directory.resolve(key).unwrap());
        labels.get("container").unwrap_or_default().to_owned()
    }

    fn count(&self, outcome: Outcome) -> u64 {
        self.namer.counts().find(|(one, _)| *one == outcome).unwrap().1
    }
}

fn config(container: &str) -> String {
    format!(
        r#"{{"ociVersion": "1.0.2", "annotations": {{
            "io.kubernetes.cri.container-type": "container",
            "io.kubernetes.cri.container-name": "{container}",
            "io.kubernetes.cri.sandbox-name": "web",
            "io.kubernetes.cri.sandbox-namespace": "shop",
            "io.kubernetes.cri.sandbox-uid": "{UID}"}}}}"#
    )
}

#[test]
fn a_container_has_its_name_in_the_same_call() {
    let mut host = Host::new();
    host.write(1, config("php"));
    host.born(1);
    assert!(!host.work());
    assert_eq!(host.container(1), "php");
    assert_eq!((host.count(Outcome::Named), host.namer.next_due()), (1, None));
    assert_eq!(host.namer.latency().count(), 1);
}

#[test]
fn a_file_that_comes_late_is_found_by_a_later_try() {
    let mut host = Host::new();
    host.born(1);
    host.work();
    assert_eq!((host.container(1).as_str(), host.count(Outcome::Absent)), ("", 1));
    let cut: String = config("php").chars().take(100).collect();
    host.write(1, cut);
    host.now = host.namer.next_due().unwrap();
    host.work();
    assert_eq!(host.count(Outcome::Malformed), 1);
    host.write(1, config("php"));
    host.now = host.namer.next_due().unwrap();
    host.work();
    assert_eq!(host.container(1), "php");
}

#[test]
fn tries_are_farther_and_farther_apart_and_end() {
    let mut host = Host::new();
    host.born(1);
    host.work();
    let mut waits = Vec::new();
    while let Some(due) = host.namer.next_due() {
        waits.push(due - host.now);
        host.now = due;
        host.work();
    }
    assert_eq!(waits.len(), 19, "twenty tries");
    assert_eq!((waits[0], waits[1], waits[18]), (RETRY_FIRST, 2 * RETRY_FIRST, RETRY_LONGEST));
    assert!(waits.windows(2).all(|pair| pair[0] <= pair[1]));
    assert_eq!(host.directory.stats().exposed_unnamed_total, 1, "then it is shown by its ids");
}

#[test]
fn a_container_that_is_gone_is_not_looked_for() {
    let mut host = Host::new();
    host.born(1);
    host.work();
    host.directory.died(key(1), host.now);
    host.now += Duration::from_secs(3600);
    let _ = host.directory.expire(host.now);
    host.work();
    assert_eq!((host.namer.next_due(), host.count(Outcome::Absent)), (None, 1));
}

#[test]
fn a_flood_of_births_is_read_a_few_at_a_time() {
    let mut host = Host::new();
    for id in 1..=READS_AT_ONCE as u64 + 1 {
        host.write(id, config("php"));
        host.born(id);
    }
    assert!(host.work(), "one is left");
    assert!(!host.work());
    assert_eq!(host.count(Outcome::Named), READS_AT_ONCE as u64 + 1);
}

#[test]
fn a_huge_file_a_pipe_and_a_folder_name_nobody_and_hold_nobody_up() {
    let mut host = Host::new();
    host.write(1, vec![b' '; usize::try_from(bundle::BYTES_MAX).unwrap() + 1]);
    fs::create_dir_all(host.file(2)).unwrap();
    let pipe = host.file(3);
    fs::create_dir_all(pipe.parent().unwrap()).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    (1..=3).for_each(|id| host.born(id));
    host.work();
    assert_eq!((host.count(Outcome::TooLarge), host.count(Outcome::Unreadable)), (1, 1));
    assert_eq!(host.count(Outcome::Malformed), 1, "an empty pipe reads as an empty file");
}

#[test]
fn a_file_of_no_pod_or_another_pod_is_read_once() {
    let mut host = Host::new();
    host.write(1, "{}");
    host.write(2, config("php").replace(UID, &UID.replace('8', "9")));
    host.born(1);
    host.born(2);
    host.work();
    assert_eq!((host.count(Outcome::NoPod), host.count(Outcome::OtherPod)), (1, 1));
    assert_eq!(host.namer.next_due(), None);
    assert_eq!(host.container(2), "");
}
