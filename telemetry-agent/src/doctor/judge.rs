//! What the facts of a host mean for the agent. Pure: facts in, checks out.

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;

use telemetry_model::{CgroupKey, Hierarchy};

use super::{Check, Host};
use crate::attribute::Mode;
use crate::bpf::privileges::{Cap, CapSet};
use crate::bpf::{self, Kernel, ProgramState};
use crate::config::Config;

/// From here on every program is tested.
const KERNEL_TESTED: (u32, u32) = (5, 15);
/// From here on most programs load.
const KERNEL_FLOOR: (u32, u32) = (5, 10);

/// Memory that the agent and its maps need, with room to spare: 16 MB and 12 MB on two CPUs.
const MEMORY_MIN_KB: u64 = 64 * 1024;

/// File descriptors that the agent needs beside its connections: programs, links, maps, its files.
const FILES_MIN: u64 = 128;

/// What each capability is for, and whether the agent runs without it.
const CAPABILITIES: [(Cap, &str, bool); 3] = [
    (Cap::BPF, "loads the kernel programs and makes their maps", true),
    (Cap::PERFMON, "lets them read kernel memory and attach to tracepoints", true),
    (Cap::NET_ADMIN, "attaches the programs that count packets and bytes of the network", false),
];

/// Every check on the facts.
#[must_use]
pub fn judge(host: &Host, config: &Config) -> Vec<Check> {
    let mut checks = vec![kernel(host.release.as_deref()), btf(host), programs(host.has_programs)];
    checks.extend(capabilities(host.capabilities));
    checks.extend([
        user_namespace(host.uid_map.as_deref()),
        cgroups(host),
        cgroup_view(host),
        lockdown(host.lockdown.as_deref()),
        jit(host.bpf_jit_enable),
        paranoia(host),
        schedstat(host.schedstat.as_deref()),
        iostats(&host.without_iostats),
        listen(host, config),
        data_dir(host, config),
        memory(host.meminfo.as_deref()),
        files(host.limits.as_deref(), config),
    ]);
    checks
}

/// What came of loading and attaching the programs, a check each.
#[must_use]
pub fn loaded(result: &Result<Kernel, bpf::Error>) -> Vec<Check> {
    match result {
        Ok(kernel) => attached(&kernel.programs, &kernel.missing_fields),
        Err(error) => vec![Check::fail(
            "kernel side",
            error.to_string(),
            "mend what the checks above name, or report it with the kernel's version",
        )],
    }
}

fn attached(programs: &[ProgramState], missing_fields: &[&str]) -> Vec<Check> {
    let mut checks: Vec<_> = programs
        .iter()
        .map(|state| {
            let name = format!("program {}", state.program.name);
            match &state.error {
                None => Check::ok(name, format!("attached to {}", state.program.hook)),
                Some(error) => Check::warn(
                    name,
                    format!("not attached to {}: {error}", state.program.hook),
                    "what it feeds is absent",
                ),
            }
        })
        .collect();
    if !missing_fields.is_empty() {
        let found = format!("this kernel does not have {}", missing_fields.join(", "));
        checks.push(Check::warn(
            "kernel fields",
            found,
            "programs that need them are absent; try a newer kernel",
        ));
    }
    checks
}

fn kernel(release: Option<&str>) -> Check {
    let name = "kernel version";
    let Some(release) = release else {
        return Check::warn(name, "is not told", "mount /proc");
    };
    match version(release) {
        None => Check::warn(name, format!("`{release}` is no version"), "5.15 or later is needed"),
        Some(version) if version >= KERNEL_TESTED => Check::ok(name, release),
        Some(version) if version >= KERNEL_FLOOR => Check::warn(
            name,
            format!("{release} is older than 5.15"),
            "some programs may be refused; a kernel of 5.15 or later has them all",
        ),
        Some(_) => {
            Check::fail(name, format!("{release} is older than 5.10"), "run a kernel of 5.15 or later")
        }
    }
}

/// `6.18.44-fc-v669` is 6.18.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|character: char| !character.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn btf(host: &Host) -> Check {
    match &host.btf {
        Ok(size) => Check::ok("kernel type information", format!("/sys/kernel/btf/vmlinux, {size} bytes")),
        Err(error) => Check::fail(
            "kernel type information",
            error,
            "run a kernel built with CONFIG_DEBUG_INFO_BTF=y, and mount /sys",
        ),
    }
}

fn programs(has_programs: bool) -> Check {
    if has_programs {
        Check::ok("kernel programs", "are part of this binary")
    } else {
        Check::fail(
            "kernel programs",
            "are not part of this binary",
            "run `cargo xtask build-ebpf`, then build again",
        )
    }
}

