//! Scheduler signal: how long tasks wait for a CPU, how long they have it, and why they leave it.
//!
//! Hooks: `sched_switch`, `sched_migrate_task`, `sched_process_exec`, `cgroup_attach_task` for tasks that move themselves, and
//! `hrtimer_expire_entry` for tasks that never switch. Metrics: see [`METRICS`]. Cost, kernel and blind spots:
//! docs/signals/scheduler.md. Knows slots; knows nothing of pods.

use std::mem::offset_of;

use telemetry_ebpf::hist::BINS;
use telemetry_ebpf::identity::SLOT_KERNEL;
use telemetry_ebpf::sched::SchedCell;
use telemetry_model::{Batch, Desc, Kind, Labels, OwnerKey, Scope, Unit};

use super::{Readings, Signal, accumulate, count, differences, observe};
use crate::bpf::Kernel;

/// Everything this signal can say.
pub static METRICS: &[&Desc] = &[&CPU_SECONDS, &RUNQUEUE_LATENCY, &SWITCHES, &MIGRATIONS, &EXECS];

static CPU_SECONDS: Desc = Desc {
    name: "kernel_cpu_seconds_total",
    kind: Kind::Counter,
    unit: Unit::Seconds,
    help: "CPU time used by the owner, up to the last tick of a running task, split by the task's own user and system time. Excludes the idle task.",
    scope: Scope::Owner,
    labels: &["mode"],
    bound: "owners x 2",
    source: "sched_switch: growth of se.sum_exec_runtime over one stay",
};

static RUNQUEUE_LATENCY: Desc = Desc {
    name: "kernel_sched_runqueue_latency_seconds",
    kind: Kind::Histogram,
    unit: Unit::Seconds,
    help: "Time a task waited between becoming runnable and running, one observation a stay on a CPU. Excludes the idle task.",
    scope: Scope::Owner,
    labels: &[],
    bound: "owners",
    source: "sched_switch: growth of sched_info.run_delay",
};

static SWITCHES: Desc = Desc {
    name: "kernel_context_switches_total",
    kind: Kind::Counter,
    unit: Unit::None,
    help: "Context switches away from the owner's tasks: voluntary when the task had nothing to do, involuntary when another was to run.",
    scope: Scope::Owner,
    labels: &["kind"],
    bound: "owners x 2",
    source: "sched_switch",
};

static MIGRATIONS: Desc = Desc {
    name: "kernel_cpu_migrations_total",
    kind: Kind::Counter,
    unit: Unit::None,
    help: "Moves of the owner's tasks between CPUs, by the widest border crossed: core within one last-level cache, llc within one NUMA node, numa between nodes.",
    scope: Scope::Owner,
    labels: &["scope"],
    bound: "owners x 3",
    source: "sched_migrate_task",
};

static EXECS: Desc = Desc {
    name: "kernel_process_starts_total",
    kind: Kind::Counter,
    unit: Unit::None,
    help: "Programs executed by the owner's tasks. Excludes forks that execute nothing.",
    scope: Scope::Owner,
    labels: &[],
    bound: "owners",
    source: "sched_process_exec",
};

/// The scheduler family, attached.
struct Sched {
    /// Each slot's cells summed over CPUs, as last read.
    last: Readings<SchedCell>,
    user: Labels,
    system: Labels,
    voluntary: Labels,
    involuntary: Labels,
    scopes: [Labels; 3],
    none: Labels,
}

static EMPTY: SchedCell = SchedCell {
    oncpu_ns: 0,
    wait_ns: 0,
    voluntary: 0,
    involuntary: 0,
    user_ns: 0,
    system_ns: 0,
    migrations: [0; 3],
    execs: 0,
    waits: [0; BINS],
};

/// Opens the family if switches are counted.
pub fn open(kernel: &Kernel) -> Option<Box<dyn Signal>> {
    if !kernel.attached("sched_switch") && !kernel.attached("sched_switch_state_first") {
        return None;
    }
    Some(Box::new(Sched {
        last: Readings::new(kernel.slots.capacity(), &EMPTY),
        user: Labels::fixed(&[("mode", "user")]),
        system: Labels::fixed(&[("mode", "system")]),
        voluntary: Labels::fixed(&[("kind", "voluntary")]),
        involuntary: Labels::fixed(&[("kind", "involuntary")]),
        scopes: ["core", "llc", "numa"].map(|scope| Labels::fixed(&[("scope", scope)])),
        none: Labels::none(),
    }))
}

// === impl Sched ===

