//! Scheduler family: cells of the run-queue, on-CPU and switch counts.

use crate::hist::BINS;

/// Moved between CPUs that share a last-level cache.
pub const SCOPE_CORE: usize = 0;
/// Moved between last-level caches of one NUMA node.
pub const SCOPE_LLC: usize = 1;
/// Moved between NUMA nodes.
pub const SCOPE_NUMA: usize = 2;

/// The word of a CPU's place in the machine: node above, last-level cache below.
#[must_use]
pub const fn place(node: u32, cache: u32) -> u32 {
    (node & 0xffff) << 16 | cache & 0xffff
}

abi! {
    /// What one owner's tasks did on one CPU. Indexed `cpu * slots + slot`; written with interrupts off, but for `execs`.
    pub struct SchedCell {
        /// Time on the CPU.
        pub oncpu_ns: u64,
        /// Time between becoming runnable and running.
        pub wait_ns: u64,
        /// Switches because the task had nothing to do.
        pub voluntary: u64,
        /// Switches because somebody else was to run.
        pub involuntary: u64,
        /// Growth of the tasks' own user time: gives the split of `oncpu_ns`, not an amount.
        pub user_ns: u64,
        /// Growth of the tasks' own system time.
        pub system_ns: u64,
        /// Moves between CPUs, by the widest border crossed.
        pub migrations: [u64; 3],
        /// Programs executed. Written with interrupts on, by atomic additions.
        pub execs: u64,
        /// Waits by length: one for every stay on a CPU.
        pub waits: [u32; BINS],
    }

    /// The stay on a CPU that is going on there. A cache line of its own.
    pub struct Stint {
        /// The task's pid above a flag that says it was set; 0 before the first switch.
        pub task: u64,
        /// `run_delay` when the stay began.
        pub run_delay: u64,
        /// `sum_exec_runtime` up to which the stay is counted.
        pub sum_exec: u64,
        /// `utime` up to which it is counted.
        pub utime: u64,
        /// `stime` up to which it is counted.
        pub stime: u64,
        /// The owner's slot.
        pub slot: u32,
        /// Whether the wait before this stay is counted already.
        pub wait_counted: u32,
        /// Fills the line.
        pub reserved: [u64; 2],
    }
}
