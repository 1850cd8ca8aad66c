//! Scheduler: differences of what the kernel keeps of a task over one stay on a CPU.
//!
//! No wake-up hook, no per-task map, no clock read: `sched_info.run_delay` grows by every wait and
//! `se.sum_exec_runtime` by every stay, whatever happened in between.

use aya_ebpf::helpers::generated::bpf_get_current_task_btf;
use aya_ebpf::macros::{btf_tracepoint, map};
use aya_ebpf::maps::Array;
use aya_ebpf::programs::BtfTracePointContext;
use telemetry_ebpf::hist::bin_of;
use telemetry_ebpf::sched::{SCOPE_CORE, SCOPE_LLC, SCOPE_NUMA, SchedCell, Stint};

use crate::cell::{MMAPABLE, add, cell, cpu, tally};
use crate::identity::{lose, task_slot};
use crate::kernel::*;

#[map]
static SCHED: Array<SchedCell> = Array::with_max_entries(1, MMAPABLE);
#[map]
static STINTS: Array<Stint> = Array::with_max_entries(1, MMAPABLE);
/// Each CPU's NUMA node and last-level cache, filled by the agent.
#[map]
static PLACES: Array<u32> = Array::with_max_entries(1, 0);

/// Above any pid: tells a stint of pid 0 from one that was never set.
const SEEN: u64 = 1 << 32;
const TASK_RUNNING: u32 = 0;
/// `MAX_RT_PRIO`: tasks with this priority and above are of the fair class.
const FAIR_PRIORITIES: u32 = 100;
/// No fair task stays longer without a tick having seen it; the mark of one that a BPF scheduler runs may be stale.
const STINT_MAX_NS: u64 = 1_000_000_000;

/// A CPU changes its task. `(bool preempt, prev, next[, unsigned int prev_state])`; interrupts are off.
#[btf_tracepoint(function = "sched_switch")]
pub fn sched_switch(context: BtfTracePointContext) -> i32 {
    // SAFETY: the arguments are those of the prototype; neither task is null.
    unsafe { switch(context.arg(0), context.arg(1), context.arg(2)) }
}

/// The same where the state comes second: `(bool, unsigned int prev_state, prev, next)`, 5.18 before its fix.
#[btf_tracepoint(function = "sched_switch")]
pub fn sched_switch_state_first(context: BtfTracePointContext) -> i32 {
    // SAFETY: the arguments are those of the prototype; neither task is null.
    unsafe { switch(context.arg(0), context.arg(2), context.arg(3)) }
}

#[inline(always)]
unsafe fn switch(preempt: u64, prev: u64, next: u64) -> i32 {
    // SAFETY: both tasks are the tracepoint's; cells are this CPU's, and interrupts are off.
    unsafe {
        let cpu = cpu();
        let Some(stint) = STINTS.get_ptr_mut(cpu) else { return 0 };
        let pid: u32 = field(prev, &TASK_PID);
        if pid != 0 {
            if (*stint).task == pid as u64 | SEEN {
                leave(stint, cpu, preempt, prev);
            } else if (*stint).task != 0 {
                resume(stint, prev);
                leave(stint, cpu, preempt, prev);
            }
        }
        let pid: u32 = field(next, &TASK_PID);
        if pid != 0 {
            (*stint).slot = task_slot(next);
            begin(stint, next);
        }
        (*stint).task = pid as u64 | SEEN;
        0
    }
}

/// Counts a switch away from `prev`, whose stint it is.
#[inline(always)]
unsafe fn leave(stint: *mut Stint, cpu: u32, preempt: u64, prev: u64) {
    // SAFETY: cells are this CPU's, and interrupts are off; loads are typed.
    unsafe {
        let Some(owner) = cell(&SCHED, cpu, CONFIG_SLOTS.load(), (*stint).slot) else { return };
        let state: u32 = field(prev, &TASK_STATE);
        if preempt & 0xff != 0 || state == TASK_RUNNING {
            (*owner).involuntary += 1;
        } else {
            (*owner).voluntary += 1;
        }
        fold(owner, stint, prev);
    }
}

