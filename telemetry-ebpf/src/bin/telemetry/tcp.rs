//! TCP connections: state changes, and totals read from the socket when it closes.

use aya_ebpf::helpers::generated::{bpf_ktime_get_ns, bpf_sk_storage_get, bpf_skc_to_tcp_sock};
use aya_ebpf::macros::{btf_map, btf_tracepoint, map};
use aya_ebpf::maps::Array;
use aya_ebpf::programs::BtfTracePointContext;
use core::ffi::c_void;
use telemetry_ebpf::hist::bin_of;
use telemetry_ebpf::identity::TAG_UNIFIED;
use telemetry_ebpf::net::{CLIENT, RECEIVE, SERVER, SocketRecord, TRANSMIT, TcpCell};

use crate::cell::{MMAPABLE, add, cell, cpu, observe};
use crate::identity::{cgroup_id, lose, slot_of};
use crate::kernel::*;

#[map]
static TCP: Array<TcpCell> = Array::with_max_entries(1, MMAPABLE);

/// A BTF map definition is only its field types: kind, key, value, entries, `BPF_F_NO_PREALLOC`. aya-ebpf has no
/// socket storage for tracing programs.
#[repr(C)]
pub struct SocketStorage {
    r#type: *const [i32; 24],
    key: *const i32,
    value: *const SocketRecord,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; 1],
}

// SAFETY: never read on this side; the kernel synchronises access through the helper.
unsafe impl Sync for SocketStorage {}

#[btf_map]
static SOCKETS: SocketStorage = SocketStorage {
    r#type: core::ptr::null(),
    key: core::ptr::null(),
    value: core::ptr::null(),
    max_entries: core::ptr::null(),
    map_flags: core::ptr::null(),
};

const FIND: u64 = 0;
/// `BPF_SK_STORAGE_GET_F_CREATE`.
const CREATE: u64 = 1;

const IPPROTO_TCP: u16 = 6;
const ESTABLISHED: u32 = 1;
const SYN_SENT: u32 = 2;
const SYN_RECV: u32 = 3;
const FIN_WAIT1: u32 = 4;
const FIN_WAIT2: u32 = 5;
const CLOSE: u32 = 7;
const LAST_ACK: u32 = 9;
const CLOSING: u32 = 11;
/// Bit of `SOCK_DONE` in `sk_flags`: the peer's FIN was received.
const PEER_DONE: u64 = 1 << 1;

/// A socket changes its state. `(const struct sock *, int old, int new)`, since 4.16. Established comes in softirq,
/// in whoever was interrupted: only the socket tells whose it is.
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn inet_sock_set_state(context: BtfTracePointContext) -> i32 {
    // SAFETY: the arguments are those of the prototype; loads are typed.
    unsafe {
        let socket: u64 = context.arg(0);
        let old: u32 = context.arg(1);
        let new: u32 = context.arg(2);
        if field::<u16>(socket, &SK_PROTOCOL) != IPPROTO_TCP {
            return 0;
        }
        match new {
            SYN_SENT => opening(socket),
            ESTABLISHED => established(socket, old),
            CLOSE if old == SYN_SENT => failed(socket),
            // From other states there was no connection: a listener, or a socket that was never used.
            CLOSE if old != SYN_RECV => closed(socket, old),
            _ => {}
        }
        0
    }
}

/// The record of a socket; null if it has none, or the kernel no memory.
#[inline(always)]
unsafe fn record(socket: u64, flags: u64) -> *mut SocketRecord {
    // SAFETY: `socket` is the tracepoint's `struct sock *`.
    unsafe {
        bpf_sk_storage_get(
            &raw const SOCKETS as *mut c_void,
            socket as *mut c_void,
            core::ptr::null_mut(),
            flags,
        )
        .cast()
    }
}

#[inline(always)]
unsafe fn owner(socket: u64) -> Option<*mut TcpCell> {
    // SAFETY: `socket` is the tracepoint's `struct sock *`.
    let slot = unsafe { slot_of(TAG_UNIFIED, cgroup_id(field(socket, &SK_CGROUP))) };
    cell(&TCP, cpu() & CONFIG_TCP_SHARD_MASK.load(), CONFIG_SLOTS.load(), slot)
}

#[inline(always)]
unsafe fn opening(socket: u64) {
    // SAFETY: a fresh record, written before the SYN leaves.
    unsafe {
        let record = record(socket, CREATE);
        if record.is_null() {
            lose!(socket_refused);
            return;
        }
        (*record).syn_ns = bpf_ktime_get_ns();
        (*record).established_ns = 0;
        (*record).role = CLIENT as u64;
    }
}

