//! Nanoseconds per event of each program, by the kernel's own account, over an empty program at the same hook.
//!
//! The account itself (two clock reads) is in both sides and goes out in the difference. Rounds are interleaved, so
//! that a change of the machine's mood meets both.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use telemetry_agent::bpf::bench::Empty;
use telemetry_tests::agent::{Agent, Settings};
use telemetry_tests::bpf::{self, Statistics};
use telemetry_tests::cgroup::{Cgroup, Hierarchies};
use telemetry_tests::loopdev::{LoopDevice, Mount, sparse};
use telemetry_tests::workload::{Crowd, Workload};

use super::pipe;
use telemetry_tests::figure::{self, Bar};

const ROUNDS: usize = 5;
/// The CPU that everything under measurement is bound to.
const CPU: usize = 1;
/// The kernel keeps this many bytes of a program's name.
const NAME_MAX: usize = 15;

/// A program, what makes its hook fire, and what it may cost over an empty one.
struct Case {
    program: &'static str,
    load: fn(&Device) -> Result<()>,
    bar: Bar,
}

/// A block device for those who want one.
struct Device {
    device: LoopDevice,
    _memory: Mount,
}

const CASES: [Case; 10] = [
    Case { program: "sched_switch", load: |_| pipe::plain().map(drop), bar: Some(40.0) },
    Case { program: "sched_migrate_task", load: |_| work("hop 20000"), bar: None },
    Case { program: "sched_process_exec", load: |_| execute(300), bar: None },
    Case { program: "hrtimer_expire_entry", load: |_| pinned("naps 1500"), bar: None },
    Case { program: "block_rq_complete", load: read_device, bar: Some(150.0) },
    Case { program: "inet_sock_set_state", load: |_| pinned("connections 3000"), bar: None },
    Case { program: "skb_receive", load: |_| pinned("udp-loop 50000 64"), bar: Some(45.0) },
    Case { program: "skb_transmit", load: |_| pinned("udp-loop 50000 64"), bar: Some(45.0) },
    Case { program: "cgroup_mkdir", load: |_| make_cgroups(100), bar: None },
    Case { program: "cgroup_attach_task", load: |_| move_about(300), bar: None },
];

/// Prints what each program costs.
pub fn per_event() -> Result<()> {
    let memory = Mount::tmpfs(96 * 1024)?;
    let device = Device { device: LoopDevice::over(&sparse(memory.path(), 64 << 20)?)?, _memory: memory };
    let _statistics = Statistics::on()?;
    let rounds = figure::rounds(ROUNDS);
    let mut real: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    let mut empty: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for _ in 0..rounds {
        for case in &CASES {
            empty.entry(case.program).or_default().push(of_empty(case, &device)?);
        }
        let agent = agent()?;
        for case in &CASES {
            real.entry(case.program).or_default().push(of_agent(case, &device, &agent)?);
        }
    }
    for case in &CASES {
        let samples = |of: &BTreeMap<&str, Vec<f64>>| of.get(case.program).cloned().unwrap_or_default();
        let over = figure::least(&samples(&real))? - figure::least(&samples(&empty))?;
        let peer = format!("an empty program at the same hook, {:.0} ns", figure::least(&samples(&empty))?);
        figure::print(
            "kernel",
            &format!("{}_over_empty", case.program),
            over,
            "ns",
            case.bar,
            &peer,
            rounds,
        )?;
    }
    cold(&agent()?)
}

/// The switch program when 200 cgroups take turns, and everything it touches has left the caches.
fn cold(agent: &Agent) -> Result<()> {
    let crowd = Crowd::new(200, Duration::from_millis(2))?;
    let mut samples = Vec::new();
    for _ in 0..figure::rounds(ROUNDS) {
        let before = counts(agent, "sched_switch")?;
        std::thread::sleep(Duration::from_secs(1));
        samples.push(per_run(before, counts(agent, "sched_switch")?)?);
    }
    drop(crowd);
    let name = "sched_switch_200_cold_cgroups_in_all";
    figure::print("kernel", name, figure::median(&samples)?, "ns", Some(250.0), "", samples.len())
}

fn agent() -> Result<Agent> {
    // The tick of production: what the agent itself does must not heat the caches more than it will.
    Settings::new().tick(Duration::from_secs(5)).start()
}

fn of_empty(case: &Case, device: &Device) -> Result<f64> {
    let unified = Hierarchies::find()?.unified.context("no cgroup v2 hierarchy is mounted")?;
    let empty = Empty::attach(case.program, &unified)?;
    let read = || empty.runs().map(|runs| (runs.run_ns, runs.runs)).context("no counts of the empty program");
    let before = read()?;
    (case.load)(device)?;
    per_run(before, read()?).with_context(|| format!("empty {}", case.program))
}

fn of_agent(case: &Case, device: &Device, agent: &Agent) -> Result<f64> {
    let before = counts(agent, case.program)?;
    (case.load)(device)?;
    per_run(before, counts(agent, case.program)?).with_context(|| case.program)
}

fn counts(agent: &Agent, program: &str) -> Result<(u64, u64)> {
    let name = program.get(..NAME_MAX).unwrap_or(program);
    for id in bpf::held_by(agent.pid())? {
        let found = bpf::program(id)?;
        if found.name == name {
            return Ok((found.run_ns, found.runs));
        }
    }
    bail!("the agent has no program {program}")
}

fn per_run(before: (u64, u64), after: (u64, u64)) -> Result<f64> {
    let runs = after.1 - before.1;
    if runs < 100 {
        bail!("ran only {runs} times");
    }
    Ok((after.0 - before.0) as f64 / runs as f64)
}

fn work(work: &str) -> Result<()> {
    Workload::new(work).finish().map(drop)
}

fn pinned(work: &str) -> Result<()> {
    Workload::new(work).on_cpu(CPU).finish().map(drop)
}

fn read_device(device: &Device) -> Result<()> {
    pinned(&format!("direct read {} 16000 4096", device.device.node()))
}

fn execute(count: usize) -> Result<()> {
    for _ in 0..count {
        Command::new("true").status().context("execute true")?;
    }
    Ok(())
}

fn move_about(count: usize) -> Result<()> {
    let places = [Cgroup::new("here")?, Cgroup::new("there")?];
    let mut moved = Command::new("sleep").arg("600").spawn().context("start sleep")?;
    let done = places.iter().cycle().take(count).try_for_each(|place| place.join(moved.id()));
    moved.kill().context("end sleep")?;
    moved.wait().context("wait for sleep")?;
    done
}

fn make_cgroups(count: usize) -> Result<()> {
    for number in 0..count {
        Cgroup::new(format!("made-{number}"))?.remove()?;
    }
    Ok(())
}
