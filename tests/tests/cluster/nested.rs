//! Nested nodes: several nodes on one kernel, each in a cgroup namespace of its own, as kind and minikube make them.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use telemetry_tests::agent::Agent;
use telemetry_tests::cgroup::{Cgroup, Hierarchies};
use telemetry_tests::host::{claim, kernel_test};
use telemetry_tests::node::Node;
use telemetry_tests::page::Page;

const CPU: &str = "kernel_cpu_seconds_total";
const EXECS: &str = "kernel_process_starts_total";
const FOREIGN: &str = "telemetry_agent_attribution_dropped_foreign_total";

/// Enters the cgroups after `--`'s first word, makes a namespace of them, mounts the hierarchies as they look from there
/// and leaves the namespace's root to its children, as version 2 wants it.
const ENTER: &str = r#"
root=$1; node=$2; shift 2
for dir in $(cat "$root/folders"); do echo 0 > "$dir$node/cgroup.procs"; done
exec unshare --cgroup --mount sh -c '
    root=$1; shift
    while read -r kind options; do
        mkdir -p "$root/cgroup/$options" && mount -t "$kind" ${options:+-o "$options"} none "$root/cgroup/$options"
    done < "$root/mounts"
    for dir in "$root"/cgroup "$root"/cgroup/*; do
        test -e "$dir/cgroup.procs" && mkdir -p "$dir/agent" && echo 0 > "$dir/agent/cgroup.procs"
    done
    exec "$@"' sh "$root" "$@"
"#;

/// A nested node: its cgroup, and an agent that sees no more than what is below it.
struct Nested {
    agent: Agent,
    name: &'static str,
    _folder: tempfile::TempDir,
    _cgroup: Cgroup,
}

// === impl Nested ===

impl Nested {
    fn start(node: &Node, name: &'static str) -> Result<Self> {
        let cgroup = Cgroup::at(format!("/{name}"))?;
        let folder = tempfile::tempdir()?;
        let root = folder.path();
        let found = Hierarchies::find()?;
        let mut folders = String::new();
        let mut mounts = String::new();
        // Version 2 goes first: what is mounted below its folder would otherwise hide it.
        for (point, mount) in
            [(&found.unified, "cgroup2 "), (&found.cpu, "cgroup cpu"), (&found.blkio, "cgroup blkio")]
        {
            let Some(point) = point else { continue };
            folders.push_str(&format!("{}\n", point.display()));
            mounts.push_str(&format!("{mount}\n"));
        }
        std::fs::write(root.join("folders"), folders)?;
        std::fs::write(root.join("mounts"), mounts)?;
        let inside = root.to_str().context("a folder's name")?;
        let own_cgroup = format!("/{name}");
        let agent = node
            .settings()
            .attribution(&format!("cgroup_root = {:?}", root.join("cgroup")))
            .through(&["sh", "-c", ENTER, "sh", inside, &own_cgroup])
            .start()?;
        Ok(Self { agent, name, _folder: folder, _cgroup: cgroup })
    }

    /// Makes a pod on it.
    fn run(&self, node: &Node, number: u32) -> Result<()> {
        let pod = format!("{}-{number}", self.name);
        let uid = format!(
            "8a1b2c3d-0000-4000-{}-00000000000{number}",
            if self.name.ends_with('a') { "800a" } else { "800b" }
        );
        let root = format!("/{}", self.name);
        let arguments = ["run", "shop", &pod, &uid, "--cgroup-root", &root, "--", "/bin/busybox", "sh", "-c"];
        let script = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; exec /bin/busybox sleep 600";
        node.podlet(&[&arguments[..], &[script]].concat()).map(drop)
    }
}

/// The pods that a page knows: by identities and by counts.
fn pods(page: &Page) -> [BTreeSet<String>; 2] {
    let of = |name: &str| {
        let pods = page.matching(name, &[]).map(|series| series.label("pod").to_owned());
        pods.filter(|pod| !pod.is_empty()).collect()
    };
    [of("kernel_pod_info"), of(CPU)]
}

#[test]
fn two_nodes_on_one_kernel_report_their_own_pods_exactly() {
    kernel_test(|| {
        let node = Node::find()?;
        node.clear()?;
        let result = two_nodes(&node);
        node.clear()?;
        // What the runtime made between the nodes' cgroups and the pods'.
        for root in Path::new("/sys/fs/cgroup").read_dir()?.flatten() {
            for name in ["telemetry-node-a", "telemetry-node-b"] {
                let dir = root.path().join(name);
                if dir.is_dir() {
                    Command::new("find")
                        .arg(&dir)
                        .args(["-depth", "-type", "d", "-exec", "rmdir", "{}", "+"])
                        .status()?;
                }
            }
        }
        result
    });
}

fn two_nodes(node: &Node) -> Result<()> {
    let whole = node.settings().start()?;
    let nodes = [Nested::start(node, "telemetry-node-a")?, Nested::start(node, "telemetry-node-b")?];
    for number in 1..=3 {
        nodes.iter().try_for_each(|nested| nested.run(node, number))?;
    }
    let expected = |nested: &Nested| -> BTreeSet<String> {
        (1..=3).map(|number| format!("{}-{number}", nested.name)).collect()
    };
    let settled = |page: &Page, pods: &BTreeSet<String>| {
        pods.iter().all(|pod| page.sum(EXECS, &[("pod", pod), ("container", "main")]) > 1.5)
    };
    let all: BTreeSet<String> = nodes.iter().flat_map(expected).collect();
    let limit = Duration::from_secs(20);
    whole.page_when("all pods have begun", limit, |page| settled(page, &all))?;
    let truth = whole.fresh()?;
    for nested in &nodes {
        let own = expected(nested);
        let page = nested.agent.fresh()?;
        for (known, what) in pods(&page).into_iter().zip(["identities", "counts"]) {
            claim(known == own, || format!("{}: {what} of {known:?}, its own are {own:?}", nested.name))?;
        }
        for pod in &own {
            for name in [CPU, EXECS] {
                let of = |page: &Page| page.sum(name, &[("pod", pod), ("container", "main")]);
                let (ours, theirs) = (of(&page), of(&truth));
                claim((ours - theirs).abs() <= 0.01, || {
                    format!("{pod}: {name} {ours}, on the whole kernel {theirs}")
                })?;
            }
        }
        let dropped = page.sum(FOREIGN, &[]);
        claim(dropped > 0.0, || {
            format!("{}: nothing of the other node was seen, let alone dropped", nested.name)
        })?;
        claim(!page.has_family("telemetry_agent_audit_ratio"), || {
            "the kernel's totals are not one node's".to_owned()
        })?;
    }
    claim(truth.sum(FOREIGN, &[]) < 0.5, || "a whole kernel's agent dropped counts".to_owned())
}