fn capabilities(held: Option<CapSet>) -> Vec<Check> {
    let held = held.unwrap_or(CapSet::NONE);
    CAPABILITIES
        .iter()
        .map(|&(cap, purpose, is_required)| {
            if held.missing(&[cap]).is_empty() {
                return Check::ok(cap.name(), format!("held; {purpose}"));
            }
            let remedy = format!("run as root, or add {} to the container's capabilities", cap.name());
            let found = format!("missing; it {purpose}");
            if is_required {
                Check::fail(cap.name(), found, remedy)
            } else {
                Check::warn(cap.name(), found, remedy)
            }
        })
        .collect()
}

/// The initial namespace maps every user to itself; elsewhere capabilities are shown and do not count.
fn user_namespace(uid_map: Option<&str>) -> Check {
    let name = "user namespace";
    let fields: Vec<_> = uid_map.unwrap_or_default().split_ascii_whitespace().collect();
    match fields.as_slice() {
        ["0", "0", "4294967295"] => Check::ok(name, "the host's"),
        [] => Check::ok(name, "not told"),
        _ => Check::fail(
            name,
            "not the host's, so that its capabilities do not count for kernel programs",
            "run in the host's user namespace (Kubernetes: hostUsers: true)",
        ),
    }
}

fn cgroups(host: &Host) -> Check {
    let name = "cgroup hierarchies";
    let mounts = match &host.cgroups {
        Ok(mounts) => mounts,
        Err(error) => {
            return Check::fail(
                name,
                error,
                "mount the host's /sys/fs/cgroup, or set attribution.cgroup_root",
            );
        }
    };
    let mut found = String::new();
    for mount in mounts.mounts() {
        let kind = match mount.hierarchy {
            Hierarchy::Unified => "version 2",
            Hierarchy::Cpu => "version 1 cpu",
            Hierarchy::Blkio => "version 1 blkio",
        };
        let separator = if found.is_empty() { "" } else { ", " };
        // Writing to a String cannot fail.
        let _ = write!(found, "{separator}{kind} at {}", mount.point.display());
    }
    let unify = "boot with systemd.unified_cgroup_hierarchy=1";
    match mounts.mode() {
        Mode::Unified => Check::ok(name, found),
        Mode::Hybrid if mounts.point(Hierarchy::Blkio).is_some() => {
            Check::warn(name, format!("{found}; buffered writes count as the root's under version 1"), unify)
        }
        Mode::Hybrid => Check::ok(name, found),
        Mode::Legacy => Check::warn(
            name,
            format!("{found}; the network cannot be counted without version 2"),
            format!("mount cgroup2, or {unify}"),
        ),
    }
}

/// A hierarchy's root has one inode number wherever it is seen whole.
fn cgroup_view(host: &Host) -> Check {
    let name = "view of the cgroups";
    let is_part = host.cgroup_roots.iter().any(|(_, inode)| *inode != CgroupKey::ROOT_ID);
    if is_part {
        Check::warn(
            name,
            "only a part of the tree is visible; work outside it is named by events alone",
            "mount the host's /sys/fs/cgroup, and set attribution.cgroup_root to where",
        )
    } else {
        Check::ok(name, "from the root")
    }
}

fn lockdown(state: Option<&str>) -> Check {
    let name = "kernel lockdown";
    // `none [integrity] confidentiality`: the one in brackets holds.
    let now = state.and_then(|state| state.split_once('[')?.1.split_once(']').map(|(now, _)| now));
    match now {
        Some("confidentiality") => Check::warn(
            name,
            "confidentiality; programs that read kernel memory may be refused",
            "boot with lockdown=integrity",
        ),
        Some(now) => Check::ok(name, now),
        None => Check::ok(name, "not in force, or not told"),
    }
}

fn jit(enabled: Option<i64>) -> Check {
    let name = "net.core.bpf_jit_enable";
    match enabled {
        Some(0) => Check::warn(
            name,
            "0; programs are interpreted, which costs many times as much",
            "sysctl -w net.core.bpf_jit_enable=1",
        ),
        Some(enabled) => Check::ok(name, enabled.to_string()),
        None => Check::ok(name, "not told"),
    }
}

/// Told because others' answers to trouble name them; the agent depends on neither.
fn paranoia(host: &Host) -> Check {
    let told = |value: Option<i64>| value.map_or_else(|| "not told".to_owned(), |value| value.to_string());
    Check::ok(
        "kernel.perf_event_paranoid and kernel.unprivileged_bpf_disabled",
        format!(
            "{} and {}; neither matters to the agent",
            told(host.perf_event_paranoid),
            told(host.unprivileged_bpf_disabled)
        ),
    )
}

