//! Start, end, and refusal to start: exit codes, one clear line, and nothing left in the kernel.

use std::collections::BTreeSet;
use std::ffi::CStr;
use std::fs;
use std::io;
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use telemetry_tests::agent::{self, Outcome, Settings};
use telemetry_tests::bpf;
use telemetry_tests::cgroup::Cgroup;
use telemetry_tests::host::{claim, eventually, kernel_test};
use telemetry_tests::workload::burn;

const CPU: &str = "kernel_cpu_seconds_total";
const ATTACHED: &str = "telemetry_agent_bpf_program_attached";
/// include/uapi/linux/capability.h
const NET_ADMIN: u32 = 12;
const PERFMON: u32 = 38;
const BPF: u32 = 39;

fn none_left(ids: &BTreeSet<u32>) -> Result<()> {
    claim(ids.len() >= 3, || format!("the agent held only the programs {ids:?}"))?;
    eventually("the kernel has let go of the agent's programs", Duration::from_secs(10), || {
        let all: BTreeSet<u32> = bpf::program_ids()?.into_iter().collect();
        Ok(all.is_disjoint(ids))
    })
}

/// The exit code, and one plain line that names what is wrong; log records are JSON and do not count.
fn refused(outcome: &Outcome, code: i32, needles: &[&str]) -> Result<()> {
    let plain: Vec<&str> = outcome.stderr.lines().filter(|line| !line.starts_with('{')).collect();
    claim(outcome.status.code() == Some(code), || {
        format!("{}, not {code}; it said:\n{}", outcome.status, outcome.stderr)
    })?;
    let [line] = plain.as_slice() else {
        anyhow::bail!("{} plain lines in place of one:\n{}", plain.len(), outcome.stderr);
    };
    claim(line.starts_with("telemetry-agent: "), || format!("{line:?} does not say who speaks"))?;
    for needle in needles {
        claim(line.contains(needle), || format!("{line:?} does not name {needle:?}"))?;
    }
    Ok(())
}

#[test]
fn sigterm_ends_it_well_and_it_starts_again() {
    kernel_test(|| {
        for round in 0..2 {
            let agent = Settings::new().start()?;
            let cgroup = Cgroup::new(format!("restart-{round}"))?;
            let burnt = burn(&cgroup, 30)?;
            let page = agent.fresh()?;
            let figure = page.sum(CPU, &[("unit", &cgroup.unit())]);
            burnt.holds("CPU seconds in this life", figure, &page)?;
            let ids = bpf::held_by(agent.pid())?;
            let outcome = agent.stop()?;
            claim(outcome.status.code() == Some(0), || {
                format!("{}; log:\n{}", outcome.status, outcome.stderr)
            })?;
            none_left(&ids)?;
        }
        Ok(())
    });
}

#[test]
fn a_killed_agent_leaves_no_program_behind() {
    kernel_test(|| {
        let agent = Settings::new().start()?;
        let ids = bpf::held_by(agent.pid())?;
        agent.kill()?;
        none_left(&ids)
    });
}

#[test]
fn two_agents_count_side_by_side() {
    kernel_test(|| {
        let (one, two) = (Settings::new().start()?, Settings::new().start()?);
        let cgroup = Cgroup::new("watched-twice")?;
        let burnt = burn(&cgroup, 50)?;
        for agent in [&one, &two] {
            let page = agent.fresh()?;
            let figure = page.sum(CPU, &[("unit", &cgroup.unit())]);
            burnt.holds("CPU seconds", figure, &page)?;
        }
        Ok(())
    });
}

/// Keeps only these capabilities over the coming exec.
fn keep_capabilities(command: &mut Command, kept: &'static [u32]) {
    let drop = move || {
        for capability in (0..64).filter(|capability| !kept.contains(capability)) {
            // A root process gets what its bounding set holds at exec, so that set is the one to cut. The kernel has
            // fewer than 64 and refuses the numbers beyond its last.
            // SAFETY: prctl takes numbers here.
            unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(capability), 0, 0, 0) };
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure only makes system calls.
    unsafe { command.pre_exec(drop) };
}

#[test]
fn without_privileges_it_says_so_and_ends_with_77() {
    kernel_test(|| {
        let outcome = Settings::new().run_to_end(|command| keep_capabilities(command, &[]))?;
        refused(&outcome, 77, &["CAP_BPF"])
    });
}

#[test]
fn the_three_capabilities_of_the_docs_are_enough() {
    kernel_test(|| {
        let agent =
            Settings::new().start_with(|command| keep_capabilities(command, &[NET_ADMIN, PERFMON, BPF]))?;
        let cgroup = Cgroup::new("three-capabilities")?;
        let burnt = burn(&cgroup, 50)?;
        let page = agent.fresh()?;
        burnt.holds("CPU seconds", page.sum(CPU, &[("unit", &cgroup.unit())]), &page)?;
        let missing: Vec<_> = page.matching(ATTACHED, &[]).filter(|series| series.value < 1.0).collect();
        claim(missing.is_empty(), || format!("not attached: {missing:?}"))
    });
}

