//! The running kernel's layout: one frozen global a field, set by the agent from BTF before the load.

use aya_ebpf::Global;
use core::ptr::read_volatile;

macro_rules! globals {
    ($($(#[$meta:meta])* $name:ident,)*) => {
        $($(#[$meta])* #[unsafe(no_mangle)] pub static $name: Global<u32> = Global::new(0);)*
    };
}

globals! {
    TASK_PID,
    TASK_FLAGS,
    TASK_STATE,
    TASK_CPU,
    TASK_GROUP,
    TASK_CGROUPS,
    TASK_RUN_DELAY,
    TASK_SUM_EXEC,
    TASK_PREV_SUM_EXEC,
    TASK_PRIO,
    TASK_UTIME,
    TASK_STIME,
    CSS_SET_DFL,
    CGROUP_KN,
    CGROUP_ROOT,
    ROOT_HIERARCHY,
    KN_ID,
    CSS_CGROUP,
    HRTIMER_SOFT,
    RQ_QUEUE,
    /// Up to 5.16; `MISSING` after.
    RQ_DISK,
    RQ_CMD_FLAGS,
    RQ_DATA_LEN,
    RQ_BIO,
    RQ_START,
    RQ_IO_START,
    BIO_BLKG,
    BLKG_BLKCG,
    /// From 5.16 on; `MISSING` before.
    QUEUE_DISK,
    DISK_MAJOR,
    DISK_MINOR,
    SK_PROTOCOL,
    SK_ERR,
    SK_FLAGS,
    SK_CGROUP,
    TP_ACKED,
    TP_RECEIVED,
    TP_RETRANS,
    TP_SND_UNA,
    TP_WRITE_SEQ,
    /// Owners' slots.
    CONFIG_SLOTS,
    /// Cells of the block family.
    CONFIG_BLOCK_CELLS,
    /// Shards of the block cells, less one: a power of two less one.
    CONFIG_BLOCK_SHARD_MASK,
    /// Shards of the TCP cells, less one.
    CONFIG_TCP_SHARD_MASK,
    /// 1 where version 1's `cpu` hierarchy is mounted beside version 2.
    CONFIG_TASKS_V1,
    /// Tag of the ids that requests carry.
    CONFIG_BLOCK_TAG,
}

/// The agent's value for a field that this kernel does not have. Test it first and the dead branch vanishes;
/// used untested, the verifier refuses the program, which is the right failure for a field that it cannot miss.
pub const MISSING: u32 = u32::MAX;

/// A typed load through a BTF pointer: no call into the kernel.
///
/// # Safety
///
/// `base` is a pointer that the verifier knows by its BTF type, and `offset` is that of a field of type `T` in it.
/// The verifier proves both, and faults in the load read as zero.
#[inline(always)]
pub unsafe fn field<T: Copy>(base: u64, offset: &Global<u32>) -> T {
    // SAFETY: as the caller promises; the verifier refuses anything else.
    unsafe { read_volatile((base as *const u8).add(offset.load() as usize) as *const T) }
}
