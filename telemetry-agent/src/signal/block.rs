//! Block signal: what was read and written, for whom, and how long it took in the queue and on the device.
//!
//! Hook: `block_rq_complete`. Metrics: see [`METRICS`]. Cost, kernel and blind spots: docs/signals/block.md. The owner
//! is the cgroup that the request was charged to, never the task that happened to run.

use std::collections::HashMap;
use std::mem::offset_of;

use telemetry_ebpf::block::{BlockCell, BlockErrorKey, BlockKey, CELL_OVERFLOW, OPERATIONS, major_minor};
use telemetry_ebpf::hist::BINS;
use telemetry_ebpf::identity::{Losses, SLOT_KERNEL, SLOT_OVERFLOW};
use telemetry_model::{Batch, Desc, Kind, Label, Labels, OwnerKey, Scope, Unit};

use super::{Readings, Signal, accumulate, at, count, differences, observe};
use crate::bpf::Kernel;

/// Everything this signal can say.
pub static METRICS: &[&Desc] = &[&LATENCY, &BYTES, &COMPLETED, &ERRORS, &UNATTRIBUTED];

static LATENCY: Desc = Desc {
    name: "kernel_block_io_latency_seconds",
    kind: Kind::Histogram,
    unit: Unit::Seconds,
    help: "Latency of completed block requests: waiting in the queue, on the device, and in total. Excludes flushes and requests that the kernel did not date.",
    scope: Scope::Owner,
    labels: &["device", "op", "phase"],
    bound: "owners x devices x 4 x 3, at most the configured cells x 3",
    source: "block_rq_complete: start_time_ns, io_start_time_ns",
};

static BYTES: Desc = Desc {
    name: "kernel_block_io_bytes_total",
    kind: Kind::Counter,
    unit: Unit::Bytes,
    help: "Bytes moved by completed block requests; write-back is charged to the cgroup that dirtied the pages, where the kernel knows it.",
    scope: Scope::Owner,
    labels: &["device", "op"],
    bound: "owners x devices x 5, at most the configured cells",
    source: "block_rq_complete",
};

static COMPLETED: Desc = Desc {
    name: "kernel_block_io_operations_total",
    kind: Kind::Counter,
    unit: Unit::None,
    help: "Block requests completed, counted with their last part.",
    scope: Scope::Owner,
    labels: &["device", "op"],
    bound: "owners x devices x 5, at most the configured cells",
    source: "block_rq_complete",
};

static ERRORS: Desc = Desc {
    name: "kernel_block_io_errors_total",
    kind: Kind::Counter,
    unit: Unit::None,
    help: "Completions of block requests, or of parts of them, that failed, by the kernel's block status.",
    scope: Scope::Node,
    labels: &["device", "op", "status"],
    bound: "256 combinations that have failed",
    source: "block_rq_complete",
};

static UNATTRIBUTED: Desc = Desc {
    name: "kernel_block_io_unattributed_bytes_total",
    kind: Kind::Counter,
    unit: Unit::Bytes,
    help: "Part of kernel_block_io_bytes_total of the owner kernel that is booked there only because the request was charged to no cgroup; already in the sum, not to be added.",
    scope: Scope::Node,
    labels: &["device", "op"],
    bound: "devices x 5",
    source: "block_rq_complete",
};

/// The block family, attached.
struct Block {
    /// Each cell summed over shards, as last read.
    last: Readings<BlockCell>,
    /// Labels of a cell, made when it is taken.
    labels: HashMap<u32, CellLabels>,
    errors: HashMap<(u32, u16, u16), u64>,
    errors_seen: u64,
}

struct CellLabels {
    taken: u32,
    own: Labels,
    queue: Labels,
    device: Labels,
    total: Labels,
}

static EMPTY: BlockCell = BlockCell {
    bytes: 0,
    operations: 0,
    queue_ns: 0,
    device_ns: 0,
    queue: [0; BINS],
    device: [0; BINS],
    total: [0; BINS],
};

/// Opens the family if requests are counted.
pub fn open(kernel: &Kernel) -> Option<Box<dyn Signal>> {
    if !kernel.attached("block_rq_complete") {
        return None;
    }
    Some(Box::new(Block {
        last: Readings::new(kernel.block.keys.capacity(), &EMPTY),
        labels: HashMap::new(),
        errors: HashMap::new(),
        errors_seen: 0,
    }))
}

// === impl Block ===

impl Signal for Block {
    fn drain(&mut self, kernel: &mut Kernel, batch: &mut Batch) {
        let cells = kernel.block.keys.capacity();
        for index in 0..cells {
            let key = match index {
                CELL_OVERFLOW => BlockKey { slot: SLOT_OVERFLOW, device: 0, op: 4, taken: 1 },
                _ => match kernel.block.keys.key(index) {
                    Some(key) => key,
                    // Nobody's, or not written yet: what was counted there comes with the next tick.
                    None => continue,
                },
            };
            let shards = (0..kernel.block_shards).map(|shard| shard * cells + index);
            let word = |offset| {
                shards
                    .clone()
                    .fold(0_u64, |sum, cell| sum.wrapping_add(kernel.block.cells.word(cell, offset)))
            };
            let last = self.last.get(index);
            // A flush moves no bytes, a part of a request ends no operation.
            if word(offset_of!(BlockCell, operations)) == last.operations
                && word(offset_of!(BlockCell, bytes)) == last.bytes
            {
                continue;
            }
            let now = shards.clone().filter_map(|cell| kernel.block.cells.get(cell)).fold(EMPTY, add);
            kernel.slots.moved(key.slot);
            let owner = kernel.slots.owner(key.slot);
            self.emit(index, &key, owner, &now, batch);
            self.last.set(index, now);
        }
        self.drain_errors(kernel, batch);
    }
}

