//! The kernel programs: what there is, where each attaches, and what came of it on this kernel.
//!
//! A program that the kernel refuses costs its family and nothing else; its state says why.

use std::fs::File;

use aya::Ebpf;
use aya::programs::{CgroupAttachMode, CgroupSkbAttachType, Program as Loaded};

use super::btf::Btf;
use super::fields;
use super::object::Options;

/// What is said of a program that is not wanted.
pub const DISABLED: &str = "disabled by the configuration";

/// A group of programs that makes sense together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// Cgroups that come and go.
    Identity,
    /// Run queues, time on the CPU, switches.
    Scheduler,
    /// Requests of block devices.
    Block,
    /// Packets and TCP connections.
    Network,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hook {
    Tracepoint,
    SkbIngress,
    SkbEgress,
}

/// A kernel program: its name, its hook, its family.
#[derive(Debug)]
pub struct Program {
    /// The name in the object.
    pub name: &'static str,
    /// Where it attaches.
    pub hook: &'static str,
    /// Which of the programs for the hook: chosen by the prototype that this kernel has.
    pub variant: &'static str,
    /// Which signals it feeds.
    pub family: Family,
    kind: Hook,
}

const fn tracepoint(name: &'static str, family: Family) -> Program {
    Program { name, hook: name, variant: "default", family, kind: Hook::Tracepoint }
}

/// Every program, in the order of attachment: births first, so that no owner is missed.
static PROGRAMS: &[Program] = &[
    tracepoint("cgroup_mkdir", Family::Identity),
    tracepoint("cgroup_rmdir", Family::Identity),
    tracepoint("sched_switch", Family::Scheduler),
    Program {
        name: "sched_switch_state_first",
        variant: "state_first",
        ..tracepoint("sched_switch", Family::Scheduler)
    },
    tracepoint("hrtimer_expire_entry", Family::Scheduler),
    tracepoint("cgroup_attach_task", Family::Scheduler),
    tracepoint("sched_migrate_task", Family::Scheduler),
    tracepoint("sched_process_exec", Family::Scheduler),
    tracepoint("block_rq_complete", Family::Block),
    tracepoint("inet_sock_set_state", Family::Network),
    Program {
        name: "skb_receive",
        kind: Hook::SkbIngress,
        ..tracepoint("cgroup_skb/ingress", Family::Network)
    },
    Program {
        name: "skb_transmit",
        kind: Hook::SkbEgress,
        ..tracepoint("cgroup_skb/egress", Family::Network)
    },
];

/// What came of one program.
#[derive(Debug)]
pub struct ProgramState {
    /// Which.
    pub program: &'static Program,
    /// Whether the verifier accepted it.
    pub loaded: bool,
    /// Whether it is attached.
    pub attached: bool,
    /// Why not, in one line.
    pub error: Option<String>,
}

/// The name of every program, for whoever wants to leave one out.
pub fn program_names() -> impl Iterator<Item = &'static str> {
    PROGRAMS.iter().map(|program| program.name)
}

/// The variant of the switch program that this kernel's prototype does not fit.
pub(super) fn unfit(btf: &Btf) -> &'static str {
    match fields::switch_prev(btf) {
        Some(2) => "sched_switch",
        _ => "sched_switch_state_first",
    }
}

pub(super) fn attach_all(
    object: &mut Ebpf,
    options: &Options,
    kernel_btf: &aya::Btf,
    unfit: &'static str,
) -> Vec<ProgramState> {
    let mut states = Vec::with_capacity(PROGRAMS.len());
    for program in PROGRAMS.iter().filter(|program| program.name != unfit) {
        let wanted = program.family == Family::Identity || options.families.contains(&program.family);
        let mut state = ProgramState { program, loaded: false, attached: false, error: None };
        if options.disabled.iter().any(|name| name == program.name) || !wanted {
            state.error = Some(DISABLED.to_owned());
        } else {
            match attach(object, program, options, kernel_btf, &mut state.loaded) {
                Ok(()) => state.attached = true,
                Err(error) => state.error = Some(error),
            }
        }
        states.push(state);
    }
    states
}

fn attach(
    object: &mut Ebpf,
    program: &Program,
    options: &Options,
    kernel_btf: &aya::Btf,
    loaded: &mut bool,
) -> Result<(), String> {
    let found = object.program_mut(program.name).ok_or("not in the kernel object")?;
    match (found, program.kind) {
        (Loaded::BtfTracePoint(tracepoint), Hook::Tracepoint) => {
            tracepoint.load(program.hook, kernel_btf).map_err(|error| line(&error))?;
            *loaded = true;
            tracepoint.attach().map_err(|error| line(&error))?;
        }
        (Loaded::CgroupSkb(skb), Hook::SkbIngress | Hook::SkbEgress) => {
            skb.load().map_err(|error| line(&error))?;
            *loaded = true;
            let root = options.hierarchies.unified.as_ref().ok_or("this host has no cgroup version 2")?;
            let root = File::open(root).map_err(|error| format!("open {}: {error}", root.display()))?;
            let direction = match program.kind {
                Hook::SkbIngress => CgroupSkbAttachType::Ingress,
                Hook::Tracepoint | Hook::SkbEgress => CgroupSkbAttachType::Egress,
            };
            // A link is one of many by nature; the flag for many is refused on links.
            skb.attach(root, direction, CgroupAttachMode::Single).map_err(|error| line(&error))?;
        }
        _ => return Err("of another kind than the agent expects".to_owned()),
    }
    Ok(())
}

/// An error and its causes in one line: of a verifier's log the last line, which says why.
fn line(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    let noise = ["processed ", "verification time ", "stack depth ", ": "];
    let mut lines = text.lines().map(str::trim);
    let mut lines =
        lines.by_ref().filter(|line| !line.is_empty() && !noise.iter().any(|start| line.starts_with(start)));
    let first = lines.next().unwrap_or_default().to_owned();
    match lines.next_back() {
        Some(last) => format!("{first} … {last}"),
        None => first,
    }
}
