//! The agent in a cgroup namespace of its own, as a container has it where cgroups are of version 2: it sees the whole
//! node through the host's folder alone.

use std::time::Duration;

use anyhow::{Context as _, Result};
use telemetry_tests::cgroup::{Cgroup, Hierarchies};
use telemetry_tests::host::{claim, kernel_test};
use telemetry_tests::node::Node;

const CPU: &str = "kernel_cpu_seconds_total";
const CONTAINER: &str = "kernel_container_info";

/// Enters a cgroup, makes a namespace of it and has the host's folder elsewhere, its own nowhere.
const ENTER: &str = r#"
root=$1; shift
for dir in $(cat "$root/folders"); do echo 0 > "$dir/telemetry-private/cgroup.procs"; done
exec unshare --cgroup --mount sh -c '
    root=$1; shift
    mkdir "$root/cgroup" && mount --rbind /sys/fs/cgroup "$root/cgroup" && umount -l /sys/fs/cgroup || exit 1
    exec "$@"' sh "$root" "$@"
"#;

#[test]
fn an_agent_in_a_cgroup_namespace_of_its_own_names_the_whole_node() {
    kernel_test(|| {
        let node = Node::find()?;
        node.clear()?;
        let result = names_the_whole_node(&node);
        node.clear()?;
        result
    });
}

fn names_the_whole_node(node: &Node) -> Result<()> {
    let _own = Cgroup::at("/telemetry-private".to_owned())?;
    let folder = tempfile::tempdir()?;
    let found = Hierarchies::find()?;
    let points = [&found.unified, &found.cpu, &found.blkio].into_iter().flatten();
    let folders: String = points.map(|point| format!("{}\n", point.display())).collect();
    std::fs::write(folder.path().join("folders"), folders)?;
    let root = folder.path().to_str().context("a folder's name")?;
    let run = |name: &str, uid: &str| {
        let script = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; exec /bin/busybox sleep 600";
        node.podlet(&["run", "shop", name, uid, "--", "/bin/busybox", "sh", "-c", script])
    };
    run("before", "8a1b2c3d-0000-4000-8000-0000000000b0")?;
    let agent = node
        .settings()
        .attribution(&format!("cgroup_root = {:?}", folder.path().join("cgroup")))
        .through(&["sh", "-c", ENTER, "sh", root])
        .start()?;
    run("after", "8a1b2c3d-0000-4000-8000-0000000000a0")?;
    let page = agent.page_when("both pods have names", Duration::from_secs(10), |page| {
        ["before", "after"].iter().all(|pod| {
            let owner = [("namespace", "shop"), ("pod", *pod), ("container", "main")];
            page.has(CONTAINER, &owner)
        }) && page.has(CPU, &[("pod", "after"), ("container", "main")])
    })?;
    // The rest of the node is not foreign to it, and the kernel's totals are its node's.
    let foreign = page.sum("telemetry_agent_attribution_dropped_foreign_total", &[]);
    claim(foreign < 0.5, || format!("{foreign} counts of its own node were dropped"))?;
    let own = page.matching(CPU, &[]).any(|series| series.label("pod").is_empty());
    claim(own, || "nothing but pods is on its page".to_owned())
}
