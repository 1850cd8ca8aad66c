//! The table of kernel fields: which global of the kernel programs holds the offset of which field.
//!
//! Adding a field is one line here and one in `telemetry-ebpf/src/bin/telemetry/kernel.rs`.

use super::btf::Btf;

/// The value for a field that this kernel does not have.
pub const MISSING: u32 = u32::MAX;

/// One global and where its field may be.
pub struct Field {
    /// The global's name in the kernel programs.
    pub global: &'static str,
    /// Paths in the order of preference; the first that this kernel has is taken.
    pub paths: &'static [&'static str],
    /// Some kernels do not have it, and the programs know that.
    pub optional: bool,
}

const fn field(global: &'static str, paths: &'static [&'static str]) -> Field {
    Field { global, paths, optional: false }
}

const fn optional(global: &'static str, paths: &'static [&'static str]) -> Field {
    Field { global, paths, optional: true }
}

/// Every field that a kernel program reads.
pub const FIELDS: &[Field] = &[
    field("TASK_PID", &["task_struct.pid"]),
    field("TASK_FLAGS", &["task_struct.flags"]),
    // Renamed in 5.14.
    field("TASK_STATE", &["task_struct.__state", "task_struct.state"]),
    // Moved into thread_info on x86 in 5.16.
    field("TASK_CPU", &["task_struct.thread_info.cpu", "task_struct.cpu"]),
    field("TASK_GROUP", &["task_struct.sched_task_group"]),
    field("TASK_CGROUPS", &["task_struct.cgroups"]),
    field("TASK_RUN_DELAY", &["task_struct.sched_info.run_delay"]),
    field("TASK_SUM_EXEC", &["task_struct.se.sum_exec_runtime"]),
    field("TASK_PREV_SUM_EXEC", &["task_struct.se.prev_sum_exec_runtime"]),
    field("TASK_PRIO", &["task_struct.prio"]),
    field("TASK_UTIME", &["task_struct.utime"]),
    field("TASK_STIME", &["task_struct.stime"]),
    field("CSS_SET_DFL", &["css_set.dfl_cgrp"]),
    field("CGROUP_KN", &["cgroup.kn"]),
    field("CGROUP_ROOT", &["cgroup.root"]),
    field("ROOT_HIERARCHY", &["cgroup_root.hierarchy_id"]),
    field("KN_ID", &["kernfs_node.id"]),
    field("CSS_CGROUP", &["cgroup_subsys_state.cgroup"]),
    field("HRTIMER_SOFT", &["hrtimer.is_soft"]),
    field("RQ_QUEUE", &["request.q"]),
    optional("RQ_DISK", &["request.rq_disk"]),
    field("RQ_CMD_FLAGS", &["request.cmd_flags"]),
    field("RQ_DATA_LEN", &["request.__data_len"]),
    field("RQ_BIO", &["request.bio"]),
    field("RQ_START", &["request.start_time_ns"]),
    field("RQ_IO_START", &["request.io_start_time_ns"]),
    field("BIO_BLKG", &["bio.bi_blkg"]),
    field("BLKG_BLKCG", &["blkcg_gq.blkcg"]),
    optional("QUEUE_DISK", &["request_queue.disk"]),
    field("DISK_MAJOR", &["gendisk.major"]),
    field("DISK_MINOR", &["gendisk.first_minor"]),
    field("SK_PROTOCOL", &["sock.sk_protocol"]),
    field("SK_ERR", &["sock.sk_err"]),
    // Part of __sk_common since 4.x, reached through an anonymous union.
    field("SK_FLAGS", &["sock.__sk_common.skc_flags"]),
    field("SK_CGROUP", &["sock.sk_cgrp_data.cgroup", "sock.sk_cgrp_data"]),
    field("TP_ACKED", &["tcp_sock.bytes_acked"]),
    field("TP_RECEIVED", &["tcp_sock.bytes_received"]),
    field("TP_RETRANS", &["tcp_sock.total_retrans"]),
    field("TP_SND_UNA", &["tcp_sock.snd_una"]),
    field("TP_WRITE_SEQ", &["tcp_sock.write_seq"]),
];

/// The offset of every field on this kernel.
pub struct Offsets {
    /// Global and value.
    pub values: Vec<(&'static str, u32)>,
    /// Required fields that this kernel does not have, as their first paths.
    pub missing: Vec<&'static str>,
}

/// Looks every field up.
#[must_use]
pub fn resolve(btf: &Btf) -> Offsets {
    let mut offsets = Offsets { values: Vec::with_capacity(FIELDS.len()), missing: Vec::new() };
    for field in FIELDS {
        let found = field.paths.iter().find_map(|path| btf.offset(path));
        if found.is_none() && !field.optional {
            offsets.missing.extend(field.paths.first());
        }
        offsets.values.push((field.global, found.unwrap_or(MISSING)));
    }
    offsets
}

/// Index of `sched_switch`'s first `struct task_struct *` argument: 1 but for 5.18 before its fix, where the state
/// came first. Found by type, never by version.
#[must_use]
pub fn switch_prev(btf: &Btf) -> Option<u32> {
    let arguments = btf.tracepoint("sched_switch")?;
    let first = arguments.iter().position(|kind| kind == "struct task_struct *")?;
    u32::try_from(first).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A global that the table forgot would stay 0, and the programs would read another field.
    #[test]
    fn every_global_of_the_programs_has_a_field_or_is_configuration() {
        let source = include_str!("../../../telemetry-ebpf/src/bin/telemetry/kernel.rs");
        let (_, list) = source.split_once("\nglobals! {").unwrap();
        let (list, _) = list.split_once("\n}").unwrap();
        let globals: Vec<&str> =
            list.lines().map(str::trim).filter_map(|line| line.strip_suffix(',')).collect();
        assert!(globals.len() > 30, "{globals:?}");
        for global in globals.iter().filter(|global| !global.starts_with("CONFIG_")) {
            assert!(
                FIELDS.iter().any(|field| field.global == *global),
                "{global} is in no line of the table"
            );
        }
        for Field { global, .. } in FIELDS {
            assert!(globals.contains(global), "{global} is no global of the programs");
        }
    }

    /// The running kernel is one of those supported; its BTF resolves every field that the programs cannot miss.
    #[test]
    fn the_running_kernel_has_every_required_field() {
        let path = std::path::Path::new("/sys/kernel/btf/vmlinux");
        let Ok(btf) = Btf::open(path) else {
            eprintln!("skipped: this kernel has no BTF");
            return;
        };
        assert_eq!(resolve(&btf).missing, Vec::<&str>::new());
        assert!(matches!(switch_prev(&btf), Some(1 | 2)));
    }
}