/// A process that reads this has been on a CPU at least once; all zeroes come from a kernel that does not count.
fn schedstat(schedstat: Option<&str>) -> Check {
    let name = "scheduler statistics";
    let counts = schedstat.is_some_and(|text| text.split_ascii_whitespace().any(|field| field != "0"));
    if counts {
        Check::ok(name, "/proc/PID/schedstat counts")
    } else {
        Check::warn(
            name,
            "the kernel keeps no run-queue times (CONFIG_SCHED_INFO); that latency is absent",
            "run a kernel with CONFIG_SCHEDSTATS=y or CONFIG_TASK_DELAY_ACCT=y",
        )
    }
}

fn iostats(without: &[String]) -> Check {
    let name = "block I/O statistics";
    match without {
        [] => Check::ok(name, "on for every device with requests"),
        [first, ..] => Check::warn(
            name,
            format!(
                "off for {}; their requests carry no times, so that latency is absent",
                without.join(", ")
            ),
            format!("echo 1 > /sys/block/{first}/queue/iostats"),
        ),
    }
}

fn listen(host: &Host, config: &Config) -> Check {
    let name = format!("listen on {}", config.listen);
    let asks_somebody = config.kubernetes.token_review || !config.web_config_file.as_os_str().is_empty();
    let grpc = [&config.otlp_grpc, &config.thanos_grpc].into_iter().filter_map(|text| text.parse().ok());
    let open = |address: &SocketAddr| !address.ip().to_canonical().is_loopback();
    let open = std::iter::once(config.listen).chain(grpc).find(open);
    if let (Some(open), false, false) = (open, config.insecure_listen, asks_somebody) {
        let remedy = "name users, tokens or an authority of clients in a file for --web.config.file, set kubernetes.token_review, or say --insecure-listen";
        return Check::fail(name, format!("whoever reaches {open} could read everything"), remedy);
    }
    match host.listen {
        Ok(()) => Check::ok(name, "free"),
        Err(io::ErrorKind::AddrInUse) if host.is_locked => {
            Check::ok(name, "in use, and an agent has the data directory: it is running")
        }
        Err(io::ErrorKind::AddrInUse) => {
            Check::fail(name, "in use", "stop what listens there, or choose another with --listen")
        }
        Err(io::ErrorKind::AddrNotAvailable) => {
            Check::fail(name, "no address of this host", "choose another with --listen")
        }
        Err(kind) => Check::fail(name, kind.to_string(), "choose another address with --listen"),
    }
}

fn data_dir(host: &Host, config: &Config) -> Check {
    let name = format!("data directory {}", config.data_dir.display());
    match &host.data_dir {
        Ok(_) if host.is_locked => Check::ok(name, "in use by a running agent"),
        Ok(existing) if *existing == config.data_dir => Check::ok(name, "can be written to"),
        Ok(existing) => Check::ok(name, format!("can be made in {}", existing.display())),
        Err(error) => Check::fail(name, error, "choose another with --data-dir"),
    }
}

fn memory(meminfo: Option<&str>) -> Check {
    let name = "memory";
    let available = meminfo.and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
        line.split_ascii_whitespace().next()?.parse::<u64>().ok()
    });
    match available {
        Some(kb) if kb < MEMORY_MIN_KB => Check::warn(
            name,
            format!("{} MiB available", kb / 1024),
            format!("free some; the agent is at ease with {} MiB", MEMORY_MIN_KB / 1024),
        ),
        Some(kb) => Check::ok(name, format!("{} MiB available", kb / 1024)),
        None => Check::ok(name, "not told"),
    }
}

/// `Max open files            1024                 524288               files`
fn files(limits: Option<&str>, config: &Config) -> Check {
    let name = "limit of open files";
    let soft = limits.and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("Max open files"))?;
        line.split_ascii_whitespace().next()
    });
    let connections = u64::try_from(config.http.connections_max).unwrap_or(u64::MAX);
    let needed = connections.saturating_add(FILES_MIN);
    match soft.map(|soft| (soft, soft.parse::<u64>())) {
        Some((soft, Ok(files))) if files < needed => Check::warn(
            name,
            soft,
            format!("allow {needed} (ulimit -n, LimitNOFILE=), or lower http.connections_max"),
        ),
        Some((soft, _)) => Check::ok(name, soft),
        None => Check::ok(name, "not told"),
    }
}

#[cfg(test)]
mod tests;
