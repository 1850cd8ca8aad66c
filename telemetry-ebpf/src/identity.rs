//! Identity: a cgroup's id becomes a dense slot, and slots index every per-owner array.
//!
//! Slots are handed out by the agent and taken by the kernel side; a cgroup that finds none counts in the overflow
//! slot, so that totals stay exact.

/// Counts of cgroups that found no slot. Exposed as `unit="_other"`.
pub const SLOT_OVERFLOW: u32 = 0;
/// Kernel threads, and work that no cgroup was charged for. Exposed as `unit="kernel"`.
pub const SLOT_KERNEL: u32 = 1;
/// The first slot that a cgroup can have.
pub const SLOT_FIRST: u32 = 2;
/// A slot is 16 bits of a cache word.
pub const SLOTS_LIMIT: u32 = 1 << 14;

/// Words of the direct-mapped cache in front of the hash: 64 KiB, eight times the owners of a full node.
pub const CACHE_WORDS: u32 = 8192;

/// An id above this many bits goes to the overflow slot. Ids count up from 1 and carry a generation in their upper
/// half, so that this many hold 16,383 wraps of 2^32 cgroups.
pub const ID_BITS: u32 = 46;
/// Bits of a key: the hierarchy's tag above the id.
pub const KEY_BITS: u32 = 48;

/// Ids count in version 2's only hierarchy.
pub const TAG_UNIFIED: u64 = 0;
/// Ids count in version 1's `cpu` hierarchy.
pub const TAG_CPU: u64 = 1;
/// Ids count in version 1's `blkio` hierarchy.
pub const TAG_BLKIO: u64 = 2;

/// A key of a cgroup: unique over hierarchies. None if the id has too many bits.
#[must_use]
#[inline(always)]
pub const fn key_of(tag: u64, id: u64) -> Option<u64> {
    if id >> ID_BITS != 0 { None } else { Some(tag << ID_BITS | id) }
}

/// The hierarchy's tag in a key.
#[must_use]
pub const fn tag_of(key: u64) -> u64 {
    key >> ID_BITS & 3
}

/// The cgroup's id in a key.
#[must_use]
pub const fn id_of(key: u64) -> u64 {
    key & ((1 << ID_BITS) - 1)
}

/// The cache word that remembers `slot` for `key`.
#[must_use]
#[inline(always)]
pub const fn cache_word(key: u64, slot: u32) -> u64 {
    key << 16 | slot as u64
}

/// The place of a key in the cache.
#[must_use]
#[inline(always)]
pub const fn cache_index(key: u64) -> u32 {
    // The tag takes part, so that one pod's groups in several hierarchies do not evict each other for ever.
    (key ^ (key >> ID_BITS).wrapping_mul(2731)) as u32 & (CACHE_WORDS - 1)
}

/// The longest cgroup path that travels with an event: the kernel's own trace buffer holds no more.
pub const PATH_BYTES: usize = 1024;
/// A cgroup directory was made.
pub const EVENT_MKDIR: u32 = 1;
/// A cgroup directory was removed.
pub const EVENT_RMDIR: u32 = 2;
/// Bytes of the ring buffer for events: 1,000 births at 250 bytes.
pub const EVENTS_BYTES: u32 = 256 * 1024;

/// Bytes of an event before its path.
pub const EVENT_HEAD_BYTES: usize = size_of::<Event>() - PATH_BYTES;

abi! {
    /// Who has a slot, and since when. The authority on slots: events are only hints.
    pub struct Meta {
        /// The key, 0 for a slot that was never taken.
        pub key: u64,
        /// `CLOCK_MONOTONIC` when it was taken.
        pub born_ns: u64,
    }

    /// A cgroup event. In the ring buffer it ends after `path_bytes` bytes of its path, which has no final NUL.
    pub struct Event {
        /// `EVENT_MKDIR` or `EVENT_RMDIR`.
        pub kind: u32,
        /// 0 for version 2, else the number that `/proc/cgroups` gives the hierarchy.
        pub hierarchy: u32,
        /// The cgroup's id.
        pub id: u64,
        /// `CLOCK_MONOTONIC` when it came or went.
        pub at_ns: u64,
        /// Length of the path.
        pub path_bytes: u32,
        /// Zero.
        pub reserved: u32,
        /// The path below the hierarchy's root.
        pub path: [u8; PATH_BYTES],
    }

    /// What went wrong or took the long way, counted per CPU: no loss is silent.
    pub struct Losses {
        /// Events of a cgroup that found no free slot, counted in the overflow slot.
        pub slot_none: u64,
        /// Inserts that the slot hash refused.
        pub slot_refused: u64,
        /// Lookups that the cache could not answer.
        pub slot_slow: u64,
        /// Ids with more bits than a key holds.
        pub id_too_wide: u64,
        /// Cgroup events that found the ring buffer full.
        pub event_lost: u64,
        /// Cgroup events written.
        pub event_sent: u64,
        /// Stays on a CPU whose beginning was not seen: counted from the kernel's own mark, without their wait.
        pub switch_missed: u64,
        /// Requests that found no block cell, counted in the overflow cell.
        pub block_cell_none: u64,
        /// Requests without the kernel's time stamps: counted, without latency.
        pub block_undated: u64,
        /// Failed requests, and so entries of the error map that moved.
        pub block_errors: u64,
        /// Failed requests that found the error map full.
        pub block_error_lost: u64,
        /// Connections whose record the kernel had no memory for.
        pub socket_refused: u64,
        /// Connections older than the agent, closed without totals.
        pub socket_unseen: u64,
        /// Zero.
        pub reserved: [u64; 3],
    }
}
