//! Hosts that are made up, one lack at a time.

use super::*;
use crate::attribute::Mounts;
use crate::doctor::Verdict;
use std::path::PathBuf;

const UNIFIED: &str = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
const CPU_V1: &str = "31 23 0:27 / /cg/cpu rw - cgroup cgroup rw,cpu\n";
const BLKIO_V1: &str = "32 23 0:28 / /cg/blkio rw - cgroup cgroup rw,blkio\n";

fn mounts(mountinfo: &str) -> Result<Mounts, String> {
    Mounts::discover(mountinfo, "", "").map_err(|error| error.to_string())
}

/// A host that offers everything.
fn good() -> Host {
    Host {
        release: Some("6.12.9+deb13-amd64".to_owned()),
        btf: Ok(5_000_000),
        has_programs: true,
        capabilities: Some([Cap::BPF, Cap::PERFMON, Cap::NET_ADMIN].into_iter().collect()),
        uid_map: Some("         0          0 4294967295".to_owned()),
        cgroups: mounts(UNIFIED),
        cgroup_roots: vec![(Hierarchy::Unified, 1)],
        perf_event_paranoid: Some(3),
        unprivileged_bpf_disabled: Some(2),
        bpf_jit_enable: Some(1),
        lockdown: Some("none [integrity] confidentiality".to_owned()),
        schedstat: Some("123456 789 3".to_owned()),
        without_iostats: Vec::new(),
        listen: Ok(()),
        is_locked: false,
        data_dir: Ok(PathBuf::from("/var/lib")),
        meminfo: Some("MemTotal:  8000000 kB\nMemAvailable:    4000000 kB".to_owned()),
        limits: Some("Max open files            1024                 524288               files".to_owned()),
    }
}

/// The one check that is not ok on a host that is good but for one thing.
fn check(change: impl FnOnce(&mut Host), verdict: Verdict, name: &str, needles: &[&str]) {
    let mut host = good();
    change(&mut host);
    let bad: Vec<_> =
        judge(&host, &Config::default()).into_iter().filter(|check| check.verdict != Verdict::Ok).collect();
    let [check] = bad.as_slice() else { panic!("one check is expected to complain: {bad:?}") };
    assert_eq!((check.verdict, check.name.as_str()), (verdict, name), "{check:?}");
    assert!(!check.remedy.is_empty(), "{check:?}");
    for needle in needles {
        assert!(check.found.contains(needle) || check.remedy.contains(needle), "{needle}: {check:?}");
    }
}

fn fine(change: impl FnOnce(&mut Host)) {
    let mut host = good();
    change(&mut host);
    let bad: Vec<_> =
        judge(&host, &Config::default()).into_iter().filter(|check| check.verdict != Verdict::Ok).collect();
    assert!(bad.is_empty(), "{bad:?}");
}

#[test]
fn a_good_host_has_nothing_to_mend() {
    fine(|_| {});
    assert!(judge(&good(), &Config::default()).len() >= 15);
}

#[test]
fn old_kernels_are_warned_of_and_then_refused() {
    let release = |release: &str| {
        let release = release.to_owned();
        move |host: &mut Host| host.release = Some(release)
    };
    fine(release("5.15.0"));
    fine(release("7.0-rc1"));
    check(release("5.14.21-suse"), Verdict::Warn, "kernel version", &["5.14.21-suse", "5.15"]);
    check(release("5.10.0-8-amd64"), Verdict::Warn, "kernel version", &["5.15"]);
    check(release("5.9.16"), Verdict::Fail, "kernel version", &["5.9.16"]);
    check(release("4.19.0"), Verdict::Fail, "kernel version", &["5.15"]);
    check(release("plan9"), Verdict::Warn, "kernel version", &["plan9"]);
    check(|host| host.release = None, Verdict::Warn, "kernel version", &["/proc"]);
}

#[test]
fn what_the_agent_cannot_run_without_fails() {
    let none = || Err("/sys/kernel/btf/vmlinux: No such file".to_owned());
    check(
        |host| host.btf = none(),
        Verdict::Fail,
        "kernel type information",
        &["vmlinux", "CONFIG_DEBUG_INFO_BTF"],
    );
    check(|host| host.has_programs = false, Verdict::Fail, "kernel programs", &["build-ebpf"]);
    check(
        |host| host.cgroups = mounts(""),
        Verdict::Fail,
        "cgroup hierarchies",
        &["attribution.cgroup_root"],
    );
    let nested = |host: &mut Host| host.uid_map = Some("0 100000 65536".to_owned());
    check(nested, Verdict::Fail, "user namespace", &["hostUsers"]);
    let in_use = |host: &mut Host| host.listen = Err(io::ErrorKind::AddrInUse);
    check(in_use, Verdict::Fail, "listen on 127.0.0.1:9632", &["--listen"]);
    let elsewhere = |host: &mut Host| host.listen = Err(io::ErrorKind::AddrNotAvailable);
    check(elsewhere, Verdict::Fail, "listen on 127.0.0.1:9632", &["--listen"]);
    let read_only = |host: &mut Host| host.data_dir = Err("/var/lib: Read-only file system".to_owned());
    check(read_only, Verdict::Fail, "data directory /var/lib/telemetry", &["Read-only", "--data-dir"]);
}