/// Takes up the stint of a task whose coming was not seen: some kernels do not trace every switch. Of a fair task the
/// kernel itself keeps where its stay began; of others what was before is lost, and of all the wait.
#[inline(never)]
fn resume(stint: *mut Stint, task: u64) {
    // SAFETY: this CPU's stint, interrupts off; loads are typed.
    unsafe {
        lose!(switch_missed);
        (*stint).slot = task_slot(task);
        begin(stint, task);
        (*stint).wait_counted = 1;
        let priority: u32 = field(task, &TASK_PRIO);
        if priority >= FAIR_PRIORITIES {
            let began: u64 = field(task, &TASK_PREV_SUM_EXEC);
            if (*stint).sum_exec - began < STINT_MAX_NS {
                (*stint).sum_exec = began;
            }
        }
    }
}

/// Adds what the task did since the stint was last counted. Returns its run time, user and system time as they were
/// counted: another CPU may bring them up to date meanwhile, so that a second look would skip what lies between.
#[inline(always)]
unsafe fn fold(owner: *mut SchedCell, stint: *const Stint, task: u64) -> (u64, u64, u64) {
    // SAFETY: both cells are this CPU's, and nothing that writes them runs while interrupts are off. Each field
    // only grows, so no difference is negative.
    unsafe {
        if (*stint).wait_counted == 0 {
            let delay: u64 = field(task, &TASK_RUN_DELAY);
            let wait = delay - (*stint).run_delay;
            (*owner).wait_ns += wait;
            tally(&raw mut (*owner).waits, bin_of(wait));
        }
        let sum: u64 = field(task, &TASK_SUM_EXEC);
        (*owner).oncpu_ns += sum - (*stint).sum_exec;
        // Where the kernel samples these by the tick, most stays have none of either.
        let user: u64 = field(task, &TASK_UTIME);
        if user != (*stint).utime {
            (*owner).user_ns += user - (*stint).utime;
        }
        let system: u64 = field(task, &TASK_STIME);
        if system != (*stint).stime {
            (*owner).system_ns += system - (*stint).stime;
        }
        (sum, user, system)
    }
}

#[inline(always)]
unsafe fn begin(stint: *mut Stint, task: u64) {
    // SAFETY: this CPU's stint, interrupts off; loads are typed.
    unsafe {
        (*stint).run_delay = field(task, &TASK_RUN_DELAY);
        (*stint).sum_exec = field(task, &TASK_SUM_EXEC);
        (*stint).utime = field(task, &TASK_UTIME);
        (*stint).stime = field(task, &TASK_STIME);
        (*stint).wait_counted = 0;
    }
}

/// A timer fires. `(struct hrtimer *, ktime_t *)`, since 4.7; the tick of a busy CPU is one.
///
/// A task alone on its CPU never switches: its running stint is folded in here, at the latest a tick ago. Needs no
/// `perf_event_open`, which hardened hosts refuse without CAP_SYS_ADMIN. Timers that expire in softirq, with
/// interrupts on, are passed over: they could be interrupted by one that does the same.
#[btf_tracepoint(function = "hrtimer_expire_entry")]
pub fn hrtimer_expire_entry(context: BtfTracePointContext) -> i32 {
    // SAFETY: the argument is that of the prototype; the current task is the one whose stint runs here, and in hard
    // interrupt context neither a switch nor another timer can come between.
    unsafe {
        let timer: u64 = context.arg(0);
        let soft: u8 = field(timer, &HRTIMER_SOFT);
        if soft != 0 {
            return 0;
        }
        let cpu = cpu();
        let Some(stint) = STINTS.get_ptr_mut(cpu) else { return 0 };
        let task = bpf_get_current_task_btf() as u64;
        let pid: u32 = field(task, &TASK_PID);
        if pid == 0 {
            return 0;
        }
        if (*stint).task == pid as u64 | SEEN {
            settle(stint, cpu, task);
        } else if (*stint).task == 0 {
            // It ran before the programs were attached, and may never leave: it counts from here on.
            (*stint).slot = task_slot(task);
            begin(stint, task);
            (*stint).wait_counted = 1;
            (*stint).task = pid as u64 | SEEN;
        } else {
            resume(stint, task);
            (*stint).task = pid as u64 | SEEN;
        }
        0
    }
}