#[test]
fn without_one_program_its_family_is_absent_and_the_others_stand() {
    kernel_test(|| {
        let agent = Settings::new().kernel("disable_programs = [\"block_rq_complete\"]").start()?;
        let cgroup = Cgroup::new("degraded")?;
        let burnt = burn(&cgroup, 50)?;
        let page = agent.fresh()?;
        burnt.holds("CPU seconds", page.sum(CPU, &[("unit", &cgroup.unit())]), &page)?;
        let block = [("program", "block_rq_complete")];
        claim(page.has(ATTACHED, &block) && page.sum(ATTACHED, &block) < 0.5, || {
            format!("the missing program is not reported:{}", page.about("program_attached"))
        })?;
        let family = page.series().iter().find(|series| series.name.starts_with("kernel_block_io_"));
        claim(family.is_none(), || format!("figures without their program: {family:?}"))?;
        claim(page.sum(ATTACHED, &[("program", "sched_switch")]) > 0.5, || page.about("program_attached"))
    });
}

#[test]
fn a_family_that_is_switched_off_is_absent_and_costs_nothing() {
    kernel_test(|| {
        let agent = Settings::new().kernel("families.network = false").start()?;
        let page = agent.fresh()?;
        let network = ["kernel_network_", "kernel_tcp_"];
        let found =
            page.series().iter().find(|series| network.iter().any(|start| series.name.starts_with(start)));
        claim(found.is_none(), || format!("figures of a family that is off: {found:?}"))?;
        claim(page.has(CPU, &[]), || "the scheduler family is gone too".into())?;
        for name in ["skb_receive", "skb_transmit", "inet_sock_set_"] {
            for id in bpf::held_by(agent.pid())? {
                claim(!bpf::program(id)?.name.starts_with(name), || {
                    format!("{name} is loaded although it is off")
                })?;
            }
        }
        Ok(())
    });
}

#[test]
fn every_program_that_was_not_disabled_is_attached() {
    kernel_test(|| {
        let agent = Settings::new().start()?;
        let page = agent.fresh()?;
        let missing: Vec<_> = page.matching(ATTACHED, &[]).filter(|series| series.value < 1.0).collect();
        claim(missing.is_empty(), || format!("not attached: {missing:?}\n{}", agent.log()))?;
        let count = page.matching(ATTACHED, &[]).count();
        claim(count >= 6, || format!("{count} programs reported"))
    });
}

#[test]
fn without_btf_it_says_so_and_ends_with_69() {
    kernel_test(|| {
        let outcome = Settings::new().run_to_end(hide_btf)?;
        refused(&outcome, 69, &["/sys/kernel/btf/vmlinux"])
    });
}

/// In a mount namespace of the command's own, an empty folder in place of the kernel's type information.
fn hide_btf(command: &mut Command) {
    let mount = |source: &CStr, target: &CStr, kind: &CStr, flags| {
        // SAFETY: the strings have an end and outlive the call; the null pointer stands for no options.
        let done =
            unsafe { libc::mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, std::ptr::null()) };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    let hide = move || {
        // SAFETY: takes a flag and changes nothing but this process's namespace.
        if unsafe { libc::unshare(libc::CLONE_NEWNS) } != 0 {
            return Err(io::Error::last_os_error());
        }
        mount(c"none", c"/", c"none", libc::MS_REC | libc::MS_PRIVATE)?;
        mount(c"tmpfs", c"/sys/kernel/btf", c"tmpfs", 0)
    };
    // SAFETY: between fork and exec the closure only makes system calls.
    unsafe { command.pre_exec(hide) };
}

#[test]
fn a_port_in_use_ends_it_with_69() {
    kernel_test(|| {
        let taken = TcpListener::bind("127.0.0.1:0")?;
        let address = taken.local_addr()?.to_string();
        let dir = tempfile::tempdir()?;
        let outcome = run_in(&dir, &["run", "--listen", &address])?;
        refused(&outcome, 69, &[&address])
    });
}

fn run_in(dir: &tempfile::TempDir, arguments: &[&str]) -> Result<Outcome> {
    let data = dir.path().join("data");
    let data = data.to_str().context("temporary folder")?;
    let listen = agent::free_address()?.to_string();
    // The last of two addresses would be refused as given twice: only who wants another one names it.
    let listen: &[&str] = if arguments.contains(&"--listen") { &[] } else { &["--listen", &listen] };
    agent::run(&[arguments, listen, &["--data-dir", data]].concat(), |_| {})
}

#[test]
fn a_bad_configuration_ends_it_with_78_and_names_the_key() {
    kernel_test(|| {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("bad.toml");
        let config = path.to_str().context("temporary folder")?;
        for (text, needles) in [
            ("colour = \"red\"\n", ["colour", config]),
            ("[kernel]\nowners_max = \"many\"\n", ["owners_max", config]),
            ("[kernel]\nowners_max = 3\n", ["owners_max", config]),
            ("tick = \"1ms\"\n", ["tick", config]),
            ("listen = \n", [config, "1"]),
            ("[kernel]\ndisable_programs = [\"no_such_program\"]\n", ["no_such_program", config]),
        ] {
            fs::write(&path, text)?;
            refused(&run_in(&dir, &["run", "--config", config])?, 78, &needles)
                .with_context(|| text.to_owned())?;
        }
        Ok(())
    });
}

