//! Block: one hook at completion, and the request's own time stamps.

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use aya_ebpf::macros::{btf_tracepoint, map};
use aya_ebpf::maps::{Array, HashMap, Queue};
use aya_ebpf::programs::BtfTracePointContext;
use telemetry_ebpf::block::*;
use telemetry_ebpf::hist::bin_of;
use telemetry_ebpf::identity::SLOT_KERNEL;

use crate::cell::{MMAPABLE, add, cell, cpu, observe};
use crate::identity::{cgroup_id, lose, slot_of};
use crate::kernel::*;

/// (slot, device, op) to cell. Twice the cells, set at load.
#[map]
static BLOCK_INDEX: HashMap<BlockKey, u32> = HashMap::with_max_entries(2, 0);
#[map]
static BLOCK: Array<BlockCell> = Array::with_max_entries(1, MMAPABLE);
/// What each cell counts.
#[map]
static BLOCK_KEYS: Array<BlockKey> = Array::with_max_entries(1, MMAPABLE);
/// Cells nobody has, filled by the agent.
#[map]
static BLOCK_FREE: Queue<u32> = Queue::with_max_entries(1, 0);
#[map]
static BLOCK_ERRORS: HashMap<BlockErrorKey, u64> = HashMap::with_max_entries(ERRORS_MAX, 0);

/// `BPF_NOEXIST`.
const NEW_ONLY: u64 = 1;
/// `REQ_OP_MASK`, and operations of `enum req_op`: stable since 4.10.
const OP_MASK: u32 = 0xff;
const REQ_OP_FLUSH: u32 = 2;
const REQ_OP_DISCARD: u32 = 3;
const REQ_OP_DRV_IN: u32 = 34;

/// Part or all of a request is done. `(struct request *, blk_status_t, unsigned int nr_bytes)`, since 5.11.
#[btf_tracepoint(function = "block_rq_complete")]
pub fn block_rq_complete(context: BtfTracePointContext) -> i32 {
    // SAFETY: the arguments are those of the prototype; loads are typed.
    unsafe {
        let request: u64 = context.arg(0);
        let status: u32 = context.arg::<u32>(1) & 0xff;
        let bytes: u32 = context.arg(2);
        let device = device_of(request);
        let started: u64 = field(request, &RQ_START);
        let issued: u64 = field(request, &RQ_IO_START);
        let op = op_of(field(request, &RQ_CMD_FLAGS), bytes, issued);
        if status != 0 {
            count_error(device, op, status);
        }
        let slot = request_slot(field(request, &RQ_BIO));
        let Some(owner) = cell_of(slot, device, op) else { return 0 };
        add(&raw mut (*owner).bytes, bytes as u64);
        // The operation is counted with its last part.
        let left: u32 = field(request, &RQ_DATA_LEN);
        if bytes >= left {
            add(&raw mut (*owner).operations, 1);
            if op != OP_FLUSH {
                count_latency(owner, started, issued);
            }
        }
        0
    }
}

/// The operation's group. An empty write that was never issued is a step of a flush.
#[inline(always)]
fn op_of(flags: u32, bytes: u32, issued: u64) -> u32 {
    match flags & OP_MASK {
        REQ_OP_FLUSH => OP_FLUSH,
        REQ_OP_DISCARD => OP_DISCARD,
        op if op >= REQ_OP_DRV_IN => OP_OTHER,
        op if op & 1 == 0 => OP_READ,
        _ if bytes == 0 && issued == 0 => OP_FLUSH,
        _ => OP_WRITE,
    }
}

#[inline(always)]
unsafe fn device_of(request: u64) -> u32 {
    // SAFETY: `request` is the tracepoint's; the branch that this kernel lacks is dead to the verifier.
    unsafe {
        let disk: u64 = if QUEUE_DISK.load() != MISSING {
            let queue: u64 = field(request, &RQ_QUEUE);
            field(queue, &QUEUE_DISK)
        } else {
            field(request, &RQ_DISK)
        };
        if disk == 0 {
            return 0;
        }
        device(field(disk, &DISK_MAJOR), field(disk, &DISK_MINOR))
    }
}

