//! Block family: keys and cells of completed requests.

use crate::hist::BINS;

/// Operations as `/proc/diskstats` groups them; the position is the number that keys hold.
pub const OPERATIONS: [&str; 5] = ["read", "write", "discard", "flush", "other"];
/// Reads.
pub const OP_READ: u32 = 0;
/// Writes, and what the kernel accounts as writes: zone appends, write zeroes, secure erase.
pub const OP_WRITE: u32 = 1;
/// Discards.
pub const OP_DISCARD: u32 = 2;
/// Cache flushes.
pub const OP_FLUSH: u32 = 3;
/// Commands passed through to the driver.
pub const OP_OTHER: u32 = 4;

/// The cell of requests that found no other.
pub const CELL_OVERFLOW: u32 = 0;
/// Shards of every cell, by CPU: few enough that memory does not grow with the machine.
pub const SHARDS_MAX: u32 = 8;
/// Entries of the error map: devices, operations and statuses that have failed.
pub const ERRORS_MAX: u32 = 256;

/// A device number as the kernel side writes it.
#[must_use]
pub const fn device(major: u32, minor: u32) -> u32 {
    major << 20 | minor & 0xf_ffff
}

/// The major and minor number in a device number.
#[must_use]
pub const fn major_minor(device: u32) -> (u32, u32) {
    (device >> 20, device & 0xf_ffff)
}

abi! {
    /// Which cell: an owner's requests of one kind on one device.
    pub struct BlockKey {
        /// The owner's slot.
        pub slot: u32,
        /// The device.
        pub device: u32,
        /// One of the operations above.
        pub op: u32,
        /// 0 in a key; in the list of cells, a stamp of when the cell was taken, never 0 for a cell that was.
        pub taken: u32,
    }

    /// Which failure.
    pub struct BlockErrorKey {
        /// The device.
        pub device: u32,
        /// One of the operations above.
        pub op: u16,
        /// `blk_status_t`.
        pub status: u16,
    }

    /// What completed. Indexed `shard * cells + cell`; written with atomic additions.
    pub struct BlockCell {
        /// Bytes moved.
        pub bytes: u64,
        /// Requests completed.
        pub operations: u64,
        /// Time from the request's start to its issue.
        pub queue_ns: u64,
        /// Time from its issue to its completion.
        pub device_ns: u64,
        /// Requests by time in the queue.
        pub queue: [u32; BINS],
        /// Requests by time on the device.
        pub device: [u32; BINS],
        /// Requests by time in all.
        pub total: [u32; BINS],
    }
}
