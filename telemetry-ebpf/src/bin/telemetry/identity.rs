//! Cgroup id to slot: a direct-mapped cache, then a hash, then a free slot, then the overflow slot.

use aya_ebpf::helpers::generated::{bpf_ktime_get_ns, bpf_probe_read_kernel_str};
use aya_ebpf::macros::{btf_tracepoint, map};
use aya_ebpf::maps::{Array, HashMap, PerCpuArray, Queue, RingBuf};
use aya_ebpf::programs::BtfTracePointContext;
use telemetry_ebpf::identity::*;

use crate::cell::{MMAPABLE, add, cpu};
use crate::kernel::*;

#[map]
static CACHE: Array<u64> = Array::with_max_entries(CACHE_WORDS, MMAPABLE);
/// Key to slot. Twice the slots, set at load.
#[map]
static CG_SLOT: HashMap<u64, u32> = HashMap::with_max_entries(2, 0);
#[map]
static META: Array<Meta> = Array::with_max_entries(1, MMAPABLE);
/// Slots nobody has, filled by the agent.
#[map]
static FREE: Queue<u32> = Queue::with_max_entries(1, 0);
#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(EVENTS_BYTES, 0);
#[map]
static LOSSES: Array<Losses> = Array::with_max_entries(1, MMAPABLE);
/// Where an event is built: too large for the stack.
#[map]
static SCRATCH: PerCpuArray<Event> = PerCpuArray::with_max_entries(1, 0);

/// `BPF_NOEXIST`.
const NEW_ONLY: u64 = 1;

/// Counts one in the named fields of this CPU's losses.
macro_rules! lose {
    ($($field:ident),+) => {
        $($crate::identity::count_loss(core::mem::offset_of!(telemetry_ebpf::identity::Losses, $field));)+
    };
}
pub(crate) use lose;

/// Counts one at an offset in this CPU's losses.
#[inline(always)]
pub fn count_loss(offset: usize) {
    if let Some(losses) = LOSSES.get_ptr_mut(cpu()) {
        // SAFETY: the lookup returned this CPU's cell, and the offset is that of one of its u64 fields. Process and
        // interrupt context may race here, and a lost update would be a silent loss: the addition is atomic.
        unsafe { add(losses.cast::<u8>().add(offset).cast(), 1) };
    }
}

/// The slot of a cgroup: one load and a compare where the cache knows it.
#[inline(always)]
pub fn slot_of(tag: u64, id: u64) -> u32 {
    let Some(key) = key_of(tag, id) else {
        lose!(id_too_wide, slot_none);
        return SLOT_OVERFLOW;
    };
    if let Some(word) = CACHE.get_ptr_mut(cache_index(key)) {
        // SAFETY: a lookup's result; an aligned 64-bit word is read whole.
        let word = unsafe { core::ptr::read_volatile(word) };
        if word >> 16 == key {
            let slot = (word & 0xffff) as u32;
            if slot == SLOT_OVERFLOW {
                lose!(slot_none);
            }
            return slot;
        }
    }
    slow(key)
}

/// Takes a slot for a key that the cache does not know.
#[inline(never)]
fn slow(key: u64) -> u32 {
    lose!(slot_slow);
    let slot = match known(key) {
        Some(slot) => slot,
        None => take(key),
    };
    // The overflow slot is remembered too, or every event of such a cgroup would come this way; the agent clears
    // those words when slots come free.
    if let Some(word) = CACHE.get_ptr_mut(cache_index(key)) {
        // SAFETY: a lookup's result; an aligned 64-bit word is written whole.
        unsafe { core::ptr::write_volatile(word, cache_word(key, slot)) };
    }
    if slot == SLOT_OVERFLOW {
        lose!(slot_none);
    }
    slot
}

#[inline(always)]
fn known(key: u64) -> Option<u32> {
    // SAFETY: entries are removed only after a quarantine without events, and the value is copied at once.
    unsafe { CG_SLOT.get(&key) }.copied()
}

#[inline(always)]
fn take(key: u64) -> u32 {
    let Ok(Some(slot)) = FREE.pop() else {
        return SLOT_OVERFLOW;
    };
    if CG_SLOT.insert(&key, &slot, NEW_ONLY).is_err() {
        // Another CPU was first, or the hash is full or busy: the slot goes back untouched.
        let _ = FREE.push(&slot, 0);
        return known(key).unwrap_or_else(|| {
            lose!(slot_refused);
            SLOT_OVERFLOW
        });
    }
    if let Some(meta) = META.get_ptr_mut(slot) {
        // SAFETY: a lookup's result; this CPU owns the slot since the insert above. The birth goes last:
        // its change is what the agent takes as one, and the key must be there by then.
        unsafe {
            core::ptr::write_volatile(&raw mut (*meta).key, key);
            core::ptr::write_volatile(&raw mut (*meta).born_ns, bpf_ktime_get_ns());
        }
    }
    slot
}