impl Block {
    fn emit(&mut self, index: u32, key: &BlockKey, owner: OwnerKey, now: &BlockCell, batch: &mut Batch) {
        let last = self.last.get(index);
        let labels = match self.labels.entry(index) {
            std::collections::hash_map::Entry::Occupied(mut entry) => {
                if entry.get().taken != key.taken {
                    entry.insert(CellLabels::new(index, key));
                }
                entry.into_mut()
            }
            std::collections::hash_map::Entry::Vacant(entry) => entry.insert(CellLabels::new(index, key)),
        };
        let bytes = now.bytes.wrapping_sub(last.bytes);
        count(batch, owner, &BYTES, &labels.own, bytes);
        count(batch, owner, &COMPLETED, &labels.own, now.operations.wrapping_sub(last.operations));
        if key.slot == SLOT_KERNEL {
            count(batch, OwnerKey::Kernel, &UNATTRIBUTED, &labels.own, bytes);
        }
        let queue = now.queue_ns.wrapping_sub(last.queue_ns);
        let device = now.device_ns.wrapping_sub(last.device_ns);
        for (labels, now_bins, last_bins, sum) in [
            (&labels.queue, &now.queue, &last.queue, queue),
            (&labels.device, &now.device, &last.device, device),
            (&labels.total, &now.total, &last.total, queue.wrapping_add(device)),
        ] {
            observe(batch, owner, &LATENCY, labels, differences(now_bins, last_bins), sum);
        }
    }

    /// Failures are rare: the map is read only when the kernel side counted one.
    fn drain_errors(&mut self, kernel: &Kernel, batch: &mut Batch) {
        let offset = offset_of!(Losses, block_errors);
        let seen = (0..kernel.cpus).fold(0_u64, |sum, cpu| sum.wrapping_add(kernel.losses.word(cpu, offset)));
        if seen == self.errors_seen {
            return;
        }
        self.errors_seen = seen;
        for (BlockErrorKey { device, op, status }, total) in kernel.block.errors() {
            let last = self.errors.entry((device, op, status)).or_default();
            let labels = Labels::new(vec![
                Label::new("device", device_name(device)),
                Label::new("op", operation(u32::from(op))),
                Label::new("status", status_name(status)),
            ]);
            count(batch, OwnerKey::Kernel, &ERRORS, &labels, total.wrapping_sub(*last));
            *last = total;
        }
    }
}

// === impl CellLabels ===

impl CellLabels {
    fn new(index: u32, key: &BlockKey) -> Self {
        let device = if index == CELL_OVERFLOW { "_other".to_owned() } else { device_name(key.device) };
        let own = Labels::new(vec![Label::new("device", device), Label::new("op", operation(key.op))]);
        let phase = |phase| own.and(&Labels::fixed(&[("phase", phase)]));
        Self { taken: key.taken, queue: phase("queue"), device: phase("device"), total: phase("total"), own }
    }
}

fn add(sum: BlockCell, cell: BlockCell) -> BlockCell {
    let BlockCell { mut queue, mut device, mut total, .. } = sum;
    accumulate(&mut queue, &cell.queue);
    accumulate(&mut device, &cell.device);
    accumulate(&mut total, &cell.total);
    BlockCell {
        bytes: sum.bytes.wrapping_add(cell.bytes),
        operations: sum.operations.wrapping_add(cell.operations),
        queue_ns: sum.queue_ns.wrapping_add(cell.queue_ns),
        device_ns: sum.device_ns.wrapping_add(cell.device_ns),
        queue,
        device,
        total,
    }
}

fn operation(op: u32) -> &'static str {
    OPERATIONS.get(at(op)).copied().unwrap_or("other")
}

/// The kernel's name of a device; its numbers where it has gone, `none` for requests without a disk.
fn device_name(device: u32) -> String {
    if device == 0 {
        return "none".to_owned();
    }
    let (major, minor) = major_minor(device);
    let link = std::fs::read_link(format!("/sys/dev/block/{major}:{minor}")).ok();
    let name =
        link.as_deref().and_then(|path| path.file_name()).map(|name| name.to_string_lossy().into_owned());
    // The kernel writes `!` where a device's name has `/`.
    name.map_or_else(|| format!("{major}:{minor}"), |name| name.replace('!', "/"))
}

/// `blk_status_t` as the kernel names it; numbers above 13 differ between versions and stay numbers.
fn status_name(status: u16) -> String {
    const NAMES: [&str; 14] = [
        "ok",
        "notsupp",
        "timeout",
        "nospc",
        "transport",
        "target",
        "resv_conflict",
        "medium",
        "protection",
        "resource",
        "ioerr",
        "dm_requeue",
        "again",
        "dev_resource",
    ];
    NAMES.get(usize::from(status)).map_or_else(|| status.to_string(), |&name| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_named_as_the_kernel_names_them() {
        assert_eq!(status_name(10), "ioerr");
        assert_eq!(status_name(2), "timeout");
        assert_eq!(status_name(99), "99");
    }

    #[test]
    fn a_device_that_is_gone_keeps_its_numbers() {
        assert_eq!(device_name(telemetry_ebpf::block::device(4095, 1_048_575)), "4095:1048575");
        assert_eq!(device_name(0), "none");
    }
}
