//! One empty program a hook: what a hook costs before anything is done at it.

use aya_ebpf::macros::{btf_tracepoint, cgroup_skb};
use aya_ebpf::programs::{BtfTracePointContext, SkBuffContext};

macro_rules! empty {
    ($($name:ident $hook:literal),*) => {$(
        /// Does nothing at its hook.
        #[btf_tracepoint(function = $hook)]
        pub fn $name(_context: BtfTracePointContext) -> i32 {
            0
        }
    )*};
}
empty!(
    empty_sched_switch "sched_switch",
    empty_sched_migrate_task "sched_migrate_task",
    empty_sched_process_exec "sched_process_exec",
    empty_hrtimer_expire_entry "hrtimer_expire_entry",
    empty_block_rq_complete "block_rq_complete",
    empty_inet_sock_set_state "inet_sock_set_state",
    empty_cgroup_mkdir "cgroup_mkdir",
    empty_cgroup_attach_task "cgroup_attach_task"
);

/// Passes every packet that reaches a socket.
#[cgroup_skb(ingress)]
pub fn empty_skb_receive(_context: SkBuffContext) -> i32 {
    1
}

/// Passes every packet that leaves a socket.
#[cgroup_skb(egress)]
pub fn empty_skb_transmit(_context: SkBuffContext) -> i32 {
    1
}