/// A task was moved to another cgroup. `(struct cgroup *, const char *, struct task_struct *, bool)`, since 4.17; runs on
/// whoever moved it, behind the move and under the lock of its path, so that interrupts are off.
///
/// Whoever moves himself, as shells and simple runtimes do, goes on in the middle of a stay, and may end in it: what he did
/// before is counted for the group that he came from, and what he does from here on for the one that he went to. A task that
/// is moved by another and runs meanwhile is noticed by its tick.
#[btf_tracepoint(function = "cgroup_attach_task")]
pub fn cgroup_attach_task(_context: BtfTracePointContext) -> i32 {
    // SAFETY: the current task is the one whose stint runs here, and nothing can come between.
    unsafe {
        let cpu = cpu();
        let Some(stint) = STINTS.get_ptr_mut(cpu) else { return 0 };
        let task = bpf_get_current_task_btf() as u64;
        let pid: u32 = field(task, &TASK_PID);
        if pid != 0 && (*stint).task == pid as u64 | SEEN {
            settle(stint, cpu, task);
        }
        0
    }
}

/// Counts what the running task did so far for the owner that its stint has, and gives the rest to the one that it has now:
/// it may have been moved to another cgroup meanwhile, and may never leave.
#[inline(always)]
unsafe fn settle(stint: *mut Stint, cpu: u32, task: u64) {
    // SAFETY: this CPU's stint and its task, interrupts off; loads are typed.
    unsafe {
        if let Some(owner) = cell(&SCHED, cpu, CONFIG_SLOTS.load(), (*stint).slot) {
            ((*stint).sum_exec, (*stint).utime, (*stint).stime) = fold(owner, stint, task);
            (*stint).wait_counted = 1;
        }
        (*stint).slot = task_slot(task);
    }
}

/// A task moves to another CPU. `(struct task_struct *, int dest_cpu)`, since 2.6; runs on whoever moves it.
#[btf_tracepoint(function = "sched_migrate_task")]
pub fn sched_migrate_task(context: BtfTracePointContext) -> i32 {
    // SAFETY: the arguments are those of the prototype; the run queue's lock is held, so interrupts are off.
    unsafe {
        let task: u64 = context.arg(0);
        let to: u32 = context.arg(1);
        let from: u32 = field(task, &TASK_CPU);
        let Some(owner) = cell(&SCHED, cpu(), CONFIG_SLOTS.load(), task_slot(task)) else { return 0 };
        let (Some(from), Some(to)) = (PLACES.get(from), PLACES.get(to)) else { return 0 };
        let scope = if (from ^ to) >> 16 != 0 {
            SCOPE_NUMA
        } else if from != to {
            SCOPE_LLC
        } else {
            SCOPE_CORE
        };
        (*owner).migrations[scope] += 1;
        0
    }
}

/// A task has begun another program. `(struct task_struct *, pid_t old_pid, struct linux_binprm *)`, since 3.4.
#[btf_tracepoint(function = "sched_process_exec")]
pub fn sched_process_exec(context: BtfTracePointContext) -> i32 {
    // SAFETY: the argument is that of the prototype. Interrupts are on, and another exec may come between on this CPU:
    // the addition is atomic.
    unsafe {
        let task: u64 = context.arg(0);
        let Some(owner) = cell(&SCHED, cpu(), CONFIG_SLOTS.load(), task_slot(task)) else { return 0 };
        add(&raw mut (*owner).execs, 1);
        0
    }
}