/// The id of a cgroup; the root's where there is none.
///
/// # Safety
///
/// `cgroup` is a `struct cgroup *` that the verifier knows, or 0.
#[inline(always)]
pub unsafe fn cgroup_id(cgroup: u64) -> u64 {
    if cgroup == 0 {
        return 1;
    }
    // SAFETY: as the caller promises; the chain keeps its BTF types.
    unsafe {
        let node: u64 = field(cgroup, &CGROUP_KN);
        field(node, &KN_ID)
    }
}

/// `PF_KTHREAD`.
const KERNEL_THREAD: u32 = 0x0020_0000;

/// The slot of a task: by the task, never by who happens to run.
///
/// # Safety
///
/// `task` is a `struct task_struct *` that the verifier knows.
#[inline(always)]
pub unsafe fn task_slot(task: u64) -> u32 {
    // SAFETY: as the caller promises; the chains keep their BTF types.
    unsafe {
        let flags: u32 = field(task, &TASK_FLAGS);
        if flags & KERNEL_THREAD != 0 {
            return SLOT_KERNEL;
        }
        let set: u64 = field(task, &TASK_CGROUPS);
        let id = cgroup_id(field(set, &CSS_SET_DFL));
        if CONFIG_TASKS_V1.load() == 1 && id == 1 {
            // On hybrid hosts a runtime may fill only version 1: the group that is not the root tells more.
            let group: u64 = field(task, &TASK_GROUP);
            return slot_of(TAG_CPU, cgroup_id(field(group, &CSS_CGROUP)));
        }
        slot_of(TAG_UNIFIED, id)
    }
}

/// A cgroup was made. `(struct cgroup *, const char *path)`, since 4.17.
#[btf_tracepoint(function = "cgroup_mkdir")]
pub fn cgroup_mkdir(context: BtfTracePointContext) -> i32 {
    // SAFETY: the arguments are those of the prototype above.
    unsafe { tell(&context, EVENT_MKDIR, context.arg(0), context.arg(1)) };
    0
}

/// A cgroup was removed. Same prototype.
#[btf_tracepoint(function = "cgroup_rmdir")]
pub fn cgroup_rmdir(context: BtfTracePointContext) -> i32 {
    // SAFETY: the arguments are those of the prototype above.
    unsafe { tell(&context, EVENT_RMDIR, context.arg(0), context.arg(1)) };
    0
}

/// Sends the event with its path: a name read later may be gone, since a container can live shorter than any walk.
///
/// # Safety
///
/// `cgroup` is the tracepoint's `struct cgroup *`, `path` its NUL-terminated path.
#[inline(always)]
unsafe fn tell(context: &BtfTracePointContext, kind: u32, cgroup: u64, path: u64) {
    let _ = context;
    let Some(event) = SCRATCH.get_ptr_mut(0) else { return };
    // SAFETY: `event` is this CPU's scratch, and the kernel holds a spin lock around both tracepoints, so nobody
    // else builds an event here. Loads are typed by the verifier.
    unsafe {
        let root: u64 = field(cgroup, &CGROUP_ROOT);
        (*event).kind = kind;
        (*event).hierarchy = field(root, &ROOT_HIERARCHY);
        (*event).id = cgroup_id(cgroup);
        (*event).at_ns = bpf_ktime_get_ns();
        let text = (&raw mut (*event).path).cast();
        let read = bpf_probe_read_kernel_str(text, PATH_BYTES as u32, path as *const _);
        // The length that the helper returns counts the final NUL.
        let length = if read > 0 && read <= PATH_BYTES as i64 { read as u32 - 1 } else { 0 };
        (*event).path_bytes = length;
        let bytes = EVENT_HEAD_BYTES + (length as usize & (PATH_BYTES - 1));
        let record = core::slice::from_raw_parts(event.cast::<u8>(), bytes);
        if EVENTS.output::<[u8]>(record, 0).is_err() {
            lose!(event_lost);
        } else {
            lose!(event_sent);
        }
        #[cfg(feature = "debug-log")]
        aya_log_ebpf::info!(context, "cgroup {}: event {}, {} bytes of path", (*event).id, kind, length);
    }
}
