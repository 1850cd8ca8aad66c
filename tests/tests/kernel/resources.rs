//! What the agent itself takes: memory, CPU time, kernel memory, privileges.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use telemetry_agent::attribute::bundle::Bundle;
use telemetry_agent::attribute::{Config, Directory, Names};
use telemetry_model::{CgroupKey, Digest, Hierarchy, OwnerKey, Pod, PodContainer, Workload};
use telemetry_tests::agent::{self, Settings};
use telemetry_tests::host::{claim, cpus, emulated, eventually, kernel_test, slowness};
use telemetry_tests::proc;

/// The page that operators and reviewers read is the one that the agent is held to.
const PRIVILEGES: &str = include_str!("../../../docs/privileges.md");

/// Resident memory after start.
const RESIDENT_KIB_MAX: f64 = 16.0 * 1024.0;
/// All maps together, on two CPUs.
const MAP_BYTES_MAX: f64 = 12.0 * 1024.0 * 1024.0;
/// What attribution may take of a full node's pods.
const ATTRIBUTION_BYTES_MAX: usize = 1 << 20;
/// Pods of a full node, and each one's containers: two and the sandbox.
const PODS: u64 = 110;
const CONTAINERS: u64 = 3;
/// A part of one core, at a tick of five seconds.
const IDLE_CPU_MAX: f64 = 0.003;
/// How long idleness is watched.
const IDLE_WINDOW: Duration = Duration::from_secs(20);

#[test]
fn no_thread_keeps_a_capability_that_the_docs_do_not_list() {
    kernel_test(|| {
        let agent = Settings::new().start()?;
        // Requests in flight, so that every thread there ever is, is there.
        agent.fresh()?;
        let threads = proc::threads(agent.pid())?;
        for thread in &threads {
            let status = proc::read(format!("/proc/{}/task/{thread}/status", agent.pid()))?;
            let name = proc::text_field(&status, "Name:").unwrap_or_default();
            for set in ["CapEff", "CapPrm", "CapInh", "CapAmb"] {
                let allowed = documented(set)?;
                let held =
                    proc::text_field(&status, &format!("{set}:")).context("no capabilities in status")?;
                let held = u64::from_str_radix(held, 16)?;
                claim(held & !allowed == 0, || {
                    format!("thread {name}: {set} {held:016x}, allowed {allowed:016x}")
                })?;
            }
            let no_new = proc::text_field(&status, "NoNewPrivs:");
            claim(no_new == Some("1"), || format!("thread {name}: NoNewPrivs {no_new:?}"))?;
        }
        Ok(())
    });
}

/// What the documentation says is left in a set of each thread.
fn documented(set: &str) -> Result<u64> {
    let line = PRIVILEGES.lines().find_map(|line| line.strip_prefix(set)?.strip_prefix(' '));
    let mask = line.with_context(|| format!("docs/privileges.md has no line {set}"))?;
    u64::from_str_radix(mask.trim(), 16).with_context(|| format!("docs/privileges.md: {set} {mask}"))
}

#[test]
fn resident_memory_after_start_is_small() {
    kernel_test(|| {
        let agent = Settings::new().tick(Duration::from_secs(5)).start()?;
        agent.scrape()?;
        let slack = match (agent::is_unoptimised()?, emulated()) {
            (true, _) => 2.0,
            // A guest's agent is linked whole, its libraries in it, and not optimised as one.
            (false, true) => 1.25,
            (false, false) => 1.0,
        };
        let allowed = RESIDENT_KIB_MAX * slack;
        // The code of the start leaves memory a second later.
        let mut resident = 0.0;
        let looked = eventually("resident memory is small", Duration::from_secs(4), || {
            let status = proc::read(format!("/proc/{}/status", agent.pid()))?;
            resident = proc::field(&status, "VmRSS:").context("no VmRSS")?;
            Ok(resident <= allowed)
        });
        report(&format!("resident memory {resident} KiB"));
        looked.with_context(|| format!("{resident} KiB resident, {allowed} allowed"))
    });
}

#[test]
fn maps_take_no_more_kernel_memory_than_promised() {
    kernel_test(|| {
        let agent = Settings::new().start()?;
        let bytes = agent.scrape()?.sum("telemetry_agent_bpf_map_bytes", &[]);
        report(&format!("maps {bytes} B with {} CPUs", cpus()));
        let allowed = MAP_BYTES_MAX * (cpus() as f64 / 2.0).max(1.0);
        claim(bytes > 0.0 && bytes <= allowed, || format!("{bytes} B of maps, {allowed} allowed"))?;
        let truth = map_bytes_by_fdinfo(agent.pid())?;
        claim(bytes >= truth * 0.9, || format!("the page says {bytes} B, the kernel {truth} B"))
    });
}