impl Signal for Sched {
    fn drain(&mut self, kernel: &mut Kernel, batch: &mut Batch) {
        let slots = kernel.slots.capacity();
        for slot in 0..slots {
            if !kernel.slots.taken(slot) {
                continue;
            }
            let cells = &kernel.scheduler.cells;
            let column = |cpu: u32| cpu * slots + slot;
            // Most owners do nothing in most ticks: two words a CPU say so, as whoever executes a program is on a CPU.
            let word = |offset| {
                (0..kernel.cpus).fold(0_u64, |sum, cpu| sum.wrapping_add(cells.word(column(cpu), offset)))
            };
            let last = self.last.get(slot);
            let moves = (0..3).map(|scope| word(offset_of!(SchedCell, migrations) + 8 * scope));
            if word(offset_of!(SchedCell, oncpu_ns)) == last.oncpu_ns && moves.eq(last.migrations) {
                continue;
            }
            let now = (0..kernel.cpus).filter_map(|cpu| cells.get(column(cpu))).fold(EMPTY, add);
            kernel.slots.moved(slot);
            // Only now: the slot's owner was written before its first count.
            let owner = kernel.slots.owner(slot);
            self.emit(slot, owner, &now, batch);
            self.last.set(slot, now);
        }
    }
}

impl Sched {
    fn emit(&self, slot: u32, owner: OwnerKey, now: &SchedCell, batch: &mut Batch) {
        let last = self.last.get(slot);
        let oncpu = now.oncpu_ns.wrapping_sub(last.oncpu_ns);
        let grown = (now.user_ns.wrapping_sub(last.user_ns), now.system_ns.wrapping_sub(last.system_ns));
        let user =
            if slot == SLOT_KERNEL { 0 } else { user_part(oncpu, grown, (now.user_ns, now.system_ns)) };
        count(batch, owner, &CPU_SECONDS, &self.user, user);
        count(batch, owner, &CPU_SECONDS, &self.system, oncpu - user);
        let wait = now.wait_ns.wrapping_sub(last.wait_ns);
        observe(batch, owner, &RUNQUEUE_LATENCY, &self.none, differences(&now.waits, &last.waits), wait);
        count(batch, owner, &SWITCHES, &self.voluntary, now.voluntary.wrapping_sub(last.voluntary));
        count(batch, owner, &SWITCHES, &self.involuntary, now.involuntary.wrapping_sub(last.involuntary));
        for (labels, (now, last)) in self.scopes.iter().zip(now.migrations.iter().zip(last.migrations)) {
            count(batch, owner, &MIGRATIONS, labels, now.wrapping_sub(last));
        }
        count(batch, owner, &EXECS, &self.none, now.execs.wrapping_sub(last.execs));
    }
}

fn add(sum: SchedCell, cell: SchedCell) -> SchedCell {
    let mut waits = sum.waits;
    accumulate(&mut waits, &cell.waits);
    let mut migrations = sum.migrations;
    for (sum, moves) in migrations.iter_mut().zip(cell.migrations) {
        *sum = sum.wrapping_add(moves);
    }
    SchedCell {
        oncpu_ns: sum.oncpu_ns.wrapping_add(cell.oncpu_ns),
        wait_ns: sum.wait_ns.wrapping_add(cell.wait_ns),
        voluntary: sum.voluntary.wrapping_add(cell.voluntary),
        involuntary: sum.involuntary.wrapping_add(cell.involuntary),
        user_ns: sum.user_ns.wrapping_add(cell.user_ns),
        system_ns: sum.system_ns.wrapping_add(cell.system_ns),
        migrations,
        execs: sum.execs.wrapping_add(cell.execs),
        waits,
    }
}

/// How much of `oncpu` was user time. The kernel samples user and system time by the tick, so their growth gives a
/// ratio and not an amount; without any, the ratio so far; without that, all is user time, as the kernel itself
/// assumes for tasks that no tick has hit.
fn user_part(oncpu: u64, grown: (u64, u64), so_far: (u64, u64)) -> u64 {
    let (user, system) = if grown == (0, 0) { so_far } else { grown };
    let whole = u128::from(user) + u128::from(system);
    if whole == 0 {
        return oncpu;
    }
    u64::try_from(u128::from(oncpu) * u128::from(user) / whole).unwrap_or(oncpu)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_split_follows_the_tick_and_falls_back_to_the_past() {
        assert_eq!(user_part(100, (3, 1), (0, 0)), 75);
        assert_eq!(user_part(100, (0, 0), (1, 3)), 25);
        assert_eq!(user_part(100, (0, 0), (0, 0)), 100);
        assert_eq!(user_part(100, (0, 4), (9, 9)), 0);
    }

    proptest! {
        #[test]
        fn the_split_never_exceeds_the_whole(oncpu in any::<u64>(), user in any::<u64>(), system in any::<u64>()) {
            prop_assert!(user_part(oncpu, (user, system), (0, 0)) <= oncpu);
        }
    }
}
