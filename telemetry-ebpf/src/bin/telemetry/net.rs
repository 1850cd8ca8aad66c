//! Packets: bytes and segments of every socket's owner, at the IP layer.

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::bpf_skb_cgroup_id;
use aya_ebpf::macros::{cgroup_skb, map};
use aya_ebpf::maps::Array;
use aya_ebpf::programs::SkBuffContext;
use telemetry_ebpf::identity::TAG_UNIFIED;
use telemetry_ebpf::net::{NetCell, OTHER, RECEIVE, TCP, TRANSMIT, UDP};

use crate::cell::{MMAPABLE, add, cell, cpu};
use crate::identity::slot_of;
use crate::kernel::CONFIG_SLOTS;

#[map]
static NET: Array<NetCell> = Array::with_max_entries(1, MMAPABLE);

const PASS: i32 = 1;
const IPV4: u32 = 0x0800_u16.to_be() as u32;
const IPPROTO_TCP: u8 = 6;
const IPPROTO_UDP: u8 = 17;
/// Where the IPv4 header names the protocol, and the IPv6 header the next one.
const IPV4_PROTOCOL: usize = 9;
const IPV6_NEXT_HEADER: usize = 6;

/// A packet reaches a socket. `cgroup_skb`, since 4.10; the data begins with the IP header.
#[cgroup_skb(ingress)]
pub fn skb_receive(context: SkBuffContext) -> i32 {
    count(&context, RECEIVE);
    PASS
}

/// A packet leaves a socket.
#[cgroup_skb(egress)]
pub fn skb_transmit(context: SkBuffContext) -> i32 {
    count(&context, TRANSMIT);
    PASS
}

#[inline(always)]
fn count(context: &SkBuffContext, direction: usize) {
    // SAFETY: the context is the program's own; the cell is a lookup's result, and process and softirq context share
    // it, so additions are atomic.
    unsafe {
        let skb = context.as_ptr() as *const __sk_buff;
        let id = bpf_skb_cgroup_id(context.as_ptr() as *mut _);
        // A packet without a full socket, such as a reset for none, has no cgroup: it is the root's.
        let slot = slot_of(TAG_UNIFIED, if id == 0 { 1 } else { id });
        let Some(owner) = cell(&NET, cpu(), CONFIG_SLOTS.load(), slot) else { return };
        let segments = (*skb).gso_segs as u64;
        let protocol = protocol(skb);
        add(&raw mut (*owner).bytes[direction][protocol], (*skb).len as u64);
        add(&raw mut (*owner).packets[direction][protocol], if segments > 1 { segments } else { 1 });
    }
}

/// The transport protocol, read from the IP header in place. Behind IPv6 extension headers it is `OTHER`.
#[inline(always)]
unsafe fn protocol(skb: *const __sk_buff) -> usize {
    // SAFETY: the byte is read only if it lies before `data_end`, which is what the verifier asks for.
    unsafe {
        let (data, end) = ((*skb).data as usize, (*skb).data_end as usize);
        let at = if (*skb).protocol == IPV4 { IPV4_PROTOCOL } else { IPV6_NEXT_HEADER };
        if data + 20 > end {
            return OTHER;
        }
        match *((data + at) as *const u8) {
            IPPROTO_TCP => TCP,
            IPPROTO_UDP => UDP,
            _ => OTHER,
        }
    }
}