#[test]
fn attribution_of_a_full_node_takes_less_than_a_megabyte() {
    let before = proc::heap_bytes();
    let directory = full_node();
    let took = proc::heap_bytes().saturating_sub(before);
    report(&format!("attribution of {PODS} pods with {CONTAINERS} containers each: {took} B"));
    assert_eq!(directory.stats().unnamed, 0);
    assert_eq!(directory.named().count(), usize::try_from(PODS * CONTAINERS).unwrap_or_default());
    assert!(took < ATTRIBUTION_BYTES_MAX, "{took} B, {ATTRIBUTION_BYTES_MAX} allowed");
}

/// Every cgroup in the three hierarchies of a hybrid machine, all named.
fn full_node() -> Directory {
    let now = Instant::now();
    let mut directory = Directory::new(&Config::default());
    for pod in 0..PODS {
        let uid = format!("8a1b2c3d-0000-4000-8000-{pod:012x}");
        for container in 0..=CONTAINERS {
            let id = if container == 0 { String::new() } else { format!("/{:064x}", pod * 8 + container) };
            let path = format!("/kubepods/burstable/pod{uid}{id}");
            for hierarchy in [Hierarchy::Unified, Hierarchy::Cpu, Hierarchy::Blkio] {
                let key = CgroupKey { hierarchy, id: 100 + pod * 8 + container };
                directory.born(key, path.as_bytes(), now, now);
            }
        }
        for (at, owner) in directory.take_unread().into_iter().enumerate() {
            let container = if at == 0 { String::new() } else { format!("container-{at}") };
            let names = Names {
                namespace: "kube-system".into(),
                pod: format!("deployment-7c9d8f5b6d-{pod:05}").into(),
                container: container.into(),
            };
            let image = "registry.example.com/team/service:v1.2.3".to_owned();
            let bundle = Bundle { names, pod_uid: uid.clone(), image };
            assert_eq!(directory.name(owner, &bundle, now), Ok(()));
        }
        // Events are told of as they come.
        assert_eq!(directory.take_changes().1, 0);
    }
    let last =
        OwnerKey::Cgroup(CgroupKey { hierarchy: Hierarchy::Blkio, id: 100 + PODS * 8 - 8 + CONTAINERS });
    assert!(directory.resolve(last).is_some(), "the last container is there");
    directory.describe(Arc::new((0..PODS).map(described).collect()), now);
    let uid = "8a1b2c3d-0000-4000-8000-000000000000";
    assert!(directory.description(uid).is_some(), "the API server has told of its pods");
    directory
}

/// A pod as the API server describes it.
fn described(pod: u64) -> (Arc<str>, Arc<Pod>) {
    let uid: Arc<str> = format!("8a1b2c3d-0000-4000-8000-{pod:012x}").into();
    let containers = (1..=CONTAINERS).map(|container| PodContainer {
        name: format!("container-{}", container - 1).into(),
        id: Digest::of_hex(&format!("{:064x}", pod * 8 + container)),
        image: "registry.example.com/team/service:v1.2.3".into(),
        image_digest: Digest::of_hex(&format!("{pod:064x}")),
    });
    let described = Pod {
        cgroup_uid: Arc::clone(&uid),
        uid: Arc::clone(&uid),
        namespace: "kube-system".into(),
        name: format!("deployment-7c9d8f5b6d-{pod:05}").into(),
        workload: Workload { kind: "deployment".into(), name: "deployment".into(), is_inferred: true },
        ip: "10.88.0.200".into(),
        service_account: "default".into(),
        labels: vec![("app".into(), "deployment".into())],
        containers: containers.collect(),
        ..Pod::default()
    };
    (uid, Arc::new(described))
}

/// The kernel's own figure of the maps a process holds, each once.
fn map_bytes_by_fdinfo(pid: u32) -> Result<f64> {
    let mut maps = std::collections::BTreeMap::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        let Ok(text) = std::fs::read_to_string(entry?.path()) else { continue };
        if let (Some(id), Some(bytes)) = (proc::field(&text, "map_id:"), proc::field(&text, "memlock:")) {
            maps.insert(id.to_bits(), bytes);
        }
    }
    Ok(maps.values().sum())
}

#[test]
fn an_idle_agent_costs_next_to_no_cpu_time() {
    kernel_test(|| {
        let agent = Settings::new().tick(Duration::from_secs(5)).start()?;
        agent.scrape()?;
        let (start, before) = (Instant::now(), proc::schedstat(agent.pid())?.run_s);
        std::thread::sleep(IDLE_WINDOW);
        let part = (proc::schedstat(agent.pid())?.run_s - before) / start.elapsed().as_secs_f64();
        report(&format!("idle CPU {:.4} % of a core", part * 100.0));
        // An emulated CPU is slower yet at what an idle agent does most: calls into the kernel.
        let emulated = if slowness() > 1 { 2.0 } else { 1.0 };
        let build = if agent::is_unoptimised()? { 5.0 } else { 1.0 };
        let allowed = IDLE_CPU_MAX * f64::from(slowness()) * emulated * build;
        claim(part <= allowed, || format!("{part:.5} of a core, {allowed:.5} allowed"))
    });
}

/// Figures that pass are worth reading too.
#[expect(clippy::print_stdout, reason = "shown by the test harness on request")]
fn report(figure: &str) {
    println!("{figure}");
}