#[inline(always)]
unsafe fn established(socket: u64, old: u32) {
    // SAFETY: the socket is locked while its state changes, so nobody else writes its record.
    unsafe {
        let Some(owner) = owner(socket) else { return };
        let record = record(socket, CREATE);
        let now = bpf_ktime_get_ns();
        if old == SYN_SENT {
            add(&raw mut (*owner).established[CLIENT], 1);
        } else {
            add(&raw mut (*owner).established[SERVER], 1);
        }
        if record.is_null() {
            lose!(socket_refused);
            return;
        }
        (*record).established_ns = now;
        if old != SYN_SENT {
            (*record).role = SERVER as u64;
            return;
        }
        (*record).role = CLIENT as u64;
        if (*record).syn_ns != 0 {
            let latency = now - (*record).syn_ns;
            add(&raw mut (*owner).connect_ns, latency);
            observe(&raw mut (*owner).connects, bin_of(latency));
        }
    }
}

/// An active open that came to nothing. The error is set before the state.
#[inline(always)]
unsafe fn failed(socket: u64) {
    const ENETUNREACH: u32 = 101;
    const ECONNRESET: u32 = 104;
    const ETIMEDOUT: u32 = 110;
    const ECONNREFUSED: u32 = 111;
    const EHOSTDOWN: u32 = 112;
    const EHOSTUNREACH: u32 = 113;
    // SAFETY: loads are typed; the index is one of five constants.
    unsafe {
        let Some(owner) = owner(socket) else { return };
        let reason = match field::<u32>(socket, &SK_ERR) {
            ECONNREFUSED => 0,
            ETIMEDOUT => 1,
            ENETUNREACH | EHOSTDOWN | EHOSTUNREACH => 2,
            ECONNRESET => 3,
            _ => 4,
        };
        add(&raw mut (*owner).failures[reason], 1);
    }
}

/// Folds a connection's totals in. `bytes_acked` also counts the SYN of the opening side and an acknowledged FIN,
/// `bytes_received` the peer's FIN; what is left is payload.
#[inline(always)]
unsafe fn closed(socket: u64, old: u32) {
    // SAFETY: the socket is locked while its state changes; the cast is checked by the kernel.
    unsafe {
        let record = record(socket, FIND);
        if record.is_null() || (*record).established_ns == 0 {
            // A listener has no totals; a connection that is older than the programs has a history they did not see.
            if matches!(old, ESTABLISHED | FIN_WAIT1 | FIN_WAIT2 | 8 | LAST_ACK | CLOSING) {
                lose!(socket_unseen);
            }
            return;
        }
        let tcp = bpf_skc_to_tcp_sock(socket as *mut c_void) as u64;
        let Some(owner) = owner(socket) else { return };
        if tcp == 0 {
            return;
        }
        let client = (*record).role == CLIENT as u64;
        let flags: u64 = field(socket, &SK_FLAGS);
        let peer_done = (flags & PEER_DONE != 0) as u64;
        let unacked: u32 = field(tcp, &TP_SND_UNA);
        let written: u32 = field(tcp, &TP_WRITE_SEQ);
        let fin_sent = matches!(old, FIN_WAIT1 | FIN_WAIT2 | LAST_ACK | CLOSING);
        let overhead = client as u64 + (fin_sent && unacked == written) as u64;
        let acked: u64 = field(tcp, &TP_ACKED);
        let received: u64 = field(tcp, &TP_RECEIVED);
        let again: u32 = field(tcp, &TP_RETRANS);
        add(&raw mut (*owner).payload[TRANSMIT], acked.saturating_sub(overhead));
        add(&raw mut (*owner).payload[RECEIVE], received.saturating_sub(peer_done));
        add(&raw mut (*owner).retransmits, again as u64);
        let lifetime = bpf_ktime_get_ns() - (*record).established_ns;
        let bin = bin_of(lifetime);
        if client {
            add(&raw mut (*owner).closed[CLIENT], 1);
            add(&raw mut (*owner).lifetime_ns[CLIENT], lifetime);
            observe(&raw mut (*owner).lifetimes[CLIENT], bin);
        } else {
            add(&raw mut (*owner).closed[SERVER], 1);
            add(&raw mut (*owner).lifetime_ns[SERVER], lifetime);
            observe(&raw mut (*owner).lifetimes[SERVER], bin);
        }
        // A socket may be used again after it was disconnected.
        (*record).established_ns = 0;
        (*record).syn_ns = 0;
    }
}