#[test]
fn an_address_that_others_reach_ends_it_with_78_unless_told() {
    kernel_test(|| {
        let dir = tempfile::tempdir()?;
        let address = format!("0.0.0.0:{}", agent::free_address()?.port());
        let asked = ["run", "--listen", &address];
        refused(&run_in(&dir, &asked)?, 78, &[&address, "--insecure-listen", "--web.config.file"])?;
        let web = dir.path().join("web.yml");
        let web = web.to_str().context("temporary folder")?;
        let with_file = [&asked[..], &["--web.config.file", web]].concat();
        refused(&run_in(&dir, &with_file)?, 66, &[web])?;
        fs::write(web, "basic_auth_usres: {}\n")?;
        refused(&run_in(&dir, &with_file)?, 78, &[web, "basic_auth_usres"])?;
        fs::write(web, "")?;
        refused(&run_in(&dir, &with_file)?, 78, &[&address])
    });
}

#[test]
fn an_unreadable_configuration_ends_it_with_66() {
    kernel_test(|| {
        let dir = tempfile::tempdir()?;
        let folder = dir.path().to_str().context("temporary folder")?.to_owned();
        let absent = format!("{folder}/absent.toml");
        refused(&run_in(&dir, &["run", "--config", &absent])?, 66, &[&absent])?;
        refused(&run_in(&dir, &["run", "--config", &folder])?, 66, &[&folder])?;
        let garbled = dir.path().join("garbled.toml");
        fs::write(&garbled, b"tick = \"\xff\"\n")?;
        let outcome = run_in(&dir, &["run", "--config", garbled.to_str().context("path")?])?;
        claim(matches!(outcome.status.code(), Some(66 | 78)), || format!("not UTF-8: {}", outcome.status))
    });
}

#[test]
fn other_refusals_have_their_codes() {
    kernel_test(|| {
        let usage = agent::run(&["run", "--colour"], |_| {})?;
        claim(usage.status.code() == Some(64), || format!("usage: {}", usage.status))?;

        let dir = tempfile::tempdir()?;
        let file = dir.path().join("file");
        fs::write(&file, "")?;
        let below = file.join("data");
        let below = below.to_str().context("temporary folder")?;
        let listen = agent::free_address()?.to_string();
        let outcome = agent::run(&["run", "--listen", &listen, "--data-dir", below], |_| {})?;
        refused(&outcome, 73, &[below])?;

        let no_cgroups = dir.path().to_str().context("temporary folder")?;
        let settings = Settings::new().attribution(&format!("cgroup_root = {no_cgroups:?}"));
        refused(&settings.run_to_end(|_| {})?, 69, &[no_cgroups])
    });
}

#[test]
fn doctor_tells_a_good_host_from_one_that_lacks_something() {
    kernel_test(|| {
        let good = agent::run(&["doctor"], |_| {})?;
        // 1 stands for a host that serves but lacks something optional.
        claim(matches!(good.status.code(), Some(0 | 1)), || {
            format!("as root: {}\n{}", good.status, good.stdout)
        })?;
        claim(good.stdout.lines().count() >= 5, || format!("few checks:\n{}", good.stdout))?;
        for (what, adjust) in [
            ("no privileges", (|command: &mut Command| keep_capabilities(command, &[])) as fn(&mut Command)),
            ("no BTF", hide_btf),
        ] {
            let bad = agent::run(&["doctor"], adjust)?;
            claim(bad.status.code() == Some(3), || format!("{what}: {}\n{}", bad.status, bad.stdout))?;
            claim(bad.stdout != good.stdout, || format!("{what}: says the same as on a good host"))?;
        }
        Ok(())
    });
}

#[test]
fn an_agent_that_cannot_start_leaves_nothing_in_the_kernel() {
    kernel_test(|| {
        let taken = TcpListener::bind("127.0.0.1:0")?;
        let dir = tempfile::tempdir()?;
        let before: BTreeSet<u32> = bpf::program_ids()?.into_iter().collect();
        run_in(&dir, &["run", "--listen", &taken.local_addr()?.to_string()])?;
        // Other users of BPF on the machine may come meanwhile; ours are told by their names.
        eventually("no program of the refused start is left", Duration::from_secs(5), || {
            let new = bpf::programs()?.into_iter().filter(|program| !before.contains(&program.id));
            Ok(!new.into_iter().any(|program| program.name.starts_with("sched_switch")))
        })
    });
}

#[test]
fn livez_and_readyz_answer() {
    kernel_test(|| {
        let agent = Settings::new().start()?;
        for path in ["/livez", "/readyz"] {
            let answer = telemetry_tests::http::get(agent.address(), path, &[])?;
            claim(answer.status == 200, || format!("{path}: {}", answer.status))?;
        }
        Ok(())
    });
}