/// The owner that the bio was charged to; the kernel where nobody was.
#[inline(always)]
unsafe fn request_slot(bio: u64) -> u32 {
    // SAFETY: `bio` is the request's; every pointer is tested before it is followed.
    unsafe {
        if bio == 0 {
            return SLOT_KERNEL;
        }
        let group: u64 = field(bio, &BIO_BLKG);
        if group == 0 {
            return SLOT_KERNEL;
        }
        let state: u64 = field(group, &BLKG_BLKCG);
        if state == 0 {
            return SLOT_KERNEL;
        }
        slot_of(CONFIG_BLOCK_TAG.load() as u64, cgroup_id(field(state, &CSS_CGROUP)))
    }
}

#[inline(always)]
fn cell_of(slot: u32, device: u32, op: u32) -> Option<*mut BlockCell> {
    let key = BlockKey { slot, device, op, taken: 0 };
    // SAFETY: the value is copied at once; entries go only with their slot, after a quarantine.
    let index = match unsafe { BLOCK_INDEX.get(&key) } {
        Some(index) => *index,
        None => take(&key),
    };
    let shard = cpu() & CONFIG_BLOCK_SHARD_MASK.load();
    cell(&BLOCK, shard, CONFIG_BLOCK_CELLS.load(), index)
}

#[inline(never)]
fn take(key: &BlockKey) -> u32 {
    let Ok(Some(index)) = BLOCK_FREE.pop() else {
        lose!(block_cell_none);
        return CELL_OVERFLOW;
    };
    if BLOCK_INDEX.insert(key, &index, NEW_ONLY).is_err() {
        let _ = BLOCK_FREE.push(&index, 0);
        // SAFETY: the value is copied at once.
        return match unsafe { BLOCK_INDEX.get(key) } {
            Some(index) => *index,
            None => {
                lose!(block_cell_none);
                CELL_OVERFLOW
            }
        };
    }
    if let Some(taken) = BLOCK_KEYS.get_ptr_mut(index) {
        // SAFETY: a lookup's result; this CPU owns the cell since the insert above.
        unsafe { *taken = BlockKey { taken: bpf_ktime_get_ns() as u32 | 1, ..*key } };
    }
    index
}

/// Both stamps are CLOCK_MONOTONIC. Where the queue keeps none they are zero, or older than sense allows.
#[inline(always)]
unsafe fn count_latency(owner: *mut BlockCell, started: u64, issued: u64) {
    // SAFETY: `owner` is a lookup's result; completions on one CPU may nest, so additions are atomic.
    unsafe {
        let now = bpf_ktime_get_ns();
        if started == 0 || issued < started || now < issued {
            lose!(block_undated);
            return;
        }
        let (queue, device, total) = (issued - started, now - issued, now - started);
        add(&raw mut (*owner).queue_ns, queue);
        add(&raw mut (*owner).device_ns, device);
        observe(&raw mut (*owner).queue, bin_of(queue));
        observe(&raw mut (*owner).device, bin_of(device));
        observe(&raw mut (*owner).total, bin_of(total));
    }
}

#[inline(never)]
fn count_error(device: u32, op: u32, status: u32) {
    let key = BlockErrorKey { device, op: op as u16, status: status as u16 };
    if let Some(count) = BLOCK_ERRORS.get_ptr_mut(&key) {
        // SAFETY: a lookup's result, in a map whose entries are never removed.
        unsafe { add(count, 1) };
        lose!(block_errors);
        return;
    }
    if BLOCK_ERRORS.insert(&key, &1, NEW_ONLY).is_ok() {
        lose!(block_errors);
    } else if let Some(count) = BLOCK_ERRORS.get_ptr_mut(&key) {
        // SAFETY: as above; another CPU was first.
        unsafe { add(count, 1) };
        lose!(block_errors);
    } else {
        lose!(block_error_lost);
    }
}