#[test]
fn an_address_that_others_reach_needs_a_choice() {
    let listen = "0.0.0.0:9632".parse().unwrap();
    let verdict = |config: Config| {
        let checks = judge(&good(), &config);
        checks.into_iter().find(|check| check.name == "listen on 0.0.0.0:9632").unwrap().verdict
    };
    let open = Config { listen, ..Config::default() };
    assert_eq!(verdict(open.clone()), Verdict::Fail);
    assert_eq!(verdict(Config { insecure_listen: true, ..open.clone() }), Verdict::Ok);
    assert_eq!(verdict(Config { web_config_file: "/etc/web.yml".into(), ..open.clone() }), Verdict::Ok);
    let mut reviewed = open;
    reviewed.kubernetes.token_review = true;
    assert_eq!(verdict(reviewed), Verdict::Ok);
    let grpc = Config { otlp_grpc: "0.0.0.0:4317".to_owned(), ..Config::default() };
    let checks = judge(&good(), &grpc);
    let check = checks.iter().find(|check| check.name == "listen on 127.0.0.1:9632").unwrap();
    assert_eq!(check.verdict, Verdict::Fail);
}

#[test]
fn each_capability_is_named_with_what_it_is_for() {
    let without = |cap: Cap| {
        let left: CapSet = good().capabilities.unwrap().iter().filter(|other| *other != cap).collect();
        move |host: &mut Host| host.capabilities = Some(left)
    };
    check(without(Cap::BPF), Verdict::Fail, "CAP_BPF", &["loads the kernel programs", "add CAP_BPF"]);
    check(without(Cap::PERFMON), Verdict::Fail, "CAP_PERFMON", &["read kernel memory"]);
    check(without(Cap::NET_ADMIN), Verdict::Warn, "CAP_NET_ADMIN", &["count packets"]);
    fine(|host| host.capabilities = Some(CapSet::NONE.with(Cap::SYS_ADMIN)));
    let checks = capabilities(None);
    assert!(checks.iter().all(|check| check.verdict != Verdict::Ok), "{checks:?}");
}

#[test]
fn cgroup_modes_say_what_they_cannot_do() {
    fine(|host| host.cgroups = mounts(&format!("{UNIFIED}{CPU_V1}")));
    let hybrid = |host: &mut Host| host.cgroups = mounts(&format!("{UNIFIED}{CPU_V1}{BLKIO_V1}"));
    check(hybrid, Verdict::Warn, "cgroup hierarchies", &["version 1 blkio at /cg/blkio", "buffered writes"]);
    let legacy = |host: &mut Host| host.cgroups = mounts(&format!("{CPU_V1}{BLKIO_V1}"));
    check(legacy, Verdict::Warn, "cgroup hierarchies", &["network", "mount cgroup2"]);
    let part = |host: &mut Host| host.cgroup_roots = vec![(Hierarchy::Unified, 4711)];
    check(part, Verdict::Warn, "view of the cgroups", &["attribution.cgroup_root"]);
}

#[test]
fn settings_that_cost_figures_are_warned_of() {
    let locked = |host: &mut Host| host.lockdown = Some("none integrity [confidentiality]".to_owned());
    check(locked, Verdict::Warn, "kernel lockdown", &["lockdown=integrity"]);
    fine(|host| host.lockdown = None);
    check(|host| host.bpf_jit_enable = Some(0), Verdict::Warn, "net.core.bpf_jit_enable", &["sysctl -w"]);
    fine(|host| host.perf_event_paranoid = Some(4));
    for schedstat in [None, Some("0 0 0".to_owned())] {
        check(
            |host| host.schedstat = schedstat,
            Verdict::Warn,
            "scheduler statistics",
            &["CONFIG_SCHED_INFO"],
        );
    }
    fine(|host| host.schedstat = Some("0 0 1".to_owned()));
    let off = |host: &mut Host| host.without_iostats = vec!["sda".to_owned(), "sdb".to_owned()];
    check(off, Verdict::Warn, "block I/O statistics", &["sda, sdb", "/sys/block/sda/queue/iostats"]);
}

#[test]
fn scarce_memory_and_files_are_warned_of() {
    let scarce = |host: &mut Host| host.meminfo = Some("MemAvailable: 20480 kB".to_owned());
    check(scarce, Verdict::Warn, "memory", &["20 MiB"]);
    let few = |host: &mut Host| host.limits = Some("Max open files  100  100  files".to_owned());
    check(few, Verdict::Warn, "limit of open files", &["100", "http.connections_max"]);
    fine(|host| host.limits = Some("Max open files  unlimited  unlimited  files".to_owned()));
    fine(|host| (host.meminfo, host.limits) = (None, None));
}

#[test]
fn a_running_agent_is_no_obstacle() {
    fine(|host| (host.listen, host.is_locked) = (Err(io::ErrorKind::AddrInUse), true));
}

#[test]
fn a_kernel_side_that_cannot_be_had_is_a_failed_check() {
    let checks = loaded(&Err(bpf::Error::NotBuilt));
    assert_eq!((checks.len(), checks[0].verdict), (1, Verdict::Fail));
    let checks = attached(&[], &["task_struct.sched_info"]);
    assert_eq!((checks.len(), checks[0].verdict), (1, Verdict::Warn));
    assert!(checks[0].found.contains("task_struct.sched_info"));
}
