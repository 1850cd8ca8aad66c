//! Network family: cells of packets and of TCP connections.

use crate::hist::BINS;

/// Towards the owner.
pub const RECEIVE: usize = 0;
/// From the owner.
pub const TRANSMIT: usize = 1;

/// TCP.
pub const TCP: usize = 0;
/// UDP.
pub const UDP: usize = 1;
/// Every other protocol.
pub const OTHER: usize = 2;
/// Protocols counted apart, in the order of the positions above.
pub const PROTOCOLS: [&str; 3] = ["tcp", "udp", "other"];

/// Opened the connection.
pub const CLIENT: usize = 0;
/// Accepted it.
pub const SERVER: usize = 1;

/// Why an active open failed; the position is the index of `TcpCell::failures`.
pub const FAILURES: [&str; 5] = ["refused", "timeout", "unreachable", "reset", "other"];

abi! {
    /// Packets of one owner on one CPU. Indexed `cpu * slots + slot`; written with atomic additions.
    pub struct NetCell {
        /// Bytes from the IP header on, by direction and protocol.
        pub bytes: [[u64; 3]; 2],
        /// Packets, by direction and protocol; the segments of a large one count each.
        pub packets: [[u64; 3]; 2],
    }

    /// TCP connections of one owner. Indexed `shard * slots + slot`; written with atomic additions.
    pub struct TcpCell {
        /// Connections established, by role.
        pub established: [u64; 2],
        /// Active opens that failed, by reason.
        pub failures: [u64; 5],
        /// Connections closed whose totals are in the fields below, by role.
        pub closed: [u64; 2],
        /// Payload bytes, by direction.
        pub payload: [u64; 2],
        /// Segments sent again.
        pub retransmits: u64,
        /// Sum of connect latencies.
        pub connect_ns: u64,
        /// Sum of connection lifetimes, by role.
        pub lifetime_ns: [u64; 2],
        /// Zero.
        pub reserved: u64,
        /// Successful active opens, by latency.
        pub connects: [u32; BINS],
        /// Closed connections, by role and lifetime.
        pub lifetimes: [[u32; BINS]; 2],
    }

    /// What the kernel side remembers of a socket; dies with it.
    pub struct SocketRecord {
        /// When the SYN was sent; 0 on the accepting side.
        pub syn_ns: u64,
        /// When the connection was established; 0 before.
        pub established_ns: u64,
        /// `CLIENT` or `SERVER`.
        pub role: u64,
    }
}
